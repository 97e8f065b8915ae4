"""Segmenters and classifiers: frozen, differentiable, held against the models they wrap."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights
from torchvision.models.segmentation import lraspp_mobilenet_v3_large
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from taskpress.detections import Category
from taskpress.errors import RecognizerError
from taskpress.recognition.classification import Classifier, View, load_classifier
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer
from taskpress.recognition.segmentation import SemanticSegmenter
from taskpress.targets import UNCOUNTED, ClassScores, SemanticMap, Task

SPECS = {
    Task.SEGMENTATION: "lraspp-mobilenet-v3:random",
    Task.CLASSIFICATION: "classify-squeezenet1-1:random",
}


@pytest.fixture(scope="module")
def recognizers() -> dict[Task, Recognizer]:
    return {task: load_recognizer(spec) for task, spec in SPECS.items()}


def pictures(count: int = 2, height: int = 64, width: int = 80) -> list[Tensor]:
    noise = torch.rand(count, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    return list(F.interpolate(noise, size=(height, width), mode="bilinear"))


@pytest.mark.parametrize("task", SPECS)
def test_a_frozen_recognizer_through_which_gradients_flow(
    recognizers: dict[Task, Recognizer], task: Task
) -> None:
    recognizer = recognizers[task]
    assert isinstance(recognizer, Recognizer) and isinstance(recognizer, nn.Module)
    assert (recognizer.task, recognizer.name) == (task, SPECS[task])
    before = {key: value.clone() for key, value in recognizer.state_dict().items()}
    recognizer.train()
    images = [image.requires_grad_() for image in pictures()]
    labels = recognizer.pseudo_labels(pictures(2, 64, 80)[::-1])
    loss = torch.stack(list(recognizer.loss(images, labels).values())).sum()
    loss.backward()
    assert loss > 0
    assert all(image.grad is not None and image.grad.abs().sum() > 0 for image in images)
    assert not any(p.requires_grad or p.grad is not None for p in recognizer.parameters())
    assert not any(module.training for module in recognizer.modules())
    after = recognizer.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    maps = recognizer.features(images)
    assert all(level.ndim == 4 and level.shape[0] == 2 and level.requires_grad for level in maps)
    again = load_recognizer(SPECS[task])
    assert again.fingerprint == recognizer.fingerprint


def test_a_map_is_the_models_best_class(recognizers: dict[Task, Recognizer]) -> None:
    """Oracle: torchvision's model and transforms, called as its documentation says."""
    recognizer = recognizers[Task.SEGMENTATION]
    assert isinstance(recognizer, SemanticSegmenter)
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    model.load_state_dict(recognizer.model.state_dict())
    transforms = get_model_weights("lraspp_mobilenet_v3_large").DEFAULT.transforms(resize_size=None)  # type: ignore[attr-defined]
    for image in (*pictures(), *pictures(1, 50, 33)):
        (found,) = recognizer.predict([image])
        with torch.no_grad():
            expected = model.eval()(transforms(image)[None])["out"][0].argmax(0)
        assert found.labels.dtype == torch.uint8
        assert torch.equal(found.labels.long(), expected)


