"""Derivatives of arbitrary functions, against closed forms on numbers without rounding."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isometry.common.contract import ACTIVATIONS
from isometry.common.errors import InvalidArgument, Unsupported
from isometry.common.laws import activations as laws
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics.tolerances import AGREEMENT_ULP
from isometry.conformance import asserts
from isometry.conformance.ops_cases import CASES, Case
from isometry.conformance.shapes import ENTRIES, entries

X = np.array([[1.0, -2.0, 3.0], [0.0, 4.0, -1.0]])
W = np.array([[2.0, 1.0], [0.0, -1.0], [3.0, 2.0]])
SQUARE = np.array([[1.0, 2.0, 0.0], [-1.0, 3.0, 1.0], [4.0, 0.0, -2.0]])


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


@pytest.mark.clause("differentiation.own")
@pytest.mark.parametrize("weighted", [False, True], ids=["sum", "weighted"])
def test_gradients_change_alone(nx, full_dtype, weighted):
    """Of ``sum((a + b + (0, c)) x)`` all have x; += and -= change arrays where they can be."""
    x = X.astype(full_dtype) if weighted else np.ones_like(X, dtype=full_dtype)
    given = nx.asarray(x)
    parameters = {name: nx.asarray(v) for name, v in (("a", 2 * x), ("b", x), ("c", x[1:]))}

    def total(y):
        return nx.ops.sum(y * given if weighted else y)

    def f(p):
        last = nx.ops.concat([nx.ops.zeros_like(p["c"]), p["c"]], axis=0)
        return total(p["a"] + p["b"] + last)

    with nx.scope():
        _, gradient = nx.value_and_gradient(f)(parameters)
        changed = {}
        for name, g in gradient.items():
            g += 1
            changed[name] = g
        moved = parameters["a"]
        moved -= changed["a"]
        _, alone = nx.value_and_gradient(total)(nx.asarray(x))
        alone += 1
    np.testing.assert_array_equal(nx.to_numpy(alone), x + 1)
    for name, expected in (("a", x + 1), ("b", x + 1), ("c", x[1:] + 1)):
        np.testing.assert_array_equal(nx.to_numpy(changed[name]), expected, err_msg=name)
    np.testing.assert_array_equal(nx.to_numpy(moved), x - 1)
    np.testing.assert_array_equal(nx.to_numpy(given), x)


@pytest.mark.clause("differentiation.unused")
def test_gradient_of_an_unused_parameter_is_zero(nx, full_dtype):
    parameters = {k: nx.asarray(np.ones(2, full_dtype)) for k in ("used", "unused")}
    with nx.scope():
        _, gradient = nx.value_and_gradient(lambda p: nx.ops.sum(p["used"] * 3.0))(parameters)
    np.testing.assert_array_equal(nx.to_numpy(gradient["used"]), [3, 3])
    np.testing.assert_array_equal(nx.to_numpy(gradient["unused"]), [0, 0])


@pytest.mark.clause("differentiation.unused")
@pytest.mark.parametrize("shape", [(), (2,)], ids=str)
def test_gradient_of_a_constant_is_zero(nx, full_dtype, shape):
    x, three = nx.asarray(np.ones(shape, full_dtype)), nx.asarray(np.array(3, full_dtype))
    value, gradient = nx.value_and_gradient(lambda x: three)(x)
    of_dictionary, gradients = nx.value_and_gradient(lambda p: three)({"x": x})
    assert nx.to_numpy(value) == nx.to_numpy(of_dictionary) == 3
    for found in (gradient, gradients["x"]):
        assert nx.dtype_of(found) == full_dtype
        np.testing.assert_array_equal(nx.to_numpy(found), np.zeros(shape))


@pytest.mark.clause("differentiation.stop")
def test_where_no_derivative_flows(nx, full_dtype):
    def f(x):
        stopped = nx.ops.stop_gradient(x) * x
        return nx.ops.sum(stopped + nx.ops.clip(x, -1.5, 1.5))

    x = X.astype(full_dtype)
    with nx.scope():
        _, gradient = nx.value_and_gradient(f)(nx.asarray(x))
    np.testing.assert_array_equal(nx.to_numpy(gradient), x + (np.abs(x) < 1.5))


@pytest.mark.clause("differentiation.vjp")
def test_vjp_any_number_of_times(nx, mode, full_dtype, prepare):
    x, w = X.astype(full_dtype), W.astype(full_dtype)
    weight = nx.asarray(w)
    f = prepare(lambda x, w: nx.ops.matmul(nx.ops.square(x), w))
    with nx.scope():
        y, pullback = nx.vjp(lambda x: f(x, weight), nx.asarray(x))
        np.testing.assert_array_equal(nx.to_numpy(y), x**2 @ w)
        cotangents = np.ones((2, 2)), np.array([[1.0, 0.0], [2.0, -3.0]])
        gradients = [pullback(nx.asarray(v.astype(full_dtype))) for v in cotangents]
    for v, gradient in zip(cotangents, gradients, strict=True):
        np.testing.assert_array_equal(nx.to_numpy(gradient), 2 * x * (v @ w.T))


@pytest.mark.clause("differentiation.jvp")
def test_jvp_or_unsupported(nx, full_dtype):
    x, tangent = X.astype(full_dtype), np.roll(X, 1).astype(full_dtype)
    square = nx.asarray(SQUARE.astype(full_dtype))

    def f(x):  # whose Jacobian is not symmetric
        return nx.ops.square(nx.ops.matmul(x, square))

    arguments = (f, nx.asarray(x), nx.asarray(tangent))
    if "jvp" not in nx.capabilities:
        asserts.unsupported(nx, "jvp", arguments)
        return
    with nx.scope():
        y, change = nx.jvp(*arguments)
    assert nx.dtype_of(y) == nx.dtype_of(change) == full_dtype
    np.testing.assert_array_equal(nx.to_numpy(y), (x @ SQUARE) ** 2)
    np.testing.assert_array_equal(nx.to_numpy(change), 2 * (x @ SQUARE) * (tangent @ SQUARE))


@pytest.mark.clause("differentiation.jvp-sigmoid")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_jvp_of_an_activation_is_exact_too(nx, full_dtype, activation):
    x = np.linspace(-30, 30, math.prod(ENTRIES)).reshape(ENTRIES).astype(full_dtype)
    options = {"slope": 0.25} if activation == "leaky_relu" else {}
    f = functools.partial(getattr(nx, activation), **options)
    arguments = (f, nx.asarray(x), nx.asarray(np.ones_like(x)))
    if "jvp" not in nx.capabilities:
        asserts.unsupported(nx, "jvp", arguments)
        return
    _, change = nx.jvp(*arguments)
    exact = getattr(laws, f"{activation}_gradient")(x, **options)
    asserts.within_ulp(nx.to_numpy(change), exact, full_dtype, AGREEMENT_ULP[full_dtype])


@pytest.mark.clause("differentiation.hvp")
def test_hvp_or_unsupported(nx, full_dtype):
    def f(x):
        return nx.ops.sum(x * x * x) + nx.ops.square(nx.ops.sum(x))

    x, v = X[0].astype(full_dtype), W[:, 0].astype(full_dtype)
    if "hvp" not in nx.capabilities:
        asserts.unsupported(nx, "hvp", (f, nx.asarray(x), nx.asarray(v)))
        return
    with nx.scope():
        observed = nx.hvp(f, nx.asarray(x), nx.asarray(v))
    np.testing.assert_array_equal(nx.to_numpy(observed), 6 * x * v + 2 * v.sum())


def _second_derivative(activation, x):
    """Return f'' and the size that its rounding is relative to, |f'|."""
    first = getattr(laws, f"{activation}_gradient")(x)
    if activation not in laws.SMOOTH:
        return np.zeros_like(first), np.zeros_like(first)
    slope = np.tanh(x / 2.0) if activation == "sigmoid" else 2 * np.tanh(x.astype(float))
    return -slope * first, first


