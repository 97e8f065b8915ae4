"""Classes of a user's own, by file and name: `python:FILE.py:CLASS` or `python:FILE.py:CLASS:ARGUMENT`."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from taskpress.errors import TaskPressError

PREFIX = "python:"
NAME = re.compile(rf"{PREFIX}(.+?\.py):(\w+)(?::(.+))?")


@dataclass(frozen=True)
class OwnCode:
    """What such a name means; the file has been run, once however often it is asked for.

    spec:     the whole name, with the prefix
    cls:      the class, or whatever else of that name can be called
    name:     of the class
    argument: None where the name gives none
    text:     the file's bytes
    error:    what is raised where the code fails
    """

    spec: str
    cls: Callable[..., Any]
    name: str
    argument: str | None
    text: bytes
    error: type[TaskPressError]

    @property
    def content(self) -> bytes:
        """Bytes of the file and of the argument: of what is in it, where it names a file."""
        given = None if self.argument is None else Path(self.argument)
        told = given.read_bytes() if given is not None and given.is_file() else repr(self.argument).encode()
        return self.text + told

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of `content`."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    def make(self, *given: object) -> Any:
        """An instance, from `given` and the argument, where there is one; `error` where that fails."""
        try:
            return self.cls(*given, *([] if self.argument is None else [self.argument]))
        except Exception as error:  # whatever a user's class raises
            raise self.error(f"{self.spec}: {type(error).__name__}: {error}") from error


def is_own(spec: str) -> bool:
    """Whether a name is that of a user's own class."""
    return spec.startswith(PREFIX)


def argument_of(spec: str) -> str | None:
    """ARGUMENT of `python:FILE.py:CLASS:ARGUMENT`; None for names without, or of another form."""
    parts = NAME.fullmatch(spec)
    return None if parts is None else parts[3]


def run_own(spec: str, error: type[TaskPressError]) -> OwnCode:
    """Finds the class that `spec`, which begins with `python:`, names, and runs its file if need be.

    Raises `error`, naming `spec` and what is amiss, for a name of another form, a file that is not there or
    cannot be run, and a class that is not in it.
    """
    parts = NAME.fullmatch(spec)
    if parts is None:
        raise error(f"{spec}: write {PREFIX}FILE.py:CLASS or {PREFIX}FILE.py:CLASS:ARGUMENT")
    path, name, argument = Path(parts[1]), parts[2], parts[3]
    if not path.is_file():
        raise error(f"{spec}: there is no file {path}")
    text = path.read_bytes()
    try:
        cls = getattr(_module(path, text), name)
    except Exception as failure:  # whatever a user's file raises
        raise error(f"{spec}: {type(failure).__name__}: {failure}") from failure
    return OwnCode(spec, cls, name, argument, text, error)


def _module(path: Path, text: bytes) -> ModuleType:
    """What the file defines. It is run once in a process, and again only after it was changed."""
    digest = hashlib.sha256(str(path.resolve()).encode() + b"\0" + text).hexdigest()
    name = f"taskpress_own_{path.stem}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
