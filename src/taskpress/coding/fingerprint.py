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


def mark(tensor: Tensor) -> tuple[object, ...]:
    """What shows at once that a tensor is another: in-place changes raise its version, moving or replacing it
    changes its address. What is done through `.data`, or to inference tensors, shows in the values alone."""
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), tensor.device, tensor.dtype, version


def checksum(weights: Iterable[Tensor]) -> tuple[int, ...]:
    """A checksum of all values as they lie in memory: tells whether any has changed, sooner than a digest.

    CRC-32C on the CPU. Elsewhere a weighted sum, made where the weights are, so that one number of each
    travels and not all of them; it tells any single change for certain, and others but for chance.
    """
    total, sums = 0, []
    for tensor in weights:
        values = tensor.detach()
        if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
            values = values.permute(0, 2, 3, 1)
        flat = values.contiguous().reshape(-1).view(torch.uint8)
        if flat.device.type == "cpu":
            total = google_crc32c.extend(total, flat.numpy().tobytes())
        else:
            sums.append(weighted_sum(flat))
    return (total, *(torch.stack(sums).tolist() if sums else ()))


def weighted_sum(data: Tensor) -> Tensor:
    """int64 scalar of uint8 [n], on its device: Σ (2i + 1) w_i modulo 2^64 over words w_i of four bytes.

    Odd factors lose no bit of a word modulo 2^64, so a change of one word changes the sum.
    """
    words = torch.nn.functional.pad(data, (0, -len(data) % 4)).view(torch.int32).to(torch.int64)
    factors = torch.arange(1, 2 * len(words), 2, device=data.device)
    return (words * factors).sum()