def _within_second(observed, activation, x, v):
    # a factor 1 - 2 y or 2 y and f' at their ULP budgets, in units of 1
    second, size = _second_derivative(activation, x)
    dtype = str(x.dtype)
    # where the first derivative is subnormal, it may be 0
    size = 2 * AGREEMENT_ULP[dtype] * float(np.finfo(dtype).eps) * size
    asserts.within(observed, second * v, (size + FORMATS[dtype].smallest_normal) * np.abs(v))


# 0, where relu bends, is not among them; e**2000 overflows
CURVED = entries(np.concatenate([np.linspace(-4, 4, 56), [-1e3, -20.0, 20.0, 100.0, 1e3]]))
DIRECTION = np.cos(np.arange(float(CURVED.size))).reshape(CURVED.shape)


@pytest.mark.clause("differentiation.hvp-activations")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_second_derivative_of_an_activation(nx, mode, full_dtype, prepare, activation):
    x, v = CURVED.astype(full_dtype), DIRECTION.astype(full_dtype)
    f = prepare(getattr(nx, activation))
    arguments = (lambda x: nx.ops.sum(f(x)), nx.asarray(x), nx.asarray(v))
    if "hvp" not in nx.capabilities:
        asserts.unsupported(nx, "hvp", arguments)
        return
    with nx.scope():
        observed = nx.to_numpy(nx.hvp(*arguments))
    _within_second(observed, activation, x, v)


