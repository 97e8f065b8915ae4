"""What a training is told: a preset is a YAML file of these fields, each checked before anything runs.

A preset describes one experiment: a shared start (or one for each rate), and arms x rates that begin from it,
see the same batches in the same order and take the same number of steps.
"""

from __future__ import annotations

import os
import re
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from taskpress.errors import ConfigError
from taskpress.training.fields import ArchitectureName, BranchName, Factors, Lambdas, Name
from taskpress.training.objective_config import ObjectiveConfig
from taskpress.training.section import FORMER_NAMES, Section, explain

START = "start"
"""The arm of trainings that the others begin from."""


class CodecConfig(Section):
    """The codec that is trained."""

    architecture: ArchitectureName = Field(
        "cheng2020-attention",
        description="transforms and entropy models: `cheng2020-attention`, `cheng2020-anchor`, "
        "`joint-autoregressive`, `mean-scale-hyperprior`, or python:FILE.py:CLASS",
    )
    channels: int = Field(32, ge=4, description="N: width of every layer")
    latent_channels: int | None = Field(
        None, ge=4, description="M; only for architectures where it differs from N"
    )
    init: str | None = Field(
        None, description="codec to start from: a file or a shipped name; none: random weights"
    )
    half: bool = Field(False, description="store the trained codec in float16: half the file, the same curve")


class DataConfig(Section):
    """What it is trained on: random crops of pictures, without labels."""

    sources: list[str | dict[str, str]] = Field(
        min_length=1,
        description="a mixture: a folder of pictures, {images: DIR, annotations: FILE}, `scenes:COUNT`, or "
        "python:FILE.py:CLASS",
    )
    long_side: int | None = Field(None, ge=16, description="pictures are first scaled to this long side")
    patch: int = Field(256, ge=64, multiple_of=64, description="side of the random square crop")
    flip: bool = Field(True, description="mirror half of the crops")
    scale: Factors | None = Field(
        None,
        description="each picture is scaled by a factor between these two before it is cropped, all ratios "
        "equally likely; none: pictures keep their size",
    )
    jitter: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="brightness, contrast and saturation of each crop are multiplied by factors between "
        "1 - jitter and 1 + jitter; labels stay those of the picture as it is",
    )
    batch: int = Field(1, ge=1, description="crops of a step, on each device")
    workers: int = Field(0, ge=0, description="processes that read pictures; 0 reads in the training process")
    held_out: list[str | dict[str, str]] | None = Field(
        None,
        min_length=1,
        description="pictures, told as `sources` are, that nothing is trained on: the loss of one crop each, "
        "coded as in files, is logged along the way; `scenes:COUNT` are other scenes here",
    )
    held_out_crops: int = Field(64, ge=1, description="how many of them; the same ones every time")


class OptimizerConfig(Section):
    """Adam, and for how long."""

    learning_rate: float = Field(1e-4, gt=0, description="of the codec")
    auxiliary_learning_rate: float | None = Field(
        None, gt=0, description="of what begins from random weights, branch and allocator; none: the codec's"
    )
    steps: int | None = Field(None, ge=1, description="length of the training; this or `epochs` is given")
    epochs: float | None = Field(None, gt=0, le=1e6, description="instead of steps: passes over the sources")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: the learning rate falls to 0 over the training"
    )
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm")
    clip_apart: bool = Field(False, description="clip codec, branch and allocator each by its own norm")
    accumulate: int = Field(1, ge=1, description="batches of each device whose gradients make one step")
    average: float | None = Field(None, gt=0, lt=1, description="decay of a mean of weights, which is saved")

    @model_validator(mode="after")
    def _one_length(self) -> OptimizerConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self


class TrainerConfig(Section):
    """Where and how Lightning's Trainer runs."""

    accelerator: str = Field("auto", description="Lightning's: auto, cpu, gpu, …")
    devices: int | str = Field(1, description="how many, or which: '0,' is the first alone")
    nodes: int = Field(1, ge=1, description="machines, each with so many devices")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="what the codec trains in; recognizers compute in float32"
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    log_every: int = Field(20, ge=1, description="steps between rows of the log")
    held_out_every: int = Field(500, ge=1, description="steps between looks at `data.held_out`")

    @property
    def device_count(self) -> int | str:
        """How many devices, where that is told: which ones they are makes no other training."""
        text = str(self.devices)
        if "," in text:
            return len([part for part in text.split(",") if part.strip()])
        return int(text) if text.isdecimal() else self.devices

    @property
    def ranks(self) -> int:
        """Devices on all nodes; of "all there are" (-1, auto) one for each node."""
        count = self.device_count
        return self.nodes * (count if isinstance(count, int) and count > 0 else 1)


