"""Which reasoner: the one that the settings name, made to fit the rest of the pipeline."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamtwl import plugins
from streamtwl.backbones import bank
from streamtwl.config import Settings, TraceSettings
from streamtwl.errors import UsageError
from streamtwl.models import catalogue, own, registry
from streamtwl.ontology import audioset_527, categories, kinds_among, vocabulary
from streamtwl.reasoners import graph, reads
from streamtwl.reasoners.card import Card, TraceCard
from streamtwl.reasoners.evidence import Evidence, delay
from streamtwl.reasoners.fusion import Fusion
from streamtwl.reasoners.gpt2 import Gpt2
from streamtwl.reasoners.naming import OpenLabels
from streamtwl.reasoners.reader import Reader
from streamtwl.reasoners.recurrent import Recurrent
from streamtwl.stages import Backbone, Reasoner, WindowKind

_log = logging.getLogger(__name__)

LLM = "llm"  # evidence, and a language model on a server


def load(settings: Settings) -> graph.Graph | None:
    """Return the file of the reasoner that the settings name; None for one that has none."""
    path = file(settings)
    return None if path is None else graph.load(path, provider=settings.backbone.provider)


def file(settings: Settings) -> Path | None:
    """Return where the file of the reasoner is that the settings name; None if it has none."""
    named = settings.reasoner.file or Evidence.name
    if named in (Evidence.name, LLM) or named in plugins.names("reasoners"):
        return None
    return registry.find_reasoner(named)


def windows(settings: Settings, card: Card) -> list[str]:
    """Return the windows that a reasoner's file reads, whichever the settings have.

    A card that does not say reads the pipeline's first window of its backbone, or its shortest.
    Raises UsageError for a backbone that there is none of.
    """
    there = [each for each in settings.windows if reads.backbone_of(each) == card.backbone]
    found = reads.windows_of(card.reads) or there[:1] or [card.backbone]
    shipped = [*registry.MODELS, *catalogue.SHIPPED]
    known = [*shipped, *plugins.names("backbones"), *own.names()]
    for name in map(reads.backbone_of, found):
        if name not in known:
            raise UsageError(
                f"--reasoner {settings.reasoner.file} reads the backbone {name}, and there is "
                f"{', '.join(known)}: `streamtwl models add` adds one of your own"
            )
    return found


def make(
    settings: Settings,
    loaded: graph.Graph | None,
    backbones: Sequence[Backbone],
    kinds: Sequence[WindowKind],
    sources: Sequence[str],
) -> Reasoner:
    """Make the reasoner. One from a file has to fit the rest; raises UsageError where not."""
    named = settings.reasoner.file or Evidence.name
    if named in (Evidence.name, LLM):
        names = _joint(backbones)
        floor = _evidence(settings, backbones, kinds, names)
        return _language_model(floor, names, settings, sources) if named == LLM else floor
    if loaded is None:
        return plugins.load("reasoners", named, {})(settings, backbones, sources)
    _warn(loaded.card, settings, backbones)
    if loaded.card.kind == "reader":
        return _reader(settings, loaded, backbones, kinds)
    reasoner: Reasoner
    if loaded.card.kind == "gpt2":
        reasoner = Gpt2(loaded, settings.trace, settings.hop_s, sources)
    else:
        reasoner = Recurrent(loaded)
    _check(loaded, settings, backbones, kinds)
    return reasoner


def _reader(
    settings: Settings,
    loaded: graph.Graph,
    backbones: Sequence[Backbone],
    kinds: Sequence[WindowKind],
) -> Reader:
    """Make a reader, which joins windows as its card says, not as the pipeline does."""
    names, read = _joint(backbones), loaded.card.reader
    if read is None:
        raise UsageError(f"--reasoner {loaded.path}: its card does not say how it reads")
    if absent := {*read.windows} - {kind.name for kind in kinds}:
        raise UsageError(
            f"--reasoner {loaded.path}: its card reads {min(absent)}, and the windows are "
            f"{', '.join(kind.name for kind in kinds)}"
        )
    fusion = Fusion(kinds, backbones, names, read.prior, read.weights)
    labels = _open_labels(settings, names)
    of_labels = np.where(labels.wanted, 0.0, 1.0) * np.ones(len(labels.labels))
    wanted = labels.of_scores(of_labels) < 1.0
    return Reader(loaded, labels, fusion, kinds_among(names), wanted)


def _evidence(
    settings: Settings,
    backbones: Sequence[Backbone],
    kinds: Sequence[WindowKind],
    names: Sequence[str],
) -> Evidence:
    chosen = settings.reasoner
    fusion = Fusion(kinds, backbones, names, chosen.prior, chosen.weights)
    behind = delay(kinds, backbones, chosen, settings.hop_s)
    is_open = set(names) <= set(categories())
    return Evidence(_open_labels(settings, names), fusion, chosen, behind, is_open)


def _language_model(
    floor: Evidence, names: Sequence[str], settings: Settings, sources: Sequence[str]
) -> Reasoner:
    try:
        from streamtwl.reasoners import llm
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--reasoner llm needs {error.name}: install the extra `llm`, as streamtwl[cpu,llm]"
        ) from None
    return llm.make(floor, names, settings, sources)


def _joint(backbones: Sequence[Backbone]) -> tuple[str, ...]:
    """Return the categories of all backbones; of AudioSet's those that YAMNet has too."""
    names = dict.fromkeys(name for backbone in backbones for name in backbone.categories)
    passed_over = {*audioset_527()} - {*categories()}
    return tuple(name for name in names if name not in passed_over)


