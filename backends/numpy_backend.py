"""NumPy: the reference adapter. Each derivative stands, derived by hand, beside its forward.

Arbitrary functions are differentiated with the `autograd` package, which traces `autograd.numpy`;
outside a trace its functions are NumPy's. There is no compiler: `compile` returns the function.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.differential_operators import make_jvp, make_vjp
from autograd.extend import (
    Box,
    SparseObject,
    defjvp,
    defjvp_argnums,
    defvjp,
    defvjp_argnums,
    vspace,
)
from autograd.tracer import getval, new_box

from isometry.common import checks, ops
from isometry.common.contract import Array, Backend
from isometry.common.errors import InvalidArgument
from isometry.common.streams import Stream

__all__ = ["NumpyBackend"]

_NAMES = {np.dtype(name): name for name in ("float16", "float32", "float64")}  # str takes 5 us


_is_quiet = ContextVar("_is_quiet", default=False)
_NOTHING: AbstractContextManager[Any] = nullcontext()


class _Quiet(np.errstate):
    """inf, NaN and 0 are values in the formulas below, not worth a warning.

    What a caller sets by np.errstate within holds for the words in it.
    """

    def __init__(self) -> None:
        super().__init__(all="ignore")

    def __enter__(self) -> None:
        super().__enter__()
        self._outside = _is_quiet.set(True)

    def __exit__(self, *error: Any) -> None:
        _is_quiet.reset(self._outside)
        super().__exit__(*error)


def _quiet() -> AbstractContextManager[Any]:
    return _NOTHING if _is_quiet.get() else _Quiet()  # which takes ten times as long to enter


def _in_float32(formula: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Apply a formula in float32 to half precision, rounding once at the end."""

    def wrapped(x: Array) -> Array:
        with _quiet():
            if x.dtype == np.float16:
                return formula(x.astype(np.float32)).astype(np.float16)
            return formula(np.asarray(x))

    return wrapped


def primitive(f: Callable[..., Array]) -> Callable[..., Array]:
    """Return f, traced as by autograd's own `primitive`, in about half its time.

    That makes way for the arrays of other libraries, too. Of several traces the innermost comes
    first; its rules see the values of its boxes, which may be boxes of another. Where a rule runs
    for each layer of a deep net, a partial holds what it needs: one object, where functions within
    functions are seven for the garbage collector to go through.
    """

    @functools.wraps(f)
    def traced(*args: Any) -> Any:
        boxed: list[int] = []
        trace = -1
        for k, arg in enumerate(args):
            if type(arg) in Box.types:
                if arg._trace > trace:
                    trace, boxed = arg._trace, []
                if arg._trace == trace:
                    boxed.append(k)
        if not boxed:
            return f(*args)
        values = list(args)
        for k in boxed:
            values[k] = args[k]._value
        run = traced if trace else f  # the outermost trace, 0, has no boxes within
        y, parents = run(*values), [args[k]._node for k in boxed]
        return new_box(y, trace, type(parents[0])(y, traced, values, {}, boxed, parents))

    return traced


# --- activations: formula, then derivative, then the rule that joins them for autodiff ----------


@primitive
@_in_float32
def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, np.ones_like(e)) / (1 + e)


@primitive
@_in_float32
def sigmoid_gradient(x: Array) -> Array:
    e = np.negative(np.abs(x, out=np.empty_like(x)), out=np.empty_like(x))
    np.exp(e, out=e)
    denominator = e + 2
    denominator *= e
    denominator += 1  # (1 + e)**2
    return np.divide(e, denominator, out=e)


@primitive
def tanh(x: Array) -> Array:
    return np.tanh(x)  # in float32 where x is float16


@primitive
@_in_float32
def tanh_gradient(x: Array) -> Array:
    E = np.abs(x, out=np.empty_like(x))
    E *= 2
    np.exp(E, out=E)
    E += 2 + 1 / E  # (2 cosh x)**2
    return np.divide(4, E, out=E)


@primitive
def relu(x: Array) -> Array:
    return np.where(x <= 0, np.zeros_like(x), x)


@primitive
def relu_gradient(x: Array) -> Array:
    return leaky_relu_gradient(x, 0.0)


@primitive
def leaky_relu(x: Array, slope: float) -> Array:
    return np.where(x <= 0, x * slope, x)


