import json
import sqlite3
import time
from datetime import datetime

import msgspec
import pytest

from streamtwl import history
from streamtwl.audio import demo
from streamtwl.errors import DamagedJournal, UsageError
from streamtwl.messages import Event, Label, decode, encode
from streamtwl.sinks.journal import Entry, Journal
from tests import example_messages as examples

NOON = datetime.fromisoformat("2026-11-23T12:00+01:00").timestamp()
HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    """Central Europe's time, whatever this machine's is; zone(...) changes it."""

    def use(rules: str) -> None:
        monkeypatch.setenv("TZ", rules)
        time.tzset()

    use("CET-1CEST,M3.5.0,M10.5.0/3")
    yield use
    monkeypatch.undo()
    time.tzset()


def event(
    number: int, label: str, began_s: float, lasted_s: float | None, source="kitchen", live=True
) -> list[Event]:
    """The onset of an event so long after noon and, unless it never ended, its offset."""
    start = 16_000 * number
    told = [("onset", 0.5, None)] + ([("offset", lasted_s, lasted_s)] if lasted_s else [])
    return [
        Event(
            source=source, session="s", seq=2 * number + (phase == "offset"),
            position=start + round(16_000 * after_s),
            captured_at=NOON + began_s + after_s if live else None,
            published_at=NOON + began_s + after_s, id=f"s-{source}-{number}", phase=phase,
            label=label, start=start, end=start + round(16_000 * end_s) if end_s else None,
            peak=0.875, mean=0.5,
        )
        for phase, after_s, end_s in told
    ]  # fmt: skip


def label(seq: int, name: str | None) -> Label:
    return Label(
        source="kitchen", session="s", seq=seq, position=0, captured_at=NOON + seq,
        published_at=NOON + seq, label=name, confidence=0.75, top=[], reasoner="evidence",
        samples=0, traces=0, refinement=0, latency_ms=1.0,
    )  # fmt: skip


EVENTS = [
    *event(0, "Dog", 60, 2.5),
    *event(1, "Siren", 120, 10.0),
    *event(2, "Dog", HOUR_S + 5, 1.5),
    *event(3, "Howl", 25 * HOUR_S, 4.0, source="attic"),
    *event(4, "Doorbell", 26 * HOUR_S, None),
    *event(5, "Whistling", 27 * HOUR_S, 1.0, live=False),
]


@pytest.fixture
def path(tmp_path):
    """A journal of two days."""
    one = Journal(tmp_path / "journal.sqlite", max_age_days=36_500)
    messages = [*EVENTS, label(0, "Dog"), label(1, "Dog"), label(2, None)]
    entries = [
        Entry("s", message.topic, message.seq, message.published_at, message.label, encode(message))
        for message in messages
    ]
    assert one.commit(entries, 300)
    one.close()
    return tmp_path / "journal.sqlite"


def printed(path, period=None, as_json=False, **wanted) -> list[str]:
    return list(history.lines(path, history.Wanted(**wanted), period, as_json))


def named(path, **wanted) -> list[str]:
    return [found.label for found in history.events(path, history.Wanted(**wanted))]


def test_an_event_is_a_line(path):
    assert printed(path) == [
        "2026-11-23 12:01:00+01:00  kitchen    Dog, 2.5 s, peak 0.88",
        "2026-11-23 12:02:00+01:00  kitchen    Siren, 10.0 s, peak 0.88",
        "2026-11-23 13:00:05+01:00  kitchen    Dog, 1.5 s, peak 0.88",
        "2026-11-24 13:00:00+01:00  attic      Howl, 4.0 s, peak 0.88",
        "2026-11-24 14:00:00+01:00  kitchen    Doorbell, over 0.5 s, peak 0.88",
        "2026-11-24 15:00:00+01:00 (at 00:05.00)  kitchen    Whistling, 1.0 s, peak 0.88",
    ]


def test_filters(path):
    assert named(path, labels=["dog"]) == ["Dog", "Dog"]
    assert named(path, labels=["do*", "h?wl"]) == ["Dog", "Dog", "Howl", "Doorbell"]
    assert named(path, source="attic") == ["Howl"]
    assert named(path, since=NOON + HOUR_S) == ["Dog", "Howl", "Doorbell", "Whistling"]
    assert named(path, since=NOON + HOUR_S, until=NOON + 2 * HOUR_S) == ["Dog"]


