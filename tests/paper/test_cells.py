"""Cells: run once, kept whole, and refused where a checkpoint has seen what is tested."""

import dataclasses
import os
import re
import signal
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import soundfile

from streamtwl.errors import AudioError, ConfigError, ModelError, UsageError
from streamtwl.paper import cells, checkpoints, data_sets, reasoners, side_by_side
from streamtwl.paper.found import Found
from streamtwl.paper.plan import Checkpoint, Data, Gpt2, LanguageModel, Plan
from streamtwl.paper.runner import WHOLE, Runner
from streamtwl.paper.side_by_side import run_all
from tests.conftest import PATIENCE_S

pytestmark = pytest.mark.usefixtures("yamnet")

RATE = 16_000


@pytest.fixture
def sounds(wav):
    """Two classes that YAMNet tells apart, a folder each, five folds of two."""
    rng = np.random.default_rng(3)
    t = np.arange(2 * RATE) / RATE
    for n in range(5):
        wav(f"sounds/hiss/{n}.wav", 0.1 * rng.standard_normal(len(t)))
        path = wav(f"sounds/whistle/{n}.wav", 0.3 * np.sin(2 * np.pi * (900 + 60 * n) * t))
    return path.parents[1]


@pytest.fixture
def plan(sounds):
    return Plan(
        data=[Data(folder=str(sounds), folds=1)],
        reasoners=["mean", "counts"],
        samples=[1, 16],
        traces=[1, 2],
        seeds=[0],
        patches=[1],
        snr_db=[0],
    )


def all_cells(plan: Plan) -> list[cells.Cell]:
    return [*cells.of_plan(plan, [(data, data_sets.load(data)) for data in plan.data])]


def test_a_cell_is_run_once_and_again_when_anything_that_it_is_of_changes(
    plan, sounds, tmp_path, monkeypatch, wav
):
    fitted = []
    fit = reasoners.fit
    monkeypatch.setattr(reasoners, "fit", lambda kind, *of: fitted.append(kind) or fit(kind, *of))

    def run(plan: Plan) -> list[Found]:
        runner = Runner(plan, tmp_path / "out", lambda *_: None)
        return [runner.run(cell) for cell in all_cells(plan)]

    first = run(plan)
    assert fitted == ["mean", "counts"]
    again = run(plan)
    assert fitted == ["mean", "counts"]
    for a, b in zip(first, again, strict=True):
        assert a.scores.keys() == b.scores.keys()
        assert all((a.scores[key] == b.scores[key]).all() for key in a.scores)
        assert a.cpu_ms == b.cpu_ms
        assert len(a.shown) == len(b.shown) > 0
    mean, counts = first
    assert set(mean.scores) == {(0, 1, WHOLE), (0, 1, "1 patches"), (0, 1, "0 dB")}
    assert {key[:2] for key in counts.scores if key[2] == WHOLE} == {
        (k, m) for k in (1, 16) for m in (1, 2)
    }
    truth = all_cells(plan)[0].data.truth(all_cells(plan)[0].split.test)
    assert (mean.scores[0, 1, WHOLE].argmax(axis=1) == truth.argmax(axis=1)).all()
    assert mean.shown[0].shape == (4, 2)
    np.testing.assert_allclose(mean.shown[0][-1], mean.scores[0, 1, WHOLE][0], atol=1e-3)

    (tmp_path / "out" / "cells" / "cut.1.npz").write_bytes(b"what a killed run left")
    run(msgspec.structs.replace(plan, samples=[1]))
    assert fitted[2:] == ["counts"]  # the mean draws nothing
    wav("sounds/hiss/0.wav", np.zeros(2 * RATE))
    run(plan)
    assert fitted[3:] == ["mean", "counts"]


@pytest.mark.parametrize("left", [0, 500])
def test_a_damaged_cell_is_run_anew(plan, tmp_path, left):
    running = Runner(plan, tmp_path / "out", lambda *_: None)
    cell = all_cells(plan)[0]
    whole = running.run(cell)
    [kept] = (tmp_path / "out" / "cells").iterdir()
    kept.write_bytes(kept.read_bytes()[:left])
    again = running.run(cell)
    assert all((again.scores[key] == whole.scores[key]).all() for key in whole.scores)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a/../b", "a|b\nc"])
def test_a_data_set_may_have_any_name(plan, tmp_path, name):
    named = msgspec.structs.replace(plan.data[0], name=name)
    plan = msgspec.structs.replace(plan, data=[named])
    Runner(plan, tmp_path / "out", lambda *_: None).run(all_cells(plan)[0])
    [kept] = (tmp_path / "out" / "cells").iterdir()
    assert re.fullmatch(r"[\w.+-]+", kept.name)


@pytest.mark.parametrize("samples", [np.zeros(0), np.full(9000, np.nan)])
def test_a_clip_without_sound_is_said(plan, sounds, samples, tmp_path):
    soundfile.write(sounds / "hiss" / "0.wav", samples, RATE, subtype="FLOAT")
    work = all_cells(plan)
    with pytest.raises(AudioError, match=r"0\.wav' has (no sound|numbers) in it"):
        Runner(plan, tmp_path / "out", lambda *_: None).score_all(work)


