"""A short training of every task lowers its task loss and its auxiliary loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from taskpress.auxiliary.named import FITTING, build_auxiliary
from taskpress.coding.codec import Codec
from taskpress.coding.images import to_tensor
from taskpress.datasets.scenes import Scenes
from taskpress.detections import Category, Crop
from taskpress.errors import ConfigError
from taskpress.recognition.classification import Classifier, View
from taskpress.recognition.frozen_model import FrozenModel
from taskpress.recognition.protocol import Recognizer
from taskpress.recognition.segmentation import SemanticSegmenter
from taskpress.targets import Task
from taskpress.training import run
from taskpress.training.config import Preset
from taskpress.training.data import Batch
from taskpress.training.objective import Objective, Weighted
from taskpress.training.objective_config import ObjectiveConfig
from taskpress.training.teacher import Teacher

GREY = ([0.5] * 3, [0.25] * 3)
COLOURS = tuple(Category(k, name) for k, name in enumerate(("dark", "red", "green", "blue")))


class Colours(nn.Module):
    """Logits for which colour is strongest, blurred over 9 pixels: a network small enough to see through."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(9, 1, padding=4)
        self.classify = nn.Conv2d(3, 4, 1)
        self.pooled = pooled
        weight = 3.0 * torch.tensor([[-0.5] * 3, [2.0, -1, -1], [-1.0, 2, -1], [-1.0, -1, 2]])
        self.classify.weight.data = weight[..., None, None]
        self.classify.bias.data.zero_()

    def backbone(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.blur(images)}

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        logits = self.classify(self.blur(images))
        return logits.mean(dim=(2, 3)) if self.pooled else {"out": logits}


def segmenter() -> SemanticSegmenter:
    return SemanticSegmenter(Colours(pooled=False), "colours", COLOURS, *GREY)


def classifier() -> Classifier:
    return Classifier(Colours(pooled=True), "colours", COLOURS, *GREY, View(48, 48))


RECOGNIZERS = {Task.SEGMENTATION: segmenter, Task.CLASSIFICATION: classifier}


def crops(recognizer: Recognizer, cache: Path) -> Batch:
    """Two crops of scenes with the teacher's labels, as a training gets them."""
    teacher, scenes = Teacher(recognizer, cache), Scenes("train", 2, size=96)
    window = Crop(16, 8, 64, 64)
    images = [to_tensor(scenes[i].image[8:72, 16:80].copy()) for i in range(2)]
    labels = [teacher.labels(scenes[i].image).cropped(window, flip=False) for i in range(2)]
    return Batch(torch.stack(images), [labels])


@pytest.mark.parametrize("task", RECOGNIZERS)
def test_a_short_training_lowers_both_losses(task: Task, tmp_path: Path) -> None:
    torch.manual_seed(0)
    recognizer = RECOGNIZERS[task]()
    kind = next(kind for kind, tasks in FITTING.items() if task in tasks)
    codec = Codec.create("mean-scale-hyperprior", 8, 12, seed=0).train()
    branch = build_auxiliary(kind, codec.latent_channels, len(recognizer.categories), width=8, task=task)
    objective = Objective(ObjectiveConfig(task="outputs", alpha=1.0), 100.0, [Weighted(recognizer)])
    batch = crops(recognizer, tmp_path)
    optimizer = torch.optim.Adam([*codec.parameters(), *branch.parameters()], lr=5e-3)
    history = []
    for _ in range(40):
        terms = objective(batch, codec.estimate(batch.images), {0: branch})
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        history.append((terms["task"].item(), terms["aux"].item()))
    first, last = torch.tensor(history[:5]).mean(0), torch.tensor(history[-5:]).mean(0)
    # The auxiliary loss cannot fall below the entropy of the classes in a cell.
    assert last[0] < 0.8 * first[0] and last[1] < 0.9 * first[1], (first, last)
    assert all(parameter.grad is None for parameter in recognizer.parameters())


@pytest.mark.parametrize(
    ("task", "branch"), [*((task, str(task)) for task in RECOGNIZERS), (Task.SEGMENTATION, "features")]
)
def test_a_preset_trains_it(task: Task, branch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def watched() -> FrozenModel:
        recognizer = RECOGNIZERS[task]()
        label = recognizer.pseudo_labels

        def counts(images: list[Tensor]) -> list:
            asked.append(images[0].shape[-1])
            return label(images)

        monkeypatch.setattr(recognizer, "pseudo_labels", counts)
        return recognizer

    monkeypatch.setattr(run, "load_recognizer", lambda spec: watched())
    monkeypatch.setenv("TASKPRESS_CACHE", str(tmp_path / "cache"))
    settings = {
        "name": "tiny",
        "recognizer": "colours",
        "codec": {"architecture": "mean-scale-hyperprior", "channels": 8, "latent_channels": 12},
        "data": {"sources": ["scenes:2"], "patch": 64},
        "objective": {"task": "both", "auxiliary": branch, "alpha": 0.1},
        "optimizer": {"steps": 3},
        "lambdas": [1.0],
        "arms": {"task+aux": {}},
        "trainer": {"accelerator": "cpu"},
    }
    (codec,) = run.train_experiment(Preset.model_validate(settings), tmp_path / "run")
    assert Codec.load(codec).card["steps"] == 3
    # Pictures are labelled once each, or, where labels are a crop's own, crop by crop.
    assert asked == [64] * 3 if task.labels_crops else [256] * 2
    settings["objective"]["auxiliary"] = "foreground"  # type: ignore[index]
    with pytest.raises(ConfigError, match=f"learns nothing from a recognizer of {task}"):
        run.train_experiment(Preset.model_validate(settings), tmp_path / "other")


def test_classes_are_asked_of_the_crop() -> None:
    recognizer = classifier()
    batch = Batch(torch.rand(2, 3, 64, 64))
    objective = Objective(ObjectiveConfig(task="outputs"), 1.0, [Weighted(recognizer)])
    (labels,) = objective.labelled(batch).labels
    wanted = recognizer.predict(batch.images)
    assert all(torch.equal(a.probabilities, b.probabilities) for a, b in zip(labels, wanted, strict=True))
    silent = Objective(ObjectiveConfig(task="features"), 1.0, [Weighted(recognizer)])
    assert silent.labelled(batch) is batch
