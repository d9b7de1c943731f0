"""Derivatives of the NumPy adapter beyond the contract: computed in the dtype, and nested."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from autograd.differential_operators import make_vjp

from isometry.backends.numpy_backend import NumpyBackend

NX = NumpyBackend()
OPS = NX.ops
X = np.linspace(0.1, 0.9, 24, dtype=np.float32).reshape(2, 3, 4)
WORDS: dict[str, Callable[[Any], Any]] = {
    **{
        word: getattr(OPS, word)
        for word in ("abs", "exp", "log", "sqrt", "square", "tanh", "sum", "mean", "max", "min")
    },
    "mean of rows": lambda x: OPS.mean(x, axis=(0, 2)),
    "max of rows": lambda x: OPS.max(x, axis=-1, keepdims=True),
    "min of rows": lambda x: OPS.min(x, axis=0),
    "maximum": lambda x: OPS.maximum(x, x * 0.5),
    "minimum": lambda x: OPS.minimum(x, x * 0.5),
    "clip": lambda x: OPS.clip(x, 0.2, 0.5),
    "where": lambda x: OPS.where(x > 0.5, x, x * 2),
    "svd": lambda x: OPS.svd(x)[1],
    "matmul": lambda x: OPS.matmul(x, np.ones((2, 4, 3), np.float32)),
    "linear": lambda x: OPS.linear(x, np.ones((2, 4), np.float32)),
    "split": lambda x: OPS.split(x, (1, 3), axis=-1)[1],
    "conv": lambda x: OPS.conv(x, np.ones((2, 3, 2), np.float32)),
    "take": lambda x: OPS.take(x, np.array([0, 1]), axis=0),
    "scan": lambda x: OPS.scan(lambda carry, row: (carry + row, carry * row), x[0], x)[1],
}


@pytest.mark.parametrize("word", WORDS)
def test_a_float32_cotangent_stays_one(word: str) -> None:
    """In float64 all that lies behind a mean would take twice the time."""
    pullback, y = make_vjp(WORDS[word])(X)
    assert (y.dtype, pullback(np.ones_like(y)).dtype) == (np.float32, np.float32)


def test_an_empty_array_has_an_empty_gradient() -> None:
    _, pullback = NX.vjp(NX.tanh, X[:0])
    assert pullback(X[:0]).shape == (0, 3, 4)


@pytest.mark.parametrize("x", [0.25, 2.0])
def test_a_number_has_a_gradient(x: float) -> None:
    _, pullback = NX.vjp(NX.tanh, np.array(x))
    assert pullback(np.array(3.0)) == pytest.approx(3 / np.cosh(x) ** 2, rel=1e-15)


def test_the_gradient_of_a_dictionary_is_differentiated_too() -> None:
    def gradient(x: Any) -> Any:  # of u**2 v in u, and of the same in v
        found = NX.value_and_gradient(lambda p: OPS.sum(p["u"] * p["u"] * p["v"]))({"u": x, "v": x})
        return found[1]["u"] + found[1]["v"]  # 2 x**2 + x**2

    x, ones = np.arange(1.0, 4.0), np.ones(3)
    y, pullback = NX.vjp(gradient, x)
    np.testing.assert_allclose(y, 3 * x**2)
    np.testing.assert_allclose(pullback(ones), 6 * x)
    np.testing.assert_allclose(NX.jvp(gradient, x, ones)[1], 6 * x)


@pytest.mark.parametrize("written", ["a", "b", "c"])
def test_gradients_of_a_dictionary_are_arrays_of_their_own(written: str) -> None:
    """One cotangent reaches all three, as it is or reshaped."""
    values = {"a": np.ones((2, 3)), "b": np.ones(6), "c": np.ones((2, 3))}
    _, gradient = NX.value_and_gradient(
        lambda p: OPS.sum(p["a"] + OPS.reshape(p["b"], (2, 3)) + p["c"])
    )(values)
    gradient[written][...] = 7.0
    for name in values.keys() - {written}:
        np.testing.assert_array_equal(gradient[name], values[name])
