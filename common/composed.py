"""Operations of the contract in the words of `nx.ops`: what a backend has that brings none itself.

`Backend` falls back on them, so that an adapter to a new framework is no more than the framework.
Automatic differentiation, forward or reverse, of each formula is as exact as its value: in no
derivative do terms cancel, nothing overflows or leaves the normal numbers before the result does,
and no branch of a ``where`` that is not taken is infinite, as 0 times its derivative would be NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

Array = Any
Formula = Callable[[SimpleNamespace, Array], Array]


# --- activations --------------------------------------------------------------------------------


def _in_float32(formula: Formula) -> Callable[[Backend, Array], Array]:
    """Apply a formula to half precision in float32, rounding once at the end."""

    @functools.wraps(formula)
    def wrapped(nx: Backend, x: Array) -> Array:
        dtype = nx.dtype_of(x)
        if dtype not in ("float16", "bfloat16"):
            return formula(nx.ops, x)
        return nx.ops.astype(formula(nx.ops, nx.ops.astype(x, "float32")), dtype)

    return wrapped


def _bell(ops: SimpleNamespace, w: Array, c: Array | float, scale: float) -> Array:
    """Return ``scale / (2 cosh(w) + c)``, for c near 2, as ``scale e / (1 + e (c + e))``.

    ``e = exp(-|w|)``. From |w| = 40 up the denominator is 1, and e is taken exp(32) times as large
    (32 - |w| is exact), so that it is normal as long as the result is.
    """
    size = ops.where(w < 0, -w, w)  # unlike |w| with a derivative at 0
    far = size > 40
    e = ops.exp(ops.where(far, 32 - size, -size))
    return ops.where(far, scale * math.exp(-32) * e, scale * e / (1 + e * (c + e)))


def _limited(ops: SimpleNamespace, x: Array) -> Array:
    """Return x, but 0 where every derivative is 0 in every dtype: inf - inf would be NaN."""
    return ops.where(ops.abs(x) > 1000, ops.zeros_like(x), x)


@_in_float32
def sigmoid(ops: SimpleNamespace, x: Array) -> Array:
    """Return ``y = 1 / (1 + e**-x)``, minus what is 0 and has the derivatives of -y.

    ``sigmoid(a) - sigmoid(x) = 2 sinh(d) / (2 cosh(w) + 2 cosh(d))`` with ``d = (a - x) / 2`` and
    ``w = (a + x) / 2``. At a = x only the derivative of ``2 sinh(d) = (e**d - 1) (1 + e**-d)``
    counts, which is -1: there is one product to round, and every higher derivative is right too.
    """
    e = ops.exp(ops.where(x < 0, x, -x))
    y = ops.where(x < 0, e, ops.ones_like(e)) / (1 + e)
    x = _limited(ops, x)
    a = ops.stop_gradient(x)
    d = (a - x) / 2
    change = ops.expm1(d) * (1 + ops.exp(-d))
    return ops.stop_gradient(y) - change * _bell(ops, (a + x) / 2, ops.exp(d) + ops.exp(-d), 1.0)


@_in_float32
def sigmoid_gradient(ops: SimpleNamespace, x: Array) -> Array:
    """Return ``1 / (2 cosh(x) + 2)``."""
    return _bell(ops, x, 2.0, 1.0)


@_in_float32
def tanh(ops: SimpleNamespace, x: Array) -> Array:
    """Return the framework's own tanh, minus what is 0 and has the derivatives of -tanh.

    ``tanh(a) - tanh(x) = 4 sinh(d) / (2 cosh(w) + 2 cosh(d))`` with ``d = a - x``, ``w = a + x``,
    and ``sinh(d) = (e**d - 1) (1 + e**-d) / 2``, as in `sigmoid`.
    """
    y = ops.tanh(x)
    x = _limited(ops, x)
    a = ops.stop_gradient(x)
    d = a - x
    change = ops.expm1(d) * (0.5 + 0.5 * ops.exp(-d))
    return ops.stop_gradient(y) - change * _bell(ops, a + x, ops.exp(d) + ops.exp(-d), 4.0)


@_in_float32
def tanh_gradient(ops: SimpleNamespace, x: Array) -> Array:
    """Return ``4 / (2 cosh(2 x) + 2)``."""
    return _bell(ops, 2 * x, 2.0, 4.0)


def relu(nx: Backend, x: Array) -> Array:
    """Return 0 for x <= 0 and x elsewhere, times the derivative, which is NaN at NaN."""
    return nx.ops.where(x <= 0, nx.ops.zeros_like(x), x) * relu_gradient(nx, x)


def relu_gradient(nx: Backend, x: Array) -> Array:
    """Return the leaky one's of slope 0."""
    return leaky_relu_gradient(nx, x, 0.0)


def leaky_relu(nx: Backend, x: Array, slope: float) -> Array:
    """Return x times its derivative."""
    return x * leaky_relu_gradient(nx, x, slope)


def leaky_relu_gradient(nx: Backend, x: Array, slope: float) -> Array:
    """Return 1 for x > 0, `slope` for x <= 0 and NaN at NaN, through which no gradient flows."""
    one = nx.ops.ones_like(x)
    steps = nx.ops.where(x > 0, one, slope * one)
    return nx.ops.where(nx.ops.isnan(x), nx.ops.stop_gradient(x), steps)


