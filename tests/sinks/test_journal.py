import contextlib
import errno
import itertools
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from streamtwl.clips import moments
from streamtwl.errors import JournalError
from streamtwl.sinks import journal as journal_module
from streamtwl.sinks import journal_file
from streamtwl.sinks.journal import BATCHES, DAY_S, Entry, Journal
from streamtwl.sinks.journal_file import default_path, reader
from tests.conftest import PATIENCE_S


def entry(seq: int, topic: str = "label/kitchen/", at: float | None = None, size: int = 100):
    return Entry("s", topic, seq, time.time() if at is None else at, "Dog", bytes(size))


def held(path: Path, topic: str = "label/kitchen/") -> list[int]:
    """The seqs that a journal holds of a topic."""
    connection = reader(path)
    rows = connection.execute(
        "SELECT seq FROM messages JOIN streams ON streams.id = stream WHERE topic = ?", (topic,)
    ).fetchall()
    connection.close()
    return sorted(seq for (seq,) in rows)


def eventually(condition) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def journal(tmp_path):
    """Make journals, closed with the test: journal(), or journal(path, max_mb=1)."""
    made = []

    def make(path: Path = tmp_path / "journal.sqlite", **keywords) -> Journal:
        made.append(Journal(path, **keywords))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def locked(tmp_path):
    """Another program's transaction in the journal, as long as the block lasts."""

    def lock(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        return connection

    return lock


def test_what_was_committed_is_there(journal):
    one = journal()
    assert one.commit([entry(0), entry(1), entry(0, "event/kitchen/")], PATIENCE_S)
    assert (held(one.path), held(one.path, "event/kitchen/")) == ([0, 1], [0])
    assert (one.errors, one.problem) == (0, None)


def test_payload_and_label_come_back_as_they_went(journal):
    one = journal()
    sent = Entry("s", "event/küche/", 2**53, 1.7e9, "Gürteltier", bytes(range(256)))
    assert one.commit([sent, entry(0)._replace(label=None)], PATIENCE_S)
    rows = reader(one.path).execute("SELECT seq, at, label, payload, lasting FROM messages")
    assert rows.fetchone() == (*sent[2:], 1)
    assert rows.fetchone()[2] is None


def test_the_same_message_twice_is_one(journal):
    one = journal()
    for _ in range(2):
        assert one.commit([entry(0)], PATIENCE_S)
    assert held(one.path) == [0]


def test_a_commit_in_time_is_waited_for_and_no_longer(journal, locked):
    one = journal()
    other = locked(one.path)
    assert not one.commit([entry(0)], 0.02)
    assert one.errors == 1
    assert "over 20 ms" in one.problem
    other.execute("COMMIT")
    eventually(lambda: held(one.path) == [0])  # late is not lost
    assert one.commit([entry(1)], PATIENCE_S)
    assert (one.errors, one.problem) == (1, None)


def test_while_a_commit_is_overdue_nobody_waits_long(journal, locked):
    one = journal()
    other = locked(one.path)
    assert not one.commit([entry(0)], 0.02)
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (one.commit([entry(1)], 3600), done.set()))
    waiting.start()
    assert done.wait(PATIENCE_S)
    waiting.join()
    other.execute("COMMIT")


def test_a_stuck_disk_piles_up_nothing(journal, locked):
    one = journal()
    other = locked(one.path)
    batches = 3 * BATCHES
    for seq in range(batches):
        assert not one.commit([entry(seq)], 0.0)
    assert one.errors == batches
    other.execute("COMMIT")
    eventually(lambda: one.commit([entry(batches)], PATIENCE_S))
    assert len(held(one.path)) <= BATCHES + 2  # what the queue, the writer and the end held


