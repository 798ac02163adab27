"""`streamtwl alerts`: try rules on what sounded."""

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
    from streamtwl.services.alerts.engine import Engine
    from streamtwl.services.alerts.rules import load
    from streamtwl.sinks.journal_file import default_path
    from streamtwl.sinks.standard_output import print_line
    from streamtwl.unrolling import unrolled

    start_logging(log_level.value)
    engine = Engine(load(rules).rules)
    wanted = history.query("*", "", [], since, until)
    summaries = history.messages(journal or default_path(), wanted)
    for message in (each for summary in summaries for each in unrolled(summary)):
        for firing in engine.take(message):
            if not print_line(f"{firing.rule}: {firing.text}"):
                return
