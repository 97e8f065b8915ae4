"""Files that are no detector of YOLOX's layout are refused, with the file and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from taskpress.errors import RecognizerError
from taskpress.recognition.onnx_detector import OnnxDetector

TinyYolox = Callable[..., Path]


def refused(path: Path, expected: str) -> None:
    with pytest.raises(RecognizerError) as raised:
        OnnxDetector(path)
    message = str(raised.value)
    assert str(path) in message
    assert expected in message
    assert "\n" not in message


def test_files_of_another_kind_are_refused(tiny_yolox: TinyYolox, tmp_path: Path) -> None:
    refused(tmp_path / "missing.onnx", "cannot read")
    refused(tmp_path, "cannot read")
    for name, data in [
        ("noise", bytes(range(256)) * 9),
        ("text", b"not a model"),
        ("cut", tiny_yolox().read_bytes()[:999]),
    ]:
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        refused(path, "is no ONNX file")
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    refused(empty, "is no ONNX file")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"logits": True}, "scores outside 0...1"), ({"decoded": True}, "boxes in pixels")],
)
def test_other_exports_of_the_family_are_refused(
    tiny_yolox: TinyYolox, options: dict[str, bool], expected: str
) -> None:
    refused(tiny_yolox(**options), expected)


def simple_model(path: Path, node: onnx.NodeProto, shape: list[int], output: list[int]) -> Path:
    graph = helper.make_graph(
        [node],
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), str(path))
    return path


def test_other_models_are_refused(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    refused(
        simple_model(tmp_path / "image.onnx", relu, [1, 3, 64, 64], [1, 3, 64, 64]),
        "output of shape [1, 3, 64, 64]",
    )
    refused(
        simple_model(tmp_path / "odd.onnx", relu, [1, 3, 60, 60], [1, 3, 60, 60]),
        "input of shape [1, 3, 60, 60]",
    )
    refused(simple_model(tmp_path / "flat.onnx", relu, [1, 10], [1, 10]), "input of shape [1, 10]")
    odd = helper.make_node("Hardmax", ["x"], ["y"])
    refused(
        simple_model(tmp_path / "operator.onnx", odd, [1, 3, 64, 64], [1, 3, 64, 64]), "cannot be turned into"
    )
