"""How weights are trained: epochs of batches, and a state from which a stopped training goes on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

DECAY, WARM_UP = 3e-4, 50  # weight decay a step


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast: a cosine schedule of `of_epochs`, of which `epochs` are run."""

    epochs: int
    of_epochs: int
    an_epoch: int  # of what a batch counts
    rate: float  # the highest learning rate


def run(
    model: nn.Module,
    next_loss: Callable[[torch.Generator], tuple[Tensor, int]],
    course: Course,
    seed: int,
    state: Path,
    progress: Callable[[int, int], None],
    each_epoch: Callable[[int], None] = lambda _: None,
) -> None:
    """Train a model; what `state` holds of the same training is gone on with.

    `next_loss` returns a batch's loss and how much was seen. `each_epoch` is called after each
    epoch, again for one that was not kept before a stop. What is frozen is not kept in `state`.
    """
    generator = torch.Generator().manual_seed(seed)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    weights = [*trained.values()]
    optimiser = torch.optim.AdamW(weights, lr=course.rate, weight_decay=DECAY / course.rate)
    done = step = 0
    if state.exists():
        kept = torch.load(state, weights_only=False)
        model.load_state_dict(kept["trained"], strict=False)
        optimiser.load_state_dict(kept["optimiser"])
        generator.set_state(kept["generator"])
        torch.set_rng_state(kept["dropout"])
        done, step = kept["epochs"], kept["step"]
    for epoch in range(done, course.epochs):
        model.train()
        seen = 0
        while seen < course.an_epoch:
            passed = (epoch + seen / course.an_epoch) / course.of_epochs
            warm = min(1.0, (step + 1) / WARM_UP)
            for group in optimiser.param_groups:
                group["lr"] = course.rate * warm * 0.5 * (1 + math.cos(math.pi * passed))
            loss, more = next_loss(generator)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            step += 1
            seen += more
            of_all = epoch * course.an_epoch + min(seen, course.an_epoch)
            progress(of_all, course.epochs * course.an_epoch)
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