def _check(
    loaded: graph.Graph,
    settings: Settings,
    backbones: Sequence[Backbone],
    kinds: Sequence[WindowKind],
) -> None:
    """Raise UsageError where a file that reads rows does not fit the pipeline."""
    card, named = loaded.card, settings.reasoner.file
    if settings.labels != "all":
        raise UsageError(
            f"--labels {settings.labels}: the reasoner {card.name} has labels of its own "
            f"({', '.join(card.labels[:3])}, ...); leave --labels out"
        )
    width = _width(card.reads or [(kinds[0].name, "posterior")], backbones, kinds)
    if width != loaded.shapes["posterior"][1]:
        what = ", ".join(" ".join(each) for each in card.reads) or f"{card.backbone}'s posterior"
        raise UsageError(
            f"--reasoner {named}: its graph takes a row of {loaded.shapes['posterior'][1]} numbers "
            f"(posterior), and what it reads has {width} here ({what})"
        )


def _warn(card: Card, settings: Settings, backbones: Sequence[Backbone]) -> None:
    """Warn where a file fits the pipeline badly."""
    for backbone in backbones:
        trained_with = card.sha256.get(backbone.name, backbone.sha256)
        if trained_with != backbone.sha256:
            _log.warning(
                "reasoner %s was trained with other weights of %s (SHA-256 %s..., here %s...): "
                "train it again",
                *(card.name, backbone.name, trained_with[:8], backbone.sha256[:8]),
            )
    if abs(card.hop_s - settings.hop_s) > 1e-6:
        _log.warning(
            "reasoner %s was trained at a hop of %g s, not %g s",
            card.name,
            card.hop_s,
            settings.hop_s,
        )
    if card.trace is not None:
        _warn_of_trace(card.name, card.trace, settings.trace)


def _width(
    read: Sequence[reads.Read], backbones: Sequence[Backbone], kinds: Sequence[WindowKind]
) -> int:
    """Return how many numbers a row has, F."""
    if any(output == "embedding" for _, output in read):  # only a score says how long it is
        columns = reads.columns(bank.of_silence(backbones, kinds))
        return sum(columns[each].stop - columns[each].start for each in read)
    of = {kind.name: backbones[kind.backbone] for kind in kinds}
    return sum(len(of[window].categories) for window, _ in read)


def _warn_of_trace(name: str, read: TraceCard, trace: TraceSettings) -> None:
    """Warn about settings that the reasoner was not trained with, or does not use."""
    usual = TraceSettings()
    if read.soft and (trace.samples, trace.traces) != (usual.samples, usual.traces):
        _log.warning("reasoner %s draws no samples: --samples and --traces change nothing", name)
    elif not read.soft and not read.samples[0] <= trace.samples <= read.samples[1]:
        _log.warning("reasoner %s was trained at K = %d to %d", name, *read.samples)
    if not read.soft and trace.temperature != read.temperature:
        _log.warning("reasoner %s was trained at a temperature of %g", name, read.temperature)


def _open_labels(settings: Settings, names: Sequence[str]) -> OpenLabels:
    chosen, named = settings.reasoner, vocabulary(settings.labels, names)
    wanted = np.array([settings.events.wants(label) for label in named.labels])
    return OpenLabels(named, chosen.specific_ratio, chosen.floor, wanted)
