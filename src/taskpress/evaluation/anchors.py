"""Classical codecs that every learned one is held against: JPEG, WebP, AVIF, JPEG XL and HEIC (HEVC intra).

Each is asked for few bits rather than for speed (`SETTINGS` says what slower ones would still save), and
each picture is coded from bare pixels: Pillow copies a picture's colour profile and EXIF into the file
otherwise, which at low rates weighs more than the picture.
JPEG, WebP and AVIF are Pillow's; the others come with the extra `taskpress[anchors]`.
"""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from taskpress.errors import ConfigError, suggestion

SETTINGS: dict[str, dict[str, Any]] = {
    # Tables fitted to the picture and progressive scans: a few percent smaller at the same pixels. 4:4:4
    # needs 10 % more bits than 4:2:0 for the same error of a detector's features on photographs.
    "jpeg": {"format": "JPEG", "subsampling": "4:2:0", "optimize": True, "progressive": True},
    # WebP knows 4:2:0 only; method 6 is its most thorough search.
    "webp": {"format": "WEBP", "method": 6, "lossless": False},
    # 4:4:4 makes no difference to a detector's features (-0.7 % bits). Speed 4 needs about 7 % fewer
    # bits than speed 6 at the same PSNR, in five times its time; speed 3 some 3 % fewer again, in twice that.
    "avif": {"format": "AVIF", "subsampling": "4:2:0", "speed": 4, "max_threads": 1},
    # libjxl's bare codestream, without a container. Effort 9 needs 1.5 % fewer bits than 7 for the same error
    # of a detector's features on photographs, in six times its time.
    "jpegxl": {"effort": 7, "usecontainer": False, "numthreads": 1},
    # x265 as libheif sets it: preset slow, tuned for SSIM. For the same error of a detector's features tuning
    # for PSNR needs 24 % more bits, 4:4:4 15 %; slower presets need no fewer.
    "heic": {"format": "HEIF", "subsampling": "4:2:0", "enc_params": {"preset": "slow", "tune": "ssim"}},
}
_FEATURES = {"jpeg": "jpg", "webp": "webp", "avif": "avif"}
PACKAGES = {"jpegxl": ("imagecodecs", "imagecodecs"), "heic": ("pillow_heif", "pillow-heif")}
"""Kinds that Pillow does not know by itself: the module and the package that bring them."""


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
        if self.kind == "jpegxl":
            import imagecodecs

            return bytes(imagecodecs.jpegxl_encode(image, level=self.quality, **SETTINGS[self.kind]))
        self._prepare()
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, quality=self.quality, **SETTINGS[self.kind])
        return buffer.getvalue()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """The file's pixels, uint8 RGB [H, W, 3]."""
        if self.kind == "jpegxl":
            import imagecodecs

            pixels: NDArray[np.uint8] = imagecodecs.jpegxl_decode(data, numthreads=1)
            return pixels
        self._prepare()
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))

    def _prepare(self) -> None:
        """Makes Pillow know the format, in whichever process this is; a second time costs nothing."""
        if self.kind == "heic":
            import pillow_heif

            pillow_heif.register_heif_opener()


def anchor(kind: str, quality: int) -> Anchor:
    """The classical codec `kind` ("jpeg", "webp", "avif", "jpegxl" or "heic") at `quality`.

    Raises ConfigError for an unknown kind, a quality outside 0 ... 100, a Pillow built without the codec, and
    a package that is not installed.
    """
    if kind not in SETTINGS:
        raise ConfigError(f"no anchor is named '{kind}'; {suggestion(kind, SETTINGS)}")
    if not 0 <= quality <= 100:
        raise ConfigError(f"quality {quality} of anchor {kind!r} is not within 0 and 100")
    if kind in PACKAGES:
        module, package = PACKAGES[kind]
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"anchor {kind!r} needs the package {package}: pip install {package}, "
                "or 'taskpress[anchors]' for all of them"
            )
    elif not features.check(_FEATURES[kind]):
        raise ConfigError(
            f"this Pillow was built without {kind.upper()}: install the wheel (pip install --force-reinstall "
            "'pillow>=11.3') or leave the anchor out"
        )
    return Anchor(kind, quality, curve=kind)
