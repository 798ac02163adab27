"""Every script of benchmarks/ runs to its end, on next to nothing; its figures are not judged."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamtwl.models import registry
from streamtwl.stages import SAMPLE_RATE
from tests.conftest import PATIENCE_S, REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"
SCRIPTS = {  # with arguments by which each takes less than ten seconds of two idle cores
    "calibration": "--quick --trial {trial} --out {out}",
    "change_of_sound": "{data} --quick --json {out}/change.json",
    "hearing": "--quick --data {data} --corpus {corpus} --processes 1 --kept {out} --out {out}",
    "few_shot": "--quick --pipeline yamnet --data {data} --corpus {corpus} --out {out}",
    "marks": "--quick --pipeline yamnet --data {data} --out {out}",
    "journal_size": "--quick --folder {out} --json {out}/journal.json",
    "int8": "--quick --network yamnet --no-clips --data {data} --corpus {corpus}",
    "int8_scenes": "{yamnet} --quick --data {data} --corpus {corpus} --out {out} "
    "--pipelines yamnet",
    "peers": "--quick --here --peers onnxruntime,yamnet --work {out} --data {data}",
    "floor": "--quick --pipelines yamnet --json {out}/floor.json",
    "ast_windows": "--quick --out {out}",
    "small_ast": "{data} --quick --out {out}",
    "untaught": "--quick --data {data} --corpus {corpus} --out {out}",
    "ground_up": "--quick --data {data} --out {out}",
    "gate": "--quick --data {data} --corpus {corpus} --out {out}",
    "reader_apart": "--quick --data {data} --corpus {corpus} --kept {out} --out {out}",
    "web": "--quick",
    "capacity": "--quick --data {data} --json {out}/capacity.json",
    "reasoner_step": "{step} --patches 40 --runs 1 --json {out}/steps.json",
}
NOT_RUN = {
    "scale": "it starts Ray, twice",
    "bench": "it runs others",
    "profile_live": "it fetches py-spy; tests/benchmarks/test_profile_live.py has what it makes",
    "slower": "tests/benchmarks/test_slower.py",
    "hearing_trial": "it needs the weights of mn04, which tests have not",
    "latency": "it waits ten seconds before it measures, twice",
    "live_trial": "it takes longer, but what the others read is written by it: the fixture `trial`",
    "peer": "peers.py runs it",
    "microphone_trial": "it plays a scene in real time",
    "reach": "it plays sounds in real time, with a broker",
    "more_samples": "two models, trained, exported and run with every K and M, take a minute",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, yamnet) -> Path:
    """A folder with `data` in ESC-10's layout, a tone for each class, and a `corpus` of noise."""
    folder, rng = tmp_path_factory.mktemp("small"), np.random.default_rng(3)
    names = (REPOSITORY / "tools" / "esc10_audioset.csv").read_text()
    esc10 = folder / "data" / "esc10"
    (esc10 / "audio").mkdir(parents=True)
    (esc10 / "meta").mkdir()
    (folder / "data" / "esc50_audioset.csv").write_text(names)
    t = np.arange(round(3.2 * SAMPLE_RATE)) / SAMPLE_RATE
    rows = ["filename,fold,target,category,src_file"]
    for target, row in enumerate(csv.DictReader(names.splitlines())):
        for fold, take in np.ndindex(5, 2):
            name = f"{fold + 1}-{target}{take}-{target}.wav"
            hz = 200 * 1.35**target + 10 * fold + take
            sound = 0.2 * np.sin(2 * np.pi * hz * t) + 0.01 * rng.standard_normal(len(t))
            soundfile.write(esc10 / "audio" / name, sound, SAMPLE_RATE)
            rows.append(f"{name},{fold + 1},{target},{row['category']},{fold}{target}{take}")
    (esc10 / "meta" / "esc10.csv").write_text("\n".join(rows) + "\n")
    for package, pieces in {"train/a": 9, "train/b": 8, "test/a": 2, "test/c": 2}.items():
        (folder / "corpus" / package).mkdir(parents=True)
        for i in range(pieces):
            noise = 0.02 * rng.standard_normal(4 * SAMPLE_RATE)
            soundfile.write(folder / "corpus" / package / f"{i}.flac", noise, SAMPLE_RATE)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """Run a script with arguments, in which {trial}, {out} and the others stand for folders."""

    def run(script: str, arguments: str) -> str:
        out = folder / script
        out.mkdir()
        folders = {name: folder / name for name in ("data", "corpus", "trial")}
        folders["step"] = BENCHMARKS / "checkpoints" / "esc10-paper.onnx"
        folders["yamnet"] = registry.path(registry.find("yamnet"))
        ended = subprocess.run(
            [
                sys.executable,
                BENCHMARKS / f"{script}.py",
                *arguments.format(out=out, **folders).split(),
            ],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stderr[-4000:]
        return ended.stdout

    return run


@pytest.fixture(scope="module")
def trial(folder, run) -> str:
    """What the live trial wrote into the folder's `trial`, and its tables."""
    few = "--fold 4 --scenes 1 --minutes 0.5"
    return run("live_trial", f"--quick --corpus {{corpus}} --data {{data}} --out {{trial}} {few}")


def test_every_script_is_run_or_it_says_why_not():
    scripts = {file.stem for file in BENCHMARKS.glob("*.py") if "__main__" in file.read_text()}
    assert scripts == SCRIPTS.keys() | NOT_RUN.keys()


def test_the_live_trial_runs(trial):
    assert "| GPT-2 |" in trial
    assert "| taught by five clips a sound |" in trial


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs(script, run, request):
    if "{trial}" in SCRIPTS[script]:
        request.getfixturevalue("trial")
    assert run(script, SCRIPTS[script])
