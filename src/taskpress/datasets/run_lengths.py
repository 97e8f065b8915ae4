"""COCO's masks: run lengths, polygons, and whether a file's are any."""

from __future__ import annotations

import math
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
            fits = isinstance(mask, list) and all(map(_is_polygon, mask))
        if not fits:
            raise DataError(
                f"a `segmentation` of {of} is neither polygons [[x, y, x, y, x, y, …], …] nor run lengths of "
                f"its {size[1]}x{size[0]} pixels"
            )


def _are_counts(counts: Any, pixels: int) -> bool:
    if isinstance(counts, str | bytes):
        return True
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    return whole and sum(counts) == pixels


def _is_polygon(polygon: Any) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(type(side) in (int, float) and math.isfinite(side) for side in polygon)
    )
