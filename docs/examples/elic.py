"""An architecture of one's own: ELIC's transforms, with the hyperprior and context model of Minnen et al.

ELIC=python:docs/examples/elic.py:Elic
taskpress train scenes codec.architecture=$ELIC codec.init=null --only task -o runs/elic
taskpress evaluate $ELIC:runs/elic/codecs/scenes-task-q1.safetensors …
"""

from torch import nn

from taskpress.coding.layers import AttentionBlock, conv, deconv
from taskpress.coding.models import JointAutoregressive


class Bottleneck(nn.Module):
    """1×1 to half the width, 3×3, 1×1 back, and the input beside it."""

    def __init__(self, width):
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(
            nn.Conv2d(width, half, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, width, 1),
        )

    def forward(self, x):
        return x + self.body(x)


def blocks(width):
    return [Bottleneck(width) for _ in range(3)]


class Elic(JointAutoregressive):
    """g_a and g_s of He et al. (arXiv:2203.10886), figure 2; the rest is JointAutoregressive's."""

    def __init__(self, N, M):
        super().__init__(N, M)
        self.g_a = nn.Sequential(
            conv(3, N),
            *blocks(N),
            conv(N, N),
            *blocks(N),
            AttentionBlock(N),
            conv(N, N),
            *blocks(N),
            conv(N, M),
            AttentionBlock(M),
        )
        self.g_s = nn.Sequential(
            AttentionBlock(M),
            deconv(M, N),
            *blocks(N),
            deconv(N, N),
            AttentionBlock(N),
            *blocks(N),
            deconv(N, N),
            *blocks(N),
            deconv(N, 3),
        )
