"""The `taskpress` command: one thin file per subcommand, one place where errors become one line."""

from __future__ import annotations

import signal
import sys
import warnings
from typing import Annotated

import typer

from taskpress.cli.allocation import allocation
from taskpress.cli.anchor import anchor
from taskpress.cli.compare import compare
from taskpress.cli.decode import decode
from taskpress.cli.demo import demo
from taskpress.cli.encode import encode
from taskpress.cli.evaluate import evaluate
from taskpress.cli.evaluate_branch import evaluate_branch
from taskpress.cli.export import export
from taskpress.cli.finish import finish
from taskpress.cli.gradient_signal import gradient_signal
from taskpress.cli.gradients import gradients
from taskpress.cli.info import info
from taskpress.cli.table import table
from taskpress.cli.train import train
from taskpress.cli.train_recognizer import train_recognizer
from taskpress.cli.warning import show_warning
from taskpress.errors import ConfigError, TaskPressError
from taskpress.version import __version__

app = typer.Typer(
    help="Learned image compression for recognition: the fewest bits a detector can work from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PANELS = {
    "Code pictures": (demo, encode, decode, info),
    "Train codecs": (train, finish),
    "Measure codecs": (evaluate, anchor, compare, table, allocation),
    "Look into a training": (gradients, gradient_signal, evaluate_branch),
    "Make what is shipped": (export, train_recognizer),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


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
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    warnings.showwarning = show_warning
    # As an exception it lets what is half-written be cleared away.
    before = {
        ends: signal.signal(ends, lambda number, _: sys.exit(128 + number))
        for ends in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
        if ends is not None and signal.getsignal(ends) is not signal.SIG_IGN  # as under nohup
    }
    try:
        app(args=arguments)
    except (TaskPressError, OSError) as error:
        if debug:
            raise
        typer.echo(f"taskpress: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except ModuleNotFoundError as error:
        if debug or not error.name or error.name.startswith("taskpress"):
            raise
        typer.echo(
            f"taskpress: {error.name} is not installed; to train and measure takes more packages than to "
            "encode and decode: pip install 'taskpress[train]', or '.[train]' in its folder",
            err=True,
        )
        raise SystemExit(1) from None
    finally:
        for ends, handler in before.items():
            signal.signal(ends, handler)


if __name__ == "__main__":
    main()
