"""Runs trainings: one, or all arms and rates of an experiment, each resumed where a checkpoint lies."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from taskpress.coding.codec import Codec
from taskpress.coding.errors import ConfigError
from taskpress.coding.files import atomic_write
from taskpress.recognition.named import load_recognizer
from taskpress.training.config import Preset, RunConfig, expand
from taskpress.training.data import CropsModule
from taskpress.training.module import CodecTraining
from taskpress.training.teacher import Teacher
from taskpress.version import __version__


def codec_path(folder: Path, config: RunConfig) -> Path:
    """Where a finished training leaves its codec: RUN/codecs/NAME.safetensors."""
    return folder / "codecs" / f"{config.name}.safetensors"


def train_experiment(
    preset: Preset, folder: Path, only: Sequence[str] = (), limit_steps: int | None = None, command: str = ""
) -> list[Path]:
    """Trains the start, then every arm at every rate from it; finished trainings are not repeated.

    folder:      holds preset.yaml, one folder per training, and codecs/
    only:        trainings to run now, by `start`, arm (`task+aux`) or name (`aux-q2`); none: all. Several
                 processes may share a folder when each has its own part of the trainings.
    limit_steps: stops each training after so many steps: a rehearsal
    Returns the codecs' files. Raises ConfigError when a training in the folder began with other settings.
    """
    runs = preset.runs()
    chosen = _choose(runs, only)
    start = runs[0] if preset.start is not None else None
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "preset.yaml", yaml.safe_dump(preset.model_dump(), sort_keys=False).encode())
    codecs = []
    for config in chosen:
        target = codec_path(folder, config)
        initial = None
        if start is not None and config is not start:
            _claim(folder, start)
            initial = codec_path(folder, start)
            if not initial.exists():
                raise ConfigError(f"{initial}: the start is not trained yet; run it first with --only start")
        _claim(folder, config)
        if not target.exists():
            _train(config, folder / config.short_name, initial, target, limit_steps, command)
        codecs.append(target)
    return codecs


def _train(
    config: RunConfig, folder: Path, initial: Path | None, target: Path, limit_steps: int | None, command: str
) -> None:
    recognizer = load_recognizer(expand(config.recognizer)) if config.recognizer is not None else None
    needs_labels = config.objective.alpha > 0 or config.objective.task in ("outputs", "both")
    data = CropsModule(config.data, config.seed, Teacher(recognizer) if recognizer and needs_labels else None)
    steps = training_steps(config, len(data.pictures))
    module = CodecTraining(config, steps, _initial_codec(config, initial), recognizer)
    checkpoint = ModelCheckpoint(
        dirpath=folder / "checkpoints",
        filename="last",
        every_n_train_steps=config.trainer.checkpoint_every,
        enable_version_counter=False,
    )
    # Lightning announces devices, sanity of loggers and tips; what a user needs is in the progress bar.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trainer = lightning.Trainer(
        max_steps=min(steps, limit_steps or steps),
        max_epochs=-1,
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        precision=config.trainer.precision,  # type: ignore[arg-type] # Lightning checks it and says what it takes
        gradient_clip_val=config.optimizer.clip,
        log_every_n_steps=config.trainer.log_every,
        logger=[
            CSVLogger(folder, name="logs", version=""),
            TensorBoardLogger(folder, name="logs", version=""),
        ],
        callbacks=[checkpoint, _Bar(config.name)],
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    resumed = folder / "checkpoints" / "last.ckpt"
    trainer.fit(module, data, ckpt_path=resumed if resumed.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        _export(module.codec, config, target, trainer.global_step, initial, command)


class _Bar(RichProgressBar):
    """Lightning counts epochs, of which an endless stream of batches has one; here stands what is trained."""

    def __init__(self, title: str) -> None:
        super().__init__(leave=True)
        self.title = title

    def _get_train_description(self, current_epoch: int) -> str:
        return self.title


def training_steps(config: RunConfig, pictures: int) -> int:
    """Steps of a training that is told in epochs: passes over `pictures`, in batches."""
    if config.optimizer.steps is not None:
        return config.optimizer.steps
    assert config.optimizer.epochs is not None
    return math.ceil(config.optimizer.epochs * pictures / config.data.batch)


def _initial_codec(config: RunConfig, initial: Path | None) -> Codec:
    source = str(initial) if initial is not None else config.codec.init
    if source is None:
        return Codec.create(
            config.codec.architecture, config.codec.channels, config.codec.latent_channels, seed=config.seed
        )
    codec = Codec.load(source)
    if codec.architecture != config.codec.architecture:
        raise ConfigError(
            f"{source}: is a {codec.architecture}, the preset asks for a {config.codec.architecture}"
        )
    return codec


def _export(
    codec: Codec, config: RunConfig, target: Path, steps: int, initial: Path | None, command: str
) -> None:
    card = {
        "name": config.name,
        "arm": config.arm,
        "quality": config.quality,
        "steps": steps,
        "initial": initial.stem if initial is not None else config.codec.init,
        "command": command,
        "config": config.model_dump(),
        "versions": {
            "taskpress": __version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    codec.cpu().save(target, half=config.codec.half, card=card)


def _choose(runs: list[RunConfig], only: Sequence[str]) -> list[RunConfig]:
    known = [run.short_name for run in runs]
    for word in only:
        if word not in known and word not in {run.arm for run in runs}:
            raise ConfigError(f"--only {word}: no such training; the preset has {', '.join(known)}")
    return [run for run in runs if not only or run.arm in only or run.short_name in only]


def _claim(folder: Path, config: RunConfig) -> None:
    """Writes the settings of a training into its folder; refuses one that was trained with others."""
    path = folder / config.short_name / "config.yaml"
    wanted = config.model_dump()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, yaml.safe_dump(wanted, sort_keys=False).encode())
        return
    there = yaml.safe_load(path.read_text())
    if not isinstance(there, dict):
        raise ConfigError(f"{path}: is damaged; remove its folder to train anew")
    differing = [key for key in wanted if key != "trainer" and wanted[key] != there.get(key)]
    if differing:
        raise ConfigError(f"{path}: this training began with another `{differing[0]}`; choose another -o")
