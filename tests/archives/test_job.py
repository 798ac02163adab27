"""`label -o OUT.parquet`, from folders and from a store, and `history` on it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamtwl.archives import worker as worker_module
from streamtwl.archives.dataset import file_id, source_of
from streamtwl.archives.worker import Job, Task, Worker
from streamtwl.audio import demo
from streamtwl.commands import label_batch
from streamtwl.config import find, load
from streamtwl.errors import UsageError

duckdb = pytest.importorskip("duckdb", reason="the extra `archive` is absent")
pytest.importorskip("pyarrow", reason="the extra `archive` is absent")
pytestmark = pytest.mark.usefixtures("yamnet")

PATIENCE_S = 120


@pytest.fixture
def recordings(wav, tmp_path) -> Path:
    """Two sources around midnight, and a broken file."""
    scene = demo.scene()
    for i, source in enumerate(("Garden 1", "kitchen")):
        wav(f"sd/{source}/20260514_235950.{i:03}.wav", scene)
    (tmp_path / "sd" / "kitchen" / "broken.wav").write_text("no sound")
    return tmp_path / "sd"


def rows(data_set: Path) -> list[tuple]:
    return duckdb.sql(
        "SELECT day, source, label, start_s, end_s, peak, mean, start_time, id FROM "
        f"read_parquet('{data_set}/day=*/source=*/*.parquet', hive_partitioning = true)"
        " ORDER BY id"
    ).fetchall()


def settings():
    return load(find("yamnet"))


def label(files, output, resume=False, clock="name", form="parquet") -> int:
    batch = label_batch.BatchOptions(None, resume, clock, "UTC" if clock else None)
    return label_batch.run(files, output, None, form, settings(), batch)


def test_events_are_those_of_jsonl_by_day_and_source(recordings, tmp_path):
    assert label([recordings], tmp_path / "out.parquet") == 1
    assert label([recordings], tmp_path / "out.jsonl", form="jsonl") == 1
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    wanted = sorted(
        (event["start_time"][:10], source_of(line["file"]), event["label"], event["start_s"])
        for line in lines
        for event in line["events"]
    )
    found = [(str(day), source, label, start) for day, source, label, start, *_ in
             rows(tmp_path / "out.parquet")]  # fmt: skip
    assert sorted(found) == wanted
    assert {day for day, *_ in found} == {"2026-05-14", "2026-05-15"}
    assert {source for _, source, *_ in found} == {"garden-1", "kitchen"}


def test_resume_labels_what_failed_and_has_each_row_once(recordings, tmp_path, wav):
    output = tmp_path / "out.parquet"
    assert label([recordings], output) == 1
    before = rows(output)
    with pytest.raises(UsageError, match="--resume goes on with it"):
        label([recordings], output)
    with pytest.raises(UsageError, match="other options"):
        label([recordings], output, resume=True, clock=None)
    (recordings / "kitchen" / "broken.wav").unlink()
    wav("sd/kitchen/broken.wav", demo.scene())  # undated
    assert label([recordings], output, resume=True) == 0
    assert set(before) < set(rows(output))
    assert {row[0] for row in rows(output)} - {row[0] for row in before} == {None}
    assert not [*(output / "_files").glob("*.failed.json")]


def test_a_lost_attempt_is_replaced(recordings, tmp_path):
    """Rows that were written before their line of the manifest come again, in their own place."""
    output = tmp_path / "out.parquet"
    label([recordings], output)
    before = rows(output)
    for line in (output / "_files").glob("*.json"):
        line.unlink()
    label([recordings], output, resume=True)
    assert rows(output) == before


def test_history_reads_it(recordings, tmp_path, cli):
    label([recordings], tmp_path / "out.parquet")
    found = cli("history", "--journal", tmp_path / "out.parquet", "--json", env={"TZ": "UTC"})
    assert found.returncode == 0, found.stderr
    messages = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(messages) == len(rows(tmp_path / "out.parquet"))
    one = ("--since", "2026-05-15", "--until", "2026-05-15 00:10", "--source", "kitchen")
    lines = cli("history", "--journal", tmp_path / "out.parquet", *one, env={"TZ": "UTC"})
    assert lines.stdout.startswith("2026-05-1")
    assert "garden" not in lines.stdout
    daily = cli("history", "--journal", tmp_path / "out.parquet", "--daily", env={"TZ": "UTC"})
    counted = sum(int(line.split()[1]) for line in daily.stdout.splitlines())
    assert counted == len(messages)
    other = cli("history", "--journal", tmp_path / "out.parquet", "--kind", "label")
    assert other.returncode == 2
    assert "events only" in other.stderr


def test_a_file_that_ends_its_process_is_given_up(recordings, tmp_path):
    job = Job(str(tmp_path / "out.parquet"), settings())
    file = str(next((recordings / "kitchen").glob("2*.wav")))
    tries = tmp_path / "out.parquet" / "_tries" / file_id(file)
    tries.mkdir(parents=True)
    for number in range(worker_module.TRIES - 1):
        (tries / str(number)).touch()
    done = Worker(job).do(Task(file))
    assert (done.ended, done.error) == (True, None)
    assert not any(tries.iterdir())
    for number in range(worker_module.TRIES):
        (tries / str(number)).touch()
    assert "ended the process that labelled it 3 times" in str(Worker(job).do(Task(file)).error)
    assert Worker(job).do(Task(file)).error is None  # the next job tries it again


def test_a_bug_ends_one_file(recordings, tmp_path, monkeypatch):
    worker = Worker(Job(str(tmp_path / "out.parquet"), settings()))
    files = sorted(str(file) for file in recordings.glob("*/2*.wav"))

    def fail(*_arguments, **_named):
        raise ZeroDivisionError("of its own")

    with monkeypatch.context() as broken:
        broken.setattr(worker_module, "label_files", fail)
        assert "ZeroDivisionError: of its own" in str(worker.do(Task(files[0])).error)
    assert worker.do(Task(files[1])).error is None


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """The environment for an S3 server on loopback, with an empty bucket `sound`."""
    pytest.importorskip("moto", reason="moto is absent")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.05)
        yield environment
    finally:
        server.kill()
        server.wait()


def test_from_a_store_to_a_store(bucket, recordings, tmp_path, cli, monkeypatch):
    s3fs = pytest.importorskip("s3fs", reason="s3fs is absent")
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    files = s3fs.S3FileSystem(endpoint_url=bucket["AWS_ENDPOINT_URL"], skip_instance_cache=True)
    files.mkdir("sound")
    files.put(f"{recordings}/", "sound/sd", recursive=True)
    options = ("--pipeline", "yamnet", "--clock", "name", "--zone", "UTC")
    done = cli("label", "s3://sound/sd", "-o", "s3://sound/out.parquet", *options, env=bucket)
    assert done.returncode == 1, done.stderr
    assert "broken.wav" in done.stderr
    assert "Traceback" not in done.stderr
    again = cli("label", "s3://sound/sd/**/2*.wav", "-o", "s3://sound/out.parquet", *options,
                "--resume", env=bucket)  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "2 of 2 files have a result already" in again.stderr
    files.get("sound/out.parquet/", str(tmp_path / "out.parquet"), recursive=True)
    label([recordings], tmp_path / "here.parquet")
    there, here = rows(tmp_path / "out.parquet"), rows(tmp_path / "here.parquet")
    assert {row[:8] for row in there} == {row[:8] for row in here}
    assert len(there) == len(here)
    gone = cli("label", "s3://nowhere/sd", "-o", tmp_path / "x.parquet", env=bucket)
    assert gone.returncode != 0
    assert "Traceback" not in gone.stderr


def test_options_that_do_not_fit(tmp_path, cli):
    for arguments, said in (
        (["--engine", "spark", "-o", "o.parquet"], "it takes ray"),
        (["--engine", "ray", "-o", "o.csv"], "go with -o OUT.parquet alone"),
        (["s3://a/b"], "go with -o OUT.parquet alone"),
    ):
        result = cli("label", "x.wav", *arguments, cwd=tmp_path)
        assert result.returncode == 2, result.stderr
        assert said in result.stderr
    assert not os.listdir(tmp_path)
