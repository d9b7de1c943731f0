"""Derivatives of arbitrary functions, against closed forms on numbers without rounding."""

from __future__ import annotations

import re

import numpy as np
import pytest

from isometry.common.contract import CAPABILITIES
from isometry.common.errors import Unsupported
from isometry.common.laws import activations as laws
from isometry.common.statistics.tolerances import AGREEMENT_ULP
from isometry.conformance import asserts

X = np.array([[1.0, -2.0, 3.0], [0.0, 4.0, -1.0]])
W = np.array([[2.0, 1.0], [0.0, -1.0], [3.0, 2.0]])


@pytest.mark.clause("differentiation.array")
def test_value_and_gradient_of_an_array(nx, mode, full_dtype, prepare):
    f = prepare(lambda x, w: nx.ops.sum(nx.ops.square(nx.ops.matmul(x, w))))
    x, w = X.astype(full_dtype), W.astype(full_dtype)
    with nx.scope():
        value, gradient = nx.value_and_gradient(f)(nx.asarray(x), nx.asarray(w))
    assert nx.shape_of(value) == ()
    assert nx.dtype_of(value) == nx.dtype_of(gradient) == full_dtype
    assert float(nx.to_numpy(value)) == np.sum((x @ w) ** 2)
    np.testing.assert_array_equal(nx.to_numpy(gradient), 2 * x @ w @ w.T)


@pytest.mark.clause("differentiation.dictionary")
def test_value_and_gradient_of_a_dictionary(nx, mode, full_dtype, prepare):
    def f(parameters, x):
        y = nx.ops.matmul(x, parameters["layer.weight"]) + parameters["layer.bias"]
        return nx.ops.sum(nx.ops.square(y))

    x, w, b = (v.astype(full_dtype) for v in (X, W, np.array([1.0, -1.0])))
    parameters = {"layer.weight": nx.asarray(w), "layer.bias": nx.asarray(b)}
    with nx.scope():
        _, gradient = nx.value_and_gradient(prepare(f))(parameters, nx.asarray(x))
    assert gradient.keys() == parameters.keys()
    residual = x @ w + b
    np.testing.assert_array_equal(nx.to_numpy(gradient["layer.weight"]), 2 * x.T @ residual)
    np.testing.assert_array_equal(nx.to_numpy(gradient["layer.bias"]), 2 * residual.sum(axis=0))


@pytest.mark.clause("differentiation.unused")
def test_gradient_of_an_unused_parameter_is_zero(nx, full_dtype):
    parameters = {k: nx.asarray(np.ones(2, full_dtype)) for k in ("used", "unused")}
    with nx.scope():
        _, gradient = nx.value_and_gradient(lambda p: nx.ops.sum(p["used"] * 3.0))(parameters)
    np.testing.assert_array_equal(nx.to_numpy(gradient["used"]), [3, 3])
    np.testing.assert_array_equal(nx.to_numpy(gradient["unused"]), [0, 0])


@pytest.mark.clause("differentiation.stop")
def test_where_no_derivative_flows(nx, full_dtype):
    def f(x):
        stopped = nx.ops.stop_gradient(x) * x
        return nx.ops.sum(stopped + nx.ops.clip(x, -1.5, 1.5))

    x = np.array([-2.0, -1.0, 0.5, 3.0], full_dtype)
    with nx.scope():
        _, gradient = nx.value_and_gradient(f)(nx.asarray(x))
    np.testing.assert_array_equal(nx.to_numpy(gradient), x + np.array([0, 1, 1, 0]))


@pytest.mark.clause("differentiation.vjp")
def test_vjp_any_number_of_times(nx, mode, full_dtype, prepare):
    x, w = X.astype(full_dtype), W.astype(full_dtype)
    weight = nx.asarray(w)
    f = prepare(lambda x, w: nx.ops.matmul(nx.ops.square(x), w))
    with nx.scope():
        y, pullback = nx.vjp(lambda x: f(x, weight), nx.asarray(x))
        np.testing.assert_array_equal(nx.to_numpy(y), x**2 @ w)
        for v in (np.ones((2, 2)), np.array([[1.0, 0.0], [2.0, -3.0]])):
            gradient = nx.to_numpy(pullback(nx.asarray(v.astype(full_dtype))))
            np.testing.assert_array_equal(gradient, 2 * x * (v @ w.T))


@pytest.mark.clause("differentiation.jvp")
def test_jvp_or_unsupported(nx, full_dtype):
    x, tangent = X.astype(full_dtype), np.roll(X, 1).astype(full_dtype)
    arguments = (nx.ops.square, nx.asarray(x), nx.asarray(tangent))
    if "jvp" not in nx.capabilities:
        _assert_unsupported(nx, "jvp", arguments)
        return
    with nx.scope():
        y, change = nx.jvp(*arguments)
    np.testing.assert_array_equal(nx.to_numpy(y), x**2)
    np.testing.assert_array_equal(nx.to_numpy(change), 2 * x * tangent)


@pytest.mark.clause("differentiation.jvp-sigmoid")
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_jvp_of_an_activation_is_exact_too(nx, full_dtype, activation):
    x = np.linspace(-30, 30, 61).astype(full_dtype)
    arguments = (getattr(nx, activation), nx.asarray(x), nx.asarray(np.ones_like(x)))
    if "jvp" not in nx.capabilities:
        _assert_unsupported(nx, "jvp", arguments)
        return
    _, change = nx.jvp(*arguments)
    exact = getattr(laws, f"{activation}_gradient")(x)
    asserts.within_ulp(nx.to_numpy(change), exact, full_dtype, AGREEMENT_ULP[full_dtype])


@pytest.mark.clause("differentiation.hvp")
def test_hvp_or_unsupported(nx, full_dtype):
    def f(x):
        return nx.ops.sum(x * x * x) + nx.ops.square(nx.ops.sum(x))

    x, v = X[0].astype(full_dtype), W[:, 0].astype(full_dtype)
    if "hvp" not in nx.capabilities:
        _assert_unsupported(nx, "hvp", (f, nx.asarray(x), nx.asarray(v)))
        return
    with nx.scope():
        observed = nx.hvp(f, nx.asarray(x), nx.asarray(v))
    np.testing.assert_array_equal(nx.to_numpy(observed), 6 * x * v + 2 * v.sum())


def _assert_unsupported(nx, capability, arguments):
    declared = ", ".join(sorted(nx.capabilities)) or "none"
    message = (
        f"backend {nx.name!r} does not support {capability!r} ({CAPABILITIES[capability]}); "
        f"it declares: {declared}"
    )
    with pytest.raises(Unsupported, match=f"^{re.escape(message)}$"):
        getattr(nx, capability)(*arguments)
