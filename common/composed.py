"""Operations of the contract in the words of `nx.ops`: what a backend has that brings none itself.

`Backend` falls back on them, so that an adapter to a new framework is no more than the framework.
Automatic differentiation, forward or reverse, of each formula is as exact as its value: in no
derivative do terms cancel, nothing overflows or leaves the normal numbers before the result does,
and no branch of a ``where`` that is not taken is infinite, as 0 times its derivative would be NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.laws.deconvolution import most_steps

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

Array = Any
Formula = Callable[[SimpleNamespace, Array], Array]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


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


def _mean(nx: Backend, x: Array, axes: tuple[int, ...]) -> Array:
    """Return the mean, added up in float64: in order, 20,000 float32 numbers lose 3 digits."""
    wide = nx.ops.mean(nx.ops.astype(x, "float64"), axis=axes, keepdims=True)
    return nx.ops.astype(wide, nx.dtype_of(x))


def _centred(nx: Backend, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return x minus its mean, the mean, and the biased variance; a rounded mean goes first."""
    pivot = nx.ops.stop_gradient(_mean(nx, x, axes))
    c = x - pivot
    correction = _mean(nx, c, axes)
    c = c - correction
    return c, pivot + correction, _mean(nx, c * c, axes)


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
    c, m, v = _centred(nx, x, tuple(k for k in range(len(shape)) if k != axis))
    y = c * (a / ops.sqrt(v + eps)) + b
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
    c, _, v = _centred(nx, x, tuple(range(axis % rank, rank)))
    return c / nx.ops.sqrt(v + eps) * scale + shift


