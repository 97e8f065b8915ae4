"""A quantization level per semantic region, chosen by a policy; after Huang et al., IEEE JSAC 41(1), 2023.

A light segmentation network gives every latent cell a class; the cells of one class are a region. A policy
sees what kind of region it is and chooses its level. docs/alternatives.md says what was taken from the paper
and where this differs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taskpress.coding.allocation import Allocator, AllocatorSettings, CellNetwork, Decision

EMBEDDING = 16
HIDDEN = 64
GEOMETRY = 6


class SemanticAllocator(Allocator):
    """Classes to regions to levels.

        x ── CellNetwork ──┬── 1×1 ── class logits [B, K+1, h, w] ── argmax ── regions, one per class
                           └── mean over the region ─┐
           embedding of the class, area, centre, ────┴─ 64 ↯ levels ── level of the region
           extent, confidence

    Class K is the background. Outputs: `classes` [B, K+1, h, w] logits, `policy` [B, K+1, levels] logits, and
    where levels are drawn `log_prob` [B], the log-probability of those of all regions present, and `entropy`
    [B], the policy's over these regions. The policy learns from rewards alone: what it sees of the network is
    cut off from gradients. It starts at the middle level with a chance of a half, all others alike.
    """

    def __init__(self, settings: AllocatorSettings, latent_channels: int) -> None:
        super().__init__(settings, latent_channels)
        self.network = CellNetwork(settings.width)
        self.classes = nn.Conv2d(settings.width, settings.classes + 1, 1)
        self.embedding = nn.Embedding(settings.classes + 1, EMBEDDING)
        self.policy = nn.Sequential(
            nn.Linear(EMBEDDING + GEOMETRY + settings.width, HIDDEN),
            nn.LeakyReLU(inplace=True),
            nn.Linear(HIDDEN, settings.levels),
        )
        last = self.policy[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(neutral_logits(settings.levels))

    def forward(self, x: Tensor, explore: torch.Generator | None = None) -> Decision:
        features = self.network(x)
        logits = self.classes(features).float()
        regions = logits.detach().argmax(1)
        descriptors, present = describe(features.detach(), logits.detach(), regions)
        embedded = self.embedding.weight.expand(len(x), -1, -1)
        policy = self.policy(torch.cat((embedded, descriptors), 2)).float()
        chosen = draw(policy, explore)
        levels = chosen.gather(1, regions.flatten(1)).view_as(regions)
        outputs = {"classes": logits, "policy": policy}
        if explore is not None:
            log_probs = F.log_softmax(policy, 2)
            taken = log_probs.gather(2, chosen[..., None])[..., 0]
            outputs["log_prob"] = (taken * present).sum(1)
            outputs["entropy"] = (-(log_probs.exp() * log_probs).sum(2) * present).sum(1)
        return self.decision(levels, self.gains(levels), outputs)


def neutral_logits(levels: int) -> Tensor:
    """[levels]: half of the probability on the middle one, the rest spread evenly."""
    logits = torch.zeros(levels)
    logits[levels // 2] = math.log(levels - 1)
    return logits


def draw(logits: Tensor, explore: torch.Generator | None) -> Tensor:
    """A level per row of logits [..., L]: the likeliest, or one drawn from the generator. int64 [...]."""
    if explore is None:
        return logits.detach().argmax(-1)
    odds = logits.detach().softmax(-1).cpu()
    drawn = torch.multinomial(odds.flatten(0, -2), 1, generator=explore)
    return drawn.view(logits.shape[:-1]).to(logits.device)


def describe(features: Tensor, logits: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """What a policy sees of each region beside its class.

    features [B, C, h, w], class logits [B, K+1, h, w], regions [B, h, w] int64 in 0 … K
    Returns ([B, K+1, 6 + C]: area share, centre and extent in y and x (of a picture of side 1), mean
    confidence, mean features; all 0 for an absent region, and [B, K+1] float: 1 where it is present).
    """
    height, width = regions.shape[1:]
    members = F.one_hot(regions.flatten(1), logits.shape[1]).transpose(1, 2).to(features.dtype)
    count = members.sum(2)
    rows = (torch.arange(height, device=features.device) + 0.5) / height
    columns = (torch.arange(width, device=features.device) + 0.5) / width
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    confidence = logits.softmax(1).amax(1).flatten(1)[..., None]
    seen = torch.cat(
        (places.expand(len(regions), -1, -1), places.square().expand(len(regions), -1, -1), confidence), 2
    )
    means = members @ torch.cat((seen, features.flatten(2).transpose(1, 2)), 2)
    means = means / count.clamp(min=1)[..., None]
    centre, square, rest = means[..., :2], means[..., 2:4], means[..., 4:]
    extent = (square - centre.square()).clamp(min=0).sqrt()
    area = (count / (height * width))[..., None]
    return torch.cat((area, centre, extent, rest), 2), (count > 0).to(features.dtype)