@primitive
def leaky_relu_gradient(x: Array, slope: float) -> Array:
    return np.where(np.isnan(x), x, np.where(x > 0, x.dtype.type(1), x.dtype.type(slope)))


def _joins(f: Callable[..., Array], derivative: Callable[..., Array]) -> None:
    """Tell autograd, in reverse and forward mode, that f' is `derivative`."""
    defvjp(f, lambda _, x, *a: lambda g: g * derivative(x, *a), argnums=(0,))
    defjvp(f, lambda g, _, x, *a: g * derivative(x, *a), argnums=(0,))


@primitive
def _of_small(g: Array, y: Array) -> Array:
    """``g (1 - y**2)``, of which nothing cancels as long as y = tanh(x) is small."""
    slope = np.square(y, out=np.empty_like(y))
    np.subtract(1, slope, out=slope)
    return np.multiply(g, slope, out=slope)


def _tanh_vjp(_: Any, y: Array, args: tuple[Array], __: Any) -> Callable[..., tuple[Array]]:
    """``g tanh'(x)``; computed from y where all y are small, so that x may go."""
    value = getval(y)
    if value.dtype != np.float16 and max(value.max(initial=0), -value.min(initial=0)) <= 0.5:
        return functools.partial(lambda y, g: (_of_small(g, y),), y)
    return functools.partial(lambda x, g: (g * tanh_gradient(x),), *args)


_joins(sigmoid, sigmoid_gradient)
_joins(sigmoid_gradient, lambda x: sigmoid_gradient(x) * (1 - 2 * sigmoid(x)))
defvjp_argnums(tanh, _tanh_vjp)
defjvp(tanh, lambda g, _, x: g * tanh_gradient(x))
defvjp(
    _of_small,
    lambda _, g, y: lambda u: _of_small(u, y),
    lambda _, g, y: lambda u: -2 * g * y * u,
)
defjvp(_of_small, lambda u, _, g, y: _of_small(u, y), lambda u, _, g, y: -2 * g * y * u)
_joins(tanh_gradient, lambda x: -2 * tanh(x) * tanh_gradient(x))
_joins(relu, relu_gradient)
_joins(relu_gradient, anp.zeros_like)
_joins(leaky_relu, leaky_relu_gradient)
_joins(leaky_relu_gradient, lambda x, slope: anp.zeros_like(x))
# autograd differentiates astype in reverse mode alone
_astype = anp.numpy_wrapper._astype
defjvp(_astype, lambda g, y, x, *a: _astype(g, y.dtype), argnums=(0,))

_NATIVE: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + anp.exp(-x)),
    "tanh": anp.tanh,
    "relu": lambda x: anp.maximum(x, 0),
    "leaky_relu": lambda x: anp.where(x > 0, x, 0.01 * x),
}

# --- random matrix chains -----------------------------------------------------------------------

_UNROLLED = 8
"""Up to this size the batch goes last, where einsum runs along it: NumPy's matmul calls BLAS for
each matrix, and takes about four times as long on 4x4 matrices."""


def _matmul_batch_last(a: Array, b: Array) -> Array:
    return anp.einsum("ikb,kjb->ijb", a, b)  # (n, n, batch)


def _batch_last(x: Array, axis: int) -> Array:
    moved = anp.moveaxis(x, axis, -1)
    return anp.reshape(anp.ravel(moved), moved.shape)  # copied into this order


def chain_product(product: Array, factors: Array, *, rescale: bool) -> tuple[Array, Array]:
    batch_last = product.shape[-1] <= _UNROLLED
    log_scale = np.zeros(len(product), product.dtype)  # (batch,)
    if batch_last:
        product = _batch_last(product, 0)  # (n, n, batch)
        factors = _batch_last(factors, 1)  # (steps, n, n, batch)
    multiply, entries = (_matmul_batch_last, (0, 1)) if batch_last else (anp.matmul, (1, 2))
    for factor in factors:
        product = multiply(product, factor)
        if rescale:
            c = np.abs(getval(product)).max(axis=entries, keepdims=True)
            c = np.where(c > 0, c, np.ones_like(c))
            product = product / c
            log_scale += np.log(c).reshape(-1)
    return (anp.moveaxis(product, -1, 0) if batch_last else product), log_scale


# --- normalization ------------------------------------------------------------------------------


