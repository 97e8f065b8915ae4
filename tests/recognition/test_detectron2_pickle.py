"""Detectron2's pickles are read as numpy reads them, and nothing in them runs."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from taskpress.errors import RecognizerError
from taskpress.recognition.detectron2_pickle import read_detectron2_pickle


def write(path: Path, model: object, protocol: int) -> Path:
    path.write_bytes(pickle.dumps({"model": model, "__author__": "a test"}, protocol))
    return path


def test_arrays_of_other_kinds_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    model = OrderedDict(
        fortran=np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
        big_endian=np.arange(6, dtype=">f4").reshape(2, 3),
        half=np.arange(3, dtype=np.float16),
        number=np.float64(2.5),
        counter=np.array(7),
        empty=np.zeros((0, 3), np.float32),
        sliced=np.arange(10, dtype=np.int32)[::3],
    )
    for protocol in (2, 3, 4, 5):
        read = read_detectron2_pickle(write(tmp_path / "model.pkl", model, protocol))
        for key, value in model.items():
            assert np.array_equal(read[key].numpy(), value) and read[key].shape == np.shape(value), key


class Malicious:
    def __init__(self, call: object, *arguments: object) -> None:
        self.made = (call, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.made


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_malicious_pickle_runs_nothing(protocol: int, tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    path = tmp_path / "model.pkl"
    attacks = [
        Malicious(os.system, f"touch {witness}"),
        Malicious(eval, f"open({str(witness)!r}, 'w')"),
        Malicious(getattr, "text", "encode"),
        Malicious(np.save, str(witness), np.zeros(1)),
        Malicious(torch.load, str(witness)),
    ]
    for attack in attacks:
        path.write_bytes(pickle.dumps({"model": {"weight": attack}, "__author__": attack}, protocol))
        with pytest.raises(RecognizerError, match=r"it asks for [\w.]+\)") as caught:
            read_detectron2_pickle(path)
        assert str(path) in str(caught.value)
    assert not witness.exists()
    assert not list(tmp_path.glob("executed*"))


def test_forged_element_types_and_lengths_never_reach_numpy(tmp_path: Path) -> None:
    good = pickle.dumps({"model": {"weight": np.arange(4, dtype=np.float64)}}, 2)
    path = tmp_path / "model.pkl"
    assert good.count(b"X\x02\x00\x00\x00f8") == 1
    # An object array from raw bytes: numpy would take them for pointers.
    path.write_bytes(good.replace(b"X\x02\x00\x00\x00f8", b"X\x02\x00\x00\x00O8"))
    with pytest.raises(RecognizerError, match="weight is no array of numbers"):
        read_detectron2_pickle(path)
    assert good.count(b"K\x04\x85") == 1  # the shape (4,)
    path.write_bytes(good.replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85"))
    with pytest.raises(RecognizerError, match="32 bytes for shape"):
        read_detectron2_pickle(path)
    path.write_bytes(good.replace(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"))
    with pytest.raises(RecognizerError, match="weight is no array"):
        read_detectron2_pickle(path)


def test_a_stand_in_cannot_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    # PROTO 2, the global numpy.dtype, an empty dict, BUILD
    path.write_bytes(b"\x80\x02cnumpy\ndtype\n}b.")
    with pytest.raises(RecognizerError, match="it changes dtype"):
        read_detectron2_pickle(path)


def test_flipped_bits_never_end_in_anything_but_our_error(tmp_path: Path) -> None:
    some = {f"layer{number}.weight": np.ones((2, number + 1), np.float32) for number in range(3)}
    path = write(tmp_path / "model.pkl", some, protocol=2)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 400):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_detectron2_pickle(path)
        except RecognizerError as error:
            assert "\n" not in str(error)


def test_many_arrays_of_the_same_bytes_are_refused(tmp_path: Path) -> None:
    shared = np.zeros(2**20, np.uint8)
    path = write(tmp_path / "model.pkl", {f"{number}": shared for number in range(50)}, 4)
    assert path.stat().st_size < 2**21
    with pytest.raises(RecognizerError, match="more numbers than bytes"):
        read_detectron2_pickle(path)
