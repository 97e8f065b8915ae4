"""Runs trainings: one, or all arms and rates of an experiment, each resumed where a checkpoint lies."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
import torch
import yaml

from taskpress.coding.codec import Codec
from taskpress.coding.files import atomic_write
from taskpress.coding.own_architecture import name_architecture
from taskpress.errors import ConfigError
from taskpress.own_code import is_own
from taskpress.recognition.named import load_recognizer
from taskpress.training.allocation import give_allocator
from taskpress.training.averaging import WeightAverage
from taskpress.training.branch_first import teach_branches
from taskpress.training.checks import check_losses
from taskpress.training.config import Preset, RunConfig, TrainerConfig, expand
from taskpress.training.contents import by_content, check_contents, contents_of
from taskpress.training.data import CropsModule
from taskpress.training.module import CodecTraining
from taskpress.training.objective import labels_crops
from taskpress.training.settings import read_settings
from taskpress.training.teacher import Teacher
from taskpress.training.trainer import build_trainer, fit, is_first_rank, step_of
from taskpress.version import __version__

OWN_FIELDS = {
    "trainer": {"accelerator", "checkpoint_every", "log_every", "held_out_every"},
    "data": {"workers", "held_out", "held_out_crops"},
}
"""Settings that change how a training runs, not what comes out."""


def codec_path(folder: Path, config: RunConfig) -> Path:
    """Where a finished training leaves its codec: RUN/codecs/NAME.safetensors."""
    return folder / "codecs" / f"{config.name}.safetensors"


def train_experiment(
    preset: Preset,
    folder: str | Path,
    only: Sequence[str] = (),
    limit_steps: int | None = None,
    command: str = "",
) -> list[Path]:
    """Trains the starts, then every arm at every rate from its own; finished trainings are not repeated.

    folder:      holds preset.yaml, one folder per training, and codecs/
    only:        trainings to run now, by `start`, arm (`task+aux`) or name (`aux-q2`); none: all. Several
                 processes may share a folder when each has its own part of the trainings.
    limit_steps: stops each training after so many steps: a rehearsal, whose codecs a later call trains on; a
                 branch that learns first does so in full. Where the start was rehearsed, a later call that
                 trains it on begins its arms anew
    Returns the codecs' files. Raises ConfigError when a training in the folder began with other settings or
    from another codec, and what opening recognizer, pictures and initial codec raises, before it writes.
    """
    folder, codecs = Path(folder), []
    chosen = _choose(preset.runs(), only)
    known = {
        spec: load_recognizer(expand(spec)) for spec in dict.fromkeys(chain(*map(recognizers_of, chosen)))
    }
    for config in chosen:
        check_losses(config, [(spec, known[spec]) for spec in recognizers_of(config)])
    teachers = {spec: Teacher(recognizer) for spec, recognizer in known.items()}
    for config in chosen:
        start = preset.start_of(config)
        initial = codec_path(folder, start) if start is not None else None
        if start is not None and initial is not None and not initial.exists():
            raise ConfigError(
                f"{initial}: the start is not trained yet; run it first with --only {start.short_name}"
            )
        asked = [(spec, teachers[spec]) for spec in recognizers_of(config)]
        codecs.append(_train(config, folder, preset, asked, initial, limit_steps, command))
    return codecs


def recognizers_of(config: RunConfig) -> list[str]:
    """Every recognizer that a training asks, as on the command line."""
    if config.recognizer is None:
        return []
    return [config.recognizer, *(one.recognizer for one in config.further)]


def _train(
    config: RunConfig,
    folder: Path,
    preset: Preset,
    asked: Sequence[tuple[str, Teacher]],
    initial: Path | None,
    limit_steps: int | None,
    command: str,
) -> Path:
    recognizers = [teacher.recognizer for _, teacher in asked]
    teachers = labelling(config, [teacher for _, teacher in asked])
    data = CropsModule(
        config.data,
        config.seed,
        teachers,
        accumulate=config.optimizer.accumulate,
        holds_out=config.data.held_out is not None,
    )
    codec = _initial_codec(config, initial)
    trainer = build_trainer(config.trainer, config.optimizer.clip)
    steps = training_steps(config, len(data.pictures), trainer.world_size)
    wanted = min(steps, limit_steps or steps)
    provenance: dict[str, Any] = {
        "initial": initial.stem if initial else config.codec.init,
        "begins_as": codec.fingerprint,
        "contents": contents_of(config, data.pictures, {spec: one.recognizer for spec, one in asked}),
    }
    began_with = codec.card.get("settings") if initial is not None else None
    if initial is not None and codec.card.get("rehearsal"):
        provenance["rehearsal"] = True
    give_allocator(codec, config, recognizers[0] if recognizers else None)
    own, target = folder / config.short_name, codec_path(folder, config)
    _claim(own, {**config.model_dump(), **provenance}, is_first_rank(trainer))
    atomic_write(folder / "preset.yaml", yaml.safe_dump(preset.model_dump(), sort_keys=False).encode())
    if target.exists():
        card = Codec.load(target).card
        done = card.get("steps")
        if isinstance(done, int) and done >= wanted and card.get("begins_as") == codec.fingerprint:
            return target

    last = own / "checkpoints" / "last.ckpt"
    average = None if config.optimizer.average is None else WeightAverage(config.optimizer.average)
    callbacks = [] if average is None else [average]
    trainer = build_trainer(
        config.trainer,
        config.optimizer.clip,
        wanted,
        config.name,
        own,
        step_of(last),
        callbacks,
        config.optimizer.accumulate,
        holds_out=config.data.held_out is not None,
    )
    module = CodecTraining(config, steps, codec, *recognizers)
    if not last.exists():
        teach_branches(module, own / "branch", folder / "branches", teachers)
    fit(trainer, module, data, last)
    # The branch of the last step is looked at later (`evaluate-branch`), beside the codec of the last step.
    trainer.save_checkpoint(last)
    if average is not None:
        average.give(module)
    if trainer.is_global_zero:
        card = _card(config, trainer.global_step, began_with, provenance) | {"command": command}
        if trainer.global_step < steps:
            card["rehearsal"] = True
        # A training that was resumed at its last step has not made them stale.
        module.codec.model.entropy_bottleneck.fit_quantiles()
        target.parent.mkdir(parents=True, exist_ok=True)
        module.codec.cpu().save(target, half=config.codec.half, card=card)
    # The next training of this experiment begins from the file that rank 0 has just written.
    trainer.strategy.barrier()
    return target


def _card(config: RunConfig, steps: int, began_with: Any, provenance: dict[str, Any]) -> dict[str, Any]:
    """What a codec says of its training; `began_with`: the settings' digest of what it began from."""
    return {
        "name": config.name,
        "arm": config.arm,
        "quality": config.quality,
        "steps": steps,
        "config": config.model_dump(),
        "settings": settings_digest(config, steps, began_with, contents=provenance["contents"]),
        "versions": {
            "taskpress": __version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
        **provenance,
    }


def labelling(config: RunConfig, teachers: Sequence[Teacher]) -> Sequence[Teacher | None]:
    """Who labels whole pictures; None in place of who does not: where nothing is labelled, or crops are."""
    objective = config.objective
    needed = objective.needs_labels
    return [one if needed and not labels_crops(objective, one.recognizer) else None for one in teachers]


def training_steps(config: RunConfig, pictures: int, ranks: int = 1) -> int:
    """Steps of a training that is told in epochs: passes over `pictures`, so many in a step on all ranks."""
    if config.optimizer.steps is not None:
        return config.optimizer.steps
    assert config.optimizer.epochs is not None
    in_a_step = config.data.batch * config.optimizer.accumulate * ranks
    return math.ceil(config.optimizer.epochs * pictures / in_a_step)


def _initial_codec(config: RunConfig, initial: Path | None) -> Codec:
    asked = config.codec
    architecture = name_architecture(expand(asked.architecture), ConfigError)
    source = str(initial) if initial is not None else expand(asked.init) if asked.init is not None else None
    if source is None:
        codec = Codec.create(architecture, asked.channels, asked.latent_channels, seed=config.seed)
        if is_own(architecture):
            # Sooner than when it is trained.
            with TemporaryDirectory() as scratch:
                codec.save(file := Path(scratch, "untrained.safetensors"), half=asked.half)
                Codec.load(file)
        return codec
    codec = Codec.load(source)
    found = (codec.architecture, codec.model.N, codec.latent_channels)
    # What a checkpoint of it holds says nothing of M where the architecture is the user's own.
    unsaid = asked.channels if is_own(architecture) else codec.latent_channels
    wanted = (architecture, asked.channels, asked.latent_channels or unsaid)
    if found != wanted:
        raise ConfigError(
            f"{source}: is a {found[0]} with N = {found[1]}, M = {found[2]}; "
            f"the preset asks for a {wanted[0]} with N = {wanted[1]}, M = {wanted[2]}"
        )
    return codec


def settings_digest(
    config: RunConfig, steps: int, *further: object, contents: Mapping[str, str] | None = None
) -> str:
    """16 hexadecimal digits of all that decides a codec but its λ and seed, as far as settings say it.

    Settings at their defaults do not count, so that those of a later version change nothing; of paths counts
    what is there (`contents_of`).
    """
    own = {"name", "experiment", "quality", "lmbda", "seed"}
    told = config.model_dump(exclude=own, exclude_defaults=True)
    for section, names in OWN_FIELDS.items():
        told[section] = {name: value for name, value in told.get(section, {}).items() if name not in names}
    if config.objective.alpha == 0 and is_own(config.objective.auxiliary):
        # A branch that this arm has not, by a path that `contents` says nothing of. Names stay, as ever.
        told["objective"].pop("auxiliary", None)
    if "devices" in told["trainer"]:
        told["trainer"]["devices"] = config.trainer.device_count
        if config.trainer.device_count == 1:
            del told["trainer"]["devices"]
    told = by_content(told, contents or {})
    return hashlib.sha256(json.dumps([told, steps, further], sort_keys=True).encode()).hexdigest()[:16]


def _choose(runs: list[RunConfig], only: Sequence[str]) -> list[RunConfig]:
    known = [run.short_name for run in runs]
    for word in only:
        if word not in known and word not in {run.arm for run in runs}:
            raise ConfigError(f"--only {word}: no such training; the preset has {', '.join(known)}")
    return [run for run in runs if not only or run.arm in only or run.short_name in only]


def _claim(own: Path, wanted: dict[str, Any], first: bool = True) -> None:
    """Writes the settings of a training into its folder; refuses one that began with others.

    What began from the rehearsal of a start that has been trained further since is cleared away. Of several
    processes that train together all look, the `first` one writes, and the others wait for it.
    """
    path = own / "config.yaml"
    if path.exists():
        config, provenance = read_settings(path)
        there = {**provenance, **config.model_dump()}
        check_contents(path, wanted["contents"], there.pop("contents", {}))
        settings = [key for key in wanted if key != "contents"]
        other = [name for key in settings for name in _differing(key, wanted[key], there.get(key))]
        if not other:
            return
        if other != ["begins_as"] or not provenance.get("rehearsal"):
            way = "choose another -o"
            if other[0] == "lmbda":
                way = f"trainings are numbered in order of λ, so further ones need {way} and `name`"
            raise ConfigError(f"{path}: this training began with another `{other[0]}`; {way}")
    text = yaml.safe_dump(wanted, sort_keys=False)
    if not first:
        _await(path, text)
        return
    if path.exists():
        shutil.rmtree(own)
    own.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode())


def _await(path: Path, text: str, patience: float = 60.0) -> None:
    """Until the first process has written the file; ConfigError where it does not come."""
    end = time.monotonic() + patience
    while not (path.exists() and path.read_text(encoding="utf-8") == text):
        if time.monotonic() > end:
            raise ConfigError(f"{path}: the first process has not written it; all need to share the folder")
        time.sleep(0.1)


def _differing(key: str, ours: Any, theirs: Any) -> list[str]:
    """Which settings under `key` differ and decide what comes out, e.g. `data.patch`."""
    if key == "trainer":
        ours, theirs = ({**one, "devices": TrainerConfig(**one).device_count} for one in (ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = [name for name in ours if name not in OWN_FIELDS.get(key, ())]
        return [f"{key}.{name}" for name in names if ours[name] != theirs.get(name)]
    return [] if ours == theirs else [key]
