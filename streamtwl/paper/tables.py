"""The paper's two tables in Markdown, and its curve: accuracy over K and over processor time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streamtwl.paper.runner import WHOLE

Row = dict[str, Any]


def metric_of(row: Row) -> str:
    """Return the name of a row's first metric."""
    return "mAP" if "mAP" in row else "accuracy"


def whole(figures: dict, data: str) -> list[Row]:
    """Return the rows of whole clips of a data set."""
    return [r for r in figures["rows"] if (r["data"], r["condition"]) == (data, WHOLE)]


def final(rows: Sequence[Row]) -> list[Row]:
    """Return each reasoner's row with the most samples, then the most traces, by backbone."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = row["reasoner"], row["backbone"]
        there = best.get(key)
        if there is None or (row["samples"], row["traces"]) > (there["samples"], there["traces"]):
            best[key] = row
    return [*best.values()]


def draws_of(row: Row) -> str:
    """Return K and M in a cell; empty where nothing is drawn."""
    if not row["samples"]:
        return ""
    return f"K = {row['samples']}" + (f", M = {row['traces']}" if row["traces"] > 1 else "")


def milliseconds(row: Row) -> str:
    """Return what the reasoner takes for a clip, in two digits."""
    rounded = float(f"{row['reasoner_ms']:.2g}")
    return f"{rounded:g}"


def percent(interval: dict, sign: str = "", factor: float = 100.0) -> str:
    """Return a mean with its bounds."""
    mean, low, high = (factor * interval[each] for each in ("mean", "low", "high"))
    digits = 1 if factor == 100 else 2
    return f"{mean:{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def about(figures: dict, data: str) -> str:
    """Return in words what a data set consists of, and how it was split."""
    of = figures["data"][data]
    text = (
        f"{of['tested']} test clips of {of['tested_sources']} recordings, {len(of['labels'])} "
        f"labels; folds tested: {', '.join(of['splits'])}"
    )
    if of["left_out"]:
        text += (
            f"; {of['left_out']} test clips are left out, as their recordings are also in training"
        )
    return text


def markdown(figures: dict) -> str:
    """Return all tables."""
    lines = ["# Thinking while listening, on these data", ""]
    lines += [
        "By `streamtwl paper`, after arXiv 2509.19676. Means over seeds; in brackets 95 % "
        "intervals (bootstrap over recordings, paired for differences). Times are of processor, "
        "reasoner only, for a clip.",
        "",
    ]
    for data in figures["data"]:
        rows = whole(figures, data)
        lines += [f"## {data}", "", about(figures, data) + ".", ""]
        if rows:
            lines += [*_backbones(figures, data, rows), "", *_samples(rows), *_traces(rows)]
            lines += _conditions(figures, data)
    lines += _not_run(figures)
    return "\n".join(lines).rstrip() + "\n"


def _backbones(figures: dict, data: str, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the first table: reasoners by backbones."""
    metric, baseline = metric_of(rows[0]), figures["baseline"]
    title = "mAP" if metric == "mAP" else "right, %"
    factor = 1.0 if metric == "mAP" else 100.0
    yield f"### Table 1: {title}, whole clips"
    yield ""
    extra = ["d-prime"] if metric == "mAP" else []
    columns = ["backbone", "reasoner", "draws", title, *extra, f"more than {baseline}"]
    columns += ["seeds", "clips", "ms"]
    yield f"| {' | '.join(columns)} |"
    yield "|" + " --- |" * len(columns)
    for row in final(rows):
        against = row["against_baseline"].get(metric)
        cells = [row["backbone"], row["reasoner"], draws_of(row), percent(row[metric], "", factor)]
        if extra:
            cells.append(percent(row["d-prime"], "", 1.0))
        cells += [percent(against, "+", factor) if against else ""]
        cells += [str(row["seeds"]), str(row["clips"]), milliseconds(row)]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    times = figures["backbone_ms"].get(data, {})
    each = "; ".join(f"{name} {ms:.0f} ms" for name, ms in times.items())
    yield f"The backbones themselves, for a clip: {each}."


