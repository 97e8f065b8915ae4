"""Building blocks against closed forms."""

import pytest
import torch

from taskpress.coding.layers import GDN, MaskedConv2d, lower_bound


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_its_equation(inverse: bool) -> None:
    gdn = GDN(5, inverse=inverse)
    with torch.no_grad():
        gdn.beta.copy_(torch.rand(5) + 0.5)
        gdn.gamma.copy_(torch.rand(5, 5))
    x = torch.randn(2, 5, 3, 4)
    pool = (gdn.beta**2)[:, None, None] + torch.einsum("ij,bjhw->bihw", gdn.gamma**2, x**2)
    expected = x * pool.sqrt() if inverse else x / pool.sqrt()
    torch.testing.assert_close(gdn(x), expected, rtol=1e-4, atol=1e-5)


def test_lower_bound_lets_only_rising_values_learn() -> None:
    x = torch.tensor([0.5, 0.5, 2.0, 2.0], requires_grad=True)
    out = lower_bound(x, 1.0)
    assert out.tolist() == [1.0, 1.0, 2.0, 2.0]
    out.backward(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    # Descent moves against the gradient: -1 raises x towards the bound, +1 would push it further below.
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, -1.0, 1.0, -1.0]


def test_masked_convolution_sees_only_the_past() -> None:
    conv = MaskedConv2d(2, 3)
    x = torch.randn(1, 2, 7, 7, requires_grad=True)
    conv(x)[0, :, 3, 3].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(0) > 0
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:3, 1:6] = True
    expected[3, 1:3] = True
    assert torch.equal(reached, expected)
