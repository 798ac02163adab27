import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from streamtwl.errors import JournalError
from streamtwl.sinks import journal as journal_module
from streamtwl.sinks.journal import BATCHES, DAY_S, Entry, Journal
from streamtwl.sinks.journal_file import default_path, reader

PATIENCE_S = 10.0


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
        (lambda path: path.write_text("a letter, not a database " * 100), "not a database"),
        (lambda path: path.mkdir(), "unable to open"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE cats (name)"), "another program"),
        (lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 9"), "layout 9"),
    ],
    ids=["letter", "folder", "another", "newer"],
)
def test_what_is_no_journal_is_an_error_with_a_way_out(spoil, said, tmp_path):
    path = tmp_path / "journal.sqlite"
    spoil(path)
    with pytest.raises(JournalError, match=said) as raised:
        Journal(path)
    assert "--journal" in str(raised.value)
    assert str(path) in str(raised.value)
    if path.is_file():
        with pytest.raises(JournalError):
            reader(path)


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