def test_an_event_that_was_revised_is_the_newest_labels(path):
    onset, offset = event(6, "Cat", 28 * HOUR_S, 2.0)
    revised = msgspec.structs.replace(offset, seq=14, phase="revised", label="Baby cry")
    listening = Journal(path, max_age_days=36_500)
    assert listening.commit(
        [Entry("s", m.topic, m.seq, NOON + 28 * HOUR_S, m.label, encode(m))
         for m in (onset, offset, revised)], 300,
    )  # fmt: skip
    listening.close()
    assert named(path, labels=["cat"]) == []
    assert named(path, labels=["baby*"]) == ["Baby cry"]
    told = [json.loads(line)["phase"] for line in printed(path, as_json=True, labels=["Cat"])]
    assert told == ["onset", "offset", "revised"]


def test_an_event_that_went_on_at_either_end_is_there_with_its_length(path):
    [siren] = history.events(path, history.Wanted(since=NOON + 125, until=NOON + 300))
    assert (siren.label, history.lasted_s(siren)) == ("Siren", 10.0)
    [siren] = history.events(path, history.Wanted(since=NOON + 100, until=NOON + 125))
    assert (siren.label, history.lasted_s(siren)) == ("Siren", 10.0)


def test_json_is_the_messages(path):
    found = [decode(line.encode()) for line in printed(path, as_json=True)]
    assert found == EVENTS


def test_counts_by_hour_and_day(path):
    hours = [json.loads(line) for line in printed(path, "hour", as_json=True)]
    first = {"period": "2026-11-23 12:00+01:00", "label": "Dog", "events": 1, "seconds": 2.5}
    assert hours[0] == first
    assert [count["period"] for count in hours] == [
        "2026-11-23 12:00+01:00", "2026-11-23 12:00+01:00", "2026-11-23 13:00+01:00",
        "2026-11-24 13:00+01:00", "2026-11-24 14:00+01:00", "2026-11-24 15:00+01:00",
    ]  # fmt: skip
    assert printed(path, "day")[:2] == [
        "2026-11-23      2 x       4.0 s  Dog",
        "2026-11-23      1 x      10.0 s  Siren",
    ]
    assert printed(path, "day", labels=["Cow"]) == []


def test_other_kinds_tell_what_changed(path):
    assert printed(path, kind="label") == [
        "2026-11-23 12:00:00.00+01:00  kitchen    Dog (0.75)",
        "2026-11-23 12:00:02.00+01:00  kitchen    -",
    ]
    assert [json.loads(line)["seq"] for line in printed(path, kind="label", as_json=True)] == [
        0, 1, 2,
    ]  # fmt: skip
    assert printed(path, kind="status") == []


def test_it_reads_while_a_listener_writes(path):
    listening = Journal(path, max_age_days=36_500)
    before = len(named(path))
    [onset] = event(9, "Cat", 28 * HOUR_S, None)
    entry = Entry("s", onset.topic, onset.seq, onset.published_at, onset.label, encode(onset))
    reading = history.messages(path, history.Wanted())
    next(reading)  # a query is under way
    assert listening.commit([entry], 300)
    assert len(list(reading)) == len(EVENTS) - 1  # as it was
    assert len(named(path)) == before + 1
    listening.close()


def test_what_a_newer_version_wrote_is_passed_over(path):
    listening = Journal(path, max_age_days=36_500)
    later = {"kind": "event", "schema": "2.0"}
    assert listening.commit(
        [Entry("s", "event/a/", 0, NOON, None, json.dumps(later).encode())], 300
    )
    assert named(path)[-1] == "Whistling"
    listening.close()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("90s", NOON - 90),
        ("30m", NOON - 1800),
        ("2h", NOON - 7200),
        ("1.5 d", NOON - 1.5 * 86_400),
        ("2w", NOON - 14 * 86_400),
        ("9:30", NOON - 2.5 * HOUR_S),
        ("9:30:15", NOON - 2.5 * HOUR_S + 15),
        ("11:59:30", NOON - 30),
        ("2026-11-23", NOON - 12 * HOUR_S),
        ("2026-11-22 12:00", NOON - 24 * HOUR_S),
        ("2026-11-23T12:00:00+00:00", NOON + HOUR_S),
        ("2026-11-23 11:00Z", NOON),
        ("2026-11-23 12:00:00.00+01:00", NOON),
    ],
)
def test_times_as_people_say_them(said, expected):
    assert history.moment(said, "--since", NOON) == expected


@pytest.mark.parametrize("said", ["", "yesterdayish", "2x", "-2h", "25:00", "2026-13-01", "nan"])
def test_a_time_that_is_none_is_named_with_what_it_takes(said):
    with pytest.raises(UsageError, match=r"--until.*2h.*2026-11-24"):
        history.moment(said, "--until", NOON)


