"""Classical codecs that every learned one is held against: JPEG, WebP and AVIF as Pillow writes them.

Each is asked for its best, not its fastest, and each picture is coded from bare pixels: Pillow copies
a picture's colour profile and EXIF into the file otherwise, which at low rates weighs more than the picture.
"""

from __future__ import annotations

import difflib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from taskpress.coding.errors import ConfigError

SETTINGS: dict[str, dict[str, Any]] = {
    # Tables fitted to the picture and progressive scans: a few percent smaller at the same pixels. 4:4:4
    # needs 10 % more bits than 4:2:0 for the same error of a detector's features on photographs.
    "jpeg": {"format": "JPEG", "subsampling": "4:2:0", "optimize": True, "progressive": True},
    # WebP knows 4:2:0 only; method 6 is its most thorough search.
    "webp": {"format": "WEBP", "method": 6, "lossless": False},
    # 4:4:4 makes no difference to a detector's features (-0.7 % bits). Speed 4 needs about 7 % fewer
    # bits than speed 6 at the same PSNR, in five times its time; speed 3 some 3 % fewer again, in twice that.
    "avif": {"format": "AVIF", "subsampling": "4:2:0", "speed": 4, "max_threads": 1},
}
_FEATURES = {"jpeg": "jpg", "webp": "webp", "avif": "avif"}


@dataclass(frozen=True)
class Anchor:
    """A classical codec at one quality (0 worst ... 100 best; scales differ between kinds)."""

    kind: str
    quality: int
    curve: str

    @property
    def name(self) -> str:
        return f"{self.kind}-q{self.quality}"

    def encode(self, image: NDArray[np.uint8]) -> bytes:
        """uint8 RGB [H, W, 3] to the bytes of a complete file."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, quality=self.quality, **SETTINGS[self.kind])
        return buffer.getvalue()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """The file's pixels, uint8 RGB [H, W, 3]."""
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))


def anchor(kind: str, quality: int) -> Anchor:
    """The classical codec `kind` ("jpeg", "webp" or "avif") at `quality`.

    Raises ConfigError for an unknown kind, a quality outside 0 ... 100, and a Pillow built without the codec.
    """
    if kind not in SETTINGS:
        nearest = difflib.get_close_matches(kind.lower(), SETTINGS, n=1, cutoff=0.4)
        remedy = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(SETTINGS)}"
        raise ConfigError(f"unknown anchor {kind!r}: {remedy}")
    if not 0 <= quality <= 100:
        raise ConfigError(f"quality {quality} of anchor {kind!r} is not within 0 and 100")
    if not features.check(_FEATURES[kind]):
        raise ConfigError(
            f"this Pillow was built without {kind.upper()}: install the wheel (pip install --force-reinstall "
            "'pillow>=11.3') or leave the anchor out"
        )
    return Anchor(kind, quality, curve=kind)