@pytest.mark.clause("differentiation.hvp-composed")
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_second_derivative_through_an_activation(nx, mode, full_dtype, prepare, activation):
    v = DIRECTION.astype(full_dtype)
    f = prepare(getattr(nx, activation))

    def loss(x):
        return nx.ops.sum(nx.ops.square(f(x))) / 2

    for scale in (1, 1 / 4000):
        x = (scale * CURVED).astype(full_dtype)
        if "hvp" not in nx.capabilities:
            asserts.unsupported(nx, "hvp", (loss, nx.asarray(x), nx.asarray(v)))
            continue
        with nx.scope():
            observed = nx.to_numpy(nx.hvp(loss, nx.asarray(x), nx.asarray(v)))
        value = getattr(laws, activation)(x.astype(float))
        second, slope = _second_derivative(activation, x.astype(float))
        budget = 4 * AGREEMENT_ULP[full_dtype] * float(np.finfo(full_dtype).eps)
        size = budget * (slope**2 + np.abs(value) * slope) + FORMATS[full_dtype].smallest_normal
        asserts.within(observed, (slope**2 + value * second) * v, size * np.abs(v))


@pytest.mark.clause("differentiation.derivatives")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivative_of_a_derivative(nx, mode, full_dtype, prepare, activation):
    x, v = CURVED.astype(full_dtype), DIRECTION.astype(full_dtype)
    with nx.scope():
        _, pullback = nx.vjp(prepare(getattr(nx, f"{activation}_gradient")), nx.asarray(x))
        observed = nx.to_numpy(pullback(nx.asarray(v)))
    _within_second(observed, activation, x, v)


# --- the vocabulary -----------------------------------------------------------------------------

LINEAR = [
    *("sum", "mean", "where", "matmul", "linear", "conv", "scan", "astype", "take", "concat"),
    *("stack", "split", "reshape", "permute_dims", "expand_dims", "squeeze", "broadcast_to"),
]
"""Words that are linear in each of their arrays, the others held fast."""