AUTUMN = datetime.fromisoformat("2026-10-25T00:00+02:00").timestamp()  # a day of 25 hours
SPRING = datetime.fromisoformat("2026-03-29T00:00+01:00").timestamp()  # and one of 23


@pytest.fixture
def nights(tmp_path):
    """A journal: a dog at half past each hour of the nights in which the clocks are changed."""
    one = Journal(tmp_path / "nights.sqlite", max_age_days=36_500)
    began = [midnight + (h + 0.5) * HOUR_S for midnight in (SPRING, AUTUMN) for h in range(25)]
    told = [each for n, at in enumerate(began) for each in event(n, "Dog", at - NOON, 2.0)]
    entries = [Entry("s", m.topic, m.seq, m.published_at, m.label, encode(m)) for m in told]
    assert one.commit(entries, 300)
    one.close()
    return one.path


def test_the_hour_that_comes_twice_is_two_hours(nights):
    lines = printed(nights, since=AUTUMN, until=AUTUMN + 5 * HOUR_S)
    assert [line.split("  ")[0] for line in lines] == [
        "2026-10-25 00:30:00+02:00", "2026-10-25 01:30:00+02:00", "2026-10-25 02:30:00+02:00",
        "2026-10-25 02:30:00+01:00", "2026-10-25 03:30:00+01:00",
    ]  # fmt: skip
    hours = [
        json.loads(line)["period"]
        for line in printed(nights, "hour", as_json=True, since=AUTUMN, until=AUTUMN + 5 * HOUR_S)
    ]
    assert hours == [
        "2026-10-25 00:00+02:00", "2026-10-25 01:00+02:00", "2026-10-25 02:00+02:00",
        "2026-10-25 02:00+01:00", "2026-10-25 03:00+01:00",
    ]  # fmt: skip


def test_the_hour_that_is_left_out_has_no_line(nights):
    lines = printed(nights, "hour", since=SPRING, until=SPRING + 3 * HOUR_S)
    assert [line.split("  ")[0] for line in lines] == [
        "2026-03-29 00:00+01:00", "2026-03-29 01:00+01:00", "2026-03-29 03:00+02:00",
    ]  # fmt: skip


def test_days_have_as_many_hours_as_they_have(nights):
    counts = [json.loads(line) for line in printed(nights, "day", as_json=True)]
    assert [(count["period"], count["events"]) for count in counts] == [
        ("2026-03-29", 23), ("2026-03-30", 2), ("2026-10-25", 25),
    ]  # fmt: skip


def test_hours_of_a_zone_that_is_no_whole_hour_off(path, zone):
    zone("<+0545>-5:45")
    assert printed(path, "hour")[0].startswith("2026-11-23 16:00+05:45 ")
    assert printed(path)[0].startswith("2026-11-23 16:46:00+05:45 ")


@pytest.mark.parametrize(
    ("said", "option", "expected"),
    [
        ("2026-10-25 02:30", "--since", "2026-10-25T02:30+02:00"),  # it comes twice
        ("2026-10-25 02:30", "--until", "2026-10-25T02:30+01:00"),
        ("2026-10-25 02:30+01:00", "--since", "2026-10-25T02:30+01:00"),
        ("2026-10-25 02:30+02:00", "--until", "2026-10-25T02:30+02:00"),
        ("2026-03-29 02:30", "--since", "2026-03-29T01:30+01:00"),  # it does not come
        ("2026-03-29 02:30", "--until", "2026-03-29T03:30+02:00"),
    ],
)
def test_a_time_that_is_ambiguous_takes_in_more(said, option, expected):
    assert history.moment(said, option, NOON) == datetime.fromisoformat(expected).timestamp()


def test_of_an_ambiguous_hour_of_today_too():
    now = AUTUMN + 12 * HOUR_S
    assert history.moment("2:30", "--since", now) == AUTUMN + 2.5 * HOUR_S
    assert history.moment("2:30", "--until", now) == AUTUMN + 3.5 * HOUR_S


def test_what_is_misspelled_is_said_where_nothing_is_found(path):
    def why(**wanted) -> str:
        return history.why_nothing(path, history.Wanted(**wanted))

    assert why(labels=["Dorbell"]).startswith(
        "no sound is called 'Dorbell' (did you mean: Doorbell"
    )
    assert "Bird" in why(labels=["Brid"])  # a name of AudioSet's, not in this journal
    assert why(labels=["Cat", "b?rd*"]) == ""  # there is such a sound, and none in the journal
    assert why(source="kichen") == "no source is called 'kichen' (did you mean: kitchen)"
    assert why(source="x") == "no source is called 'x' (it has attic, kitchen)"
    assert why(labels=["Brid"], source="kichen").count("is called") == 2


