"""Activations and their derivatives: hard points, and every bound against an exact oracle."""

from __future__ import annotations

import functools
import math

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
from isometry.conformance import asserts, floats
from isometry.conformance.shapes import ENTRIES, entries

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
    flush = laws.rounds_to_one(activation, dtype)  # y (1 - y) is 0 from a little before
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
    return entries(x), entries(_exact(name, x))


def _exact(name: str, x: np.ndarray) -> np.ndarray:
    """Return a smooth function in decimals: a law in float64 errs as much as what is judged."""
    exact = laws.exact_gradient if name.endswith("gradient") else laws.exact
    return exact(name.removesuffix("_gradient"), x)


@pytest.mark.clause("activations.hard-points")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_hard_points(nx, mode, dtype, prepare, name):
    points = entries(np.array(HARD_POINTS))
    y = prepare(_function(nx, name))(nx.asarray(points[..., 0].astype(np.float32), dtype=dtype))
    assert nx.dtype_of(y) == dtype
    np.testing.assert_array_equal(nx.to_numpy(y), points[..., 1 + FUNCTIONS.index(name)])


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
    x = nx.asarray(entries(np.append(-x, x)), dtype=dtype)
    y = prepare(getattr(nx, f"{activation}_gradient"))(x)
    y = nx.to_numpy(y).astype(np.float64)
    assert np.all((y >= 0) & (y <= FORMATS[dtype].smallest_normal))


SLOPES = (0.0, 0.25, 1.0, 2.0, -0.5, 1e-3)


@pytest.mark.clause("activations.piecewise")
def test_relu_is_exact(nx, mode, full_dtype, prepare):
    x = _ordinary(full_dtype)
    array = nx.asarray(x)
    np.testing.assert_array_equal(nx.to_numpy(prepare(nx.relu)(array)), laws.relu(x))
    np.testing.assert_array_equal(
        nx.to_numpy(prepare(nx.relu_gradient)(array)), laws.relu_gradient(x)
    )


@pytest.mark.clause("activations.slope")
def test_leaky_relu_with_any_slope(nx, mode, full_dtype, prepare):
    x = _ordinary(full_dtype)

    def each(f):
        return prepare(lambda x: nx.ops.stack([f(x, slope=slope) for slope in SLOPES]))

    with nx.scope():
        ys, pullback = nx.vjp(each(nx.leaky_relu), nx.asarray(x))
        derivatives = nx.to_numpy(each(nx.leaky_relu_gradient)(nx.asarray(x)))
    for k, (slope, y) in enumerate(zip(SLOPES, nx.to_numpy(ys), strict=True)):
        budget = 0 if slope != 1e-3 else ACTIVATION_ULP[full_dtype]  # powers of two round nothing
        asserts.within_ulp(y, laws.leaky_relu(x, slope=slope), full_dtype, budget)
        exact = np.where(x > 0, 1, floats.rounded(np.array(slope), full_dtype))
        np.testing.assert_array_equal(derivatives[k], exact)
        cotangent = np.zeros_like(derivatives)
        cotangent[k] = _powers_of_two(x)
        gradient = nx.to_numpy(pullback(nx.asarray(cotangent)))
        np.testing.assert_array_equal(gradient, exact * cotangent[k])


def _ordinary(dtype: str) -> np.ndarray:
    """Every value from -3 to 3 in steps of 1/16, and from 2**-20 to 2**20."""
    size = 2.0 ** np.arange(-20, 21)
    return entries(np.concatenate([np.linspace(-3, 3, 97), size, -size]).astype(dtype))


def _powers_of_two(x: np.ndarray) -> np.ndarray:
    """Return cotangents of both signs: factors that round nothing."""
    k = np.arange(x.size).reshape(x.shape)
    return ((-1.0) ** k * 2.0 ** (k % 5 - 2)).astype(x.dtype)


@pytest.mark.clause("activations.autodiff")
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_autodiff_gives_the_exact_derivative(nx, mode, full_dtype, prepare, activation):
    x, exact = _inputs_and_exact(f"{activation}_gradient", full_dtype)
    _, pullback = nx.vjp(prepare(getattr(nx, activation)), nx.asarray(x))
    gradient = nx.to_numpy(pullback(nx.asarray(np.ones_like(x))))
    asserts.within_ulp(gradient, exact, full_dtype, ACTIVATION_ULP[full_dtype])


