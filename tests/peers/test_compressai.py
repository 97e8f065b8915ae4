"""CompressAI as oracle: same weights and same input give the same likelihoods and the same latent."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import taskpress
from taskpress.coding.hyperprior import HyperpriorModel

with warnings.catch_warnings():
    # It imports torch-geometric, which warns about what it does not find.
    warnings.simplefilter("ignore")
    reason = "needs compressai: pip install --no-deps -r requirements-peers.txt"
    peer_models = pytest.importorskip("compressai.models", reason=reason)

ARCHITECTURES = {
    "cheng2020-attention": lambda N: peer_models.Cheng2020Attention(N),
    "cheng2020-anchor": lambda N: peer_models.Cheng2020Anchor(N),
    "joint-autoregressive": lambda N: peer_models.JointAutoregressiveHierarchicalPriors(N, 24),
    "mean-scale-hyperprior": lambda N: peer_models.MeanScaleHyperprior(N, 24),
}
DERIVED = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table", "scale_bound", "target", "bound")
DERIVED += ("pedestal", "mask")


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """Moves a model (ours or theirs) off its flat start: latents then span many values, means and scales."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "quantiles" not in name:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    quantiles = model.entropy_bottleneck.quantiles
    quantiles[..., 1] += torch.randn(quantiles.shape[:-1], generator=generator)
    x = torch.rand(1, 3, 64, 64, generator=generator)
    last_convolution(model.g_a).weight.mul_(3 / model.g_a(x).std())
    y = model.g_a(x)
    last_convolution(model.h_a).weight.mul_(3 / model.h_a(y).std())
    z = model.h_a(y)
    last_convolution(model.h_s).weight.mul_(2 / model.h_s(z).std())
    # Scales that fit the latent, as training would make them.
    gaussian = last_convolution(getattr(model, "entropy_parameters", None) or model.h_s)
    gaussian.bias[: gaussian.out_channels // 2] += 3


def last_convolution(layers: nn.Sequential) -> nn.Conv2d:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)][-1]


def pair(architecture: str) -> tuple[HyperpriorModel, nn.Module]:
    N = 16
    M = None if architecture.startswith("cheng") else 24
    torch.manual_seed(1)
    ours = taskpress.Codec.create(architecture, N, M, seed=3).model
    return ours.eval(), ARCHITECTURES[architecture](N).eval()


def compare(ours: HyperpriorModel, theirs: nn.Module) -> None:
    latents = []
    theirs.g_s.register_forward_pre_hook(lambda module, inputs: latents.append(inputs[0]))
    x = torch.rand(2, 3, 128, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
    assert latents[0].std() > 0.5, "the latent must not be trivial"
    torch.testing.assert_close(found["y_hat"], latents[0], rtol=1e-4, atol=1e-4)
    for part in ("y", "z"):
        bits, expected_bits = -found["likelihoods"][part].log2(), -expected["likelihoods"][part].log2()
        assert expected_bits.mean() > 0.05
        torch.testing.assert_close(bits, expected_bits, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(found["x_hat"], expected["x_hat"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_our_weights_in_theirs(architecture: str) -> None:
    ours, theirs = pair(architecture)
    stir(ours)
    own, state = ours.state_dict(), theirs.state_dict()
    assert own.keys() <= state.keys()
    assert all(key.split(".")[-1] in DERIVED for key in state.keys() - own.keys())
    theirs.load_state_dict({**state, **own})
    compare(ours, theirs)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_their_checkpoint_in_ours(architecture: str, wrapped: bool, tmp_path: Path) -> None:
    _, theirs = pair(architecture)
    stir(theirs)
    theirs.update(force=True)
    state = theirs.state_dict()
    path = tmp_path / "checkpoint.pth.tar"
    if wrapped:
        state = {f"module.{key}": value for key, value in state.items()}
        torch.save({"epoch": 3, "state_dict": state, "loss": 0.5}, path)
    else:
        torch.save(state, path)
    codec = taskpress.load(path)
    assert codec.architecture == architecture
    assert torch.equal(
        codec.model.entropy_bottleneck.quantiles, state_of(state, "entropy_bottleneck.quantiles")
    )
    compare(codec.model, theirs)


def state_of(state: dict[str, torch.Tensor], key: str) -> torch.Tensor:
    return next(value for name, value in state.items() if name.endswith(key))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_agree(architecture: str) -> None:
    """Through the likelihoods' lower bounds too. Evaluation mode, where neither side draws noise."""
    ours, theirs = pair(architecture)
    stir(ours)
    theirs.load_state_dict({**theirs.state_dict(), **ours.state_dict()})
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    for model in (ours, theirs):
        out = model(x)
        (sum(-part.log2().sum() for part in out["likelihoods"].values()) / 4096).backward()
    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = others[name].grad
        if name == "context_prediction.weight":
            # Theirs masks the weight before use but lets gradients of masked taps accumulate.
            expected = expected * theirs.context_prediction.mask
        if parameter.grad is None:
            assert expected is None, name
        else:
            torch.testing.assert_close(
                parameter.grad, expected, rtol=1e-2, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("architecture", ["cheng2020-anchor", "mean-scale-hyperprior"])
def test_coded_latent_is_theirs(architecture: str) -> None:
    """What CompressAI's decompress finds is what our decoder finds, up to the grid our means are rounded to.

    Theirs codes position by position in float32, so a value close to a tie may round differently and, through
    the context, move those after it: most of the latent has to agree, and the rate.
    """
    ours, theirs = pair(architecture)
    stir(ours)
    theirs.load_state_dict({**theirs.state_dict(), **ours.state_dict()})
    theirs.entropy_bottleneck._update_quantiles()
    with torch.no_grad():
        theirs.entropy_bottleneck.quantiles[:, 0, 1] = ours.entropy_bottleneck.quantiles[:, 0, 1]
        theirs.update(force=True)
    codec = taskpress.Codec(architecture, ours).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    latents = []
    theirs.g_s.register_forward_pre_hook(lambda module, inputs: latents.append(inputs[0].clone()))
    with torch.no_grad():
        coded = theirs.compress(x)
        theirs.decompress(coded["strings"], coded["shape"])
        estimate = codec.estimate(x)
    close = (estimate.latent - latents[0]).abs() < 0.01
    assert close.float().mean() > 0.97
    theirs_bytes = sum(len(strings[0]) for strings in coded["strings"])
    assert abs(len(codec.encode(x[0])) - theirs_bytes) < 0.02 * theirs_bytes + 40