class StartConfig(Section):
    """The training all arms begin from: MSE, as a codec from scratch learns little from a task loss."""

    lmbda: float | None = Field(None, gt=0, description="λ of one start for all")
    lambdas: Lambdas | None = Field(
        None, description="instead of it, the λ of one start for each rate of the arms, which begin there"
    )
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="for arms repeated from one start; none: the preset's seed"
    )
    objective: ObjectiveConfig = Field(
        ObjectiveConfig(task="none", mse=1.0),
        description="its own, in place of the preset's; mean squared error alone where it is not given",
    )
    optimizer: OptimizerConfig = Field(description="its own")

    @model_validator(mode="after")
    def _one_kind(self) -> StartConfig:
        if (self.lmbda is None) == (self.lambdas is None):
            raise ValueError("give either lmbda or lambdas")
        return self


class FurtherRecognizer(Section):
    """One more recognizer that a codec serves: λ · weight · (its L_task + α · its L_aux) joins the loss."""

    recognizer: str = Field(description="as on the command line")
    weight: float = Field(1.0, gt=0, description="of its losses")
    auxiliary: BranchName | None = Field(None, description="its own branch on Ẑ; none: no L_aux of it")


def with_todays_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a training as cards and folders have them, of this version or an earlier one."""
    return {FORMER_NAMES.get(name, name): value for name, value in settings.items()}


class RunConfig(Section):
    """One training: everything that decides the codec that comes out."""

    experiment: str
    name: str
    arm: str
    quality: int = Field(description="1, 2, … by increasing λ; 0 for a start that all rates share")
    seed: int
    lmbda: float = Field(gt=0, description="λ")
    recognizer: str | None
    recognizer_weight: float = 1.0
    further: list[FurtherRecognizer] = Field([])
    codec: CodecConfig
    data: DataConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig

    @property
    def short_name(self) -> str:
        """Its name within the experiment: `start` or `start-q1`, `task-q1`, `aux-q1` (of `task+aux`), …"""
        return self.name.removeprefix(f"{self.experiment}-")

    @property
    def weights(self) -> list[float]:
        """Of each recognizer's losses, the first one first."""
        first = [] if self.recognizer is None else [self.recognizer_weight]
        return [*first, *(one.weight for one in self.further)]

    @property
    def branches(self) -> list[BranchName | None]:
        """The auxiliary branch of each recognizer, the first one first; None for one that has none."""
        kinds = [self.objective.auxiliary, *(one.auxiliary for one in self.further)]
        return kinds if self.objective.alpha > 0 else [None] * len(kinds)

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, given: Any) -> Any:
        return with_todays_names(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _something_to_learn(self) -> RunConfig:
        objective = self.objective
        if objective.task == "none" and objective.mse == 0 and objective.alpha == 0:
            raise ValueError(f"{self.name}: nothing to learn: task is none, alpha and mse are 0")
        if self.recognizer is None and self.further:
            raise ValueError(f"{self.name}: `further` recognizers come beside a first one, `recognizer`")
        if self.recognizer is None and (objective.task != "none" or objective.needs_labels):
            raise ValueError(f"{self.name}: a task or auxiliary loss, or an allocation, needs a recognizer")
        return self


class Preset(Section):
    """One experiment: trainings that differ in arm and λ alone."""

    name: Name = Field(description="of the experiment; codecs are called NAME-ARM-qN")
    seed: int = Field(1, ge=0, lt=2**32, description="of crops, noise and fresh weights")
    recognizer: str | None = Field(None, description="teacher and frozen recognizer, as on the command line")
    recognizer_weight: float = Field(1.0, gt=0, description="of its losses, where there are further ones")
    further: list[FurtherRecognizer] = Field([], description="more recognizers served by the same codec")
    codec: CodecConfig = Field(CodecConfig(), description="the codec")
    data: DataConfig = Field(description="the pictures")
    start: StartConfig | None = Field(None, description="what all arms begin from; none: from `codec.init`")
    objective: ObjectiveConfig = Field(ObjectiveConfig(), description="the loss, but for what arms change")
    optimizer: OptimizerConfig = Field(description="of every arm")
    lambdas: Lambdas = Field(description="λ of each rate, lowest rate first")
    arms: dict[Name, dict[str, Any]] = Field(
        min_length=1,
        description="name of the curve -> what it changes in `objective` (and `lambdas`, where they differ)",
    )
    trainer: TrainerConfig = Field(TrainerConfig(), description="where and how it runs")

    def runs(self) -> list[RunConfig]:
        """Every training of the experiment, the starts (if any) first."""

        def run(short_name: str, **own: Any) -> RunConfig:
            return RunConfig(
                experiment=self.name,
                name=f"{self.name}-{short_name}",
                recognizer=self.recognizer,
                recognizer_weight=self.recognizer_weight,
                further=self.further,
                codec=self.codec,
                data=self.data,
                trainer=self.trainer,
                **own,
            )

        runs = []
        if (start := self.start) is not None:
            seed = self.seed if start.seed is None else start.seed
            own = {"arm": START, "seed": seed, "objective": start.objective, "optimizer": start.optimizer}
            if start.lmbda is not None:
                runs.append(run(START, quality=0, lmbda=start.lmbda, **own))
            for quality, lmbda in enumerate(start.lambdas or (), start=1):
                runs.append(run(f"{START}-q{quality}", quality=quality, lmbda=lmbda, **own))
        for arm, changes in self.arms.items():
            if arm == START:
                raise ConfigError(f"arms.{START}: trainings of that name are what arms begin from; rename it")
            objective, lambdas = self._arm(arm, changes)
            if start is not None and start.lambdas is not None and len(start.lambdas) != len(lambdas):
                raise ConfigError(
                    f"start.lambdas: {len(start.lambdas)} starts for the {len(lambdas)} rates of {arm}"
                )
            for quality, lmbda in enumerate(lambdas, start=1):
                own = {"arm": arm, "seed": self.seed, "objective": objective, "optimizer": self.optimizer}
                runs.append(run(f"{self._short(arm)}-q{quality}", quality=quality, lmbda=lmbda, **own))
        names = [run.short_name for run in runs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"two trainings would be called {twice!r}; rename an arm")
        return runs

    def start_of(self, run: RunConfig) -> RunConfig | None:
        """The training that `run` begins from; None for a start, and where the preset has none."""
        starts = [one for one in self.runs() if one.arm == START and run.arm != START]
        return next((one for one in starts if one.quality in (0, run.quality)), None)

    def _short(self, arm: str) -> str:
        """`aux` for the arm `task+aux`; `task-mse` for `task+mse` where there is an arm `mse` too."""
        short = arm.removeprefix("task+")
        return short if short == arm or short not in self.arms else arm.replace("+", "-")

    def _arm(self, arm: str, changes: dict[str, Any]) -> tuple[ObjectiveConfig, list[float]]:
        if "rates" in changes:
            raise ConfigError(f"arms.{arm}: `rates` is called `{FORMER_NAMES['rates']}`")
        merged = {**self.objective.model_dump(), **{k: v for k, v in changes.items() if k != "lambdas"}}
        try:
            lambdas = TypeAdapter(Lambdas).validate_python(changes.get("lambdas", self.lambdas))
            return ObjectiveConfig.model_validate(merged), lambdas
        except ValidationError as error:
            raise ConfigError(f"arms.{arm}: {explain(error)}") from None


def expand(text: str) -> str:
    """Environment variables in a path or a recognizer's name, e.g. ${TASKPRESS_DATA}/coco/train2017.

    Done where the text is used, so that saved settings and cards hold no path of the machine they were made
    on. Raises ConfigError for a variable that is not set.
    """
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?(\w+)", expanded)
    if missing:
        raise ConfigError(f"{text}: set the environment variable {missing[1]}, or change the preset")
    return expanded
