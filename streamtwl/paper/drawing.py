"""Pictures of the report, as SVG that takes its colours from the page."""

import base64
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator

from streamtwl.paper import runner
from streamtwl.paper.cells import OWN_WINDOWS, Cell
from streamtwl.paper.experiment import Results
from streamtwl.paper.found import Found
from streamtwl.paper.plan import Plan
from streamtwl.paper.reasoners import Draws, draw
from streamtwl.paper.tables import Row
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training.posteriors import Scored, read

COLOURS = 8
WIDTH, HEIGHT, LEFT, BOTTOM = 520, 300, 46, 40  # of a chart
NAMES, ACROSS, ROW, SPECTRUM = 236, 880, 18, 110  # of a clip: gutter, time axis, heights
GAP = 8
STRONGEST = 6  # categories of a clip, of the posterior and of the trace


def whisker(interval: dict, low: float, high: float) -> str:
    """Return a mean and its bounds as a dot and a line on a scale from low to high."""
    span = (high - low) or 1.0
    a, mean, b = (4 + 112 * (interval[each] - low) / span for each in ("low", "mean", "high"))
    return (
        '<svg viewBox="0 0 120 14" style="width:120px" aria-hidden="true">'
        f'<line x1="{a:.1f}" x2="{b:.1f}" y1="7" y2="7" style="stroke:var(--c0)" '
        f'stroke-width="2"/><circle cx="{mean:.1f}" cy="7" r="4" style="fill:var(--c0)"/></svg>'
    )


def chart(
    curves: Sequence[tuple[str, list[Row], Row | None]],
    metric: str,
    x_of: Callable[[Row], float],
    x_title: str,
) -> str:
    """Return curves with their bands over a logarithmic axis, soft traces dashed."""
    factor = 1.0 if metric == "mAP" else 100.0
    rows = [row for _, of, _ in curves for row in of]
    ends = [r for _, of, soft in curves for r in (*of, *([soft] if soft else []))]
    low = factor * min(row[metric]["low"] for row in ends)
    high = factor * max(row[metric]["high"] for row in ends)
    xs = [math.log2(x_of(row)) for row in rows]
    first, last = min(xs), max(max(xs), min(xs) + 1e-9)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 12) * (math.log2(value) - first) / (last - first)

    def y(value: float) -> float:
        return 10 + (HEIGHT - BOTTOM - 10) * (high - value) / ((high - low) or 1.0)

    made = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(x_title)}">']
    for tick in _ticks(low, high):
        made.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 12}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text class="soft" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:g}</text>'
        )
    for tick in _powers(first, last, {x_of(row) for row in rows}):
        made.append(
            f'<text class="soft" x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{tick:.3g}</text>'
        )
    made.append(
        f'<text class="soft" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
    )
    for number, (name, of, soft) in enumerate(curves):
        colour = f"var(--c{number % COLOURS})"
        points = [
            (x(x_of(r)), *(y(factor * r[metric][e]) for e in ("mean", "low", "high"))) for r in of
        ]
        band = [(p[0], p[3]) for p in points] + [(p[0], p[2]) for p in reversed(points)]
        made.append(f'<polygon points="{_points(band)}" style="fill:{colour}" opacity="0.1"/>')
        line = _points([(p[0], p[1]) for p in points])
        made.append(
            f'<polyline points="{line}" fill="none" style="stroke:{colour}" stroke-width="2"/>'
        )
        made += [
            f'<circle cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="3.5" style="fill:{colour}"><title>'
            f"{escape(name)}, K = {r['samples']}: {factor * r[metric]['mean']:.3g}</title></circle>"
            for p, r in zip(points, of, strict=True)
        ]
        if soft is not None:
            level = y(factor * soft[metric]["mean"])
            made.append(
                f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{level:.1f}" y2="{level:.1f}" '
                f'style="stroke:{colour}" stroke-dasharray="5 4"/>'
            )
    return "".join(made) + "</svg>"


def clips(results: Results, data: str) -> Iterator[str]:
    """Yield some test clips of a data set's first split, over time."""
    mine = [(c, f) for c, f in results.cells if c.data.name == data and c.backbone != OWN_WINDOWS]
    if not mine:
        return
    first = mine[0][0]
    seed = min(cell.seed for cell, _ in mine)
    shown = [
        (cell, found)
        for cell, found in mine
        if cell.split is first.split
        and (cell.backbone, cell.seed) == (first.backbone, seed)
        and found.shown
    ]
    plan = results.runner.plan
    for at, number in enumerate(runner.shown(len(first.split.test))):
        yield _clip(results, plan, first, number, [(c.row.name, f) for c, f in shown], at)


