"""What a window of AST costs: time and memory, float32 and int8, one thread and two.

    .venv/bin/python benchmarks/ast_windows.py [--model FOLDER] [--runs 5] [--out FOLDER]

Without --model the network has the size of MIT/ast-finetuned-audioset-10-10-0.4593 (12 layers of
768, 1024 frames) and random weights, which cost what trained ones do. Each graph and number of
threads has a process of its own, which scores one window of each length, over and over. Time is
the median of the processor's and of the wall clock; on a busy machine only the former says much.
Memory is what is resident in the process after the longest window so far, the interpreter's share
(about 60 MB) included. Written: ast_windows.json, with the load of the machine.
"""

import streamtwl  # isort: skip  # before numpy, which it holds to one thread

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from quick import QUICK, add_option
from rich.console import Console
from rich.table import Table

from streamtwl.models.runtime import open_session
from streamtwl.ontology import audioset_527

LENGTHS = (100, 200) if QUICK else (96, 100, 200, 500, 1024)  # frames
THREADS = (1, 2)
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def main() -> None:
    """Make the graphs, measure each in a process of its own, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="an ASTForAudioClassification (default: random weights)")
    parser.add_argument("--runs", type=int, default=5, help="of each window (default 5)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", nargs=2, metavar=("FILE", "THREADS"), help=argparse.SUPPRESS)
    add_option(parser)
    options = parser.parse_args()
    runs = 1 if QUICK else options.runs
    if options.child:
        print(json.dumps(windows(Path(options.child[0]), int(options.child[1]), runs)))
        return
    loads, rows = [os.getloadavg()[0]], []
    with tempfile.TemporaryDirectory() as scratch:
        for precision, file in graphs(options.model, Path(scratch)).items():
            for threads in THREADS:
                found = child(file, threads, runs)
                rows += [{"weights": precision, "threads": threads} | row for row in found]
                loads.append(os.getloadavg()[0])
    made = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load_average": [round(min(loads), 1), round(max(loads), 1)],
        "runs": runs,
        "rows": rows,
    }
    (options.out / "ast_windows.json").write_text(json.dumps(made, indent=1) + "\n")
    Console().print(f"streamtwl {streamtwl.__version__}, load average {made['load_average']}")
    Console().print(table(rows))


def graphs(named: str | None, scratch: Path) -> dict[str, Path]:
    """Return the files of both precisions."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    from streamtwl.models import ast_onnx

    if named:
        net, extractor = ast_onnx.load(named)
    else:
        settings = ASTConfig(
            id2label=dict(enumerate(audioset_527())),
            attn_implementation="eager",
            **(SMALL if QUICK else {}),
        )
        net, extractor = ASTForAudioClassification(settings).eval(), ASTFeatureExtractor()
    exact, int8 = scratch / "float32.onnx", scratch / "int8.onnx"
    ast_onnx.write(net, extractor, exact)
    shutil.copy(exact, int8)
    ast_onnx.quantise(int8)
    return {"float32": exact, "int8": int8}


def child(file: Path, threads: int, runs: int) -> list[dict]:
    """Return what a process of its own finds."""
    arguments = ["--child", str(file), str(threads), "--runs", str(runs)]
    command = [sys.executable, __file__, *arguments, *["--quick"] * QUICK]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout)


def windows(file: Path, threads: int, runs: int) -> list[dict]:
    """Score windows of each length; return a row each."""
    session = open_session(file, threads, "cpu")
    process, rows = psutil.Process(), []
    for frames in LENGTHS:
        fbank = np.random.default_rng(0).normal(-4, 4, (1, frames, 128)).astype(np.float32)
        session.run(None, {"fbank": fbank})
        took = []
        for _ in range(runs):
            began = time.process_time(), time.perf_counter()
            session.run(None, {"fbank": fbank})
            took.append((time.process_time() - began[0], time.perf_counter() - began[1]))
        processor_s, wall_s = np.median(took, axis=0).tolist()
        rows.append(
            {
                "length_s": frames / 100,
                "processor_s": round(processor_s, 4),
                "wall_s": round(wall_s, 4),
                "memory_mb": round(process.memory_info().rss / 1e6),
                "file_mb": round(file.stat().st_size / 1e6),
            }
        )
    return rows


def table(rows: list[dict]) -> Table:
    """Return all rows."""
    made = Table(*rows[0])
    for row in rows:
        made.add_row(*map(str, row.values()))
    return made


if __name__ == "__main__":
    main()
