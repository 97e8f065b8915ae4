"""Files are found below folders, and appear whole or not at all."""

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from taskpress.own_code import argument_of


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which takes the place of `path` when that is done.

    So a reader (or a crash) never sees half a file: the bytes go to a temporary file in the same folder,
    which is then renamed. The folder must exist; OSError is raised as the operating system gives it, and
    where anything is raised no temporary file is left behind.
    """
    path = Path(path)
    # Without the name, which may be as long as file systems allow already; who may read it, the umask says,
    # as with any open().
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("x+b") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(data)


def files_below(folder: Path, suffixes: Collection[str] | None = None) -> list[Path]:
    """Files of these (lower-case) suffixes, in whatever case, or of any, at any depth, sorted by path.

    Hidden files and folders, whose names begin with a dot, are left out: what systems keep beside pictures
    is called like them. Links are followed, into each folder once. OSError for a folder that cannot be
    listed: what lies in it would be missing without a word.
    """

    def unlisted(error: OSError) -> None:
        raise error

    found, seen = [], set()
    for inside, folders, names in os.walk(folder, onerror=unlisted, followlinks=True):
        if (real := os.path.realpath(inside)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(inside, name) for name in names if not name.startswith(".")]
        fitting = [path for path in paths if suffixes is None or path.suffix.lower() in suffixes]
        found += [path for path in fitting if path.is_file()]
    return sorted(found)


def codec_name(source: str) -> str:
    """What a codec is called: a shipped name as it is, a file's name without folder, suffix and code."""
    return Path(argument_of(source) or source).name.removesuffix(".safetensors")
