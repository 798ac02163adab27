"""`streamtwl bench llm`: what a language model makes of the traces of labelled clips, zero-shot.

Beside it, on the same traces, the floor (the label with the highest mean confidence) and a majority
vote. Each label has names of AudioSet, of which the highest counts; the model sees the label only.
Traces are the confidences themselves (K = 0), or K categories drawn from each patch, M times.
Every answer is kept in a file as it comes, and not requested again.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from streamtwl.bench import compare
from streamtwl.bench.label_names import names_of
from streamtwl.config import LlmSettings, Settings, override
from streamtwl.errors import UNDECODABLE, EndpointError, NoLabelError, UsageError
from streamtwl.ontology import categories
from streamtwl.pipeline import Outcome, build
from streamtwl.reasoners import llm, trace_words
from streamtwl.reasoners.llm import Judge
from streamtwl.reasoners.prompts import Prompt
from streamtwl.reasoners.sampling import Sampler
from streamtwl.reasoners.trace_words import Step
from streamtwl.stages import Block
from streamtwl.training import datasets
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import read

_log = logging.getLogger(__name__)

STAGES = ("traces", "answers")
Progress = Callable[[str, int, int], None]  # (what, done, of)
TRIES, LONGEST_PAUSE_S = 6, 120.0  # of a request that may succeed later
THOUGHT = 4000  # characters of each that are kept


@dataclass(frozen=True, slots=True)
class Scored:
    """A clip as the floor scores it."""

    clip: Clip
    positions: tuple[int, ...]  # of each patch's end, 16 kHz samples
    scores: np.ndarray  # float32[T, C]: confidences


@dataclass(frozen=True, slots=True)
class Traces:
    """All clips, the labels, and which scores count for each."""

    clips: list[Scored]
    labels: list[str]
    names: list[str]  # C
    columns: list[list[int]]  # for each label, indices into `names`
    behind: int  # samples
    hop_s: float

    def steps(self, scored: Scored, said: Sequence[tuple[tuple[str, float], ...]]) -> list[Step]:
        """Return a clip's steps with these names."""
        return [
            trace_words.step(position, self.behind, self.hop_s, names)
            for position, names in zip(scored.positions, said, strict=True)
        ]


class Row(msgspec.Struct, frozen=True):
    """One answer."""

    clip: str
    samples: int  # K; 0: confidences
    seed: int
    trace: int
    vote: int
    label: str | None  # None: nothing that is one
    thought: str
    elapsed_s: float

    @property
    def key(self) -> tuple[str, int, int, int, int]:
        """What it is the answer to."""
        return self.clip, self.samples, self.seed, self.trace, self.vote


def evaluate(
    data: Path,
    table: Path | None,
    out: Path,
    settings: Settings,
    folds: Sequence[int],
    samples: Sequence[int],
    seeds: int,
    progress: Progress,
) -> str:
    """Have a model name every clip of the folds; write answers and table.md into `out`.

    Each of `samples` is a K; M and tau are [trace]'s, the model and its votes [llm]'s. Returns the
    table. Raises EndpointError where the server gives no answer for long.
    """
    traces = score(data, table, settings, folds, progress)
    out.mkdir(parents=True, exist_ok=True)
    kept = out / f"answers-{_digest(traces, settings)}.jsonl"
    rows = {row.key: row for row in kept_answers(kept)}
    work = list(_work(traces, settings, samples, seeds))
    with kept.open("ab") as file:
        judges = {k: judge_of(traces, settings.llm, drawn=bool(k)) for k in samples}
        for done, (key, scored, steps) in enumerate(work, 1):
            if key not in rows:
                rows[key] = answer_of(judges[key[1]], traces, key, scored, steps)
                file.write(msgspec.json.encode(rows[key]) + b"\n")
                file.flush()
            progress(STAGES[1], done, len(work))
    text = markdown(traces, settings, samples, seeds, rows)
    (out / "table.md").write_text(text)
    return text


