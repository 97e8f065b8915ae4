"""Reading a detector of YOLOX's output layout from an ONNX file into modules that gradients flow through.

The layout: input [1, 3, S, S]; output [1, A, 5 + K] where A counts the cells of strides 8, 16 and 32 in this
order, row by row, and each cell has raw x, y (offset in cells from its corner), raw w, h (log of cells),
objectness and K class scores, these 1 + K already after the sigmoid.

Exporters write the batch size and sometimes the cell count into the graph's last reshapes. So the graph is
cut before them, at the three [B, 5 + K, h, w] maps, wherever it has YOLOX's structure: then any batch and any
size divisible by 32 work. A file of the same layout but another structure is run picture by picture at its
own size.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, fx, nn

from taskpress.errors import RecognizerError
from taskpress.recognition.protocol import freeze

if TYPE_CHECKING:
    import onnx

STRIDES = (8, 16, 32)
EXPECTED = "expected YOLOX's layout: input [1, 3, S, S], output [1, cells at strides 8, 16, 32, 5 + classes]"
NO_STEMS = (
    "this ONNX graph has no head stems (three levels that join box, objectness and class maps); "
    "use L_task on outputs instead of features"
)
RESHAPING = {"Reshape", "Flatten", "Transpose", "Identity", "Squeeze", "Unsqueeze"}


class Structure(NamedTuple):
    """Names of tensors in an ONNX graph, one for each of the strides 8, 16, 32."""

    maps: list[str]
    """The [B, 5 + K, h, w] maps before they are flattened and joined."""
    stems: list[str]
    """The last tensors that the class tower and the box tower of a level share."""


class YoloxNetwork(nn.Module):
    """The detector's network: canvases in, maps or stem activations out; always in inference mode.

    size:     side of the square canvas that the file was exported for
    classes:  K
    any_size: whether batches and other canvases divisible by 32 are accepted
    """

    def __init__(
        self,
        body: nn.Module,
        size: int,
        classes: int,
        stems: nn.Module | None = None,
        towers: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.body = freeze(body)
        self.stem_body = None if stems is None else freeze(stems)
        self.towers = None if towers is None else freeze(towers)
        self.size = size
        self.classes = classes
        self.any_size = stems is not None

    def train(self, mode: bool = True) -> YoloxNetwork:
        super().train(False)
        return self

    def forward(self, canvas: Tensor) -> list[Tensor]:
        """[B, 3, h, w] BGR in 0...255 to three maps [B, 5 + K, h / s, w / s], s = 8, 16, 32."""
        if self.any_size:
            return list(self.body(canvas))
        rows = torch.cat([self.body(one[None]) for one in canvas])
        cells = [(self.size // stride) ** 2 for stride in STRIDES]
        return [
            level.transpose(1, 2).unflatten(2, (self.size // stride, self.size // stride))
            for level, stride in zip(rows.split(cells, dim=1), STRIDES, strict=True)
        ]

    def stems(self, canvas: Tensor) -> list[Tensor]:
        """Activations [B, C, h / s, w / s] of the three stems, from which class and box towers start."""
        if self.stem_body is None:
            raise RecognizerError(NO_STEMS)
        return list(self.stem_body(canvas))

    def maps_of(self, stems: Sequence[Tensor]) -> list[Tensor]:
        """What `forward` gives if `stems(canvas)` were `stems`."""
        if self.towers is None:
            raise RecognizerError(
                "this ONNX graph's maps depend on more than its head stems, so its heads take no layers from "
                "elsewhere; choose another auxiliary branch than `heads`"
            )
        return list(self.towers(*stems))


def read_network(path: Path, data: bytes) -> YoloxNetwork:
    """The network in an ONNX file's bytes; RecognizerError naming `path` for anything of another kind."""
    import onnx

    try:
        model = onnx.load_from_string(data)
        graph = model.graph
        graph_inputs = {tensor.name for tensor in graph.initializer}
        inputs = [tensor for tensor in graph.input if tensor.name not in graph_inputs]
    except Exception as error:  # protobuf's DecodeError is not importable from a stable place
        raise RecognizerError(f"{path} is no ONNX file: expected a detector exported to ONNX") from error
    if not graph.node:
        raise RecognizerError(f"{path} is no ONNX file (no graph in it): expected an exported detector")
    if len(inputs) != 1 or len(graph.output) != 1:
        raise RecognizerError(
            f"{path} has {len(inputs)} inputs and {len(graph.output)} outputs in its ONNX graph; {EXPECTED}"
        )
    shape = _shape(inputs[0])
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[2] <= 0 or shape[2] % 32:
        raise RecognizerError(f"{path} takes an input of shape {shape}; {EXPECTED}, S a multiple of 32")
    size = shape[2]
    rows = _run(path, _convert(path, model), torch.full((1, 3, size, size), 114.0))
    classes = _classes(path, rows, size)

    structure = find_structure(graph)
    if structure is not None:
        body = _convert(path, _with_outputs(model, structure.maps + structure.stems))
        maps_only, stems_only = _keep_outputs(body, slice(0, 3)), _keep_outputs(body, slice(3, 6))
        network = YoloxNetwork(maps_only, size, classes, stems_only, _from_stems(body))
        if _maps_fit(network):
            return network
    return YoloxNetwork(_convert(path, model), size, classes)


