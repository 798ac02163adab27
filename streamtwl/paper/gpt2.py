"""GPT-2 as the paper has it: a language model with a new embedding that reads a clip's trace.

A patch is K samples and a boundary token, or, in the soft trace, one token (`trace_model.py`). At
each boundary the label is read out, and training is on all of them; what the last one says of the
label is the decision. Where a trace is longer than the trunk reads, it is cut into equal parts, and
their log-probabilities are averaged.

`frozen`: only embedding and read-out are trained. The project's own small GPT-2, which has read
nothing, is first trained to predict the traces of the training clips, without their labels.
`random`: frozen as well, but its weights are random. `trained`: all of it is trained.
"""

import functools
import os
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import filelock
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from streamtwl.bench.pretraining import NextTokenModel, stretches
from streamtwl.errors import UsageError
from streamtwl.models import wheel
from streamtwl.paper import reasoners
from streamtwl.paper.plan import Gpt2
from streamtwl.paper.reasoners import Draws, Task
from streamtwl.reasoners.sampling import confidence_bin
from streamtwl.training import schedule, trace_model, trace_training, trunks
from streamtwl.training.posteriors import Scored
from streamtwl.training.recipe import TINY
from streamtwl.training.trace_model import TraceModel

TOKENS, CLIPS = 4096, 32  # in a batch, at most
PRETRAINING = 4  # epochs
HUB_ANSWER_S = 5
Progress = Callable[[int, int], None]


def fit(
    spec: Gpt2,
    soft: bool,
    task: Task,
    samples: Sequence[int],
    state: Path,
    has_read: Path,
    progress: Progress,
) -> reasoners.Scores:
    """Train on a task, on one thread; a stopped training resumes from the file `state`.

    Each batch has a K of `samples`. `has_read` is the file of the trunk that has read this task's
    traces. Raises UsageError where the trunk cannot be had.
    """
    torch.set_num_threads(1)  # two take longer as soon as something else runs
    trunk = load_trunk(spec, task, has_read, progress)
    if spec.embedding == "new" or _rows_do_not_fit(trunk, len(task.categories)):
        trunk.initial_embedding = None
    torch.manual_seed(task.seed)
    n_categories, n_labels = len(task.categories), len(task.labels)
    model = TraceModel(trunk, n_categories, n_labels, lags=0, soft=soft)
    ks = [0] if soft else [*samples]
    if max(ks) >= model.trunk.positions:
        raise UsageError(
            f"it reads {model.trunk.positions} tokens, and a patch with K = {max(ks)} samples is "
            "one more than K: leave it out of `samples`"
        )
    posteriors = [torch.from_numpy(each.posteriors) for each in task.scored]
    truth = torch.from_numpy(task.truth).float()

    def next_loss(generator: torch.Generator) -> tuple[Tensor, int]:
        k = ks[int(torch.randint(len(ks), (1,), generator=generator))]
        longest = _patches(model, k)
        count = TOKENS // ((k + 1) * min(longest, max(map(len, posteriors))))
        count = min(CLIPS, max(1, count))
        which = torch.randint(len(posteriors), (count,), generator=generator).tolist()
        parts = [_part(posteriors[i], longest, generator) for i in which]
        padded, there = _padded(parts)
        tokens = trace_model.draw(padded, k, generator)
        logits = model.read_stream(tokens, padded, None)[:, :, 0]
        target = truth[which][:, None].expand(logits.shape)
        return _loss(logits[there], target[there], task.several), int(there.sum())

    learns = any(weights.requires_grad for weights in trunk.parameters())
    rate = trace_training.LEARNING_RATE if learns else trace_training.ALONE_RATE
    plan = schedule.Schedule(spec.epochs, spec.epochs, sum(map(len, posteriors)), rate)
    schedule.run(model, next_loss, plan, task.seed, state, progress)
    return functools.partial(_scores, model, task.several)


def load_trunk(spec: Gpt2, task: Task, state: Path, progress: Progress) -> trunks.Trunk:
    """Return the trunk of a task, frozen unless it is to be trained; raises UsageError."""
    if spec.trunk == TINY and spec.weights == "frozen":
        trunk = _that_has_read(task, state, progress)
    else:
        is_of_hub = spec.trunk != TINY and not Path(spec.trunk).exists()
        trunk = trunks.load(spec.trunk, task.seed, is_of_hub and not hub_answers())
    if spec.weights == "random":
        torch.manual_seed(task.seed)
        trunk = trunks.Trunk(trunks.wordless(type(trunk.model)(trunk.model.config)))
    trunk.requires_grad_(spec.weights == "trained")
    return trunk


@functools.cache
def hub_answers() -> bool:
    """Return whether Hugging Face's hub answers, which is tried once."""
    if wheel.is_offline():
        return False
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        urllib.request.urlopen(address, timeout=HUB_ANSWER_S).close()
    except OSError:
        return False
    return True


