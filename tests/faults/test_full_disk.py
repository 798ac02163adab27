"""The disk is full while the journal is written: listening goes on, says so, and comes right."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamtwl.messages import Event, Label, Status


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here: it takes root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(file: Path) -> None:
    while shutil.disk_usage(file.parent).free:
        with file.open("ab", 0) as filler, contextlib.suppress(OSError):
            filler.write(bytes(4096))


def unjournalled(message: Label | Event | Status) -> bool:
    return not message.journalled and not getattr(message, "repeat", False)


def test_listening_goes_on_with_a_full_disk(small_disk, listen, figure):
    listening = listen("--stdin", "--journal", small_disk / "journal.sqlite")

    listening.feed_until(lambda label: label.repeat)
    fill(small_disk / "filler")
    listening.feed_until(unjournalled)  # once a summary was due
    said = listening.until(lambda message: isinstance(message, Status) and message.journal)
    assert "full" in said.journal
    assert str(small_disk) in said.journal
    for _ in range(10):
        listening.feed_until(unjournalled)
    (small_disk / "filler").unlink()
    listening.feed_until(lambda label: label.journalled)
    listening.feed_until(lambda label: label.repeat)
    assert listening.end() == 0
    told = [each for each in listening.messages if isinstance(each, Label | Event | Status)]
    lost = [each for each in told if unjournalled(each)]
    last = told[-1]
    assert isinstance(last, Status)
    assert 10 < last.journal_errors <= 2 * len(lost) + 10  # with the summary before each
    assert last.dropped_messages == 0
    figure("disk full", f"{len(told)} messages, none lost, {len(lost)} of them not in the journal")


def test_listening_begins_with_a_full_disk(small_disk, listen):
    fill(small_disk / "filler")
    listening = listen("--stdin", "--journal", small_disk / "journal.sqlite")
    listening.feed_until(unjournalled)
    (small_disk / "filler").unlink()
    listening.feed_until(lambda label: label.journalled)
    assert listening.end() == 0
