"""`streamtwl paper`: all cells of a plan, and what comes of them: figures, tables, curves."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import streamtwl
from streamtwl.errors import ConfigError
from streamtwl.paper import cells, data_sets, reasoners, tables
from streamtwl.paper.cells import Cell, NotRun
from streamtwl.paper.data_sets import DataSet
from streamtwl.paper.found import Found, Setting
from streamtwl.paper.metrics import Judge, intervals
from streamtwl.paper.plan import Data, Gpt2, LanguageModel, Plan
from streamtwl.paper.runner import WHOLE, Progress, Runner
from streamtwl.paper.side_by_side import run_all
from streamtwl.training.posteriors import read

TIMED_CLIPS = 8  # of which the processor time of a backbone is the median


@dataclass(slots=True)
class Results:
    """What an experiment found: the figures, and what the report shows beside them."""

    figures: dict[str, Any]  # results.json
    sets: list[DataSet]
    cells: list[tuple[Cell, Found]]
    runner: Runner


def run(plan: Plan, config: str, out: Path, progress: Progress, processes: int = 1) -> Results:
    """Run all cells that are not there yet; write results.json, tables.md and curve.png into `out`.

    `config` is the plan's file as the user named it, for the commands of rows that were not run.
    Raises UsageError for data that is not there, and for a checkpoint that was trained on a tested
    fold, before anything runs.
    """
    rows = cells.rows_of(plan)
    if not rows:
        raise ConfigError(f"{config}: no reasoner: name some under `reasoners`, [[gpt2]], [[llm]]")
    comparable = [row.name for row in rows if not row.sampled]
    if plan.baseline != "mean" and _baseline(plan) not in comparable:
        raise ConfigError(
            f"{config}: baseline: '{plan.baseline}' is no reasoner here that draws no samples: it "
            f"takes {', '.join(comparable)}"
        )
    for each in plan.data:
        reasoners.check_names(each.names)
    sets = [(data, data_sets.load(data)) for data in plan.data]
    work = list(cells.of_plan(plan, sets))
    out.mkdir(parents=True, exist_ok=True)
    runner = Runner(plan, out, progress)
    for data in dict.fromkeys(data.name for _, data in sets):
        runner.score_all([cell for cell in work if cell.data.name == data])
    found: list[tuple[Cell, Found]] = []
    not_run: dict[tuple[str, str, str], NotRun] = {}
    for cell, of in run_all(work, plan, out, processes, progress):
        where = _where(cell)
        if runner.is_absent(cell.backbone):
            where = cell.data.name, cell.backbone, "all"
        if isinstance(of, Found):
            found.append((cell, of))
        else:
            command = cells.command_for(cell, of, config, runner.is_absent(cell.backbone))
            reason = str(of).replace("--body ", "").partition("; where the hub")[0]
            not_run.setdefault(where, NotRun(*where, reason, command))
    found = [(c, f) for c, f in found if _where(c) not in not_run]
    figures = {
        "version": streamtwl.__version__,
        "plan": msgspec.to_builtins(plan),
        "baseline": _baseline(plan),
        "data": {data.name: _about(data) for _, data in sets},
        "backbone_ms": _backbone_ms(found, runner),
        "rows": _rows(plan, sets, found),
        "confusion": _confusions(found),
        "not_run": [msgspec.to_builtins(each) for each in not_run.values()],
    }
    _write(out / "results.json", json.dumps(figures, indent=1) + "\n")
    _write(out / "tables.md", tables.markdown(figures))
    tables.plot(figures, out / "curve.png")
    return Results(figures, [data for _, data in sets], found, runner)


def _where(cell: Cell) -> tuple[str, str, str]:
    """Return what is listed as not run together: samples and soft trace of a reasoner."""
    return cell.data.name, cell.backbone, cell.row.name.removesuffix(", soft trace")


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)


def _baseline(plan: Plan) -> str:
    return cells.SHOWN_NAMES.get(plan.baseline, plan.baseline)


def _about(data: DataSet) -> dict[str, Any]:
    tested = data.tested
    return {
        "labels": data.labels,
        "several_labels": data.several,
        "clips": len(data.clips),
        "tested": len(tested),
        "tested_sources": len({clip.source for clip in tested}),
        "left_out": sum(split.left_out for split in data.splits),
        "splits": [split.name for split in data.splits],
        "trained": [len(split.training) for split in data.splits],
    }


def _backbone_ms(found: Sequence[tuple[Cell, Found]], runner: Runner) -> dict[str, dict]:
    """Return the processor time of a clip, front end included, by data set and backbone."""
    times: dict[str, dict[str, float]] = {}
    for cell, _ in found:
        of = times.setdefault(cell.data.name, {})
        if cell.backbone in of or cell.backbone == cells.OWN_WINDOWS:
            continue
        scorer = runner.scorer((cell.backbone,))
        each = []
        for clip in cell.split.test[:TIMED_CLIPS]:
            samples = read(clip.path)
            began = time.process_time()
            scorer.score_samples(samples)
            each.append(1000 * (time.process_time() - began))
        of[cell.backbone] = float(np.median(each))
    return times


def scores_of(
    found: Sequence[tuple[Cell, Found]], data: DataSet, backbone: str, row: str
) -> dict[Setting, np.ndarray]:
    """Return float32[S, n, L] of each setting: all splits' test clips, a row a seed."""
    mine = [
        (cell, of)
        for cell, of in found
        if (cell.data.name, cell.backbone, cell.row.name) == (data.name, backbone, row)
    ]
    seeds = list(dict.fromkeys(cell.seed for cell, _ in mine))
    settings = mine[0][1].scores if mine else {}
    return {
        setting: np.stack(
            [
                np.concatenate([of.scores[setting] for cell, of in mine if cell.seed == seed])
                for seed in seeds
            ]
        ).astype(np.float32)
        for setting in settings
    }


