import io

import numpy as np
import pytest
from PIL import Image, features

from taskpress.coding.errors import ConfigError
from taskpress.evaluation import anchors

KINDS = ("jpeg", "webp", "avif")


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
    with Image.open(io.BytesIO(anchors.anchor(kind, 30).encode(picture))) as written:
        assert written.format == kind.upper()
        assert "icc_profile" not in written.info
        assert not written.getexif()


def test_names() -> None:
    coder = anchors.anchor("avif", 35)
    assert (coder.curve, coder.name) == ("avif", "avif-q35")


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'jpg'.*'jpeg'"):
        anchors.anchor("jpg", 30)
    with pytest.raises(ConfigError, match="jpeg, webp, avif"):
        anchors.anchor("zzz", 30)


def test_quality_out_of_range() -> None:
    with pytest.raises(ConfigError, match="101"):
        anchors.anchor("jpeg", 101)


def test_missing_codec_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ConfigError, match="pip install"):
        anchors.anchor("avif", 30)
