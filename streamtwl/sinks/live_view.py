"""The live view: what sounds right now, redrawn in place."""

import logging
from collections import deque
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streamtwl.messages import AnyMessage, Event, Label, Patch, Status
from streamtwl.sinks.lines import when
from streamtwl.stages import SAMPLE_RATE

REDRAWS_PER_S = 4
BAR = 24  # characters
QUIETEST_DBFS = -80.0
ROWS = 5  # of categories, and of events
TRACE = 6  # patches whose samples are shown
FEWER_ROWS = 2  # where several sources share the screen


@dataclass(slots=True)
class _Shown:
    """The newest messages of one source."""

    patch: Patch | None = None
    label: Label | None = None
    first: Label | None = None  # the first decision on the newest patch
    trace: deque[Patch] = field(default_factory=lambda: deque(maxlen=TRACE))
    status: Status | None = None
    since: int = 0  # position at which the label came into force
    open: dict[str, Event] = field(default_factory=dict)
    over: deque[Event] = field(default_factory=lambda: deque(maxlen=ROWS))


class LiveView:
    """One panel a source: level, decision, strongest categories, events, whether it keeps up."""

    gone = False
    every_s: float | None = 1 / REDRAWS_PER_S

    def __init__(self, endpoint: str) -> None:
        self._footer = f"publishing on {endpoint}   Ctrl-C ends"
        self._sources: dict[str, _Shown] = {}
        console = Console(force_terminal=True)  # also when it is gone, so that it shows
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=False,
            redirect_stdout=False,
            redirect_stderr=False,  # where it is said why the view cannot be shown
        )

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._footer = ""
        self.show()
        self._live.stop()

    def take(self, message: AnyMessage) -> None:
        """Note a message."""
        shown = self._sources.get(message.source)
        if shown is None:  # a new dict, since `show` may be going through the old one
            shown = _Shown()
            self._sources = {**self._sources, message.source: shown}
        if isinstance(message, Patch):
            shown.patch = message
            shown.trace.append(message)
        elif isinstance(message, Label):
            if not message.refinement:
                shown.first = message
            if shown.label is None or shown.label.label != message.label:
                shown.since = message.position
            shown.label = message
        elif isinstance(message, Status):
            shown.status = message
        elif isinstance(message, Event):
            shown.open = {id: event for id, event in shown.open.items() if id != message.id}
            shown.over = deque((e for e in shown.over if e.id != message.id), ROWS)
            if message.end is None:
                shown.open = {**shown.open, message.id: message}
            else:
                shown.over.append(message)

    def show(self) -> None:
        """Draw."""
        panels = [
            _panel(source, shown, ROWS if len(self._sources) == 1 else FEWER_ROWS)
            for source, shown in self._sources.items()
        ]
        self._live.update(Group(*panels, Text(self._footer, style="dim")), refresh=True)


class LogAbove(logging.Handler):
    """Log lines above the live view instead of through it."""

    def __init__(self, view: LiveView) -> None:
        super().__init__()
        self._console = view._live.console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        self._console.print(self.format(record), style="yellow", markup=False, highlight=False)


def _panel(source: str, shown: _Shown, rows: int) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=9, style="dim")
    table.add_column(min_width=60)
    table.add_row("level", _level(shown.patch))
    table.add_row("now", _decision(shown))
    if shown.label is not None and shown.label.traces:
        table.add_row("trace", _trace(shown))
        table.add_row("decided", _decided(shown))
    table.add_row("scores", _strongest(shown.patch, rows))
    table.add_row("sounding", _sounding(shown))
    table.add_row("before", _over(shown, rows))
    title = f"[bold]{escape(source)}[/bold] {when(shown.label) if shown.label else ''}"
    return Panel(table, title=title, title_align="left", subtitle=_health(shown.status))


def _level(patch: Patch | None) -> Text:
    if patch is None:
        return Text("waiting for sound", style="dim")
    share = min(1.0, max(0.0, 1 - patch.level_dbfs / QUIETEST_DBFS))
    return Text.assemble(_bar(share, "green"), f" {patch.level_dbfs:6.1f} dBFS")