def _rows(
    plan: Plan, sets: Sequence[tuple[Data, DataSet]], found: Sequence[tuple[Cell, Found]]
) -> list[dict[str, Any]]:
    """Return the figures of each data set, backbone, reasoner, K, M and condition."""
    rows = []
    baseline = _baseline(plan)
    for _, data in sets:
        tested = data.tested
        judge = Judge(data.truth(tested), [clip.source for clip in tested], data.several)
        mine = [cell for cell, _ in found if cell.data is data]
        for backbone in dict.fromkeys(cell.backbone for cell in mine):
            own_windows = backbone == cells.OWN_WINDOWS
            beside = plan.backbones[0] if own_windows else backbone
            reference = scores_of(found, data, beside, baseline)
            own = {cell.row.name: cell.row for cell in mine if cell.backbone == backbone}
            for name, row in own.items():
                of = [
                    f
                    for c, f in found
                    if c.data is data and (c.backbone, c.row.name) == (backbone, name)
                ]
                for setting, scores in scores_of(found, data, backbone, name).items():
                    k, m, condition = setting
                    other = reference.get((0, 1, condition)) if name != baseline else None
                    figures, against = intervals(scores, other, judge)
                    rows.append(
                        {
                            "data": data.name,
                            "backbone": backbone,
                            "reasoner": name,
                            "kind": _kind(row),
                            "samples": k,
                            "traces": m,
                            "condition": condition,
                            "seeds": len(scores),
                            "clips": int((~np.isnan(scores[0]).any(axis=1)).sum()),
                            **figures,
                            "against_baseline": against,
                            "reasoner_ms": m * float(np.mean([f.cpu_ms[k] for f in of])),
                            "fit_s": float(np.mean([f.fit_s for f in of])),
                        }
                    )
    return rows


def _kind(row: cells.Row) -> str:
    if isinstance(row.spec, str):
        return row.spec
    if isinstance(row.spec, Gpt2):
        return "gpt2 soft" if row.soft else "gpt2"
    return "llm" if isinstance(row.spec, LanguageModel) else "checkpoint"


def _confusions(found: Sequence[tuple[Cell, Found]]) -> list[dict[str, Any]]:
    """Return int[L, L] of each data set with one label a clip, by truth and decision.

    Of every reasoner, on whole clips, with the most samples and traces; a mean over seeds.
    """
    made = []
    for data, backbone, row in dict.fromkeys(
        (cell.data.name, cell.backbone, cell.row.name) for cell, _ in found
    ):
        of = next(cell.data for cell, _ in found if cell.data.name == data)
        if of.several:
            continue
        by_setting = scores_of(found, of, backbone, row)
        k, m, condition = max(setting for setting in by_setting if setting[2] == WHOLE)
        scores = by_setting[k, m, condition]
        there = ~np.isnan(scores).any(axis=(0, 2))
        truth = of.truth(of.tested).argmax(axis=1)
        counts = np.zeros((len(of.labels), len(of.labels)))
        for seed in scores:
            np.add.at(counts, (truth[there], seed[there].argmax(axis=1)), 1 / len(scores))
        made.append(
            {
                "data": data,
                "backbone": backbone,
                "reasoner": row,
                "samples": k,
                "traces": m,
                "counts": counts.round(2).tolist(),
            }
        )
    return made
