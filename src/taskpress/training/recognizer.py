"""Trains the shipped `scenes` recognizer from nothing, on scenes it has never seen twice, and exports it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN

from taskpress.coding.errors import ConfigError
from taskpress.datasets.dataset import Sample
from taskpress.datasets.scenes import CATEGORIES, Scenes
from taskpress.recognition.slim_rcnn import slim_rcnn

CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")


@dataclass(frozen=True)
class RecognizerTraining:
    """How the scenes recognizer is trained; the defaults made the shipped one.

    steps, batch:   optimizer steps and scenes in each; scene i of the "train" split is used once
    learning_rate:  peak of a one-cycle schedule (Smith and Topin, 2019) of AdamW
    warm_up:        share of the steps before the peak
    weight_decay, clip: AdamW's decay; largest gradient norm
    seed:           initial weights and sampling of proposals
    save_every:     steps between checkpoints
    """

    steps: int = 2100
    batch: int = 8
    learning_rate: float = 2e-3
    warm_up: float = 0.15
    weight_decay: float = 0.02
    clip: float = 5.0
    seed: int = 0
    save_every: int = 100


def train(settings: RecognizerTraining, run: Path) -> TorchvisionFasterRCNN:
    """Trains, or goes on from the checkpoint in folder `run`; returns the model in inference mode.

    The folder receives `checkpoint.pt` and `log.csv` (a row a step: the losses). Raises ConfigError when
    the folder holds a run with other settings.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model = slim_rcnn(len(CATEGORIES))
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=settings.warm_up
    )
    start = _resume(run / CHECKPOINT, settings, model, optimizer, schedule)
    model.train()
    with (run / LOG).open("a", newline="") as file:
        log = csv.DictWriter(file, ["step", *LOSSES])
        if start == 0:
            log.writeheader()
        batches = _batches(settings, start)
        for step in track(
            range(start, settings.steps), "training the recognizer", total=settings.steps - start
        ):
            images, targets = next(batches)
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


def _batches(
    settings: RecognizerTraining, start: int
) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    count = settings.steps * settings.batch
    scenes = cast("TorchDataset[Sample]", Scenes("train", count))
    rest = range(start * settings.batch, count)
    return iter(DataLoader(scenes, settings.batch, sampler=rest, num_workers=1, collate_fn=_collate))


def _collate(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images = [torch.from_numpy(sample.image).permute(2, 0, 1).contiguous() / 255 for sample in samples]
    targets = [{"boxes": s.annotations.boxes, "labels": s.annotations.labels + 1} for s in samples]
    return images, targets


def _save(path: Path, settings: RecognizerTraining, step: int, *parts: Any) -> None:
    state = {"settings": asdict(settings), "step": step, "random": torch.get_rng_state()}
    temporary = path.with_suffix(".tmp")
    torch.save(state | {"parts": [part.state_dict() for part in parts]}, temporary)
    temporary.replace(path)


def _resume(path: Path, settings: RecognizerTraining, *parts: Any) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["settings"] != asdict(settings):
        raise ConfigError(f"{path}: a run with other settings ({state['settings']}); choose another folder")
    for part, saved in zip(parts, state["parts"], strict=True):
        part.load_state_dict(saved)
    torch.set_rng_state(state["random"])
    return int(state["step"])