@pytest.mark.parametrize(("change", "said"), [
    ({"backbones": ["yamnet:5"]}, "scores windows of 0.96 s"), ({"hop_s": 3.0}, "shorter hop"),
])  # fmt: skip
def test_a_window_that_nothing_would_bring_is_refused(plan, tmp_path, change, said):
    plan = msgspec.structs.replace(plan, **change)
    with pytest.raises(ConfigError, match=said):
        Runner(plan, tmp_path / "out", lambda *_: None).score_all(all_cells(plan))


ORPHAN = """
import multiprocessing, pathlib, sys, time
from streamtwl.paper import side_by_side
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, side_by_side._begin, (None, pathlib.Path(sys.argv[1]))) as pool:
        pool.apply(print, ("there",), {"flush": True})
        pool.apply(time.sleep, (600,))
"""


def test_processes_end_with_the_one_that_was_killed(tmp_path):
    (tmp_path / "main.py").write_text(ORPHAN)
    command = [sys.executable, str(tmp_path / "main.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "there\n"
        first.kill()
        first.communicate(timeout=PATIENCE_S)  # until nobody has its output open any more


def end(_cell: cells.Cell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_ends_the_experiment_in_a_line(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "_run", end)
    monkeypatch.setattr(side_by_side, "LOOK_S", 0.2)
    work = all_cells(plan)
    with pytest.raises(UsageError, match=r"was killed.*the same command goes on"):
        list(run_all(work, plan, tmp_path / "out", 2, lambda *_: None))


def test_what_cannot_be_had_is_said_with_the_command_that_would_run_it(plan):
    cell = all_cells(plan)[0]

    def said(spec, error: str, backbone: str = "yamnet:0.96", absent: bool = False) -> str:
        row = cells.Row("r", spec)
        of = cells.Cell(cell.data, cell.source, cell.split, backbone, row, 0)
        return cells.command_for(of, ModelError(error), "mine.toml", absent)

    not_here = "--body X: not available"
    assert said(Gpt2(trunk="openai-community/gpt2"), not_here).startswith(
        "hf download openai-community/gpt2 --local-dir openai-community-gpt2, then with trunk = "
    )
    assert said(Gpt2(trunk="traces"), not_here).startswith("streamtwl bench pretrain -o traces, ")
    assert said(Gpt2(), "no weights", "mn04:2", True).startswith("streamtwl models pull mn04, ")
    assert said("mean", "no weights", "ast:2", True).startswith("streamtwl models export-ast ")
    assert said(LanguageModel(preset="qwen3-14b"), "no server").startswith("serve qwen3-14b at ")
    assert said("mean", "a has clips of one recording only") == "streamtwl paper mine.toml"
    assert said("mean", "", "mn04:2", True).endswith("then streamtwl paper mine.toml")


@pytest.mark.parametrize(
    "table", ["", "label,name\nhiss,Hiss\n", "category,audioset\nhiss,Hisses\n"]
)
def test_a_table_of_names_that_is_none_is_said_before_anything_runs(table, tmp_path):
    file = tmp_path / "names.csv"
    if table:
        file.write_text(table)
    with pytest.raises(UsageError, match=r"names: .*names\.csv: "):
        reasoners.check_names(str(file))


def test_a_checkpoint_that_was_trained_on_a_tested_fold_is_refused(plan, tmp_path, monkeypatch):
    (tmp_path / "mine.onnx").touch()
    for number in (1, 2):
        (tmp_path / f"{number}.onnx").touch()
    seen = {"mine": [1, 2, 3], "1": [2, 3], "2": [1, 3]}

    def card_of(file):
        labels = ["hiss", "dog"] if file.stem in seen else ["cat"]
        return msgspec.convert(
            {
                **dict.fromkeys(("name", "about", "backbone", "data", "command", "version"), "x"),
                **{"kind": "recurrent", "hop_s": 0.48, "labels": labels, "on": 0.5, "off": 0.2},
                "folds": seen.get(file.stem, [1, 2, 3]),
            },
            checkpoints.Card,
        )

    monkeypatch.setattr(checkpoints, "card_of", card_of)
    data = data_sets.load(plan.data[0])
    with pytest.raises(UsageError, match=r"mine\.onnx was trained on the folds 1, 2, 3 of x.*fold"):
        checkpoints.refuse_tested(Checkpoint(file=str(tmp_path / "mine.onnx")), data)
    checkpoints.refuse_tested(Checkpoint(file=str(tmp_path / "{fold}.onnx")), data)
    (tmp_path / "other.onnx").touch()
    checkpoints.refuse_tested(Checkpoint(file=str(tmp_path / "other.onnx")), data)
    wrong = Plan(data=plan.data, checkpoint=[Checkpoint(file=str(tmp_path / "mine.onnx"))])
    with pytest.raises(UsageError, match="is tested"):
        all_cells(wrong)  # before anything runs


def test_a_backbone_that_was_taught_a_tested_fold_is_refused(plan):
    data = dataclasses.replace(data_sets.load(plan.data[0]), name="esc10")
    with pytest.raises(UsageError, match=r"causal:0\.48 was taught the folds 1, 2, 3, 5 of esc10"):
        checkpoints.refuse_taught("causal:0.48", data)
    checkpoints.refuse_taught("causal:0.48", dataclasses.replace(data, name="others"))
    checkpoints.refuse_taught("yamnet:0.96", data)
