"""Files labelled ahead, by threads and by processes: the same results, whoever is killed."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

import streamtwl
from streamtwl.audio import demo
from streamtwl.commands import label_batch
from streamtwl.config import Settings, find, load, override
from streamtwl.errors import UsageError
from streamtwl.label_worker import Job
from streamtwl.label_workers import Workers
from streamtwl.labelling import label_files
from streamtwl.pipeline import build
from streamtwl.results import Labelled
from streamtwl.stages import SAMPLE_RATE

pytestmark = pytest.mark.usefixtures("yamnet")  # so that its file is there

PATIENCE_S = 120
SETTINGS = load(find("yamnet"))
JOB = Job(SETTINGS, None, 1, 30)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return demo.scene()[: 20 * SAMPLE_RATE]


@pytest.fixture
def files(wav, scene) -> list[Path]:
    """Six of two lengths, and one that is no sound."""
    made = [wav(f"{i}.wav", scene[i * 16_000 : (i * 3 + 4) * 16_000]) for i in range(6)]
    made[3].write_text("no sound")
    return made


def outcomes(settings: Settings, files, **options) -> dict[int, list]:
    """Return what comes out by file: positions, decisions and changes of events."""
    pipeline = build(settings, ["0", "1", "2"], **options)
    found: dict[int, list] = {}

    def take(outcome) -> None:
        said, changes = outcome.decision, [(kind, repr(event)) for kind, event in outcome.changes]
        scores = (said.label, said.confidence, said.scores.tobytes()) if said else None
        found.setdefault(outcome.stream, []).append((outcome.position, scores, changes))

    pipeline.subscribe(take)
    list(label_files(files, pipeline))
    pipeline.close()
    return found


class Ended:
    """A worker that has ended, as `Workers` sees it."""

    def __init__(self, code: int, number: int | None = None) -> None:
        self.code, self.number, self.ready, self.open = code, number, True, None

    def ended(self) -> int:
        return self.code


@pytest.mark.parametrize("first", [0, 1])
def test_a_file_is_not_left_where_the_others_have_just_ended(first, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("streamtwl.label_workers.Worker", lambda job: started.append(job) or job)
    workers = Workers([tmp_path / "a", tmp_path / "b"], JOB, 0)
    workers._waiting.clear()
    killed, idle = Ended(-signal.SIGKILL, 1), Ended(0)  # there was no more for it
    workers._workers = [killed, idle]
    for each in (killed, idle) if first == 0 else (idle, killed):
        assert list(workers._without(each)) == []
    assert [*workers._waiting] == [1]
    assert started == [JOB]


@pytest.mark.parametrize("options", [{"ahead": 16}, {"ahead": 5, "threads": 2}])
def test_windows_scored_ahead_give_the_same_decisions(options, wav, scene):
    one = [wav("a.wav", scene[: 7 * SAMPLE_RATE])]
    assert outcomes(SETTINGS, one, **options) == outcomes(SETTINGS, one)


def test_a_gate_decides_hop_by_hop(wav, scene):
    gated = override(SETTINGS, {"gate": 0.3})
    assert build(gated, ["a"], ahead=16, threads=2).bank.gate is not None
    one = [wav("a.wav", scene[: 7 * SAMPLE_RATE])]
    assert outcomes(gated, one, ahead=16, threads=2) == outcomes(gated, one)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "light"])
def test_label_says_what_listen_says(name, cli, esc10, tmp_path, mn04):
    """Every event and the label, over real files, however many processes there are."""
    clips = sorted((esc10 / "audio").iterdir())[::40]
    results = []
    for jobs in ("1", "2"):
        ended = cli(
            "label", *clips, "-j", jobs, "--pipeline", name, "-o", tmp_path / f"{jobs}.jsonl"
        )
        assert ended.returncode == 0
        results.append(sorted((tmp_path / f"{jobs}.jsonl").read_text().splitlines()))
    assert results[0] == results[1]
    here = {each["file"]: each for each in map(json.loads, results[0])}
    for clip in clips:
        events: dict = {}
        for event in streamtwl.listen(str(clip), fast=True, pipeline=name):
            events[event.id] = event
        said = [
            (each.label, round(each.start / 16_000, 3), round(each.end / 16_000, 3))
            for each in sorted(events.values(), key=lambda event: event.start)
            if not each.retracted
        ]
        found = here[str(clip)]["events"]
        assert sorted((e["label"], e["start_s"], e["end_s"]) for e in found) == sorted(said)


def test_each_file_gets_its_result_from_some_process(files):
    alone = dict(label_files(files, build(SETTINGS, [file.name for file in files], ahead=16)))
    with Workers(files, JOB, 2) as workers:
        found = [*workers.results(lambda: True)]
        assert dict(found) == alone
    assert len(found) == len(files)
    assert "not audio" in alone[3].error


def test_a_wrong_setting_is_said_once_and_as_ever(files):
    wrong = override(SETTINGS, {"labels": "Dogg"})
    with pytest.raises(UsageError, match="Dogg"), Workers(files, Job(wrong, None, 1, 30), 2) as two:
        list(two.results(lambda: True))


def killing(workers: Workers, which: int, times: int) -> list[tuple[int, Labelled]]:
    """Label, and kill a process when it has that file in hand, so many times."""
    killed: list[int] = []

    def watch() -> bool:
        for worker in workers._workers:
            if worker.number == which and len(killed) < times and worker._process.pid not in killed:
                killed.append(worker._process.pid)
                os.kill(killed[-1], signal.SIGKILL)
        return True

    return [*workers.results(watch)]


def test_a_file_whose_process_was_killed_is_labelled_again(files, caplog):
    with Workers(files, JOB, 2) as workers:
        found = killing(workers, 5, times=1)
    assert sorted(number for number, _ in found) == [*range(6)]
    assert dict(found)[5].error is None
    assert "SIGKILL: is there too little memory?" in caplog.text


@pytest.mark.slow
def test_a_file_that_kills_its_process_twice_is_given_up(files):
    with Workers(files, JOB, 2) as workers:
        found = dict(killing(workers, 5, times=2))
    assert found.keys() == {*range(6)}
    assert "5.wav': the process that labels it ended, signal SIGKILL" in found[5].error
    assert [number for number, result in found.items() if result.error] in ([3, 5], [5, 3])


@pytest.mark.slow
def test_ended_early_no_process_is_left(files):
    with Workers(files, JOB, 2) as workers:
        next(workers.results(lambda: True))
        pids = [worker._process.pid for worker in workers._workers]
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_its_processes_end_with_it(number, start_cli, wav, tmp_path):
    long = [wav(name, np.zeros(SAMPLE_RATE * 3600, np.float32)) for name in ("a.wav", "b.wav")]
    process = start_cli("label", *long, "-j", "2", "-o", tmp_path / "out.jsonl")
    parent = psutil.Process(process.pid)
    children: list[psutil.Process] = []
    while process.poll() is None and not children:
        children = parent.children()
    process.send_signal(number)
    assert process.wait(PATIENCE_S) in (130, -signal.SIGKILL)
    _, left = psutil.wait_procs(children, PATIENCE_S)
    assert children
    assert not left


def test_jobs_by_default_are_as_many_as_there_is_work_for(wav, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    short = wav("short.wav", np.zeros(16_000))
    hour = wav("hour.wav", np.zeros(16_000 * 600))
    cpu = override(SETTINGS, {"backbone.provider": "cpu"})
    assert label_batch._worthwhile([short], cpu) == 1
    assert label_batch._worthwhile([short, hour], cpu) == 4
    assert label_batch._worthwhile([short.with_name("none.wav")], cpu) == 1
    assert label_batch._processes([short, hour], 4) == 2
    assert label_batch._processes([Path("/dev/stdin"), hour], 4) == 1
