"""Weights on disk: our safetensors files, and CompressAI checkpoints by their names."""

import difflib
import json
import os
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from taskpress.coding.allocation import Allocator, AllocatorSettings
from taskpress.coding.files import atomic_write
from taskpress.coding.hyperprior import HyperpriorModel
from taskpress.coding.models import ARCHITECTURES, SQUARE_ARCHITECTURES
from taskpress.coding.named_allocators import build_allocator
from taskpress.coding.own_architecture import build_own, name_architecture
from taskpress.errors import CodecError, suggestion
from taskpress.own_code import PREFIX, argument_of, is_own

FORMAT = "taskpress-codec"
FORMAT_VERSION = "1"
SHIPPED = Path(__file__).parent.parent / "weights"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt")
ALLOCATOR_PREFIX = "allocator."

Module = TypeVar("Module", bound=nn.Module)

# What CompressAI stores but derives from the rest: coder tables, bounds, masks.
DERIVED = re.compile(
    r"(_quantized_cdf|_offset|_cdf_length|\.scale_table|\.scale_bound|\.target|\.bound|\.pedestal"
    r"|context_prediction\.mask)$"
)
# CompressAI's first releases named these differently, and its published weights still do.
OLD_BOTTLENECK = re.compile(r"entropy_bottleneck\._(matri|bias|factor)(?:x|ces|es|s)?\.?(\d)$")
NEW_BOTTLENECK = {"matri": "matrices", "bias": "biases", "factor": "factors"}


class Checkpoint(NamedTuple):
    """What a file holds: everything needed to build a codec, values as they will be used (float32).

    An allocator's weights are in `state` too, their names begun with ALLOCATOR_PREFIX.
    """

    architecture: str
    channels: int
    latent_channels: int
    state: dict[str, Tensor]
    card: dict[str, Any]
    allocator: AllocatorSettings | None = None


def build_model(architecture: str, channels: int, latent_channels: int, origin: str) -> HyperpriorModel:
    """A model with fresh weights; CodecError, its message starting with `origin`, for what does not exist."""
    own = is_own(architecture)
    if not own and architecture not in ARCHITECTURES:
        hint = suggestion(architecture, ARCHITECTURES)
        raise CodecError(f"{origin}: no architecture is named '{architecture}'; {hint}")
    if not 2 <= channels <= 4096 or not 2 <= latent_channels <= 4096:
        raise CodecError(f"{origin}: channels {channels}, {latent_channels} are not between 2 and 4096")
    if architecture in SQUARE_ARCHITECTURES and latent_channels != channels:
        raise CodecError(f"{origin}: {architecture} needs {channels} latent channels, not {latent_channels}")
    if own:
        return build_own(architecture, channels, latent_channels, origin)
    return ARCHITECTURES[architecture](channels, latent_channels)


def restore_model(checkpoint: Checkpoint, origin: str) -> HyperpriorModel:
    """The model of a checkpoint; CodecError names the first weight that is missing, unknown or misshapen.

    Names and shapes are compared before anything of the claimed size is allocated, and the global random
    generator is left as it was.
    """
    architecture, channels, latent_channels, state, _, allocator = checkpoint
    if allocator is not None:
        state = {key: value for key, value in state.items() if not key.startswith(ALLOCATOR_PREFIX)}
    build = lambda: build_model(architecture, channels, latent_channels, origin)  # noqa: E731
    return _restore(build, state, architecture, origin)


def restore_allocator(checkpoint: Checkpoint, origin: str) -> Allocator | None:
    """The allocator of a checkpoint, if it has one; as careful as `restore_model`."""
    settings = checkpoint.allocator
    if settings is None:
        return None
    prefix = ALLOCATOR_PREFIX
    state = {key.removeprefix(prefix): v for key, v in checkpoint.state.items() if key.startswith(prefix)}
    build = lambda: build_allocator(settings, checkpoint.latent_channels, origin)  # noqa: E731
    return _restore(build, state, f"{settings.kind} allocator", origin)