def score(
    data: Path, table: Path | None, settings: Settings, folds: Sequence[int], progress: Progress
) -> Traces:
    """Return the traces of the clips of some folds (none: all) that have names in AudioSet.

    Clips of recordings that also stand in another fold are left out. Raises UsageError where
    nothing is left.
    """
    clips = datasets.load(data)
    chosen = [clip for clip in clips if not folds or clip.fold in folds]
    elsewhere = {clip.source for clip in clips if folds and clip.fold not in folds}
    known = _named({clip.label for clip in chosen}, table)
    kept = [clip for clip in chosen if clip.source not in elsewhere and clip.label in known]
    if not kept:
        raise UsageError(
            f"{data}: no clip of the folds {list(folds) or 'at all'} has a label that AudioSet "
            "names: map labels to names with --names"
        )
    if len(kept) < len(chosen):
        _log.warning(
            "%d of %d clips are left out: their recordings are in other folds too, or AudioSet has "
            "no name for their labels",
            len(chosen) - len(kept),
            len(chosen),
        )
    plain = override(settings, {"reasoner.file": "", "labels": "all", "llm": {}})
    pipeline = build(plain, ["clip"])
    outcomes: list[Outcome] = []
    pipeline.subscribe(outcomes.append)
    scored = []
    for number, clip in enumerate(kept):
        outcomes.clear()
        pipeline.push([Block(number, 0, read(clip.path), None, 0.0, last=True)])
        decided = [(each.position, each.decision.scores) for each in outcomes if each.decision]
        positions, scores = zip(*decided, strict=True)
        scored.append(Scored(clip, positions, np.stack(scores)))
        progress(STAGES[0], number + 1, len(kept))
    names, labels = pipeline.reasoner.labels, sorted({clip.label for clip in kept})
    index = {name: i for i, name in enumerate(names)}
    columns = [[index[categories()[i]] for i in known[label]] for label in labels]
    return Traces(scored, labels, names, columns, pipeline.reasoner.behind, settings.hop_s)


def floor(traces: Traces, scored: Scored) -> int:
    """Return the label with the highest mean confidence."""
    return int(_by_label(traces, scored.scores.mean(axis=0)).argmax())


def vote(traces: Traces, scored: Scored) -> int:
    """Return the label that most patches score highest."""
    votes = [int(_by_label(traces, scores).argmax()) for scores in scored.scores]
    return Counter(votes).most_common(1)[0][0]


def vote_of_draws(traces: Traces, draws: np.ndarray) -> int | None:
    """Return the label that most of int[...] draws are names of; None where none is one."""
    of_category = {column: i for i, columns in enumerate(traces.columns) for column in columns}
    votes = [of_category[one] for one in draws.ravel().tolist() if one in of_category]
    return Counter(votes).most_common(1)[0][0] if votes else None


