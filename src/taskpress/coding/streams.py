"""Transforms that take a picture some rows at a time, and remember only the rows that later ones depend on.

Every layer is rebuilt as a stream: rows go in, and those rows of the outcome come out that are sure by now.
All in all that is what the layer gives for the whole picture, up to the rounding of float32, and nothing is
computed twice:

    rows ─┬─► conv 3×3 ──► leaky ReLU ──► conv 3×3 ─┬─► + ──►     a convolution keeps the last rows it saw,
          │   keeps 2                     keeps 2   │             a sum what one branch has given and the
          └─────────────────────────────────────────┘             other not yet
                                            keeps 2
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taskpress.coding.layers import (
    GDN,
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    ResidualUnit,
)

POINTWISE = (GDN, nn.LeakyReLU, nn.ReLU, nn.GELU, nn.SiLU, nn.PReLU, nn.Sigmoid, nn.Tanh, nn.Identity)
KNOWN = (
    *POINTWISE,
    nn.Sequential,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.PixelShuffle,
    ResidualUnit,
    ResidualBlock,
    ResidualBlockWithStride,
    ResidualBlockUpsample,
    AttentionBlock,
)


def in_strips(layers: nn.Module, strips: Iterable[Tensor]) -> Iterator[Tensor]:
    """The rows of `layers(x)`, some at a time, from those of x.

    strips  x [1, C, H, W] cut into strips of rows, none of them empty
    yields  tensors [1, C', some rows, W']: all rows of the outcome, in order

    TypeError for several strips and a layer that `build_stream` does not know.
    """
    coming = iter(strips)
    strip, following = next(coming), next(coming, None)
    if following is None:
        yield layers(strip)
        return
    streams = [build_stream(layer) for layer in (layers if type(layers) is nn.Sequential else (layers,))]

    def through(rows: Tensor | None, streams: Sequence[Stream]) -> Iterator[Tensor]:
        for stream in streams:
            rows = stream.push(rows, last=False)
        if rows is not None:
            yield rows

    for rows in chain((strip, following), coming):
        yield from through(rows, streams)
    # What one has held back goes its way before the next one ends: all at once, it would be many strips.
    for i, stream in enumerate(streams):
        yield from through(stream.push(None, last=True), streams[i + 1 :])


class Stream(ABC):
    """A layer that is given its input some rows at a time.

    reach  rows of the input to either side of its own place that a row of the outcome depends on
    scale  rows of the outcome to a row of the input
    """

    reach: Fraction
    scale: Fraction

    @abstractmethod
    def push(self, rows: Tensor | None, last: bool) -> Tensor | None:
        """The next rows of the outcome for the next rows of the input; None stands for no rows.

        With `last` the input is at its end, and all that is left of the outcome comes out.
        """


class Pointwise(Stream):
    """What works on every row by itself, and makes `scale` rows of it."""

    def __init__(self, layer: Callable[[Tensor], Tensor], scale: int = 1) -> None:
        self.layer, self.reach, self.scale = layer, Fraction(0), Fraction(scale)

    def push(self, rows: Tensor | None, last: bool) -> Tensor | None:
        return None if rows is None else self.layer(rows)


class Chain(Stream):
    """Streams one after the other; TypeError where they scale down and up again, as rows of the outcome then
    depend on where in the picture they lie."""

    def __init__(self, *streams: Stream) -> None:
        if min(stream.scale for stream in streams) < 1 < max(stream.scale for stream in streams):
            raise TypeError("a Sequential that scales down and up again cannot be worked on row by row")
        self.streams, self.reach, self.scale = streams, Fraction(0), Fraction(1)
        for stream in streams:
            self.reach += stream.reach / self.scale
            self.scale *= stream.scale

    def push(self, rows: Tensor | None, last: bool) -> Tensor | None:
        for stream in self.streams:
            rows = stream.push(rows, last)
        return rows


class Sum(Stream):
    """A stream and, beside it, a shorter way that gives its rows earlier, or the input itself; TypeError for
    a longer one."""

    def __init__(self, main: Stream, side: Stream | None = None) -> None:
        if main.scale != (1 if side is None else side.scale) or (
            side is not None and side.reach > main.reach
        ):
            raise TypeError("a sum with a longer way beside it cannot be worked on row by row")
        self.main, self.side, self.reach, self.scale = main, side, main.reach, main.scale
        self.waiting: deque[Tensor] = deque()

    def push(self, rows: Tensor | None, last: bool) -> Tensor | None:
        aside = rows if self.side is None else self.side.push(rows, last)
        if aside is not None:
            self.waiting.append(aside)
        outcome = self.main.push(rows, last)
        at, end = 0, 0 if outcome is None else outcome.shape[2]
        while outcome is not None and at < end:
            first = self.waiting.popleft()
            count = min(first.shape[2], end - at)
            outcome[:, :, at : at + count] += first[:, :, :count]
            if (left := rest(first, count)) is not None:
                self.waiting.appendleft(left)
            at += count
        return outcome


class Gate(Stream):
    """a(x)·σ(b(x)) of two streams that give their rows at the same time; TypeError for others."""

    def __init__(self, a: Stream, b: Stream) -> None:
        if (a.reach, a.scale) != (b.reach, b.scale):
            raise TypeError("a gate of two ways of different lengths cannot be worked on row by row")
        self.a, self.b, self.reach, self.scale = a, b, a.reach, a.scale

    def push(self, rows: Tensor | None, last: bool) -> Tensor | None:
        a, b = self.a.push(rows, last), self.b.push(rows, last)
        return None if a is None or b is None else b.sigmoid_().mul_(a)


class Convolution(Stream):
    """Keeps the rows that its window covers when it has moved on."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self.layer = layer
        self.kernel, self.stride = layer.kernel_size[0], layer.stride[0]
        self.reach, self.scale = Fraction(self.kernel // 2), Fraction(1, self.stride)
        self.seen: Tensor | None = None
        # Rows of zeros yet to come above the picture, as the layer would pad it.
        self.above = self.kernel // 2
        # How many of the next rows to pass over: a window of one row and stride 2 moves beyond what it saw.
        self.skip = 0

    def push(self, rows: Tensor | None, last: bool) -> Tensor | None:
        seen = joined(self.seen, rows)
        if seen is None:
            return None
        below = self.kernel // 2 if last else 0
        if self.above or below:
            seen, self.above = F.pad(seen, (0, 0, self.above, below)), 0
        passed = min(self.skip, seen.shape[2])
        seen, self.skip = seen[:, :, passed:], self.skip - passed
        count = (seen.shape[2] - self.kernel) // self.stride + 1
        if count < 1:
            self.seen = rest(seen, 0)
            return None
        used = count * self.stride
        self.seen, self.skip = rest(seen, used), max(0, used - seen.shape[2])
        padding, groups = (0, self.kernel // 2), self.layer.groups
        return F.conv2d(seen, self.layer.weight, self.layer.bias, self.stride, padding, groups=groups)


class TransposedConvolution(Stream):
    """Keeps the last rows it gave the outcome of, and those it did not yet; only here, work is done twice."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        self.layer = layer
        self.stride = layer.stride[0]
        self.reach, self.scale = Fraction(layer.kernel_size[0] // 2, self.stride), Fraction(self.stride)
        self.seen: Tensor | None = None
        # Rows in `seen` whose outcome has been given.
        self.done = 0

    def push(self, rows: Tensor | None, last: bool) -> Tensor | None:
        seen = joined(self.seen, rows)
        if seen is None:
            return None
        margin = ceil(self.reach)
        sure = seen.shape[2] - (0 if last else margin)
        if sure <= self.done:
            self.seen = seen
            return None
        outcome = self.layer(seen)[:, :, self.done * self.stride : sure * self.stride]
        above = max(0, sure - margin)
        self.seen, self.done = rest(seen, above), sure - above
        return outcome


def joined(above: Tensor | None, below: Tensor | None) -> Tensor | None:
    if above is None or below is None:
        return below if above is None else above
    return torch.cat((above, below), 2)


def rest(rows: Tensor, used: int) -> Tensor | None:
    """The rows from `used` on, on their own, so that the others can be freed; None where there are none."""
    return rows[:, :, used:].clone() if used < rows.shape[2] else None


def reach_of(layers: nn.Module) -> Fraction | None:
    """`Stream.reach` of a transform; None where it has layers whose reach is not known."""
    try:
        return build_stream(layers).reach
    except TypeError:
        return None


def build_stream(layer: nn.Module) -> Stream:
    """A stream for a layer of g_a or g_s or a sequence of them; TypeError for a layer it does not know.

    What derives from a known layer is not known: it may do anything.
    """
    if type(layer) not in KNOWN or not _usual(layer):
        raise TypeError(f"a {type(layer).__name__} like this cannot be worked on row by row")
    match layer:
        case nn.Sequential():
            return in_turn(*layer)
        case nn.Conv2d(kernel_size=(1, 1), stride=(1, 1)):
            return Pointwise(layer)
        case nn.Conv2d():
            return Convolution(layer)
        case nn.ConvTranspose2d():
            return TransposedConvolution(layer)
        case nn.PixelShuffle():
            return Pointwise(layer, layer.upscale_factor)
        case ResidualUnit():
            return Chain(Sum(build_stream(layer.conv)), Pointwise(torch.relu_))
        case ResidualBlock():
            return Sum(in_turn(layer.conv1, layer.leaky_relu, layer.conv2, layer.leaky_relu))
        case ResidualBlockWithStride():
            main = in_turn(layer.conv1, layer.leaky_relu, layer.conv2, layer.gdn)
            return Sum(main, build_stream(layer.skip))
        case ResidualBlockUpsample():
            main = in_turn(layer.subpel_conv, layer.leaky_relu, layer.conv, layer.igdn)
            return Sum(main, build_stream(layer.upsample))
        case AttentionBlock():
            return Sum(Gate(build_stream(layer.conv_a), build_stream(layer.conv_b)))
    return Pointwise(layer)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer does what its class does, with the weights that it shows: hooks may do anything."""
    return not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))


def _usual(layer: nn.Module) -> bool:
    """Whether a convolution is square, pads by zeros what keeps a picture's size, and leaves out nothing."""
    if not is_plain(layer):
        return False
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return True
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    sides = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.padding_mode)
    square = ((kernel,) * 2, (stride,) * 2, (kernel // 2,) * 2, (1, 1), "zeros")
    return sides == square and (isinstance(layer, nn.Conv2d) or layer.output_padding == (stride - 1,) * 2)


def in_turn(*layers: nn.Module) -> Stream:
    return Chain(*map(build_stream, layers))