def _samples(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the second table: K by reasoners that read samples, and their soft traces."""
    drawn = [row for row in rows if row["samples"] and row["traces"] == 1]
    if not drawn:
        return
    metric = metric_of(rows[0])
    factor = 1.0 if metric == "mAP" else 100.0
    columns = list(dict.fromkeys((row["backbone"], row["reasoner"]) for row in drawn))
    yield f"### Table 2: {metric} over K, samples of each patch"
    yield ""
    yield "| K | " + " | ".join(f"{backbone}: {name}" for backbone, name in columns) + " |"
    yield "|" + " --- |" * (len(columns) + 1)
    by_key = {(r["backbone"], r["reasoner"], r["samples"]): r for r in drawn}
    for k in sorted({row["samples"] for row in drawn}):
        found = [by_key.get((*column, k)) for column in columns]
        cells = [percent(r[metric], "", factor) if r else "" for r in found]
        yield f"| {k} | " + " | ".join(cells) + " |"
    soft = [soft_of(rows, *column) for column in columns]
    if any(soft):
        cells = [percent(r[metric], "", factor) if r else "" for r in soft]
        yield "| soft trace | " + " | ".join(cells) + " |"
    yield ""


def soft_of(rows: Sequence[Row], backbone: str, reasoner: str) -> Row | None:
    """Return the row of the soft trace that a reasoner's samples tend to."""
    names = {f"{reasoner}, soft trace"}
    if reasoner == "linear, counts of samples":
        names = {"linear, root of mean"}
    found = [r for r in rows if r["backbone"] == backbone and r["reasoner"] in names]
    return found[0] if found else None


def _traces(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a table over M, where there is more than one."""
    many = sorted({row["traces"] for row in rows if row["samples"]})
    if len(many) < 2:
        return
    metric = metric_of(rows[0])
    factor = 1.0 if metric == "mAP" else 100.0
    yield f"### {metric} over M, traces of K samples"
    yield ""
    yield "| backbone | reasoner | K | " + " | ".join(f"M = {m}" for m in many) + " |"
    yield "|" + " --- |" * (len(many) + 3)
    drawn = [row for row in rows if row["samples"]]
    by_key = {(r["backbone"], r["reasoner"], r["samples"], r["traces"]): r for r in drawn}
    for backbone, name, k in dict.fromkeys(key[:3] for key in by_key):
        found = [by_key[backbone, name, k, m] for m in many]
        cells = [percent(each[metric], "", factor) for each in found]
        yield f"| {backbone} | {name} | {k} | " + " | ".join(cells) + " |"
    yield ""


def _conditions(figures: dict, data: str) -> Iterator[str]:
    """Yield a table over the beginnings of clips and over noise, where these were tested."""
    mine = [row for row in figures["rows"] if row["data"] == data]
    conditions = list(dict.fromkeys(row["condition"] for row in mine))
    if len(conditions) < 2:
        return
    metric = metric_of(mine[0])
    factor = 1.0 if metric == "mAP" else 100.0
    yield f"### {metric} after so many patches, and in white noise"
    yield ""
    yield "| backbone | reasoner | draws | " + " | ".join(conditions) + " |"
    yield "|" + " --- |" * (len(conditions) + 3)
    keys = ("backbone", "reasoner", "samples", "traces", "condition")
    by_key = {tuple(row[key] for key in keys): row for row in mine}
    # the beginnings and the noise are read with few samples: the whole clip stands beside them so
    tested = [row for row in mine if row["condition"] == conditions[-1]]
    for row in tested:
        beside = [by_key.get((*(row[key] for key in keys[:4]), each)) for each in conditions]
        cells = [row["backbone"], row["reasoner"], draws_of(row)]
        cells += [percent(each[metric], "", factor) if each else "" for each in beside]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _not_run(figures: dict) -> Iterator[str]:
    if figures["not_run"]:
        yield "## Not run"
        yield ""
        yield "| data | backbone | reasoner | why | what would run it |"
        yield "|" + " --- |" * 5
    for each in figures["not_run"]:
        cells = [each[k] for k in ("data", "backbone", "reasoner", "reason", "command")]
        cells = [cell.replace("|", "\\|") for cell in cells]
        yield f"| {' | '.join(cells[:4])} | `{cells[4]}` |"


def curves(figures: dict, data: str) -> list[tuple[str, list[Row], Row | None]]:
    """Return (name, rows by K with one trace, the soft trace's) of each curve of a data set."""
    rows = whole(figures, data)
    drawn = [row for row in rows if row["samples"] and row["traces"] == 1]
    found = []
    for backbone, name in dict.fromkeys((row["backbone"], row["reasoner"]) for row in drawn):
        mine = [row for row in drawn if (row["backbone"], row["reasoner"]) == (backbone, name)]
        mine.sort(key=lambda row: row["samples"])
        found.append((f"{backbone}, {name}", mine, soft_of(rows, backbone, name)))
    return found


def plot(figures: dict, path: Path) -> None:
    """Draw each data set's curve over K, and over milliseconds, soft traces dashed."""
    from matplotlib.figure import Figure

    sets = [data for data in figures["data"] if curves(figures, data)]
    if not sets:
        path.unlink(missing_ok=True)
        return
    figure = Figure(figsize=(13, 4.6 * len(sets)), layout="constrained")
    axes = figure.subplots(len(sets), 2, squeeze=False, sharey="row")
    for (over_k, over_ms), data in zip(axes, sets, strict=True):
        for number, (name, rows, soft) in enumerate(curves(figures, data)):
            metric, colour = metric_of(rows[0]), f"C{number}"
            factor = 1 if metric == "mAP" else 100
            means = [factor * row[metric]["mean"] for row in rows]
            low, high = ([factor * row[metric][end] for row in rows] for end in ("low", "high"))
            backbone_ms = figures["backbone_ms"][data].get(rows[0]["backbone"], 0.0)
            for axis, x in (
                (over_k, [row["samples"] for row in rows]),
                (over_ms, [backbone_ms + row["reasoner_ms"] for row in rows]),
            ):
                axis.plot(x, means, marker="o", c=colour, label=name)
                axis.fill_between(x, low, high, color=colour, alpha=0.1)
                if soft is not None:
                    axis.axhline(factor * soft[metric]["mean"], ls="--", c=colour, lw=1)
        over_k.set_xscale("log", base=2)
        over_ms.set_xscale("log")
        over_k.set(title=data, xlabel="K, samples of each patch", ylabel=f"{metric}")
        over_ms.set(xlabel="processor ms a clip, backbone and reasoner (dashed: soft trace)")
        for axis in (over_k, over_ms):
            axis.grid(alpha=0.3)
        over_ms.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
