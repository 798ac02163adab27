"""A job on a real cluster of two machines, one of which is lost, as is a worker of the other."""

import importlib.util
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from streamtwl.archives import ray_engine
from streamtwl.audio import demo

if not all(map(importlib.util.find_spec, ("ray", "duckdb"))):
    pytest.skip("the extra `ray` is absent", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("yamnet")

FILES = 16
FAST = ("--pipeline", "yamnet", "--clock", "name")
PATIENCE_S = 600


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """Two machines of one core each, that listen on loopback only."""
    machine = {"num_cpus": 1, "object_store_memory": 100_000_000}
    environment = pytest.MonkeyPatch()
    for name, value in (ray_engine.ENVIRONMENT | ray_engine.ONE_MACHINE).items():
        environment.setenv(name, value)
    from ray.cluster_utils import Cluster  # which reads them when it is imported

    made = Cluster(initialize_head=True, head_node_args=machine | {"include_dashboard": False})
    made.second = made.add_node(**machine)
    yield made
    made.shutdown()
    environment.undo()


@pytest.fixture
def archive(wav, tmp_path) -> Path:
    """Recordings of two sources around midnight, one of them broken."""
    scene = demo.scene()
    for i in range(FILES):
        wav(f"sd/{('garden', 'kitchen')[i % 2]}/202605{14 + i % 3}_2359{40 + i % 20}.{i:03}.wav",
            np.roll(scene, 16_000 * i))  # fmt: skip
    (tmp_path / "sd" / "garden" / "broken.wav").write_text("no sound")
    return tmp_path / "sd"


def rows(data_set: Path) -> list[tuple]:
    import duckdb

    return duckdb.sql(
        "SELECT day, source, id, file, label, start_s, end_s, peak, mean, start_time FROM "
        f"read_parquet('{data_set}/day=*/source=*/*.parquet', hive_partitioning = true) ORDER BY id"
    ).fetchall()


def results(data_set: Path) -> list[Path]:
    folder = data_set / "_files"
    return [*folder.glob("*.json")] if folder.is_dir() else []


def workers(node) -> list[psutil.Process]:
    [raylet] = node.all_processes["raylet"]
    children = psutil.Process(raylet.process.pid).children()
    return [each for each in children if any("MapWorker" in word for word in each.cmdline())]


def wait_for(condition, process) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_listens_on_loopback_only(cluster):
    assert cluster.address.startswith("127.0.0.1:")
    mine = psutil.Process().children(recursive=True)
    open_to = {
        each.laddr.ip
        for process in mine
        for each in process.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }
    assert open_to <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_lost_worker_and_a_lost_machine_lose_nothing(cluster, archive, tmp_path, start_cli, cli):
    one, many = tmp_path / "one.parquet", tmp_path / "many.parquet"
    assert cli("label", archive, "-o", one, *FAST).returncode == 1  # one is broken
    engine = f"ray://{cluster.address}"
    job = start_cli("label", archive, "-o", many, *FAST, "--engine", engine, text=True)
    wait_for(lambda: len(results(many)) >= 2 and workers(cluster.head_node), job)
    os.kill(workers(cluster.head_node)[0].pid, signal.SIGKILL)
    lost_at = len(results(many))
    assert lost_at < FILES
    wait_for(lambda: workers(cluster.second) or len(results(many)) > FILES, job)
    cluster.remove_node(cluster.second, allow_graceful=False)
    assert len(results(many)) < FILES + 1, "it was over before the machine was lost"
    _, said = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, said
    assert "broken.wav" in said
    assert "Traceback" not in said
    assert rows(many) == rows(one)
    assert len({row[2] for row in rows(many)}) == len(rows(many)) > FILES
    files = [json.loads(path.read_text())["file"] for path in results(many)]
    assert len(files) == len(set(files)) == FILES + 1
