"""The command line: which commands there are, and how it ends. What each does: `commands/`."""

import contextlib
import inspect
import itertools
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import streamtwl
from streamtwl.commands import (
    alerts,
    bench,
    devices,
    history,
    keys,
    label,
    labels,
    listen,
    models,
    paper,
    review,
    schema,
    serve,
    sounds,
    subscribe,
    teach,
    train,
)
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.file_names import one_line
from streamtwl.sinks import standard_output

app = typer.Typer(
    name="streamtwl",
    help="Listens to live sound, names what it recognises, and publishes it to other programs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(devices.devices)  # in the order of --help
app.command(cls=listen.Command)(listen.listen)
app.command()(subscribe.subscribe)
app.command(cls=serve.Command)(serve.serve)
app.add_typer(alerts.app, name="alerts")
app.command()(history.history)
app.command()(review.review)
app.command()(schema.schema)
app.command()(label.label)
app.command(cls=teach.Command)(teach.teach)
app.add_typer(sounds.app, name="sounds")
app.command(cls=train.Command)(train.train)
app.command(epilog=paper.EXAMPLE)(paper.paper)
app.command(context_settings=bench.PASSED_ON)(bench.bench)
app.command(context_settings=bench.PASSED_ON, hidden=True)(bench.evaluate)
app.command(context_settings=bench.PASSED_ON, hidden=True)(bench.pretrain)
app.command()(labels.labels)
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")


def _unwrapped(text: str) -> str:
    """Return a docstring with each paragraph on one line, for the terminal to wrap; not code."""
    return "\n\n".join(
        paragraph if paragraph.startswith((" ", "\b")) else paragraph.replace("\n", " ")
        for paragraph in text.split("\n\n")
    )


def _unwrap(commands: typer.Typer) -> None:
    """Unwrap the help of every command, those of groups too."""
    for command in commands.registered_commands:
        command.help = _unwrapped(command.help or inspect.getdoc(command.callback) or "")
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _unwrap(group.typer_instance)


_unwrap(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"streamtwl {streamtwl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> None:
    """Run the command line; an error is one line on standard error and an exit code."""
    standard_output.take_over()
    try:
        _check_empty(["streamtwl", *sys.argv[1:]])
        code = app(standalone_mode=False)
        standard_output.flush_stdout()
    except StreamtwlError as error:
        code = _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        code = _refuse(error)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of standard output has gone
        code = 1
    except SystemExit as ended:  # typer's own for that
        code = ended.code
    with contextlib.suppress(BrokenPipeError, StreamtwlError):  # what failed has been said
        standard_output.flush_stdout()
    sys.exit(code if isinstance(code, int) else 0)


def _check_empty(arguments: Sequence[str]) -> None:
    """Raise UsageError for an empty argument: a path of no name would be the working folder."""
    for before, argument in itertools.pairwise(arguments):
        option, _, value = argument.partition("=")
        if argument.startswith("--") and "=" in argument and not value:
            before, argument = option, value
        if not argument and before != "--replay-bind":  # which takes '' for none
            raise UsageError(f"empty argument after {before}: give a value or leave it out")


def _refuse(error: typer.TyperException) -> int:
    """Say what is wrong with the options; return the exit code."""
    if type(error).__name__ != "NoArgsIsHelpError":  # which has shown the help: no public class
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "streamtwl"
        problem = error.format_message().rstrip(".")
        _fail(f"{problem}: see `{command} --help`", UsageError.exit_code)
    return UsageError.exit_code


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # standard error may be full or gone as well
        print(f"streamtwl: {one_line(message)}", file=sys.stderr)
    return code
