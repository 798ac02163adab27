"""The training loop: epochs of batches, and a state from which a stopped training resumes."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)

DECAY, WARM_UP = 3e-4, 50  # weight decay a step


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cosine schedule of `of_epochs`, of which `epochs` are run."""

    epochs: int
    of_epochs: int
    per_epoch: int  # patches or tokens: in the unit in which a batch is counted
    rate: float  # the highest learning rate


def load(file: Path) -> Any:
    """Return what was kept of a training; None where there is nothing, or it is damaged."""
    try:
        return torch.load(file, weights_only=False)
    except FileNotFoundError:
        return None
    except Exception as error:  # what pickle and torch raise of damage has many names
        _log.warning("%s is damaged (%s): what it held is trained anew", file, error)
        return None


def run(
    model: nn.Module,
    next_loss: Callable[[torch.Generator], tuple[Tensor, int]],
    plan: Schedule,
    seed: int,
    state: Path,
    progress: Callable[[int, int], None],
    each_epoch: Callable[[int], None] = lambda _: None,
) -> None:
    """Train a model; resumes from `state` if it holds an unfinished run of this training.

    `next_loss` returns a batch's loss and its size. `each_epoch` is called after each epoch, and
    again for an epoch that was not saved before a stop. Frozen weights are not saved in `state`.
    """
    generator = torch.Generator().manual_seed(seed)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    weights = [*trained.values()]
    optimiser = torch.optim.AdamW(weights, lr=plan.rate, weight_decay=DECAY / plan.rate)
    done = step = 0
    if (kept := load(state)) is not None:
        model.load_state_dict(kept["trained"], strict=False)
        optimiser.load_state_dict(kept["optimiser"])
        generator.set_state(kept["generator"])
        torch.set_rng_state(kept["dropout"])
        done, step = kept["epochs"], kept["step"]
    for epoch in range(done, plan.epochs):
        model.train()
        seen = 0
        while seen < plan.per_epoch:
            passed = (epoch + seen / plan.per_epoch) / plan.of_epochs
            warm = min(1.0, (step + 1) / WARM_UP)
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * warm * 0.5 * (1 + math.cos(math.pi * passed))
            loss, more = next_loss(generator)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            step += 1
            seen += more
            of_all = epoch * plan.per_epoch + min(seen, plan.per_epoch)
            progress(of_all, plan.epochs * plan.per_epoch)
        partial = state.with_suffix(".partial")
        torch.save(
            {
                "trained": {name: each.detach() for name, each in trained.items()},
                "optimiser": optimiser.state_dict(),
                "generator": generator.get_state(),
                "dropout": torch.get_rng_state(),
                "epochs": epoch + 1,
                "step": step,
            },
            partial,
        )
        each_epoch(epoch + 1)
        partial.rename(state)
    model.eval()
