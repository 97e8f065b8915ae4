"""Eq. (1) of Iino et al.: L = λ (L_task + α L_aux) + R, by distillation from the frozen recognizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.auxiliary.branch import AuxiliaryBranch
from taskpress.coding.codec import Estimate
from taskpress.recognition.protocol import Recognizer
from taskpress.training.allocation import roi_weighted_mse
from taskpress.training.config import ObjectiveConfig
from taskpress.training.data import Batch


class Objective:
    """The terms of the loss for one batch.

    config:     which terms there are, and their weights
    rate:       λ
    recognizer: frozen; judges the decoded image; None for MSE only
    """

    def __init__(self, config: ObjectiveConfig, rate: float, recognizer: Recognizer | None) -> None:
        self.config, self.rate, self.recognizer = config, rate, recognizer

    def __call__(self, batch: Batch, estimate: Estimate, branch: AuxiliaryBranch | None) -> dict[str, Tensor]:
        """Scalars by name: `loss` (to minimize), `rate` (R, bits per pixel), `task`, `aux`, `mse`, `roi_mse`
        (with `roi_weight`, in its stead), and the named parts of the recognizer's and the branch's losses as
        `task/…` and `aux/…`."""
        config = self.config
        terms = {"rate": estimate.rate.mean(), "mse": F.mse_loss(estimate.x_hat, batch.images)}
        batch = self._labelled(batch)
        distortion = terms["mse"]
        if config.roi_weight != 1:
            distortion = roi_weighted_mse(estimate.x_hat, batch.images, batch.labels, config.roi_weight)
            terms["roi_mse"] = distortion
        weighted = config.mse * 255**2 * distortion
        task = self._task_terms(batch, estimate.x_hat.clamp(0, 1))
        if task:
            terms["task"] = torch.stack(list(task.values())).sum()
            weighted = weighted + terms["task"]
        aux: dict[str, Tensor] = {}
        if branch is not None:
            aux = branch.loss(branch(estimate.latent), batch.labels)
            terms["aux"] = torch.stack(list(aux.values())).sum()
            weighted = weighted + config.alpha * terms["aux"]
        terms["loss"] = self.rate * weighted + terms["rate"]
        terms.update({f"task/{name}": value for name, value in task.items()})
        terms.update({f"aux/{name}": value for name, value in aux.items()})
        return terms

    def latent_gradients(self, terms: dict[str, Tensor], latent: Tensor) -> dict[str, Tensor]:
        """How strongly each term of the loss pulls at Ẑ: norms of its gradients there, weights included.

        `gradient/task` (with the share of MSE), `gradient/aux`, `gradient/rate`; `gradient/cosine` between
        the first two: above 0 where the auxiliary loss asks for what the task asks for. No `gradient/rate`
        with an allocator: the rate is then that of Ẑ times its gains. Call it before the backward pass of
        `loss`; the graph is kept.
        """
        config = self.config
        distortion = terms.get("roi_mse", terms["mse"])
        pulls = {"rate": terms["rate"], "task": self.rate * config.mse * 255**2 * distortion}
        if "task" in terms:
            pulls["task"] = pulls["task"] + self.rate * terms["task"]
        if "aux" in terms:
            pulls["aux"] = self.rate * config.alpha * terms["aux"]
        found = {}
        for name, pull in pulls.items():
            (gradient,) = torch.autograd.grad(pull, latent, retain_graph=True, allow_unused=True)
            if gradient is not None:
                found[name] = gradient.flatten().float()
        norms = {f"gradient/{name}": gradient.norm() for name, gradient in found.items()}
        if "aux" in found:
            norms["gradient/cosine"] = F.cosine_similarity(found["task"], found["aux"], dim=0)
        return norms

    def _labelled(self, batch: Batch) -> Batch:
        """Where a crop has labels of its own, the teacher is asked now (`Task.labels_crops`)."""
        if self.recognizer is None or not self.recognizer.task.labels_crops or not self.config.needs_labels:
            return batch
        with torch.no_grad():
            return Batch(batch.images, self.recognizer.pseudo_labels(list(batch.images)))

    def _task_terms(self, batch: Batch, decoded: Tensor) -> dict[str, Tensor]:
        if self.config.task == "none":
            return {}
        assert self.recognizer is not None
        terms: dict[str, Tensor] = {}
        if self.config.task in ("outputs", "both"):
            terms.update(self.recognizer.loss(list(decoded), batch.labels))
        if self.config.task in ("features", "both"):
            with torch.no_grad():
                wanted = self.recognizer.features(list(batch.images))
            got = self.recognizer.features(list(decoded))
            terms["features"] = self.config.feature_weight * relative_squared_error(got, wanted)
        return terms


def relative_squared_error(features: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Mean over layers of ||f - f_ref||² / ||f_ref||²: 0 for equal features, 1 for none at all.

    features, reference: [B, C_l, h_l, w_l] for each layer; a scalar comes back.
    """
    errors = [
        F.mse_loss(f, r) / r.square().mean().clamp_min(1e-12)
        for f, r in zip(features, reference, strict=True)
    ]
    return torch.stack(errors).mean()
