"""Arrays: in from NumPy, out to NumPy, and never changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isometry.common.contract import ACTIVATIONS, Backend
from isometry.common.laws.distributions import Normal
from isometry.common.laws.formats import FORMATS
from isometry.conformance import asserts
from isometry.conformance.examples import EXAMPLES
from isometry.conformance.ops_cases import conv
from isometry.conformance.shapes import DENSE, ENTRIES


@pytest.mark.clause("arrays.round-trip")
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 1)])
def test_values_dtype_and_shape_survive(nx, dtype, shape):
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) - 1.5
    x = nx.asarray(values, dtype=dtype)
    assert nx.is_array(x)
    assert nx.dtype_of(x) == dtype
    assert nx.shape_of(x) == shape
    back = nx.to_numpy(x)
    assert back.dtype == np.dtype("float32" if dtype == "bfloat16" else dtype)
    np.testing.assert_array_equal(back, values)


def _numpy(dtype):
    """Return the dtype in which NumPy holds these values exactly."""
    return np.dtype("float32" if dtype == "bfloat16" else dtype)


def _exact(values, dtype):
    """Return values cut to the bits of bfloat16, which NumPy lacks; else as they are."""
    if dtype != "bfloat16":
        return values
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.clause("arrays.round-trip")
@EXAMPLES
@given(data=st.data())
def test_any_values_of_any_shape_survive(nx, dtype, data):
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    values = _exact(data.draw(hnp.arrays(_numpy(dtype), shapes)), dtype)
    x = nx.asarray(values, dtype=dtype)
    assert nx.dtype_of(x) == dtype
    assert nx.shape_of(x) == values.shape
    asserts.same_bits(nx.to_numpy(x), values)


@pytest.mark.clause("arrays.special-values")
def test_zeros_subnormals_infinities_and_nan_survive(nx, dtype):
    form = FORMATS[dtype]
    subnormal = float(form.ulp(np.array(0.0)))
    positive = [0.0, subnormal, 3 * subnormal, form.smallest_normal, 1.0, form.largest, np.inf]
    values = np.array([*positive, *(-v for v in positive), np.nan], _numpy(dtype))
    asserts.same_bits(nx.to_numpy(nx.asarray(values, dtype=dtype)), values)
    for value in values:
        asserts.same_bits(nx.to_numpy(nx.asarray(value, dtype=dtype)), np.asarray(value))


@pytest.mark.clause("arrays.rounding")
def test_a_narrower_dtype_rounds_to_nearest_even(nx, dtype):
    form, wide = FORMATS[dtype], "float32" if dtype in ("float16", "bfloat16") else "float64"
    exponents = [form.min_exponent, -3, 0, 1, form.max_exponent]
    largest = 2 ** (form.precision - 1)
    kept = [2.0**e * (1 + k / largest) for e in exponents for k in (0, 1, 2, largest - 1)]
    subnormal = float(form.ulp(np.array(0.0)))
    kept = np.array([0.0, subnormal, 2 * subnormal, *kept], np.float64)
    with np.errstate(over="ignore"):  # float64 itself ends at the largest number
        tie = (kept + form.ulp(kept) / 2).astype(wide)
        beside = [np.nextafter(tie, np.array(side, wide)) for side in (-np.inf, np.inf)]
    values = np.concatenate([kept.astype(wide), tie, *beside])
    values = np.concatenate([values, -values])
    asserts.same_bits(nx.to_numpy(nx.asarray(values, dtype=dtype)), _rounded(values, form, dtype))


def _rounded(values, form, dtype):
    """Return values rounded to nearest even: whole multiples of the last place, by definition."""
    exact = values.astype(np.float64)
    with np.errstate(over="ignore"):
        unit = form.ulp(exact)
        nearest = np.rint(exact / unit) * unit
        beyond = np.abs(nearest) > form.largest
    return np.where(beyond, np.copysign(np.inf, exact), nearest).astype(_numpy(dtype))


@pytest.mark.clause("arrays.default-dtype")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, "float32"),
        (2, "float32"),
        ([1.0, 2.0], "float32"),
        ([[1, 2], [3, 4]], "float32"),
        (np.ones(2, np.float16), "float16"),
        (np.ones(2, np.float64), "float64"),
        (np.float64(1), "float64"),
    ],
    ids=repr,
)
def test_default_dtype(nx, value, expected):
    x = nx.asarray(value)
    assert nx.dtype_of(x) == expected
    np.testing.assert_array_equal(nx.to_numpy(x), value)


@pytest.mark.clause("arrays.copies")
def test_arrays_are_copied_both_ways(nx, full_dtype):
    source = np.array([1.0, 2.0], full_dtype)
    x = nx.asarray(source)
    source[0] = 7
    out = nx.to_numpy(x)
    out[1] = 7
    np.testing.assert_array_equal(nx.to_numpy(x), [1.0, 2.0])


@pytest.mark.clause("arrays.foreign")
@pytest.mark.parametrize("value", [1.0, [1.0], "x", None], ids=repr)
def test_other_values_are_no_arrays(nx, value):
    assert not nx.is_array(value)


def _deterministic_calls(
    nx: Backend, dtype: str
) -> dict[str, tuple[Callable[..., Any], list[np.ndarray]]]:
    # the shapes of activations.hard-points and chains.order: JAX compiles each call once a shape
    x = np.linspace(-3, 3, math.prod(ENTRIES)).reshape(ENTRIES)
    channels = [np.linspace(1, 2, 6) for _ in range(4)]
    calls: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
        name: (getattr(nx, name), [x])
        for activation in ACTIVATIONS
        for name in (activation, f"{activation}_gradient")
    }
    for name in ACTIVATIONS:
        calls[f"native {name}"] = (lambda x, name=name: nx.native_gradient(name, x), [x])
    for rescale in (False, True):
        calls[f"chain_product {rescale}"] = (
            lambda p, f, rescale=rescale: nx.chain_product(p, f, rescale=rescale),
            [np.ones((2, 2, 2)), np.ones((2, 2, 2, 2))],
        )
    if dtype in ("float32", "float64"):  # what normalization is defined for
        rows = np.linspace(-3, 3, 24).reshape(4, 6)
        for training in (False, True):
            calls[f"batch_norm {training}"] = (
                lambda *a, training=training: nx.batch_norm(*a, training=training),
                [rows, *channels],
            )
        calls["layer_norm"] = (nx.layer_norm, [rows, *channels[:2]])

    def loss(x):
        return nx.ops.sum(nx.sigmoid(x))

    def vjp(x, v):
        y, pullback = nx.vjp(nx.tanh, x)
        return y, pullback(v)

    calls["vjp"] = (vjp, [x, x])
    calls["value_and_gradient"] = (lambda x: nx.value_and_gradient(loss)(x), [x])
    if "jvp" in nx.capabilities:
        calls["jvp"] = (lambda x, v: nx.jvp(nx.tanh, x, v), [x, x])
    if "hvp" in nx.capabilities:
        calls["hvp"] = (lambda x, v: nx.hvp(loss, x, v), [x, x])
    return calls


@pytest.mark.clause("arrays.no-mutation")
def test_no_operation_changes_its_arguments(nx, full_dtype):
    for name, (call, values) in _deterministic_calls(nx, full_dtype).items():
        arrays = [nx.asarray(v.astype(full_dtype)) for v in values]
        call(*arrays)
        for array, value in zip(arrays, values, strict=True):
            after = nx.to_numpy(array)
            assert np.array_equal(after, value.astype(full_dtype)), f"{name} changed its argument"


@pytest.mark.clause("arrays.no-mutation")
def test_convolutions_keep_the_weights_that_they_share(nx, mode, prepare):
    """Eight channels, which libraries lay out anew, and the weights of all layers in one array.

    Small integers: every sum is exact in float32.
    """
    rng = np.random.default_rng(0)
    x, weights = (rng.integers(-1, 2, s) for s in ((64, 8, 6, 6), (3, 8, 8, 3, 3)))
    expected = x
    for weight in weights:
        expected = conv(expected, weight, padding=1)

    def net(x, weights):
        def layer(h, weight):
            h = nx.ops.conv(h, weight, padding=1)
            return h, nx.ops.max(h)

        return nx.ops.scan(layer, x, weights)[0]

    f = prepare(net)
    arrays = [nx.asarray(v.astype(np.float32)) for v in (x, weights)]
    for _ in range(20):
        np.testing.assert_array_equal(nx.to_numpy(f(*arrays)), expected)
    np.testing.assert_array_equal(nx.to_numpy(arrays[1]), weights)


@pytest.mark.clause("arrays.no-mutation")
def test_no_draw_changes_an_earlier_one(nx, full_dtype):
    stream = nx.stream(1)
    draws = [
        lambda: stream.uniform(DENSE, dtype=full_dtype),
        lambda: stream.normal(DENSE, dtype=full_dtype),
        lambda: stream.truncated_normal(DENSE, dtype=full_dtype),
        lambda: nx.initialize(Normal(0.0, 0.1), DENSE, stream, dtype=full_dtype),
    ]
    arrays = [draw() for draw in draws]
    before = [nx.to_numpy(x) for x in arrays]
    for draw in draws:
        draw()
    for array, value in zip(arrays, before, strict=True):
        asserts.same_bits(nx.to_numpy(array), value)


def _leaves(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in _leaves(part)]
    return [result]


@pytest.mark.clause("arrays.dtype")
def test_operations_keep_the_dtype(nx, dtype):
    for name, (call, values) in _deterministic_calls(nx, dtype).items():
        arrays = [nx.asarray(v, dtype=dtype) for v in values]
        for leaf in _leaves(call(*arrays)):
            assert nx.is_array(leaf), name
            assert nx.dtype_of(leaf) == dtype, name


def _by_numpy(x: Any) -> str:
    """Return what NumPy makes of an array without the adapter: its dtype, or an error's name."""
    try:
        return str(np.asarray(x).dtype)
    except Exception as error:  # such as of an array on a GPU, or one that records derivatives
        return type(error).__name__


@pytest.mark.clause("arrays.plain")
def test_operations_leave_no_mark(nx):
    expected = _by_numpy(nx.asarray(0.0))
    for name, (call, values) in _deterministic_calls(nx, "float32").items():
        arrays = [nx.asarray(v.astype(np.float32)) for v in values]
        for leaf in [*_leaves(call(*arrays)), *arrays]:
            assert _by_numpy(leaf) == expected, name
