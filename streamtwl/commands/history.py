"""`streamtwl history`: what the journal holds."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamtwl.errors import UsageError

if TYPE_CHECKING:
    from streamtwl.history import Wanted

Journalled = StrEnum("Journalled", ["event", "label", "status", "level"])


def history(
    since: Annotated[
        str | None,
        typer.Option(
            help="Only from then on: 30m, 2h, 7d or 2w ago; 14:30 today; 2026-11-24, or "
            "'2026-11-24 14:30'. (default: all that is kept)",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only up to then, in the same forms. (default: now)")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Only this label; * and ? as in file names. Repeat it for several."),
    ] = None,
    source: Annotated[str, typer.Option(help="Only this source. (default: all)")] = "",
    kind: Annotated[
        Journalled,
        typer.Option(
            help="event: a line a sound, with its onset, seconds and peak confidence; label: where "
            "the decision changed; status: where the state did; level: how loud each minute was."
        ),
    ] = Journalled.event,
    hourly: Annotated[
        bool, typer.Option("--hourly", help="How often and how long each label sounded, by hour.")
    ] = False,
    daily: Annotated[bool, typer.Option("--daily", help="The same, by day.")] = False,
    ids: Annotated[
        bool,
        typer.Option("--ids", help="With each event's id, for `review` and `teach --from-event`."),
    ] = False,
    marked: Annotated[
        bool,
        typer.Option(
            "--marked",
            help="How often each label was right, of the events that you marked with `review`.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="The messages whole, or the counts: a JSON object a line."),
    ] = False,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="The journal that `streamtwl listen` writes, or the OUT.parquet of `label`. "
            "(default: journal.sqlite in the user's state folder, or in $STREAMTWL_STATE)",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the sounds in the journal, also while `streamtwl listen` writes it.

    Times are local, with their offset from UTC; --since and --until take one too.

    The dogs of the last two hours: streamtwl history --since 2h --label 'Dog*'

    What sounded how often, day by day: streamtwl history --daily
    """
    from streamtwl import history
    from streamtwl.sinks.journal_file import default_path
    from streamtwl.sinks.standard_output import print_line

    wanted = history.query(kind.value, source, label or [], since, until)
    period = "hour" if hourly else "day" if daily else None
    if period and kind != Journalled.event:
        raise UsageError("--hourly and --daily count events: leave --kind out")
    if marked:
        _print_marked(wanted, as_json)
        return
    path = journal or default_path()
    line = None
    for line in history.lines(path, wanted, period, as_json, ids):
        if not print_line(line):
            return
    if line is None:
        why = history.why_nothing(path, wanted)
        print(f"streamtwl: {path} holds nothing of the kind{why and f': {why}'}", file=sys.stderr)


def _print_marked(wanted: "Wanted", as_json: bool) -> None:
    """Print the precision of each label that is wanted, as marked, with the number of marks."""
    import msgspec

    from streamtwl.label_filter import fits
    from streamtwl.marks import marking
    from streamtwl.marks.store import Marks
    from streamtwl.sinks.standard_output import print_line

    marks = [
        mark
        for mark in Marks().all()
        if wanted.since <= mark.began_at <= wanted.until
        and wanted.source in ("*", mark.source)
        and (not wanted.labels or fits(mark.label, wanted.labels))
    ]
    if not marks:
        print("streamtwl: no event of the kind is marked: `streamtwl review`", file=sys.stderr)
    for each in marking.precisions(marks):
        line = (
            f"{each.right / each.marked:>5.0%}  {each.right:>4} of {each.marked:>4}  {each.label}"
        )
        if not print_line(msgspec.json.encode(each).decode() if as_json else line):
            return