_USUAL: dict[str, Formula] = {
    "sigmoid": lambda ops, x: 1 / (1 + ops.exp(-x)),
    "tanh": lambda ops, x: ops.tanh(x),
    "relu": lambda ops, x: ops.maximum(x, ops.zeros_like(x)),
    "leaky_relu": lambda ops, x: ops.where(x > 0, x, 0.01 * x),
}


def native_gradient(nx: Backend, activation: str, x: Array) -> Array:
    """Return the framework's derivative of the activation as people write it."""
    _, pullback = nx.vjp(lambda x: _USUAL[activation](nx.ops, x), x)
    return pullback(nx.ops.ones_like(x))


# --- random matrix chains -----------------------------------------------------------------------


def chain_product(
    nx: Backend, product: Array, factors: Array, *, rescale: bool
) -> tuple[Array, Array]:
    """Multiply factor by factor; a framework with a loop of its own compiles that faster."""
    ops = nx.ops
    log_scale = ops.zeros(nx.shape_of(product)[:1], dtype=nx.dtype_of(product))  # (batch,)
    for k in range(nx.shape_of(factors)[0]):
        product = ops.matmul(product, factors[k])
        if rescale:
            c = ops.stop_gradient(ops.max(ops.abs(product), axis=(1, 2), keepdims=True))
            c = ops.where(c > 0, c, ops.ones_like(c))
            product = product / c
            log_scale = log_scale + ops.reshape(ops.log(c), (-1,))
    return product, log_scale


# --- normalization ------------------------------------------------------------------------------


def _centred(ops: SimpleNamespace, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return x minus its mean, the mean, and the biased variance; a rounded mean goes first."""
    pivot = ops.stop_gradient(ops.mean(x, axis=axes, keepdims=True))
    c = x - pivot
    correction = ops.mean(c, axis=axes, keepdims=True)
    c = c - correction
    return c, pivot + correction, ops.mean(c * c, axis=axes, keepdims=True)


def batch_norm(
    nx: Backend,
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    variance: Array,
    *,
    training: bool,
    axis: int,
    eps: float,
    momentum: float,
    momentum_weights: str,
    running_variance: str,
) -> tuple[Array, Array, Array]:
    """Return ``y = (x - m) / sqrt(v + eps) * scale + shift``, and the running statistics."""
    ops, shape = nx.ops, nx.shape_of(x)
    axis %= len(shape)
    channels = shape[axis]
    wide = tuple(channels if k == axis else 1 for k in range(len(shape)))
    a, b, m, v = (ops.reshape(s, wide) for s in (scale, shift, mean, variance))
    if not training:
        return (x - m) / ops.sqrt(v + eps) * a + b, mean, variance
    c, m, v = _centred(ops, x, tuple(k for k in range(len(shape)) if k != axis))
    y = c / ops.sqrt(v + eps) * a + b
    if running_variance == "unbiased":
        count = math.prod(shape) // channels
        v = v * (count / (count - 1))
    keep = momentum if momentum_weights == "running" else 1 - momentum
    mean = keep * mean + (1 - keep) * ops.reshape(m, (channels,))
    variance = keep * variance + (1 - keep) * ops.reshape(v, (channels,))
    return y, ops.stop_gradient(mean), ops.stop_gradient(variance)


def layer_norm(
    nx: Backend, x: Array, scale: Array, shift: Array, *, axis: int, eps: float
) -> Array:
    """Return ``y = (x - m) / sqrt(v + eps) * scale + shift``."""
    rank = len(nx.shape_of(x))
    c, _, v = _centred(nx.ops, x, tuple(range(axis % rank, rank)))
    return c / nx.ops.sqrt(v + eps) * scale + shift


# --- differentiation ----------------------------------------------------------------------------


def vjp(nx: Backend, f: Callable[[Array], Array], x: Array) -> tuple[Array, Callable[..., Array]]:
    """Return ``f(x)``, and v -> the gradient of ``sum(f(x) v)``, which is v^T J."""

    def pullback(v: Array) -> Array:
        with nx.scope():
            return nx.value_and_gradient(lambda x: nx.ops.sum(f(x) * v))(x)[1]

    return f(x), pullback


# --- streams ------------------------------------------------------------------------------------

ROUNDS = 16
"""Normal draws for one truncated value: with probability 0.0455**16 = 3e-22 all exceed 2."""


def truncated_normal(
    stream: Stream, shape: tuple[int, ...], *, mean: float, std: float, dtype: str
) -> Array:
    """Draw normals again while they exceed 2, a fixed number of times, so that it compiles."""
    ops, drawn = stream.ops, "float64" if dtype == "float64" else "float32"
    z = stream.normal(shape, dtype=drawn)
    for _ in range(ROUNDS - 1):
        z = ops.where(ops.abs(z) > 2, stream.normal(shape, dtype=drawn), z)
    return ops.astype(mean + std * ops.clip(z, -2.0, 2.0), dtype)
