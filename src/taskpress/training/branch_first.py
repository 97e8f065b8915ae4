"""Auxiliary branches that learn before the codec does, so that their first gradients mean something.

A training of a few thousand steps ends before a fresh branch detects anything, and what it sends back to the
encoder until then is of little use. On the latents of the codec as it begins a branch learns at a fraction
of a training step's cost: no picture is decoded, so the recognizer judges none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from taskpress.coding.codec import Codec
from taskpress.coding.files import atomic_write
from taskpress.training.contents import own_code
from taskpress.training.data import Batch, CropsModule, step_seed
from taskpress.training.module import CodecTraining
from taskpress.training.objective import Objective
from taskpress.training.schedule import scheduled
from taskpress.training.teacher import Teacher
from taskpress.training.trainer import build_trainer, fit, step_of


class BranchTraining(lightning.LightningModule):
    """Trains the branches of `training` on latents of its codec, which stays as it is."""

    def __init__(self, training: CodecTraining) -> None:
        super().__init__()
        first = training.config.objective.auxiliary_first
        assert first is not None
        self.config, self.steps, self.learning_rate = training.config, first.steps, first.learning_rate
        self.placed = training.placed_branches
        self.branches = torch.nn.ModuleList(self.placed.values())
        # Not children: neither trained nor in a checkpoint.
        self._fixed: tuple[Codec, Objective] = (training.codec, training.objective)

    def on_fit_start(self) -> None:
        codec, objective = self._fixed
        codec.to(self.device)
        objective.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        codec, objective = self._fixed
        batch = objective.labelled(batch)
        torch.manual_seed(step_seed(self.config.seed, self.global_step, self.global_rank))
        latent = codec.training_latent(batch.images, self.config.objective.quantization)
        labels = objective.labels_of(batch)
        losses = [
            objective.recognizers[place].weight * part
            for place, branch in self.placed.items()
            for part in branch.loss(
                branch(latent), objective.lesson(branch, place, batch.images, labels)
            ).values()
        ]
        loss = torch.stack(losses).sum()
        self.log("aux", loss.detach(), prog_bar=True, batch_size=len(batch.images))
        return loss

    def configure_optimizers(self) -> Any:
        settings = self.config.optimizer
        optimizer = torch.optim.Adam(self.branches.parameters(), self.learning_rate)
        warmup = min(settings.warmup, self.steps // 10)
        return scheduled(optimizer, settings.model_copy(update={"warmup": warmup}), self.steps)


def teach_branches(
    training: CodecTraining, own: Path, shared: Path, teachers: Sequence[Teacher | None]
) -> None:
    """Lets the branches learn alone, where the configuration says so (`objective.auxiliary_first`).

    own:    folder for checkpoints and logs, resumed, and for what was learned
    shared: there it lies, too, for other trainings of the experiment that begin from the same codec with the
            same branches
    """
    config = training.config
    first = config.objective.auxiliary_first
    if first is None or not training.branches:
        return
    module = BranchTraining(training)
    learned, published = own / "learned.safetensors", shared / f"{_identity(training)}.safetensors"
    # All ranks must find the same: what is published was so before any of them began this training.
    if not (learned.exists() or published.exists()):
        data = CropsModule(config.data.model_copy(update={"batch": first.batch}), config.seed, teachers)
        last = own / "checkpoints" / "last.ckpt"
        title = f"{config.name}: branch"
        trainer = build_trainer(config.trainer, config.optimizer.clip, first.steps, title, own, step_of(last))
        fit(trainer, module, data, last)
        if trainer.is_global_zero:
            content = save(module.branches.cpu().state_dict())
            _write(learned, content)
            if not published.exists():
                _write(published, content)
        trainer.strategy.barrier()
    module.branches.load_state_dict(load_file(learned if learned.exists() else published))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content)


def _identity(training: CodecTraining) -> str:
    """A digest of everything that decides what branches learn alone."""
    config, objective = training.config, training.config.objective
    parts = [
        training.codec.fingerprint,
        [(one.fingerprint, weight) for one, weight in training.objective.recognizers],
        [one.auxiliary for one in config.further],
        config.seed,
        config.data.model_dump(exclude={"batch", "workers", "held_out", "held_out_crops"}),
        config.optimizer.model_dump(include={"warmup", "schedule", "clip"}),
        {"devices": config.trainer.device_count, "precision": config.trainer.precision},
        objective.model_dump(include={"auxiliary", "auxiliary_width", "auxiliary_first", "quantization"}),
    ]
    if "heads" in config.branches:
        # Heads are held against labels, or with soft outputs against the teacher's.
        parts.append(objective.task == "soft")
    parts += sorted(own_code(config).values())
    if config.trainer.nodes != 1:
        parts.append(config.trainer.nodes)
    if objective.labels != "picture":
        parts.append(objective.labels)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
