"""The whole experiment: on plain sounds, on clips that are mixed, and by the command."""

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamtwl.errors import ConfigError
from streamtwl.paper import experiment
from streamtwl.paper.plan import Checkpoint, Data, Gpt2, LanguageModel, Plan
from streamtwl.paper.runner import WHOLE
from streamtwl.training import datasets
from streamtwl.training.posteriors import read
from tests.conftest import PATIENCE_S, REPOSITORY
from tests.language_model_server import language_model, names

pytestmark = pytest.mark.usefixtures("yamnet")

RATE = 16_000


def quiet(*_) -> None:
    """Show no progress."""


def by_setting(figures: dict) -> dict[tuple, dict]:
    keys = ("data", "backbone", "reasoner", "samples", "traces", "condition")
    return {tuple(row[key] for key in keys): row for row in figures["rows"]}


def test_two_processes_find_what_one_does(plain_sounds, tmp_path):
    plan = Plan(data=[Data(folder=str(plain_sounds), folds=2)], reasoners=["mean", "counts"],
                samples=[1, 4], seeds=[0, 1])  # fmt: skip
    one, two = (experiment.run(plan, "x.toml", tmp_path / str(n), quiet, n).figures for n in (1, 2))
    timed = ("reasoner_ms", "fit_s")
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in of["rows"]]
            for of in (one, two)]  # fmt: skip
    assert rows[0] == rows[1]
    assert one["confusion"] == two["confusion"]
    found = by_setting(one)
    mean = found["sounds", "yamnet:0.96", "mean", 0, 1, WHOLE]
    assert (mean["accuracy"]["mean"], mean["clips"], mean["seeds"]) == (1.0, 8, 2)
    assert mean["against_baseline"] == {}
    counts = found["sounds", "yamnet:0.96", "linear, counts of samples", 4, 1, WHOLE]
    assert counts["against_baseline"]["accuracy"]["mean"] == counts["accuracy"]["mean"] - 1.0
    assert json.loads((tmp_path / "2" / "results.json").read_text()) == two
    table = (tmp_path / "2" / "tables.md").read_text()
    assert "| yamnet:0.96 | mean |  | 100.0 (100.0 to 100.0) |" in table
    assert "8 test clips of 8 recordings, 2 labels; folds tested: 1, 2." in table
    assert (tmp_path / "2" / "curve.png").stat().st_size > 10_000


def test_a_language_model_names_clips_or_is_listed_as_not_run(plain_sounds, tmp_path):
    data = [Data(folder=str(plain_sounds), folds=1)]
    nobody = LanguageModel(preset="chat", model="m", endpoint="http://127.0.0.1:1/v1")
    with language_model(names("hiss")) as server:
        said = LanguageModel(
            preset="qwen3-14b", model="m", endpoint=server.url, samples=[0, 4], clips=1
        )
        plan = Plan(data=data, reasoners=["mean"], llm=[nobody, said], samples=[4], traces=[1, 2],
                    seeds=[0])  # fmt: skip
        results = experiment.run(plan, "x.toml", tmp_path, quiet)
        asked = len(server.requests)
        experiment.run(plan, "x.toml", tmp_path, quiet)
        assert len(server.requests) == asked == 2 * (1 + 2)  # one clip a class, K = 0; K = 4, M = 2
    found = by_setting(results.figures)
    row = found["sounds", "yamnet:0.96", "qwen3-14b, zero-shot", 4, 2, WHOLE]
    assert row["accuracy"]["mean"] == 0.5
    assert row["clips"] == 2
    assert row["against_baseline"]["accuracy"]["mean"] == -0.5  # on the same two clips
    [absent] = results.figures["not_run"]
    assert absent["reasoner"] == "chat, zero-shot"
    assert "no server answers at http://127.0.0.1:1/v1" in absent["reason"]
    assert absent["command"].endswith("then streamtwl paper x.toml")


