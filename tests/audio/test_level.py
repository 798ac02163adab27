"""The level: the standard's curve and tolerances, a minute's figures, "loud", gaps."""

import numpy as np
import pytest

import streamtwl
from streamtwl.audio.intake import Stream
from streamtwl.audio.level import RESPONSE_S, LevelMeter, a_weighting
from streamtwl.errors import ConfigError
from streamtwl.stages import SAMPLE_RATE, Chunk, Source

# IEC 61672-1:2013, table 3: nominal frequency, A-weighting in dB, acceptance limits of class 1
TABLE_3 = [
    (10, -70.4, 3.0, -np.inf), (12.5, -63.4, 2.5, -np.inf), (16, -56.7, 2.0, -4.0),
    (20, -50.5, 2.0, -2.0), (25, -44.7, 2.0, -1.5), (31.5, -39.4, 1.5, -1.5),
    (40, -34.6, 1.0, -1.0), (50, -30.2, 1.0, -1.0), (63, -26.2, 1.0, -1.0),
    (80, -22.5, 1.0, -1.0), (100, -19.1, 1.0, -1.0), (125, -16.1, 1.0, -1.0),
    (250, -8.6, 1.0, -1.0), (500, -3.2, 1.0, -1.0), (1000, 0.0, 0.7, -0.7), (2000, 1.2, 1.0, -1.0),
    (4000, 1.0, 1.0, -1.0), (6300, -0.1, 1.5, -2.0), (8000, -1.1, 1.5, -2.5),
    (10000, -2.5, 2.0, -3.0), (12500, -4.3, 2.0, -5.0), (16000, -6.6, 2.5, -16.0),
    (20000, -9.3, 3.0, -np.inf),
]  # fmt: skip


def tone(hz: float, rate: int, seconds: float, dbfs: float = -20.0) -> np.ndarray:
    """Return float32[n] of an RMS of `dbfs`."""
    at = np.arange(round(seconds * rate)) / rate
    return (np.sqrt(2) * 10 ** (dbfs / 20) * np.sin(2 * np.pi * hz * at)).astype(np.float32)


def measured(*sounds: np.ndarray, rate: int = 8000, piece: int = 4000, **options) -> LevelMeter:
    """Return a meter that has taken these, one after the other."""
    meter = LevelMeter(**options)
    meter.begin(0, rate)
    sound = np.concatenate(sounds)
    for at in range(0, len(sound), piece):
        meter.push(sound[at : at + piece])
    return meter


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000, 96_000])
def test_the_curve_is_within_class_1_at_every_rate(rate):
    """A third-octave's exact frequency is 1000 * 10^(n/10); what is beyond the rate is left out."""
    for nominal, weight, above, below in TABLE_3:
        exact = 1000 * 10 ** (round(10 * np.log10(nominal / 1000)) / 10)
        assert 20 * np.log10(a_weighting(np.array(exact))) == pytest.approx(weight, abs=0.06)
        if exact < 0.49 * rate:
            error = measured(tone(exact, rate, 2.0), rate=rate).fast_db + 20 - weight
            assert below <= error <= above, nominal
            assert abs(error) < 0.8, nominal  # a slow tone ripples in the fast level


@pytest.mark.parametrize("piece", [1, 137, 8000])
def test_pieces_make_no_difference(piece):
    noise = 0.1 * np.random.default_rng(3).standard_normal(61 * 8000).astype(np.float32)
    whole = measured(noise, piece=len(noise))
    small = measured(noise[: 8000 if piece == 1 else None], piece=piece)
    if piece > 1:
        [minute] = small.minutes
        assert minute == whole.minutes[0]
        assert minute.position == round((60 + RESPONSE_S) * SAMPLE_RATE)  # the filter's first
    else:
        assert small.fast_db is not None


def test_a_minute_has_the_mean_power_and_the_shares_of_time():
    """Six seconds at -20 in 54 at -60, so the tenth is the border; 1 kHz weighs 0 dB."""
    loud, soft = tone(1000, 8000, 7.0), tone(1000, 8000, 54.5, -60.0)
    [minute] = measured(loud, soft).minutes
    assert minute.seconds == 60.0
    assert minute.leq_db == pytest.approx(-20 + 10 * np.log10(7 / 60), abs=0.2)
    assert minute.leq_dbfs == pytest.approx(minute.leq_db, abs=0.1)
    assert (minute.l10_db, minute.max_db) == pytest.approx((-20, -20), abs=0.2)
    assert minute.l90_db == pytest.approx(-60, abs=0.2)


