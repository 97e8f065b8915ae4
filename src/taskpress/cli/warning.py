"""How the command line tells a warning."""

from __future__ import annotations

from typing import TextIO

import typer


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line on standard error, but for what only programmers can mend."""
    if not issubclass(category, (DeprecationWarning, FutureWarning)):
        typer.echo(f"taskpress: warning: {' '.join(str(message).split())}", err=True)
