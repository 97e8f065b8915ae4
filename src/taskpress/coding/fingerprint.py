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


def sample(weights: Iterable[Tensor]) -> bytes:
    """Some values of every tensor, evenly spaced: a change that leaves them all alone is not seen."""
    flat = (tensor.detach().reshape(-1) for tensor in weights)
    some = [values[:: max(1, len(values) // SAMPLE)].float() for values in flat]
    return torch.cat(some).cpu().numpy().tobytes()
