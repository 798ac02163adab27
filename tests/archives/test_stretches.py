"""A long file in stretches: the same result as unbroken, to the bit."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamtwl import config
from streamtwl.archives import stretches
from streamtwl.archives.job import plan
from streamtwl.archives.stretches import SeamError, Stretch
from streamtwl.archives.worker import Job, Task, Worker
from streamtwl.audio import demo

pytestmark = pytest.mark.usefixtures("yamnet")


def settings(pipeline: str, **changes) -> config.Settings:
    return config.override(config.load(config.find(pipeline)), changes)


@pytest.fixture
def long(wav) -> Path:
    """Forty seconds, in stereo, of no whole number of hops."""
    scene = np.concatenate([demo.scene()] * 2)[:-1234]
    scene += 0.003 * np.random.default_rng(5).standard_normal(len(scene)).astype(np.float32)
    return wav("long.flac", np.stack([scene, 0.5 * scene], axis=1), 16_000)


def in_stretches(worker: Worker, file: Path, hop_s: float, count: int):
    for piece in stretches.cut(40.0, hop_s, count):
        worker.do(Task(str(file), piece))
    return worker._decide(Task(str(file), of=count))


@pytest.mark.parametrize(
    "pipeline",
    [
        "yamnet",
        pytest.param("light", marks=pytest.mark.slow),
        pytest.param("default", marks=pytest.mark.slow),
    ],
)
def test_the_result_is_that_of_the_unbroken_file(pipeline, long, tmp_path, request):
    if pipeline != "yamnet":
        request.getfixturevalue("mn04")
    wanted = settings(pipeline)
    worker = Worker(Job(str(tmp_path / "out.parquet"), wanted))
    whole = msgspec.json.encode(worker._whole(str(long), lambda: 0))
    assert msgspec.json.decode(whole)["events"]
    for count in (2, 5):
        cut = in_stretches(worker, long, wanted.hop_s, count)
        assert msgspec.json.encode(cut) == whole


@pytest.mark.slow
def test_a_header_that_is_wrong_changes_nothing(long, tmp_path):
    """Stretches follow from the header's duration; the last one goes on to the end."""
    wanted = settings("yamnet")
    worker = Worker(Job(str(tmp_path / "out.parquet"), wanted))
    whole = worker._whole(str(long), lambda: 0)
    for promised_s in (12.0, 90.0):
        for piece in stretches.cut(promised_s, wanted.hop_s, 3):
            worker.do(Task(str(long), piece))
        try:
            assert worker._decide(Task(str(long), of=3)) == whole
        except SeamError:
            assert promised_s > 40  # a stretch beyond the end: unbroken then
        worker.forget()


def test_scores_that_differ_at_a_seam_are_noticed(long, tmp_path):
    worker = Worker(Job(str(tmp_path), settings("yamnet")))
    pipeline = worker._ready(str(long))
    one, two = stretches.cut(40.0, 0.48, 2)
    pieces = [
        stretches.score(each, worker._recording(str(long), channel), pipeline)
        for each, channel in ((one, None), (two, 2))
    ]
    with pytest.raises(SeamError):
        stretches.decide(iter(pieces), pipeline)


@pytest.mark.slow
def test_without_a_stretch_the_file_is_labelled_unbroken(long, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra `archive` is absent")
    worker = Worker(Job(str(tmp_path / "out.parquet"), settings("yamnet")))
    worker.do(Task(str(long), stretches.cut(40.0, 0.48, 2)[1]))
    done = worker.do(Task(str(long), of=2))
    assert done.ended
    assert done.error is None
    assert done.events > 0


def test_files_are_cut_where_cores_would_be_idle(wav, tmp_path):
    """Of 40 min and 10 s, on four cores: share 10 min."""
    quiet = np.zeros(40 * 60 * 8000, np.int16)
    files = [str(wav("long.wav", quiet, 8000)), str(wav("short.wav", quiet[: 8000 * 10], 8000))]
    job = Job(str(tmp_path / "out.parquet"), settings("yamnet"))
    first, then = plan(files, job, cores=4)
    assert [task.file for task in first] == [files[0]] * 4 + [files[1]]
    assert {task.stretch.number for task in first[:4] if task.stretch} == {0, 1, 2, 3}
    assert then == [Task(files[0], of=4)]
    assert plan(files, job, cores=1) == [[Task(each) for each in files], []]
    gated = Job(job.output, settings("default", gate=0.2))
    assert plan(files, gated, cores=4)[1] == []


def test_stretches_follow_one_another():
    assert stretches.cut(48.0, 0.48, 3) == [
        Stretch(0, 3, 0, 33),
        Stretch(1, 3, 33, 66),
        Stretch(2, 3, 66, None),
    ]
