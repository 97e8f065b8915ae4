"""`-`: standard input in place of a file that is read, standard output in place of one that is written."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from taskpress.coding.files import atomic_write
from taskpress.errors import ConfigError, TaskPressError

STANDARD = Path("-")
"""(A file that is called so is given by its whole path.)"""


def called(path: Path, stream: str = "standard input") -> str:
    """How a file is called that is read; or, with another stream, written."""
    return stream if path == STANDARD else str(path)


def piped(pairs: Sequence[tuple[Path, Path]]) -> bytes:
    """All of standard input where one of the (file, outcome) pairs reads it; ConfigError where nothing sends
    any. To be read before threads begin: in one it would not be interrupted."""
    if all(path != STANDARD for path, _ in pairs):
        return b""
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("-: nothing is sent to standard input; name a file, or send one: … - < FILE")
    return sys.stdin.buffer.read()


def check_pipe(sources: int, as_json: bool, skip: bool) -> None:
    """ConfigError for what does not go with an outcome on standard output."""
    if sources != 1:
        raise ConfigError(f"-o -: one file goes to standard output, not {sources}; name a folder")
    if as_json or skip:
        raise ConfigError(f"{'--json' if as_json else '--skip'}: does not go with -o -")
    if sys.stdout is None or sys.stdout.isatty():
        raise ConfigError("-o -: standard output is a terminal, or closed; send it to a file or a program")


def write_outcome(target: Path, data: bytes) -> None:
    """A file, whole or not at all, in a folder that is made where it is not there; or standard output.

    TaskPressError where who reads that has ended, or it cannot be written.
    """
    if target != STANDARD:
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, data)
        return
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise TaskPressError(f"standard output cannot be written ({error.strerror or error})") from None
