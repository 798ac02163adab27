import numpy as np
import pytest

from streamtwl.audio.mix import Mixer
from streamtwl.errors import AudioError

RATE = 16_000


def sound(seconds: float = 1.0, seed: int = 1) -> np.ndarray:
    """Return float32[n] of noise at about -20 dBFS."""
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def mixed(mixer: Mixer, *channels: np.ndarray, block: int = 320) -> np.ndarray:
    frames = np.stack(channels, axis=1)
    return np.concatenate(
        [mixer.mix(frames[i : i + block], RATE) for i in range(0, len(frames), block)]
    )


def level_db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(samples.astype(float) ** 2) + 1e-30)


@pytest.mark.parametrize("share", [0.99, 0.95, 0.85])  # of the inverted channel
@pytest.mark.parametrize("block", [320, 7680])
def test_channels_that_cancel_give_the_louder_one(share, block, caplog):
    one = sound()
    out = mixed(Mixer("mic", None), -share * one, one, block=block)
    np.testing.assert_array_equal(out[-RATE // 2 :], one[-RATE // 2 :])
    [record] = caplog.records
    assert "'mic': its channels cancel one another out, so channel 2" in record.getMessage()
    assert "--channel" in record.getMessage()


@pytest.mark.parametrize(
    "others",
    [
        [sound()],  # the same sound on both
        [sound(seed=2)],  # another
        [0 * sound()],  # none
        [-0.5 * sound()],  # half of it inverted: a quarter is left
        [0 * sound(), 0 * sound(), 0 * sound()],  # one of four
    ],
)
def test_other_channels_are_mixed(others, caplog):
    one = sound()
    out = mixed(Mixer("mic", None), one, *others)
    np.testing.assert_allclose(out, np.mean([one, *others], axis=0), rtol=0, atol=1e-6)
    assert not caplog.records


def test_one_of_many_channels_is_used_until_others_sound(caplog):
    centre = sound(2)  # of a film
    others = [sound(2, seed=seed) for seed in range(5)]
    for other in others:
        other[:RATE] = 0
    channels = [*others[:2], centre, *others[2:]]
    out = mixed(Mixer("film", None), *channels)
    np.testing.assert_array_equal(out[RATE // 2 : RATE], centre[RATE // 2 : RATE])
    last = slice(-RATE // 2, None)
    np.testing.assert_allclose(out[last], np.mean(channels, axis=0)[last], rtol=0, atol=1e-6)
    [record] = caplog.records
    assert "'film': most of its channels are silent, so channel 3" in record.getMessage()


def test_channels_that_cancel_for_a_while_are_mixed_again(caplog):
    one, other = sound(4), sound(4, seed=2)
    other[:RATE] = -one[:RATE]
    out = mixed(Mixer("mic", None), one, other)
    np.testing.assert_allclose(out[-RATE:], (one + other)[-RATE:] / 2, rtol=0, atol=1e-6)
    assert len(caplog.records) == 1


def test_the_channel_in_use_may_die():
    one = sound(4)
    other = -one
    other[2 * RATE :] = 0
    lively = one.copy()
    out = mixed(Mixer("mic", None), lively, 1.1 * other)  # the second is louder
    assert level_db(out[-RATE:]) > level_db(one) - 7


def test_silence_cancels_nothing(caplog):
    quiet = 1e-5 * sound()
    mixed(Mixer("mic", None), quiet, -quiet)
    mixed(Mixer("mic", None), 0 * quiet, 0 * quiet)
    assert not caplog.records


def test_a_short_coincidence_is_no_wiring(caplog):
    one, other = sound(), sound(seed=3)
    other[4000:5000] = -one[4000:5000]  # 63 ms
    mixed(Mixer("mic", None), one, other)
    assert not caplog.records


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_a_channel_by_number_is_used_alone(channel):
    channels = [sound(seed=seed) for seed in range(3)]
    np.testing.assert_array_equal(mixed(Mixer("mic", channel), *channels), channels[channel - 1])


@pytest.mark.parametrize("channels", [1, 2])
def test_a_channel_that_is_not_there_is_an_error(channels):
    with pytest.raises(AudioError, match=rf"'mic' has {channels} channel\(s\), not 3"):
        mixed(Mixer("mic", 3), *[sound()] * channels)
