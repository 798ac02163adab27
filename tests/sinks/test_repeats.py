"""Labels and states that repeat the one before, by a clock that does not run by itself."""

import contextlib
import sqlite3
import time
from pathlib import Path

import msgspec
import pytest

from streamtwl import history
from streamtwl.messages import AnyMessage, Event, Label, Scored, Status, decode, encode
from streamtwl.sinks import repeats as repeats_module
from streamtwl.sinks.journal import DAY_S, MB, Entry, Journal
from streamtwl.sinks.journal_file import reader
from streamtwl.sinks.repeats import ALONG_S, HELD_S, STRETCH_S, Repeats, entry
from streamtwl.unrolling import unrolled
from tests.conftest import PATIENCE_S
from tests.example_messages import event, label, status

HOP_S = 0.48
HOP = 7680


def others(seq: int) -> list[Scored]:
    return [Scored("Cat", 0.02 + 0.001 * (seq % 3))]


class Written:
    """Messages through `Repeats`, as the publisher and its thread pass them on."""

    def __init__(self, **options) -> None:
        self.now = 1000.0
        self.repeats = Repeats(clock=lambda: self.now, **options)
        self.commits: list[list[Entry]] = []

    def take(self, message: AnyMessage) -> bool:
        """Pass a message on; return whether it is a repeat."""
        repeat = self.repeats.is_repeat(message)
        if repeat:
            entries = self.repeats.hold(message, encode(message))
        else:
            entries = [*self.repeats.before(message), entry(message, encode(message))]
        if entries := entries + self.repeats.due():
            self.commits.append(entries)
        return repeat

    def labels(self, count: int, first: int = 0, name: str | None = "Dog") -> list[bool]:
        """Pass labels on, a hop from one to the next."""
        taken = []
        for seq in range(first, first + count):
            one = label(seq, name=name)
            one.position, one.confidence = HOP * seq, (seq % 10) / 10
            one.top = [Scored("Dog", one.confidence), *others(seq), Scored("Faint", 0.019)]
            one.captured_at, one.published_at = 5000 + HOP_S * seq, 5001 + HOP_S * seq
            taken.append(self.take(one))
            self.now += HOP_S
        return taken

    @property
    def rows(self) -> list[AnyMessage]:
        return [decode(one.payload) for commit in self.commits for one in commit]


def numbers(rows: list[AnyMessage]) -> list[tuple[str, int, int]]:
    """Topic, first seq and seq of each row."""
    return [
        (row.topic, summary.first_seq if summary else row.seq, row.seq)
        for row in rows
        for summary in [getattr(row, "summary", None)]
    ]


def test_a_label_that_is_another_one_is_written_at_once_and_what_repeats_it_after_a_minute():
    one = Written()
    assert one.labels(1) == [False]
    assert one.labels(100, 1) == [True] * 100
    assert numbers(one.rows) == [("label/mic/", 0, 0)]
    one.labels(100, 101)
    [_, row] = one.rows
    assert numbers([row]) == [("label/mic/", 1, 126)]
    assert row.position - row.summary.first_position == STRETCH_S * 16_000
    assert (row.journalled, row.repeat, row.summary.count) == (True, False, 126)
    confidences = [(seq % 10) / 10 for seq in range(1, 127)]
    assert row.summary.highest == 0.9
    assert row.summary.mean == pytest.approx(sum(confidences) / 126)


def test_another_confidence_is_a_repeat_and_another_label_is_none():
    one = Written()
    taken = [one.labels(1, seq, name)[0] for seq, name in enumerate("AABBA")]
    assert taken == [False, True, False, True, False]
    assert [row.seq for row in one.rows] == [0, 1, 2, 3, 4]  # each before what ended it
    assert all(row.summary is None for row in one.rows)


def test_what_a_language_model_said_is_written_at_once():
    one = Written()
    one.labels(1)
    thought = {"label": "Cat", "instead_of": "Dog", "start": 0, "text": "", "latency_ms": 1.0}
    said = msgspec.convert(msgspec.to_builtins(label(1)) | {"thoughts": [thought]}, Label)
    assert not one.take(said)
    assert one.take(label(2))


