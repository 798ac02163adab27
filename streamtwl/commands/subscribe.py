"""`streamtwl subscribe`: what a listening streamtwl publishes, as lines."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamtwl.commands.options import ClientKey, Level, LogLevel, ServerKey, start_logging

if TYPE_CHECKING:
    from streamtwl.client import Subscription

Kind = StrEnum("Kind", ["hello", "patch", "label", "event", "status", "level"])


def subscribe(
    connect: Annotated[
        str, typer.Option(help="ZeroMQ endpoint of a listening streamtwl.")
    ] = "tcp://127.0.0.1:5577",
    kind: Annotated[
        list[Kind] | None,
        typer.Option(
            help="Only this kind of message. Repeat it for several. (default: all)",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this source. Repeat it for several. (default: all)", show_default=False
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Only labels and events of this name; * and ? as in file names. Repeat it for "
            "several. (default: all)",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Remember in this file what was printed, and go on there the next time, with what "
            "the publisher's journal has of the time between.",
            show_default=False,
        ),
    ] = None,
    server_key: ServerKey = None,
    key: ClientKey = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the messages whole, one JSON object a line.")
    ] = False,
    log_level: LogLevel = Level.warning,
) -> None:
    """Print what a listening streamtwl publishes, until Ctrl-C.

    What was missed on the way is requested again and printed in its place.
    """
    import streamtwl

    start_logging(log_level.value)
    kinds = [each.value for each in kind or []]
    _print_messages(
        streamtwl.subscribe(
            connect,
            kinds,
            source or [],
            label or [],
            state=state,
            server_key=server_key,
            key=key,
        ),
        as_json,
    )


def _print_messages(subscription: "Subscription", as_json: bool) -> None:
    """Print what arrives, until a signal ends it or its reader has gone."""
    from streamtwl.messages import encode
    from streamtwl.signals import stop_requests
    from streamtwl.sinks.lines import Plain
    from streamtwl.sinks.standard_output import print_line

    plain = Plain()
    with subscription, stop_requests() as stop_requested:
        while True:
            message = subscription.receive(0.1)  # the one before has been printed
            if stop_requested():
                return
            if message is not None:
                line = encode(message, "json").decode() if as_json else plain.line(message)
                if line and not print_line(line):
                    return
