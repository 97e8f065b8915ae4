"""One part of a trained codec goes on alone, on latents as files hold them: what rounding costs, mended.

Unless a codec is trained with `quantization: rounded`, parts of it have not seen what a file holds:

entropy    all but g_a and g_s, by the rate. Learned on noise, it expects of every latent the spread of the
           noise; where most are coded as 0, at low rates, that is a good part of the bits.
synthesis  g_s, by the loss that it was trained with, L_task (and mean squared error where that had a share).
           With `quantization: noise` it has never seen a rounded latent. Files stay as long as they are.
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning
import torch
from pydantic import Field
from torch import Tensor

from taskpress.coding.codec import Codec
from taskpress.coding.estimate import Estimate
from taskpress.coding.files import atomic_write, codec_name
from taskpress.errors import ConfigError, TrainingError
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer
from taskpress.training.config import OptimizerConfig, RunConfig, expand
from taskpress.training.contents import contents_of_sources
from taskpress.training.data import Batch, CropsModule, step_seed
from taskpress.training.objective import Objective
from taskpress.training.run import labelling, recognizers_of, settings_digest
from taskpress.training.schedule import scheduled
from taskpress.training.section import Section
from taskpress.training.teacher import Teacher
from taskpress.training.trained import check_code, trained_config, without_branch
from taskpress.training.trainer import build_trainer, fit, step_of

Part = Literal["entropy", "synthesis"]
DEFAULTS: dict[Part, tuple[int, float]] = {"entropy": (600, 5e-4), "synthesis": (300, 1e-4)}
"""Steps, and learning rate at the first."""


class FinishConfig(Section):
    part: Part
    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)

    @classmethod
    def of(cls, part: Part, steps: int | None = None, learning_rate: float | None = None) -> FinishConfig:
        """Settings with the part's `DEFAULTS` for what is not given."""
        usual_steps, usual_rate = DEFAULTS[part]
        return cls(
            part=part,
            steps=usual_steps if steps is None else steps,
            learning_rate=usual_rate if learning_rate is None else learning_rate,
        )