@pytest.mark.parametrize(
    ("changes", "repeat"),
    [
        ({"hops": 9, "memory_mb": 5.0, "dropped_samples": 7}, True),
        ({"state": "lost", "error": "unplugged"}, False),
        ({"journal": "the disk is full"}, False),
        ({"session": "t"}, False),
    ],
)
def test_a_state_is_a_repeat_as_long_as_state_and_problems_are_the_same(changes, repeat):
    one = Written()
    one.take(status(0))
    assert one.take(msgspec.structs.replace(status(1), **changes)) is repeat


def test_events_come_after_the_labels_before_them():
    one = Written()
    one.labels(6)
    one.take(event(0))
    one.labels(3, 6)
    one.take(event(1))
    assert numbers(one.rows) == [
        ("label/mic/", 0, 0),
        ("label/mic/", 1, 5),
        ("event/mic/", 0, 0),
        ("label/mic/", 6, 8),
        ("event/mic/", 1, 1),
    ]


def test_what_is_long_enough_goes_along_with_what_is_written():
    one = Written()
    for seq in range(12):
        one.take(status(seq))
        one.now += 1.0
    assert len(one.commits) == 1
    one.take(event(0))
    assert numbers(one.rows)[1:] == [("status/mic/", 1, 11), ("event/mic/", 0, 0)]
    assert ALONG_S == 10.0


def test_hops_come_out_of_a_summary_as_they_went_in():
    one = Written()
    one.labels(100)
    one.take(event(0))
    again = list(unrolled(one.rows[1]))
    assert [each.seq for each in again] == list(range(1, 100))
    for each in again:
        assert each.position == HOP * each.seq
        assert each.captured_at == pytest.approx(5000 + HOP_S * each.seq)
        assert each.published_at == pytest.approx(5001 + HOP_S * each.seq)
        assert each.confidence == (each.seq % 10) / 10
        assert each.top == [Scored("Dog", each.confidence), *others(each.seq)]
        assert each.summary is None
    assert list(unrolled(one.rows[0])) == [one.rows[0]]


