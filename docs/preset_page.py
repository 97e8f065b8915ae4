"""Writes docs/preset.md, every field of a preset, from the classes that check them: `make results`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taskpress.coding.files import atomic_write
from taskpress.training.config import Preset

PAGE = Path(__file__).parent / "preset.md"
HEAD = """# Every field of a preset

A preset is a YAML file of these fields. Those without a default have to be given; a misspelt one is an error.
On the command line a field is changed by its path: `taskpress train scenes optimizer.steps=500 -o runs/mine`.
Environment variables in paths (`${TASKPRESS_DATA}/photos`) are expanded where they are used. The
[presets](../src/taskpress/presets) that are shipped show most fields in use.
"""


def page() -> str:
    """The page's text."""
    schema = Preset.model_json_schema()
    sections = schema["$defs"]
    places: dict[str, list[str]] = {}
    queue = [("", schema)]
    while queue:
        path, section = queue.pop(0)
        for name, field in section["properties"].items():
            for kind in _sections_of(field):
                if kind not in places:
                    queue.append((f"{path}{name}.", sections[kind]))
                places.setdefault(kind, []).append(f"`{path}{name}`")
    parts = [HEAD, _table(schema, sections)]
    for kind, paths in places.items():
        words = " ".join(sections[kind].get("description", "").split())
        parts.append(f"## {', '.join(paths)}\n\n{words}\n\n{_table(sections[kind], sections)}")
    return "\n".join(parts)


def _table(section: dict[str, Any], sections: dict[str, Any]) -> str:
    rows = ["| field | value | default | |", "|---|---|---|---|"]
    for name, field in section["properties"].items():
        needed = name in section.get("required", ())
        default = "" if needed else _shown(field, sections)
        rows.append(f"| `{name}` | {_kind(field)} | {default} | {field['description']} |")
    return "\n".join(rows) + "\n"


def _shown(field: dict[str, Any], sections: dict[str, Any]) -> str:
    """A default; of a section, what differs from the defaults of its fields."""
    default = field.get("default")
    if default is None:
        return "none"
    if isinstance(default, dict):
        (kind,) = _sections_of(field)
        usual = sections[kind]["properties"]
        other = [f"{name}: {value}" for name, value in default.items() if value != usual[name].get("default")]
        return f"`{{{', '.join(other)}}}`" if other else "that of its fields"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _kind(field: dict[str, Any]) -> str:
    """What a field may be, as in a JSON schema, in words."""
    if "anyOf" in field:
        kinds = [_kind(one) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    match field.get("type"):
        case "array":
            if "prefixItems" in field:
                return f"two, each a {_kind(field['prefixItems'][0])}"
            return f"list, each a {_kind(field['items'])}"
        case "integer":
            return f"whole number{_limits(field)}"
        case "number":
            return f"number{_limits(field)}"
        case "boolean":
            return "`true`, `false`"
        case "object":
            return "mapping"
        case _:
            return "text"


def _limits(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {_number(field[key])}" for key, sign in signs.items() if key in field]
    told += [f"a multiple of {field['multipleOf']:g}"] if "multipleOf" in field else []
    return f" {', '.join(told)}" if told else ""


def _number(value: float) -> str:
    return "2³²" if value == 2**32 else f"{value:g}"


def _section(field: dict[str, Any]) -> str:
    return str(field["$ref"]).rsplit("/", 1)[-1]


def _sections_of(field: dict[str, Any]) -> list[str]:
    inner = [field, *field.get("anyOf", ()), field.get("items", {})]
    return [_section(one) for one in inner if "$ref" in one]


if __name__ == "__main__":
    atomic_write(PAGE, page().encode())
    print(PAGE)