def test_a_calibration_is_added():
    meter = measured(tone(1000, 8000, 61.0), offset_db=114.0)
    assert meter.calibrated
    assert (meter.fast_db, meter.minutes[0].leq_db) == pytest.approx((94.0, 94.0), abs=0.1)
    assert meter.minutes[0].leq_dbfs == pytest.approx(-20.0, abs=0.1)


def test_silence_and_a_constant_have_the_lowest_level():
    assert measured(np.zeros(16_000, np.float32)).fast_db == -120.0
    assert measured(np.full(16_000, 0.5, np.float32)).fast_db < -100


def test_loud_begins_and_ends_once():
    steady, louder = tone(1000, 8000, 3.0, -40.0), tone(1000, 8000, 2.0)
    meter = measured(steady, louder, steady, louder, steady, loud_db=-30.0)
    phases = [(each.phase, each.number) for each in meter.crossings]
    assert phases == [("onset", 0), ("offset", 0), ("onset", 1), ("offset", 1)]
    spans = [(each.start, each.end) for each in meter.crossings if each.end]
    expected = [(3 * SAMPLE_RATE, 5 * SAMPLE_RATE), (8 * SAMPLE_RATE, 10 * SAMPLE_RATE)]
    assert np.abs(np.subtract(spans, expected)).max() < 0.5 * SAMPLE_RATE


@pytest.mark.parametrize("rate", [8000, 44_100])
@pytest.mark.parametrize("quiet_s", [2.0, 2.03, 2.06, 2.09])
def test_loud_is_dated_to_a_tenth_of_a_second(rate, quiet_s):
    quiet = np.zeros(round(quiet_s * rate), np.float32)
    meter = measured(quiet, tone(1000, rate, 1.0, 0.0), rate=rate, loud_db=-30.0)
    [onset, *_] = meter.crossings
    assert -0.1 <= onset.start / SAMPLE_RATE - quiet_s <= 0.01


def test_a_short_burst_is_loud_wherever_it_falls():
    """Of 20 ms: its fast level is over -19 dB for a few hundredths of a second, in any tenth."""
    burst = tone(1000, 48_000, 0.02, -10.0)
    for late_s in np.arange(0, 0.1, 0.013):
        before = np.zeros(round((2 + late_s) * 48_000), np.float32)
        meter = measured(before, burst, np.zeros(62 * 48_000, np.float32), rate=48_000, loud_db=-19)
        assert meter.minutes[0].max_db == pytest.approx(-18.4, abs=0.5)
        assert [each.phase for each in meter.crossings] == ["onset", "offset"], late_s


def test_the_beginning_of_a_stretch_is_not_the_loudest():
    """The mean of the first hundredths of a second is that of a burst, if there is one."""
    first = round(RESPONSE_S * 8000)  # what the filter takes to fill
    sound = np.concatenate([np.zeros(first, np.float32), tone(1000, 8000, 0.01)])
    [minute] = measured(sound, tone(1000, 8000, 61.0, -60.0)).minutes
    assert minute.max_db < -40


def test_a_stream_that_ends_has_a_shorter_minute():
    meter = measured(tone(1000, 8000, 90.0))
    meter.finish()
    whole, rest = meter.minutes
    assert (whole.seconds, rest.seconds) == pytest.approx((60, 30), abs=0.1)
    assert rest.leq_db == pytest.approx(-20, abs=0.1)
    assert rest.position == pytest.approx(90 * SAMPLE_RATE, abs=0.02 * SAMPLE_RATE)
    short = measured(tone(1000, 8000, 2.0))
    short.finish()
    assert not short.minutes


