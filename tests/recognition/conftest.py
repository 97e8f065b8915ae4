"""A detector of YOLOX's layout small enough to compute anew with onnx's own reference evaluator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

TinyYolox = Callable[..., Path]


def build(
    size: int = 64,
    classes: int = 3,
    seed: int = 0,
    structured: bool = True,
    logits: bool = False,
    decoded: bool = False,
    baked_cells: bool = False,
) -> onnx.ModelProto:
    """Random weights; options leave the layout (logits, decoded) or the usual graph (the rest).

    Opset 14, since onnx's reference evaluator gets the batch normalization of earlier ones wrong.
    """
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def op(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def conv(
        source: str, into: int, out: int, side: int, name: str, gain: float = 1.0, rest: float = 0.0
    ) -> str:
        weight = rng.normal(0, gain / np.sqrt(into * side * side), (out, into, side, side)).astype(np.float32)
        bias = rng.normal(rest, 0.3, out).astype(np.float32)
        names = [source, constant(f"{name}.w", weight), constant(f"{name}.b", bias)]
        return op("Conv", names, name, kernel_shape=[side, side], strides=[side, side])

    def normalized(source: str, channels: int, name: str) -> str:
        statistics = [rng.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(4)]
        names = [constant(f"{name}.{index}", value) for index, value in enumerate(statistics)]
        return op("Relu", [op("BatchNormalization", [source, *names], f"{name}.bn")], name)

    unit = op("Mul", ["images", constant("scale", np.float32(1 / 128))], "unit")
    features = [normalized(conv(unit, 3, 8, 8, "c8"), 8, "f8")]
    features.append(normalized(conv(features[0], 8, 8, 2, "c16"), 8, "f16"))
    features.append(normalized(conv(features[1], 8, 8, 2, "c32"), 8, "f32"))
    levels = []
    for stride, feature in zip((8, 16, 32), features, strict=True):
        stem = normalized(conv(feature, 8, 8, 1, f"sc{stride}"), 8, f"stem{stride}")
        class_tower = op("Relu", [conv(stem, 8, 8, 1, f"ct{stride}")], f"class_tower{stride}")
        box_tower = op("Relu", [conv(stem, 8, 8, 1, f"bt{stride}")], f"box_tower{stride}")
        parts = [
            conv(box_tower, 8, 4, 1, f"box{stride}", gain=0.5),
            conv(box_tower, 8, 1, 1, f"objectness{stride}", gain=4.0, rest=-4.0),
            conv(class_tower, 8, classes, 1, f"classes{stride}", gain=2.0, rest=-1.5),
        ]
        if not logits:
            parts[1:] = [op("Sigmoid", [part], f"{part}.p") for part in parts[1:]]
        joined = op("Concat", parts, f"level{stride}", axis=1)
        cells = (size // stride) ** 2 if baked_cells else -1
        shape = constant(f"shape{stride}", np.array([1, 5 + classes, cells], np.int64))
        levels.append(op("Reshape", [joined, shape], f"rows{stride}"))
    rows = op("Transpose", [op("Concat", levels, "columns", axis=2)], "rows", perm=[0, 2, 1])
    if decoded:
        rows = op(
            "Add",
            [
                rows,
                constant(
                    "pixels", np.full((1, 1, 5 + classes), [100.0] * 4 + [0.0] * (1 + classes), np.float32)
                ),
            ],
            "moved",
        )
    if not structured:
        rows = op("Add", [rows, constant("zero", np.zeros(1, np.float32))], "hidden")
    op("Identity", [rows], "output")
    cells = sum((size // stride) ** 2 for stride in (8, 16, 32))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, cells, 5 + classes])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)


@pytest.fixture
def tiny_yolox(tmp_path: Path) -> TinyYolox:
    """Writes a tiny detector with the options of `build` and gives its path."""

    def write(name: str = "tiny.onnx", **options: object) -> Path:
        path = tmp_path / name
        onnx.save(build(**options), str(path))  # type: ignore[arg-type]
        return path

    return write
