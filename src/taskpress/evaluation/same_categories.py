"""Which of a recognizer's categories a data set's category is, for tasks whose files state names, not ids."""

from __future__ import annotations

from collections.abc import Sequence

from taskpress.detections import Category
from taskpress.errors import DataError

BACKGROUND = "background"
SYNONYMS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "__background__": BACKGROUND,
}
"""PASCAL VOC's names of what COCO calls otherwise."""


def canonical(name: str) -> str:
    """A name without the ways in which lists of categories spell it differently."""
    lower = name.strip().lower()
    return SYNONYMS.get(lower, lower.replace("_", " "))


def match_categories(annotated: Sequence[Category], known: Sequence[Category]) -> list[int | None]:
    """The index of the recognizer's category of the same name, for each annotated one.

    One that the recognizer does not know is background where it knows a background: that is what it learned
    to say of all else. Elsewhere it is None: such pixels or pictures are not scored.

    Raises DataError where no category but background is shared.
    """
    index = {canonical(category.name): k for k, category in reversed(list(enumerate(known)))}
    # ImageNet knows a cardigan and a Cardigan.
    exact = {category.name: k for k, category in reversed(list(enumerate(known)))}
    matched = [
        exact.get(category.name, index.get(canonical(category.name), index.get(BACKGROUND)))
        for category in annotated
    ]
    if not any(k is not None and k != index.get(BACKGROUND) for k in matched):
        raise DataError(
            f"annotations have categories {_some(annotated)}, the recognizer knows {_some(known)}: no "
            "name in common; leave the annotations out, or name the categories as the recognizer does"
        )
    return matched


def named_alike(wanted: Sequence[Category], known: Sequence[Category]) -> tuple[Category, ...] | None:
    """The recognizer's category of each wanted one's name; None where it does not know all of them."""
    by_name = {canonical(category.name): category for category in reversed(known)}
    found = [by_name.get(canonical(category.name)) for category in wanted]
    return None if None in found else tuple(one for one in found if one is not None)


def _some(categories: Sequence[Category]) -> str:
    return "{" + ", ".join(c.name for c in categories[:4]) + (", …" if len(categories) > 4 else "") + "}"
