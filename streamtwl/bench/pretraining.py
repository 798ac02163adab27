"""`streamtwl bench pretrain`: a small GPT-2 trained on unlabelled traces.

It is trained like any language model: to predict the next token. A token is two words, a category
and a confidence bin, embedded as their sum and predicted separately; a boundary is a category too.
The recordings of a package follow one another in random order, so that sounds go on and change.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import streamtwl
from streamtwl import config
from streamtwl.config import Settings
from streamtwl.errors import UsageError
from streamtwl.ontology import categories
from streamtwl.reasoners.sampling import N_BINS
from streamtwl.training import scenes, schedule, scored_scenes, trace_training, trunks
from streamtwl.training.posteriors import Scorer
from streamtwl.training.trace_model import draw

SCORING, TRAINING = "recordings", "next-token training"
STAGES = (SCORING, TRAINING)
Progress = Callable[[str, int, int], None]  # (what, done, of)


class NextTokenModel(nn.Module):
    """A trunk with a word embedding that also serves as its output layer."""

    def __init__(self, seed: int, n_categories: int | None = None) -> None:
        """`n_categories`: C of the posteriors; None: YAMNet's."""
        super().__init__()
        torch.manual_seed(seed)
        self.boundary = len(categories()) if n_categories is None else n_categories
        words = self.boundary + 1 + N_BINS  # a word each: categories, the boundary, bins
        self.model = trunks.tiny(words)
        self.drop = nn.Dropout(0.1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-odds of the next token of int64[n, T, 2]: of its category, and of its bin."""
        words = self.model.get_input_embeddings()
        bins = tokens[..., 1] + self.boundary + 1
        read = self.model(inputs_embeds=words(tokens[..., 0]) + words(bins)).last_hidden_state
        predicted = self.drop(read) @ words.weight.T
        return predicted[..., : self.boundary + 1], predicted[..., self.boundary + 1 :]

    def loss(self, tokens: Tensor) -> Tensor:
        """Return the mean negative log-probability of a token, given those before it."""
        category, bin_ = self(tokens[:, :-1])
        next_category, next_bin = tokens[:, 1:].unbind(-1)
        return functional.cross_entropy(
            category.flatten(0, 1), next_category.flatten()
        ) + functional.cross_entropy(bin_.flatten(0, 1), next_bin.flatten())


def pretrain(
    corpus: Path, out: Path, epochs: int, seed: int, hop_s: float, progress: Progress
) -> dict[str, float]:
    """Train on a corpus's training side; write a folder for `bench train --body`, return figures.

    One recording in VALIDATION_SHARE is left out of training, to measure on. The same call resumes
    a training that was stopped; an older trunk in `out` is overwritten. Raises UsageError where
    there is no corpus, or it is too short, or `out` is something else already.
    """
    config.override(Settings(), {"hop_s": hop_s})  # what `listen` would refuse
    out = out.resolve()
    if out.is_file() or (
        out.is_dir() and [*out.iterdir()] and not (out / trunks.PRETRAINING).exists()
    ):
        raise UsageError(
            f"-o {out}: it exists and is not from `streamtwl bench pretrain`; choose another folder"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    fit, choose = _traces(corpus, seed, hop_s, progress)
    model = NextTokenModel(seed)
    identity = f"{fit.sum()}/{len(fit)}/{epochs}/{seed}".encode()
    key = hashlib.sha256(identity).hexdigest()[:8]  # another training does not resume from it
    state = out.with_name(f"{out.name}.{key}.training")

    def next_loss(generator: torch.Generator) -> tuple[Tensor, int]:
        tokens = stretches(fit, generator)
        return model.loss(tokens), tokens.shape[0] * tokens.shape[1]

    # a batch counts tokens: so many that each patch is visited at the mean of SAMPLES
    a_patch = 1 + sum(trace_training.SAMPLES) / len(trace_training.SAMPLES)
    plan = schedule.Schedule(
        epochs,
        epochs,
        round(trace_training.VISITS * len(fit) * a_patch),
        trace_training.LEARNING_RATE,
    )
    schedule.run(model, next_loss, plan, seed, state, lambda done, of: progress(TRAINING, done, of))
    figures = {"fresh": _measure(NextTokenModel(seed), choose), "trained": _measure(model, choose)}
    made = out.with_name(f"{out.name}.partial")
    model.model.save_pretrained(made)
    command = f"streamtwl bench pretrain --corpus CORPUS -o {out.name}"
    command += f" --epochs {epochs} --seed {seed} --hop {hop_s:g}"
    about = {"command": command, "version": streamtwl.__version__, "nats_a_token": figures}
    (made / trunks.PRETRAINING).write_text(json.dumps(about, indent=2) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    made.rename(out)
    state.unlink(missing_ok=True)
    return figures


def _traces(corpus: Path, seed: int, hop_s: float, progress: Progress) -> tuple[Tensor, Tensor]:
    """Return float32[T, C] posteriors to fit and to choose by."""
    packages = scenes.read_pieces(corpus, "train")
    order = np.random.default_rng(seed)
    scorer = Scorer(hop_s=hop_s)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    done, of = 0, sum(map(len, packages))
    for pieces in packages:
        for number in order.permutation(len(pieces)):
            part = parts[int(scored_scenes.is_choice(pieces[number]))]
            part.append(scorer.score(pieces[number]).posteriors)
            done += 1
            progress(SCORING, done, of)
    for part in parts:
        if sum(map(len, part)) < trace_training.HORIZON_PATCHES:
            raise UsageError(
                f"'{corpus}' is too short: its training and validation sides need at least "
                f"{trace_training.HORIZON_PATCHES} patches each"
            )
    fit, choose = (torch.from_numpy(np.concatenate(part)) for part in parts)
    return fit, choose


def stretches(posteriors: Tensor, generator: torch.Generator) -> Tensor:
    """Return int64[n, T, 2] tokens of random stretches, all with the same K."""
    which = int(torch.randint(len(trace_training.SAMPLES), (1,), generator=generator))
    samples = trace_training.SAMPLES[which]
    length = min(
        trace_training.HORIZON_PATCHES, trunks.TINY_POSITIONS // (samples + 1), len(posteriors)
    )
    rows = max(1, trace_training.TOKENS // (length * (samples + 1)))
    first = torch.randint(len(posteriors) - length + 1, (rows, 1), generator=generator)
    return draw(posteriors[first + torch.arange(length)], samples, generator).flatten(1, 2)


@torch.no_grad()
def _measure(model: NextTokenModel, posteriors: Tensor, batches: int = 50) -> float:
    """Return the mean loss per token over stretches that are the same for every model."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    losses = [model.loss(stretches(posteriors, generator)).item() for _ in range(batches)]
    return sum(losses) / len(losses)