def _restore(build: Callable[[], Module], state: dict[str, Tensor], what: str, origin: str) -> Module:
    try:
        with torch.device("meta"):
            own = build().state_dict()
    except CodecError:
        if not is_own(what):
            raise
        # Code of a user's own may compute with its weights as it makes them.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            own = build().state_dict()
    for kind, keys in (("lacks", own.keys() - state.keys()), ("has unknown", state.keys() - own.keys())):
        if keys:
            raise CodecError(f"{origin}: {kind} weight {min(keys)!r} (of {len(keys)}); it is no {what}")
    for key, tensor in own.items():
        if state[key].shape != tensor.shape:
            shapes = f"{tuple(state[key].shape)} where {tuple(tensor.shape)} belongs"
            raise CodecError(f"{origin}: weight {key!r} has shape {shapes}")
        if not torch.isfinite(state[key]).all():
            raise CodecError(f"{origin}: weight {key!r} holds values that are not finite")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        module = build().float()
    module.load_state_dict(state)
    return module


def write_codec(path: Path, checkpoint: Checkpoint, half: bool) -> None:
    """Writes a safetensors file, atomically.

    `half` stores the transforms in float16; so are those that lose nothing by it, having come from such a
    file.
    """
    if Path(path).suffix in CHECKPOINT_SUFFIXES:
        raise CodecError(f"{path}: codecs are saved as safetensors; name it {Path(path).stem}.safetensors")
    weights = {key: _widened(tensor.detach().cpu()) for key, tensor in checkpoint.state.items()}
    # Whole numbers stay exact, and the bottleneck, which is small: its tails decide what rare values cost.
    transforms = [
        key
        for key, tensor in weights.items()
        if tensor.is_floating_point() and not key.startswith("entropy_bottleneck.")
    ]
    half = half or all(weights[key].equal(weights[key].half().float()) for key in transforms)
    tensors = {}
    for key, tensor in weights.items():
        narrow = half and key in transforms
        # A copy of its own, where layers share weights.
        tensors[key] = (tensor.half() if narrow else tensor).clone(memory_format=torch.contiguous_format)
        if not torch.isfinite(tensors[key]).all():
            raise CodecError(
                f"{path}: weight {key!r} is not finite{' in float16' if narrow else ''}; not saved"
            )
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "architecture": checkpoint.architecture,
        "channels": str(checkpoint.channels),
        "latent_channels": str(checkpoint.latent_channels),
        "card": _card_text(checkpoint.card, path),
    }
    if checkpoint.allocator is not None:
        metadata["allocator"] = json.dumps(asdict(checkpoint.allocator))
    try:
        atomic_write(Path(path), _sorted_header(save(tensors, metadata)))
    except OSError as error:
        raise CodecError(f"{path}: cannot be written ({error.strerror or error})") from error


def _widened(tensor: Tensor) -> Tensor:
    """In float32; whole numbers (counters and indices of a user's own layers) as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _card_text(card: object, path: Path) -> str:
    try:
        return json.dumps(card, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CodecError(f"{path}: the card is no JSON object ({error}); not saved") from None


def _sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its metadata in order; the library's order changes with every run."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def shipped_names() -> list[str]:
    """Names of the codecs that come with the package, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors") if _is_codec(path))


def read_checkpoint(name: str | Path) -> Checkpoint:
    """Reads a codec by shipped name or by path (.safetensors of ours, or a CompressAI checkpoint), or by path
    and the code of its architecture: `python:FILE.py:CLASS:PATH`.

    CodecError, in one line, for everything that is not one.
    """
    if is_own(str(name)):
        return _read_own(str(name))
    path = Path(name)
    if not os.path.isfile(path):  # noqa: PTH113 - False for names that no file can have, too
        shipped = SHIPPED / f"{name}.safetensors"
        if "/" not in str(name) and os.path.isfile(shipped):  # noqa: PTH113
            path = shipped
        else:
            raise CodecError(_missing(str(name), path))
    if path.stat().st_size == 0:
        raise CodecError(f"{path}: is empty")
    return read_torch(path) if path.suffix in CHECKPOINT_SUFFIXES else read_codec(path)


def _read_own(name: str) -> Checkpoint:
    file = argument_of(name)
    if file is None:
        raise CodecError(f"{name}: names no codec; write {PREFIX}FILE.py:CLASS:CODEC.safetensors")
    architecture = name_architecture(name.removesuffix(f":{file}"))
    checkpoint = read_checkpoint(file)
    if checkpoint.architecture != architecture:
        raise CodecError(f"{file}: its architecture is {checkpoint.architecture}, not {architecture}")
    return checkpoint


def _missing(name: str, path: Path) -> str:
    if os.path.isdir(path):  # noqa: PTH112
        return f"{name}: is a folder, not a codec file"
    known = shipped_names()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
    hint = f"shipped codecs are {', '.join(near)}" if near else "no codec is shipped under that name"
    return f"{name}: no such file; {hint}"


