"""Lightning's Trainer as every training here runs: checkpoints, logs and progress bar in its own folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from taskpress.errors import ConfigError
from taskpress.training.config import TrainerConfig

NEEDLESS = (
    # The crops' module serves trainings of branches, too, which hold nothing out.
    "You passed in a `val_dataloader` but have no `validation_step`",
    # Of a training that is resumed.
    "Checkpoint directory .* exists and is not empty",
)
"""Warnings of Lightning that a user can do nothing about."""


def build_trainer(
    settings: TrainerConfig,
    clip: float | None,
    steps: int = -1,
    title: str = "",
    folder: Path | None = None,
    first_step: int = 0,
    further: Sequence[lightning.Callback] = (),
    accumulate: int = 1,
    holds_out: bool = False,
) -> lightning.Trainer:
    """A trainer that writes into a folder; without one, it only tells devices and ranks. ConfigError for
    settings that Lightning refuses.

    holds_out: whether it looks at held-out crops every `settings.held_out_every` steps
    """
    # Lightning announces devices, sanity of loggers and tips; what a user needs is in the progress bar.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for needless in NEEDLESS:
        warnings.filterwarnings("ignore", needless)
    logs: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    if folder is not None:
        # Opening a log deletes an older one of the same name, so every attempt has its own.
        version = f"from-step-{first_step:06d}"
        checkpoint = _Checkpoint(
            dirpath=folder / "checkpoints",
            filename="last",
            every_n_train_steps=settings.checkpoint_every,
            enable_version_counter=False,
        )
        logs = {
            "logger": [
                logger(folder, name="logs", version=version) for logger in (CSVLogger, TensorBoardLogger)
            ],
            "callbacks": [checkpoint, _Bar(title), *further],
            "log_every_n_steps": settings.log_every,
        }
    try:
        return lightning.Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            precision=settings.precision,
            gradient_clip_val=clip,
            accumulate_grad_batches=accumulate,
            # Counted in batches, through the one epoch of an endless stream.
            val_check_interval=settings.held_out_every * accumulate if holds_out else None,
            check_val_every_n_epoch=None if holds_out else 1,
            limit_val_batches=None if holds_out else 0,
            num_sanity_val_steps=0,
            # Medians that are found while it looks are trained on afterwards.
            inference_mode=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **logs,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"trainer: {error}") from error


def fit(
    trainer: lightning.Trainer,
    module: lightning.LightningModule,
    data: lightning.LightningDataModule,
    last: Path,
) -> None:
    """Trains to the end, from the checkpoint `last` where there is one; KeyboardInterrupt when stopped."""
    trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt


def is_first_rank(trainer: lightning.Trainer) -> bool:
    """Whether this process is the first of those that train together, or the only one.

    A trainer that has not begun yet knows its rank only from torchrun's or a cluster's environment.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return trainer.is_global_zero


class _Checkpoint(ModelCheckpoint):
    """Saves where a step has ended, never between the batches of one: no checkpoint has their gradients."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def on_train_batch_start(self, trainer: lightning.Trainer, *further: Any) -> None:
        # Resumed from where a look at held-out crops was the last thing, Lightning counts one too many.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(self, trainer: lightning.Trainer, *further: Any) -> None:
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            super().on_train_batch_end(trainer, *further)


class _Bar(RichProgressBar):
    """Lightning counts epochs, of which an endless stream of batches has one; here stands what is trained."""

    def __init__(self, title: str) -> None:
        super().__init__(leave=True)
        self.title = title

    def _get_train_description(self, current_epoch: int) -> str:
        return self.title


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint has behind it; 0 where there is none."""
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])
