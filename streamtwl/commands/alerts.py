"""`streamtwl alerts`: try rules on what sounded."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from streamtwl.commands.options import Level, LogLevel, start_logging

app = typer.Typer(help="Rules of `listen --alerts`.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Rules of `listen --alerts`."""


@app.command("test")
def try_rules(
    rules: Annotated[Path, typer.Argument(metavar="RULES.toml", help="The file of rules.")],
    since: Annotated[str, typer.Option(help="The first moment: 30m, 7d, 14:30, a date.")] = "7d",
    until: Annotated[
        str | None, typer.Option(help="The last moment. (default: now)", show_default=False)
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(help="(default: the one of `streamtwl listen`)", show_default=False),
    ] = None,
    log_level: LogLevel = Level.warning,
) -> None:
    """Print when the rules would have applied, from the journal; nothing is sent."""
    from streamtwl import history
    from streamtwl.messages import Event
    from streamtwl.services.alerts import trial
    from streamtwl.services.alerts.engine import Engine
    from streamtwl.services.alerts.rules import load
    from streamtwl.sinks.journal_file import default_path
    from streamtwl.sinks.standard_output import print_line

    start_logging(log_level.value)
    loaded, path = load(rules, serving=False), journal or default_path()
    for problem in trial.problems(loaded, path):
        print(f"streamtwl: {problem}", file=sys.stderr)
    engine, fired, events = Engine(loaded.rules), 0, 0
    wanted = history.query("*", "", [], since, until)
    for message in trial.in_order(history.messages(path, wanted)):
        events += isinstance(message, Event) and message.phase == "onset"
        for firing in engine.take(message):
            fired += 1
            at = history.local(firing.at).isoformat(" ", "seconds")
            if not print_line(f"{at}  {firing.source:<10} {firing.rule}: {firing.text}"):
                return
    if not fired:
        when = history.local(wanted.since).isoformat(" ", "minutes")
        print(f"streamtwl: no rule would have acted: {events} events since {when}", file=sys.stderr)