def _is_codec(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def read_codec(path: Path) -> Checkpoint:
    """Reads a file that `write_codec` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CodecError(f"{path}: is a safetensors file but holds no TaskPress codec")
            if metadata.get("format_version") != FORMAT_VERSION:
                version = metadata.get("format_version")
                raise CodecError(f"{path}: codec format {version} is not {FORMAT_VERSION}; upgrade TaskPress")
            # float16 storage widens to float32 here, so that a codec is the same however it was stored.
            state = {key: _widened(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CodecError(f"{path}: is no safetensors codec ({error})") from error
    try:
        channels, latent_channels = int(metadata["channels"]), int(metadata["latent_channels"])
        architecture, card = metadata["architecture"], json.loads(metadata["card"])
        # Half a surrogate pair is valid JSON that no file takes: found now, not when the codec is saved.
        json.dumps(card, ensure_ascii=False).encode()
        allocator = _allocator_settings(metadata["allocator"]) if "allocator" in metadata else None
    except (KeyError, ValueError, RecursionError) as error:
        raise CodecError(f"{path}: codec metadata is damaged ({error})") from error
    if not isinstance(card, dict):
        raise CodecError(f"{path}: codec metadata is damaged (the card is no object)")
    return Checkpoint(architecture, channels, latent_channels, state, card, allocator)


def _allocator_settings(text: str) -> AllocatorSettings:
    """The settings in JSON; ValueError where that holds anything else."""
    try:
        settings = AllocatorSettings(**json.loads(text))
    except TypeError as error:
        raise ValueError(f"allocator: {error}") from error
    sizes = (settings.levels, settings.width, settings.classes)
    if not isinstance(settings.kind, str) or any(type(size) is not int for size in sizes):
        raise ValueError(f"allocator: {text}")
    return settings


def read_torch(path: Path) -> Checkpoint:
    """Reads a CompressAI checkpoint: a state dict, bare or under "state_dict", of one of the four models."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text proposes to run whatever code the file holds.
        raise CodecError(
            f"{path}: is no checkpoint of weights alone; write one with codec.save('….safetensors'), or "
            "torch.save(model.state_dict(), …)"
        ) from error
    except Exception as error:  # the unpickler's of damaged files: KeyError, IndexError, AssertionError, …
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise CodecError(f"{path}: is no checkpoint, or a damaged one ({reason})") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise CodecError(f"{path}: holds no state dict")
    state = {}
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise CodecError(f"{path}: holds no state dict (entry {key!r} is no tensor)")
        # Of torch.compile, DistributedDataParallel and `Codec`, whose model has the names that all share.
        for prefix in ("_orig_mod.", "module.", "model."):
            key = key.removeprefix(prefix)
        if key.startswith(ALLOCATOR_PREFIX):
            raise CodecError(f"{path}: holds an allocator's weights without its settings; use codec.save()")
        key = key.replace(".downsample.", ".skip.")
        key = OLD_BOTTLENECK.sub(lambda old: f"entropy_bottleneck.{NEW_BOTTLENECK[old[1]]}.{old[2]}", key)
        if not DERIVED.search(key):
            state[key] = tensor.to(torch.float32)
    architecture, channels, latent_channels = infer_architecture(state, path)
    return Checkpoint(architecture, channels, latent_channels, state, {"origin": path.name})


def infer_architecture(state: Mapping[str, Tensor], path: Path) -> tuple[str, int, int]:
    """(architecture, N, M) of a state dict in CompressAI's names."""
    state = {key: tensor for key, tensor in state.items() if tensor.dim()}
    if "g_a.0.conv1.weight" in state and "context_prediction.weight" in state:
        attention = "g_a.8.conv_a.0.conv.0.weight" in state
        channels = state["g_a.0.conv1.weight"].shape[0]
        return ("cheng2020-attention" if attention else "cheng2020-anchor"), channels, channels
    if {"g_a.0.weight", "g_a.6.weight", "h_s.4.weight"} <= state.keys():
        channels, latent_channels = state["g_a.0.weight"].shape[0], state["g_a.6.weight"].shape[0]
        if "context_prediction.weight" in state:
            return "joint-autoregressive", channels, latent_channels
        if state["h_s.4.weight"].shape[0] == 2 * latent_channels:
            return "mean-scale-hyperprior", channels, latent_channels
    known = ", ".join(ARCHITECTURES)
    raise CodecError(f"{path}: these weights are of none of the known architectures ({known})")