def _clip(
    results: Results,
    plan: Plan,
    cell: Cell,
    number: int,
    decided: Sequence[tuple[str, Found]],
    at: int,
) -> str:
    """Return one clip: spectrogram, posteriors, trace, decisions, one above the other."""
    clip = cell.split.test[number]
    scorer = results.runner.scorer((cell.backbone,))
    scored = scorer.score(clip.path)
    samples = read(clip.path)
    duration_s = max(len(samples), scorer.first) / SAMPLE_RATE
    ends_s = [scorer.first / SAMPLE_RATE + i * plan.hop_s for i in range(len(scored.posteriors))]
    k = runner.shown_samples(plan.samples)
    rows = [*_posterior_rows(scored, scorer.categories)]
    groups = [len(rows)]  # where another kind of row begins, with a gap before it
    rows += _trace_rows(scored, clip.path.name, k, plan.seeds[0], scorer.categories)
    groups.append(len(rows))
    rows += [
        _decision_row(name, found.shown[at], cell.data.labels, clip.labels)
        for name, found in decided
    ]
    height = SPECTRUM + ROW * len(rows) + GAP * len(groups) + 26

    def x(seconds: float) -> float:
        return NAMES + ACROSS * min(1.0, seconds / duration_s)

    made = [f'<svg viewBox="0 0 {NAMES + ACROSS} {height}" role="img">']
    made.append(
        f'<image x="{NAMES}" y="0" width="{ACROSS}" height="{SPECTRUM - 6}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{_spectrogram(samples)}"/>'
        f'<text class="soft" x="{NAMES - 8}" y="12" text-anchor="end">8 kHz</text>'
        f'<text class="soft" x="{NAMES - 8}" y="{SPECTRUM - 10}" text-anchor="end">0</text>'
    )
    for line, (name, colours, texts, titles) in enumerate(rows):
        top = SPECTRUM + ROW * line + GAP * sum(line >= group for group in groups)
        made.append(
            f'<text x="{NAMES - 8}" y="{top + 13}" text-anchor="end">{escape(_short(name, 36))}'
            "</text>"
        )
        for end_s, colour, text, title in zip(ends_s, colours, texts, titles, strict=True):
            a, b = x(max(0.0, end_s - plan.hop_s)), x(end_s)
            made.append(
                f'<rect x="{a:.1f}" y="{top}" width="{max(1.0, b - a - 1):.1f}" '
                f'height="{ROW - 2}" style="{colour}"><title>{escape(title)}</title></rect>'
            )
            if text:
                room = max(1, int((b - a) / 7))
                made.append(
                    f'<text x="{(a + b) / 2:.1f}" y="{top + 12}" text-anchor="middle" '
                    f'pointer-events="none">{escape(_short(text, room))}</text>'
                )
    for second in range(int(duration_s) + 1):
        made.append(
            f'<text class="soft" x="{x(second):.1f}" y="{height - 6}" '
            f'text-anchor="{"end" if second > duration_s - 0.1 else "middle"}">{second} s</text>'
        )
    title = f'<b>{escape(", ".join(clip.labels))}</b> <span class="soft">'
    title += f"{escape(clip.path.name)}, {escape(cell.backbone)}, K = {k}</span>"
    return title + "".join(made) + "</svg>"


Line = tuple[str, list[str], list[str], list[str]]  # name; of each patch: style, text, tooltip


def _posterior_rows(scored: Scored, names: Sequence[str]) -> Iterator[Line]:
    strongest = np.argsort(-scored.posteriors.max(axis=0), kind="stable")[:STRONGEST]
    for category in strongest:
        values = scored.posteriors[:, category]
        yield (
            names[category],
            [_heat(float(value)) for value in values],
            [""] * len(values),
            [f"{names[category]}: {value:.3f}" for value in values],
        )


def _trace_rows(
    scored: Scored, clip: str, k: int, seed: int, names: Sequence[str]
) -> Iterator[Line]:
    drawn = draw(scored, clip, Draws(k, 1, seed))[:, 0, :, 0]
    for category, _ in Counter(drawn.ravel().tolist()).most_common(STRONGEST):
        counts = (drawn == category).sum(axis=1)
        yield (
            f"drawn: {names[category]}",
            [_heat(0.8 * count / k) for count in counts],
            [str(count) if count else "" for count in counts],
            [f"{names[category]}: {count} of {k} draws" for count in counts],
        )


def _decision_row(
    name: str, scores: np.ndarray, labels: Sequence[str], right: Sequence[str]
) -> Line:
    scores = scores.astype(np.float32)
    best = scores.argmax(axis=1)
    said = [labels[i] for i in best]
    sure = [float(row[i] / max(row.sum(), 1e-6)) for row, i in zip(scores, best, strict=True)]
    colours = [
        f"fill:var(--{'right' if label in right else 'wrong'});opacity:{0.25 + 0.6 * share:.2f}"
        for label, share in zip(said, sure, strict=True)
    ]
    titles = [f"{name}: {label}, {share:.2f}" for label, share in zip(said, sure, strict=True)]
    return name, colours, said, titles


def _heat(share: float) -> str:
    return f"fill:rgba(var(--heat),{0.04 + 0.96 * min(1.0, share):.3f})"


def _spectrogram(samples: np.ndarray) -> str:
    """Return a PNG in base64: 0 to 8 kHz, 20 ms a column, 60 dB."""
    from matplotlib.image import imsave

    size, hop = 512, 320
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    db = 10 * np.log10(power[:, :256].reshape(len(power), 128, 2).mean(axis=2) + 1e-10)
    file = io.BytesIO()
    top = db.max()
    imsave(file, db.T[::-1], vmin=top - 60, vmax=top, cmap="magma", format="png")
    return base64.b64encode(file.getvalue()).decode()


def _ticks(low: float, high: float) -> list[float]:
    """Return at most eight round values from `low` to `high`."""
    return [float(each) for each in MaxNLocator(8).tick_values(low, high) if low <= each <= high]


def _powers(first: float, last: float, values: set[float]) -> list[float]:
    """Return where an axis from 2^first to 2^last is marked: at the values, where these are few."""
    if len(values) <= 8:
        return sorted(values)
    return [float(f"{2**at:.2g}") for at in np.linspace(first, last, 5)]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(1, room - 1)] + "…"
