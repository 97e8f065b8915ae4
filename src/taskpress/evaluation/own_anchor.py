"""A classical codec of a user's own, by file and class, measured along the path that every coder takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskpress.errors import ConfigError
from taskpress.own_code import run_own


@dataclass(frozen=True)
class OwnAnchor:
    """A user's coder at one quality, in whatever scale it has. Its `curve` is its class's name in small.

    coder: has `encode(image)` and `decode(data)`, see `own_anchors`
    code:  digest of its file and argument
    """

    spec: str
    coder: Any
    quality: int
    curve: str
    name: str
    code: str

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is of a file that other processes run themselves.
        return _again, (self.spec, self.quality, self.curve)

    def encode(self, image: NDArray[np.uint8]) -> bytes:
        """uint8 RGB [H, W, 3] to the bytes of a complete file; ConfigError where the coder gives no bytes."""
        data = self._call("encode", image)
        if not isinstance(data, bytes) or not data:
            found = "none" if data == b"" else type(data).__name__
            raise ConfigError(f"{self._point}: encode must give the file's bytes, not {found}")
        return data

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """The file's pixels, uint8 RGB [H, W, 3]; ConfigError where the coder gives anything else."""
        image = self._call("decode", data)
        if not (
            isinstance(image, np.ndarray)
            and image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
        ):
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ConfigError(f"{self._point}: decode must give uint8 RGB [H, W, 3], not {found}")
        return image

    def _call(self, method: str, given: object) -> Any:
        try:
            return getattr(self.coder, method)(given)
        except Exception as error:  # whatever a user's class raises
            raise ConfigError(f"{self._point}: {method} raises {type(error).__name__}: {error}") from error

    @property
    def _point(self) -> str:
        return f"{self.spec}, quality {self.quality}"


def own_anchors(spec: str, qualities: list[int]) -> list[OwnAnchor]:
    """The coder that `python:FILE.py:CLASS[:ARGUMENT]` names, at each quality: CLASS(quality), with the
    argument after it, where there is one. The file is run once.

    A coder has `encode(image)`, uint8 RGB [H, W, 3] to the bytes of a complete file, and `decode(data)`,
    which needs nothing but these bytes. Raises ConfigError, naming the file and what is amiss, for a file or
    class that is not there, one that cannot be made, or an object without these methods.
    """
    code = run_own(spec, ConfigError)
    found = []
    for quality in qualities:
        coder = code.make(quality)
        missing = [name for name in ("encode", "decode") if not callable(getattr(coder, name, None))]
        if missing:
            raise ConfigError(f"{spec}: {code.name} is no coder: it has no {' and no '.join(missing)}")
        curve = code.name.lower()
        found.append(OwnAnchor(spec, coder, quality, curve, f"{curve}-q{quality}", code.digest))
    return found


def _again(spec: str, quality: int, curve: str) -> OwnAnchor:
    """An anchor in another process."""
    return replace(own_anchors(spec, [quality])[0], curve=curve)
