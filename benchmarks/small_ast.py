"""A small AST trained here, through the whole path: sound, training, `export-ast`, streaming.

    .venv/bin/python benchmarks/small_ast.py ../shared/data --out small-ast [--steps 3000]

AST's released weights are not part of this project, so a network of random weights shows that the
numbers are right, and this one that they make sense. It is `ASTForAudioClassification` with
LAYERS layers of WIDTH, and patches without overlap. It reads the product's own filter bank, of
crops of 0.5 to 5 s, half of them with a second sound, with masks (SpecAugment: D. Park et al.,
Interspeech 2019). It learns the mean of what YAMNet and mn04 say of the same crop (those of the two
that are here), with ESC-10's truth on top. ESC-10's folds 1, 2, 3 and kitchen20's are its data;
ESC-10's fold 5 is looked at while it trains, fold 4 once in the end. The same command resumes a
training that was stopped. Printed: of fold 4, how often the right class scores highest of the ten
after 1, 2 and 5 s, each backbone on all sound so far. It stays as the backbone `small-ast`.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamtwl import config  # before transformers, whose telemetry it switches off

# isort: split
import numpy as np
import torch
from hearing_sounds import right_names
from quick import QUICK, add_option
from rich.console import Console
from rich.table import Table
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from streamtwl.features.fbank import Fbank
from streamtwl.features.spectrum import BINS, Spectrum
from streamtwl.features.window import frames_in, samples_in
from streamtwl.models import ast_onnx, own, registry
from streamtwl.ontology import audioset_527
from streamtwl.pipeline import hearing
from streamtwl.stages import SAMPLE_RATE, Backbone
from streamtwl.training import datasets
from streamtwl.training.posteriors import read

NAME = "small-ast-quick" if QUICK else "small-ast"  # of the backbone, among the user's own
WIDTH, LAYERS, HEADS = 128, 1 if QUICK else 4, 4
PATCH = 16  # frames and bands, and the stride of both
LONGEST = 500  # frames
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet, as `ASTFeatureExtractor` has them
CROPS_S = (0.5, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 5.0)  # one of these a batch
AFTER_S = (1.0, 2.0, 5.0)
BATCH = 4 if QUICK else 16
KEPT_EVERY = 2 if QUICK else 100  # steps
LEARNING_RATE, WARM_UP = 1e-3, 300  # AdamW, cosine; steps
CERTAIN = 0.9  # the target of a true label, at least
FIT, CHOOSE, TEST = (1, 2, 3), 5, 4  # folds


@dataclass(frozen=True, slots=True)
class Sound:
    """A clip at 16 kHz."""

    samples: np.ndarray  # float32[n]
    label: str
    right: tuple[int, ...]  # AudioSet's categories that are true of it; none: not known
    fold: int


class Teachers:
    """The mean of some backbones' posteriors on all of a crop, over AudioSet's 527 categories."""

    def __init__(self) -> None:
        names = ["yamnet", *["mn04"] * registry.is_here(registry.find("mn04"))]
        self.backbones = backbones(names)
        index = {name: i for i, name in enumerate(audioset_527())}
        self._places = [[index[name] for name in each.categories] for each in self.backbones]

    def targets(self, crop: np.ndarray) -> np.ndarray:
        """Return float32[527] of float32[n] samples, of the backbones that take so few."""
        power = Spectrum().push(crop)
        total, count = np.zeros(len(audioset_527()), np.float32), np.zeros(len(audioset_527()))
        for backbone, places in zip(self.backbones, self._places, strict=True):
            if len(crop) >= samples_in(backbone, backbone.lengths_s[0]):
                total[places] += whole(backbone, crop, power)
                count[places] += 1
        return total / np.maximum(count, 1)


def backbones(names: Sequence[str]) -> list[Backbone]:
    """Return the backbones of those names; their weights are fetched if they are not here."""
    for name in names:
        if name in registry.MODELS:
            registry.pull(registry.find(name))
    return hearing(config.override(config.Settings(), {"windows": names, "hop_s": 0.1}))[0]


def whole(backbone: Backbone, samples: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Return the posterior float32[C] of all samples: one window, or the mean of the longest."""
    frames = backbone.front_end().push(samples, power)
    longest = frames_in(backbone, backbone.lengths_s[1])
    if len(frames) <= longest:
        return backbone.score(frames[None])[0][0]
    starts = range(0, len(frames) - longest + 1, longest)
    return backbone.score(np.stack([frames[at : at + longest] for at in starts]))[0].mean(axis=0)


