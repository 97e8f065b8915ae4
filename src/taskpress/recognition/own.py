"""A user's own recognizer, by file and class."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path

from torch import nn

from taskpress.coding.errors import RecognizerError
from taskpress.recognition.protocol import Recognizer, freeze


def load_own(spec: str) -> Recognizer:
    """The recognizer that `FILE.py:CLASS[:ARGUMENT]` names; the file is run, the class called.

    Modules are frozen. The fingerprint covers the file and the argument, beside what the class says itself.

    Raises RecognizerError, naming the file and what is amiss, for a file or class that is not there, a class
    that cannot be made, or an object without a member of the protocol.
    """
    parts = re.fullmatch(r"(.+\.py):(\w+)(?::(.+))?", spec)
    if parts is None:
        raise RecognizerError(f"python:{spec}: write python:FILE.py:CLASS or python:FILE.py:CLASS:ARGUMENT")
    path, name, argument = Path(parts[1]), parts[2], parts[3]
    if not path.is_file():
        raise RecognizerError(f"python:{spec}: there is no file {path}")
    module_spec = importlib.util.spec_from_file_location(f"taskpress_own_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    # Dataclasses look their module up.
    sys.modules[module_spec.name] = module
    try:
        module_spec.loader.exec_module(module)
        made = getattr(module, name)(*([] if argument is None else [argument]))
    except Exception as error:  # whatever a user's file raises
        del sys.modules[module_spec.name]
        raise RecognizerError(f"python:{spec}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Recognizer):
        members = sorted({*inspect.get_annotations(Recognizer), *vars(Recognizer)})
        missing = ", ".join(m for m in members if not m.startswith("_") and not hasattr(made, m))
        raise RecognizerError(f"python:{spec}: {name} is no recognizer: it has no {missing}")
    if isinstance(made, nn.Module):
        freeze(made)
    made.fingerprint = _fingerprint(made.fingerprint, path, argument)
    return made


def _fingerprint(own: str, path: Path, argument: str | None) -> str:
    """What the class says of itself, its code, and its argument: the content, where that is a file.

    A threshold that is changed in the code changes what the teacher sees, whatever the class hashes itself.
    """
    digest = hashlib.sha256(own.encode())
    digest.update(path.read_bytes())
    given = None if argument is None else Path(argument)
    digest.update(given.read_bytes() if given is not None and given.is_file() else repr(argument).encode())
    return digest.hexdigest()
