"""An auxiliary branch of one's own: a blurred map of objects' middles, for each class.

taskpress train scenes arms.task+aux.auxiliary=python:docs/examples/heatmap.py:Heatmap -o runs/heatmap
"""

import torch
from torch.nn import functional as F

from taskpress.auxiliary.branch import AuxiliaryBranch, prediction, stem


class Heatmap(AuxiliaryBranch):
    """After CenterNet (Zhou et al., arXiv:1904.07850): a Gaussian about each middle, as wide as a sixth of
    the box, and the squared error of the map.

    Output: `middles` [B, K, h, w] logits.
    """

    def __init__(self, latent_channels, classes, stride, width):
        super().__init__()
        self.stride = stride
        self.layers = torch.nn.Sequential(stem(latent_channels, width), prediction(width, classes, 0.01))

    def forward(self, latent):
        return {"middles": self.layers(latent)}

    def loss(self, output, targets):
        seen = output["middles"].float().sigmoid()
        wanted = torch.stack([self.map_of(target.to(seen.device), seen) for target in targets])
        return {"middles": F.mse_loss(seen, wanted, reduction="sum") / wanted.sum().clamp(min=1)}

    def map_of(self, target, like):
        height, width = like.shape[2:]
        rows = (torch.arange(height, device=like.device) + 0.5)[:, None] * self.stride
        columns = (torch.arange(width, device=like.device) + 0.5) * self.stride
        wanted = like.new_zeros(like.shape[1:])
        for (left, top, right, bottom), label in zip(target.boxes, target.labels, strict=True):
            across = (columns - (left + right) / 2) / ((right - left) / 6).clamp(min=self.stride / 2)
            down = (rows - (top + bottom) / 2) / ((bottom - top) / 6).clamp(min=self.stride / 2)
            wanted[label] = torch.maximum(wanted[label], torch.exp(-(across**2 + down**2) / 2))
        return wanted