P = np.array([0.5, 0.75, 1.0, 2.0, 3.0])
N = np.array([-3.0, -0.5, 0.25, 0.625, 2.0])
DERIVATIVES: dict[str, tuple[tuple[Any, ...], Callable[[np.ndarray], np.ndarray]]] = {
    "abs": ((N,), np.sign),
    "exp": ((N,), np.exp),
    "expm1": ((N / 16,), np.exp),
    "log": ((P,), lambda x: 1 / x),
    "log1p": ((P,), lambda x: 1 / (1 + x)),
    "sqrt": ((P,), lambda x: 0.5 / np.sqrt(x)),
    "square": ((N,), lambda x: 2 * x),
    "sign": ((N,), np.zeros_like),
    "tanh": ((N / 16,), lambda x: 1 / np.cosh(x) ** 2),
    "maximum": ((N, P[::-1].copy()), lambda x: x > P[::-1]),
    "minimum": ((N, P[::-1].copy()), lambda x: x < P[::-1]),
    "clip": ((N, -1.0, 1.0), lambda x: np.abs(x) < 1),
    "max": ((N,), lambda x: x == 2),
    "min": ((N,), lambda x: x == -3),
    "stop_gradient": ((N,), np.zeros_like),
}
"""Word -> arguments, and the derivative in the first of them."""


def _weights(y: Any) -> np.ndarray:
    """Return cotangents of both signs for an output of y's shape: small integers."""
    return np.arange(np.size(y)).reshape(np.shape(y)) % 5 - 1.0


def _weighted(outputs: Any) -> float:
    flat = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(float(np.sum(y * _weights(y))) for y in flat)


def _slopes(case: Case, index: int) -> np.ndarray:
    """Return the gradient of the weighted sum of a linear word's outputs in one argument."""
    value = case.args[index]

    def at(x):
        arguments = [*case.args[:index], x, *case.args[index + 1 :]]
        return _weighted(case.oracle(*arguments, **case.kwargs))

    basis = np.eye(value.size).reshape(value.size, *value.shape)
    return np.reshape([at(e) - at(0 * e) for e in basis], value.shape)


def _linear_cases() -> dict[str, tuple[str, Case, int]]:
    """Return ``word, k`` -> word, case with that argument alone an array, its index."""
    found = {}
    for word in LINEAR:
        case = CASES[word][-1] if word != "scan" else CASES[word][0]
        if word in ("concat", "stack"):
            (arrays,) = case.args
            oracle = case.oracle
            case = Case(lambda *a, f=oracle, **k: f(a, **k), tuple(arrays), case.kwargs)
        if word == "astype":
            case = Case(case.oracle, (N, "float32"))
        for index, value in enumerate(case.args):
            if isinstance(value, np.ndarray) and value.dtype == np.float64:
                found[f"{word}, {index}"] = (word, case, index)
    return found


@pytest.mark.clause("differentiation.ops")
def test_gradient_through_every_word(nx, mode, prepare):
    linear = _linear_cases()
    values = {key: case.args[index] for key, (_, case, index) in linear.items()}
    values |= {word: arguments[0] for word, (arguments, _) in DERIVATIVES.items()}

    def call(word, arguments, kwargs):
        f = getattr(nx.ops, word)
        y = f(arguments, **kwargs) if word in ("concat", "stack") else f(*arguments, **kwargs)
        return y if isinstance(y, tuple) else (y,)

    def array(x):
        if not isinstance(x, np.ndarray):
            return x
        return nx.asarray(x.astype("f4") if x.dtype == np.float64 else x)

    def loss(parameters):
        outputs = []
        for key, (word, case, index) in linear.items():
            arguments = [array(x) for x in case.args]
            arguments[index] = parameters[key]
            outputs += call(word, arguments, case.kwargs)
        for word, (arguments, _) in DERIVATIVES.items():
            rest = [array(x) for x in arguments[1:]]
            outputs += call(word, [parameters[word], *rest], {})
        weights = [_weights(np.empty(nx.shape_of(y))).ravel() for y in outputs]
        flat = nx.ops.concat([nx.ops.reshape(y, (-1,)) for y in outputs])  # weighted all at once
        return nx.ops.sum(flat * nx.asarray(np.concatenate(weights).astype("f4")))

    parameters = {key: array(x) for key, x in values.items()}
    with nx.scope():
        _, gradient = nx.value_and_gradient(prepare(loss))(parameters)
    for key, (_, case, index) in linear.items():
        np.testing.assert_array_equal(nx.to_numpy(gradient[key]), _slopes(case, index), key)
    for word, (arguments, derivative) in DERIVATIVES.items():
        x = arguments[0]
        weights = _weights(np.empty(())) if word in ("max", "min") else _weights(x)
        exact = derivative(x) * weights
        asserts.within_ulp(nx.to_numpy(gradient[word]), exact, "float32", AGREEMENT_ULP["float32"])


