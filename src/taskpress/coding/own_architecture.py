"""A user's own transforms and hyperprior, by file and class.

A codec's file says only what the class is called: no file makes code run that its user has not named. So code
is named once in a process, `python:FILE.py:CLASS`, or in the environment, and then stands for `python:CLASS`
in files.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from taskpress.coding.entropy_models import EntropyBottleneck, GaussianConditional
from taskpress.coding.fixed_point import SLOPE
from taskpress.coding.grid import CELL, UNIT
from taskpress.coding.hyperprior import HyperpriorModel
from taskpress.coding.layers import MaskedConv2d
from taskpress.coding.streams import is_plain
from taskpress.errors import CodecError, TaskPressError
from taskpress.own_code import PREFIX, OwnCode, is_own, run_own

VARIABLE = "TASKPRESS_ARCHITECTURE"
_named: dict[str, OwnCode] = {}


def name_architecture(spec: str, error: type[TaskPressError] = CodecError) -> str:
    """Runs the file of `python:FILE.py:CLASS` and gives what the architecture is called in files:
    `python:CLASS`. Other names are given back as they are.

    Raises `error`, naming the file and what is amiss, for a file or class that is not there, and a class that
    is no `HyperpriorModel`.
    """
    if not is_own(spec) or spec in _named:
        return spec
    code = run_own(spec, error)
    if not (inspect.isclass(code.cls) and issubclass(code.cls, HyperpriorModel)):
        raise error(
            f"{spec}: {code.name} is no class derived from taskpress.coding.hyperprior.HyperpriorModel"
        )
    if code.argument is not None:
        raise error(f"{spec}: an architecture takes no argument, but N and M alone")
    name = PREFIX + code.name
    other = _named.get(name, code)
    if other.text != code.text and other.spec != spec:
        raise error(f"{spec}: {other.spec} has a class of that name, too; call one of them otherwise")
    _named[name] = code
    return name


def named_architectures() -> list[str]:
    """`python:FILE.py:CLASS` of all whose code has been named, for another process to name them too."""
    return [code.spec for code in _named.values()]


def build_own(architecture: str, channels: int, latent_channels: int, origin: str) -> HyperpriorModel:
    """CLASS(N, M) of an architecture as files call it, with fresh weights.

    CodecError, its message starting with `origin`, where its code has not been named in this process, where
    it cannot be made, and for what cannot be coded (`check_model`).
    """
    if architecture not in _named:
        for spec in filter(None, os.environ.get(VARIABLE, "").split(";")):
            name_architecture(spec)
    if architecture not in _named:
        name = architecture.removeprefix(PREFIX)
        raise CodecError(
            f"{origin}: its architecture is a class {name} of someone's own; name the code too: "
            f"{PREFIX}FILE.py:{name}:{origin}, or {VARIABLE}={PREFIX}FILE.py:{name} in the environment"
        )
    code = _named[architecture]
    model: HyperpriorModel = code.make(channels, latent_channels)
    if wrong := next(_faults(model, channels, latent_channels), None):
        raise CodecError(f"{code.spec}: {wrong}")
    return model


def _faults(model: HyperpriorModel, channels: int, latent_channels: int) -> Iterator[str]:
    """Why files cannot be coded by a model: what decides probabilities has to have its arithmetic in whole
    numbers, and cells their size."""
    if (channels, latent_channels) != (model.N, model.M):
        yield f"it has N = {model.N}, M = {model.M} where {channels}, {latent_channels} were asked for"
    for part in ("g_a", "g_s", "h_a", "h_s"):
        if not isinstance(getattr(model, part, None), nn.Module):
            yield f"it has no {part}"
    yield from _layers(model.h_s, "h_s", (nn.Conv2d, nn.ConvTranspose2d, nn.LeakyReLU, nn.PixelShuffle))
    bottleneck, conditional = model.entropy_bottleneck, model.gaussian_conditional
    if type(bottleneck) is not EntropyBottleneck or bottleneck.channels != channels:
        yield f"its entropy_bottleneck is no EntropyBottleneck of {channels} channels"
    if type(conditional) is not GaussianConditional:
        yield "its gaussian_conditional is no GaussianConditional"
    for name, method in vars(HyperpriorModel).items():
        if callable(method) and name != "__init__" and getattr(type(model), name) is not method:
            yield f"it has a {name} of its own, of which files would know nothing"
    context, parameters = model.context_prediction, model.entropy_parameters
    if (context is None) != (parameters is None):
        yield "it has one of context_prediction and entropy_parameters; they go together"
    if context is not None and parameters is not None:
        if type(context) is not MaskedConv2d:
            yield "its context_prediction is no taskpress.coding.layers.MaskedConv2d"
        yield from _layers(parameters, "entropy_parameters", (nn.Conv2d, nn.LeakyReLU))
        kinds = [type(layer) for layer in parameters]
        sizes = {layer.kernel_size for layer in parameters if isinstance(layer, nn.Conv2d)}
        if kinds != [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.LeakyReLU, nn.Conv2d] or sizes != {(1, 1)}:
            yield "its entropy_parameters are no three 1×1 convolutions with a LeakyReLU between each two"
    if bottleneck.quantiles.device.type != "meta":
        training = model.training
        for height, width in ((UNIT, UNIT), (UNIT, 2 * UNIT)):
            yield from _shapes(model.eval(), height, width)
        model.train(training)


def _layers(part: nn.Module, name: str, known: tuple[type[nn.Module], ...]) -> Iterator[str]:
    if type(part) is not nn.Sequential:
        yield f"its {name} is no nn.Sequential"
    for path, layer in part.named_modules(remove_duplicate=False):
        if type(layer) is nn.Sequential:
            continue
        names = ", ".join(kind.__name__ for kind in known)
        if type(layer) not in known:
            yield (
                f"its {name}.{path} is a {type(layer).__name__}; it decides probabilities, so it may be of "
                f"{names} alone, which files can compute exactly"
            )
        if not is_plain(layer):
            yield f"its {name}.{path} has hooks, of which files would know nothing"
        if isinstance(layer, nn.LeakyReLU) and layer.negative_slope != SLOPE:
            yield f"its {name}.{path} has the slope {layer.negative_slope}, not {SLOPE}"
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and (
            layer.groups != 1
            or set(layer.dilation) != {1}
            or layer.padding_mode != "zeros"
            or isinstance(layer.padding, str)
        ):
            yield f"its {name}.{path} has groups, a dilation or a padding other than of zeros"


@torch.no_grad()
def _shapes(model: HyperpriorModel, height: int, width: int) -> Iterator[str]:
    """What a picture of so many pixels comes to."""
    cells = (height // CELL, width // CELL)
    picture, y_shape, wide = (1, 3, height, width), (1, model.M, *cells), (1, 2 * model.M, *cells)
    z_shape = (1, model.N, height // UNIT, width // UNIT)
    way: list[tuple[str, nn.Module, tuple[int, ...], tuple[int, ...]]] = [
        ("g_a", model.g_a, picture, y_shape),
        ("h_a", model.h_a, y_shape, z_shape),
        ("h_s", model.h_s, z_shape, wide),
        ("g_s", model.g_s, y_shape, picture),
    ]
    if model.context_prediction is not None and model.entropy_parameters is not None:
        way.append(("context_prediction", model.context_prediction, y_shape, wide))
        way.append(("entropy_parameters", model.entropy_parameters, (1, 4 * model.M, *cells), wide))
    for name, part, given, wanted in way:
        try:
            out = part(torch.zeros(given))
        except Exception as error:  # whatever a user's layers raise
            yield f"its {name} raises {type(error).__name__} on {list(given)}: {error}"
            return
        if not isinstance(out, Tensor) or tuple(out.shape) != wanted:
            came = list(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
            yield f"its {name} makes {came} of {list(given)}, not {list(wanted)}"