def test_a_gap_ends_what_is_loud_and_no_filter_reaches_across_it():
    class Twice(Source):
        def start(self) -> None:
            self.state = "listening"

        def due_in(self, now: float) -> float:
            return 0.0

        def read(self, now: float) -> Chunk:
            return chunks.pop(0)

        def stop(self) -> None:
            pass

    sound = tone(1000, 8000, 2.0).reshape(-1, 1)
    chunks = [Chunk(sound, 8000, 0), Chunk(sound, 8000, 80_000)]
    stream = Stream(0, Twice("a", paced=False, clocked=False))
    stream.source.state = "listening"
    stream.meter = LevelMeter(loud_db=-30.0)
    stream.read(0.0)
    stream.read(0.0)
    first, ended, second = stream.meter.crossings
    assert (first.phase, ended.phase, second.phase) == ("onset", "offset", "onset")
    assert ended.end <= 2 * SAMPLE_RATE
    assert 10 * SAMPLE_RATE <= second.start < 10.5 * SAMPLE_RATE


def test_minutes_that_nobody_takes_are_bounded():
    meter = measured(np.zeros(8000 * 61, np.float32), rate=8000)
    meter.minutes.extend([*meter.minutes] * 500)
    meter.crossings.extend([None] * 500)
    assert len(meter.minutes) == len(meter.crossings) == 60


@pytest.fixture
def pipeline(tmp_path):
    """Write a pipeline of YAMNet alone with these lines under [level]; return its path."""

    def write(*lines: str) -> str:
        path = tmp_path / "mine.toml"
        path.write_text("\n".join(['base = "yamnet"', "hop_s = 0.96", "[level]", *lines]))
        return str(path)

    return write


def test_levels_are_published_of_a_recording(yamnet, wav, pipeline):
    sound = [tone(1000, 48_000, 30.0, -40.0), tone(1000, 48_000, 31.5)]
    file = wav("steps.wav", np.concatenate(sound), 48_000)
    name = pipeline("calibration_db = { steps = 100.0 }", "loud_dba = 70.0")
    kinds = ("level", "event", "status", "hello")
    taken = [*streamtwl.listen(str(file), kinds=kinds, pipeline=name, fast=True)]
    [minute] = [each for each in taken if isinstance(each, streamtwl.Level)]
    assert minute.calibrated
    assert (minute.l10_dba, minute.l90_dba, minute.max_dba) == pytest.approx((80, 60, 80), abs=0.2)
    assert minute.leq_dba == pytest.approx(77, abs=0.3)
    assert minute.position == pytest.approx(60 * SAMPLE_RATE, abs=1600)
    loud = [each for each in taken if isinstance(each, streamtwl.Event) and each.label == "Loud"]
    assert [each.phase for each in loud] == ["onset", "offset"]
    assert loud[0].start == pytest.approx(30 * SAMPLE_RATE, abs=SAMPLE_RATE / 4)
    assert "Loud" in next(each for each in taken if isinstance(each, streamtwl.Hello)).labels
    last = [each for each in taken if isinstance(each, streamtwl.Status)][-1]
    assert last.last_seq["level/steps/"] == 0


def test_a_short_recording_has_a_level_and_a_name_that_is_no_source_is_said(
    yamnet, wav, pipeline, caplog
):
    file = wav("a.wav", tone(1000, 16_000, 10.0))
    name = pipeline("calibration_db = { b = 100.0 }")
    [level] = streamtwl.listen(str(file), kinds=("level",), pipeline=name, fast=True)
    assert level.seconds == pytest.approx(10, abs=0.1)
    assert not level.calibrated
    assert "level.calibration_db: no source here is called 'b': there is a" in caplog.text


def test_a_threshold_that_nothing_reaches_is_refused(yamnet, wav, pipeline):
    file = wav("a.wav", tone(1000, 16_000, 1.0))
    with pytest.raises(ConfigError, match=r"level\.loud_dba is 70, but 'a' is not calibrated"):
        next(streamtwl.listen(str(file), pipeline=pipeline("loud_dba = 70.0"), fast=True))


def test_it_can_be_switched_off(yamnet, wav, pipeline):
    file = wav("a.wav", tone(1000, 16_000, 2.0))
    kept = streamtwl.listen(
        str(file), kinds=("status",), pipeline=pipeline("enabled = false"), fast=True
    )
    assert {each.level_dba for each in kept} == {None}
