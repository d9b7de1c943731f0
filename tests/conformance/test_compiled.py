"""Compiled functions: what `compile` must take and return, and that it changes nothing else.

Every other clause runs in both modes; here stand the shapes of arguments, streams, and agreement.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isometry.common.contract import ACTIVATIONS, Backend
from isometry.common.errors import Unsupported
from isometry.common.laws.activations import exact_gradient
from isometry.common.laws.normalization import normalization_bound
from isometry.common.statistics import rounding
from isometry.common.statistics.tolerances import ACTIVATION_ULP, AGREEMENT_ULP, TANH_ULP
from isometry.conformance import asserts
from isometry.conformance.shapes import ENTRIES, FEW

X = np.linspace(-6, 6, math.prod(ENTRIES)).reshape(ENTRIES)
# shapes of normalization.batch and normalization.layer: JAX compiles each call once a shape
COLUMNS = 2 * np.sin(np.arange(256 * 8.0) ** 2).reshape(256, 8)
ROWS = COLUMNS.T.copy()
V, W = np.cos(np.arange(8.0) ** 2), np.cos(np.arange(256.0) ** 2)


def _operations(nx) -> dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]]:
    """Return each deterministic operation of the contract with its arrays."""
    channels = V, V[::-1], V / 2, 1 + V**2
    chain = np.sin(np.arange(4 * 2 * 9.0) ** 2).reshape(4, 2, 3, 3)
    activations = {
        name: (getattr(nx, name), (X,)) for a in ACTIVATIONS for name in (a, f"{a}_gradient")
    }
    return activations | {
        "leaky_relu, slope": (lambda x: nx.leaky_relu(x, slope=-2.5), (X,)),
        "chain_product": (nx.chain_product, (chain[0], chain[1:])),
        "chain_product, rescale": (
            lambda p, f: nx.chain_product(p, f, rescale=True),
            (chain[0], chain[1:]),
        ),
        "batch_norm, training": (
            lambda *a: nx.batch_norm(*a, training=True, momentum=0.3, eps=1e-3),
            (COLUMNS, *channels),
        ),
        "batch_norm, inference": (
            lambda *a: nx.batch_norm(*a, training=False),
            (COLUMNS, *channels),
        ),
        "layer_norm": (nx.layer_norm, (ROWS, W, W[::-1])),
    }


OPERATIONS = list(_operations(SimpleNamespace(**dict.fromkeys(vars(Backend)))))


@pytest.mark.clause("compiled.equals-eager")
@pytest.mark.parametrize("name", OPERATIONS)
def test_compiled_agrees_with_eager(nx, full_dtype, name):
    function, values = _operations(nx)[name]
    arrays = [nx.asarray(x.astype(full_dtype)) for x in values]
    eager, compiled = function(*arrays), nx.compile(lambda *a: function(*a))(*arrays)
    assert isinstance(compiled, tuple) == isinstance(eager, tuple)
    pairs = zip(eager, compiled, strict=True) if isinstance(eager, tuple) else [(eager, compiled)]
    for x, y in pairs:
        assert nx.dtype_of(y) == full_dtype
        x, y = nx.to_numpy(x).astype(np.float64), nx.to_numpy(y)
        if name.startswith("chain_product"):
            asserts.within(y, x, 2 * rounding.product(4, 3, full_dtype) * _size(name, values, x))
        elif "norm" in name:
            bound = 2 * normalization_bound(full_dtype) * max(1.0, np.abs(x).max())
            asserts.within(y, x, bound)
        else:
            budget = 2 * TANH_ULP[full_dtype] if name == "tanh" else AGREEMENT_ULP[full_dtype]
            asserts.within_ulp(y, x, full_dtype, budget)


def _size(name: str, values: tuple[np.ndarray, ...], x: np.ndarray) -> np.ndarray:
    """Return the norms that the bound of a chain is relative to, chain by chain."""
    norms = np.prod([np.linalg.norm(m, axis=(1, 2)) for m in (values[0], *values[1])], axis=0)
    if "rescale" in name:  # relative to the largest entry of the product
        product = values[0]
        for factor in values[1]:
            product = product @ factor
        norms = 2 * norms / np.abs(product).max(axis=(1, 2))
        norms = norms + 5 * 4 * np.abs(np.log(norms)).max()  # the sum of logarithms
    return norms.reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.clause("compiled.loss")
def test_compiled_loss_and_its_gradient(nx, full_dtype):
    """A recurrent net: a scan of a matrix product and tanh, a choice, a loss in logarithms."""

    def loss(parameters, x, start):
        def step(h, row):
            h = nx.tanh(nx.ops.matmul(row, parameters["in"]) + nx.ops.matmul(h, parameters["on"]))
            return h, nx.ops.where(h > 0, h, h * 0.5)

        _, ys = nx.ops.scan(step, start, x)
        ys = nx.ops.reshape(ys, (math.prod(nx.shape_of(ys)),))  # shapes are known here
        return nx.ops.mean(nx.ops.log1p(nx.ops.square(ys)))

    arrays = [np.cos(np.arange(np.prod(s)) ** 2).reshape(s) for s in ((8, 3), (3, 3), (6, 1, 8))]
    w, u, x, start = (nx.asarray(a.astype(full_dtype)) for a in (*arrays, np.zeros((1, 3))))
    parameters = {"in": w, "on": u}
    with nx.scope():
        value, gradient = nx.value_and_gradient(loss)(parameters, x, start)
        compiled = nx.compile(loss)
        for _ in range(2):
            again, found = nx.value_and_gradient(compiled)(parameters, x, start)
    # some 100 roundings on the longest way, each of relative size 1: log1p, tanh at 8 ULP
    bound = rounding.gamma(2 * 6 * (11 + 2 * TANH_ULP[full_dtype]) * 3, full_dtype)
    asserts.within(nx.to_numpy(again), nx.to_numpy(value), bound)
    for key in parameters:
        exact = nx.to_numpy(gradient[key])
        asserts.within(nx.to_numpy(found[key]), exact, 8 * bound * max(1.0, np.abs(exact).max()))


@pytest.mark.clause("compiled.signatures")
def test_one_compiled_function_for_all_dtypes_and_keys(nx, mode, prepare):
    f = prepare(lambda p, x: sum(p.values()) * x)
    for dtype in ("float32", "float64", "float32"):
        for keys in ("ab", "abc", "ba"):
            values = {key: nx.asarray(np.array([1.0 + len(key)], dtype)) for key in keys}
            with nx.scope():
                y = f(values, nx.asarray(np.array([0.1, 3.0], dtype)))
            assert nx.dtype_of(y) == dtype
            np.testing.assert_array_equal(nx.to_numpy(y), 2 * len(keys) * np.array([0.1, 3], dtype))


@pytest.mark.clause("compiled.nested")
def test_compiled_functions_within_compiled_functions(nx, mode, prepare):
    inner = prepare(lambda x: x * 3.0)
    outer = prepare(lambda x: inner(x) + inner(x + 1.0))
    twice = prepare(outer)
    x = np.array([1.0, -2.0], np.float32)
    for f in (outer, twice, inner):
        expected = 6 * x + 3 if f is not inner else 3 * x
        with nx.scope():
            y = f(nx.asarray(x))
        np.testing.assert_array_equal(nx.to_numpy(y), expected)


@pytest.mark.clause("compiled.arguments")
def test_dictionaries_in_and_tuples_out(nx, mode, full_dtype, prepare):
    def f(parameters, x, others):
        return parameters["w"] * x + parameters["b"], x - others["c"]

    w, b, x, c = (np.array(v, full_dtype) for v in ([1.0, 2], [3.0, 4], [5.0, 6], [7.0, 9]))
    with nx.scope():
        parameters, others = {"w": nx.asarray(w), "b": nx.asarray(b)}, {"c": nx.asarray(c)}
        first, second = prepare(f)(parameters, nx.asarray(x), others)
    np.testing.assert_array_equal(nx.to_numpy(first), w * x + b)
    np.testing.assert_array_equal(nx.to_numpy(second), x - c)


@pytest.mark.clause("compiled.repeated")
def test_second_call_computes_again(nx, mode, prepare):
    f = prepare(lambda x: x * 2.0)
    for shape in ((3,), (3,), (2, 2)):  # same shape again, then another
        for value in (1.0, 5.0):
            with nx.scope():
                y = f(nx.asarray(np.full(shape, value, np.float32)))
            np.testing.assert_array_equal(nx.to_numpy(y), np.full(shape, 2 * value))


@pytest.mark.clause("compiled.stream")
def test_draws_from_a_stream_passed_in(nx, mode, prepare):
    def f(x, stream):
        with nx.scope():
            x = x + stream.normal((FEW,))
        return x, stream.uniform((FEW,)), stream.truncated_normal((FEW,))

    zeros = nx.asarray(np.zeros(FEW, np.float32))
    compiled = prepare(f)
    stream = nx.stream(5)
    first = [nx.to_numpy(y) for y in compiled(zeros, stream)]
    second = [nx.to_numpy(y) for y in compiled(zeros, stream)]
    again = [nx.to_numpy(y) for y in compiled(zeros, nx.stream(5))]
    for a, b, c in zip(first, second, again, strict=True):
        asserts.same_bits(a, c)
        assert not np.any(a == b), "the second call repeated values of the first"
    assert np.unique(np.concatenate(first)).size == 3 * FEW
    alone = prepare(lambda stream: (stream.uniform((FEW,)), stream.normal((FEW,))))  # no array in
    for first, again in zip(alone(nx.stream(6)), alone(nx.stream(6)), strict=True):
        asserts.same_bits(nx.to_numpy(first), nx.to_numpy(again))


@pytest.mark.clause("compiled.stream")
def test_steps_of_a_scan_share_what_was_drawn_before_it(nx, mode, prepare):
    def f(x, stream):
        noise = stream.normal((FEW,))
        return nx.ops.scan(lambda carry, row: (carry, row + noise), x[0], x)[1]

    with nx.scope():
        rows = nx.to_numpy(prepare(f)(nx.asarray(np.zeros((3, FEW), "float32")), nx.stream(5)))
    assert len(np.unique(rows[0])) == FEW
    np.testing.assert_array_equal(rows, rows[[0, 0, 0]])


@pytest.mark.clause("compiled.differentiated")
def test_differentiates_through_a_compiled_function(nx, mode, full_dtype, prepare):
    f = prepare(lambda x: nx.ops.sum(nx.ops.matmul(x, x) * x))
    x = np.array([[1.0, 2.0], [3.0, -1.0]], full_dtype)
    with nx.scope():
        value, gradient = nx.value_and_gradient(f)(nx.asarray(x))
    # d/dX sum((X X) o X) = X X + X X^T applied from either side of the product
    expected = x @ x + x @ x.T + x.T @ x
    assert float(nx.to_numpy(value)) == np.sum((x @ x) * x)
    np.testing.assert_array_equal(nx.to_numpy(gradient), expected)


@pytest.mark.clause("compiled.derivatives")
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_compiled_function_that_ran_before_has_exact_derivatives(nx, mode, prepare, activation):
    f = prepare(lambda x: nx.ops.sum(getattr(nx, activation)(x)))
    x = np.array([-20.0, 0.0, 20.0], np.float32)
    f(nx.asarray(x))
    _, gradient = nx.value_and_gradient(f)(nx.asarray(x))
    exact = exact_gradient(activation, x)
    asserts.within_ulp(nx.to_numpy(gradient), exact, "float32", ACTIVATION_ULP["float32"])


@pytest.mark.clause("compiled.once")
def test_the_python_function_is_not_run_again(nx):
    runs = []

    def f(x):
        runs.append(x)
        return x * 2.0

    compiled = nx.compile(f)
    counts = []
    for value in (1.0, 2.0, 3.0):
        np.testing.assert_array_equal(nx.to_numpy(compiled(nx.asarray(value))), 2 * value)
        counts.append(len(runs))
    assert (counts[2] == counts[1]) == ("compiled" in nx.capabilities)


@pytest.mark.clause("compiled.hvp")
@pytest.mark.parametrize("how", ["at once", "scan"])
def test_differentiates_inside_a_compiled_function(nx, full_dtype, how):
    def cubes(x):
        if how == "at once":
            return nx.ops.sum(x * x * x)
        return nx.ops.scan(lambda s, row: (s + nx.ops.sum(row * row * row), s), x[0, 0] * 0, x)[0]

    @nx.compile
    def derivatives(x, v):
        value, gradient = nx.value_and_gradient(cubes)(x)
        return value, gradient, nx.hvp(cubes, x, v)

    x = np.array([[1.0, -2.0], [3.0, 5.0]], full_dtype)
    v = np.array([[2.0, 1.0], [-1.0, 3.0]], full_dtype)
    arrays = nx.asarray(x), nx.asarray(v)
    if "hvp" not in nx.capabilities:
        with pytest.raises(Unsupported):
            nx.compile(lambda x, v: nx.hvp(cubes, x, v))(*arrays)
        return
    value, gradient, product = (nx.to_numpy(y) for y in derivatives(*arrays))
    assert float(value) == np.sum(x**3)
    np.testing.assert_array_equal(gradient, 3 * x**2)
    np.testing.assert_array_equal(product, 6 * x * v)
