"""Classifiers of whole pictures as frozen recognizers: any of torchvision's, any of timm's."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from taskpress.detections import Category
from taskpress.errors import RecognizerError
from taskpress.recognition.frozen_model import (
    RANDOM,
    FrozenModel,
    load_torchvision,
    output_key,
    settled,
    stacked,
)
from taskpress.recognition.protocol import Task
from taskpress.recognition.weight_files import read_weights
from taskpress.targets import ClassScores


class View(NamedTuple):
    """How a classifier looks at a picture: its short side is scaled to `resize`, then the middle is cut out.

    crop: side of the square; interpolation: "bilinear" or "bicubic", antialiased, differentiable;
    squash: whether both sides are scaled to `resize`, whatever their ratio
    """

    resize: int
    crop: int
    interpolation: str = "bilinear"
    squash: bool = False

    def of(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, 3, crop, crop]."""
        height, width = images.shape[-2:]
        short = min(height, width)
        wanted = [self.resize if self.squash else int(self.resize * side / short) for side in (height, width)]
        size = [max(self.crop, side) for side in wanted]
        if size != [height, width]:
            images = F.interpolate(
                images, size=size, mode=self.interpolation, align_corners=False, antialias=True
            )
        top, left = (round((side - self.crop) / 2) for side in size)
        return images[..., top : top + self.crop, left : left + self.crop]


class Classifier(FrozenModel):
    """A frozen network that says what a picture shows; a `Recognizer`.

    model: [B, 3, crop, crop] to [B, K] logits
    view:  what part of a picture it sees, and how large

    The teacher's label of a picture is its whole distribution over classes (Hinton et al., "Distilling the
    knowledge in a neural network", arXiv:1503.02531). In training it looks at the very crop a codec codes.
    """

    task = Task.CLASSIFICATION

    def __init__(
        self,
        model: nn.Module,
        name: str,
        categories: Sequence[Category],
        mean: Sequence[float],
        std: Sequence[float],
        view: View,
    ) -> None:
        super().__init__(model, name, categories, mean, std, tuple(view))
        self.view = view
        # In a tuple, so that it is not registered a second time.
        self._last_map = (_last_map(model, view.crop),)

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor] | Tensor) -> list[ClassScores]:
        """The probabilities of all classes. images: [3, H, W] float in [0, 1], RGB, any sizes."""
        return [ClassScores(self._logits(image[None])[0].softmax(dim=0)) for image in images]

    def pseudo_labels(self, images: Sequence[Tensor] | Tensor) -> list[ClassScores]:
        """The same as `predict`: the probabilities are the label."""
        return self.predict(images)

    def loss(self, images: Sequence[Tensor] | Tensor, targets: Sequence[ClassScores]) -> dict[str, Tensor]:
        """`distillation`: KL(target ‖ seen) of the classes in nats, mean over the batch; 0 where all is seen
        as labelled."""
        seen = self._logits(stacked(images)).log_softmax(dim=1)
        wanted = torch.stack([target.probabilities for target in targets]).to(seen.device)
        return {"distillation": F.kl_div(seen, wanted, reduction="batchmean")}

    def features(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """The last map before pooling, as the network lays it out, e.g. [B, C, h, w]."""
        caught: list[Tensor] = []
        handle = self._last_map[0].register_forward_hook(lambda module, given, out: caught.append(out))
        try:
            self._logits(stacked(images))
        finally:
            handle.remove()
        return [caught[-1].float()]

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.normalized(self.view.of(images.float())))
        return logits.float()


