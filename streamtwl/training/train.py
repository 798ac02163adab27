"""`streamtwl train`: from labelled clips to a reasoner's file.

The HMM filter needs no torch; what has a language model is in modules that are imported for it.
"""

import logging
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamtwl
from streamtwl import available, config
from streamtwl.config import Settings
from streamtwl.errors import UsageError
from streamtwl.messages import SOURCE_NAME
from streamtwl.reasoners import reads
from streamtwl.reasoners.card import Card
from streamtwl.training import datasets, fitting, hmm, training_scenes
from streamtwl.training.posteriors import YAMNET, Scorer
from streamtwl.training.recipe import (
    CHECKING,
    FINAL,
    MODELS,
    NO_TRUNK,
    Figures,
    Progress,
    Recipe,
    figures,
    options,
)

_log = logging.getLogger(__name__)

WINDOWS = (YAMNET, "mn04:0.96", "mn04:2")
STAGES = (
    training_scenes.FITTING,
    training_scenes.CHOOSING,
    training_scenes.BACKGROUND,
    MODELS,
    CHECKING,
    FINAL,
)


def windows(named: str | None) -> tuple[str, ...]:
    """Return the windows that are named, separated by commas; none: () for the best that are here.

    Raises ConfigError where they cannot be, ModelError where weights are not here.
    """
    listed = [each.strip() for each in named.split(",")] if named is not None else []
    if listed:
        config.with_windows(Settings(), listed)
        available.check(map(reads.backbone_of, listed), f"--windows {named} needs")
    return tuple(listed)


def best_windows() -> tuple[str, ...]:
    """Return WINDOWS; without the weights for them, which a line says, YAMNet's."""
    lacking = available.absent(map(reads.backbone_of, WINDOWS))
    if not lacking:
        return WINDOWS
    _log.warning(
        "without %s, whose weights are not here, the reasoner reads YAMNet alone: `streamtwl "
        "models pull %s` first for a better one",
        " and ".join(lacking),
        " ".join(lacking),
    )
    return (YAMNET,)


def train(
    folder: Path,
    corpus: Path,
    out: Path,
    leave_out: Sequence[int],
    recipe: Recipe,
    progress: Progress,
) -> Card:
    """Train a reasoner on scenes of a data set's clips; write its file, return its card.

    `corpus` holds the backgrounds, in which none of the sounds may occur. Folds left out are not
    used. The same call resumes a training that was stopped. Raises UsageError for a data set or a
    name that does not fit.
    """
    if out.suffix != ".onnx" or not SOURCE_NAME.fullmatch(out.stem):
        raise UsageError(f"-o {out}: use a name of a-z, 0-9, _ and - that ends in .onnx")
    clips = [clip for clip in datasets.load(folder) if clip.fold not in leave_out]
    if not clips:
        raise UsageError(f"--leave-out leaves no clip of {folder}")
    if not recipe.windows:
        recipe = replace(recipe, windows=best_windows() if recipe.residual else (YAMNET,))
    _refuse(recipe)
    leave_out = sorted(set(leave_out))
    name = folder.resolve().name
    scorer = Scorer(reads.windows_of(recipe.reads), recipe.hop_s)
    seed = [recipe.seed, *leave_out]
    prepared = training_scenes.prepare(clips, corpus, None, seed, scorer, recipe.reads, progress)
    common: dict[str, Any] = {
        "name": out.stem,
        "backbone": reads.backbone_of(scorer.windows[0]),
        "reads": recipe.reads,
        "sha256": scorer.sha256,
        "hop_s": recipe.hop_s,
        "data": name,
        "folds": sorted({clip.fold for clip in clips}),
        "command": _command(recipe, name, out, leave_out),
        "version": streamtwl.__version__,
    }
    progress(MODELS, 0, 1)
    fitted = fitting.fit_filter(prepared.whole, prepared.choose)
    progress(MODELS, 1, 1)
    if recipe.trunk != NO_TRUNK:
        from streamtwl.training import trace_model, trace_reasoner
        from streamtwl.training.targets import Targets

        targets = Targets(prepared.labels, fitted)
        scratch = trace_reasoner.scratch(prepared, targets, recipe, out, common)
        choice = trace_reasoner.choose(prepared, targets, recipe, scratch, progress)
        if not recipe.is_of_train or not _is_worse(choice, fitted):
            kept = trace_reasoner.train(prepared, targets, recipe, choice, scratch, progress)
            card = trace_reasoner.trace_model_card(kept, targets, recipe, common)
            trace_model.export(kept.model, recipe.hop_s, card, out)
            shutil.rmtree(scratch)
            return card
        shutil.rmtree(scratch)
        _log.warning(
            "on validation scenes GPT-2 (F1 %.3f) is below the hidden Markov model (%.3f), which is"
            " kept instead; --body none makes it at once",
            choice.in_force_f1,
            fitted.in_force_f1,
        )
        common["command"] = _command(replace(recipe, trunk=NO_TRUNK), name, out, leave_out)
    card = Card(
        about=f"{fitting.FILTER} over a linear model of single patches",
        kind="recurrent",
        labels=prepared.labels,
        on=fitted.on,
        off=fitted.off,
        validation=figures(fitted, fitted.setting),
        **common,
    )
    hmm.write(fitted.step, card, out)
    return card


def _is_worse(choice: Figures, fitted: Figures) -> bool:
    """Whether a language model is below the filter that it began with, on the validation scenes."""
    return choice.in_force_f1 < fitted.in_force_f1


def _command(recipe: Recipe, name: str, out: Path, leave_out: Sequence[int]) -> str:
    """Return the command that makes a reasoner again."""
    left_out = "".join(f" --leave-out {fold}" for fold in leave_out)
    kind = "train" if recipe.is_of_train else "bench train"
    inputs = f"{shlex.quote(name)} --corpus CORPUS -o {out.name}{left_out}"
    return f"{_made_before(recipe)}streamtwl {kind} {inputs}{options(recipe)}"


def _made_before(recipe: Recipe) -> str:
    """Return the command that makes the trunk first, if it is one of `bench pretrain`."""
    if recipe.trunk == NO_TRUNK:
        return ""
    from streamtwl.training import trunks

    before = trunks.made_by(recipe.trunk)
    return f"{before} && " if before else ""


def _refuse(recipe: Recipe) -> None:
    """Raise UsageError for options that do not fit together, before any work."""
    config.override(Settings(), {"hop_s": recipe.hop_s})  # what `listen` would refuse
    if recipe.residual and recipe.trunk != NO_TRUNK and recipe.reads[0][0] != YAMNET:
        raise UsageError(
            f"--windows {','.join(recipe.windows)}: a language model reads the trace of YAMNet's "
            f"scores: name {YAMNET} first, or leave the model out with --body {NO_TRUNK}"
        )
    if not recipe.residual and recipe.windows != (YAMNET,):
        raise UsageError(
            f"--windows {','.join(recipe.windows)}: --no-residual reads YAMNet's scores alone: "
            "leave --windows out"
        )
    if recipe.trunk != NO_TRUNK:
        from streamtwl.training import trunks

        trunks.load(recipe.trunk, recipe.seed)