def sounds(data: Path, names: str, table: Path, folds: Sequence[int]) -> list[Sound]:
    """Return a data set's clips of some folds, less those that are cut from another fold's."""
    clips, right = datasets.load(data / names), right_names(table)
    index = {name: i for i, name in enumerate(audioset_527())}
    elsewhere = {clip.source for clip in clips if clip.fold not in folds}
    kept = [clip for clip in clips if clip.fold in folds and clip.source not in elsewhere]
    return [
        Sound(read(c.path), c.label, tuple(index[n] for n in right.get(c.label, ())), c.fold)
        for c in kept
    ]


def batch(
    fit: Sequence[Sound], teachers: Teachers, seed: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features float32[BATCH, frames, 128] and targets float32[BATCH, 527] of crops."""
    rng = np.random.default_rng(seed)
    length = round(rng.choice(CROPS_S) * SAMPLE_RATE)
    features, targets = [], []
    for _ in range(BATCH):
        sound, other = (fit[i] for i in rng.integers(len(fit), size=2))
        crop = cut(sound.samples, length, rng) * 10 ** (rng.uniform(-18, 6) / 20)
        if rng.random() < 0.5:
            second = cut(other.samples, length, rng)
            level = rms(crop) / rms(second) * 10 ** (-rng.uniform(0, 25) / 20)
            crop = crop + second * level
        crop = np.clip(crop, -1, 1).astype(np.float32)
        target = teachers.targets(crop)
        target[list(sound.right)] = np.maximum(target[list(sound.right)], CERTAIN)
        targets.append(target)
        features.append(masked(normalised(crop), rng))
    return torch.from_numpy(np.stack(features)), torch.from_numpy(np.stack(targets))


def cut(samples: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return float32[length] of a clip, padded by zeros; not a silent piece if there is another."""
    padded = np.pad(samples, (0, max(0, length - len(samples))))
    for _ in range(10):
        at = rng.integers(len(padded) - length + 1)
        piece = padded[at : at + length]
        if rms(piece) > 0.3 * rms(samples):
            break
    return piece


def rms(samples: np.ndarray) -> float:
    """Return the root of the mean square, never 0."""
    return float(np.sqrt(np.mean(np.square(samples)) + 1e-12))


def normalised(samples: np.ndarray) -> np.ndarray:
    """Return float32[frames, 128] as the network takes them."""
    fbank = Fbank().push(samples, np.empty((0, BINS), np.float32))
    return ((fbank - MEAN) / (2 * STD)).astype(np.float32)


def masked(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy with two stripes of bands and one of frames at 0, the mean."""
    features = features.copy()
    frames, bands = features.shape
    for widest, size in ((24, bands), (24, bands), (frames // 5, frames)):
        width = rng.integers(widest + 1)
        at = rng.integers(size - width + 1)
        (features.T if size == bands else features)[at : at + width] = 0
    return features


def network() -> ASTForAudioClassification:
    """Return the untrained network."""
    names = dict(enumerate(audioset_527()))
    torch.manual_seed(0)
    made = ASTForAudioClassification(
        ASTConfig(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            frequency_stride=PATCH,
            time_stride=PATCH,
            max_length=LONGEST,
            id2label=names,
            label2id={name: i for i, name in names.items()},
            problem_type="multi_label_classification",
        )
    )
    torch.nn.init.trunc_normal_(
        made.audio_spectrogram_transformer.embeddings.position_embeddings, std=0.02
    )
    torch.nn.init.constant_(made.classifier.dense.bias, -6.0)  # few of the 527 sound at once
    return made


def logits_of(net: ASTForAudioClassification, features: torch.Tensor) -> torch.Tensor:
    """Return float32[N, 527] of features of any length, by cropped positions."""
    embeddings = net.audio_spectrogram_transformer.embeddings
    net.audio_spectrogram_transformer.embeddings = ast_onnx.CroppedPositions(embeddings)
    try:
        return net(features).logits
    finally:
        net.audio_spectrogram_transformer.embeddings = embeddings


def train(data: Path, out: Path, steps: int, minutes: float) -> ASTForAudioClassification:
    """Train, keeping the state in `out`, and resuming from it; returns the network."""
    tables = {"esc10": data / "esc50_audioset.csv"}
    if (data / "kitchen20").exists():
        tables["kitchen20"] = Path(__file__).with_name("kitchen20_audioset.csv")
    fit = [s for name, table in tables.items() for s in sounds(data, name, table, FIT)]
    choose = sounds(data, "esc10", tables["esc10"], (CHOOSE,))
    teachers, net = Teachers(), network()
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, steps))
    kept, step, spent = out / "state.pt", 0, 0.0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        step, spent = state["step"], state["spent"]
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
    loss_of = torch.nn.BCEWithLogitsLoss(reduction="none")
    began, losses = time.process_time() - spent, []
    while step < steps and time.process_time() - began < 60 * minutes:
        features, targets = batch(fit, teachers, [0, step])
        net.train()
        loss = loss_of(logits_of(net, features), targets).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        step += 1
        losses.append(float(loss.detach()))
        if step % KEPT_EVERY == 0 or step == steps:
            right = validate(net, choose)
            print(
                f"{step} steps: loss {np.mean(losses):.3f}, fold {CHOOSE} {right:.1%}", flush=True
            )
            losses.clear()
            state = {"net": net.state_dict(), "optimiser": optimiser.state_dict()}
            state |= {"schedule": schedule.state_dict(), "step": step}
            torch.save(state | {"spent": time.process_time() - began}, kept)
    return net


def rate(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step of so many."""
    return min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2


def validate(net: ASTForAudioClassification, choose: Sequence[Sound]) -> float:
    """Return the share of clips of which the first 2 s are named rightly."""
    net.eval()
    features = np.stack([normalised(np.resize(s.samples, 2 * SAMPLE_RATE)) for s in choose])
    with torch.no_grad():
        scores = torch.sigmoid(logits_of(net, torch.from_numpy(features))).numpy()
    return right_share(scores, choose)


def right_share(scores: np.ndarray, clips: Sequence[Sound]) -> float:
    """Return how often a clip's class scores highest of all classes, of float32[N, 527]."""
    classes = dict.fromkeys(clip.right for clip in clips)
    best = [max(classes, key=lambda c: max(row[list(c)])) for row in scores]
    return float(np.mean([found == clip.right for found, clip in zip(best, clips, strict=True)]))


def report(data: Path, names: Sequence[str]) -> Table:
    """Return how many clips of the test fold each backbone names after some seconds."""
    clips = sounds(data, "esc10", data / "esc50_audioset.csv", (TEST,))
    made = Table(f"of {len(clips)} clips", *(f"after {after_s:g} s" for after_s in AFTER_S))
    index = {name: i for i, name in enumerate(audioset_527())}
    for backbone in backbones(names):
        places = [index[name] for name in backbone.categories]
        shares = []
        for after_s in AFTER_S:
            scores = np.zeros((len(clips), len(index)))
            for row, clip in zip(scores, clips, strict=True):
                samples = clip.samples[: round(after_s * SAMPLE_RATE)]
                row[places] = whole(backbone, samples, Spectrum().push(samples))
            shares.append(right_share(scores, clips))
        made.add_row(backbone.name, *(f"{share:.0%}" for share in shares))
    return made


def main() -> None:
    """Train, save, export, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder that esc10/ is in")
    parser.add_argument("--out", type=Path, required=True, help="folder for the network")
    parser.add_argument("--steps", type=int, default=3000, help="of training (default 3000)")
    parser.add_argument("--minutes", type=float, default=40, help="of a core, at most (default 40)")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    net = train(options.data, options.out, 3 if QUICK else options.steps, options.minutes)
    net.save_pretrained(options.out / "model")
    ASTFeatureExtractor(max_length=LONGEST).save_pretrained(options.out / "model")
    if NAME in own.names():
        own.remove(NAME)
    ast_onnx.export(str(options.out / "model"), NAME)
    teachers = [backbone.name for backbone in Teachers().backbones]
    Console().print(report(options.data, [NAME, *teachers]))
    if QUICK:
        own.remove(NAME)


if __name__ == "__main__":
    main()
