"""What `streamtwl train` makes, and how; its options, and how a card names them."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from streamtwl.reasoners import reads
from streamtwl.reasoners.reads import Read
from streamtwl.training.posteriors import YAMNET

NO_TRUNK, TINY = "none", "tiny"
MODELS, CHECKING, FINAL = "HMM filter", "to choose the epochs", "to keep"
Progress = Callable[[str, int, int], None]  # (what, done, of)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained, and how."""

    trunk: str = TINY  # or a Hugging Face directory or id, or "none": the HMM filter alone
    trained: str = "all"  # or "embedding": the trunk stays frozen
    soft: bool = True
    residual: bool = True
    rows: str = "own"  # the embedding starts from what the trunk has for it; or at "random"
    windows: tuple[str, ...] = (YAMNET,)  # empty: the best whose weights are here
    epochs: int = 8
    hop_s: float = 0.48
    seed: int = 0

    @property
    def reads(self) -> list[Read]:
        """What is read of the windows; a trace without more is of YAMNet's posteriors."""
        return reads.of_windows(self.windows) if self.residual else [(YAMNET, "posterior")]

    @property
    def is_of_train(self) -> bool:
        """Whether `streamtwl train` can make it, without the switches of `bench train`."""
        usual = Recipe()
        switches = ("trained", "soft", "residual", "rows")
        return self.trunk in (TINY, NO_TRUNK) and all(
            getattr(self, switch) == getattr(usual, switch) for switch in switches
        )


class Figures(Protocol):
    """Of a reasoner on the validation split, by the hop."""

    @property
    def in_force_f1(self) -> float: ...

    @property
    def false_starts_per_minute(self) -> float: ...


def figures(kept: Figures, more: Mapping[str, float]) -> dict[str, float]:
    """Return a card's figures."""
    return {
        "in_force_f1": round(kept.in_force_f1, 4),
        "false_starts_per_minute": round(kept.false_starts_per_minute, 3),
        **more,
    }


def trunk_name(recipe: Recipe) -> str:
    """Return a trunk's name: a Hugging Face id whole, of a file or folder the last part."""
    return Path(recipe.trunk).resolve().name if Path(recipe.trunk).exists() else recipe.trunk


def options(recipe: Recipe) -> str:
    """Return the options that make a recipe."""
    if recipe.trunk == NO_TRUNK:
        kind = f" --body {NO_TRUNK}"
    elif recipe.is_of_train:
        kind = f" --epochs {recipe.epochs}"
    else:
        trace = "soft" if recipe.soft else "sampled"
        kind = f" --body {shlex.quote(trunk_name(recipe))} --train {recipe.trained} --trace {trace}"
        kind += f"{'' if recipe.residual else ' --no-residual'} --epochs {recipe.epochs}"
        kind += " --rows random" if recipe.rows == "random" else ""
    kind += f" --windows {shlex.quote(','.join(recipe.windows))}" if recipe.residual else ""
    return f"{kind} --seed {recipe.seed} --hop {recipe.hop_s:g}"
