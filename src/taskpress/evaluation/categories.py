"""What the ids in label maps and the labels of pictures mean: built-in lists, or a user's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taskpress.detections import Category
from taskpress.errors import ConfigError, DataError
from taskpress.recognition.coco_categories import COCO_CATEGORIES

COCO_STUFF = (
    "92 banner, 93 blanket, 95 bridge, 100 cardboard, 107 counter, 109 curtain, 112 door-stuff, "
    "118 floor-wood, 119 flower, 122 fruit, 125 gravel, 128 house, 130 light, 133 mirror-stuff, 138 net, "
    "141 pillow, 144 platform, 145 playingfield, 147 railroad, 148 river, 149 road, 151 roof, 154 sand, "
    "155 sea, 156 shelf, 159 snow, 161 stairs, 166 tent, 168 towel, 171 wall-brick, 175 wall-stone, "
    "176 wall-tile, 177 wall-wood, 178 water-other, 180 window-blind, 181 window-other, 184 tree-merged, "
    "185 fence-merged, 186 ceiling-merged, 187 sky-other-merged, 188 cabinet-merged, 189 table-merged, "
    "190 floor-other-merged, 191 pavement-merged, 192 mountain-merged, 193 grass-merged, 194 dirt-merged, "
    "195 paper-merged, 196 food-other-merged, 197 building-other-merged, 198 rock-merged, "
    "199 wall-other-merged, 200 rug-merged"
)
"""What COCO's panoptic annotations (Kirillov et al., CVPR 2019) add to its objects."""
VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)


def _stuff(entry: str) -> Category:
    number, _, name = entry.partition(" ")
    return Category(int(number), name)


BUILT_IN: dict[str, tuple[Category, ...]] = {
    "coco": COCO_CATEGORIES,
    "coco-panoptic": (*COCO_CATEGORIES, *(_stuff(entry) for entry in COCO_STUFF.split(", "))),
    "voc": tuple(Category(number, name) for number, name in enumerate(VOC_NAMES.split())),
}


def map_categories(source: str) -> tuple[Category, ...]:
    """The categories of label maps: "coco-panoptic", "coco", "voc", or a JSON file.

    The file is a list of {"id", "name"}, or an object with that list under "categories". Where a recognizer
    calls a category otherwise, write its name.

    Raises ConfigError for what is neither, DataError for a file that is no such list.
    """
    if source in BUILT_IN:
        return BUILT_IN[source]
    content = _read_json(source, f"{', '.join(BUILT_IN)}, or a JSON list of {{id, name}}")
    rows = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows:
        raise DataError(f'{source}: expected a list of {{"id": 1, "name": "person"}}')
    for row in rows:
        if not (
            isinstance(row, dict) and isinstance(row.get("id"), int) and isinstance(row.get("name"), str)
        ):
            raise DataError(f"{source}: {row!r} is no category; expected an id (a number) and a name")
    if len({row["id"] for row in rows}) < len(rows):
        raise DataError(f"{source}: an id is listed twice")
    return tuple(Category(row["id"], row["name"]) for row in rows)


def class_names(source: str) -> dict[str, str]:
    """Names of the classes behind labels, from a JSON object of label -> name. Raises as `map_categories`."""
    content = _read_json(source, "a JSON object of label and name")
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise DataError(f'{source}: expected an object of label and name, {{"n02084071": "dog", …}}')
    return content


def _read_json(source: str, expected: str) -> Any:
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"--categories {source}: no such file or list; give {expected}")
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
