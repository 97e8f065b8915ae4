"""The synthesis alone, on latents as files hold them: what a codec gains after its training at no bit.

While a codec is trained, its latent carries noise in place of rounding, so that gradients pass; g_s has never
seen what a file decodes to. Here everything that decides a file stays as it is, and g_s goes on by the loss
that it was trained with, L_task (and mean squared error where that had a share), on quantized latents.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import lightning
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from taskpress.coding.codec import Codec, Estimate
from taskpress.coding.errors import ConfigError, TrainingError
from taskpress.coding.files import atomic_write
from taskpress.recognition.named import load_recognizer
from taskpress.training.config import OptimizerConfig, RunConfig, expand
from taskpress.training.data import Batch, CropsModule
from taskpress.training.objective import Objective, Weighted
from taskpress.training.run import recognizers_of, settings_digest, teacher_of
from taskpress.training.schedule import learning_rate_factor
from taskpress.training.section import Section
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
        for recognizer, _ in objective.recognizers:
            if isinstance(recognizer, torch.nn.Module):
                recognizer.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        sender, objective = self._fixed
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step * 1009 + self.global_rank)
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


def finish(name: str, folder: Path, settings: FinishConfig, command: str = "") -> Path:
    """Lets the synthesis of a codec that was trained here go on; resumes, and keeps what is finished.

    name:   a shipped codec or a file; its card says recognizer, pictures, loss and seed. The crops are those
            that its training would have seen next
    folder: gets NAME.safetensors, and checkpoints and logs in NAME

    Raises ConfigError for a codec whose card holds no training, that is finished already, or that another in
    the folder would be replaced by.
    """
    codec = Codec.load(name)
    config, steps = _trained(name, codec)
    target, own = folder / f"{config.name}.safetensors", folder / config.short_name
    told = {**settings.model_dump(), "of": codec.fingerprint}
    if target.exists():
        finished = Codec.load(target).card.get("finish", {})
        if any(finished.get(key) != value for key, value in told.items()):
            raise ConfigError(f"{target}: holds another codec; choose another folder with -o")
        return target
    _claim(own / "finish.json", told)
    recognizers = [load_recognizer(expand(spec)) for spec in recognizers_of(config)]
    first = recognizers[0] if recognizers else None
    further = [Weighted(one, its.weight) for one, its in zip(recognizers[1:], config.further, strict=True)]
    objective = Objective(config.objective, config.rate, first, config.recognizer_weight, further)
    teachers = [teacher_of(config, one) for one in recognizers] or [None]
    data = CropsModule(config.data, config.seed, teachers[0], teachers[1:], skip=steps)
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
            "settings": settings_digest(config, steps, settings.model_dump()),
            "finish": {**told, "command": command},
        }
        codec.cpu().eval().save(target, half=config.codec.half, card=card)
    trainer.strategy.barrier()
    return target


def _trained(name: str, codec: Codec) -> tuple[RunConfig, int]:
    """The training that a codec's card tells of, and its steps."""
    try:
        config, steps = RunConfig.model_validate(codec.card["config"]), int(codec.card["steps"])
    except (KeyError, TypeError, ValueError, ValidationError):
        raise ConfigError(
            f"{name}: its card holds no settings of a training; give a codec that `taskpress train` made"
        ) from None
    if "finish" in codec.card:
        raise ConfigError(f"{name}: is finished already; give the codec that it was made of")
    if config.objective.task == "none" and config.objective.mse == 0:
        raise ConfigError(
            f"{name}: was trained by its auxiliary loss alone, which does not reach the synthesis"
        )
    # The auxiliary loss has no gradient at the synthesis.
    objective = config.objective.model_copy(update={"alpha": 0.0})
    return config.model_copy(update={"objective": objective}), steps


def _claim(path: Path, told: dict[str, Any]) -> None:
    """Writes what is done in a folder; ConfigError where something else was begun there."""
    content = json.dumps(told, indent=1) + "\n"
    if path.exists() and path.read_text() != content:
        raise ConfigError(f"{path}: another codec or other settings began here; choose another -o")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content.encode())