def test_no_summary_reaches_across_a_gap_and_refinements_are_of_their_hop():
    one = Written()
    for seq, position in enumerate((0, 1, 2, 2, 2, 3, 9, 10)):
        given = label(seq)
        given.position, given.top = HOP * position, [Scored("Dog", seq / 10)]
        one.take(given)
    one.take(event(0))
    assert numbers(one.rows)[1:-1] == [("label/mic/", 1, 5), ("label/mic/", 6, 7)]
    hops = [(each.position // HOP, each.top[0].score) for each in unrolled(one.rows[1])]
    assert hops == [(1, 0.1), (2, 0.4), (3, 0.5)]


def test_states_come_out_of_a_summary_one_a_second():
    one = Written()
    for seq in range(20):
        one.take(msgspec.structs.replace(status(seq), position=16_000 * seq, hops=2 * seq))
        one.now += 1.0
    one.take(event(0))
    again = list(unrolled(one.rows[1]))
    assert [each.position for each in again] == [16_000 * seq for seq in range(1, 20)]
    assert again[-1].hops == 38


def test_repeats_are_held_for_ten_minutes_and_not_beyond_measure(monkeypatch):
    one = Written()
    one.labels(round(1200 / HOP_S))
    held = [seq for seq, _ in one.repeats.held("s", "label/mic/")]
    newest = round(1200 / HOP_S) - 1
    assert held == list(range(held[0], newest + 1))
    assert HELD_S - 1 <= HOP_S * len(held) <= HELD_S + STRETCH_S + 2
    assert one.repeats.held("another", "label/mic/") == []
    assert one.repeats.held("s", "label/attic/") == []
    assert held[0] in {first for _, first, _ in numbers(one.rows)}  # each stretch as a whole
    monkeypatch.setattr(repeats_module, "HELD_BYTES", 50_000)
    one.labels(300, newest + 1)
    held_bytes = sum(len(payload) for _, payload in one.repeats.held("s", "label/mic/"))
    assert held_bytes < 50_000 + 200 * 500


def test_what_follows_a_loss_is_no_repeat():
    one = Written()
    one.take(label(0))
    one.take(status(0))
    one.repeats.forget("label/mic/")
    assert (one.take(label(1)), one.take(status(1))) == (False, True)
    one.repeats.forget()
    assert (one.take(label(2)), one.take(status(2))) == (False, False)


def test_where_nothing_changes_a_day_takes_ten_mb_and_six_commits_a_minute_at_most(
    tmp_path: Path,
):
    """An hour of it, with five labels in each hop of which no two hops have the same."""
    minutes, names = 60, [f"A sound that has number {i}" for i in range(40)]
    one = Written(replayed=False)
    clock, seq = 0.0, 0
    while clock < 60 * minutes:
        given = msgspec.structs.replace(label(seq), position=HOP * seq, reasoner="reader")
        given.top = [Scored(names[(7 * seq + 3 * i) % 40], 0.9 / (i + 1)) for i in range(5)]
        one.take(given)
        if seq % 2:
            one.take(msgspec.structs.replace(status(seq // 2), position=HOP * seq))
        seq += 1
        clock += HOP_S
        one.now += HOP_S
    path = tmp_path / "journal.sqlite"
    with contextlib.closing(Journal(path)) as journal:
        for commit in one.commits:
            assert journal.commit(commit, PATIENCE_S)
    size = path.stat().st_size
    assert size * DAY_S / (60 * minutes) <= 10 * MB
    assert len(one.commits) / minutes <= 6
    with contextlib.closing(reader(path)) as connection:
        payloads = connection.execute("SELECT payload FROM messages ORDER BY id").fetchall()
    rows = [decode(payload) for (payload,) in payloads]
    labels = [hop for row in rows if isinstance(row, Label) for hop in unrolled(row)]
    assert len(labels) >= seq - STRETCH_S / HOP_S - 1  # all but the last minute
    assert [each.seq for each in labels] == list(range(len(labels)))
    assert not [row for row in rows if isinstance(row, Event)]
    assert [row for row in rows if isinstance(row, Status)]


OLD_LAYOUT = """
CREATE TABLE streams (id INTEGER PRIMARY KEY, session TEXT, topic TEXT, UNIQUE (session, topic));
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, stream INTEGER, seq INTEGER, at REAL, lasting INTEGER, label TEXT,
    payload BLOB
);
CREATE UNIQUE INDEX by_seq ON messages (stream, seq);
CREATE INDEX by_time ON messages (at);
CREATE INDEX by_worth ON messages (lasting);
PRAGMA user_version = 1;
"""


def test_a_journal_of_before_goes_on_and_older_programs_read_it(tmp_path: Path):
    path = tmp_path / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(OLD_LAYOUT)
        old.execute("INSERT INTO streams VALUES (1, 's', 'label/mic/')")
        for seq in range(3):
            plain = msgspec.to_builtins(label(seq)) | {"schema": "1.6", "published_at": time.time()}
            del plain["repeat"], plain["summary"]
            row = (seq, plain["published_at"], "Dog", msgspec.msgpack.encode(plain))
            old.execute("INSERT INTO messages VALUES (NULL, 1, ?, ?, 0, ?, ?)", row)
        old.commit()
    one = Written()
    one.labels(200, 3)
    with contextlib.closing(Journal(path)) as journal:
        assert journal.commit([each for commit in one.commits for each in commit], PATIENCE_S)
    found = history.messages(path, history.Wanted("label"))
    assert numbers(list(found)) == [("label/mic/", *each) for each in
                                    ((0, 0), (1, 1), (2, 2), (3, 3), (4, 129))]  # fmt: skip
    with contextlib.closing(sqlite3.connect(path)) as old:  # as they read it: no column is new
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        [payload] = old.execute("SELECT payload FROM messages WHERE seq = 129").fetchone()
    plain = msgspec.msgpack.decode(payload)
    del plain["repeat"], plain["summary"]  # which they pass over
    assert decode(msgspec.msgpack.encode(plain)).label == "Dog"


def test_what_is_too_old_goes_summaries_too(tmp_path: Path):
    one = Written()
    one.labels(300)
    entries = [each for commit in one.commits for each in commit]
    old = [each._replace(at=time.time() - 3 * DAY_S) for each in entries]
    young = [each._replace(session="t", at=time.time()) for each in entries[:2]]
    path = tmp_path / "journal.sqlite"
    with contextlib.closing(Journal(path, max_age_days=2.0)) as journal:
        assert journal.commit([*old, *young], PATIENCE_S)
        until = time.monotonic() + PATIENCE_S
        while len(list(history.messages(path, history.Wanted("label")))) > len(young):
            assert time.monotonic() < until
            time.sleep(0.05)
