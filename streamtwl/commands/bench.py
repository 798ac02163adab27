"""`streamtwl bench ...`: research; its command line is loaded when it runs."""

import sys

import typer

from streamtwl.errors import UsageError

PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def bench(ctx: typer.Context) -> None:
    """Research: pre-training and training with every switch (needs the extra `train`).

    See `streamtwl bench --help`.
    """
    raise typer.Exit(_run(ctx.args))


def evaluate(ctx: typer.Context) -> None:
    """Say what there is in place of `evaluate`."""
    raise UsageError("`streamtwl evaluate` is `streamtwl paper` now: see `streamtwl paper --help`")


def pretrain(ctx: typer.Context) -> None:
    """Call `bench pretrain` by its old name."""
    raise typer.Exit(moved("pretrain", ["pretrain", *ctx.args]))


def moved(old: str, arguments: list[str]) -> int:
    """Run `bench` with arguments that were once `old`'s, and say so; return its exit code."""
    print(
        f"streamtwl: `streamtwl {old}` is deprecated: it is `streamtwl bench {arguments[0]}` now",
        file=sys.stderr,
    )
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    """Run `streamtwl bench ...`; return its exit code."""
    from streamtwl.bench import command_line

    code = command_line.app(arguments, prog_name="streamtwl bench", standalone_mode=False)
    return code if isinstance(code, int) else 0
