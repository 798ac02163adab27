"""`streamtwl subscribe`: what a listening streamtwl publishes, as lines."""

import contextlib
import itertools
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamtwl.commands.options import ClientKey, Level, LogLevel, ServerKey, start_logging
from streamtwl.errors import UsageError

if TYPE_CHECKING:
    from streamtwl.client import Subscription

CONNECT = "tcp://127.0.0.1:5577"
IN_A_ROW = 1000  # messages of one publisher, before those of another

Kind = StrEnum("Kind", ["hello", "patch", "label", "event", "status", "level"])


def subscribe(
    connect: Annotated[
        list[str] | None,
        typer.Option(
            help="ZeroMQ endpoint of a listening streamtwl. Repeat it for several, as for "
            "shards. (default: tcp://127.0.0.1:5577)",
            show_default=False,
        ),
    ] = None,
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
    endpoints = list(dict.fromkeys(connect or [CONNECT]))
    if state is not None and len(endpoints) > 1:
        raise UsageError("--state is of one publisher: name one --connect with it")
    with contextlib.ExitStack() as opened:
        subscriptions = [
            opened.enter_context(
                streamtwl.subscribe(
                    endpoint,
                    kinds,
                    source or [],
                    label or [],
                    state=state,
                    server_key=server_key,
                    key=key,
                )
            )
            for endpoint in endpoints
        ]
        _print_messages(subscriptions, as_json)


def _print_messages(subscriptions: "Sequence[Subscription]", as_json: bool) -> None:
    """Print what arrives, until a signal ends it or its reader has gone."""
    from streamtwl.messages import encode
    from streamtwl.signals import stop_requests
    from streamtwl.sinks.lines import Plain
    from streamtwl.sinks.standard_output import print_line

    plain = Plain()
    wait_s = 0.1 / len(subscriptions)
    with stop_requests() as stop_requested:
        for subscription in itertools.cycle(subscriptions):
            message = subscription.receive(wait_s)  # the one before has been printed
            in_a_row = 0
            while message is not None and not stop_requested():
                line = encode(message, "json").decode() if as_json else plain.line(message)
                if line and not print_line(line):
                    return
                in_a_row += 1  # the others have their turn, too
                message = subscription.receive(0) if in_a_row < IN_A_ROW else None
            if stop_requested():
                return
