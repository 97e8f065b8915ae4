import importlib.util
import io
import os

import numpy as np
import pytest
from PIL import Image, features

from taskpress.errors import ConfigError
from taskpress.evaluation import anchors


def needs(package: str, module: str) -> pytest.MarkDecorator:
    """Skips where a package of the extra `anchors` is missing; where $CI is set, it has to be there."""
    missing = importlib.util.find_spec(module) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"needs {package}: pip install {package}")


KINDS = (
    "jpeg",
    "webp",
    "avif",
    pytest.param("jpegxl", marks=needs("imagecodecs", "imagecodecs")),
    pytest.param("heic", marks=needs("pillow-heif", "pillow_heif")),
)
MAGIC = {
    "jpeg": b"\xff\xd8\xff",
    "webp": b"WEBP",
    "avif": b"ftypavif",
    "jpegxl": b"\xff\x0a",
    "heic": b"ftypheic",
}


@pytest.fixture
def picture() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:70]
    return np.stack([x * 3, y * 5, 128 + 60 * np.sin(x / 5)], -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_keeps_size_and_colour(kind: str, picture: np.ndarray) -> None:
    coder = anchors.anchor(kind, 90)
    decoded = coder.decode(coder.encode(picture))
    assert decoded.dtype == np.uint8
    assert decoded.shape == picture.shape
    assert np.abs(decoded.astype(int) - picture).mean() < 6


@pytest.mark.parametrize("kind", KINDS)
def test_more_quality_more_bits(kind: str, picture: np.ndarray) -> None:
    assert len(anchors.anchor(kind, 20).encode(picture)) < len(anchors.anchor(kind, 95).encode(picture))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_its_kind_without_profile_or_exif(kind: str, picture: np.ndarray) -> None:
    data = anchors.anchor(kind, 30).encode(picture)
    assert MAGIC[kind] in data[:16]
    assert not any(mark in data for mark in (b"Exif", b"ICC_PROFILE", b"ICCP", b"EXIF"))
    if kind != "jpegxl":
        with Image.open(io.BytesIO(data)) as written:
            assert "icc_profile" not in written.info
            assert not written.getexif()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (33, 65), (2, 255)])
def test_any_size_comes_back(kind: str, size: tuple[int, int]) -> None:
    coder = anchors.anchor(kind, 0)
    assert coder.decode(coder.encode(np.full((*size, 3), 90, np.uint8))).shape == (*size, 3)


def test_names() -> None:
    coder = anchors.anchor("avif", 35)
    assert (coder.curve, coder.name) == ("avif", "avif-q35")


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'jpg'.*did you mean jpeg"):
        anchors.anchor("jpg", 30)
    with pytest.raises(ConfigError, match="jpeg, webp, avif, jpegxl, heic"):
        anchors.anchor("zzz", 30)


def test_quality_out_of_range() -> None:
    with pytest.raises(ConfigError, match="101"):
        anchors.anchor("jpeg", 101)


def test_missing_codec_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ConfigError, match="pip install"):
        anchors.anchor("avif", 30)


@pytest.mark.parametrize("kind, package", [("jpegxl", "imagecodecs"), ("heic", "pillow-heif")])
def test_missing_package_says_what_to_do(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"{kind}.*pip install {package}"):
        anchors.anchor(kind, 30)