def _decision(shown: _Shown) -> Text:
    label = shown.label
    if label is None:
        return Text("")
    held_s = (label.position - shown.since) / SAMPLE_RATE
    if label.label is None:
        return Text(f"no sound with a name, for {held_s:.0f} s", style="dim")
    return Text.assemble(
        (label.label, "bold cyan"), f"  {label.confidence:.2f}  for {held_s:.0f} s"
    )


def _trace(shown: _Shown) -> Text:
    """The trace as it grows: what was drawn most often for each of the last patches."""
    patches = [
        ", ".join(f"{each.label} {100 * each.score:.0f} %" for each in patch.drawn[:3])
        for patch in list(shown.trace)[::-1]
    ]
    return Text("\n".join(patches[:TRACE]), style="dim", overflow="ellipsis", no_wrap=True)


def _decided(shown: _Shown) -> Text:
    """The first decision and what refinement changed, from how many samples and traces."""
    first, label = shown.first, shown.label
    if first is None or label is None:
        return Text("")
    traces = f"{label.traces} trace{'s' if label.traces > 1 else ''}"
    read = f"{label.samples:,} samples in {traces}" if label.samples else "the soft trace"
    if not label.refinement:
        return Text(f"{_named(label)} at once, from {read}")
    again = f"{label.refinement} refinement{'s' if label.refinement > 1 else ''}"
    return Text(f"{_named(first)} → {_named(label)} after {again}, {read}")


def _named(label: Label) -> str:
    return f"{label.label or 'nothing'} {label.confidence:.2f}"


def _strongest(patch: Patch | None, rows: int) -> Group | Text:
    if patch is None:
        return Text("")
    return Group(
        *(
            Text.assemble(_bar(each.score, "cyan"), f" {each.score:.2f} {each.label}")
            for each in patch.top[:rows]
        )
    )


def _sounding(shown: _Shown) -> Text:
    label = shown.label
    names = [
        f"{event.label} ({(label.position - event.start) / SAMPLE_RATE if label else 0:.0f} s)"
        for event in shown.open.values()
    ]
    return Text(", ".join(names) or "-", style="bold" if names else "dim")


def _over(shown: _Shown, rows: int) -> Text:
    lines = [f"{when(event)}  {_event(event)}" for event in list(shown.over)[: -rows - 1 : -1]]
    return Text("\n".join(lines) or "-", style="dim" if not lines else "")


def _event(event: Event) -> str:
    if event.void:
        return f"{event.label}: retracted"
    revised = ", revised" if event.phase == "revised" else ""
    lasted_s = ((event.end or 0) - event.start) / SAMPLE_RATE
    return f"{event.label}, {lasted_s:.1f} s, peak {event.peak:.2f}{revised}"


def _health(status: Status | None) -> str:
    if status is None:
        return "opening"
    if status.state in ("lost", "stalled", "silent"):
        return f"[bold red]{status.state}: {escape(status.error or '')}[/bold red]"
    busy = status.real_time_factor
    pace = f"keeps up, {100 * busy:.1f} % busy" if busy < 1 else "[bold red]too slow[/bold red]"
    lost = {
        "s of sound": round(status.dropped_samples / SAMPLE_RATE, 1),
        "windows": status.dropped_windows,
        "messages": status.dropped_messages,
        "bad samples": status.bad_samples,
        "overflows": status.overflows,
    }
    parts = [f"{count} {what} lost" for what, count in lost.items() if count]
    parts += [f"{status.late_hops} late"] if status.late_hops else []
    parts += ["clipping: turn the gain down"] if status.clipped_samples else []
    parts += ["not in the journal"] if status.journal else []
    trouble = f"  [red]{', '.join(parts)}[/red]" if parts else ""
    return f"{status.state}  {pace}, {status.memory_mb:.0f} MB{trouble}"


def _bar(share: float, style: str) -> Text:
    filled = round(share * BAR)
    return Text.assemble(("━" * filled, style), ("─" * (BAR - filled), "dim"))