# --- calls that follow each other ---------------------------------------------------------------


@pytest.mark.clause("differentiation.repeated")
def test_each_call_differentiates_anew(nx, mode, full_dtype, prepare):
    g = nx.value_and_gradient(prepare(lambda p, a, b: nx.ops.sum(p["w"] * p["w"] * a) + b))
    w, one = np.array([1.0, -2.0, 3.0], full_dtype), nx.asarray(np.array(1.0, full_dtype))
    parameters = {"w": nx.asarray(w)}
    with nx.scope():
        for factor in (1.0, 1.0, -2.0):
            a = np.array([factor, 1.0, 2.0], full_dtype)
            value, gradient = g(parameters, nx.asarray(a), one)
            assert float(nx.to_numpy(value)) == np.sum(w * w * a) + 1
            np.testing.assert_array_equal(nx.to_numpy(gradient["w"]), 2 * w * a)
        # what came out goes in again: it is an array as any other
        value, gradient = g(gradient, nx.asarray(w), value)
    np.testing.assert_array_equal(nx.to_numpy(gradient["w"]), 2 * (2 * w * a) * w)


@pytest.mark.clause("differentiation.vjp-shapes")
def test_vjp_of_constants_the_identity_and_scalars(nx, full_dtype):
    x, v = X.astype(full_dtype), W.T.copy().astype(full_dtype)
    x[0, 0] = -0.0
    ones = nx.asarray(np.ones_like(x))
    half = np.array(0.5, full_dtype)
    with nx.scope():
        y, pullback = nx.vjp(lambda x: x, nx.asarray(x))
        np.testing.assert_array_equal(np.signbit(nx.to_numpy(y)), np.signbit(x))
        np.testing.assert_array_equal(nx.to_numpy(pullback(nx.asarray(v))), v)
        _, pullback = nx.vjp(lambda x: ones, nx.asarray(x))
        np.testing.assert_array_equal(nx.to_numpy(pullback(nx.asarray(v))), np.zeros_like(x))
        y, pullback = nx.vjp(lambda x: nx.ops.sum(x * x), nx.asarray(x))
        assert float(nx.to_numpy(y)) == np.sum(x * x)
        np.testing.assert_array_equal(nx.to_numpy(pullback(nx.asarray(half))), x)
        rows = np.array([1, 1, 0])
        _, pullback = nx.vjp(lambda x: nx.ops.take(x, nx.asarray(rows), axis=0), nx.asarray(x))
        gradient = pullback(nx.asarray(x[rows]))  # some frameworks keep it sparse
        assert nx.is_array(gradient)
        np.testing.assert_array_equal(nx.to_numpy(gradient), x * [[1.0], [2.0]])