@functools.cache
def _up_to(end: float, activation: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(-end / 16, end, 151).astype(dtype)
    return entries(x), entries(_exact(f"{activation}_gradient", x))


@pytest.mark.clause("activations.autodiff-any-range")
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_autodiff_is_exact_whatever_the_largest_argument(nx, mode, full_dtype, prepare, activation):
    f = prepare(getattr(nx, activation))
    for end in (0.125, 0.5, 1.0, 2.0, 4.0, -0.5, -1.0, -2.0, -4.0):
        x, exact = _up_to(end, activation, full_dtype)
        _, pullback = nx.vjp(f, nx.asarray(x))
        gradient = nx.to_numpy(pullback(nx.asarray(np.ones_like(x))))
        asserts.within_ulp(gradient, exact, full_dtype, ACTIVATION_ULP[full_dtype])


@pytest.mark.clause("activations.autodiff-hard-points")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_autodiff_at_hard_points(nx, mode, full_dtype, prepare, activation):
    points = entries(np.array(HARD_POINTS, full_dtype))
    x = nx.asarray(points[..., 0])
    _, pullback = nx.vjp(prepare(_function(nx, activation)), x)
    expected = points[..., 2 + FUNCTIONS.index(activation)]
    gradient = nx.to_numpy(pullback(nx.ops.ones_like(x)))
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.clause("activations.native")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_native_derivative_is_a_derivative(nx, full_dtype, activation):
    # y (1 - y) and 1 - y**2 lose nothing here
    x = entries(np.linspace(-0.25, 0.25, 64).astype(full_dtype))
    y = nx.native_gradient(activation, nx.asarray(x))
    assert nx.dtype_of(y) == full_dtype
    exact = getattr(laws, f"{activation}_gradient")(x)
    # a native has no bound, and some keep a float32 slope in float64
    asserts.within_ulp(nx.to_numpy(y), exact, "float32", AGREEMENT_ULP["float32"])
    far = nx.native_gradient(activation, nx.asarray(4000 * x))  # e**1000 overflows: no warning
    assert nx.dtype_of(far) == full_dtype


# --- every exponent, every shape ----------------------------------------------------------------


@functools.cache
def _every_exponent(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 numbers with normal results, and those in float64."""
    x = floats.every_exponent("float32")
    exact = getattr(laws, name)(x)
    normal = np.abs(exact) >= FORMATS["float32"].smallest_normal
    return x[normal], exact[normal]


@pytest.mark.clause("activations.every-exponent")
@pytest.mark.parametrize("name", SMOOTH_FUNCTIONS)
def test_float32_at_every_exponent(nx, mode, prepare, name):
    x, exact = _every_exponent(name)
    y = prepare(getattr(nx, name))(nx.asarray(x))
    budget = TANH_ULP if name == "tanh" else ACTIVATION_ULP
    asserts.within_ulp(nx.to_numpy(y), exact, "float32", budget["float32"])


@pytest.mark.clause("activations.autodiff-every-exponent")
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_autodiff_at_every_exponent_and_cotangent(nx, mode, prepare, activation):
    x, exact = _every_exponent(f"{activation}_gradient")
    v = _powers_of_two(x)
    v = np.where(np.abs(exact * v) < FORMATS["float32"].smallest_normal, np.float32(1), v)
    _, pullback = nx.vjp(prepare(getattr(nx, activation)), nx.asarray(x))
    gradient = nx.to_numpy(pullback(nx.asarray(v)))
    asserts.within_ulp(gradient, exact * v, "float32", ACTIVATION_ULP["float32"])


@pytest.mark.clause("activations.subnormal")
@pytest.mark.parametrize("name", [*SMOOTH_FUNCTIONS, "relu", "leaky_relu"])
def test_subnormal_inputs(nx, mode, full_dtype, prepare, name):
    least = FORMATS[full_dtype].smallest_normal
    size = least * 2.0 ** np.arange(0, -FORMATS[full_dtype].precision, -1.0)
    x = entries(np.concatenate([size, -size]).astype(full_dtype))
    y = nx.to_numpy(prepare(_function(nx, name))(nx.asarray(x))).astype(np.float64)
    limit = {"sigmoid": 0.5, "sigmoid_gradient": 0.25, "tanh_gradient": 1.0}.get(name)
    if limit is None:  # a subnormal result may be rounded to 0, never away from it
        asserts.within(y, 0.0, least)
    else:
        np.testing.assert_array_equal(y, limit)


@pytest.mark.clause("activations.signed-zero")
@pytest.mark.parametrize("name", ["tanh", "leaky_relu"])
def test_sign_of_zero(nx, mode, dtype, prepare, name):
    x = entries(np.array([-0.0, 0.0], np.float32))
    y = nx.to_numpy(prepare(_function(nx, name))(nx.asarray(x, dtype=dtype)))
    assert not np.any(y)
    np.testing.assert_array_equal(np.signbit(y), np.signbit(x))


@pytest.mark.clause("activations.any-shape")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_shape(nx, full_dtype, name):
    flat = np.linspace(-4, 4, math.prod(ENTRIES)).astype(full_dtype)
    if name in SMOOTH_FUNCTIONS:
        exact = _exact(name, flat)
    else:
        exact = getattr(laws, name)(flat, **({"slope": 0.25} if "leaky" in name else {}))
    for shape in ((), ENTRIES):  # other clauses give rows
        size = math.prod(shape)
        y = _function(nx, name)(nx.asarray(flat[:size].reshape(shape)))
        assert nx.dtype_of(y) == full_dtype
        budget = TANH_ULP if name == "tanh" else ACTIVATION_ULP
        asserts.within_ulp(
            nx.to_numpy(y), exact[:size].reshape(shape), full_dtype, budget[full_dtype]
        )
