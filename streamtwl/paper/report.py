"""One page to look at: tables, curves, confusion matrices, and single clips over time.

Everything is in the page itself: it links to nothing and loads nothing.
"""

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from streamtwl.errors import SinkError
from streamtwl.paper import drawing, tables
from streamtwl.paper.experiment import Results
from streamtwl.paper.tables import Row

HERE = Path(__file__).parent


def write(results: Results, path: Path) -> None:
    """Write the page; raises SinkError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(page(results), encoding="utf-8")
        partial.rename(path)
    except OSError as error:
        raise SinkError(f"--report {path}: {error.strerror}: choose another file") from None


def page(results: Results) -> str:
    """Return the page."""
    figures = results.figures
    links = "".join(f'<a href="#d{i}">{escape(n)}</a>' for i, n in enumerate(figures["data"]))
    if figures["not_run"]:
        links += '<a href="#not-run">Not run</a>'
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,"><title>Thinking while listening</title>',
        f"<style>{(HERE / 'report.css').read_text()}</style></head><body><main>",
        "<h1>Thinking while listening, on these data</h1>",
        f'<p class="soft">streamtwl {escape(figures["version"])}, <code>streamtwl paper</code>, '
        "after arXiv 2509.19676. Figures are means over seeds; brackets and bands are 95 % "
        "intervals, by bootstrap over recordings, paired for differences.</p>",
        f"<nav>{links}</nav>",
    ]
    for number, data in enumerate(figures["data"]):
        parts += _data_set(results, data, number)
    if figures["not_run"]:
        parts += _not_run(figures["not_run"])
    parts.append(f"<script>{(HERE / 'report.js').read_text()}</script></main></body></html>")
    return "\n".join(parts)


def _data_set(results: Results, data: str, number: int) -> Iterator[str]:
    figures = results.figures
    rows = tables.whole(figures, data)
    yield f'<h2 id="d{number}">{escape(data)}</h2>'
    yield f'<p class="soft">{escape(tables.about(figures, data))}.</p>'
    if not rows:
        yield "<p>Nothing was run on it.</p>"
        return
    yield "<h3>Backbones and reasoners, whole clips</h3>"
    yield _first_table(figures, data, rows)
    curves = tables.curves(figures, data)
    if curves:
        yield "<h3>More samples</h3>"
        yield _curves(figures, data, curves)
        yield _second_table(curves)
    matrices = [each for each in figures["confusion"] if each["data"] == data]
    if matrices:
        yield "<h3>What is taken for what</h3>"
        yield _confusion(figures["data"][data]["labels"], matrices, number)
    clips = list(drawing.clips(results, data))
    if clips:
        yield "<h3>Single clips over time</h3>"
        yield (
            '<p class="soft">A column is one window, drawn over its last hop: the posterior of '
            "its strongest categories, how often each was drawn into the trace, and what each "
            "reasoner says after it, having read all windows up to there. Green is the clip's own "
            "label; the fuller the colour, the surer.</p>"
        )
        yield from (f'<div class="card">{clip}</div>' for clip in clips)


def _first_table(figures: dict, data: str, rows: Sequence[Row]) -> str:
    metric, baseline = tables.metric_of(rows[0]), figures["baseline"]
    factor = _factor(metric)
    shown = sorted(tables.final(rows), key=lambda row: list(figures["data"]).index(row["data"]))
    heads = ["backbone", "reasoner", "draws", _title(metric), "", f"more than {baseline}"]
    heads += ["d-prime"] if metric == "mAP" else []
    heads += ["ms a clip"]
    lines = ["<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    low = min(row[metric]["low"] for row in shown)
    high = max(row[metric]["high"] for row in shown)
    for row in shown:
        against = row["against_baseline"].get(metric)
        cells = [escape(row["backbone"]), escape(row["reasoner"]), tables.draws_of(row)]
        cells += [tables.percent(row[metric], "", factor), drawing.whisker(row[metric], low, high)]
        cells += [tables.percent(against, "+", factor) if against else ""]
        cells += [tables.percent(row["d-prime"], "", 1.0)] if metric == "mAP" else []
        cells += [tables.milliseconds(row)]
        kind = ' class="base"' if row["reasoner"] == baseline else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    times = figures["backbone_ms"].get(data, {})
    each = "; ".join(f"{escape(name)} {ms:.0f} ms" for name, ms in times.items())
    return (
        f'<div class="card"><table>{"".join(lines)}</table></div><p class="soft">ms: processor '
        f"time of the reasoner. The backbones themselves, for a clip: {each}.</p>"
    )


def _curves(figures: dict, data: str, curves: Sequence[tuple[str, list[Row], Row | None]]) -> str:
    metric = tables.metric_of(curves[0][1][0])
    times = figures["backbone_ms"].get(data, {})
    over_k = drawing.chart(curves, metric, lambda row: row["samples"], "K, samples of each patch")
    over_ms = drawing.chart(
        curves,
        metric,
        lambda row: times.get(row["backbone"], 0.0) + row["reasoner_ms"],
        "processor ms a clip, backbone and reasoner",
    )
    names = "".join(
        f'<span><i style="background:var(--c{i % drawing.COLOURS})"></i>{escape(name)}</span>'
        for i, (name, _, _) in enumerate(curves)
    )
    return (
        f'<div class="two"><div class="card">{over_k}</div><div class="card">{over_ms}</div></div>'
        f'<div class="legend">{names}<span class="soft">dashed: the soft trace</span></div>'
    )


def _second_table(curves: Sequence[tuple[str, list[Row], Row | None]]) -> str:
    metric = tables.metric_of(curves[0][1][0])
    ks = sorted({row["samples"] for _, rows, _ in curves for row in rows})
    heads = ["", *(f"K = {k}" for k in ks), "soft trace"]
    lines = ["<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"]
    for name, rows, soft in curves:
        by_k = {row["samples"]: row for row in rows}
        each = [by_k.get(k) for k in ks] + [soft]
        cells = [tables.percent(row[metric], "", _factor(metric)) if row else "" for row in each]
        lines.append(
            f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        )
    return f'<div class="card"><table>{"".join(lines)}</table></div>'


def _confusion(labels: Sequence[str], matrices: Sequence[dict[str, Any]], number: int) -> str:
    choices = "".join(
        f"<option>{escape(each['backbone'])}, {escape(each['reasoner'])}</option>"
        for each in matrices
    )
    content = {"labels": labels, "matrices": [{"counts": each["counts"]} for each in matrices]}
    inline = json.dumps(content).replace("<", "\\u003c")
    return (
        f'<script type="application/json" id="m{number}">{inline}</script><div class="card">'
        f'<select data-of="m{number}" aria-label="reasoner">{choices}</select>'
        '<table class="matrix"></table><p class="soft">Rows: what it is. Columns: what it was '
        "named. Clips, a mean over seeds.</p></div>"
    )


def _not_run(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    yield '<h2 id="not-run">Not run</h2><div class="card"><table>'
    heads = ("data", "backbone", "reasoner", "why", "what would run it")
    yield "<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for row in rows:
        cells = [escape(row[key]) for key in ("data", "backbone", "reasoner", "reason")]
        cells.append(f"<code>{escape(row['command'])}</code>")
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table></div>"


def _factor(metric: str) -> float:
    return 1.0 if metric == "mAP" else 100.0


def _title(metric: str) -> str:
    return metric if metric == "mAP" else "right, %"