@pytest.mark.clause("differentiation.ops")
def test_gradient_of_rows_that_are_used_twice(nx, mode, full_dtype, prepare):
    def f(xs):
        zero = xs[0] * 0.0
        _, sums = nx.ops.scan(lambda carry, x: (carry + x, carry + x), zero, xs)
        _, again = nx.ops.scan(lambda carry, x: (carry + x, x * 3.0), zero, xs)
        _, both = nx.ops.scan(lambda carry, x: (carry, x[0] * 2.0 + x[1]), zero, (xs, xs))
        return nx.ops.sum(sums) + nx.ops.sum(again) + nx.ops.sum(both) + nx.ops.sum(xs * xs)

    x = X.astype(full_dtype)
    with nx.scope():
        _, gradient = nx.value_and_gradient(prepare(f))(nx.asarray(x))
    later = np.arange(len(x), 0, -1).reshape(-1, *[1] * (x.ndim - 1))
    np.testing.assert_array_equal(nx.to_numpy(gradient), later + 6 + 2 * x)


@pytest.mark.clause("differentiation.ops")
def test_gradient_of_a_scan_within_a_scan(nx, mode, full_dtype, prepare):
    """The steps of both take what was computed around them: with r the sums of the rows of x, the
    carry is sum r (r + 2 r[0]) at last, and all that was collected adds up to 2 r[0] sum r.
    """

    def f(xs):
        twice = xs[0] * 2.0

        def outer(carry, row):
            near = row + twice
            carry, ys = nx.ops.scan(lambda c, x: (c + x * near, x * twice), carry, row)
            return carry, nx.ops.sum(ys)

        carry, ys = nx.ops.scan(outer, xs[0] * 0.0, xs)
        return nx.ops.sum(carry) + nx.ops.sum(ys)

    x = X.astype(full_dtype)
    with nx.scope():
        value, gradient = nx.value_and_gradient(prepare(f))(nx.asarray(x))
    r = x.sum(1)
    assert float(nx.to_numpy(value)) == np.sum(r * r) + 4 * r[0] * r.sum()
    exact = np.broadcast_to((2 * r + 4 * r[0] + [4 * r.sum(), 0])[:, None], x.shape)
    np.testing.assert_array_equal(nx.to_numpy(gradient), exact)


@pytest.mark.clause("differentiation.dtypes")
def test_derivatives_have_the_dtype_of_x(nx):
    """The derivative rules of means and of where are easily computed in float64."""
    x, v = (nx.asarray(a.astype("float32")) for a in (X, W.T))
    results = {}

    def f(x):
        return nx.ops.mean(nx.ops.where(x > 0, x * x, x))

    with nx.scope():
        results["f(x)"], pullback = nx.vjp(f, x)
        results["vjp"] = pullback(results["f(x)"])
        results["value"], results["gradient"] = nx.value_and_gradient(f)(x)
        _, named = nx.value_and_gradient(lambda p: f(p["x"]))({"x": x})
        results["gradient of a dictionary"] = named["x"]
        if "jvp" in nx.capabilities:
            _, results["jvp"] = nx.jvp(f, x, v)
        if "hvp" in nx.capabilities:
            results["hvp"] = nx.hvp(f, x, v)
    wrong = {k: nx.dtype_of(y) for k, y in results.items() if nx.dtype_of(y) != "float32"}
    assert not wrong


@pytest.mark.clause("differentiation.vjp-kept")
def test_a_pullback_outlives_other_gradients(nx, full_dtype):
    x, c = X.astype(full_dtype), np.full_like(X, 3.0, dtype=full_dtype)
    given, constant = nx.asarray(x), nx.asarray(c)
    with nx.scope():
        _, pullback = nx.vjp(lambda x: x * constant, given)
        nx.value_and_gradient(lambda p: nx.ops.sum(p * constant))(given)
        _, other = nx.vjp(lambda x: x * constant, given)
        other(constant)
        gradient = pullback(given)
    np.testing.assert_array_equal(nx.to_numpy(gradient), x * c)


