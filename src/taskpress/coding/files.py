"""Files appear whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which takes the place of `path` when that is done.

    So a reader (or a crash) never sees half a file: the bytes go to a temporary file in the same folder,
    which is then renamed. The folder must exist; OSError is raised as the operating system gives it, and
    where anything is raised no temporary file is left behind.
    """
    path = Path(path)
    # Long names stay within what file systems allow; who may read it, the umask says, as with any open().
    part = path.with_name(f".{path.name[:64]}.{secrets.token_hex(8)}.part")
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
