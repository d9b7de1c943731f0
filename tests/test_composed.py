"""The contract's defaults: they keep its bounds, and every derivative of theirs is right."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import autograd
import numpy as np
import pytest

from isometry.common import composed
from isometry.common.contract import Backend

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from composed import DEFAULTS, adapter  # noqa: E402


@pytest.fixture(scope="module")
def nx() -> Backend:
    return adapter("numpy")()


def test_numpy_conforms_on_the_defaults_alone(tmp_path: Path) -> None:
    suite = ["-p", "isometry.conformance.plugin", "--pyargs", "isometry.conformance"]
    run = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", *suite, "--backend", "composed:numpy"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr


def test_every_default_is_judged(nx: Backend) -> None:
    functions = {n for n, f in vars(composed).items() if callable(f) and n in vars(Backend)}
    assert functions == set(DEFAULTS)
    for name in DEFAULTS:
        assert inspect.unwrap(getattr(nx, name)) is inspect.unwrap(getattr(Backend, name))


# --- derivatives of every order, against the polynomials in tanh --------------------------------


def tanh_derivative(t: float, order: int) -> float:
    """``d/dx P(tanh x) = P'(t) (1 - t**2)``, repeated."""
    p = np.polynomial.Polynomial([0.0, 1.0])
    for _ in range(order):
        p = p.deriv() * np.polynomial.Polynomial([1.0, 0.0, -1.0])
    return float(p(t))


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("x", [0.0, -0.0, 0.3, -1.0, 2.0, -3.0])
def test_higher_derivatives(nx: Backend, x: float, order: int) -> None:
    found = {}
    for name in ("sigmoid", "tanh"):
        f = getattr(nx, name)
        for _ in range(order):
            f = autograd.elementwise_grad(f)
        found[name] = float(f(np.array([x]))[0])
    # sigmoid(x) = (1 + tanh(x / 2)) / 2
    expected = {
        "sigmoid": tanh_derivative(np.tanh(x / 2), order) / 2 ** (order + 1),
        "tanh": tanh_derivative(np.tanh(x), order),
    }
    for name, value in found.items():
        # the polynomial's terms are at most 5! in size, and cancel to 0 at some x
        assert abs(value - expected[name]) <= 1000 * np.finfo(float).eps, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_second_derivative_is_finite_wherever_x_is(nx: Backend, dtype: str) -> None:
    x = np.array([-1e30, -800.0, -90.0, -44.5, 0.0, 44.5, 90.0, 800.0, 1e30], dtype)
    for name in DEFAULTS[:4]:
        second = autograd.elementwise_grad(autograd.elementwise_grad(getattr(nx, name)))(x)
        assert np.all(np.isfinite(second)), name
        np.testing.assert_array_equal(second[[0, 1, -2, -1]], 0)


def test_tanh_keeps_the_sign_of_zero(nx: Backend) -> None:
    np.testing.assert_array_equal(np.signbit(nx.tanh(np.array([-0.0, 0.0]))), [True, False])


def test_no_factors_leave_the_product(nx: Backend) -> None:
    start = np.ones((2, 3, 3))
    product, log_scale = nx.chain_product(start, np.ones((0, 2, 3, 3)), rescale=True)
    np.testing.assert_array_equal(product, start)
    np.testing.assert_array_equal(log_scale, [0, 0])
