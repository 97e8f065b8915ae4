"""What names a codec: a digest of how it codes, its architecture and its weights."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

SAMPLE = 64


def fingerprint(identity: tuple[object, ...], weights: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits: BLAKE2b over `identity` and the weights as little-endian float32, by name."""
    digest = hashlib.blake2b(" ".join(map(str, identity)).encode(), digest_size=8)
    for key, tensor in sorted(weights.items()):
        values = tensor.detach().to("cpu").float().contiguous().numpy()
        digest.update(key.encode() + values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def samples(weights: Iterable[Tensor]) -> list[Tensor]:
    """Views of some values of every tensor, evenly spaced in memory."""
    views = []
    for tensor in weights:
        step = max(1, tensor.numel() // SAMPLE)
        if not (tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)):
            tensor = tensor.contiguous()
        views.append(tensor.detach().as_strided((-(-tensor.numel() // step),), (step,)))
    return views


def values_of(views: Iterable[Tensor]) -> bytes:
    """What the views show now: a change that leaves all of it alone is not seen."""
    return torch.cat([view.to(torch.float32) for view in views]).cpu().numpy().tobytes()
