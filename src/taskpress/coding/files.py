"""Files appear whole or not at all."""

import os
import tempfile
from pathlib import Path


def atomic_write(path: Path, data: bytes | memoryview) -> None:
    """Writes `data` to `path` so that a reader (or a crash) never sees half a file.

    The bytes go to a temporary file in the same folder, which is then renamed. The folder must exist;
    OSError is raised as the operating system gives it, and no temporary file is left behind.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes the file private; what a plain open() would give is what people expect.
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
