"""Files appear whole or not at all."""

import os
import tempfile
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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        # mkstemp makes the file private; what a plain open() would give is what people expect.
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(data)
