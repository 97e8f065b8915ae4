"""One training: codec, auxiliary branch and allocator learn, the recognizer only watches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor

from taskpress.auxiliary.branch import AuxiliaryBranch, Heads, Lesson
from taskpress.auxiliary.named import build_auxiliary, learns
from taskpress.coding.codec import Codec
from taskpress.coding.estimate import Estimate
from taskpress.errors import ConfigError, TrainingError
from taskpress.recognition.device import device_of, full_precision
from taskpress.recognition.protocol import HeadedRecognizer, Recognizer, SoftHeadedRecognizer
from taskpress.training.allocation import allocator_terms, rewards
from taskpress.training.config import RunConfig, expand
from taskpress.training.data import Batch, step_seed
from taskpress.training.objective import Objective
from taskpress.training.schedule import scheduled

PROGRESS_BAR = frozenset({"rate", "task", "aux", "mse"})


class CodecTraining(lightning.LightningModule):
    """Trains `codec` by eq. (1) with Adam; the branches exist here and nowhere else.

    recognizers: the config's `recognizer`, then its `further` ones; none for MSE only. They are kept out
        of the module's children: they are in no checkpoint and no optimizer.
    """

    def __init__(self, config: RunConfig, steps: int, codec: Codec, *recognizers: Recognizer) -> None:
        super().__init__()
        self.config, self.steps = config, steps
        self._batch_of_step = 0
        self.codec = codec.train()
        self.branches = torch.nn.ModuleDict(
            {
                str(place): branch_for(config, kind, one, codec.latent_channels, codec.stride)
                for place, (kind, one) in enumerate(zip(config.branches, recognizers, strict=False))
                if kind is not None
            }
        )
        self.objective = Objective.of(config, recognizers)

    @property
    def placed_branches(self) -> dict[int, AuxiliaryBranch]:
        """The branches, by the place of their recognizer: 0 for the first."""
        return {int(place): branch for place, branch in self.branches.items()}  # type: ignore[misc]

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Also of earlier versions' checkpoints, in which the first recognizer's branch stood apart."""
        further = (place for place in self.branches if place != "0")
        former = {f"further_branches.{k}.": f"branches.{place}." for k, place in enumerate(further)}
        former["branch."] = "branches.0."

        def todays(name: str) -> str:
            begins = next((one for one in former if name.startswith(one)), "")
            return former.get(begins, "") + name.removeprefix(begins)

        return super().load_state_dict({todays(k): v for k, v in state_dict.items()}, *args, **kwargs)

    def on_fit_start(self) -> None:
        self.objective.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.objective.progress(self.global_step / self.steps)
        self._batch_of_step = batch_idx % self.config.optimizer.accumulate
        batch = self.objective.labelled(batch)
        baseline = explore = None
        if self.config.objective.allocation == "semantic":
            # What the likeliest levels earn; then some are drawn, by chance that is no function of the noise.
            with torch.no_grad():
                baseline = rewards(*self._judge(batch, None))
            explore = torch.Generator().manual_seed(self._step_seed + 503)
        terms, estimate = self._judge(batch, explore)
        loss = terms["loss"]
        if estimate.decision is not None:
            own = allocator_terms(terms, estimate, batch.labels[0], baseline)
            loss = loss + self.config.objective.allocation_weight * torch.stack(list(own.values())).sum()
            terms.update({f"allocation/{name}": value for name, value in own.items()})
        if not torch.isfinite(loss):
            raise TrainingError(
                f"{self.config.name}: the loss is {loss.item()} in step {self.global_step + 1}; lower "
                "optimizer.learning_rate or the weights of the objective, and train in another folder with -o"
            )
        if (self.global_step + 1) % self.config.trainer.log_every == 0:
            logged = {**terms, **self.objective.latent_gradients(terms, estimate.latent)}
            for name, value in logged.items():
                self.log(name, value.detach(), prog_bar=name in PROGRESS_BAR, batch_size=len(batch.images))
        return loss

    def _judge(self, batch: Batch, explore: torch.Generator | None) -> tuple[dict[str, Tensor], Estimate]:
        # Noise depends on seed and batch alone: equal for the arms that are compared, and after a resume.
        torch.manual_seed(self._step_seed)
        estimate = self.codec.estimate(batch.images, explore, self.config.objective.quantization)
        return self.objective(batch, estimate, self.placed_branches), estimate

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the loss of held-out crops and its terms as `held_out/…`: of the latents and bits of files."""
        torch.manual_seed(batch_idx)  # detectors may draw the boxes that they are judged by
        with full_precision(batch.images):
            estimate = self.codec.estimate(batch.images)
            terms = self.objective(self.objective.labelled(batch), estimate, self.placed_branches)
        for name, value in terms.items():
            self.log(
                f"held_out/{name}",
                value,
                prog_bar=name == "loss",
                batch_size=len(batch.images),
                sync_dist=True,
            )

    @property
    def _step_seed(self) -> int:
        batch = self.config.optimizer.accumulate * self.global_step + self._batch_of_step
        return step_seed(self.config.seed, batch, self.global_rank)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if not self.config.optimizer.clip_apart:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val is not None:
            for group in optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], gradient_clip_val)

    def configure_optimizers(self) -> Any:
        settings = self.config.optimizer
        groups = [{"params": list(self.codec.model.parameters()), "lr": settings.learning_rate}]
        for fresh in (*self.branches.values(), self.codec.allocator):
            if fresh is not None:
                rate = settings.auxiliary_learning_rate or settings.learning_rate
                groups.append({"params": list(fresh.parameters()), "lr": rate})
        return scheduled(torch.optim.Adam(groups), settings, self.steps)


def branch_for(
    config: RunConfig, kind: str, recognizer: Recognizer, latent_channels: int, stride: int
) -> AuxiliaryBranch:
    """A fresh branch of a training, for one of its recognizers; its weights are of the training's seed."""
    kind = expand(kind)
    shapes = [] if learns(kind) == "labels" else layer_shapes(recognizer, config.data.patch)
    cells = config.data.patch / stride
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return build_auxiliary(
            kind,
            latent_channels,
            len(recognizer.categories),
            stride,
            width=config.objective.auxiliary_width,
            task=recognizer.task,
            layers=[channels for channels, _ in shapes],
            finer=[side / cells for _, side in shapes],
            heads=heads_of(recognizer, config.objective.task) if kind == "heads" else None,
        )


