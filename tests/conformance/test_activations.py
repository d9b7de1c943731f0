"""Activations and their derivatives: hard points, and every bound against an exact oracle."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from isometry.common.contract import ACTIVATIONS
from isometry.common.laws import activations as laws
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics.tolerances import (
    ACTIVATION_ULP,
    AGREEMENT_ULP,
    TANH_ULP,
)
from isometry.conformance import asserts

INF, NAN = np.inf, np.nan
FULL = ("float32", "float64")

# x, then sigmoid, sigmoid', tanh, tanh', relu, relu', leaky_relu, leaky_relu' (slope 1/4)
HARD_POINTS = [
    (0.0, 0.5, 0.25, 0.0, 1.0, 0.0, 0.0, 0.0, 0.25),
    (-0.0, 0.5, 0.25, 0.0, 1.0, 0.0, 0.0, 0.0, 0.25),
    (INF, 1.0, 0.0, 1.0, 0.0, INF, 1.0, INF, 1.0),
    (-INF, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -INF, 0.25),
    (2.0**15, 1.0, 0.0, 1.0, 0.0, 2.0**15, 1.0, 2.0**15, 1.0),
    (-(2.0**15), 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -(2.0**13), 0.25),
    (NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN),
]
FUNCTIONS = [name for a in ACTIVATIONS for name in (a, f"{a}_gradient")]
SMOOTH_FUNCTIONS = [name for a in laws.SMOOTH for name in (a, f"{a}_gradient")]


def _function(nx, name):
    function = getattr(nx, name)
    return (lambda x: function(x, slope=0.25)) if "leaky" in name else function


@functools.cache
def _grid(activation: str, dtype: str) -> np.ndarray:
    """Inputs whose derivative is normal: even, logarithmic, and dense around the flush points."""
    end = laws.largest_normal(activation, dtype)
    flush = laws.rounds_to_one(activation, dtype)
    positive = np.concatenate(
        [
            np.linspace(0, end, 1500),
            np.geomspace(FORMATS[dtype].smallest_normal, 1, 300),
            np.linspace(flush - 1, flush + 1, 200),
            np.linspace(0.99 * end, end, 100),
        ]
    ).astype(dtype)
    positive = positive[positive.astype(np.float64) <= end]
    return np.concatenate([-positive, positive])


def _half_inputs(dtype: str) -> np.ndarray:
    """Every finite value of a half precision, in float32."""
    bits = np.arange(2**16, dtype=np.uint32)
    if dtype == "float16":
        values = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    else:
        values = (bits << 16).view(np.float32)
    return values[np.isfinite(values)]


@functools.cache
def _inputs_and_exact(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    activation = name.removesuffix("_gradient")
    if dtype not in FULL:  # all of them, against float64
        x = _half_inputs(dtype)
        x = x[np.abs(x) <= laws.largest_normal(activation, dtype)]
        exact = getattr(laws, name)(x)
        normal = (np.abs(exact) >= FORMATS[dtype].smallest_normal) | (exact == 0)
        return x[normal], exact[normal]
    x = _grid(activation, dtype)
    return x, (laws.exact_gradient if name.endswith("gradient") else laws.exact)(activation, x)


@pytest.mark.clause("activations.hard-points")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_hard_points(nx, mode, dtype, prepare, name):
    points = np.array(HARD_POINTS)
    y = prepare(_function(nx, name))(nx.asarray(points[:, 0].astype(np.float32), dtype=dtype))
    assert nx.dtype_of(y) == dtype
    np.testing.assert_array_equal(nx.to_numpy(y), points[:, 1 + FUNCTIONS.index(name)])


@pytest.mark.clause("activations.exact")
@pytest.mark.parametrize("name", SMOOTH_FUNCTIONS)
def test_error_against_the_exact_value(nx, mode, dtype, prepare, name):
    x, exact = _inputs_and_exact(name, dtype)
    y = prepare(getattr(nx, name))(nx.asarray(x, dtype=dtype))
    budget = TANH_ULP if name == "tanh" else ACTIVATION_ULP
    asserts.within_ulp(nx.to_numpy(y), exact, dtype, budget[dtype])


@pytest.mark.clause("activations.beyond-normal")
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_derivative_stays_small_beyond_the_normal_range(nx, mode, dtype, prepare, activation):
    end = laws.largest_normal(activation, dtype)
    x = np.linspace(1.01 * end, 3 * end, 500).astype(np.float64 if dtype == "float64" else "f4")
    y = prepare(getattr(nx, f"{activation}_gradient"))(nx.asarray(np.append(-x, x), dtype=dtype))
    y = nx.to_numpy(y).astype(np.float64)
    assert np.all((y >= 0) & (y <= FORMATS[dtype].smallest_normal))


@pytest.mark.clause("activations.piecewise")
@pytest.mark.parametrize("name", FUNCTIONS[4:])
def test_piecewise_linear_activations_are_exact(nx, mode, full_dtype, prepare, name):
    x = np.linspace(-3, 3, 97).astype(full_dtype)  # 1/4 is a power of two: no rounding
    y = prepare(_function(nx, name))(nx.asarray(x))
    kwargs = {"slope": 0.25} if "leaky" in name else {}
    np.testing.assert_array_equal(nx.to_numpy(y), getattr(laws, name)(x, **kwargs))


@pytest.mark.clause("activations.autodiff")
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_autodiff_gives_the_exact_derivative(nx, mode, full_dtype, prepare, activation):
    x, exact = _inputs_and_exact(f"{activation}_gradient", full_dtype)
    array = nx.asarray(x)
    _, pullback = nx.vjp(prepare(getattr(nx, activation)), array)
    gradient = nx.to_numpy(pullback(nx.asarray(np.ones_like(x))))
    asserts.within_ulp(gradient, exact, full_dtype, ACTIVATION_ULP[full_dtype])


@pytest.mark.clause("activations.autodiff-hard-points")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_autodiff_at_hard_points(nx, mode, full_dtype, prepare, activation):
    points = np.array(HARD_POINTS, full_dtype)
    x = nx.asarray(points[:, 0])
    _, pullback = nx.vjp(prepare(_function(nx, activation)), x)
    expected = points[:, 2 + FUNCTIONS.index(activation)]
    gradient = nx.to_numpy(pullback(nx.ops.ones_like(x)))
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.clause("activations.native")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_native_derivative_is_a_derivative(nx, full_dtype, activation):
    x = np.linspace(-0.25, 0.25, 64).astype(full_dtype)  # y (1 - y) and 1 - y**2 lose nothing here
    y = nx.native_gradient(activation, nx.asarray(x))
    assert nx.dtype_of(y) == full_dtype
    exact = getattr(laws, f"{activation}_gradient")(x)
    # a native has no bound, and some keep a float32 slope in float64
    asserts.within_ulp(nx.to_numpy(y), exact, "float32", AGREEMENT_ULP["float32"])
