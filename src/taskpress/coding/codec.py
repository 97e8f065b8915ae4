"""`Codec`: a model together with the way its images become bytes and back."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from taskpress.coding.checkpoints import Checkpoint, build_model, load_weights, read_checkpoint, write_codec
from taskpress.coding.errors import CodecError
from taskpress.coding.models import HyperpriorModel

MULTIPLE = 64


class Estimate(NamedTuple):
    """What coding a batch would give and cost.

    x_hat     [B, 3, H, W] float32, the decoded pictures, not clamped to [0, 1]
    latent    [B, M, h, w] float32, the decoded latent Ŷ; h = 4·⌈H/64⌉, w = 4·⌈W/64⌉
    rate      [B] bits per pixel of the unpadded picture
    rate_map  [B, h, w] bits per latent position: y's own, and z's spread evenly over the 4×4 it covers
    """

    x_hat: Tensor
    latent: Tensor
    rate: Tensor
    rate_map: Tensor


class Cost(NamedTuple):
    """What the encoder weighs: analysis, hyperprior, context and entropy parameters."""

    parameters: int
    macs_per_pixel: float


def pad(x: Tensor) -> Tensor:
    """[B, 3, H, W] → multiples of 64, the last row and column repeated below and to the right."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")


class Codec(nn.Module):
    """An image codec: `encode` and `decode` for files, `estimate` for training.

    `architecture` is one of "cheng2020-attention", "cheng2020-anchor", "joint-autoregressive",
    "mean-scale-hyperprior"; `card` is a JSON-able description that travels with the weights.
    """

    stride = 16

    def __init__(self, architecture: str, model: HyperpriorModel, card: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.model = model
        self.card: dict[str, Any] = dict(card or {})

    @classmethod
    def create(
        cls, architecture: str, channels: int, latent_channels: int | None = None, seed: int = 0
    ) -> "Codec":
        """A codec with random weights, in training mode; the global generator is left as it was.

        `channels` is N; `latent_channels` is M and defaults to N. CodecError for an unknown architecture.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(architecture, channels, latent_channels or channels, "codec")
        model.entropy_bottleneck.fit_quantiles()
        return cls(architecture, model)

    @classmethod
    def load(cls, name: str | Path) -> "Codec":
        """A codec in evaluation mode, by shipped name or path.

        Paths are .safetensors files from `save`, or CompressAI checkpoints (.pth.tar, .pth, .pt) of the four
        architectures. CodecError in one line for everything else.
        """
        checkpoint = read_checkpoint(name)
        model = build_model(
            checkpoint.architecture, checkpoint.channels, checkpoint.latent_channels, str(name)
        )
        load_weights(model, checkpoint.state, str(name))
        codec = cls(checkpoint.architecture, model, checkpoint.card)
        codec.eval()
        return codec

    def save(self, path: str | Path, half: bool = False, card: dict[str, Any] | None = None) -> None:
        """Writes a safetensors file without pickle, whole or not at all; `card` replaces the codec's own.

        `half` stores float16, half the size. The fingerprint is that of the values as they will be loaded, so
        bitstreams belong to the codec that `load` gives, not to the unrounded one in memory.
        """
        if card is not None:
            self.card = dict(card)
        self._settle()
        state = dict(self.model.state_dict())
        write_codec(
            Path(path), Checkpoint(self.architecture, self.model.N, self.model.M, state, self.card), half
        )

    def _settle(self) -> None:
        if self.model.entropy_bottleneck.stale:
            self.model.entropy_bottleneck.fit_quantiles()

    @property
    def latent_channels(self) -> int:
        """M, the channels of the latent."""
        return self.model.M

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name architecture and weights: a file decodes only with the same."""
        self._settle()
        digest = hashlib.blake2b(f"{self.architecture} {self.model.N} {self.model.M}".encode(), digest_size=8)
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(
                tensor.detach().cpu().to(torch.float32).contiguous().numpy().astype("<f4").tobytes()
            )
        return digest.hexdigest()

    def estimate(self, batch: Tensor) -> Estimate:
        """Codes without bytes. `batch` is [B, 3, H, W] float in [0, 1], any H and W from 1 up.

        In training mode quantization is additive uniform noise, and everything is differentiable.
        """
        if batch.dim() != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
            raise CodecError(
                f"a batch is a float tensor [B, 3, H, W], not {batch.dtype} {tuple(batch.shape)}"
            )
        height, width = batch.shape[-2:]
        padded = pad(batch)
        out = self.model(padded)
        x_hat, latent, likelihoods = out["x_hat"], out["y_hat"], out["likelihoods"]
        z_bits = -torch.log2(likelihoods["z"]).sum(1, keepdim=True)
        spread = F.interpolate(z_bits, scale_factor=4.0, mode="nearest").squeeze(1) / 16
        rate_map = -torch.log2(likelihoods["y"]).sum(1) + spread
        rate = rate_map.sum((1, 2)) / (height * width)
        return Estimate(x_hat[..., :height, :width], latent, rate, rate_map)

    def encoder_cost(self) -> Cost:
        """Parameters and multiply-adds per pixel of everything the encoder runs."""
        model = self.model
        parts = (
            model.g_a,
            model.h_a,
            model.h_s,
            model.entropy_bottleneck,
            model.context_prediction,
            model.entropy_parameters,
        )
        parameters = sum(p.numel() for part in parts if part is not None for p in part.parameters())
        device = next(model.parameters()).device
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            y = model.g_a(torch.zeros(1, 3, MULTIPLE, MULTIPLE, device=device))
            model.scales_and_means(model.h_s(model.h_a(y)), y)
        return Cost(parameters, counter.get_total_flops() / 2 / MULTIPLE**2)