def as_rows(
    nx: Backend, x: Array, axes: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[Array, Callable[[Array], Array]]:
    """Return x as rows, (*sizes, the rest), with `axes` first, and the way back to its shape."""
    ops, shape = nx.ops, nx.shape_of(x)
    order = (*axes, *(k for k in range(len(shape)) if k not in axes))
    moved = tuple(shape[k] for k in order)
    back = tuple(order.index(k) for k in range(len(shape)))
    in_place = order == tuple(range(len(shape)))

    def restored(rows: Array) -> Array:
        y = ops.reshape(rows, moved)
        return y if in_place else ops.permute_dims(y, back)

    return ops.reshape(x if in_place else ops.permute_dims(x, order), (*sizes, -1)), restored


def _standardized(nx: Backend, rows: Array, eps: float) -> Array:
    """Return each row minus its mean, over its standard deviation: the backend's own layer norm."""
    size, dtype = nx.shape_of(rows)[-1:], nx.dtype_of(rows)
    one, zero = nx.ops.ones(size, dtype=dtype), nx.ops.zeros(size, dtype=dtype)
    return nx.layer_norm(rows, one, zero, axis=-1, eps=eps)


def group_norm(
    nx: Backend, x: Array, scale: Array, shift: Array, *, groups: int, axis: int, eps: float
) -> Array:
    """Return ``y = (x - m) / sqrt(v + eps) * scale + shift``, m and v by example and group."""
    ops, shape = nx.ops, nx.shape_of(x)
    axis %= len(shape)
    rows, restored = as_rows(nx, x, (0, axis), (shape[0], groups))
    wide = tuple(size if k == axis else 1 for k, size in enumerate(shape))
    z = restored(_standardized(nx, rows, eps))
    return z * ops.reshape(scale, wide) + ops.reshape(shift, wide)


def instance_norm(
    nx: Backend, x: Array, scale: Array, shift: Array, *, axis: int, eps: float
) -> Array:
    """Return the group norm in which each channel is a group."""
    channels = nx.shape_of(x)[axis]
    return nx.group_norm(x, scale, shift, groups=channels, axis=axis, eps=eps)


def rms_norm(nx: Backend, x: Array, scale: Array, *, axis: int, eps: float) -> Array:
    """Return ``y = x / sqrt(mean(x**2) + eps) * scale``."""
    rank = len(nx.shape_of(x))
    square = _mean(nx, x * x, tuple(range(axis % rank, rank)))
    return x / nx.ops.sqrt(square + eps) * scale


# --- normalization of weights -------------------------------------------------------------------


def _or_one(ops: SimpleNamespace, x: Array) -> Array:
    """Return x >= 0, but 1 where it is 0, to divide by; NaN stays NaN."""
    return ops.where(x <= 0, ops.ones_like(x), x)


def _unit(ops: SimpleNamespace, rows: Array) -> Array:
    """Return each row over its Euclidean norm; no square overflows, and a row of zeros stays."""
    largest = ops.stop_gradient(ops.max(ops.abs(rows), axis=-1, keepdims=True))
    rows = rows / _or_one(ops, largest)
    return rows / ops.sqrt(_or_one(ops, ops.sum(rows * rows, axis=-1, keepdims=True)))


def weight_norm(nx: Backend, v: Array, g: Array, *, axis: int) -> Array:
    """Return ``w = g v / ||v||``, output by output."""
    outputs = nx.shape_of(g)[0]
    rows, restored = as_rows(nx, v, (axis % len(nx.shape_of(v)),), (outputs,))
    return restored(_unit(nx.ops, rows) * nx.ops.reshape(g, (outputs, 1)))


def weight_standardization(nx: Backend, weight: Array, *, axis: int, eps: float) -> Array:
    """Return ``(w - m) / sqrt(v + eps)``, m and v over the inputs of each output."""
    shape = nx.shape_of(weight)
    axis %= len(shape)
    rows, restored = as_rows(nx, weight, (axis,), (shape[axis],))
    return restored(_standardized(nx, rows, eps))


def spectral_norm(
    nx: Backend, weight: Array, u: Array, *, iterations: int, axis: int
) -> tuple[Array, Array, Array, Array]:
    """Return ``W / sigma``, u, v and ``sigma = u^T W v`` after `iterations` of the power method."""
    ops, outputs = nx.ops, nx.shape_of(u)[0]
    rows, _ = as_rows(nx, weight, (axis % len(nx.shape_of(weight)),), (outputs,))
    fixed = ops.stop_gradient(rows)
    u = ops.stop_gradient(ops.reshape(u, (1, outputs)))
    for _ in range(iterations):
        v = _unit(ops, ops.matmul(u, fixed))  # (1, inputs)
        image = ops.linear(v, fixed)
        # what W maps to 0 says nothing: the old vector is kept, to start from next time
        nothing = ops.max(ops.abs(image), axis=-1, keepdims=True) <= 0
        u = ops.where(nothing, u, _unit(ops, image))
    sigma = ops.sum(u * ops.linear(v, rows))
    return weight / _or_one(ops, sigma), ops.reshape(u, (-1,)), ops.reshape(v, (-1,)), sigma


# --- whitening ----------------------------------------------------------------------------------


def _inverse_root(ops: SimpleNamespace, a: Array, identity: Array, iterations: int) -> Array:
    """Return Z near ``A**-1/2`` by the coupled Newton-Schulz iteration, ``||A|| <= 1``.

    ``T = (3 I - Z Y) / 2, Y <- Y T, Z <- T Z`` from Y = A, Z = I. In exact arithmetic each step
    brings Z Y nearer to I; one that does not, as rounded eigenvalues of A are negative or it is
    done, is not taken, so that none can diverge. More than `most_steps` would blow up rounding.
    """
    y, z, zy = a, identity, a

    def distance(zy: Array) -> Array:
        rest = ops.stop_gradient(identity - zy)
        return ops.sum(rest * rest)

    for _ in range(iterations):
        t = 1.5 * identity - 0.5 * zy
        next_y, next_z = ops.matmul(y, t), ops.matmul(t, z)
        next_zy = ops.matmul(next_z, next_y)
        away = distance(next_zy) > distance(zy)
        y, z, zy = (
            ops.where(away, old, new) for old, new in ((y, next_y), (z, next_z), (zy, next_zy))
        )
    return z


def network_deconvolution(
    nx: Backend, x: Array, *, iterations: int, eps: float
) -> tuple[Array, Array, Array, Array]:
    """Return ``y = (x - m) D``, m, D near ``C**-1/2``, and ``||D C D - I||``."""
    ops, (samples, features), dtype = nx.ops, nx.shape_of(x), nx.dtype_of(x)
    c, mean, _ = _centred(nx, x, (0,))
    # in units of the largest value, or of sqrt(eps), no square overflows
    root = ops.full((1, 1), math.sqrt(eps), dtype=dtype)
    unit = ops.stop_gradient(ops.max(ops.abs(c), axis=(0, 1), keepdims=True))
    unit = _or_one(ops, ops.maximum(unit, root))
    c, root, identity = c / unit, root / unit, ops.eye(features, features, dtype=dtype)
    covariance = ops.matmul(ops.permute_dims(c, (1, 0)), c) / samples
    covariance = covariance + identity * (root * root)
    norm = ops.sqrt(_or_one(ops, ops.sum(covariance * covariance)))
    steps = min(iterations, most_steps(dtype))
    d = _inverse_root(ops, covariance / norm, identity, steps) / ops.sqrt(norm)
    rest = ops.stop_gradient(ops.matmul(ops.matmul(d, covariance), d) - identity)
    deviation = ops.sqrt(ops.sum(rest * rest))
    return ops.matmul(c, d), ops.reshape(mean, (-1,)), d / unit, deviation


# --- differentiation ----------------------------------------------------------------------------


def vjp(nx: Backend, f: Callable[[Array], Array], x: Array) -> tuple[Array, Callable[..., Array]]:
    """Return ``f(x)``, and v -> the gradient of ``sum(f(x) v)``, which is v^T J."""

    def pullback(v: Array) -> Array:
        with nx.scope():
            return nx.value_and_gradient(lambda x: nx.ops.sum(f(x) * v))(x)[1]

    return f(x), pullback


def hessian(nx: Backend, f: Callable[[Any], Array], parameters: Any) -> Callable[[Any], Any]:
    """Return v -> H v by `Backend.hvp`, which takes one array: those of a dictionary are joined."""
    if not isinstance(parameters, Mapping):
        return lambda vector: nx.hvp(f, parameters, vector)
    ops, shapes = nx.ops, shapes_of(nx, parameters)

    def joined(arrays: Mapping[str, Array]) -> Array:
        return ops.concat([ops.reshape(arrays[path], (-1,)) for path, _ in shapes])

    flat = joined(parameters)

    def product(vector: Mapping[str, Array]) -> dict[str, Array]:
        checks.same_paths(parameters, vector)
        found = nx.hvp(lambda flat: f(unflatten(nx, flat, shapes)), flat, joined(vector))
        return unflatten(nx, found, shapes)

    return product


def shapes_of(nx: Backend, arrays: Mapping[str, Array]) -> Shapes:
    """Return the paths in alphabetical order, each with its shape."""
    return tuple((path, nx.shape_of(arrays[path])) for path in sorted(arrays))


def unflatten(nx: Backend, flat: Array, shapes: Shapes) -> dict[str, Array]:
    """Return the arrays of a flat array of the backend, in the order of `shapes`."""
    parts = nx.ops.split(flat, [math.prod(shape) for _, shape in shapes])
    return {
        path: nx.ops.reshape(part, shape) for (path, shape), part in zip(shapes, parts, strict=True)
    }


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
