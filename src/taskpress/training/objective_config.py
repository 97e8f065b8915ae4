"""Which terms a loss has, and how strong: the section `objective` of a preset."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from taskpress.training.fields import BranchName
from taskpress.training.section import Section


class BranchFirstConfig(Section):
    """What the auxiliary branch learns alone, on latents of the codec as the training begins.

    A fresh branch finds next to nothing in Ẑ, so its gradient cannot tell the encoder what objects need. No
    arm sees other batches for it: the steps of the training are counted from its end.
    """

    steps: int = Field(ge=1, description="steps of the branch alone")
    batch: int = Field(8, ge=1, description="crops of such a step")
    learning_rate: float = Field(3e-3, gt=0, description="Adam's, in these steps")


class ObjectiveConfig(Section):
    """The terms of eq. (1), L = λ (L_task + α L_aux) + R; λ comes from the experiment's `lambdas`."""

    task: Literal["none", "outputs", "soft", "features", "both"] = Field(
        "outputs",
        description="L_task on the recognizer's outputs: through pseudo-labels or, soft, number by number; "
        "on its features; or on outputs through pseudo-labels and features both",
    )
    labels: Literal["picture", "crop"] = Field(
        "picture",
        description="pseudo-labels are of the whole picture, made once and cut with it; or of the very crop, "
        "which the teacher then looks at in every step",
    )
    feature_weight: float = Field(1.0, ge=0, description="share of the feature term in L_task")
    alpha: float = Field(0.0, ge=0, description="α: weight of the auxiliary loss; 0 builds no branch")
    alpha_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: α falls to 0 over the training"
    )
    auxiliary: BranchName = Field(
        "detection", description="branch, which must fit the recognizer's task, or python:FILE.py:CLASS"
    )
    auxiliary_width: int = Field(64, ge=8, description="channels inside the branch")
    auxiliary_first: BranchFirstConfig | None = Field(
        None, description="the branch learns alone before the codec does; none: from the first step with it"
    )
    quantization: Literal["noise", "straight-through", "rounded"] = Field(
        "noise",
        description="what stands for rounding in training: noise; straight-through, where synthesis and "
        "branch see rounded latents and the rate keeps the noise; or rounded, where the rate is of them, too",
    )
    mse: float = Field(0.0, ge=0, description="share of 255² x mean squared error added to L_task")
    roi_weight: float = Field(
        1.0, gt=0, description="weight of squared errors inside the teacher's boxes, in the term `mse`"
    )
    allocation: Literal["none", "roi", "semantic"] = Field(
        "none",
        description="explicit bit allocation: a foreground model, or a policy over semantic regions; "
        "it stays in the encoder and its map in the files",
    )
    allocation_levels: int = Field(5, ge=3, le=15, description="quantization levels, an odd number")
    allocation_width: int = Field(32, ge=8, multiple_of=8, description="channels of the allocator's network")
    allocation_weight: float = Field(1.0, gt=0, description="weight of what teaches the allocator")

    @model_validator(mode="after")
    def _levels_and_weights_mean_something(self) -> ObjectiveConfig:
        if self.allocation_levels % 2 == 0:
            raise ValueError("allocation_levels is an odd number, so that there is a middle one")
        if self.roi_weight != 1 and self.mse == 0:
            raise ValueError("roi_weight weighs the term `mse`, which is 0 here")
        return self

    @property
    def needs_labels(self) -> bool:
        """Whether any term is held against the teacher's labels."""
        return self.alpha > 0 or self.task in ("outputs", "both") or self.needs_boxes

    @property
    def needs_boxes(self) -> bool:
        """Whether any term asks where objects are, so that only a recognizer that says so will do."""
        return self.allocation != "none" or self.roi_weight != 1
