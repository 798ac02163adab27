"""`streamtwl review`: events to be marked, one after the other, by one key each."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from streamtwl.errors import UsageError

Since = Annotated[
    str | None,
    typer.Option(help="Only from then on, as in `history`. (default: all)", show_default=False),
]
Label = Annotated[
    list[str] | None,
    typer.Option(help="Only this label; * and ? as in file names. Repeat it for several."),
]
Source = Annotated[str, typer.Option(help="Only this source. (default: all)")]
Event = Annotated[
    str | None,
    typer.Argument(
        metavar="EVENT",
        help="Only this one, by its id: `history --ids` shows them. (default: all that have no "
        "mark, the newest first)",
        show_default=False,
    ),
]
List = Annotated[
    bool, typer.Option("--list", help="Print the marks, and what is learnt from them.")
]
Undo = Annotated[
    str | None,
    typer.Option(
        help="Take the mark on an event back, and what was learnt from it.", metavar="EVENT"
    ),
]
Mute = Annotated[bool, typer.Option("--mute", help="Show clips, and play none.")]
Journal = Annotated[
    Path | None,
    typer.Option(
        help="The journal that `streamtwl listen` writes. (default: as of `history`)",
        show_default=False,
    ),
]


def review(
    event: Event = None,
    since: Since = None,
    label: Label = None,
    source: Source = "",
    as_list: List = False,
    undo: Undo = None,
    mute: Mute = False,
    journal: Journal = None,
) -> None:
    """Say of events whether they were right: it is learnt from at once, also by a running `listen`.

    It plays the event's clip (`listen --clips FOLDER`) and shows it; one key marks it: r right, w
    wrong, i "it was ...", s skip, p play again, u undo, q quit. Through a pipe it takes a line
    each, as `w` or `i kettle`.

    What is marked wrong lowers its label where it sounds like this again. What it was is taught by
    its clip, as by `teach`. Events without a clip can be marked as well.
    """
    from streamtwl import history
    from streamtwl.marks import marking, reviewing
    from streamtwl.marks.store import Marks
    from streamtwl.sinks.journal_file import default_path

    if as_list:
        reviewing.show(Marks().all())
        return
    if undo is not None:
        mark = marking.unmark(undo)
        print(f"no longer marked: {mark.label} {mark.verdict}")
        reviewing.reload_listeners()
        return
    path = journal or default_path()
    if event is not None:
        if since or label or source:
            raise UsageError("an event is named by its id alone: leave the other options out")
        events = [marking.find(path, event)]
    else:
        wanted = history.query("event", source, label or [], since, None)
        events = marking.unmarked(path, wanted, Marks())
        if not events and (why := history.why_nothing(path, wanted)):
            print(f"streamtwl: {why}", file=sys.stderr)
    reviewing.review(path, events, mute)
