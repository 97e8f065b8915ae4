"""What names a codec: a digest of how it codes, its architecture and its weights."""

import hashlib
from collections.abc import Iterable, Mapping

import google_crc32c
import torch
from torch import Tensor


def fingerprint(identity: tuple[object, ...], weights: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits: BLAKE2b over `identity` and the weights as little-endian float32, by name."""
    digest = hashlib.blake2b(" ".join(map(str, identity)).encode(), digest_size=8)
    for key, tensor in sorted(weights.items()):
        values = tensor.detach().to("cpu").float().contiguous().numpy()
        digest.update(key.encode() + values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def checksum(weights: Iterable[Tensor]) -> int:
    """CRC-32C of all values as they lie in memory: tells whether any has changed, sooner than a digest."""
    total = 0
    for tensor in weights:
        values = tensor.detach()
        if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
            values = values.permute(0, 2, 3, 1)
        flat = values.to("cpu").contiguous().reshape(-1).view(torch.uint8)
        total = google_crc32c.extend(total, flat.numpy().tobytes())
    return total
