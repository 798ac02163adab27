"""64 paced streams over two processes; one is lost."""

import json
import re
import signal
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import streamtwl
from streamtwl.audio import demo
from streamtwl.audio.addresses import shard_of
from tests.conftest import PATIENCE_S

pytestmark = pytest.mark.usefixtures("yamnet")

STREAMS = 64
# light on the processor: what is tested is not how many it carries
PIPELINE = """
base = "yamnet"
hop_s = 0.96
[level]
enabled = false
"""


@pytest.fixture
def sources(wav, tmp_path) -> list[str]:
    """Files of ten minutes each, played at the pace of real time."""
    sound = np.tile(demo.scene(), 30)
    one = wav("sound.wav", sound)
    names = []
    for i in range(STREAMS):
        (tmp_path / f"mic-{i:02}.wav").symlink_to(one)
        names.append(str(tmp_path / f"mic-{i:02}.wav"))
    return names


def test_a_lost_shard_takes_only_its_own_streams_with_it(sources, tmp_path, start_cli):
    (tmp_path / "fleet.toml").write_text(PIPELINE)

    def shard(i: int):
        return start_cli(
            "listen", *sources, "--shard", f"{i}/2", "--pipeline", tmp_path / "fleet.toml",
            "--bind", f"ipc://{tmp_path}/pub{i}", "--replay-bind", f"ipc://{tmp_path}/replay{i}",
            "--journal", tmp_path / f"{i}.sqlite", "--no-control", "--quiet",
        )  # fmt: skip

    shards = {i: shard(i) for i in (1, 2)}
    of = {Path(each).stem: shard_of(Path(each).stem, 2) for each in sources}
    assert min(list(of.values()).count(i) for i in (1, 2)) > STREAMS // 4
    connect = [word for i in (1, 2) for word in ("--connect", f"ipc://{tmp_path}/pub{i}")]
    subscriber = start_cli("subscribe", *connect, "--kind", "label", "--json", text=True)
    labels: dict[str, list[dict]] = defaultdict(list)

    def receive(until) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < deadline
            message = json.loads(subscriber.stdout.readline())
            labels[message["source"]].append(message)

    receive(lambda: len(labels) == STREAMS)
    shards[1].send_signal(signal.SIGKILL)
    shards[1].wait()
    before = {source: len(of_source) for source, of_source in labels.items()}
    of_two = [source for source in of if of[source] == 2]
    receive(lambda: all(len(labels[source]) > before[source] + 2 for source in of_two))
    sessions = {of_source[0]["session"] for of_source in labels.values()}
    assert len(sessions) == 2
    shards[1] = shard(1)

    def is_back(source: str) -> bool:
        return labels[source][-1]["session"] not in sessions

    receive(lambda: all(is_back(source) for source in of if of[source] == 1))
    subscriber.send_signal(signal.SIGINT)
    for source in of_two:  # nothing lost, nothing twice
        seqs = [message["seq"] for message in labels[source]]
        assert seqs == [*range(seqs[0], seqs[0] + len(seqs))]
        assert {message["session"] for message in labels[source]} <= sessions
    for source in of:
        both = defaultdict(list)
        for message in labels[source]:
            both[message["session"]].append(message["seq"])
        for seqs in both.values():
            assert seqs == sorted(set(seqs))


def test_the_units_and_the_compose_file_start_every_shard_once():
    folder = Path(streamtwl.__file__).parents[1] / "packaging"
    unit = (folder / "streamtwl-shard@.service").read_text()
    assert "--shard %i/${STREAMTWL_SHARDS}" in unit
    compose = (folder / "compose.fleet.yaml").read_text()
    [count] = re.findall(r"--shard \$\$SHARD/(\d+)", compose)
    assert re.findall(r'SHARD: "(\d+)"', compose) == [str(i + 1) for i in range(int(count))]