class PartTraining(lightning.LightningModule, ABC):
    """What both have in common: seeds, logs and the optimizer of `part`, which is all that is trained."""

    part: torch.nn.Module

    def __init__(self, config: RunConfig, settings: FinishConfig, codec: Codec) -> None:
        super().__init__()
        self.config, self.settings = config, settings
        # No child: neither trained nor in a checkpoint. The sender's weights stay, so it freezes once.
        self._sender = (copy.deepcopy(codec).eval(),)

    def on_fit_start(self) -> None:
        self._sender[0].to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        torch.manual_seed(step_seed(self.config.seed, self.global_step, self.global_rank))
        terms = self.terms(batch, self._sender[0])
        if not torch.isfinite(terms["loss"]):
            raise TrainingError(
                f"{self.config.name}: the loss is {terms['loss'].item()} in step {self.global_step + 1}; "
                "lower --learning-rate, and finish in another folder with -o"
            )
        for name in ("rate", "task", "mse"):
            if name in terms:
                self.log(name, terms[name].detach(), prog_bar=True, batch_size=len(batch.images))
        return terms["loss"]

    @abstractmethod
    def terms(self, batch: Batch, sender: Codec) -> dict[str, Tensor]:
        """The `loss`, and what of it is to be logged."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.part.parameters(), self.settings.learning_rate)
        settings = OptimizerConfig(steps=self.settings.steps, schedule="cosine")
        return scheduled(optimizer, settings, self.settings.steps)


class EntropyTraining(PartTraining):
    """Trains all of `codec` but its transforms, by the rate of rounded latents; of an allocator's map, which
    stays as long as it is, that says nothing."""

    def __init__(self, config: RunConfig, settings: FinishConfig, codec: Codec) -> None:
        super().__init__(config, settings, codec)
        self._model = (codec.model.train(),)
        own = {name: child for name, child in codec.model.named_children() if name not in ("g_a", "g_s")}
        self.part = torch.nn.ModuleDict(own)

    def terms(self, batch: Batch, sender: Codec) -> dict[str, Tensor]:
        # As files are coded: the trainer's precision would round some latents otherwise.
        with torch.autocast(self.device.type, enabled=False):
            likelihoods = self._model[0].rounded_likelihoods(sender.unquantized_latent(batch.images))
        bits = -(torch.log2(likelihoods["y"]).sum() + torch.log2(likelihoods["z"]).sum())
        count, _, height, width = batch.images.shape
        rate = bits / (count * height * width)
        return {"loss": rate, "rate": rate}


class SynthesisTraining(PartTraining):
    """Trains g_s of `codec`, and nothing else of it, by L_task of `objective`."""

    def __init__(self, config: RunConfig, settings: FinishConfig, codec: Codec, objective: Objective) -> None:
        super().__init__(config, settings, codec)
        self._objective = objective
        self.part = codec.model.g_s.train()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._objective.to(self.device)

    def terms(self, batch: Batch, sender: Codec) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, enabled=False):
            latent = sender.training_latent(batch.images, "rounded")
        x_hat = self.part(latent).float()
        nothing = x_hat.new_zeros(len(x_hat))
        estimate = Estimate(x_hat, latent, nothing, nothing[:, None, None].expand(-1, *latent.shape[2:]))
        terms = self._objective(batch, estimate)
        return {name: term for name, term in terms.items() if name != "rate"}


def finish(
    names: Sequence[str],
    folder: str | Path,
    settings: FinishConfig,
    command: str = "",
    sources: Sequence[str] = (),
    recognizer: str | None = None,
    run_code: bool = False,
) -> Iterator[Path]:
    """Lets a part of codecs that were trained here go on; resumes, and keeps what is finished.

    names:      shipped codecs or files; their cards say recognizer, pictures, loss and seed. The crops are
                those that their trainings would have seen next
    folder:     gets NAME.safetensors, and checkpoints and logs in finish/NAME
    sources:    of pictures, in place of those on the cards
    recognizer: in place of the first one on the cards
    run_code:   whether to run code of a user's own that cards name

    One device does it in steps of the training's `data.batch`, however many devices and batches a step had.

    Yields each file when it is there. Raises ConfigError, before anything is trained, for a codec whose card
    holds no training, whose part is finished already, or whose place in the folder another has, and where
    code would be run without `run_code`.
    """
    folder = Path(folder)
    if recognizer is not None and settings.part == "entropy":
        raise ConfigError("--recognizer: the entropy model learns by the rate alone, and asks none")
    other: dict[str, Any] = {"sources": list(sources)} if sources else {}
    if recognizer is not None:
        other["recognizer"] = recognizer
    todo = [_trained(name, folder, settings, other) for name in names]
    places = [one.target for one in todo]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise ConfigError(f"two codecs would become {twice}; finish them apart, each with its own -o")
    judges = [recognizers_of(one.here) if settings.part == "synthesis" else [] for one in todo]
    for name, one, specs in zip(names, todo, judges, strict=True):
        pictures = [source for source in one.here.data.sources if isinstance(source, str)]
        untold = {*specs, *pictures} - {recognizer, *sources}
        if not run_code:
            check_code(name, sorted(untold), "say --run-code")
    known = {spec: load_recognizer(expand(spec)) for spec in dict.fromkeys(chain(*judges))}
    for one, specs in zip(todo, judges, strict=True):
        if not one.target.exists():
            _finish(one, folder, settings, [known[spec] for spec in specs], command)
        yield one.target


class _Trained(NamedTuple):
    """A codec, the training that its card tells of, as it goes on `here`, its steps, where the codec goes,
    and what its card will say."""

    codec: Codec
    config: RunConfig
    here: RunConfig
    steps: int
    target: Path
    told: dict[str, Any]


def _finish(
    one: _Trained, folder: Path, settings: FinishConfig, recognizers: Sequence[Recognizer], command: str
) -> None:
    codec, own = one.codec, folder / "finish" / one.target.stem
    _claim(own / "settings.json", {**settings.model_dump(), **one.told})
    config, module = one.here, _module(one, settings, recognizers)
    before = one.steps * one.config.optimizer.accumulate * one.config.trainer.ranks
    teachers = labelling(module.config, [Teacher(recognizer) for recognizer in recognizers])
    data = CropsModule(config.data, config.seed, teachers, skip=before)
    last = own / "checkpoints" / "last.ckpt"
    title = f"{one.target.stem}: {settings.part}"
    trainer = build_trainer(config.trainer, config.optimizer.clip, settings.steps, title, own, step_of(last))
    fit(trainer, module, data, last)
    if trainer.is_global_zero:
        card = {
            **codec.card,
            "settings": settings_digest(
                config.model_copy(update={"trainer": one.config.trainer}),
                one.steps,
                codec.card.get("settings"),
                settings.part,
                settings.steps,
                settings.learning_rate,
                contents={**codec.card.get("contents", {}), **_contents(config, data, recognizers)},
            ),
            "finish": {**_finished(codec), settings.part: {**one.told, "command": command}},
        }
        if settings.part == "entropy":
            # One that was resumed at its last step has not made them stale.
            codec.model.entropy_bottleneck.fit_quantiles()
        codec.cpu().eval().save(one.target, half=config.codec.half, card=card)
    trainer.strategy.barrier()


def _module(one: _Trained, settings: FinishConfig, recognizers: Sequence[Recognizer]) -> PartTraining:
    if settings.part == "entropy":
        return EntropyTraining(one.here, settings, one.codec)
    # The auxiliary loss has no gradient at the synthesis.
    objective = without_branch(one.here, recognizers)
    config = one.here.model_copy(update={"objective": objective.config})
    return SynthesisTraining(config, settings, one.codec, objective)


def _trained(name: str, folder: Path, settings: FinishConfig, other: dict[str, Any]) -> _Trained:
    """`other`: sources and recognizer in place of those on the card."""
    codec = Codec.load(name)
    config, steps = trained_config(codec, name)
    part = settings.part
    if part in _finished(codec):
        raise ConfigError(f"{name}: its {part} is finished already; give the codec that it was made of")
    if not isinstance(codec.card.get("contents", {}), dict):
        raise ConfigError(f"{name}: its card is damaged: `contents` is no object")
    if part == "synthesis" and config.objective.task == "none" and config.objective.mse == 0:
        raise ConfigError(
            f"{name}: was trained by its auxiliary loss alone, which does not reach the synthesis"
        )
    target = folder / f"{codec_name(name)}.safetensors"
    told = {**settings.model_dump(exclude={"part"}), **other, "of": codec.fingerprint}
    if target.exists():
        finished = _finished(Codec.load(target)).get(part, {})
        if any(finished.get(key) != value for key, value in told.items()):
            raise ConfigError(f"{target}: holds another codec; choose another folder with -o")
    return _Trained(codec, config, config.model_copy(update=_here(config, other)), steps, target, told)


def _contents(config: RunConfig, data: CropsModule, recognizers: Sequence[Recognizer]) -> dict[str, str]:
    """What sources and recognizers are, wherever they lie: two machines finish one codec alike."""
    specs = zip(recognizers_of(config), recognizers, strict=False)
    found = {spec: recognizer.fingerprint[:16] for spec, recognizer in specs}
    return {**found, **contents_of_sources(config.data.sources, data.pictures)}


def _here(config: RunConfig, other: dict[str, Any]) -> dict[str, Any]:
    """What of a training is otherwise where it goes on: one device, pictures and recognizer of there."""
    accelerator = config.trainer.accelerator if config.trainer.accelerator == "cpu" else "auto"
    alone = {"accelerator": accelerator, "devices": 1, "nodes": 1}
    here: dict[str, Any] = {"trainer": config.trainer.model_copy(update=alone)}
    if "sources" in other:
        here["data"] = config.data.model_copy(update={"sources": other["sources"]})
    if "recognizer" in other:
        here["recognizer"] = other["recognizer"]
    return here


def _finished(codec: Codec) -> dict[str, Any]:
    """What was done by part, as the card says."""
    finish = codec.card.get("finish", {})
    # Cards of taskpress before there was more than one part.
    return {"synthesis": finish} if "of" in finish else finish


def _claim(path: Path, told: dict[str, Any]) -> None:
    """Writes what is done in a folder; ConfigError where something else was begun there."""
    content = json.dumps(told, indent=1) + "\n"
    if path.exists() and path.read_text() != content:
        raise ConfigError(f"{path}: another codec or other settings began here; choose another -o")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content.encode())