@pytest.mark.clause("differentiation.hvp-repeated")
def test_many_products_with_one_hessian(nx, full_dtype):
    def cubes(x):
        return nx.ops.sum(x * x * x) + nx.ops.square(nx.ops.sum(x))

    x, vectors = X[0].astype(full_dtype), W.T.astype(full_dtype)
    given = nx.asarray(x)
    if "hvp" not in nx.capabilities:
        with pytest.raises(Unsupported, match="hvp"):
            nx.hessian(cubes, given)(given)
        return
    product = nx.hessian(cubes, given)
    with nx.scope():
        nx.value_and_gradient(cubes)(given)
    for v in (*vectors, vectors[0]):
        observed = nx.to_numpy(product(nx.asarray(v)))
        assert str(observed.dtype) == full_dtype
        np.testing.assert_array_equal(observed, 6 * x * v + 2 * v.sum())
    three = nx.asarray(np.array(3, full_dtype))
    for linear in (lambda x: nx.ops.sum(x), lambda x: three):
        np.testing.assert_array_equal(nx.to_numpy(nx.hessian(linear, given)(given)), 0 * x)


@pytest.mark.clause("differentiation.hvp-named")
def test_a_hessian_in_named_parameters(nx, full_dtype):
    """Of ``sum(a b**2) + sum(linear)``."""

    def f(parameters):
        a, b = parameters["a"], parameters["b"]
        return nx.ops.sum(a * b * b) + nx.ops.sum(parameters["linear"])

    rows = np.concatenate([X, W.T]).astype(full_dtype)
    at = dict(zip(("linear", "b", "unused", "a"), rows, strict=True))
    v = dict(zip(("unused", "a", "b", "linear"), rows[::-1], strict=True))
    given, vector = ({path: nx.asarray(x) for path, x in named.items()} for named in (at, v))
    if "hvp" not in nx.capabilities:
        with pytest.raises(Unsupported, match="hvp"):
            nx.hessian(f, given)(vector)
        return
    expected = {
        "a": 2 * at["b"] * v["b"],
        "b": 2 * (at["b"] * v["a"] + at["a"] * v["b"]),
        "linear": 0 * v["linear"],
        "unused": 0 * v["unused"],
    }
    with nx.scope():
        found = nx.hessian(f, given)(vector)
    assert found.keys() == expected.keys()
    for path, observed in found.items():
        assert nx.dtype_of(observed) == full_dtype
        np.testing.assert_array_equal(nx.to_numpy(observed), expected[path], err_msg=path)
    with nx.scope():
        product = nx.hessian(f, given)
        for wrong in ({"a": vector["a"]}, {**vector, "z": vector["a"]}, vector["a"]):
            with pytest.raises(InvalidArgument, match="paths"):
                product(wrong)
    with nx.scope():  # two equal blocks
        found = nx.hessian(lambda p: nx.ops.sum(nx.ops.square(p["a"] + p["b"])), given)(vector)
        changed = found["a"]
        changed += 1
    np.testing.assert_array_equal(nx.to_numpy(found["b"]), 2 * (v["a"] + v["b"]))
    np.testing.assert_array_equal(nx.to_numpy(changed), 2 * (v["a"] + v["b"]) + 1)


@pytest.mark.clause("differentiation.dtypes")
def test_what_runs_later_enters_the_scope_itself(nx):
    """Called outside of nx.scope(), where some frameworks compute float64 in float32."""
    x, third = X[0].copy(), 1 / 3
    given = nx.asarray(x)
    value, gradient = nx.value_and_gradient(lambda x: nx.ops.sum(x * x * third))(given)
    _, pullback = nx.vjp(lambda x: x * x * third, given)
    found = {
        "value": (value, np.sum(x * x * third)),
        "gradient": (gradient, 2 * x * third),
        "vjp": (pullback(given), 2 * x * x * third),
        "compiled": (nx.compile(lambda x: x * third)(given), x * third),
    }
    for name, (observed, expected) in found.items():
        assert nx.dtype_of(observed) == "float64", name
        np.testing.assert_allclose(
            nx.to_numpy(observed), expected, rtol=len(x) * 2.0**-52, err_msg=name
        )