def markdown(
    traces: Traces,
    settings: Settings,
    samples: Sequence[int],
    seeds: int,
    rows: dict[tuple[str, int, int, int, int], Row],
) -> str:
    """Return the table: accuracy with its interval, by method, K, M and votes."""
    lines = [
        "| method | K | M | votes | right, % | no label, % | ms a decision |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]

    def line(name: str, k: str, m: str, v: str, named: list[list[int | None]], ms: str) -> None:
        truth = [traces.labels.index(scored.clip.label) for scored in traces.clips]
        pairs = zip(named, truth, strict=True)
        right = np.array([np.mean([n == true for n in of]) for of, true in pairs])
        found = compare.mean_interval(right, [scored.clip.source for scored in traces.clips])
        none = np.mean([n is None for of in named for n in of])
        bounds = f"{100 * found.mean:.1f} ({100 * found.low:.0f} to {100 * found.high:.0f})"
        lines.append(f"| {name} | {k} | {m} | {v} | {bounds} | {100 * none:.0f} | {ms} |")

    line("floor, mean", "", "", "", [[floor(traces, each)] for each in traces.clips], "")
    line("majority vote", "", "", "", [[vote(traces, each)] for each in traces.clips], "")
    for k in samples:
        counts = _powers(settings.trace.traces) if k else [1]
        if k:
            drawn = [_drawn(traces, settings, k, seed) for seed in range(seeds)]
            for m in counts:
                named = [
                    [vote_of_draws(traces, one[number][:, :m]) for one in drawn]
                    for number in range(len(traces.clips))
                ]
                line("majority vote of draws", str(k), str(m), "", named, "")
        for m in counts:
            for v in _powers(settings.llm.votes):
                named, ms = _named_by_model(traces, rows, k, range(seeds), m, v)
                line(f"`{settings.llm.preset}`", str(k) if k else "soft", str(m), str(v), named, ms)
    return "\n".join(lines) + "\n"


def _named_by_model(
    traces: Traces,
    rows: dict[tuple[str, int, int, int, int], Row],
    k: int,
    seeds: Sequence[int],
    m: int,
    votes: int,
) -> tuple[list[list[int | None]], str]:
    """Return each clip's label, a seed each, and the mean milliseconds of a decision."""
    named: list[list[int | None]] = []
    elapsed_s: list[float] = []
    for scored in traces.clips:
        of_clip: list[int | None] = []
        for seed in seeds:
            name = called(scored.clip)
            keys = [(name, k, seed, t, v) for t in range(m) for v in range(votes)]
            answers = [rows[key] for key in keys]
            labels = [row.label for row in answers if row.label is not None]
            best = Counter(labels).most_common(1)[0][0] if labels else None
            of_clip.append(None if best is None else traces.labels.index(best))
            elapsed_s.append(sum(row.elapsed_s for row in answers))
        named.append(of_clip)
    return named, f"{1000 * np.mean(elapsed_s):.0f}"


def _work(
    traces: Traces, settings: Settings, samples: Sequence[int], seeds: int
) -> Iterator[tuple[tuple[str, int, int, int, int], Scored, list[Step]]]:
    """Yield (key, clip, trace) of every answer that is wanted."""
    votes = range(settings.llm.votes)
    for k in samples:
        for seed in range(seeds):
            drawn = _drawn(traces, settings, k, seed) if k else []
            for number, scored in enumerate(traces.clips):
                for trace in range(settings.trace.traces if k else 1):
                    if k:
                        each = drawn[number][:, trace]
                        said = [trace_words.draws(one, traces.names) for one in each]
                    else:
                        said = [trace_words.confidences(s, traces.names) for s in scored.scores]
                    steps = traces.steps(scored, said)
                    for one in votes:
                        yield (called(scored.clip), k, seed, trace, one), scored, steps


def _drawn(traces: Traces, settings: Settings, k: int, seed: int) -> list[np.ndarray]:
    """Return the categories drawn of each clip, int16[T, M, K]."""
    files = [scored.clip.path.name for scored in traces.clips]
    trace = settings.trace
    sampler = Sampler(files, k, trace.traces, trace.temperature, trace.seed + seed)
    return [
        np.stack([sampler.draw(number, scores)[:, :, 0] for scores in scored.scores])
        for number, scored in enumerate(traces.clips)
    ]


def judge_of(traces: Traces, chosen: LlmSettings, drawn: bool) -> Judge:
    """Return who names clips on the server; `drawn`: by samples. Raises UsageError."""
    kind = llm.preset_of(chosen)
    prompt = Prompt(kind, traces.labels, none=False, drawn=drawn)
    return Judge(llm.connect(chosen, kind), prompt, kind, votes=1)


def called(clip: Clip) -> str:
    """Return a clip's name in answers that are kept: folders may hold files of the same name."""
    return f"{clip.path.parent.name}/{clip.path.name}"


def answer_of(
    judge: Judge,
    traces: Traces,
    key: tuple[str, int, int, int, int],
    scored: Scored,
    steps: list[Step],
) -> Row:
    """Return the model's answer; waits where the server may give one later."""
    _, _, seed, trace, number = key
    request_seed = (seed * 1000 + trace) * 1000 + number
    began = time.monotonic()
    for attempt in range(TRIES):
        try:
            [(label, answer)] = judge.answers([steps], 0.0, steps[-1].end_s, request_seed)
        except NoLabelError as error:
            return Row(*key, None, str(error), time.monotonic() - began)
        except EndpointError as error:
            if not error.passing or attempt == TRIES - 1:
                raise
            pause_s = min(max(error.retry_after_s, 2.0**attempt), LONGEST_PAUSE_S)
            _log.warning("%s: waiting %.0f s", error, pause_s)
            time.sleep(pause_s)
            began = time.monotonic()
        else:
            assert label is not None
            return Row(*key, traces.labels[label], answer.thought[:THOUGHT], answer.elapsed_s)
    raise AssertionError("the last try returns or raises")


def kept_answers(file: Path) -> Iterator[Row]:
    """Yield the answers in a file, without a last line that was cut off."""
    if not file.exists():
        return
    lines = file.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        file.write_bytes(b"".join(lines[:-1]))
        del lines[-1]
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Row)
        except UNDECODABLE:
            raise UsageError(f"{file} is damaged: move it away and run this again") from None


def _named(labels: set[str], table: Path | None) -> dict[str, list[int]]:
    """Return the categories of each label that AudioSet names."""
    found: dict[str, list[int]] = {}
    for label in labels:
        try:
            found |= names_of([label], table)
        except UsageError as error:
            if table is not None and not table.is_file():
                raise
            _log.info("%s", error)
    return found


def _by_label(traces: Traces, scores: np.ndarray) -> np.ndarray:
    """Return float32[L], each label's highest score in float32[C]."""
    return np.array([scores[columns].max() for columns in traces.columns])


def _powers(most: int) -> list[int]:
    """Return 1, 2, 4 ... and `most`."""
    return sorted({most, *(2**i for i in range(most.bit_length()) if 2**i <= most)})


def _digest(traces: Traces, settings: Settings) -> str:
    """Return what tells the answers of one model, prompt and trace from those of another."""
    kind = llm.preset_of(settings.llm)
    prompts = [
        Prompt(kind, traces.labels, False, drawn).text([], 0.0, 0.0) for drawn in (False, True)
    ]
    parts = (
        msgspec.json.encode(kind),
        settings.llm.effort,
        prompts,
        settings.windows,
        msgspec.json.encode(settings.reasoner),
        settings.hop_s,
        (settings.trace.temperature, settings.trace.seed),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