_LONG = 1024
"""NumPy adds float32 rows up in order, which loses 3 digits in 20,000. From this many on the sum is
in float64, which takes three times as long. Along a row it adds up pairwise."""


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    long = axes[0] == 0 and math.prod(x.shape[k] for k in axes) >= _LONG
    summed = np.float64 if long else x.dtype
    return anp.mean(x.astype(summed), axis=axes, keepdims=True).astype(x.dtype)


def _centred(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return x minus its mean, the mean, and the biased variance; a rounded mean goes first."""
    pivot = _mean(getval(x), axes)
    c = x - pivot
    correction = _mean(c, axes)
    c = c - correction
    return c, pivot + correction, _mean(c * c, axes)


@primitive
def normalize(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """Return ``z = (x - m) / sqrt(v + eps)``."""
    c, _, variance = _centred(x, axes)
    return c / np.sqrt(variance + eps)


def normalize_vjp(z: Array, x: Array, axes: tuple[int, ...], eps: float) -> Callable[..., Array]:
    """``dx = (dz - mean(dz) - z mean(dz z)) / sqrt(v + eps)``."""

    def pullback(dz: Array) -> Array:
        _, _, variance = _centred(x, axes)
        mean_dz, mean_dz_z = _mean(dz, axes), _mean(dz * z, axes)
        return (dz - mean_dz - z * mean_dz_z) / anp.sqrt(variance + eps)

    return pullback


defvjp(normalize, normalize_vjp, argnums=(0,))
# the Jacobian is symmetric, so forward mode is the same formula
defjvp(normalize, lambda g, z, x, axes, eps: normalize_vjp(z, x, axes, eps)(g), argnums=(0,))

# --- differentiation ----------------------------------------------------------------------------


@primitive
def _leaf(anchor: float, x: Array, found: dict[str, Array], name: str) -> Array:
    """Return x, tied to an anchor: where that is differentiated, x's gradient goes into `found`.

    autograd's own way with a dictionary adds each gradient to as many zeros.
    """
    return x


def _leaf_vjp(_: Array, anchor: float, x: Array, found: dict[str, Array], name: str) -> Any:
    def vjp(g: Array) -> float:
        found[name] = g
        return 0.0

    return vjp


defvjp(_leaf, _leaf_vjp, lambda *_: lambda g: g)
defjvp(_leaf, None, lambda g, *_: g)


def _apart(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return arrays of which no two are one memory: a copy of each that shares its own."""
    owners: set[int] = set()
    found = {}
    for name, x in arrays.items():
        value = getval(x)
        owner = id(value if value.base is None else value.base)
        found[name] = 1 * x if owner in owners else x
        owners.add(owner)
    return found


def _tied(f: Callable[..., Array]) -> Callable[..., Array]:
    """Return f; autograd warns of constants, which the sum of no values ties to its parameters."""

    def tied(parameters: Any, *args: Any) -> Array:
        y = f(parameters, *args)
        if isinstance(y, Box):
            return y
        leaves = parameters.values() if hasattr(parameters, "values") else [parameters]
        for leaf in leaves:
            y = y + anp.sum(anp.ravel(leaf)[:0])
        return y

    return tied


# --- streams ------------------------------------------------------------------------------------


class NumpyStream(Stream):
    """SFC64, NumPy's fastest, in a `Generator`; the legacy global generator is not touched."""

    dtypes = ("float16", "float32", "float64")

    def __init__(self, seed: int, path: tuple[int, ...] = ()) -> None:
        super().__init__(seed, path)
        self._generator = np.random.Generator(np.random.SFC64(self.entropy(128)))

    def child(self, index: int, /) -> NumpyStream:
        return NumpyStream(self.seed, (*self.path, index))

    def uniform(
        self,
        shape: tuple[int, ...],
        /,
        *,
        low: float = 0.0,
        high: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        x = self._generator.random(shape, dtype=_drawn(dtype))
        x = np.asarray(x)
        x *= high - low
        x += low
        return np.minimum(x, x.dtype.type(high), out=x).astype(dtype, copy=False)

    def normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        z = np.asarray(self._generator.standard_normal(shape, dtype=_drawn(dtype)))
        return _scaled(z, mean, std, dtype)

    def truncated_normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        z = np.asarray(self._generator.standard_normal(shape, dtype=_drawn(dtype)))
        outside = np.abs(z) > 2
        while count := np.count_nonzero(outside):  # 4.6 % at first: rejection is exact
            z[outside] = self._generator.standard_normal(count, dtype=z.dtype)
            outside = np.abs(z) > 2
        return _scaled(z, mean, std, dtype)


def _drawn(dtype: str) -> type[np.floating[Any]]:
    return np.float64 if dtype == "float64" else np.float32


def _scaled(z: Array, mean: float, std: float, dtype: str) -> Array:
    z *= std
    z += mean
    return z.astype(dtype, copy=False)


# --- the adapter --------------------------------------------------------------------------------


class NumpyBackend(Backend):
    """NumPy arrays, on the CPU."""

    name = "numpy"
    framework = "numpy"
    dtypes = ("float16", "float32", "float64")
    capabilities = frozenset({"jvp", "hvp"})
    mutable = True

    def __init__(self, *, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise InvalidArgument(f"device {device!r} does not exist: numpy has cpu only")
        self.ops = ops.bind(_TABLE, self.scope)

    @property
    def version(self) -> str:
        return np.__version__

    @property
    def device(self) -> str:
        return "cpu"

    def scope(self) -> AbstractContextManager[Any]:
        return _quiet()

    def asarray(self, value: Any, /, *, dtype: str | None = None) -> Array:
        if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
            dtype = "float32"
        return np.array(value, dtype=dtype)

    def adopt(self, value: np.ndarray, /, *, dtype: str) -> Array:
        return value.astype(dtype, copy=False)

    def to_numpy(self, x: Array, /) -> np.ndarray:
        return np.array(x)

    def is_array(self, x: object, /) -> bool:
        return isinstance(x, (np.ndarray, np.generic, Box))

    def dtype_of(self, x: Array, /) -> str:
        return _NAMES.get(x.dtype) or str(x.dtype)

    def stream(self, seed: int, /) -> NumpyStream:
        return NumpyStream(seed)

    # --- sigmoid gradients ---

    def sigmoid(self, x: Array, /) -> Array:
        return sigmoid(x)

    def sigmoid_gradient(self, x: Array, /) -> Array:
        return sigmoid_gradient(x)

    def tanh(self, x: Array, /) -> Array:
        return tanh(x)

    def tanh_gradient(self, x: Array, /) -> Array:
        return tanh_gradient(x)

    def relu(self, x: Array, /) -> Array:
        return relu(x)

    def relu_gradient(self, x: Array, /) -> Array:
        return relu_gradient(x)

    def leaky_relu(self, x: Array, /, *, slope: float = 0.01) -> Array:
        return leaky_relu(x, slope)

    def leaky_relu_gradient(self, x: Array, /, *, slope: float = 0.01) -> Array:
        return leaky_relu_gradient(x, slope)

    def native_gradient(self, activation: str, x: Array, /) -> Array:
        # NumPy has no derivatives: this is the `autograd` package on the formula as people write it
        return autograd.elementwise_grad(_NATIVE[activation])(x).astype(x.dtype)

    # --- random matrix chains ---

    def chain_product(
        self, product: Array, factors: Array, /, *, rescale: bool = False
    ) -> tuple[Array, Array]:
        return chain_product(product, factors, rescale=rescale)

    # --- normalization ---

    def batch_norm(
        self,
        x: Array,
        scale: Array,
        shift: Array,
        mean: Array,
        variance: Array,
        /,
        *,
        training: bool,
        axis: int = 1,
        eps: float = 1e-5,
        momentum: float = 0.9,
        momentum_weights: str = "running",
        running_variance: str = "biased",
    ) -> tuple[Array, Array, Array]:
        axis %= x.ndim
        axes = tuple(k for k in range(x.ndim) if k != axis)
        channels = tuple(-1 if k == axis else 1 for k in range(x.ndim))

        def wide(v: Array) -> Array:  # (channels,) -> (1, channels, 1, ...)
            return anp.reshape(v, channels)

        if not training:
            z = (x - wide(mean)) / anp.sqrt(wide(variance) + eps)
            return z * wide(scale) + wide(shift), mean, variance
        y = normalize(x, axes, eps) * wide(scale) + wide(shift)
        _, m, v = _centred(getval(x), axes)
        if running_variance == "unbiased":
            count = getval(x).size // m.size
            v = v * (count / (count - 1))
        keep = momentum if momentum_weights == "running" else 1 - momentum
        mean = keep * getval(mean) + (1 - keep) * m.reshape(-1)
        variance = keep * getval(variance) + (1 - keep) * v.reshape(-1)
        return y, mean, variance

    def layer_norm(
        self, x: Array, scale: Array, shift: Array, /, *, axis: int = -1, eps: float = 1e-5
    ) -> Array:
        axes = tuple(range(axis % x.ndim, x.ndim))
        return normalize(x, axes, eps) * scale + shift

    # --- differentiation and compilation ---

    def value_and_gradient(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Any]]:
        f = checks.scalar_valued(self, f)

        def evaluate(parameters: Any, *args: Any) -> tuple[Array, Any]:
            named = parameters if isinstance(parameters, dict) else {"": parameters}
            found: dict[str, Array] = {}

            def of_leaves(anchor: Array) -> Array:
                leaves = {k: _leaf(anchor, p, found, k) for k, p in named.items()}
                return _tied(f)(leaves if isinstance(parameters, dict) else leaves[""], *args)

            value, _ = autograd.value_and_grad(of_leaves)(0.0)
            gradient = _apart({k: found.get(k, anp.zeros_like(p)) for k, p in named.items()})
            return value, gradient if isinstance(parameters, dict) else gradient[""]

        return evaluate

    def vjp(self, f: Callable[[Array], Array], x: Array, /) -> tuple[Array, Callable[..., Array]]:
        pullback, y = make_vjp(_tied(f))(x)
        return y, lambda v: pullback(v).astype(x.dtype)

    def jvp(self, f: Callable[[Array], Array], x: Array, tangent: Array, /) -> tuple[Array, Array]:
        y, change = make_jvp(f)(x)(tangent)
        return y, change.astype(y.dtype)

    def hvp(self, f: Callable[[Array], Array], x: Array, vector: Array, /) -> Array:
        one = np.ones((), x.dtype)  # the Hessian is symmetric
        return self.vjp(lambda x: self.vjp(f, x)[1](one), x)[1](vector)

    def compile(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        return f


# --- the vocabulary -----------------------------------------------------------------------------


# what a dense layer needs is closed under differentiation; the derivative of autograd's matmul,
# which broadcasts, takes as long as the product of two small matrices


@primitive
def _linear(x: Array, weight: Array) -> Array:
    return x @ weight.T


@primitive
def _to_input(g: Array, weight: Array) -> Array:
    return g @ weight


@primitive
def _to_weight(g: Array, x: Array) -> Array:
    return g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1])


def _bilinear(f: Callable[..., Array], left: Callable[..., Array], right: Any) -> None:
    """Tell autograd that the gradients of f(a, b) are ``left(g, b)`` and ``right(g, a)``."""

    def gradients(argnums: list[int], a: Array, b: Array, g: Array) -> list[Array]:
        return [right(g, a) if k else left(g, b) for k in argnums]

    defvjp_argnums(f, lambda argnums, _, args, __: functools.partial(gradients, argnums, *args))
    defjvp(f, lambda g, _, a, b: f(g, b), lambda g, _, a, b: f(a, g))


_bilinear(_linear, _to_input, _to_weight)
_bilinear(_to_input, _linear, lambda u, g: _to_weight(g, u))
_bilinear(_to_weight, lambda u, x: _linear(x, u), lambda u, g: _to_input(g, u))


def _conv(x: Array, weight: Array, *, padding: int) -> Array:
    # (batch, in, *spatial), (out, in, *kernel): one matrix product for each position in the kernel
    x = anp.pad(x, ((0, 0), (0, 0), *[(padding, padding)] * (x.ndim - 2)), "constant")
    kernel = weight.shape[2:]
    sizes = [s - k + 1 for s, k in zip(x.shape[2:], kernel, strict=True)]
    y = 0.0
    for offset in itertools.product(*map(range, kernel)):
        window = tuple(slice(o, o + size) for o, size in zip(offset, sizes, strict=True))
        y = y + anp.einsum(
            "bi...,oi->bo...", x[(slice(None), slice(None), *window)], weight[(..., *offset)]
        )
    return y


def _broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    # autograd differentiates it for equal ranks only
    return anp.broadcast_to(anp.reshape(x, (1,) * (len(shape) - x.ndim) + x.shape), shape)


def _where(condition: Array, x1: Array, x2: Array) -> Array:
    shape = np.broadcast_shapes(condition.shape, x1.shape, x2.shape)  # autograd does not sum back
    return anp.where(condition, _broadcast_to(x1, shape), _broadcast_to(x2, shape))


def _take(x: Array, indices: Array, *, axis: int) -> Array:
    return x[(slice(None),) * (axis % x.ndim) + (indices,)]  # autograd has no derivative of take


@primitive
def _same(x: Array) -> Array:
    return x


defvjp(_same, lambda _, x: lambda g: g if g.dtype == x.dtype else g.astype(x.dtype))
defjvp(_same, "same")


def _typed(f: Callable[..., Array]) -> Callable[..., Array]:
    """Return f, a float32 gradient through which stays one; autograd divides it by an int64."""
    return lambda *args, **kwargs: f(*map(_same, args), **kwargs)


@primitive
def _stacked(*rows: Array) -> Array:
    return np.stack(rows)


# autograd's own takes a time that is quadratic in the number of rows
defvjp_argnums(_stacked, lambda argnums, *_: lambda g: [g[k] for k in argnums])
defjvp_argnums(
    _stacked,
    lambda argnums, gs, ans, *_: _stacked(
        *(gs[argnums.index(k)] if k in argnums else zero for k, zero in enumerate(ans * 0))
    ),
)


@primitive
def _row(xs: Array, k: int, space: Any) -> Array:
    return xs[k]


# autograd's own adds a row up number by number, with np.add.at, at 64 ns each
@primitive
def _placed(row: Array, k: int, space: Any) -> SparseObject:
    def add(total: Array) -> Array:
        total[k] += row
        return total

    return SparseObject(space, add)


def _row_gradients(k: int, space: Any, g: Array) -> tuple[Array]:
    return (_placed(g, k, space),)


defvjp_argnums(_row, lambda _, __, args, ___: functools.partial(_row_gradients, *args[1:]))
defjvp(_row, lambda g, _, xs, k, space: _row(g, k, space), argnums=(0,))
defvjp(_placed, lambda _, row, k, space: lambda g: _row(g, k, space), argnums=(0,))
defjvp(_placed, "same", argnums=(0,))


def _scan(step: Callable[[Any, Any], Any], carry: Any, xs: Any) -> tuple[Any, Array | None]:
    ys = []
    several = isinstance(xs, tuple)
    parts = [(part, vspace(part)) for part in (xs if several else (xs,))]
    for k in range(len(parts[0][0])):
        rows = tuple([_row(part, k, space) for part, space in parts])
        carry, y = step(carry, rows if several else rows[0])
        ys.append(y)
    return carry, None if ys[0] is None else _stacked(*ys)


_TABLE: dict[str, Callable[..., Any]] = {
    "abs": anp.abs,
    "exp": anp.exp,
    "expm1": anp.expm1,
    "log": anp.log,
    "log1p": anp.log1p,
    "sqrt": anp.sqrt,
    "square": anp.square,
    "sign": anp.sign,
    "tanh": anp.tanh,
    "maximum": _typed(anp.maximum),
    "minimum": _typed(anp.minimum),
    "clip": anp.clip,
    "where": _typed(_where),
    "isfinite": anp.isfinite,
    "isnan": anp.isnan,
    "sum": anp.sum,
    "mean": _typed(anp.mean),
    "max": _typed(anp.max),
    "min": _typed(anp.min),
    "argmax": anp.argmax,
    "all": anp.all,
    "any": anp.any,
    "matmul": anp.matmul,
    "linear": _linear,
    "qr": np.linalg.qr,
    "svd": _typed(lambda x: anp.linalg.svd(x, full_matrices=False)),
    "conv": _conv,
    "reshape": anp.reshape,
    "permute_dims": anp.transpose,
    "expand_dims": anp.expand_dims,
    "squeeze": anp.squeeze,
    "concat": anp.concatenate,
    "stack": anp.stack,
    "split": lambda x, sizes, axis: tuple(anp.split(x, np.cumsum(sizes)[:-1], axis)),
    "broadcast_to": _broadcast_to,
    "take": _take,
    "zeros": np.zeros,
    "ones": np.ones,
    "full": np.full,
    "eye": np.eye,
    "arange": np.arange,
    "zeros_like": anp.zeros_like,
    "ones_like": anp.ones_like,
    "astype": lambda x, dtype: x.astype(dtype),
    "stop_gradient": getval,
    "scan": _scan,
}