def heads_of(recognizer: Recognizer, task: str) -> Heads:
    """L_task as a function of its layers: with `soft` outputs its divergence from the teacher, else its loss
    of labels. ConfigError where it has none."""
    if task == "soft" and isinstance(recognizer, SoftHeadedRecognizer):

        def soft(predicted: Sequence[Tensor], lesson: Lesson) -> dict[str, Tensor]:
            return recognizer.divergence_of_features(list(lesson.images), predicted, lesson.layers)

        return soft
    if isinstance(recognizer, HeadedRecognizer):

        def hard(predicted: Sequence[Tensor], lesson: Lesson) -> dict[str, Tensor]:
            return recognizer.loss_of_features(list(lesson.images), predicted, lesson.labels)

        return hard
    raise ConfigError(
        f"objective.auxiliary: {recognizer.name} takes no layers from elsewhere, so a `heads` branch has "
        "nobody to judge it; choose `features` or `detection`"
    )


def layer_shapes(recognizer: Recognizer, patch: int) -> list[tuple[int, int]]:
    """Channels and side of the recognizer's layers, of a grey crop; ConfigError for layers that are no maps,
    or that would not lie over the latent's."""
    pads = getattr(recognizer, "pads", None)
    if pads is not None and pads(patch):
        raise ConfigError(
            f"objective.auxiliary: {recognizer.name} pads crops of {patch} pixels, so its layers do not lie "
            "over the latent's and no branch can learn them; choose data.patch (and crop_scale) "
            "so that the scaled crop is a multiple of 32"
        )
    with torch.no_grad():
        layers = recognizer.features([torch.full((3, patch, patch), 0.5, device=device_of(recognizer))])
    for layer in layers:
        if layer.dim() != 4:
            raise ConfigError(
                f"objective.auxiliary: the layers of {recognizer.name} are no maps [B, C, h, w] but "
                f"{list(layer.shape)}; no branch can learn them"
            )
    return [(layer.shape[1], layer.shape[3]) for layer in layers]
