"""A user's own recognizer, by file and class."""

from __future__ import annotations

import hashlib
import inspect

from torch import nn

from taskpress.errors import RecognizerError
from taskpress.own_code import run_own
from taskpress.recognition.protocol import Recognizer, freeze


def load_own(spec: str) -> Recognizer:
    """The recognizer that `python:FILE.py:CLASS[:ARGUMENT]` names; the file is run, the class called.

    Modules are frozen. The fingerprint covers the file and the argument beside what the class says of itself:
    a threshold that is changed in the code changes what the teacher sees, whatever the class hashes.

    Raises RecognizerError, naming the file and what is amiss, for a file or class that is not there, a class
    that cannot be made, or an object without a member of the protocol.
    """
    code = run_own(spec, RecognizerError)
    made = code.make()
    if not isinstance(made, Recognizer):
        members = sorted({*inspect.get_annotations(Recognizer), *vars(Recognizer)})
        missing = ", ".join(m for m in members if not m.startswith("_") and not hasattr(made, m))
        raise RecognizerError(f"{spec}: {code.name} is no recognizer: it has no {missing}")
    if isinstance(made, nn.Module):
        freeze(made)
    made.fingerprint = hashlib.sha256(made.fingerprint.encode() + code.content).hexdigest()
    return made