def test_checkpoints_are_read_as_they_are_live(esc10, tmp_path):
    files = [REPOSITORY / "benchmarks" / "checkpoints" / f"esc10-{n}.onnx" for n in ("hmm", "no")]
    plan = Plan(
        data=[Data(folder=str(esc10), test=[4], clips=2)],
        reasoners=["mean"],
        checkpoint=[Checkpoint(file=str(file)) for file in files],
        samples=[1],
        seeds=[0],
        patches=[1],
    )
    results = experiment.run(plan, "x.toml", tmp_path, quiet)
    found = by_setting(results.figures)
    whole = found["esc10", "its own", "esc10-hmm", 0, 1, WHOLE]
    one = found["esc10", "its own", "esc10-hmm", 0, 1, "1 patches"]
    assert (whole["clips"], whole["accuracy"]["mean"] > 0.8) == (20, True)
    assert one["accuracy"]["mean"] <= whole["accuracy"]["mean"]
    assert whole["against_baseline"]["accuracy"]["mean"] < 0.2
    [absent] = results.figures["not_run"]
    assert (absent["reasoner"], absent["command"].split(", ")[0]) == (
        "esc10-no",
        f"streamtwl train {esc10} -o esc10-no.onnx",
    )
    assert "there is no such file" in absent["reason"]


