"""`Codec`: a model together with the way its images become bytes and back."""

import copy
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from taskpress.coding.allocation import Allocator, AllocatorSettings, Decision
from taskpress.coding.bitstream import check_pixels
from taskpress.coding.checkpoints import (
    ALLOCATOR_PREFIX,
    Checkpoint,
    build_model,
    read_checkpoint,
    restore_allocator,
    restore_model,
    write_codec,
)
from taskpress.coding.cost import Cost, allocator_cost, model_cost
from taskpress.coding.entropy_coding import CODING, EntropyCoder
from taskpress.coding.entropy_models import add_noise, at_least_float32
from taskpress.coding.estimate import Estimate, estimated
from taskpress.coding.fingerprint import checksum, fingerprint, mark
from taskpress.coding.hyperprior import HyperpriorModel, Output, Quantization
from taskpress.coding.images import Source, checked_batch, in_range, open_picture, pad
from taskpress.coding.named_allocators import build_allocator
from taskpress.coding.own_architecture import name_architecture
from taskpress.coding.picture_coding import PictureCoder
from taskpress.coding.refinement import Refinement
from taskpress.coding.transforms import build_transforms, check_precision
from taskpress.errors import CodecError, ConfigError
from taskpress.own_code import is_own

COMPILED = "_orig_mod."
# left, top, right, bottom in pixels
Region = tuple[int, int, int, int]
Limit = int | None


class Frozen(NamedTuple):
    """`coder` codes by the weights as they were. Most changes show in `marks`, others in `checksum`."""

    coder: PictureCoder
    marks: tuple[Any, ...]
    checksum: tuple[int, ...]


