"""Language models on a server as reasoners: they name clips by their traces, zero-shot."""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import numpy as np

from streamtwl.bench import llm
from streamtwl.config import Settings, override
from streamtwl.errors import EndpointError, UsageError
from streamtwl.paper.data_sets import DataSet
from streamtwl.paper.plan import LanguageModel
from streamtwl.paper.reasoners import Draws, draw
from streamtwl.reasoners import trace_words
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scored, Scorer

ANSWER_S = 5.0
Progress = Callable[[int, int], None]


def check(spec: LanguageModel, data: DataSet) -> None:
    """Raise UsageError or EndpointError where a model cannot be had."""
    if data.several:
        raise UsageError("a language model names one label, and clips here may have several")
    if not _listens(spec.endpoint):
        raise EndpointError(f"no server answers at {spec.endpoint}")


def scores(
    spec: LanguageModel,
    data: DataSet,
    clips: Sequence[Clip],
    scored: Sequence[Scored],
    scorer: Scorer,
    samples: int,
    traces: int,
    seed: int,
    kept: Path,
    progress: Progress,
) -> tuple[np.ndarray, float]:
    """Return float32[M, n, L], 1 for the label that most of the traces by now name, and seconds.

    A clip that was not named, of `spec.clips` only so many are, has NaN. Every answer is a line of
    the file `kept`, and not requested again.
    """
    names = list(scorer.categories)
    traces_of = llm.Traces([], data.labels, names, [], scorer.first // 2, scorer.hop_s)
    settings = _settings(spec, scorer.hop_s)
    judge = llm.judge_of(traces_of, settings.llm, drawn=bool(samples))
    rows = {row.key: row for row in llm.kept_answers(kept)}
    chosen = _chosen(clips, spec.clips)
    found = np.full((traces, len(clips), len(data.labels)), np.nan, np.float32)
    elapsed_s = []
    with kept.open("ab") as file:
        for done, number in enumerate(chosen, 1):
            clip, patches = clips[number], scored[number]
            positions = tuple(
                scorer.first + round(i * scorer.hop_s * SAMPLE_RATE)
                for i in range(len(patches.posteriors))
            )
            floor = llm.Scored(clip, positions, patches.posteriors)
            drawn = draw(patches, clip.path.name, Draws(samples, traces, seed)) if samples else None
            votes: Counter[int] = Counter()
            for trace in range(traces):
                if drawn is None:
                    said = [trace_words.confidences(p, names) for p in patches.posteriors]
                else:
                    said = [trace_words.draws(one, names) for one in drawn[:, trace, :, 0]]
                key = (llm.called(clip), samples, seed, trace, 0)
                if key not in rows:
                    steps = traces_of.steps(floor, said)
                    rows[key] = llm.answer_of(judge, traces_of, key, floor, steps)
                    file.write(msgspec.json.encode(rows[key]) + b"\n")
                    file.flush()
                if (label := rows[key].label) is not None:
                    votes[data.labels.index(label)] += 1
                found[trace, number] = 0.0
                for which, count in votes.items():
                    found[trace, number, which] = count / (trace + 1)
                elapsed_s.append(rows[key].elapsed_s)
            progress(done, len(chosen))
    return found, float(np.mean(elapsed_s)) if elapsed_s else 0.0


def _chosen(clips: Sequence[Clip], limit: int) -> list[int]:
    taken: Counter[tuple[str, int]] = Counter()
    found = []
    for number, clip in enumerate(clips):
        taken[clip.label, clip.fold] += 1
        if not limit or taken[clip.label, clip.fold] <= limit:
            found.append(number)
    return found


def _settings(spec: LanguageModel, hop_s: float) -> Settings:
    changes = {
        "llm.preset": spec.preset,
        "llm.endpoint": spec.endpoint,
        "llm.model": spec.model,
        "llm.effort": spec.effort,
        "llm.timeout_s": spec.timeout_s,
        "hop_s": hop_s,
    }
    return override(Settings(), changes)


@cache
def _listens(endpoint: str) -> bool:
    """Return whether something takes connections there, which is tried once."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), ANSWER_S).close()
    except OSError:
        return False
    return True