def test_a_second_listener_shares_the_journal(journal):
    one, other = journal(), journal()
    seqs = range(100)

    def write(journal: Journal, topic: str) -> None:
        for seq in seqs:
            assert journal.commit([entry(seq, topic)], PATIENCE_S)

    writers = [
        threading.Thread(target=write, args=(each, topic))
        for each, topic in ((one, "label/a/"), (other, "label/b/"))
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert held(one.path, "label/a/") == held(one.path, "label/b/") == list(seqs)


def test_what_is_too_old_goes_little_by_little(journal):
    one = journal(max_age_days=2)
    now = time.time()
    old = [entry(seq, at=now - 3 * DAY_S) for seq in range(2 * journal_module.STEP)]
    young = [entry(seq, "label/attic/", at=now - DAY_S) for seq in range(10)]
    assert one.commit(old + young, PATIENCE_S)
    eventually(lambda: not held(one.path))
    assert held(one.path, "label/attic/") == list(range(10))


def test_sessions_of_which_nothing_is_left_are_forgotten_by_the_next_run(journal):
    one = journal(max_age_days=2)
    assert one.commit([entry(0, at=time.time() - 3 * DAY_S), entry(0, "label/attic/")], PATIENCE_S)
    eventually(lambda: not held(one.path))
    journal()
    topics = reader(one.path).execute("SELECT topic FROM streams").fetchall()
    assert topics == [("label/attic/",)]


def test_the_size_is_limited_and_events_go_last(journal):
    one = journal(max_mb=1)
    for seq in range(20):  # 4 MB
        events = [entry(50 * seq + i, "event/kitchen/", size=200) for i in range(10)]
        labels = [entry(200 * seq + i, size=1000) for i in range(200)]
        assert one.commit(events + labels, PATIENCE_S)

    def bounded() -> bool:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size <= 1_000_000 and pages * size <= 1_100_000

    connection = reader(one.path)
    eventually(bounded)
    connection.close()
    assert held(one.path)[-1] == 3999  # the newest stay
    assert held(one.path)[0] > 0
    assert len(held(one.path, "event/kitchen/")) == 200


def test_only_events_left_are_limited_too(journal):
    one = journal(max_mb=1)
    for seq in range(0, 3000, 100):
        batch = [entry(seq + i, "event/kitchen/", size=1000) for i in range(100)]
        assert one.commit(batch, PATIENCE_S)
    eventually(lambda: held(one.path, "event/kitchen/")[0] > 0)
    assert held(one.path, "event/kitchen/")[-1] == 2999


def test_the_log_beside_the_database_stays_small(journal):
    one = journal()
    for seq in range(0, 40_000, 100):  # 40 MB
        assert one.commit([entry(seq + i, size=1000) for i in range(100)], PATIENCE_S)
    assert os.path.getsize(f"{one.path}-wal") < 20e6


def test_the_log_is_moved_into_the_database_meanwhile(journal, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_S", 0.05)
    one = journal()
    before = one.path.stat().st_size
    assert one.commit([entry(seq, size=1000) for seq in range(100)], PATIENCE_S)
    eventually(lambda: one.path.stat().st_size > before)


def test_a_journal_that_was_deleted_begins_anew(journal, caplog):
    one = journal()
    assert one.commit([entry(0)], PATIENCE_S)
    for file in one.path.parent.iterdir():
        file.unlink()
    eventually(lambda: "new journal" in caplog.text)
    assert one.commit([entry(1)], PATIENCE_S)
    assert held(one.path) == [1]


def test_a_journal_that_was_moved_keeps_what_was_committed(journal, tmp_path, caplog):
    one = journal()
    assert one.commit([entry(seq) for seq in range(3)], PATIENCE_S)
    one.path.rename(tmp_path / "moved.sqlite")
    eventually(lambda: "new journal" in caplog.text)
    assert one.commit([entry(3)], PATIENCE_S)
    one.close()
    assert held(tmp_path / "moved.sqlite") == [0, 1, 2]
    assert held(one.path) == [3]


def test_a_journal_that_was_closed_is_one_file(journal, tmp_path):
    """Its two connections left the log beside it where they ended at once, one time in twenty."""
    for seq in range(100):
        one = journal()
        assert one.commit([entry(seq)], PATIENCE_S)
        one.close()
        assert list(tmp_path.iterdir()) == [one.path]


def test_only_its_owner_reads_a_new_folder(journal, tmp_path):
    one = journal(tmp_path / "state" / "journal.sqlite")
    assert stat.S_IMODE(one.path.parent.stat().st_mode) == 0o700


def test_a_full_disk_is_said_and_tried_again(tmp_path):
    """In a process of its own, whose files may not grow: to SQLite that is a full disk."""
    script = f"""
import resource, signal, time
from pathlib import Path
from streamtwl.sinks.journal import Entry, Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(tmp_path / "journal.sqlite")!r}))
entries = lambda seq: [Entry("s", "label/a/", seq + i, time.time(), None, bytes(1000)) for i in range(100)]
assert journal.commit(entries(0), 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
for seq in range(100, 1000, 100):
    journal.commit(entries(seq), 10)
print(journal.errors, journal.problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert journal.commit(entries(1000), 10), journal.problem
assert journal.problem is None
journal.close()
"""  # noqa: E501
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    errors, problem = ended.stdout.split(" ", 1)
    assert int(errors) > 100
    assert "journal.sqlite" in problem
    kept = held(tmp_path / "journal.sqlite", "label/a/")
    assert len(kept) == 1100 - int(errors)  # whole batches, or nothing of them
    assert set(range(100)) | set(range(1000, 1100)) <= set(kept)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.mkdir(), "unable to open"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE cats (name)"), "another program"),
        (
            lambda path: sqlite3.connect(path).executescript(
                "PRAGMA user_version = 1; CREATE TABLE cats (name)"
            ),
            "another program",
        ),
        (lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 9"), "layout 9"),
        (lambda path: os.mkfifo(path), "no file"),
    ],
    ids=["folder", "another", "numbered", "newer", "pipe"],
)
def test_what_is_no_journal_is_an_error_with_a_way_out(spoil, said, tmp_path):
    path = tmp_path / "journal.sqlite"
    spoil(path)
    with pytest.raises(JournalError, match=said) as raised:
        Journal(path)
    assert "--journal" in str(raised.value)
    assert str(path) in str(raised.value)
    assert list(tmp_path.iterdir()) == [path]  # where it was
    with pytest.raises(JournalError):
        reader(path)


PAGE = 4096


def overwrite(path: Path, first: int, pages: int) -> None:
    """Put noise into some pages of a file, the first is 0."""
    with path.open("r+b") as file:
        file.seek(first * PAGE)
        file.write(random.Random(first).randbytes(pages * PAGE))


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def put(path: Path, at: int, what: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(what)


@pytest.fixture
def grown(tmp_path) -> Path:
    """A closed journal of 2 MB."""
    one = Journal(tmp_path / "journal.sqlite")
    for seq in range(0, 2000, 200):
        assert one.commit([entry(seq + i, size=900) for i in range(200)], PATIENCE_S)
    one.close()
    assert one.path.stat().st_size > 300 * PAGE
    return one.path


def aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-damaged-*{path.suffix}"))


@pytest.mark.parametrize(
    ("damage", "at_once"),
    [
        (lambda path: path.write_text("a letter, not a database " * 100), True),
        (halve, True),
        (lambda path: os.truncate(path, 5), True),
        (lambda path: overwrite(path, 0, 1), True),
        (lambda path: overwrite(path, 1, 10), False),
        (lambda path: overwrite(path, 200, 1), False),
        (lambda path: overwrite(path, 200, 100), False),
        (lambda path: overwrite(path, path.stat().st_size // PAGE - 10, 10), False),
        (lambda path: put(path, path.read_bytes().index(b"by_worth"), b"by_w\xe0rth"), True),
        (lambda path: put(path, path.read_bytes().index(b"messages"), b"mistakes"), True),
        (lambda path: put(path, 103, bytes(2)), True),  # no table is listed any more
        (lambda path: put(path, 60, b"ZZZZ"), True),  # the layout's number
        (lambda path: put(path, 44, b"ZZZZ"), True),  # that of SQLite's format
    ],
    ids=[
        *("letter", "half", "stump", "first", "next", "page", "middle", "end"),
        *("no text", "name", "no tables", "layout", "format"),
    ],
)
def test_a_damaged_journal_is_set_aside_and_a_new_one_begins(
    damage, at_once, grown, journal, caplog
):
    damage(grown)
    content = grown.read_bytes()
    one = journal(grown)
    if at_once:
        assert one.problem is None
    eventually(lambda: aside(grown))
    assert one.commit([entry(0)], PATIENCE_S)
    assert held(grown) == [0]
    [kept] = aside(grown)
    assert kept.read_bytes() == content
    [warning] = [record.message for record in caplog.records]
    assert str(grown) in warning
    assert kept.name in warning
    assert (one.errors, one.problem) == (0, None)


def test_an_empty_file_is_a_new_journal(journal, tmp_path, caplog):
    (tmp_path / "journal.sqlite").write_bytes(b"")
    one = journal()
    assert one.commit([entry(0)], PATIENCE_S)
    assert held(one.path) == [0]
    assert not caplog.records


def test_the_log_of_a_damaged_journal_goes_with_it(grown, journal):
    before = journal(grown)
    assert before.commit([entry(0, "label/old/")], PATIENCE_S)
    log = Path(f"{grown}-wal").read_bytes()  # as a killed listener leaves it
    before.close()
    grown.write_text("a letter, not a database " * 100)
    Path(f"{grown}-wal").write_bytes(log)
    assert journal(grown).commit([entry(1)], PATIENCE_S)
    [kept] = aside(grown)
    assert Path(f"{kept}-wal").read_bytes() == log
    topics = reader(grown).execute("SELECT topic FROM streams").fetchall()
    assert topics == [("label/kitchen/",)]


@pytest.mark.parametrize("found_by", ["the check", "a deletion", "a reader"])
def test_damage_while_it_is_written_sets_it_aside(found_by, grown, journal, caplog, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_S", 0.05)
    if found_by == "the check":
        monkeypatch.setattr(journal_module, "CHECK_S", 0.05)
    one = journal(grown)
    assert one.commit([entry(2000)], PATIENCE_S)
    overwrite(grown, 1, grown.stat().st_size // PAGE - 1)
    if found_by == "a deletion":
        one._max_bytes = 1e6  # only now: it would have deleted enough before
    if found_by == "a reader":
        one.suspect()
    seq = itertools.count(2001)
    eventually(lambda: one.commit([entry(next(seq))], PATIENCE_S) and aside(grown))
    assert one.commit([entry(next(seq))], PATIENCE_S)
    assert held(grown)
    assert len(caplog.records) == len(aside(grown)) == 1
    assert (one.errors, one.problem) == (0, None)


def test_two_listeners_set_a_damaged_journal_aside_once(grown, journal, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_S", 0.05)
    one, other = journal(grown), journal(grown)
    for each in (one, other):
        assert each.commit([entry(0, "label/attic/")], PATIENCE_S)
    overwrite(grown, 1, grown.stat().st_size // PAGE - 1)
    for each in (one, other):
        each.suspect()
    eventually(lambda: aside(grown))
    seq = itertools.count()
    for each, topic in ((one, "label/a/"), (other, "label/b/")):
        eventually(lambda e=each, t=topic: e.commit([entry(next(seq), t)], 1) and held(grown, t))
    assert len(aside(grown)) == 1


def test_on_a_bad_disk_one_journal_is_set_aside_and_no_more(grown, journal, tmp_path):
    def damage() -> None:
        for file in tmp_path.glob("journal.sqlite*"):
            file.unlink()
        grown.write_text("a letter, not a database " * 100)

    damage()
    one = journal(grown)
    assert one.commit([entry(0)], PATIENCE_S)
    damage()
    eventually(lambda: not one.commit([entry(0)], PATIENCE_S))
    assert "is the disk well?" in one.problem
    assert len(aside(grown)) == 1


def test_what_cannot_be_renamed_is_said_and_the_listening_goes_on(
    grown, journal, caplog, monkeypatch
):
    def refuse(path: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    grown.write_text("a letter, not a database " * 100)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.journal_file, "set_aside", refuse)
        one = journal(grown)
        assert not one.commit([entry(0)], PATIENCE_S)
        assert "cannot be renamed (Permission denied)" in one.problem
        assert str(grown) in one.problem
        assert len(caplog.records) == 1
    assert one.commit([entry(1)], PATIENCE_S)
    assert held(grown) == [1]


def test_a_folder_that_may_not_be_written_is_said_and_tried_again(tmp_path, monkeypatch, caplog):
    def refuse(*_arguments, **_keywords) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "state")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        one = Journal(tmp_path / "state" / "journal.sqlite")
        assert not one.commit([entry(0)], PATIENCE_S)
        assert one.problem == f"Permission denied: {one.path}"
        assert len(caplog.records) == 1
    assert one.commit([entry(1)], PATIENCE_S)
    one.close()
    assert held(one.path) == [1]


def test_a_link_to_a_damaged_journal_stays_a_link(grown, journal, tmp_path):
    grown.write_text("a letter, not a database " * 100)
    link = tmp_path / "link" / "journal.sqlite"
    link.parent.mkdir()
    link.symlink_to(grown)
    assert journal(link).commit([entry(0)], PATIENCE_S)
    assert link.is_symlink()
    assert held(grown) == [0]
    assert len(aside(grown)) == 1


def test_what_was_set_aside_before_is_not_written_over(tmp_path, monkeypatch):
    names = set()
    for content in ("one", "two", "three"):  # within a second, or with the clock set back
        path = tmp_path / "notes.txt"
        path.write_text(content)
        names.add(journal_module.journal_file.set_aside(path))
    assert sorted(each.read_text() for each in names) == ["one", "three", "two"]


def set_clock(monkeypatch, ahead_s: float) -> None:
    """Set the wall clock, and not the monotonic one, so much ahead of this machine's."""
    true = time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()
    monkeypatch.setattr(time, "time", lambda: true + time.monotonic() + ahead_s)


MONTH = [30 * DAY_S - 3600, 20 * DAY_S, DAY_S, 10.0]  # ages of the entries in a journal


def of_a_month() -> list[Entry]:
    return [entry(seq, at=time.time() - age) for seq, age in enumerate(MONTH)]


def tended(journal: Journal) -> None:
    """Wait for another look at age and size."""
    due = journal._tend_at
    eventually(lambda: journal._tend_at > due)
    due = journal._tend_at
    eventually(lambda: journal._tend_at > due)


@pytest.mark.parametrize("ahead_s", [60 * DAY_S, 3 * DAY_S, 56 * 365 * DAY_S, -60 * DAY_S])
@pytest.mark.parametrize("while_running", [True, False], ids=["running", "between runs"])
def test_a_leap_of_the_clock_empties_no_journal(journal, monkeypatch, ahead_s, while_running):
    monkeypatch.setattr(journal_module, "TEND_S", 0.05)
    set_clock(monkeypatch, 0)
    one = journal()
    assert one.commit(of_a_month(), PATIENCE_S)
    tended(one)
    if not while_running:
        one.close()
    set_clock(monkeypatch, ahead_s)
    one = one if while_running else journal()
    assert one.commit([entry(4)], PATIENCE_S)  # stamped by the new clock
    tended(one)
    for again in range(2):  # nor does the next run
        one.close()
        one = journal()
        tended(one)
        assert one.commit([entry(5 + again)], PATIENCE_S)
    assert held(one.path) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("ahead_s", [60 * DAY_S, -60 * DAY_S])
def test_after_a_leap_entries_age_by_what_is_lived_through(journal, monkeypatch, ahead_s):
    monkeypatch.setattr(journal_module, "TEND_S", 0.05)
    set_clock(monkeypatch, 0)
    one = journal()
    assert one.commit(of_a_month(), PATIENCE_S)
    set_clock(monkeypatch, ahead_s)
    tended(one)
    for days in range(1, 12):  # half a day more, and two days twice a day
        set_clock(monkeypatch, ahead_s + days * 0.95 * DAY_S)  # suspended: that is lived through
        assert one.commit([entry(3 + days)], PATIENCE_S)
        tended(one)
    assert held(one.path) == [2, 3, *range(4, 15)]


def test_a_clock_that_leaps_to_and_fro_leaves_nothing_for_ever(journal, monkeypatch):
    monkeypatch.setattr(journal_module, "TEND_S", 0.05)
    set_clock(monkeypatch, 0)
    one = journal(max_age_days=2)
    for seq, ahead_s in enumerate((0, 60 * DAY_S, -9000 * DAY_S, 0)):
        set_clock(monkeypatch, ahead_s)
        tended(one)
        assert one.commit([entry(seq)], PATIENCE_S)
    assert held(one.path) == [0, 1, 2, 3]
    for steps in range(20):  # two days and more, a sixth of a day at a time
        set_clock(monkeypatch, (steps + 1) * DAY_S / 6)
        tended(one)
    assert held(one.path) == []
    rows = reader(one.path).execute("SELECT count(*) FROM leaps").fetchone()
    assert rows == (0,)


@pytest.mark.parametrize("ahead_s", [60 * DAY_S, -60 * DAY_S, -50 * 365 * DAY_S])
@pytest.mark.parametrize("then", ["a restart", "nothing", "a message"])
def test_a_clock_set_right_before_anything_is_written_leaves_no_leap(
    journal, monkeypatch, ahead_s, then
):
    monkeypatch.setattr(journal_module, "TEND_S", 0.05)
    set_clock(monkeypatch, 0)
    one = journal()
    assert one.commit(of_a_month(), PATIENCE_S)
    one.close()
    set_clock(monkeypatch, ahead_s)  # as at boot, with a dead battery, before the network is there
    one, other = journal(), journal()
    tended(one)
    tended(other)
    if then == "a restart":
        one.close()
        other.close()
    set_clock(monkeypatch, 0)
    if then == "a restart":
        one, other = journal(), journal()
    if then == "a message":  # before anyone has looked at the clock
        one._tend_at = other._tend_at = time.monotonic() + 0.5
        assert one.commit([entry(4, at=time.time())], PATIENCE_S)
    for each in (one, other, one, other):
        tended(each)
    assert held(one.path) == [0, 1, 2, 3] + [4] * (then == "a message")
    assert reader(one.path).execute("SELECT count(*) FROM leaps").fetchone() == (0,)


def test_two_listeners_note_a_leap_once(journal, monkeypatch):
    monkeypatch.setattr(journal_module, "TEND_S", 0.05)
    set_clock(monkeypatch, 0)
    one, other = journal(), journal()
    assert one.commit([entry(0)], PATIENCE_S)
    set_clock(monkeypatch, 60 * DAY_S)
    for each in (one, other, one, other):
        tended(each)
    [(message, ahead)] = reader(one.path).execute("SELECT message, ahead FROM leaps").fetchall()
    assert (message, round(ahead / DAY_S)) == (2, 60)


def test_a_folder_that_cannot_be_is_an_error_with_a_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="--no-journal"):
        Journal(tmp_path / "file" / "journal.sqlite")


def test_reading_what_is_absent_or_empty_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="no journal"):
        reader(tmp_path / "absent.sqlite")
    (tmp_path / "empty.sqlite").write_bytes(b"")
    with pytest.raises(JournalError, match="empty"):
        reader(tmp_path / "empty.sqlite")


def test_a_reader_cannot_write(journal):
    one = journal()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader(one.path).execute("DELETE FROM messages")


def test_the_state_folder_is_the_users_or_the_environments(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path))
    assert default_path() == tmp_path / "journal.sqlite"
    monkeypatch.delenv("STREAMTWL_STATE")
    assert default_path().parts[-2:] == ("streamtwl", "journal.sqlite")


@pytest.mark.parametrize(
    ("opened", "file"), [(journal_file.writer, Path), (moments.Moments, moments.path_of)]
)
def test_a_new_database_is_waited_for_while_another_writes_to_it(opened, file, tmp_path):
    path = tmp_path / "new.sqlite"
    opened(path).close()
    other = sqlite3.connect(file(path), isolation_level=None, check_same_thread=False)
    with contextlib.closing(other):
        other.execute("PRAGMA journal_mode = DELETE")  # as it is before the first has it opened
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE IF NOT EXISTS leaps (message INTEGER PRIMARY KEY, ahead REAL)")
        threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
        opened(path).close()
