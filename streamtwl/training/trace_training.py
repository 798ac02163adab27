"""Training of a trace model: on random stretches of streams, with samples drawn anew each time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from streamtwl.training import schedule, steps
from streamtwl.training.fitting import SceneArrays
from streamtwl.training.steps import FixedLag
from streamtwl.training.trace_model import TraceModel, draw, log_odds

SAMPLES = (1, 2, 4, 8, 16)  # K, one of them per batch
HORIZON_PATCHES = 64  # 31 s: the live trace reaches back 30
TOKENS = 4096  # per batch
VISITS = 2  # of each patch, per epoch
LEARNING_RATE = 1e-3
ALONE_RATE = 3e-2  # where only embedding and read-out are trained


@dataclass(frozen=True, slots=True)
class TraceExamples:
    """What a trace model is trained on: n streams, T patches; B = 1 + lags."""

    rows: Tensor  # float16[n, T, F], the posterior of C categories first
    believed: Tensor | None  # float32[n, T, B, L] log-odds of the residual path
    target: Tensor  # float32[n, T, B, L]: in [0, 1], for a patch and those before it


def examples(
    streams: SceneArrays, residual: FixedLag | None, target: Tensor, lags: int
) -> TraceExamples:
    """Return streams with the residual path's beliefs and the target of each patch."""
    believed = None if residual is None else log_odds(beliefs_of(residual, streams))
    n_patches = target.shape[1]
    shifted = [functional.pad(target, (0, 0, lag, 0))[:, :n_patches] for lag in range(lags + 1)]
    rows = torch.from_numpy(streams.rows)
    return TraceExamples(rows, believed, torch.stack(shifted, dim=2))


@torch.no_grad()
def beliefs_of(residual: FixedLag, streams: SceneArrays) -> Tensor:
    """Return float32[n, T, 1 + lags, L] beliefs of a residual path."""
    return steps.run(residual, torch.from_numpy(streams.rows), torch.from_numpy(streams.elapsed_s))


def joined(parts: Sequence[TraceExamples]) -> TraceExamples:
    """Return several parts as one, cut to the shortest."""
    n_patches = min(part.rows.shape[1] for part in parts)

    def join(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor[:, :n_patches] for tensor in tensors])

    believed = [part.believed for part in parts if part.believed is not None]
    return TraceExamples(
        join([part.rows for part in parts]),
        join(believed) if believed else None,
        join([part.target for part in parts]),
    )


def fit(
    model: TraceModel,
    data: TraceExamples,
    seed: int,
    epochs: int,
    state: Path,
    progress: Callable[[int, int], None],
    each_epoch: Callable[[int], None] = lambda _: None,
    of_epochs: int | None = None,
) -> None:
    """Train a trace model; resumes from `state` if it holds an unfinished run of this training.

    The schedule is for `of_epochs`, of which the first `epochs` are run; see `schedule.run`.
    """
    patches = VISITS * data.rows.shape[0] * data.rows.shape[1]
    rate = LEARNING_RATE
    learns = any(weights.requires_grad for weights in model.trunk.parameters())
    if not learns and model.residual is None:
        rate = ALONE_RATE

    def next_loss(generator: torch.Generator) -> tuple[Tensor, int]:
        tokens, rows, believed, target = _draw_batch(model, data, generator)
        logits = model.read_stream(tokens, rows, believed)
        loss = functional.binary_cross_entropy_with_logits(logits, target)
        return loss, tokens.shape[0] * tokens.shape[1]

    plan = schedule.Schedule(epochs, of_epochs or epochs, patches, rate)
    schedule.run(model, next_loss, plan, seed, state, progress, each_epoch)


def predict(
    model: TraceModel, data: TraceExamples, samples: int, seed: int, traces: int = 1
) -> np.ndarray:
    """Return float32[n, T, 1 + lags, L] scores: the mean of `traces` traces."""
    each = [*predict_traces(model, data, samples, seed, traces)]
    return torch.stack(each).mean(dim=0).numpy()


@torch.no_grad()
def predict_traces(
    model: TraceModel,
    data: TraceExamples,
    samples: int,
    seed: int,
    traces: int,
    horizon: int = HORIZON_PATCHES,
) -> Iterator[Tensor]:
    """Yield float32[n, T, 1 + lags, L] scores of each trace, in stretches as they are live.

    Every stretch of patches is scored in a context that began at least half a context, or half of
    `horizon` patches, before it.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    n_patches = data.rows.shape[1]
    samples = 0 if model.soft else samples
    context = min(horizon, _patches(samples, model))
    half = context // 2
    for _ in range(traces):
        tokens = draw(data.rows[..., : model.categories].float(), samples, generator)
        scores = torch.zeros(data.target.shape)
        start, decided = 0, 0
        while decided < n_patches:
            end = min(n_patches, start + context)
            part = slice(start, end)
            believed = None if data.believed is None else data.believed[:, part]
            logits = model.read_stream(tokens[:, part], data.rows[:, part].float(), believed)
            scores[:, decided:end] = torch.sigmoid(logits[:, decided - start :])
            start, decided = end - half, end
        yield scores


def _patches(samples: int, model: TraceModel) -> int:
    return min(HORIZON_PATCHES, min(model.context, model.trunk.positions) // (samples + 1))


def _draw_batch(
    model: TraceModel, data: TraceExamples, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return (tokens, rows, believed, target) of random stretches, all with the same K."""

    def pick(high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    samples = 0 if model.soft else SAMPLES[int(pick(len(SAMPLES), 1))]
    n, n_patches = data.rows.shape[:2]
    length = min(n_patches, _patches(samples, model))
    count = max(1, TOKENS // (length * (samples + 1)) // (2 if model.soft else 1))
    stream = pick(n, count)[:, None]
    patch = pick(n_patches - length + 1, count)[:, None] + torch.arange(length)
    rows = data.rows[stream, patch].float()
    believed = None if data.believed is None else data.believed[stream, patch]
    tokens = draw(rows[..., : model.categories], samples, generator)
    return tokens, rows, believed, data.target[stream, patch]
