"""`streamtwl serve`: a listener's events on a web page, over MQTT, as alerts, in Prometheus."""

import itertools
import logging
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from streamtwl.commands.options import ClientKey, Level, LogLevel, ServerKey, start_logging
from streamtwl.errors import UsageError

ADDRESSES = {"--web": "127.0.0.1:8765", "--metrics": "127.0.0.1:9765"}  # where none is given
_ADDRESS = re.compile(r"(?!mic:)(\[[0-9a-fA-F:]+\]:|[\w.*-]+:)?[0-9]+")

Mqtt = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="An MQTT broker to publish events and states to, for Home Assistant and others: "
        "mqtt://user@host:1883 or mqtts://. Its password is in $STREAMTWL_MQTT_PASSWORD, or in "
        "the file of --mqtt-password-file. (docs/reach.md)",
        show_default=False,
    ),
]
MqttLabels = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Labels that get a sensor of their own in Home Assistant, separated by commas, as "
        "'Doorbell, Dog'. (default: the pipeline's, none)",
        show_default=False,
    ),
]
MqttPasswordFile = Annotated[
    Path | None,
    typer.Option(help="A file whose first line is the password of --mqtt.", show_default=False),
]
Web = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="A web page of what sounds, at [HOST:]PORT. (without an address: "
        f"{ADDRESSES['--web']}, for this machine only; docs/web.md)",
        show_default=False,
    ),
]
Alerts = Annotated[
    Path | None,
    typer.Option(
        metavar="RULES.toml",
        help="Notifications, webhooks and commands: a file of rules. (docs/reach.md)",
        show_default=False,
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Figures for Prometheus, under /metrics at [HOST:]PORT. (without an address: "
        f"{ADDRESSES['--metrics']}, for this machine only; docs/reach.md)",
        show_default=False,
    ),
]


class Command(TyperCommand):
    """A command whose --web and --metrics need no value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments as typer does, with the default address where none follows."""
        return super().parse_args(ctx, list(with_addresses(args)))


def with_addresses(arguments: list[str]) -> list[str]:
    """Return command-line arguments with an address after each option that may lack one."""
    given = []
    for argument, following in itertools.pairwise([*arguments, ""]):
        given.append(argument)
        if argument in ADDRESSES and not _ADDRESS.fullmatch(following):
            given.append(ADDRESSES[argument])
    return given


def split(listed: str) -> list[str]:
    """Split a list of labels at its commas; AudioSet's own names have commas too, and stay whole.

    Others may be taught ones, which only the listener knows.
    """
    from streamtwl.ontology import categories, everyday

    known = {name.lower() for name in [*categories(), *everyday()]}
    pieces, names = [piece.strip() for piece in listed.split(",")], []
    while pieces:
        lengths = range(len(pieces), 1, -1)
        taken = next((n for n in lengths if ", ".join(pieces[:n]).lower() in known), 1)
        names.append(", ".join(pieces[:taken]))
        del pieces[:taken]
    return [name for name in dict.fromkeys(names) if name]


def changes(
    mqtt: str | None,
    mqtt_labels: str | None,
    mqtt_password_file: Path | None,
    web: str | None,
    alerts: Path | None,
    metrics: str | None,
) -> dict[str, Any]:
    """Return what these options change in a pipeline's settings."""
    return {
        "services.mqtt.url": mqtt,
        "services.mqtt.labels": mqtt_labels and split(mqtt_labels),
        "services.mqtt.password_file": mqtt_password_file and str(mqtt_password_file),
        "services.web.address": web,
        "services.alerts.rules": alerts and str(alerts),
        "services.metrics.address": metrics,
    }


def check(changed: dict[str, Any], url: str) -> None:
    """Raise UsageError for options of --mqtt where there is no broker."""
    for name in ("labels", "password_file"):
        if changed.get(f"services.mqtt.{name}") and not url:
            option = f"--mqtt-{name.replace('_', '-')}"
            raise UsageError(f"{option} needs a broker: --mqtt mqtt://host")


def serve(
    connect: Annotated[
        str, typer.Option(help="ZeroMQ endpoint of a listening streamtwl.")
    ] = "tcp://127.0.0.1:5577",
    mqtt: Mqtt = None,
    mqtt_labels: MqttLabels = None,
    mqtt_password_file: MqttPasswordFile = None,
    web: Web = None,
    alerts: Alerts = None,
    metrics: Metrics = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(
            help="A pipeline file (.toml), of which only \\[services] is used.", show_default=False
        ),
    ] = None,
    server_key: ServerKey = None,
    key: ClientKey = None,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
    log_level: LogLevel = Level.warning,
) -> None:
    """Bring a listening streamtwl's events to where they are used, until Ctrl-C.

    It subscribes as any other program does, from this machine or another. `listen` takes the same
    options, and then runs it by itself.
    """
    from streamtwl import config
    from streamtwl.services import choice, server
    from streamtwl.services.service import Feed

    if child:  # its listener says when
        logging.basicConfig(level=log_level.value.upper(), format="%(message)s")
        server.run_as_child(sys.stdin.buffer)
        return
    start_logging(log_level.value)
    settings = config.load(pipeline) if pipeline else config.Settings()
    wanted = changes(mqtt, mqtt_labels, mqtt_password_file, web, alerts, metrics)
    given = {name: value for name, value in wanted.items() if value is not None}
    settings = config.override(settings, given)
    check(given, settings.services.mqtt.url)
    services = choice.make(settings.services)
    if not services:
        raise UsageError("nothing to serve: use --mqtt, --web, --alerts or --metrics")
    server.run(services, Feed(connect, server_key, key))
