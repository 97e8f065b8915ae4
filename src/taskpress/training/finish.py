"""The synthesis alone, on latents as files hold them: what a codec gains after its training at no bit.

While a codec is trained with `quantization: noise`, its latent is never rounded, so that gradients pass; g_s
has not seen what a file decodes to. Here everything that decides a file stays as it is, and g_s goes on by
the loss that it was trained with, L_task (and mean squared error where that had a share), on quantized
latents.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from pydantic import Field
from torch import Tensor

from taskpress.coding.codec import Codec, Estimate
from taskpress.coding.errors import ConfigError, TrainingError
from taskpress.coding.files import atomic_write
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer
from taskpress.training.config import OptimizerConfig, RunConfig, expand
from taskpress.training.data import Batch, CropsModule, step_seed
from taskpress.training.objective import Objective
from taskpress.training.run import recognizers_of, settings_digest, teacher_of
from taskpress.training.schedule import learning_rate_factor
from taskpress.training.section import Section
from taskpress.training.trained import trained_config, without_branch
from taskpress.training.trainer import build_trainer, step_of


class FinishConfig(Section):
    steps: int = Field(300, ge=1)
    learning_rate: float = Field(1e-4, gt=0)


class SynthesisTraining(lightning.LightningModule):
    """Trains g_s of `codec`, and nothing else of it, by L_task of `objective`."""

    def __init__(self, config: RunConfig, settings: FinishConfig, codec: Codec, objective: Objective) -> None:
        super().__init__()
        self.config, self.settings = config, settings
        # Not children: neither trained nor in a checkpoint. The sender's weights stay, so it freezes once.
        self._fixed = (copy.deepcopy(codec).eval(), objective)
        self.synthesis = codec.model.g_s.train()

    def on_fit_start(self) -> None:
        sender, objective = self._fixed
        sender.to(self.device)
        objective.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        sender, objective = self._fixed
        torch.manual_seed(step_seed(self.config.seed, self.global_step, self.global_rank))
        # As files are coded: the trainer's precision would round some latents otherwise.
        with torch.autocast(self.device.type, enabled=False):
            latent = sender.training_latent(batch.images, straight_through=True)
        x_hat = self.synthesis(latent).float()
        nothing = x_hat.new_zeros(len(x_hat))
        estimate = Estimate(x_hat, latent, nothing, nothing[:, None, None].expand(-1, *latent.shape[2:]))
        terms = objective(batch, estimate, None)
        if not torch.isfinite(terms["loss"]):
            raise TrainingError(
                f"{self.config.name}: the loss is {terms['loss'].item()} in step {self.global_step + 1}; "
                "lower --learning-rate, and finish in another folder with -o"
            )
        for name in ("task", "mse"):
            if name in terms:
                self.log(name, terms[name].detach(), prog_bar=True, batch_size=len(batch.images))
        return terms["loss"]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.synthesis.parameters(), self.settings.learning_rate)
        settings = OptimizerConfig(steps=self.settings.steps, schedule="cosine")
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, learning_rate_factor(settings, self.settings.steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def finish(
    names: Sequence[str], folder: Path, settings: FinishConfig = FinishConfig(), command: str = ""
) -> Iterator[Path]:
    """Lets the synthesis of codecs that were trained here go on; resumes, and keeps what is finished.

    names:  shipped codecs or files; their cards say recognizer, pictures, loss and seed. The crops are those
            that their trainings would have seen next
    folder: gets NAME.safetensors, and checkpoints and logs in finish/NAME

    Yields each file when it is there. Raises ConfigError, before anything is trained, for a codec whose card
    holds no training, that is finished already, or whose place in the folder another has.
    """
    todo = [_trained(name, folder, settings) for name in names]
    places = [one.target for one in todo]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise ConfigError(f"two codecs would become {twice}; finish them apart, each with its own -o")
    specs = dict.fromkeys(spec for one in todo for spec in recognizers_of(one.config))
    known = {spec: load_recognizer(expand(spec)) for spec in specs}
    for one in todo:
        if not one.target.exists():
            _finish(one, folder, settings, [known[spec] for spec in recognizers_of(one.config)], command)
        yield one.target


class _Trained(NamedTuple):
    """A codec, the training that its card tells of, where it goes, and what its card will say."""

    codec: Codec
    config: RunConfig
    steps: int
    target: Path
    told: dict[str, Any]


def _finish(
    one: _Trained, folder: Path, settings: FinishConfig, recognizers: Sequence[Recognizer], command: str
) -> None:
    codec, own = one.codec, folder / "finish" / one.config.name
    _claim(own / "settings.json", one.told)
    # The auxiliary loss has no gradient at the synthesis.
    objective = without_branch(one.config, recognizers)
    config = one.config.model_copy(update={"objective": objective.config})
    teachers = [teacher_of(config, recognizer) for recognizer in recognizers] or [None]
    data = CropsModule(config.data, config.seed, teachers[0], teachers[1:], skip=one.steps)
    module = SynthesisTraining(config, settings, codec, objective)
    last = own / "checkpoints" / "last.ckpt"
    trainer = build_trainer(
        config.trainer, config.optimizer.clip, settings.steps, f"{config.name}: g_s", own, step_of(last)
    )
    trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        card = {
            **codec.card,
            "settings": settings_digest(
                one.config,
                one.steps,
                codec.card.get("settings"),
                one.told["steps"],
                one.told["learning_rate"],
            ),
            "finish": {**one.told, "command": command},
        }
        codec.cpu().eval().save(one.target, half=config.codec.half, card=card)
    trainer.strategy.barrier()


def _trained(name: str, folder: Path, settings: FinishConfig) -> _Trained:
    codec = Codec.load(name)
    config, steps = trained_config(codec, name)
    if "finish" in codec.card:
        raise ConfigError(f"{name}: is finished already; give the codec that it was made of")
    if config.objective.task == "none" and config.objective.mse == 0:
        raise ConfigError(
            f"{name}: was trained by its auxiliary loss alone, which does not reach the synthesis"
        )
    target = folder / f"{config.name}.safetensors"
    told = {**settings.model_dump(), "of": codec.fingerprint}
    if target.exists():
        finished = Codec.load(target).card.get("finish", {})
        if any(finished.get(key) != value for key, value in told.items()):
            raise ConfigError(f"{target}: holds another codec; choose another folder with -o")
    return _Trained(codec, config, steps, target, told)


def _claim(path: Path, told: dict[str, Any]) -> None:
    """Writes what is done in a folder; ConfigError where something else was begun there."""
    content = json.dumps(told, indent=1) + "\n"
    if path.exists() and path.read_text() != content:
        raise ConfigError(f"{path}: another codec or other settings began here; choose another -o")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content.encode())
