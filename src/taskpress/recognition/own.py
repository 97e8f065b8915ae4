"""A user's own recognizer, by file and class."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

from taskpress.errors import RecognizerError
from taskpress.own_code import run_own
from taskpress.recognition.protocol import Recognizer, freeze


def load_own(spec: str) -> Recognizer:
    """The recognizer that `python:FILE.py:CLASS[:ARGUMENT]` names; the file is run, the class called.

    Modules are frozen. The fingerprint covers the file and the argument beside what the class says of itself:
    a threshold that is changed in the code changes what the teacher sees, whatever the class hashes.

    Raises RecognizerError, naming the file and what is amiss, for a file or class that is not there, a class
    that cannot be made, an object without a member of the protocol, or with a fingerprint that cannot be set.
    """
    code = run_own(spec, RecognizerError)
    made = code.make()
    if not isinstance(made, Recognizer):
        missing = ", ".join(
            m for m in sorted(vars(Recognizer)) if not m.startswith("_") and not hasattr(made, m)
        )
        raise RecognizerError(f"{spec}: {code.name} is no recognizer: it has no {missing}")
    if isinstance(made, nn.Module):
        freeze(made)
    told: Any = made
    try:
        told.fingerprint = hashlib.sha256(made.fingerprint.encode() + code.content).hexdigest()
    except AttributeError as error:
        raise RecognizerError(
            f"{spec}: {code.name}.fingerprint must be an attribute that can be set"
        ) from error
    return made
