"""Trains the shipped `scenes` recognizer from nothing, on scenes it has never seen twice, and exports it."""

from __future__ import annotations

import csv
import json
import pickle
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN

from taskpress.coding.files import atomic_write
from taskpress.datasets.dataset import Sample
from taskpress.datasets.scenes import CATEGORIES, Scenes
from taskpress.detections import Detections
from taskpress.errors import ConfigError
from taskpress.evaluation.detection_metric import coco_metrics
from taskpress.progress import tracked
from taskpress.recognition.faster_rcnn import SCENES_WEIGHTS, FasterRCNN
from taskpress.recognition.slim_rcnn import slim_rcnn

CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
MIXED = {"float32": False, "bfloat16": True}
VERSIONS = ("numpy", "pillow", "torch", "torchvision")


@dataclass(frozen=True)
class RecognizerTraining:
    """How the scenes recognizer is trained; the defaults made the shipped one.

    steps, batch:   optimizer steps and scenes in each; scene i of the "train" split is used once
    learning_rate:  peak of a one-cycle schedule (Smith and Topin, 2019) of AdamW
    warm_up:        share of the steps before the peak
    weight_decay, clip: AdamW's decay; largest gradient norm
    seed:           initial weights and sampling of proposals
    save_every:     steps between checkpoints
    deeper:         how many times as many residual blocks as the shipped one has (`SlimBackbone`)
    precision:      float32, or bfloat16 for what is multiplied in forward and backward passes
    """

    steps: int = 2100
    batch: int = 8
    learning_rate: float = 2e-3
    warm_up: float = 0.15
    weight_decay: float = 0.02
    clip: float = 5.0
    seed: int = 0
    save_every: int = 100
    deeper: int = 1
    precision: str = "float32"


def train(settings: RecognizerTraining, run: Path) -> TorchvisionFasterRCNN:
    """Trains, or goes on from the checkpoint in folder `run`; returns the model in inference mode.

    The folder receives `checkpoint.pt` and `log.csv` (a row a step: the losses). Raises ConfigError when
    the folder holds a run with other settings, or for an unknown precision.
    """
    if settings.precision not in MIXED:
        raise ConfigError(f"there is no precision {settings.precision!r} here; choose {' or '.join(MIXED)}")
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model = slim_rcnn(len(CATEGORIES), deeper=settings.deeper)
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=MIXED[settings.precision])
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=settings.warm_up
    )
    start, random = _resume(run / CHECKPOINT, settings, model, optimizer, schedule)
    batches = _batches(settings, start)
    if random is not None:
        # Only now, since starting to load data draws from the global state.
        torch.set_rng_state(random)
    model.train()
    if start:
        # Rows after the last checkpoint are of steps that are now taken again.
        rows = (run / LOG).read_text().splitlines(keepends=True)
        (run / LOG).write_text("".join(rows[: start + 1]))
    with (run / LOG).open("a" if start else "w", newline="") as file:
        log = csv.DictWriter(file, ["step", *LOSSES])
        if start == 0:
            log.writeheader()
        for step in tracked(range(start, settings.steps), "training the recognizer"):
            images, targets = next(batches)
            with mixed:
                losses: dict[str, Tensor] = model(images, targets)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            log.writerow({"step": step} | {name: f"{losses[name].item():.5f}" for name in LOSSES})
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                file.flush()
                _save(run / CHECKPOINT, settings, step + 1, model, optimizer, schedule)
    return model.eval()


def evaluate(recognizer: FasterRCNN, images: int) -> dict[str, float]:
    """COCO metrics (0 … 100, see `coco_metrics`) on the first `images` held-out scenes."""
    scenes = Scenes("test", images)
    predictions: list[Detections] = []
    for number in tracked(range(images), "testing it on held-out scenes"):
        predictions += recognizer.predict([_tensor(scenes[number])])
    truth = scenes.coco_ground_truth()
    assert truth is not None
    return coco_metrics(truth, predictions, range(images), recognizer.categories)


def export(
    model: TorchvisionFasterRCNN, settings: RecognizerTraining, folder: Path, command: str, images: int = 300
) -> dict[str, Any]:
    """Writes `scenes-recognizer.safetensors` (float16) and its card `.json` into `folder`; returns the card.

    The figures on the card are those of the file's rounded weights.
    """
    state = {
        key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()
    }
    shipped = slim_rcnn(len(CATEGORIES), deeper=settings.deeper)
    shipped.load_state_dict(state)
    figures = evaluate(FasterRCNN(shipped, "scenes", CATEGORIES), images)
    card = {
        "name": "scenes",
        "task": "detection",
        "architecture": "Faster R-CNN, slim residual backbone with FPN (taskpress.recognition.slim_rcnn)",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "precision": "float16",
        "data": f"scenes, split train, {settings.steps * settings.batch} pictures of 256×256, each used once",
        "training": asdict(settings),
        "command": command,
        "figures": {"images": images, "split": "test"}
        | {key: round(value, 2) for key, value in figures.items()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
    }
    categories = json.dumps([category._asdict() for category in CATEGORIES])
    about = {"format": "pt", "categories": categories, "deeper": str(settings.deeper)}
    atomic_write(folder / SCENES_WEIGHTS, save(state, about))
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    atomic_write((folder / SCENES_WEIGHTS).with_suffix(".json"), text.encode())
    return card


def _batches(
    settings: RecognizerTraining, start: int
) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    count = settings.steps * settings.batch
    scenes = cast("TorchDataset[Sample]", Scenes("train", count))
    rest = range(start * settings.batch, count)
    return iter(DataLoader(scenes, settings.batch, sampler=rest, num_workers=1, collate_fn=_collate))


def _collate(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images = [_tensor(sample) for sample in samples]
    known = [s.annotations for s in samples if isinstance(s.annotations, Detections)]
    targets = [{"boxes": objects.boxes, "labels": objects.labels + 1} for objects in known]
    return images, targets


def _tensor(sample: Sample) -> Tensor:
    return torch.from_numpy(sample.image).permute(2, 0, 1).contiguous() / 255


def _save(path: Path, settings: RecognizerTraining, step: int, *parts: Any) -> None:
    state = {"settings": asdict(settings), "step": step, "random": torch.get_rng_state()}
    temporary = path.with_suffix(".tmp")
    torch.save(state | {"parts": [part.state_dict() for part in parts]}, temporary)
    temporary.replace(path)


def _resume(path: Path, settings: RecognizerTraining, *parts: Any) -> tuple[int, Tensor | None]:
    if not path.exists():
        return 0, None
    try:
        state = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(f"{path}: no checkpoint of a recognizer; choose another folder") from error
    if asdict(RecognizerTraining()) | state["settings"] != asdict(settings):
        raise ConfigError(f"{path}: a run with other settings ({state['settings']}); choose another folder")
    for part, saved in zip(parts, state["parts"], strict=True):
        part.load_state_dict(saved)
    return state["step"], state["random"]