def test_segmentation_loss_counts_counted_pixels(recognizers: dict[Task, Recognizer]) -> None:
    recognizer = recognizers[Task.SEGMENTATION]
    images = pictures()
    labels = recognizer.pseudo_labels(images[::-1])
    half = [SemanticMap(label.labels.clone()) for label in labels]
    half[0].labels[:32] = UNCOUNTED
    half[1].labels[:] = UNCOUNTED
    assert isinstance(recognizer, SemanticSegmenter)
    logits = recognizer._logits(images[0][None])[:, :, 32:]
    expected = F.cross_entropy(logits, half[0].labels[None, 32:].long())
    assert recognizer.loss(images, half)["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert recognizer.loss(images[1:], half[1:])["cross_entropy"] == 0


def test_a_classifier_looks_as_torchvision_says() -> None:
    """Oracle: the weights' own transforms, on a tensor."""
    for name, height, width in (("resnet18", 300, 451), ("efficientnet_b3", 90, 70)):
        transforms = get_model_weights(name).DEFAULT.transforms()  # type: ignore[attr-defined]
        view = View(transforms.resize_size[0], transforms.crop_size[0], transforms.interpolation.value)
        image = pictures(1, height, width)[0]
        mean, std = (torch.tensor(values)[:, None, None] for values in (transforms.mean, transforms.std))
        assert torch.allclose((view.of(image[None])[0] - mean) / std, transforms(image), atol=1e-5)


def test_a_published_file_is_looked_at_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resnet50.pth"
    torch.save(get_model("resnet50", weights=None).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_recognizer(f"classify-resnet50:{path}").view.resize == 232
    first = get_model_weights("resnet50").IMAGENET1K_V1  # type: ignore[attr-defined]
    monkeypatch.setattr(first.value, "url", f"https://example.org/resnet50-{digest[:8]}.pth")
    assert load_recognizer(f"classify-resnet50:{path}").view.resize == 256


class Brightness(nn.Module):
    """Two classes by the mean of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x).mean((2, 3))


def test_distillation_is_the_divergence_from_the_teacher() -> None:
    torch.manual_seed(0)
    names = (Category(0, "dark"), Category(1, "light"))
    classifier = Classifier(Brightness(), "brightness", names, [0.0] * 3, [1.0] * 3, View(8, 8))
    images = pictures(3, 8, 8)
    own = classifier.pseudo_labels(images)
    assert classifier.loss(images, own)["distillation"].item() == pytest.approx(0, abs=1e-6)
    targets = [ClassScores(torch.tensor([p, 1 - p])) for p in (0.9, 0.2, 1.0)]
    expected = 0.0
    for target, seen in zip(targets, own, strict=True):
        for t, s in zip(target.probabilities.tolist(), seen.probabilities.tolist(), strict=True):
            expected += t * torch.log(torch.tensor(t / s)).item() / 3 if t > 0 else 0
    assert classifier.loss(images, targets)["distillation"].item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(classifier.features(images)[0], classifier.model.scale(torch.stack(images)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file_with_any_number_of_classes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    write: Callable[[dict[str, Tensor], Path], None] = torch.save if suffix == ".pth" else save_file
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    write(model.state_dict(), path)
    loaded = load_recognizer(f"lraspp-mobilenet-v3:{path}")
    assert [c.name for c in loaded.categories] == [f"class {k}" for k in range(5)]
    small = get_model("squeezenet1_1", weights=None, num_classes=7)
    write(small.state_dict(), path)
    classifier = load_recognizer(f"classify-squeezenet1_1:{path}")
    assert len(classifier.categories) == 7
    assert classifier.predict(pictures(1))[0].probabilities.shape == (7,)
    for wrong in ("lraspp-mobilenet-v3", "classify-resnet18"):
        with pytest.raises(RecognizerError, match=rf"weights{suffix}"):
            load_recognizer(f"{wrong}:{path}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lraspp-mobilenet", "did you mean lraspp-mobilenet-v3"),
        ("deeplabv3-r50:COCO", "COCO_WITH_VOC_LABELS_V1"),
        ("classify-resnet19", "did you mean resnet"),
        ("classify-resnet18:none.pth", "none.pth"),
        ("timm-resnet18", r"pip install 'taskpress\[timm\]'"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(
    spec: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RecognizerError, match=message) as raised:
        load_recognizer(spec)
    assert "\n" not in str(raised.value)


def test_weights_that_cannot_be_downloaded_are_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    for spec in ("lraspp-mobilenet-v3", "classify-squeezenet1_1:IMAGENET1K_V1"):
        name = spec.partition(":")[0]
        with pytest.raises(RecognizerError, match=rf"no network\); download https://.*{name}:FILE"):
            load_recognizer(spec)


def test_timms_models_by_their_own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm is optional; a stand-in with the two functions that are used."""

    def create_model(name: str, pretrained: bool, **options: int) -> nn.Module:
        if name != "bright":
            raise RuntimeError(f"Unknown model ({name})")
        assert not pretrained
        model = Brightness()
        model.num_classes = 2  # type: ignore[assignment]
        return model

    timm = ModuleType("timm")
    timm.create_model = create_model  # type: ignore[attr-defined]
    config = {
        "input_size": (3, 12, 12), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.75,
        "interpolation": "bicubic",
    }  # fmt: skip
    timm.data = SimpleNamespace(resolve_model_data_config=lambda model: config)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    classifier = load_recognizer("timm-bright:random")
    assert isinstance(classifier, Classifier)
    assert classifier.view == View(16, 12, "bicubic")
    image = pictures(1, 40, 30)[0]
    assert classifier.predict([image])[0].probabilities.sum().item() == pytest.approx(1)
    config["crop_mode"] = "squash"
    squashed = load_recognizer("timm-bright:random")
    assert isinstance(squashed, Classifier)
    # As timm's: both sides scaled, then the middle (by torchvision, which timm uses).
    expected = center_crop(resize(image, [16, 16], InterpolationMode.BICUBIC, antialias=True), [12, 12])
    assert torch.allclose(squashed.view.of(image[None])[0], expected, atol=1e-5)
    assert squashed.fingerprint != classifier.fingerprint
    config["crop_mode"] = "border"
    with pytest.raises(RecognizerError, match="crop mode 'border'"):
        load_recognizer("timm-bright:random")
    del config["crop_mode"]
    with pytest.raises(RecognizerError, match="Unknown model"):
        load_recognizer("timm-dim:random")


def test_every_kind_of_network_has_a_last_map() -> None:
    shapes = {}
    for name in ("squeezenet1_1", "mnasnet0_5", "shufflenet_v2_x0_5"):
        recognizer = load_classifier(f"classify-{name}", "random")
        shapes[name] = recognizer.features(pictures(1))[0].shape[2:]
    assert set(shapes.values()) <= {(13, 13), (7, 7)}
