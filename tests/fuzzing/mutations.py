"""Files of settings and of data, damaged in every way that text and trees can be, by a seed."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

SLOWEST = 2.0
SLOW_COUNT = 20_000


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


NUMBERS = [-1, 0, 1, 2**31, 2**63, 2**200, 10**400, 0.5, 1e-320, 1e308, *map(float, ("nan", "inf", "-inf"))]
STRINGS = ["", "\0", "é😀", "a" * 1000, "1e400", "nan", "0", "1:30", "²", "..", "../x", "a/b", "${NOWHERE}"]
STRINGS += ["[/red]", "[bold]", "$x_{$", "scenes:²", "scenes:99999999999"]
LISTS = [[], [[]], [None] * 50, list(range(200)), [1, "a"]]
OBJECTS = [{}, {"": None}, {"images": 1}, {"images": "a", "annotations": "b"}, {"alpha": "x"}]
# What JSON and YAML both can say, and what YAML alone can.
ODD: list[Any] = [None, True, False, *NUMBERS, *STRINGS, *LISTS, *OBJECTS, nested(6), nested(60)]
ODD_YAML = [*ODD, datetime.date(2001, 1, 1), b"\xff", {1, 2}, {1: 2}, {None: 1}, {True: 1}, {2.5: 1}]

# Each line twice, or nine times, the one before: by reference, and by merging.
BOMB = "a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40))
MERGES = "a: &m0 {x: 1}\n"
MERGES += "".join(f"c{i}: &m{i + 1} {{<<: [{', '.join([f'*m{i}'] * 9)}]}}\n" for i in range(9))
TOKENS = ["&a ", "*a", "<<: ", "? ", "- ", "{", "[", "\t", "\0", "\xff", "\ufeff", "---\n", "...\n", ",", '"']
TOKENS += ["%YAML 9.9\n", "!!python/object:os.system ", "!!set {a}", "!!float ", "!!int x", "!!binary x"]
TOKENS += ["2001-99-99", "0x", "1_0", "NaN", "Infinity", "1e999", "9" * 5000, "\\ud800", "&a [*a, *a]"]
TOKENS += ["&x {b: *x}", "[" * 3000, "{a: " * 200, '{"a":' * 3000, BOMB, MERGES]


def paths(tree: Any, here: tuple = ()) -> list[tuple]:
    """Where a tree has values below its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in items for path in ((*here, key), *paths(value, (*here, key)))]


def value_at(tree: Any, path: tuple) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def mutated_tree(tree: Any, odd: list[Any], rng: random.Random) -> Any:
    """A tree with one to three values replaced, removed, copied elsewhere or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places = paths(tree)
        if not places:
            return rng.choice(odd)
        *above, key = rng.choice(places)
        parent = value_at(tree, tuple(above))
        match rng.randrange(6):
            case 0 | 1 | 2:
                parent[key] = copy.deepcopy(rng.choice(odd))
            case 3:
                del parent[key]
            case 4:
                parent[key] = copy.deepcopy(value_at(tree, rng.choice(places)))
            case 5 if isinstance(parent, dict):
                parent[rng.choice(["", "name", "é", f"{key}x"])] = parent.pop(key)
    return tree


def mutated_text(text: str, rng: random.Random) -> bytes:
    """A text with one to four flipped bits, cuts, insertions, copies or doubled lines."""
    out = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:]
            case 2:
                out[at:at] = rng.choice(TOKENS).encode()
            case 3:
                begin = rng.randrange(len(out) + 1)
                out[at:at] = out[begin : begin + rng.randrange(60)]
            case 4:
                del out[at : at + rng.randrange(1, 30)]
            case 5:
                lines = bytes(out).split(b"\n")
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
                out = bytearray(b"\n".join(lines))
    return bytes(out)


def attack(
    path: Path, texts: list[str], use: Callable[[Path], object], count: int, seed: int, error: type
) -> None:
    """Damages `texts` (YAML or JSON by the path's suffix) and lets `use` read them from `path`.

    `use` may raise `error`, with a message, or end well, within two seconds; and must do each at least once.
    """
    rng = random.Random(seed)
    as_yaml = path.suffix == ".yaml"
    trees = [yaml.safe_load(text) if as_yaml else json.loads(text) for text in texts]
    # What is imported at first use is no part of the time.
    path.write_text(texts[0])
    with contextlib.suppress(error):
        use(path)
    used = 0
    for number in range(count):
        which = rng.randrange(len(texts))
        if rng.random() < 0.5:
            tree = mutated_tree(trees[which], ODD_YAML if as_yaml else ODD, rng)
            dump = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False) if as_yaml else json.dumps(tree)
            path.write_bytes(dump.encode())
        else:
            path.write_bytes(mutated_text(texts[which], rng))
        # Of this process: on a busy machine the clock on the wall proves nothing.
        started = time.process_time()
        try:
            use(path)
            used += 1
        except error as refusal:
            assert str(refusal).strip(), f"mutation {number} of seed {seed} is refused without a reason"
        except BaseException as defect:
            defect.add_note(f"mutation {number} of seed {seed}: {path.read_bytes()[:2000]!r}")
            raise
        spent = time.process_time() - started
        assert spent < SLOWEST, f"mutation {number} of seed {seed} took {spent:.1f} s"
    assert 0 < used < count