class Codec(nn.Module):
    """An image codec: `encode` and `decode` for files, `estimate` for training.

    `architecture` is a name of models.py, or "python:CLASS" for a class of one's own (own_architecture.py);
    `card` is a JSON-able description that travels with the weights. An `allocator` is in codecs that say
    explicitly where bits go (allocation.py), and in no other. `precision`, "float32", "bfloat16" or "auto",
    is what g_a and g_s compute in when files are coded (transforms.py).
    """

    stride = 16

    def __init__(
        self,
        architecture: str,
        model: HyperpriorModel,
        card: dict[str, Any] | None = None,
        allocator: Allocator | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.model = model
        self.allocator = allocator
        self.card: dict[str, Any] = dict(card or {})
        self._precision = "float32"
        self._frozen: Frozen | None = None

    @classmethod
    def create(
        cls, architecture: str, channels: int, latent_channels: int | None = None, seed: int = 0
    ) -> "Codec":
        """A codec with random weights, in training mode; the global generator is left as it was.

        `channels` is N; `latent_channels` is M and defaults to N. CodecError for an unknown architecture. One
        of one's own is named by its code, "python:FILE.py:CLASS", which is run.
        """
        architecture = name_architecture(architecture)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = build_model(architecture, channels, latent_channels or channels, "codec").float()
        model.entropy_bottleneck.fit_quantiles()
        return cls(architecture, model)

    def attach_allocator(self, settings: AllocatorSettings, seed: int = 0) -> None:
        """Gives the codec an allocator with weights from the seed, by which nothing is coded otherwise yet.

        CodecError for settings of which none can be built, and where the codec has one.
        """
        if self.allocator is not None:
            raise CodecError(f"the codec has an allocator: {self.allocator.settings}")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            allocator = build_allocator(settings, self.latent_channels, "codec")
        self.allocator = allocator.to(self._device, torch.float32)

    @classmethod
    def load(cls, name: str | Path, precision: str = "float32") -> "Codec":
        """A codec in evaluation mode, by shipped name or path.

        Paths are .safetensors files from `save` (`python:FILE.py:CLASS:PATH` where the architecture is a
        class of one's own), or CompressAI checkpoints (.pth.tar, .pth, .pt) of the four architectures.
        CodecError in one line for everything else, ConfigError for an unknown `precision`.
        """
        check_precision(precision)
        checkpoint = read_checkpoint(name)
        model = restore_model(checkpoint, str(name))
        allocator = restore_allocator(checkpoint, str(name))
        codec = cls(checkpoint.architecture, model, checkpoint.card, allocator)
        codec.precision = precision
        codec.eval()
        return codec

    def save(self, path: str | Path, half: bool = False, card: dict[str, Any] | None = None) -> None:
        """Writes a safetensors file without pickle, whole or not at all; `card` replaces the codec's own.

        CodecError where it cannot be written, weights are not finite or the card is not JSON.

        `half` stores float16, half the size; weights that came from such a file stay so in any case. The
        fingerprint is that of the values as they will be loaded, so bitstreams belong to the codec that
        `load` gives, not to the unrounded one in memory.
        """
        card = self.card if card is None else dict(card)
        settings = self.allocator.settings if self.allocator is not None else None
        checkpoint = Checkpoint(
            self.architecture, self.model.N, self.model.M, self._weights(), card, settings
        )
        write_codec(Path(path), checkpoint, half)
        self.card = card

    @property
    def precision(self) -> str:
        """What g_a and g_s compute in when files are coded; ConfigError for a name not in `PRECISIONS`."""
        return self._precision

    @precision.setter
    def precision(self, precision: str) -> None:
        self._precision = check_precision(precision)

    @property
    def latent_channels(self) -> int:
        """M, the channels of the latent."""
        return self.model.M

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name architecture and weights: a file decodes only with the same."""
        return self._freeze().fingerprint

    def encode(
        self,
        image: Source,
        tile: int | None = None,
        refinement: Refinement | None = None,
    ) -> bytes:
        """The bitstream of a picture, by the weights as they are, whatever the mode (train or eval).

        `image` is a path or a Pillow picture (converted as `read_image` does), an array in RGB, uint8
        [H, W, 3] or [H, W], or a tensor [3, H, W], float in [0, 1] or uint8; at most 65535 pixels a side and
        2^28 in all. ImageError for anything else.

        `tile`: the picture is coded in tiles of so many pixels a side, a multiple of 64, each decodable
        without the others; 0 for one piece. By default pictures of more than 2^23 pixels are, in tiles of
        1024 to 1536. ConfigError for a side that tiles cannot have.

        `refinement`: of the latent, for this picture (refinement.py); ConfigError with several tiles.
        """
        return self._freeze().encode(open_picture(image), tile, refinement)

    @overload
    def decode(
        self, data: bytes, as_: Literal["pil"] = "pil", region: Region | None = None, max_pixels: Limit = None
    ) -> Image.Image: ...
    @overload
    def decode(
        self, data: bytes, as_: Literal["numpy"], region: Region | None = None, max_pixels: Limit = None
    ) -> np.ndarray: ...
    @overload
    def decode(
        self, data: bytes, as_: Literal["tensor"], region: Region | None = None, max_pixels: Limit = None
    ) -> Tensor: ...
    def decode(
        self, data: bytes, as_: str = "pil", region: Region | None = None, max_pixels: Limit = None
    ) -> Image.Image | np.ndarray | Tensor:
        """The picture of a bitstream that this codec wrote, in the size that went in.

        `as_` is "pil", "numpy" (uint8 [H, W, 3]) or "tensor" (float32 [3, H, W] in [0, 1], on the codec's
        device). BitstreamError for a bitstream that is damaged, or of another codec.

        `region` (left, top, right, bottom): only these pixels, left and top included, right and bottom not,
        as the whole picture would have them (up to the rounding of float32). Of a picture in tiles only those
        are decoded on which they depend. ConfigError for a region that is not within the picture.

        `max_pixels`: BitstreamError for a picture of more, before anything is allocated for it. A hundred
        bytes may hold 2^28 equal pixels, so bytes from strangers want such a limit.
        """
        if as_ not in ("pil", "numpy", "tensor"):
            raise ConfigError(f'as_ is "pil", "numpy" or "tensor", not {as_!r}')
        if max_pixels is not None:
            check_pixels(data, max_pixels)
        if as_ == "tensor":
            return self._freeze().decode_to_tensor(data, region)
        array = self._freeze().decode_to_array(data, region)
        return array if as_ == "numpy" else Image.fromarray(array)

    def level_map(self, image: Source, tile: int | None = None) -> np.ndarray | None:
        """The quantization level of every latent position, int64 [h, w], as `encode` chooses them.

        None where the codec has no allocator.
        """
        if self.allocator is None:
            return None
        return self._freeze().level_map(open_picture(image), tile)

    def estimate(
        self,
        batch: Tensor,
        explore: torch.Generator | None = None,
        quantization: Quantization = "noise",
    ) -> Estimate:
        """Codes without bytes. `batch` is [B, 3, H, W] float in [0, 1], any H and W from 1 up.

        In training mode everything is differentiable, with `quantization` in place of rounding. In evaluation
        mode the latent is exactly what `decode` would find, the rate what `encode` would spend (within 1 %
        and the few bytes of the header); gradients end at the rounding. Where gradients are enabled, `x_hat`
        is in float32 whatever the precision; else it is what `decode` would give, up to the rounding of
        float32. With a generator (on the CPU), an allocator draws from it what it would else decide by the
        likeliest.

        ImageError for a batch of another layout and, in evaluation mode, for values outside of [0, 1].
        """
        batch = checked_batch(batch)
        height, width = batch.shape[-2:]
        if self.training:
            y, decision = self._analyze(pad(batch), self.model.g_a, explore)
            out = self.model.code(y, decision.gain if decision is not None else None, quantization)
        else:
            frozen, batch = self._freeze(), in_range(batch, "batch")
            with torch.no_grad():
                y, decision = self._analyze(pad(batch), frozen.transforms.analysis, explore)
            out = self._rounded(frozen, y, decision.gain if decision is not None else None)
        return estimated(out, decision, height, width)

    forward = estimate

    @torch.no_grad()
    def training_latent(self, batch: Tensor, quantization: Quantization = "noise") -> Tensor:
        """The latent that synthesis and branch see in training, [B, M, h, w], without a gradient.

        Where `estimate` then rounds nearly as files do, this is the very latent of a file.
        """
        frozen = self._freeze()
        y, decision = self._analyze(pad(batch), frozen.transforms.analysis)
        quantized = add_noise(y) if quantization == "noise" else frozen.quantized(y)[0]
        return quantized if decision is None else quantized / decision.gain

    @torch.no_grad()
    def unquantized_latent(self, batch: Tensor) -> Tensor:
        """What is quantized of a batch, [B, M, h, w]: g_a's latent, times the gains of an allocator."""
        return self._analyze(pad(batch), self._freeze().transforms.analysis)[0]

    def _analyze(
        self, x: Tensor, g_a: Callable[[Tensor], Tensor], explore: torch.Generator | None = None
    ) -> tuple[Tensor, Decision | None]:
        """The latent of padded pictures as it is quantized, and what the allocator decided."""
        y = at_least_float32(g_a(x))
        if self.allocator is None:
            return y, None
        decision = self.allocator(x, explore)
        return self.allocator.attend(y) * decision.gain, decision

    def _rounded(self, frozen: PictureCoder, y: Tensor, gain: Tensor | None) -> Output:
        """The model's output with the latents that are really coded; see `HyperpriorModel.code`."""
        model, g_s = self.model, frozen.transforms.synthesis
        y_hat, z_hat = frozen.quantized(y)
        # ŷ is known now, so its probabilities come in one parallel pass, through which gradients may flow.
        scales, means = model.scales_and_means(model.h_s(z_hat), y_hat)
        decoded = y_hat if gain is None else y_hat / gain
        return {
            "x_hat": at_least_float32(model.g_s(decoded)) if torch.is_grad_enabled() else g_s(decoded),
            "likelihoods": {
                "y": model.gaussian_conditional.likelihood(y_hat, scales, means),
                "z": model.entropy_bottleneck.likelihood(z_hat),
            },
            "y_hat": decoded,
        }

    def _weights(self, keep_vars: bool = False) -> dict[str, Tensor]:
        """All weights by the names they have in files."""
        weights = dict(self.model.state_dict(keep_vars=keep_vars))
        if self.allocator is not None:
            weights.update(self.allocator.state_dict(prefix=ALLOCATOR_PREFIX, keep_vars=keep_vars))
        if compiled := next((name for name in weights if COMPILED in name), None):
            part = ("" if compiled.startswith(ALLOCATOR_PREFIX) else "model.") + compiled.partition(COMPILED)[
                0
            ]
            raise CodecError(f"codec.{part.rstrip('.')} is torch.compile's copy; use its own .compile()")
        return weights

    @property
    def _device(self) -> torch.device:
        return self.model.entropy_bottleneck.quantiles.device

    def _freeze(self) -> PictureCoder:
        """What codes by the weights as they are; made anew only after the weights changed."""
        if self.model.entropy_bottleneck.stale:
            self.model.entropy_bottleneck.fit_quantiles()
        state = self._weights(keep_vars=True)
        if other := {t.dtype for t in self.parameters()} - {torch.float32}:
            raise CodecError(
                f"weights are {other.pop()}, not float32; use .float(), and `precision` or `half`"
            )
        marks = (self.precision, *map(mark, state.values()))
        frozen = self._frozen
        if frozen is None or frozen.marks != marks or frozen.checksum != checksum(state.values()):
            identity = (CODING, self.architecture, self.model.N, self.model.M)
            if self.allocator is not None:
                identity += astuple(self.allocator.settings)
            # Layers of a user's own may do otherwise in training.
            model = copy.deepcopy(self.model).eval() if is_own(self.architecture) else self.model
            name, coder = fingerprint(identity, state), EntropyCoder(model)
            transforms = build_transforms(model, self.precision, self._device)
            picture_coder = PictureCoder(name, model, self.allocator, coder, transforms)
            self._frozen = frozen = Frozen(picture_coder, marks, checksum(state.values()))
        return frozen.coder

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles make their own.
        return {**super().__getstate__(), "_frozen": None}

    def encoder_cost(self) -> Cost:
        """Parameters and multiply-adds per pixel of everything the encoder runs."""
        own = self.allocator_cost() or Cost(0, 0.0)
        rest = model_cost(self.model)
        return Cost(rest.parameters + own.parameters, rest.macs_per_pixel + own.macs_per_pixel)

    def allocator_cost(self) -> Cost | None:
        """The allocator's part in `encoder_cost`; None where there is none."""
        return None if self.allocator is None else allocator_cost(self.allocator, self.latent_channels)