@pytest.fixture
def large(tmp_path):
    """A journal of 2000 events, a second apart."""
    one = Journal(tmp_path / "large.sqlite", max_age_days=36_500)
    told = [onset for n in range(2000) for onset in event(n, "Dog", n, None)]
    entries = [Entry("s", m.topic, m.seq, m.published_at, m.label, encode(m)) for m in told]
    assert one.commit(entries, 300)
    one.close()
    return one.path


@pytest.mark.slow
def test_what_can_still_be_read_of_a_damaged_journal_comes_before_the_error(large):
    whole = printed(large)
    connection = sqlite3.connect(large)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    with large.open("r+b") as file:
        file.seek(pages // 3 * 4096)
        file.write(b"\xff" * 4096)
    found: list[str] = []
    with pytest.raises(DamagedJournal, match="streamtwl listen"):
        found.extend(history.lines(large, history.Wanted(), None, False))
    assert len(whole) == 2000
    assert 1800 < len(found) < 2000
    assert [line for line in whole if line in set(found)] == found  # in order, none twice


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a row far off", "no rows"])
def test_what_else_may_be_damaged_is_an_end_and_an_error(large, damage):
    connection = sqlite3.connect(large)
    if damage == "a row far off":
        connection.execute(
            "UPDATE messages SET id = ? WHERE id = (SELECT max(id) FROM messages)", (1 << 40,)
        )
        connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    [(root,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'messages'")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    with large.open("r+b") as file:
        if damage == "no rows":
            file.seek((root - 1) * 4096)
            file.write(b"\x0d\0\0\0\0\x10\0\0" + bytes(4088))
        else:
            file.seek(pages // 3 * 4096)
            file.write(b"\xff" * 4096)
    found: list[str] = []
    with pytest.raises(DamagedJournal):
        found.extend(history.lines(large, history.Wanted(), None, False))
    assert len(found) > 1800 or damage == "no rows"


@pytest.mark.parametrize("period", [None, "hour"])
def test_a_damaged_journal_is_an_error(path, period):
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(DamagedJournal, match=f"{path} is damaged"):
        printed(path, period)


def test_a_time_that_no_date_has_is_no_traceback(path):
    for seq, at in enumerate((1e300, -1e300)):
        [onset] = event(6 + seq, "Cat", 0, None)
        onset = msgspec.structs.replace(onset, captured_at=at)
        listening = Journal(path, max_age_days=36_500)
        row = Entry("s", onset.topic, onset.seq, NOON, onset.label, encode(onset))
        assert listening.commit([row], 300)
        listening.close()
    assert [line[:4] for line in printed(path, labels=["Cat"])] == ["1970"]
    assert printed(path, "hour", labels=["Cat"])


def journalled(path, *messages) -> None:
    """Add messages to a journal, as a listener publishes them."""
    listening = Journal(path, max_age_days=36_500)
    entries = [
        Entry(m.session, m.topic, m.seq, m.published_at, getattr(m, "label", None), encode(m))
        for m in messages
    ]
    assert listening.commit(entries, 10)
    listening.close()


@pytest.mark.parametrize("schema", ["1.1", "1.2"])
def test_an_event_that_was_taken_back_is_none(path, schema):
    """A publisher of 1.1 said so by the length alone."""
    onset, offset = event(6, "Cat", 28 * HOUR_S, 2.0)
    taken_back = msgspec.structs.replace(
        offset, phase="revised", end=offset.start, retracted=schema == "1.2", schema=schema
    )
    before = printed(path), printed(path, "day"), printed(path, "hour", as_json=True)
    journalled(path, onset, taken_back)
    assert (printed(path), printed(path, "day"), printed(path, "hour", as_json=True)) == before
    assert named(path, labels=["cat"]) == []


def test_the_newest_word_is_that_of_the_highest_seq(path):
    """What was late comes into the journal after what was published after it."""
    onset, offset = event(6, "Cat", 28 * HOUR_S, 2.0)
    journalled(path, offset, onset)
    assert printed(path, labels=["cat"]) == [
        "2026-11-24 16:00:00+01:00  kitchen    Cat, 2.0 s, peak 0.88"
    ]


@pytest.mark.parametrize("kind", ["label", "status"])
def test_an_event_without_an_end_lasts_to_what_its_listener_said_last(path, kind):
    onset, _ = event(6, "Cat", 28 * HOUR_S, 2.0)
    last = label(9, "Cat") if kind == "label" else examples.status(9)
    after_s = {"position": onset.start + 16_000 * 90, "captured_at": onset.captured_at + 89.5}
    last = msgspec.structs.replace(last, source="kitchen", session="s", **after_s)
    journalled(path, onset, last, msgspec.structs.replace(last, session="t", position=10**9))
    assert printed(path, labels=["cat"]) == [
        "2026-11-24 16:00:00+01:00  kitchen    Cat, over 90.0 s, peak 0.88"
    ]
    [count] = printed(path, "day", labels=["cat"], as_json=True)
    assert json.loads(count)["seconds"] == 90.0


def test_an_event_that_began_before_the_time_wanted_and_has_no_end_is_there(path):
    onset, _ = event(6, "Cat", 28 * HOUR_S, 2.0)
    now = msgspec.structs.replace(
        examples.status(9), source="kitchen", session="s",
        position=onset.start + 16_000 * 7200, captured_at=onset.captured_at - 0.5 + 7200,
    )  # fmt: skip
    journalled(path, onset, now)
    assert named(path, since=NOON + 29 * HOUR_S) == ["Doorbell", "Cat"]
    assert named(path, since=NOON + 31 * HOUR_S) == []


def test_an_event_that_was_over_before_the_time_wanted_is_not_there(path):
    """Its offset was published within it, as it takes a window to know."""
    onset, offset = event(6, "Cat", 28 * HOUR_S, 2.0)
    late = msgspec.structs.replace(offset, published_at=offset.published_at + 1)
    journalled(path, onset, late)
    end = NOON + 28 * HOUR_S + 2
    assert "Cat" in named(path, since=end - 0.1, until=end + 9)
    assert "Cat" not in named(path, since=end + 0.1)


def test_an_event_in_a_pipe_began_when_its_onset_was_published(path):
    """Not when its end was, which is another hour."""
    journalled(path, *event(6, "Rain", 28 * HOUR_S, 2.5 * HOUR_S, live=False))
    began = NOON + 28 * HOUR_S
    [rain] = [line for line in printed(path) if "Rain" in line]
    assert rain.startswith("2026-11-24 16:00:00+01:00 (at 00:06.00)")
    assert "Rain" in named(path, since=began + 2 * HOUR_S, until=began + 3 * HOUR_S)
    assert "Rain" not in named(path, since=began + 3 * HOUR_S)
    assert "Rain" in named(path, until=began + 1)
    [count] = [c for c in printed(path, "hour") if "Rain" in c]
    assert count.startswith("2026-11-24 16:00+01:00")


@pytest.mark.usefixtures("yamnet")
@pytest.mark.parametrize(
    ("same", "first"),
    [
        (("--reasoner", "evidence", "--labels", "everyday"), "Siren"),
        (("--reasoner", "reader", "--labels", "everyday"), "Siren"),
        (("--reasoner", "esc10-paper"), None),  # it draws, by the file's name
    ],
    ids=["evidence", "reader", "paper"],
)
def test_history_and_label_agree_on_a_recording(same, first, wav, tmp_path, cli):
    scene = demo.scene()
    file = wav("scene.wav", scene[int(13.2 * 16_000) :])  # it begins within a siren
    journal = tmp_path / "of-one.sqlite"
    bind = ("--bind", f"ipc://{tmp_path}/one", "--replay-bind", f"ipc://{tmp_path}/two")
    heard = cli("listen", "--file", file, "--fast", "--quiet", *same, *bind, "--journal", journal)
    assert heard.returncode == 0, heard.stderr
    labelled = json.loads(cli("label", file, *same).stdout)
    expected = [(e["label"], e["start_s"], e["end_s"]) for e in labelled["events"]]
    assert expected
    assert first is None or expected[0][:2] == (first, 0.0)

    def span(event: Event) -> tuple:
        return event.label, round(event.start / 16_000, 3), round(event.end / 16_000, 3)

    assert sorted(map(span, history.events(journal, history.Wanted()))) == sorted(expected)
    assert len(printed(journal)) == len(expected)
    counted = [json.loads(line) for line in printed(journal, "day", as_json=True)]
    names = [name for name, _, _ in expected]
    assert {c["label"]: c["events"] for c in counted} == {n: names.count(n) for n in set(names)}
    newest = {m.id: m for m in (decode(line.encode()) for line in printed(journal, as_json=True))}
    assert sorted(span(m) for m in newest.values() if not m.void) == sorted(expected)
