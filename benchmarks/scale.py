"""What archives take: throughput over workers here, and a model of it from measured parts.

    python benchmarks/scale.py                 # a few minutes; --quick: a try-out

Measured: starting Ray, loading the models, decoding, scoring, writing a file's events, Ray's own
time a block, and a whole job over 1 and 2 workers. The model: a job of H hours in files of one hour
on C cores takes

    start + models + max(H (decode + score + write) / C, H block)

as the driver hands out one block after another. It is linear in C up to the number of cores at
which both terms of the maximum are equal, and not worth more cores than make the first as short as
start + models.
"""

import streamtwl  # noqa: F401  # isort: skip  # before numpy, which it holds to one thread

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from streamtwl.archives import ray_engine
from streamtwl.archives.dataset import Dataset
from streamtwl.archives.job import plan
from streamtwl.archives.worker import Job, Worker
from streamtwl.audio import demo
from streamtwl.audio.intake import Stream
from streamtwl.config import find, load
from streamtwl.labelling import BatchRecording

RATE = 48_000
HOURS = (1, 100, 10_000)
CORES = (1, 2, 16, 128, 1_000)
MICROPHONES = 1_000


def main() -> None:
    """Measure, print tables, write JSON."""
    options = _options()
    settings = load(find(options.pipeline))
    with tempfile.TemporaryDirectory() as folder:
        files = _archive(Path(folder) / "sd", options.files, options.seconds)
        job = Job(str(Path(folder) / "out.parquet"), settings)
        parts = _parts(job, files, options.seconds, options.repeats)
        jobs = [_job(job, files, cores, options) for cores in (1, 2)]
    parts["start_s"] = statistics.median(each["start_s"] for each in jobs)
    parts["block_s"] = min(each["block_s"] for each in jobs)
    found = {"pipeline": options.pipeline, "parts": parts, "jobs": jobs, "model": _model(parts)}
    print(_tables(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", default="default")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=120, help="of each file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="2 files of 20 s, once, 20 blocks")
    options = parser.parse_args()
    options.blocks = 200
    if options.quick:
        options.files, options.seconds, options.repeats, options.blocks = 2, 20, 1, 20
    return options


def _archive(folder: Path, count: int, seconds: int) -> list[str]:
    """Return recordings of the demo's scene over a little noise, at 48 kHz."""
    folder.mkdir()
    scene = np.repeat(np.tile(demo.scene(), -(-seconds // 20)), RATE // 16_000)
    files = []
    for i in range(count):
        noise = np.random.default_rng(i).standard_normal(seconds * RATE)
        files.append(str(folder / f"20260514_{i % 24:02}0000-{i}.wav"))
        soundfile.write(files[-1], 0.5 * scene[: seconds * RATE] + 0.003 * noise, RATE)
    return files


def _parts(job: Job, files: list[str], seconds: int, repeats: int) -> dict[str, float]:
    """Return processor seconds of the parts, of an hour of sound or of a file: the least."""
    workers: list[Worker] = []

    def load_models() -> None:
        workers.append(Worker(job))
        workers[-1]._ready(files[0])

    def decode() -> None:
        recording = BatchRecording(Path(files[0]))
        recording.start()
        stream = Stream(0, recording)
        while not stream.ended:
            stream.read(0.0)

    def whole() -> None:
        workers[0]._whole(files[0], lambda: 0)

    models_s = _least(load_models, repeats, time.perf_counter)
    decode_s = _least(decode, repeats)
    whole_s = _least(whole, repeats)
    result = workers[0]._whole(files[0], lambda: 0)
    assert result is not None
    dataset = Dataset(job.output)
    write_s = _least(lambda: dataset.write(files[0], result), repeats)
    an_hour = 3600 / seconds
    return {
        "models_s": models_s,
        "decode_s_per_hour": decode_s * an_hour,
        "score_s_per_hour": (whole_s - decode_s) * an_hour,
        "write_s_per_file": write_s,
    }


def _least(
    action: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time
) -> float:
    took = []
    for _ in range(repeats):
        began = clock()
        action()
        took.append(clock() - began)
    return min(took)


def _job(job: Job, files: list[str], cores: int, options: argparse.Namespace) -> dict[str, float]:
    """Return what a whole job takes on a cluster of so many cores here."""
    began = time.perf_counter()
    with ray_engine.cluster("ray", cores):
        start_s = time.perf_counter() - began
        began = time.perf_counter()
        [first, _] = plan(files, job, cores=1)
        ends = [time.perf_counter() for _ in ray_engine.labelled(job, first, lambda: 0)]
        job_s = time.perf_counter() - began
        block_s = _block_s(options.blocks)
    sound_s = options.seconds * len(files)
    return {
        "cores": cores,
        "start_s": start_s,
        "job_s": job_s,
        "first_s": ends[0] - began,
        "times_real_time": sound_s / job_s,
        "steady": sound_s * (len(ends) - 1) / len(ends) / max(1e-9, ends[-1] - ends[0]),
        "block_s": block_s,
    }


def _block_s(count: int) -> float:
    """Return what Ray Data takes for a block in which nothing is done."""
    import ray.data
    from ray.data import ActorPoolStrategy

    blocks = ray.data.from_items([{"i": i} for i in range(count)], override_num_blocks=count)
    done = blocks.map_batches(_Nothing, batch_size=1, compute=ActorPoolStrategy(size=1))
    ends = [time.perf_counter() for _ in done.iter_rows()]
    return (ends[-1] - ends[0]) / (count - 1)


class _Nothing:
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return batch


def _model(parts: dict[str, float]) -> dict:
    sound_s = parts["decode_s_per_hour"] + parts["score_s_per_hour"]
    per_hour_s = sound_s + parts["write_s_per_file"]  # in files of an hour
    fixed_s = parts["start_s"] + parts["models_s"]
    return {
        "jobs": {
            hours: {
                cores: fixed_s + max(hours * per_hour_s / cores, hours * parts["block_s"])
                for cores in CORES
            }
            for hours in HOURS
        },
        "linear_up_to_cores": per_hour_s / parts["block_s"],
        "worth_cores": {hours: max(1, hours * per_hour_s / fixed_s) for hours in HOURS},
        "cores_for_microphones": MICROPHONES * sound_s / 3600,
    }


def _tables(found: dict) -> str:
    parts, model = found["parts"], found["model"]
    lines = [f"## {found['pipeline']}", "", "| part | |", "| --- | --- |"]
    lines += [f"| {name} | {value:.3g} |" for name, value in parts.items()]
    lines += ["", "| workers here | x real time, all in | once they run | first file after |"]
    lines += ["| --- | --- | --- | --- |"]
    lines += [
        f"| {each['cores']} | {each['times_real_time']:.0f} | {each['steady']:.0f} | "
        f"{each['first_s']:.1f} s |"
        for each in found["jobs"]
    ]
    lines += ["", "| hours | " + " | ".join(f"{cores} cores" for cores in CORES) + " |"]
    lines += ["| --- |" + " --- |" * len(CORES)]
    for hours, by_cores in model["jobs"].items():
        lines += [f"| {hours:,} | " + " | ".join(map(_spelled, by_cores.values())) + " |"]
    worth = ", ".join(f"{h:,} h: {cores:.0f}" for h, cores in model["worth_cores"].items())
    lines += [
        "",
        f"Linear up to {model['linear_up_to_cores']:.0f} cores, where the driver hands out no "
        "more blocks of an hour. As long as starting takes (no more cores are worth it): "
        f"{worth} cores. {MICROPHONES:,} microphones need at least "
        f"{model['cores_for_microphones']:.0f} cores (live: `benchmarks/capacity.py`).",
    ]
    return "\n".join(lines)


def _spelled(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
