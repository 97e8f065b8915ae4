"""What can go wrong with a user's input, each with a message that names the file, the value and the remedy.

The command line prints these as one line; anything else is a defect and shows its traceback.
"""

import difflib
from collections.abc import Collection


class TaskPressError(Exception):
    """Base of every error a user can cause and mend."""


class ImageError(TaskPressError):
    """A picture that is missing, truncated or of a kind that is not coded (16 bit, CMYK, animated)."""


class CodecError(TaskPressError):
    """A codec that cannot be read, built, saved or used: no codec file, an unknown architecture, weights that
    are not finite."""


class BitstreamError(TaskPressError):
    """A bitstream that is truncated, altered, of another version or of another codec."""


class UnknownCodecError(BitstreamError):
    """A bitstream of a codec that is none of those at hand."""


class DataError(TaskPressError):
    """A data set that cannot be used: no pictures, annotations that do not match them."""


class RecognizerError(TaskPressError):
    """A recognizer that cannot be named, loaded or used for what is asked."""


class ConfigError(TaskPressError, ValueError):
    """An argument, an option or a setting of a preset that does not exist or does not fit."""


class TrainingError(TaskPressError):
    """A training that has diverged."""


def suggestion(word: str, known: Collection[str]) -> str:
    """The end of a message about a name that does not exist: the nearest one that does, and all of them."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.4)
    return f"{f'did you mean {near[0]}? ' if near else ''}(known: {', '.join(known)})"
