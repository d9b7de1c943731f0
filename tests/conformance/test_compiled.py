"""Compiled functions: what `compile` must take and return, and that it changes nothing else.

Every other clause runs in both modes; here stand the shapes of arguments, streams, and agreement.
"""

from __future__ import annotations

import numpy as np
import pytest

from isometry.common.laws import activations as laws
from isometry.common.statistics.tolerances import AGREEMENT_ULP
from isometry.conformance import asserts

X = np.linspace(-6, 6, 48).reshape(6, 8)


@pytest.mark.clause("compiled.equals-eager")
@pytest.mark.parametrize("name", [n for a in laws.SMOOTH for n in (a, f"{a}_gradient")])
def test_compiled_agrees_with_eager(nx, full_dtype, name):
    x = nx.asarray(X.astype(full_dtype))
    function = getattr(nx, name)
    eager = nx.to_numpy(function(x)).astype(np.float64)
    compiled = nx.to_numpy(nx.compile(lambda x: function(x))(x))
    asserts.within_ulp(compiled, eager, full_dtype, AGREEMENT_ULP[full_dtype])


@pytest.mark.clause("compiled.arguments")
def test_dictionaries_in_and_tuples_out(nx, mode, full_dtype, prepare):
    def f(parameters, x):
        return parameters["w"] * x + parameters["b"], x - parameters["b"]

    w, b, x = (np.array(v, full_dtype) for v in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]))
    with nx.scope():
        first, second = prepare(f)({"w": nx.asarray(w), "b": nx.asarray(b)}, nx.asarray(x))
    np.testing.assert_array_equal(nx.to_numpy(first), w * x + b)
    np.testing.assert_array_equal(nx.to_numpy(second), x - b)


@pytest.mark.clause("compiled.repeated")
def test_second_call_computes_again(nx, mode, prepare):
    f = prepare(lambda x: x * 2.0)
    for shape in ((3,), (3,), (2, 2)):  # same shape again, then another
        for value in (1.0, 5.0):
            x = nx.asarray(np.full(shape, value, np.float32))
            np.testing.assert_array_equal(nx.to_numpy(f(x)), np.full(shape, 2 * value))


@pytest.mark.clause("compiled.stream")
def test_draws_from_a_stream_passed_in(nx, mode, prepare):
    def f(x, stream):
        return x + stream.normal((64,)), stream.uniform((64,))

    zeros = nx.asarray(np.zeros(64, np.float32))
    compiled = prepare(f)
    stream = nx.stream(5)
    first = [nx.to_numpy(y) for y in compiled(zeros, stream)]
    second = [nx.to_numpy(y) for y in compiled(zeros, stream)]
    again = [nx.to_numpy(y) for y in compiled(zeros, nx.stream(5))]
    for a, b, c in zip(first, second, again, strict=True):
        asserts.same_bits(a, c)
        assert not np.any(a == b), "the second call repeated values of the first"
    assert np.unique(np.concatenate(first)).size == 128


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
