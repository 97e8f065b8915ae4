"""What frozen networks of whole pictures share: inference mode, a fingerprint, torchvision's by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import WeightsEnum, get_model, get_model_weights

from taskpress.detections import Category
from taskpress.errors import RecognizerError
from taskpress.recognition.frozen_detector import fingerprint
from taskpress.recognition.protocol import freeze
from taskpress.recognition.weight_files import published_as, read_weights, rows

RANDOM = "random"
"""Instead of weights: drawn from a fixed seed, to rehearse with what cannot recognize anything."""


class Loaded(NamedTuple):
    """model: in whatever mode; categories: by output; transforms: torchvision's, of these weights or its
    default ones."""

    model: Any
    categories: tuple[Category, ...]
    transforms: Any


class FrozenModel(nn.Module):
    """A frozen network on normalized pictures.

    model:      takes [B, 3, H, W], normalized with `mean` and `std` of the channels
    name:       how it is named on the command line
    categories: one for each output
    rules:      what decides its outputs beside the weights
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        name: str,
        categories: Sequence[Category],
        mean: Sequence[float],
        std: Sequence[float],
        rules: object = (),
    ) -> None:
        super().__init__()
        self.model: Any = model
        freeze(self)
        self.name = name
        self.categories = tuple(categories)
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)
        own = (type(self).__name__, list(mean), list(std), rules)
        self.fingerprint = fingerprint(model.state_dict(), own)

    def train(self, mode: bool = True) -> FrozenModel:
        """Stays in inference mode whatever is asked: a frozen model has no other."""
        super().train(False)
        return self

    def normalized(self, images: Tensor) -> Tensor:
        """[…, 3, H, W] in [0, 1] as the network takes it."""
        return (images.float() - self.mean) / self.std


def stacked(images: Sequence[Tensor] | Tensor) -> Tensor:
    """Pictures of one size as a batch [B, 3, H, W]."""
    return images if isinstance(images, Tensor) else torch.stack(list(images))


def load_torchvision(name: str, spec: str, weights: str | None, **options: Any) -> Loaded:
    """A model of torchvision by its name there, e.g. "resnet50".

    spec:    how the user named it, for messages
    weights: a file with a state dict of torchvision's layout and any number of outputs; torchvision's own by
             their name ("IMAGENET1K_V2"), downloaded once; "random"; None: torchvision's default
    options: of torchvision's builder, where weights are not torchvision's own

    A file with as many outputs as torchvision's weights has their categories, others "class 0", "class 1", …
    One that is torchvision's own comes with the transforms of those weights, any other with the default's.

    Raises RecognizerError for an unknown name, a file that is missing or does not fit, or a failed download.
    """
    published = dict(get_model_weights(name).__members__)
    shown: Any = published.get(weights or "DEFAULT", published["DEFAULT"])
    names = shown.meta["categories"]
    if weights is None or weights in published:
        model = _downloaded(name, spec, shown)
    elif weights == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = settled(get_model(name, weights=None, **options), _side(shown))
    else:
        path = Path(weights)
        if not path.exists() and path.name == weights and not path.suffix:
            raise RecognizerError(
                f"{spec}: no file and no weights of torchvision's are called '{weights}'; "
                f"there are {', '.join(published)}, {RANDOM}"
            )
        state = read_weights(path)
        key = output_key(lambda count: get_model(name, weights=None, num_classes=count, **options))
        if key not in state:
            raise RecognizerError(f"{path} is no state dict of {spec.partition(':')[0]}: it lacks {key}")
        count = rows(state, key, path)
        shown = published_as(path, published.values()) or shown
        model = get_model(name, weights=None, num_classes=count, **options)
        _fill(model, state, path, spec)
        names = names if count == len(names) else [f"class {number}" for number in range(count)]
    categories = tuple(Category(number, text) for number, text in enumerate(names))
    return Loaded(model, categories, shown.transforms())


def output_key(build: Callable[[int], nn.Module]) -> str:
    """The weight with a row for each class, in state dicts of the models that `build` makes of a count."""
    # No layer but the last has a prime number of outputs of this size.
    state = build(1009).state_dict()
    return [key for key, value in state.items() if key.endswith("weight") and len(value) == 1009][-1]


@torch.no_grad()
def settled(model: nn.Module, side: int = 224) -> nn.Module:
    """Gives batch normalization the statistics of some blurred noise, `side` pixels square.

    Without, a deep network of random weights says the same of every picture, and nothing could be rehearsed.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        noise = F.interpolate(torch.randn(4, 3, 7, 7), size=(side, side), mode="bicubic")
        model.train()(noise)
    return model


def _side(weights: Any) -> int:
    """The side in pixels of the pictures that these weights take."""
    crop = getattr(weights.transforms(), "crop_size", None)
    return int(crop[0]) if crop else 224


def _downloaded(name: str, spec: str, weights: WeightsEnum) -> nn.Module:
    try:
        return get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        raise RecognizerError(
            f"{spec}: torchvision's weights cannot be downloaded ({error}); download {weights.url} elsewhere "
            f"and give the file: {spec.partition(':')[0]}:FILE"
        ) from error


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path, spec: str) -> None:
    # Heads that only train the backbone are in torchvision's files and in no frozen model.
    wanted = model.state_dict().keys()
    kept = {key: value for key, value in state.items() if key in wanted or not key.startswith("aux")}
    try:
        model.load_state_dict(kept)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RecognizerError(
            f"{path} does not fit {spec.partition(':')[0]}: {reason}; name the model it was trained as"
        ) from error
