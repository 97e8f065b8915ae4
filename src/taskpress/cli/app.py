"""The `taskpress` command: one thin file per subcommand, one place where errors become one line."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from taskpress.cli.train import train
from taskpress.coding.errors import TaskPressError
from taskpress.version import __version__

app = typer.Typer(
    help="Learned image compression for recognition: the fewest bits from which a detector still sees everything.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train,):
    app.command()(command)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"taskpress {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""


def main() -> None:
    """Entry point: exit code 0 ok, 1 failed, 2 misuse; one line on standard error unless --debug is given."""
    debug = "--debug" in sys.argv
    warnings.showwarning = _show_warning
    try:
        app()
    except TaskPressError as error:
        if debug:
            raise
        _complain(str(error), error)
    except KeyboardInterrupt:
        _complain("interrupted", None, code=130)


def _complain(message: str, error: TaskPressError | None, code: int = 1) -> None:
    from taskpress.coding.errors import ConfigError

    typer.echo(f"taskpress: {' '.join(message.split())}", err=True)
    raise SystemExit(2 if isinstance(error, ConfigError) else code)


def _show_warning(message: Warning | str, *_: object) -> None:
    typer.echo(f"taskpress: warning: {' '.join(str(message).split())}", err=True)


if __name__ == "__main__":
    main()
