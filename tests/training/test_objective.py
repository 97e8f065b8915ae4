"""Eq. (1), held against its closed form on a recognizer and a branch whose losses are known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from taskpress.auxiliary.branch import AuxiliaryBranch
from taskpress.auxiliary.features import FeaturesBranch, relative_squared_error
from taskpress.coding.codec import Codec
from taskpress.coding.estimate import Estimate
from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.protocol import Task
from taskpress.training.data import Batch
from taskpress.training.objective import Objective, Weighted
from taskpress.training.objective_config import ObjectiveConfig


class Known:
    """A recognizer whose loss is the mean of the picture and whose feature is the picture."""

    name, task, fingerprint = "known", Task.DETECTION, "0"
    categories = (Category(1, "thing"),)

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        return [Detections.empty() for _ in images]

    pseudo_labels = predict

    def loss(self, images: Sequence[Tensor], targets: Sequence[Detections]) -> dict[str, Tensor]:
        stacked = torch.stack(list(images))
        return {"mean": stacked.mean(), "double": 2 * stacked.mean()}

    def features(self, images: Sequence[Tensor]) -> list[Tensor]:
        return [torch.stack(list(images))]


class KnownSoft(Known):
    """With outputs that are the picture."""

    def divergence(self, images: Sequence[Tensor], reference: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"apart": (torch.stack(list(images)) - torch.stack(list(reference))).abs().mean()}


class KnownCrops(Known):
    """Sees something else in crops."""

    def crop_labels(self, images: Sequence[Tensor]) -> list[Detections]:
        return [Detections(torch.ones(1, 4), torch.zeros(1).long(), torch.ones(1)) for _ in images]


class Constant(AuxiliaryBranch):
    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        return {"sum": latent.sum()}

    def loss(self, output: dict[str, Tensor], targets: Sequence[Detections]) -> dict[str, Tensor]:
        return {"a": output["sum"], "b": output["sum"] * 0 + 0.5}


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.full((2, 3, 64, 64), 0.5), [[Detections.empty(), Detections.empty()]])


def test_who_sees_crops_otherwise_labels_them_so() -> None:
    bare = Batch(torch.zeros(2, 3, 64, 64))
    objective = Objective(ObjectiveConfig(labels="crop"), 1.0, [Weighted(KnownCrops()), Weighted(Known())])
    batch = objective.labelled(bare)
    assert [[len(label) for label in labels] for labels in batch.labels] == [[1, 1], [0, 0]]
    again = objective.labelled(batch).labels
    assert all(a is b for a, b in zip(again, batch.labels, strict=True)), "a second time it asks nobody"


@pytest.fixture
def estimate() -> Estimate:
    return Estimate(
        torch.full((2, 3, 64, 64), 0.25),
        torch.full((2, 1, 4, 4), 0.125),
        torch.tensor([0.3, 0.5]),
        torch.ones(2, 4, 4),
    )


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (ObjectiveConfig(task="outputs"), 0.75),
        (ObjectiveConfig(task="features"), 0.25),
        (ObjectiveConfig(task="both", feature_weight=2.0), 0.75 + 2 * 0.25),
    ],
)
@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("mse", [0.0, 0.01])
def test_loss_is_equation_1(
    batch: Batch, estimate: Estimate, config: ObjectiveConfig, task: float, alpha: float, mse: float
) -> None:
    config = config.model_copy(update={"alpha": alpha, "mse": mse})
    lmbda = 0.7
    terms = Objective(config, lmbda, [Weighted(Known())])(batch, estimate, {0: Constant()} if alpha else {})
    aux = 2 * 16 * 0.125 + 0.5
    assert terms["rate"].item() == pytest.approx(0.4)
    assert terms["task"].item() == pytest.approx(task)
    squared = 0.25**2
    assert terms["loss"].item() == pytest.approx(
        lmbda * (task + alpha * aux + mse * 255**2 * squared) + 0.4, rel=1e-5
    )
    assert ("aux" in terms) == bool(alpha)
    parts = sum(value.item() for name, value in terms.items() if name.startswith("task/"))
    assert parts == pytest.approx(task)


def test_alpha_falls_along_a_cosine(batch: Batch, estimate: Estimate) -> None:
    aux = 2 * 16 * 0.125 + 0.5
    for schedule, shares in {"constant": (1, 1, 1), "cosine": (1, 0.5, 0)}.items():
        objective = Objective(ObjectiveConfig(alpha=0.2, alpha_schedule=schedule), 0.7, [Weighted(Known())])
        for done, share in zip((0.0, 0.5, 1.0), shares, strict=True):
            objective.progress(done)
            loss = objective(batch, estimate, {0: Constant()})["loss"].item()
            assert loss == pytest.approx(0.7 * (0.75 + share * 0.2 * aux) + 0.4, rel=1e-5)


def test_mse_alone_needs_no_recognizer(batch: Batch, estimate: Estimate) -> None:
    terms = Objective(ObjectiveConfig(task="none", mse=1.0), 0.01)(batch, estimate)
    assert terms["loss"].item() == pytest.approx(0.01 * 255**2 * 0.0625 + 0.4, rel=1e-5)
    assert "task" not in terms


def test_gradients_of_all_terms_reach_the_codec(batch: Batch) -> None:
    codec = Codec.create("cheng2020-attention", 8).train()
    terms = Objective(ObjectiveConfig(task="both", alpha=1.0), 1.0, [Weighted(Known())])(
        batch, codec.estimate(torch.rand(2, 3, 64, 64)), {0: Constant()}
    )
    first_layer = next(codec.model.g_a.parameters())
    for name in ("task", "aux", "rate"):
        (gradient,) = torch.autograd.grad(terms[name], first_layer, retain_graph=True)
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0, name


def test_latent_gradients_are_those_of_the_closed_form(batch: Batch) -> None:
    latent = torch.rand(2, 1, 4, 4, requires_grad=True)
    # x̂ repeats each latent value 768 times, so the mean of x̂ has the gradient 1/32 everywhere.
    x_hat = latent.repeat(1, 3, 16, 16)
    estimate = Estimate(x_hat, latent, 4 * latent.sum((1, 2, 3)), torch.ones(2, 4, 4))
    objective = Objective(ObjectiveConfig(task="outputs", alpha=0.5), 2.0, [Weighted(Known())])
    terms = objective(batch, estimate, {0: Constant()})
    found = {name: value.item() for name, value in objective.latent_gradients(terms, latent).items()}
    assert found == pytest.approx(
        {
            "gradient/task": 2.0 * 3 / 32 * 32**0.5,
            "gradient/aux": 2.0 * 0.5 * 32**0.5,
            "gradient/rate": 4 / 2 * 32**0.5,
            "gradient/cosine": 1.0,
        }
    )
    terms["loss"].backward()
    assert latent.grad is not None and latent.grad.norm().item() == pytest.approx(
        found["gradient/task"] + found["gradient/aux"] + found["gradient/rate"]
    )


def test_several_recognizers_count_by_their_weights(batch: Batch, estimate: Estimate) -> None:
    config = ObjectiveConfig(task="outputs", alpha=0.5)
    both = Batch(batch.images, [*batch.labels, *batch.labels])
    objective = Objective(config, 2.0, [Weighted(Known(), 0.25), Weighted(Known(), 3.0)])
    aux = 2 * 16 * 0.125 + 0.5
    terms = objective(both, estimate, {0: Constant()})
    assert terms["task"].item() == pytest.approx((0.25 + 3.0) * 0.75)
    assert terms["aux"].item() == pytest.approx(0.25 * aux)
    assert terms["task/2/mean"].item() == pytest.approx(0.25)
    terms = objective(both, estimate, {0: Constant(), 1: Constant()})
    assert terms["aux"].item() == pytest.approx(3.25 * aux)
    assert terms["loss"].item() == pytest.approx(2 * (3.25 * 0.75 + 0.5 * 3.25 * aux) + 0.4, rel=1e-5)


def test_a_features_branch_is_held_against_the_uncompressed_pictures() -> None:
    recognizer, branch = Known(), FeaturesBranch(12, [3], width=8)
    objective = Objective(ObjectiveConfig(task="features", alpha=0.5), 3.0, [Weighted(recognizer)])
    images = torch.rand(2, 3, 64, 64)
    # The decoded pictures and the labels have no part in it.
    latent = torch.randn(2, 12, 4, 4)
    estimate = Estimate(torch.rand(2, 3, 64, 64), latent, torch.ones(2), torch.ones(2, 4, 4))
    terms = objective(Batch(images, [[Detections.empty()] * 2]), estimate, {0: branch})
    cells = images.reshape(2, 3, 4, 16, 4, 16).mean((3, 5))
    predicted = branch(latent)["0"]
    expected = (predicted - cells).square().sum() / cells.square().sum()
    torch.testing.assert_close(terms["aux"], expected)


def test_relative_squared_error_at_its_fixed_points() -> None:
    features = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)]
    assert relative_squared_error(features, features).item() == 0
    nothing = [torch.zeros_like(f) for f in features]
    assert relative_squared_error(nothing, features).item() == pytest.approx(1)
    halves = [f / 2 for f in features]
    scaled = [100 * f for f in features]
    assert relative_squared_error(halves, features).item() == pytest.approx(0.25)
    assert relative_squared_error([50 * f for f in features], scaled).item() == pytest.approx(0.25)


def test_soft_outputs_are_held_against_the_uncompressed_picture(batch: Batch, estimate: Estimate) -> None:
    terms = Objective(ObjectiveConfig(task="soft"), 2.0, [Weighted(KnownSoft())])(batch, estimate)
    assert float(terms["task/apart"]) == pytest.approx(0.25)
    assert float(terms["loss"]) == pytest.approx(2 * 0.25 + 0.4)


def test_soft_outputs_are_refused_where_the_recognizer_has_none() -> None:
    with pytest.raises(RecognizerError, match=r"known.*objective\.task=outputs"):
        Objective(ObjectiveConfig(task="soft"), 1.0, [Weighted(Known())])
