"""Reads Detectron2's `.pkl` checkpoints: dicts of numpy arrays, pickled, without running anything in them.

The unpickler hands out no object of numpy's or of Python's. Where the file names one of the few globals that
a pickled array needs, it gets a stand-in that notes its arguments; arrays are made from the notes afterwards,
after their type and length were checked. (numpy's own `dtype`, fed with a forged state, takes bytes for
pointers.)
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from taskpress.errors import RecognizerError

ELEMENTS = frozenset({"b1", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"})
ORDERS = frozenset("<>=|")


class _Note:
    """An object of the file's, as its parts; made by `_StandIn`."""

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind = kind
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Pairs(dict[Any, Any]):
    """Stands in for an OrderedDict; what else the file attaches to it is dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _StandIn:
    """What the file gets for a global; calling it makes a note, changing it is refused."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, *arguments: object) -> _Note | _Pairs:
        return _Pairs() if self.kind == "OrderedDict" else _Note(self.kind, arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"it changes {self.kind}")


GLOBALS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "bytes",  # protocols before 3 write bytes as text …
    ("__builtin__", "bytes"): "bytes",  # … and empty ones so
    ("collections", "OrderedDict"): "OrderedDict",
} | {
    (f"numpy.{core}.{module}", name): name
    for core in ("core", "_core")  # numpy 1, numpy 2
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        kind = GLOBALS.get((module, name))
        if kind is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _StandIn(kind)


def read_detectron2_pickle(path: Path) -> dict[str, Tensor]:
    """The arrays under "model" of a checkpoint of Detectron2's model zoo, by key.

    Raises RecognizerError, naming the file and what is wrong, for a file that is missing or truncated, that
    asks for any global but those of numpy arrays, or that holds anything else than arrays under "model".
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise RecognizerError(
            f"cannot read the weights {path}: {error.strerror}; name a file that exists"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its opcodes trip over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RecognizerError(
            f"{path} cannot be read safely ({reason}); give a checkpoint of Detectron2's model zoo"
        ) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise RecognizerError(f'{path} is no checkpoint of Detectron2\'s model zoo: it lacks a dict "model"')
    left = path.stat().st_size
    tensors = {}
    for key, value in model.items():
        tensors[_key(path, key)] = tensor = _tensor(path, str(key), value)
        # Several arrays may name the same bytes of the file.
        left -= tensor.nbytes
        if left < 0:
            raise RecognizerError(f"{path} holds more numbers than bytes; give a checkpoint of the model zoo")
    return tensors


def _key(path: Path, key: object) -> str:
    if not isinstance(key, str):
        raise RecognizerError(f"{path}: one of its weights is called {key!r}; expected a name")
    return key


def _tensor(path: Path, key: str, value: object) -> Tensor:
    try:
        element, shape, raw, order = _parts(value)
        count = math.prod(shape)
        if min(shape, default=0) < 0 or count * element.itemsize != len(raw):
            raise ValueError(f"{len(raw)} bytes for shape {list(shape)}")
        array = np.frombuffer(raw, element, count).reshape(shape, order=order)
        return torch.from_numpy(np.array(array, dtype=element.newbyteorder("="), order="C"))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise RecognizerError(f"{path}: {key} is no array of numbers ({error})") from error


def _parts(value: object) -> tuple[np.dtype[Any], tuple[int, ...], bytes | bytearray, Literal["C", "F"]]:
    """Element type, shape, bytes and memory order from the note of an array or a numpy scalar."""
    if not isinstance(value, _Note):
        raise TypeError(f"it is of type {type(value).__name__}")
    if value.kind == "_reconstruct":  # its state is (version, shape, dtype, is Fortran, data)
        _, shape, element, fortran, data = value.state
        return _element(element), tuple(map(int, shape)), _bytes(data), "F" if fortran else "C"
    if value.kind == "_frombuffer":  # the same of pickle's protocol 5
        data, element, shape, order = value.arguments
        return _element(element), tuple(map(int, shape)), _bytes(data), "F" if order == "F" else "C"
    if value.kind == "scalar":
        element, data = value.arguments
        return _element(element), (), _bytes(data), "C"
    raise TypeError(f"it is a {value.kind}")


def _element(note: object) -> np.dtype[Any]:
    if not isinstance(note, _Note) or note.kind != "dtype":
        raise TypeError("it has no element type")
    code = note.arguments[0]
    order = "|" if note.state is None else note.state[1]  # dtype's state is (version, byte order, …)
    if code not in ELEMENTS or order not in ORDERS:
        raise ValueError(f"its elements are of type {order}{code}")
    return np.dtype(code).newbyteorder(order)


def _bytes(data: object) -> bytes | bytearray:
    if isinstance(data, _Note) and data.kind == "bytes":
        data = data.arguments[0] if data.arguments else b""
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, bytes | bytearray):
        return data
    raise TypeError(f"its data are of type {type(data).__name__}")
