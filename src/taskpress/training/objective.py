"""Eq. (1) of Iino et al.: L = λ (L_task + α L_aux) + R, by distillation from the frozen recognizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.auxiliary.branch import AuxiliaryBranch, Lesson
from taskpress.auxiliary.features import relative_squared_error
from taskpress.coding.estimate import Estimate
from taskpress.errors import RecognizerError
from taskpress.recognition.device import full_precision, move
from taskpress.recognition.protocol import CropRecognizer, Recognizer, SoftRecognizer
from taskpress.targets import Target
from taskpress.training.allocation import roi_weighted_mse
from taskpress.training.config import RunConfig
from taskpress.training.data import Batch
from taskpress.training.objective_config import ObjectiveConfig
from taskpress.training.schedule import falling

NO_BRANCHES: Mapping[int, AuxiliaryBranch] = MappingProxyType({})


class Weighted(NamedTuple):
    """One of several recognizers that a codec serves, and the weight of its losses."""

    recognizer: Recognizer
    weight: float = 1.0


def labels_crops(config: ObjectiveConfig, recognizer: Recognizer) -> bool:
    """Whether a teacher looks at crops in the step, and not once at whole pictures."""
    return config.labels == "crop" or recognizer.task.labels_crops


class Objective:
    """The terms of the loss for one batch.

    config:      which terms there are, and their weights
    lmbda:       λ
    recognizers: frozen; they judge the decoded image: L = λ Σ weight · (L_task + α L_aux) + R over all; none
        for MSE only

    `alpha` is α as it is now; `progress` sets it by the schedule.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        lmbda: float,
        recognizers: Sequence[Weighted] = (),
    ) -> None:
        self.config, self.lmbda, self.alpha, self.recognizers = config, lmbda, config.alpha, recognizers
        for one, _ in self.recognizers:
            if config.task == "soft" and not isinstance(one, SoftRecognizer):
                raise RecognizerError(
                    f"{one.name}: its outputs cannot be held against each other number by number; give "
                    "objective.task=outputs or features instead of soft"
                )

    @classmethod
    def of(cls, config: RunConfig, recognizers: Sequence[Recognizer]) -> Objective:
        """That of a training, its recognizers opened."""
        weighted = [Weighted(*pair) for pair in zip(recognizers, config.weights, strict=True)]
        return cls(config.objective, config.lmbda, weighted)

    def to(self, device: torch.device) -> None:
        """Moves the recognizers, which are nobody's children."""
        for recognizer, _ in self.recognizers:
            move(recognizer, device)

    def progress(self, done: float) -> None:
        """Tells how much of the training is done, 0…1: a cosine schedule lowers α from its value to 0."""
        if self.config.alpha_schedule == "cosine":
            self.alpha = self.config.alpha * falling(done)

    def __call__(
        self,
        batch: Batch,
        estimate: Estimate,
        branches: Mapping[int, AuxiliaryBranch] = NO_BRANCHES,
    ) -> dict[str, Tensor]:
        """Scalars by name: `loss` (to minimize), `rate` (R, bits per pixel), `task`, `aux`, `mse`, `roi_mse`
        (with `roi_weight`, in its stead), and the named parts of the recognizers' and the branches' losses as
        `task/…` and `aux/…`, those of the second one as `task/2/…`, `aux/2/…` and so on. `task` and `aux`
        are sums over recognizers, weights included.

        branches: by the place of their recognizer, 0 for the first
        """
        config = self.config
        terms = {"rate": estimate.rate.mean(), "mse": F.mse_loss(estimate.x_hat, batch.images)}
        labels = self.labels_of(self.labelled(batch))
        distortion = terms["mse"]
        if config.roi_weight != 1:
            distortion = roi_weighted_mse(estimate.x_hat, batch.images, labels[0], config.roi_weight)
            terms["roi_mse"] = distortion
        weighted = config.mse * 255**2 * distortion
        decoded = estimate.x_hat.clamp(0, 1)
        parts: dict[str, Tensor] = {}
        sums: dict[str, Tensor] = {}
        for place, (recognizer, weight) in enumerate(self.recognizers):
            found = {"task": self.task_terms(recognizer, labels[place], batch.images, decoded)}
            if (own := branches.get(place)) is not None:
                found["aux"] = own.loss(own(estimate.latent), self.lesson(own, place, batch.images, labels))
            number = f"{place + 1}/" if place else ""
            for kind, values in found.items():
                if values:
                    total = weight * torch.stack(list(values.values())).sum()
                    sums[kind] = sums[kind] + total if kind in sums else total
                parts |= {f"{kind}/{number}{name}": value for name, value in values.items()}
        weighted = weighted + sums.get("task", 0.0) + self.alpha * sums.get("aux", 0.0)
        return {**terms, **sums, "loss": self.lmbda * weighted + terms["rate"], **parts}

    def latent_gradients(self, terms: dict[str, Tensor], latent: Tensor) -> dict[str, Tensor]:
        """How strongly each term of the loss pulls at Ẑ: norms of its gradients there, weights included.

        `gradient/task` (with the share of MSE), `gradient/aux`, `gradient/rate`; `gradient/cosine` between
        the first two: above 0 where the auxiliary loss asks for what the task asks for. No `gradient/rate`
        with an allocator, where the rate is that of Ẑ times its gains, nor where Ẑ is rounded: the rate
        reaches the latent beside it. Call it before the backward pass of `loss`; the graph is kept.
        """
        found = {}
        for name, pull in self.pulls(terms).items():
            (gradient,) = torch.autograd.grad(pull, latent, retain_graph=True, allow_unused=True)
            if gradient is not None:
                found[name] = gradient.flatten().float()
        norms = {f"gradient/{name}": gradient.norm() for name, gradient in found.items()}
        if "aux" in found:
            norms["gradient/cosine"] = F.cosine_similarity(found["task"], found["aux"], dim=0)
        return norms

    def pulls(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weighted terms whose sum the loss is: `rate`, `task` (with the share of MSE), `aux`."""
        distortion = terms.get("roi_mse", terms["mse"])
        pulls = {"rate": terms["rate"], "task": self.lmbda * self.config.mse * 255**2 * distortion}
        if "task" in terms:
            pulls["task"] = pulls["task"] + self.lmbda * terms["task"]
        if "aux" in terms:
            pulls["aux"] = self.lmbda * self.alpha * terms["aux"]
        return pulls

    def labelled(self, batch: Batch) -> Batch:
        """The batch with every teacher's labels, where any are needed. Who labels no whole pictures
        (`labels_crops`) has brought none along, and is asked now."""
        if not self.config.needs_labels:
            return batch
        labels = self.labels_of(batch)
        with torch.no_grad(), full_precision(batch.images):
            for place, (recognizer, _) in enumerate(self.recognizers):
                if not labels[place]:
                    crops = isinstance(recognizer, CropRecognizer)
                    label = recognizer.crop_labels if crops else recognizer.pseudo_labels  # type: ignore[attr-defined]
                    labels[place] = label(list(batch.images))
        return replace(batch, labels=labels)

    def labels_of(self, batch: Batch) -> list[Sequence[Target]]:
        """Labels by recognizer; none of those who have brought none along."""
        labels = list(batch.labels)
        return labels + [[]] * (len(self.recognizers) - len(labels))

    def lesson(
        self, branch: AuxiliaryBranch, place: int, images: Tensor, labels: Sequence[Sequence[Target]]
    ) -> Sequence[Any]:
        """What a branch is to find in the latent of uncompressed `images`: labels of the recognizer at
        `place`, its features, or both with the images."""
        if branch.learns == "labels":
            return labels[place]
        with torch.no_grad(), full_precision(images):
            layers = self.recognizers[place].recognizer.features(list(images))
        return layers if branch.learns == "features" else Lesson(images, layers, labels[place])

    def task_terms(
        self, recognizer: Recognizer, labels: Sequence[Target], images: Tensor, decoded: Tensor
    ) -> dict[str, Tensor]:
        """L_task of a recognizer by its named parts; empty where the objective has none.

        labels: what it sees in `images`, [B, 3, H, W] in [0, 1]; decoded: what has become of them

        Whatever the codec trains in, the recognizer computes in float32, as when it labels and is scored.
        """
        terms: dict[str, Tensor] = {}
        with full_precision(images):
            if self.config.task in ("outputs", "both"):
                terms.update(recognizer.loss(list(decoded), labels))
            if self.config.task == "soft":
                assert isinstance(recognizer, SoftRecognizer)
                terms.update(recognizer.divergence(list(decoded), list(images)))
            if self.config.task in ("features", "both"):
                with torch.no_grad():
                    wanted = recognizer.features(list(images))
                got = recognizer.features(list(decoded))
                terms["features"] = self.config.feature_weight * relative_squared_error(got, wanted)
        return terms
