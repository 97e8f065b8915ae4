"""Section 8: from the latent to pixels, in float32."""

from __future__ import annotations

import numpy as np

from .container import Codec
from .whole import convolve, convolve_transposed, shuffle

CHENG = {"cheng2020-anchor": "RURURURS", "cheng2020-attention": "ARURUARURS"}


class Synthesis:
    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights

    def conv(self, name: str, x: np.ndarray) -> np.ndarray:
        return convolve(x, self.weights[f"{name}.weight"]) + self.weights[f"{name}.bias"][:, None, None]

    def deconv(self, name: str, x: np.ndarray) -> np.ndarray:
        return (
            convolve_transposed(x, self.weights[f"{name}.weight"])
            + self.weights[f"{name}.bias"][:, None, None]
        )

    def igdn(self, name: str, x: np.ndarray) -> np.ndarray:
        beta = np.maximum(self.weights[f"{name}.beta"], np.float32((1e-6 + 2**-36) ** 0.5)) ** 2 - 2.0**-36
        gamma = np.maximum(self.weights[f"{name}.gamma"], np.float32(2.0**-18)) ** 2 - 2.0**-36
        norm = beta[:, None, None] + np.einsum("cd,dij->cij", gamma, x * x)
        return x * np.sqrt(norm)

    def unit(self, name: str, x: np.ndarray) -> np.ndarray:
        inner = relu(self.conv(f"{name}.conv.2", relu(self.conv(f"{name}.conv.0", x))))
        return relu(self.conv(f"{name}.conv.4", inner) + x)

    def block(self, kind: str, name: str, x: np.ndarray) -> np.ndarray:
        if kind == "R":
            return leaky(self.conv(f"{name}.conv2", leaky(self.conv(f"{name}.conv1", x)))) + x
        if kind == "U":
            inner = self.conv(f"{name}.conv", leaky(shuffle(self.conv(f"{name}.subpel_conv.0", x))))
            return self.igdn(f"{name}.igdn", inner) + shuffle(self.conv(f"{name}.upsample.0", x))
        if kind == "A":
            # σ(b) = (1 + tanh(b/2)) / 2, which cannot overflow.
            a = b = x
            for i in range(3):
                a, b = self.unit(f"{name}.conv_a.{i}", a), self.unit(f"{name}.conv_b.{i}", b)
            return a * (0.5 + 0.5 * np.tanh(self.conv(f"{name}.conv_b.3", b) / 2)) + x
        return shuffle(self.conv(f"{name}.0", x))

    def run(self, architecture: str, x: np.ndarray) -> np.ndarray:
        if architecture in CHENG:
            for i, kind in enumerate(CHENG[architecture]):
                x = self.block(kind, f"g_s.{i}", x)
            return x
        for i in (0, 2, 4):
            x = self.igdn(f"g_s.{i + 1}", self.deconv(f"g_s.{i}", x))
        return self.deconv("g_s.6", x)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, x / 100)


def synthesize(
    codec: Codec, latent: np.ndarray, height: int, width: int, levels: np.ndarray | None = None
) -> np.ndarray:
    """uint8 [H, W, 3] of ŷ · 2^8 [M, h, w], and the level map [h, w] of a codec with an allocator."""
    x = (latent / 2**8).astype(np.float32)
    if levels is not None:
        x = x / np.exp(codec.weights["allocator.gains.log_gain"][levels].transpose(2, 0, 1))
    x = Synthesis(codec.weights).run(codec.architecture, x)[:, :height, :width]
    return np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
