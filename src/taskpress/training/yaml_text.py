"""YAML as settings are written in it: a mapping of plain values, each key once, and of bounded size."""

from __future__ import annotations

from typing import Any

import yaml

from taskpress.errors import ConfigError

MOST_CHARACTERS = 2**20
DEEPEST = 20
# Merges (<<) of merges multiply: ten lines can ask for a billion entries.
MOST_ENTRIES = 10_000


class _Loader(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys, recurses as deep as the text says and merges without end."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        first = {key.value: key for key in reversed(keys)}
        for key in keys:
            if first[key.value] is not key:
                raise yaml.YAMLError(
                    f"`{key.value}` in line {key.start_mark.line + 1} is given a second time"
                )
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_ENTRIES:
            raise yaml.YAMLError(f"more than {MOST_ENTRIES} entries by merging")


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text; ConfigError, begun with `origin`, for what is none or beyond all bounds."""
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{origin}: {len(text)} characters are more than settings have ({MOST_CHARACTERS})")
    try:
        # A safe loader: it makes numbers, strings, lists and mappings, and runs nothing.
        return yaml.load(text, Loader=_Loader)
    # ValueError: what is tagged or looks like a number or date, and is none.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}: not YAML ({' '.join(str(error).split())})") from None
