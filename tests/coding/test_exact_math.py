"""Against scipy's and mpmath's functions, to thirteen digits."""

import mpmath
import numpy as np
import pytest

from taskpress.coding import exact_math


def reference(function, x: np.ndarray) -> np.ndarray:
    """Function of mpmath in fifty digits, rounded to float64."""
    with mpmath.workdps(50):
        return np.array([float(function(mpmath.mpf(float(value)))) for value in x])


X = np.concatenate([np.linspace(-40, 40, 401), [-700.0, -1e-9, 0.0, 1e-300, 1e-9, 0.3465735, 0.3465736]])


def test_exp() -> None:
    np.testing.assert_allclose(exact_math.exp(X), reference(mpmath.exp, X), rtol=1e-14)
    assert np.array_equal(exact_math.exp(np.array([-1e9, 1e9])), exact_math.exp(np.array([-700.0, 700.0])))


def test_sigmoid_and_softplus() -> None:
    small = X[np.abs(X) < 100]
    np.testing.assert_allclose(
        exact_math.sigmoid(small), reference(lambda v: 1 / (1 + mpmath.exp(-v)), small), rtol=1e-14
    )
    np.testing.assert_allclose(
        exact_math.softplus(small), reference(lambda v: mpmath.log(1 + mpmath.exp(v)), small), rtol=1e-14
    )


def test_tanh() -> None:
    np.testing.assert_allclose(exact_math.tanh(X), reference(mpmath.tanh, X), rtol=0, atol=1e-15)


def test_erfc() -> None:
    x = np.concatenate([np.linspace(0, 20, 401), [2.4999999, 2.5, 2.5000001]])
    expected = reference(mpmath.erfc, x)
    found = exact_math.erfc(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-15)
    np.testing.assert_allclose(found[x >= 2.5], expected[x >= 2.5], rtol=1e-13)


def test_normal_above() -> None:
    x = np.linspace(0, 8, 100)
    expected = reference(lambda v: mpmath.erfc(v / mpmath.sqrt(2)) / 2, x)
    np.testing.assert_allclose(exact_math.normal_above(x), expected, rtol=0, atol=2e-15)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh", "softplus", "erfc"])
def test_only_operations_that_ieee_fixes(name: str) -> None:
    """One value at a time gives the bits that long arrays give, whatever vector code the latter take."""
    function = getattr(exact_math, name)
    x = np.abs(X) if name == "erfc" else X
    assert np.array_equal(function(x), np.concatenate([function(x[i : i + 1]) for i in range(len(x))]))