def _that_has_read(task: Task, state: Path, progress: Progress) -> trunks.Trunk:
    """Return the small GPT-2 after it learned to predict the traces of the task's clips."""
    order = np.random.default_rng(task.seed).permutation(len(task.scored))
    posteriors = torch.from_numpy(np.concatenate([task.scored[i].posteriors for i in order]))
    reader = NextTokenModel(task.seed, len(task.categories))

    def next_loss(generator: torch.Generator) -> tuple[Tensor, int]:
        tokens = stretches(posteriors, generator)
        return reader.loss(tokens), tokens.shape[0] * tokens.shape[1]

    a_patch = 1 + sum(trace_training.SAMPLES) / len(trace_training.SAMPLES)
    size = round(trace_training.VISITS * len(posteriors) * a_patch)
    plan = schedule.Schedule(PRETRAINING, PRETRAINING, size, trace_training.LEARNING_RATE)
    with filelock.FileLock(state.with_suffix(".lock")):  # another cell may read the same clips
        schedule.run(reader, next_loss, plan, task.seed, state, progress)
    return trunks.Trunk(trunks.wordless(reader.model))


def _scores(
    model: TraceModel, several: bool, scored: Sequence[Scored], clips: Sequence[str], draws: Draws
) -> np.ndarray:
    """Return float[M, n, L] probabilities of the labels of n clips."""
    model.eval()
    k = 0 if model.soft else draws.samples
    longest = _patches(model, k)
    found = []
    for each, clip in zip(scored, clips, strict=True):
        tokens = tokens_of(each, clip, draws, k)  # M, P, K + 1, 2
        parts = np.array_split(np.arange(len(each.posteriors)), -(-len(each.posteriors) // longest))
        found.append([(tokens[:, part], each.posteriors[part]) for part in parts])
    logs = _read(model, several, [part for parts in found for part in parts])
    ends = np.cumsum([len(parts) for parts in found])[:-1]
    by_clip = [of.mean(axis=0) for of in np.split(logs, ends)]
    return np.exp(np.stack(by_clip, axis=1))


def tokens_of(scored: Scored, clip: str, draws: Draws, k: int) -> np.ndarray:
    """Return int64[M, P, K + 1, 2]: K samples of each patch, and its boundary."""
    posteriors = scored.posteriors
    boundary = np.stack(
        (
            np.full(len(posteriors), posteriors.shape[1], np.int64),
            confidence_bin(posteriors.sum(axis=1)).astype(np.int64),
        ),
        axis=-1,
    )
    boundary = np.repeat(boundary[None, :, None], draws.traces, axis=0)
    if not k:
        return boundary
    drawn = reasoners.draw(scored, clip, draws).swapaxes(0, 1).astype(np.int64)
    return np.concatenate((drawn, boundary), axis=2)


@torch.no_grad()
def _read(
    model: TraceModel, several: bool, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return float[n, M, L] log-probabilities at the last boundary of each part of a trace.

    Parts of the same length are read together.
    """
    logs: dict[int, np.ndarray] = {}
    for length in sorted({len(posteriors) for _, posteriors in parts}):
        of = [i for i, (_, posteriors) in enumerate(parts) if len(posteriors) == length]
        traces, _, tokens_a_patch, _ = parts[of[0]][0].shape
        count = max(1, 4 * TOKENS // (traces * length * tokens_a_patch))
        for at in range(0, len(of), count):
            some = of[at : at + count]
            tokens = torch.from_numpy(np.concatenate([parts[i][0] for i in some]))
            rows = torch.from_numpy(np.stack([parts[i][1] for i in some]))
            logits = model.read_stream(tokens, rows.repeat_interleave(traces, 0), None)[:, -1, 0]
            log = functional.logsigmoid(logits) if several else logits.log_softmax(dim=-1)
            for i, one in zip(some, log.unflatten(0, (-1, traces)).numpy(), strict=True):
                logs[i] = one
    return np.stack([logs[i] for i in range(len(parts))])


def _patches(model: TraceModel, k: int) -> int:
    """Return how many patches the trunk reads at once."""
    return max(1, model.trunk.positions // (k + 1))


def _part(posteriors: Tensor, longest: int, generator: torch.Generator) -> Tensor:
    """Return a clip's patches, or a stretch of them where there are too many."""
    spare = len(posteriors) - longest
    if spare <= 0:
        return posteriors
    at = int(torch.randint(spare + 1, (1,), generator=generator))
    return posteriors[at : at + longest]


def _padded(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return float32[n, P, C], and bool[n, P]: which patches there are. Padding comes last."""
    lengths = torch.tensor([len(each) for each in parts])
    there = torch.arange(int(lengths.max())) < lengths[:, None]
    return nn.utils.rnn.pad_sequence([*parts], batch_first=True, padding_value=1.0), there


def _loss(logits: Tensor, target: Tensor, several: bool) -> Tensor:
    if several:
        return functional.binary_cross_entropy_with_logits(logits, target)
    return functional.cross_entropy(logits, target)


def _rows_do_not_fit(trunk: trunks.Trunk, n_categories: int) -> bool:
    """Return whether the trunk's own words are for other categories."""
    rows = trunk.initial_embedding
    own = trunks.embedding_init.categories()
    return rows is not None and n_categories != len(own)
