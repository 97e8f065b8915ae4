"""COCO's masks: run lengths, polygons, and whether a file's are any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskpress.errors import DataError

RunLengths = dict[str, Any]
"""One mask: {"size": [H, W], "counts": str}."""


def run_lengths(masks: NDArray[np.bool_]) -> list[RunLengths]:
    """Masks [n, H, W] as COCO's tools write them."""
    from faster_coco_eval import mask as coder

    planes = np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    return [{**encoded, "counts": encoded["counts"].decode()} for encoded in coder.encode(planes)]


def compressed(segmentation: Any, size: tuple[int, int]) -> RunLengths:
    """An annotation's mask, polygons or run lengths, in a picture of `size` (height, width)."""
    from faster_coco_eval import mask as coder

    if isinstance(segmentation, list):
        return coder.merge(coder.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return coder.frPyObjects(segmentation, *size)
    return dict(segmentation)


def check_masks(annotated: Mapping[str, Any]) -> None:
    """DataError for a ground truth in which only some objects have a mask, or a mask is none of COCO's.

    What the metric would make of such masks is an error of its own library, or hours later, or nothing.
    """
    objects = annotated["annotations"]
    masked = [one for one in objects if one.get("segmentation")]
    sizes = {image["id"]: [image["height"], image["width"]] for image in annotated["images"]}
    for one in objects if masked else ():
        mask, size = one.get("segmentation"), sizes[one["image_id"]]
        of = f"image id {one['image_id']}"
        if not mask:
            raise DataError(
                f"an annotation of {of} has no `segmentation`, others have: mask AP needs one of each object"
            )
        if isinstance(mask, dict):
            fits = mask.get("size") == size and _are_counts(mask.get("counts"), size[0] * size[1])
        else:
            fits = isinstance(mask, list) and all(_is_polygon(polygon, 2 * max(size)) for polygon in mask)
        if not fits:
            raise DataError(
                f"a `segmentation` of {of} is neither polygons [[x, y, x, y, x, y, …], …] nor run lengths of "
                f"its {size[1]}x{size[0]} pixels"
            )


def _are_counts(counts: Any, pixels: int) -> bool:
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if isinstance(counts, str):
        counts = _decompressed(counts)
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    return whole and sum(counts) == pixels


def _decompressed(text: str) -> list[int] | None:
    """COCO's compressed counts: numbers of five bits a character, lowest first, with a sign; from the fourth
    on, the difference to the one before the last. None for what is not written so."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 50:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts


def _is_polygon(polygon: Any, farthest: float) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(type(side) in (int, float) and abs(side) <= farthest for side in polygon)
    )