@pytest.fixture
def mixed(data, tmp_path) -> Path:
    """FSD50K's layout: pairs of kitchen20's clips, of five sounds, one over the other."""
    kitchen = data / "kitchen20"
    if not kitchen.exists():
        pytest.skip(f"{kitchen} is absent")
    rng = np.random.default_rng(0)
    clips = datasets.load(kitchen)
    labels = ["blender", "eat", "keyboard", "water-flowing", "dishwasher"]
    labels = [label for label in labels if any(c.label == label for c in clips)]
    labels += [c for c in sorted({c.label for c in clips}) if c not in labels][: 5 - len(labels)]
    truth = tmp_path / "FSD50K.ground_truth"
    truth.mkdir()
    for part, folds, count in (("dev", (1, 2, 3), 60), ("eval", (5,), 30)):
        sounds = tmp_path / f"FSD50K.{part}_audio"
        sounds.mkdir()
        rows = ["fname,labels,mids,split" if part == "dev" else "fname,labels,mids"]
        for number in range(count):
            pair = rng.choice(labels, 1 + number % 2, replace=False).tolist()
            picked = [
                rng.choice([i for i, c in enumerate(clips) if c.label == label and c.fold in folds])
                for label in pair
            ]
            samples = [read(clips[i].path) for i in picked]
            length = min(map(len, samples))
            mix = sum(each[:length] for each in samples) / len(samples)
            soundfile.write(sounds / f"{part}{number}.wav", mix, RATE)
            more = ",train" if part == "dev" else ""
            rows.append(f'{part}{number},"{",".join(pair)}",/m/0{more}')
        (truth / f"{part}.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_clips_with_several_labels_have_map_and_d_prime(mixed, tmp_path):
    plan = Plan(
        data=[Data(folder=str(mixed), name="mixed")],
        reasoners=["mean", "linear", "counts"],
        gpt2=[Gpt2(weights="trained", epochs=30, soft=True)],
        samples=[4],
        seeds=[0],
    )
    results = experiment.run(plan, "x.toml", tmp_path / "out", quiet)
    assert results.figures["data"]["mixed"]["several_labels"]
    assert results.figures["data"]["mixed"]["tested"] == 30
    test = results.sets[0].splits[0].test
    chance = results.sets[0].truth(test).mean()
    for row in results.figures["rows"]:
        assert row["mAP"]["low"] <= row["mAP"]["mean"] <= row["mAP"]["high"]
        assert row["mAP"]["mean"] > chance + 0.1, row["reasoner"]
        assert row["d-prime"]["mean"] > 0.3, row["reasoner"]
    assert results.figures["confusion"] == []
    table = (tmp_path / "out" / "tables.md").read_text()
    assert "Table 1: mAP, whole clips" in table
    assert "| d-prime |" in table


def test_the_command_stopped_goes_on_where_it_was(start_cli, cli, plain_sounds, tmp_path):
    (tmp_path / "mine.toml").write_text(
        f'reasoners = ["mean", "vote", "hmm"]\nseeds = [0]\nsamples = [1]\n[[data]]\nfolds = 2\n'
        f'folder = "{plain_sounds}"\n[[gpt2]]\nepochs = 10000\n'
    )
    arguments = ["paper", tmp_path / "mine.toml", "-o", tmp_path / "out", "--processes", "2"]
    running = start_cli(*arguments)
    kept = tmp_path / "out" / "cells"
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and not list(kept.glob("*.training")):
        time.sleep(0.1)  # the arithmetic is done, and GPT-2 has begun
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    assert b"Traceback" not in said
    before = {file.name: file.stat().st_mtime_ns for file in kept.glob("*.npz")}
    assert len(before) >= 3 * 2 - 1  # one may have been running beside it
    text = (tmp_path / "mine.toml").read_text().partition("[[gpt2]]")[0]
    (tmp_path / "mine.toml").write_text(text)
    ended = cli(*arguments)
    assert ended.returncode == 0, ended.stderr
    after = {file.name: file.stat().st_mtime_ns for file in kept.glob("*.npz")}
    assert before.items() <= after.items()
    assert sum(name.count(".") == 1 for name in after) == 3 * 2
    assert re.search(r"\| yamnet:0\.96 \| mean \|  \| 100\.0 ", ended.stdout)


def test_quick_goes_through_the_whole_of_the_shipped_experiment(cli, data, tmp_path):
    shipped = REPOSITORY / "benchmarks" / "paper.toml"
    text = shipped.read_text().replace("../../shared/data", str(data))
    (tmp_path / "paper.toml").write_text(text)
    table = shipped.with_name("kitchen20_audioset.csv").read_text()
    (tmp_path / "kitchen20_audioset.csv").write_text(table)
    report = tmp_path / "report.html"
    arguments = [tmp_path / "paper.toml", "--quick", "-o", tmp_path / "out", "--report", report]
    ended = cli("paper", *arguments)
    assert ended.returncode == 0, ended.stderr[-2000:]
    figures = json.loads((tmp_path / "out" / "results.json").read_text())
    run = {row["reasoner"] for row in figures["rows"]}
    assert {"majority vote", "mean", "log-mean", "GPT-2 (tiny), frozen"} <= run
    assert {row["data"] for row in figures["rows"]} == {"esc10", "kitchen20"}
    assert {row["samples"] for row in figures["rows"]} == {0, 1, 4, 16}
    absent = {row["reasoner"] for row in figures["not_run"]}
    assert {"gpt-oss-20b, zero-shot", "qwen3-14b, zero-shot"} <= absent
    assert "ast:10.24" in {row["backbone"] for row in figures["not_run"]}
    assert report.stat().st_size > 100_000


def test_beginnings_of_clips_have_figures_of_reasoners_that_draw_more_from_whole_ones(
    plain_sounds, tmp_path
):
    plan = Plan(data=[Data(folder=str(plain_sounds), folds=1)], reasoners=["mean", "counts"],
                samples=[1, 4, 32], traces=[1, 2], seeds=[0], patches=[1])  # fmt: skip
    experiment.run(plan, "x.toml", tmp_path, quiet)
    table = (tmp_path / "tables.md").read_text().partition("after so many patches")[2]
    [counts] = [line for line in table.splitlines() if "counts of samples" in line]
    cells = [cell.strip() for cell in counts.strip("|").split("|")]
    assert cells[2] == "K = 4"
    assert all(cells[3:])
    assert len(cells) == 5


@pytest.mark.parametrize("baseline", ["meen", "counts", ""])
def test_a_baseline_that_nothing_can_be_compared_with_is_said(baseline, plain_sounds, tmp_path):
    plan = Plan(data=[Data(folder=str(plain_sounds), folds=1)], reasoners=["hmm", "counts"],
                baseline=baseline)  # fmt: skip
    with pytest.raises(ConfigError, match=r"baseline: .*it takes HMM filter"):
        experiment.run(plan, "x.toml", tmp_path, quiet)


def test_a_folder_that_cannot_be_is_said_in_a_line(cli, plain_sounds, tmp_path):
    (tmp_path / "x.toml").write_text(f'reasoners = ["mean"]\n[[data]]\nfolder = "{plain_sounds}"\n')
    ended = cli("paper", str(tmp_path / "x.toml"), "-o", str(tmp_path / "x.toml"))
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "x.toml: File exists: make room, or choose another folder with -o" in ended.stderr