def load_classifier(name: str, weights: str | None = None) -> Classifier:
    """torchvision's classifier `classify-NAME`, e.g. "classify-resnet50"; weights as in `load_torchvision`.

    Raises RecognizerError for an unknown name, weights that are missing or do not fit, or a failed download.
    """
    wanted = name.removeprefix("classify-").replace("-", "_")
    known = torchvision.models.list_models(module=torchvision.models)
    if wanted not in known:
        nearest = difflib.get_close_matches(wanted, known, n=3, cutoff=0.3)
        raise RecognizerError(
            f"torchvision has no classifier '{wanted}'; did you mean {', '.join(nearest) or 'resnet50'}?"
        )
    spec = name if weights is None else f"{name}:{weights}"
    loaded = load_torchvision(wanted, spec, weights)
    if hasattr(loaded.model, "transform_input"):
        # Inception and GoogLeNet: torchvision's weights were trained on pictures normalized in another way.
        loaded.model.transform_input = weights != RANDOM
    shown = loaded.transforms
    view = View(shown.resize_size[0], shown.crop_size[0], shown.interpolation.value)
    return Classifier(loaded.model, spec, loaded.categories, shown.mean, shown.std, view)


def load_timm(name: str, weights: str | None = None) -> Classifier:
    """timm's classifier `timm-NAME`, e.g. "timm-resnet18.a1_in1k".

    weights: a file with a state dict of timm's layout and any number of classes; "random"; None: timm's own,
        downloaded once
    Classes are "class 0", "class 1", …, or the names that the weights' card lists.

    Raises RecognizerError where timm is not installed, for an unknown name, weights that are missing or do
    not fit, or a failed download.
    """
    spec = name if weights is None else f"{name}:{weights}"
    try:
        timm: Any = import_module("timm")
    except ImportError:
        raise RecognizerError(f"{spec}: timm is not installed; pip install 'taskpress[timm]'") from None
    state = read_weights(Path(weights)) if weights not in (None, RANDOM) else None
    wanted = name.removeprefix("timm-")
    try:
        options = {}
        if state is not None:
            key = output_key(lambda count: timm.create_model(wanted, num_classes=count))
            options["num_classes"] = len(state[key])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = timm.create_model(wanted, pretrained=weights is None, **options)
            shown = timm.data.resolve_model_data_config(model)
            if weights == RANDOM:
                settled(model, shown["input_size"][-1])
        if state is not None:
            model.load_state_dict(state)
    except Exception as error:  # timm passes on whatever the hub, its registry and torch raise
        reason = " ".join(str(error).split())[:200]
        raise RecognizerError(
            f"{spec}: {reason}; give a name of timm.list_models() and, without a network, a file: {name}:FILE"
        ) from error
    crop = shown["input_size"][-1]
    resize = int(crop / shown.get("crop_pct", 1.0))
    names = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    if not names or len(names) != model.num_classes:
        names = [f"class {number}" for number in range(model.num_classes)]
    categories = [Category(number, text) for number, text in enumerate(names)]
    interpolation = "bilinear" if shown.get("interpolation") == "bilinear" else "bicubic"
    mode = shown.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise RecognizerError(
            f"{spec}: looks at pictures in timm's crop mode {mode!r}, which is not known here; choose a "
            "model of mode center or squash, or wrap it in a class of your own (python:FILE.py:CLASS)"
        )
    view = View(resize, crop, interpolation, squash=mode == "squash")
    return Classifier(model, spec, categories, shown["mean"], shown["std"], view)


@torch.no_grad()
def _last_map(model: nn.Module, side: int) -> nn.Module:
    """The module whose output is the last that still knows places: [B, ·, ·, ·], or tokens [B, n, C]."""
    found: list[nn.Module] = []

    def watch(module: nn.Module, given: Any, out: Any) -> None:
        if isinstance(out, Tensor) and (
            (out.ndim == 4 and min(out.shape[2:]) > 1) or (out.ndim == 3 and out.shape[1] > 1)
        ):
            found.append(module)

    handles = [module.register_forward_hook(watch) for module in model.modules() if module is not model]
    try:
        parameter = next(model.parameters())
        model(torch.zeros(1, 3, side, side, device=parameter.device))
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise RecognizerError(f"{type(model).__name__} has no map of places before its classes")
    return found[-1]