def find_structure(graph: onnx.GraphProto) -> Structure | None:
    """Walks back from the output: a join of three levels, each a join of box, objectness and class maps.

    None where the graph is built in another way.
    """
    producers = {name: node for node in graph.node for name in node.output}
    order = {name: index for index, node in enumerate(graph.node) for name in node.output}

    def join_of_three(name: str) -> tuple[str, list[str]] | None:
        while name in producers and producers[name].op_type in RESHAPING:
            name = producers[name].input[0]
        node = producers.get(name)
        if node is None or node.op_type != "Concat" or len(node.input) != 3:
            return None
        return name, list(node.input)

    def ancestors(name: str) -> set[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current in producers and current not in found:
                found.add(current)
                waiting.extend(producers[current].input)
        return found

    levels = join_of_three(graph.output[0].name)
    if levels is None:
        return None
    maps, stems = [], []
    for level in levels[1]:
        joined = join_of_three(level)
        if joined is None:
            return None
        name, (box, _, classes) = joined
        shared = ancestors(box) & ancestors(classes)
        shared = {tensor for tensor in shared if producers[tensor].op_type != "Constant"}
        if not shared:
            return None
        maps.append(name)
        stems.append(max(shared, key=order.__getitem__))
    return Structure(maps, stems)


def _shape(tensor: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in tensor.type.tensor_type.shape.dim]


def _convert(path: Path, model: onnx.ModelProto) -> fx.GraphModule:
    from onnx2torch import convert

    # Its Slice indexes by a list of slices, which works and which torch warns of at every first use.
    warnings.filterwarnings("ignore", message="Using a non-tuple sequence", module=r"onnx2torch\.")
    try:
        return convert(copy.deepcopy(model)).eval()
    except Exception as error:  # onnx2torch raises whatever the operator at hand trips over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecognizerError(
            f"{path} cannot be turned into a torch module ({reason}); {EXPECTED}"
        ) from error


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    import onnx

    model = copy.deepcopy(model)
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return model


def _keep_outputs(module: fx.GraphModule, which: slice) -> fx.GraphModule:
    """A module that shares the weights and computes only some of the outputs."""
    graph = fx.Graph()
    outputs = graph.graph_copy(module.graph, {})
    assert isinstance(outputs, list | tuple)
    graph.output(tuple(outputs[which]))
    kept = fx.GraphModule(module, graph)
    kept.graph.eliminate_dead_code()
    kept.delete_all_unused_submodules()
    kept.recompile()
    return kept


def _from_stems(module: fx.GraphModule) -> fx.GraphModule | None:
    """A module from the last three outputs to the first three, which shares the weights; None where these
    depend on more."""
    (given,) = (node for node in module.graph.nodes if node.op == "output")
    outputs = list(given.args[0])
    graph = fx.Graph()
    known = {stem: graph.placeholder(f"stem_{place}") for place, stem in enumerate(outputs[3:])}

    def copied(node: fx.Node) -> fx.Node:
        if node not in known:
            for argument in node.all_input_nodes:
                copied(argument)
            known[node] = graph.node_copy(node, known.__getitem__)
        return known[node]

    graph.output(tuple(copied(node) for node in outputs[:3]))
    if any(node.op == "placeholder" and node not in outputs[3:] for node in known):
        return None
    kept = fx.GraphModule(module, graph)
    kept.delete_all_unused_submodules()
    return kept


@torch.no_grad()
def _run(path: Path, module: nn.Module, canvas: Tensor) -> Tensor:
    try:
        return module(canvas)
    except Exception as error:  # whatever the graph's operators raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecognizerError(
            f"{path} does not run on {list(canvas.shape)} ({reason}); {EXPECTED}"
        ) from error


def _classes(path: Path, rows: Tensor, size: int) -> int:
    cells = sum((size // stride) ** 2 for stride in STRIDES)
    if not isinstance(rows, Tensor) or rows.ndim != 3 or rows.shape[:2] != (1, cells) or rows.shape[2] < 6:
        found = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise RecognizerError(
            f"{path} gives an output of shape {found}; {EXPECTED}, here [1, {cells}, 5 + classes]"
        )
    scores = rows[..., 4:]
    if scores.min() < 0 or scores.max() > 1:
        raise RecognizerError(
            f"{path} gives scores outside 0...1; expected objectness and classes after the sigmoid"
        )
    # Decoded boxes carry their cell's position in pixels; raw ones are offsets of a few cells.
    if rows[..., :2].abs().median() > size / 8:
        raise RecognizerError(f"{path} gives boxes in pixels; expected raw ones (export without decoding)")
    return rows.shape[2] - 5


@torch.no_grad()
def _maps_fit(network: YoloxNetwork) -> bool:
    """Whether batches of an odd canvas come out of the cut graph as the layout says."""
    canvas = torch.zeros(2, 3, 64, 96)
    try:
        maps, stems = network(canvas), network.stems(canvas)
    except Exception:  # a graph with sizes baked in fails in its own operators' ways
        return False
    cells = [(64 // stride, 96 // stride) for stride in STRIDES]
    shapes_fit = all(
        tuple(level.shape) == (2, 5 + network.classes, *cell) for level, cell in zip(maps, cells, strict=True)
    )
    return shapes_fit and all(tuple(stem.shape[2:]) == cell for stem, cell in zip(stems, cells, strict=True))
