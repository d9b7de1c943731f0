"""MLX behind the contract of Isometry: an adapter as a stranger to the project would write one.

MLX has float64 on the CPU only, so that is where everything here runs, whatever MLX's default
device is. Three things of MLX 0.32 on the CPU shaped it, each measured against NumPy and SciPy:

- ``mx.exp`` errs by up to 64 ULP in float32 and is no better than float32 in float64, while
  ``mx.expm1`` is within 1 ULP of the result in both: the exponential here is made of it.
- ``mx.conv_general``, ``mx.cos`` and ``mx.erfinv`` are no better than float32 in float64, and
  ``mx.random.uniform`` refuses it: float64 convolutions are sums of matrix products, and float64
  draws are made of the words of ``mx.random.split``.
- ``mx.sign`` of NaN is 0.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import mlx.core as mx
import mlx.nn
import numpy as np

from isometry import Backend, InvalidArgument
from isometry.common import checks, ops
from isometry.common.streams import Stream, cannot_split

__all__ = ["MlxBackend"]

_DTYPES = {name: getattr(mx, name) for name in ("float16", "bfloat16", "float32", "float64")}


@contextlib.contextmanager
def _cpu() -> Iterator[None]:
    with mx.stream(mx.cpu):
        yield


# --- activations: formula, derivative, and the rule that joins them ------------------------------


def _rounded_once(formula: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """Apply a formula to half precision in float32."""

    def wrapped(x: mx.array) -> mx.array:
        half = x.dtype in (mx.float16, mx.bfloat16)
        return formula(x.astype(mx.float32)).astype(x.dtype) if half else formula(x)

    return wrapped


def _with_derivative(
    formula: Callable[..., mx.array], derivative: Callable[..., mx.array]
) -> Callable[..., mx.array]:
    function = mx.custom_function(formula)
    function.vjp(lambda x, cotangent, _: cotangent * derivative(x))
    function.jvp(lambda x, tangent: tangent * derivative(x))
    return function


def _exp_formula(x: mx.array) -> mx.array:
    E = 1 + mx.expm1(mx.abs(x))
    return mx.where(x < 0, 1 / E, E)


exp = _with_derivative(_rounded_once(_exp_formula), lambda x: exp(x))


@_rounded_once
def sigmoid_gradient(x: mx.array) -> mx.array:
    E = exp(mx.abs(x))
    return 1 / (E + (2 + 1 / E))  # e / (1 + e)**2, divided through by e


@_rounded_once
def tanh_gradient(x: mx.array) -> mx.array:
    E = exp(2 * mx.abs(x))
    return 4 / (E + (2 + 1 / E))  # 4 / (2 cosh x)**2


def leaky_relu_gradient(x: mx.array, slope: float = 0.0) -> mx.array:
    one = mx.ones_like(x)
    return mx.where(mx.isnan(x), mx.stop_gradient(x), mx.where(x > 0, one, slope * one))


sigmoid = _with_derivative(_rounded_once(lambda x: 1 / (1 + exp(-x))), sigmoid_gradient)
tanh = _with_derivative(_rounded_once(mx.tanh), tanh_gradient)
relu = _with_derivative(lambda x: mx.maximum(x, 0), leaky_relu_gradient)

_NATIVE = {
    "sigmoid": mx.sigmoid,
    "tanh": mx.tanh,
    "relu": mlx.nn.relu,
    "leaky_relu": mlx.nn.leaky_relu,
}


# --- normalization -------------------------------------------------------------------------------


def _centred(x: mx.array, axes: tuple[int, ...]) -> tuple[mx.array, mx.array, mx.array]:
    """Return x minus its mean, the mean, and the biased variance; a rounded mean goes first."""
    pivot = mx.stop_gradient(mx.mean(x, axes, keepdims=True))
    c = x - pivot
    correction = mx.mean(c, axes, keepdims=True)
    c = c - correction
    return c, pivot + correction, mx.mean(c * c, axes, keepdims=True)


# --- streams -------------------------------------------------------------------------------------


class MlxStream(Stream):
    """A threefry key; each draw splits it into the next key and its own."""

    dtypes = tuple(_DTYPES)

    def __init__(self, seed: int, path: tuple[int, ...] = ()) -> None:
        super().__init__(seed, path)
        self._key = mx.array(np.array(divmod(self.entropy(64), 2**32), np.uint32))

    @classmethod
    def of_key(cls, key: mx.array) -> MlxStream:
        """Return what stands for a stream while compiling."""
        stream = object.__new__(cls)
        stream._key, stream._children = key, 0
        return stream

    def child(self, index: int, /) -> MlxStream:
        if not hasattr(self, "seed"):
            raise cannot_split()
        return MlxStream(self.seed, (*self.path, index))

    def _next(self) -> mx.array:
        self._key, key = mx.random.split(self._key)
        return key

    def _unit(self, shape: tuple[int, ...]) -> mx.array:
        # float64 from 53 of the 64 bits that a split makes for each value
        words = mx.random.split(self._next(), math.prod(shape))
        high, low = (words[:, 0] >> 5).astype(mx.float64), (words[:, 1] >> 6).astype(mx.float64)
        return ((high * 2.0**26 + low) * 2.0**-53).reshape(shape)

    def _gauss(self, shape: tuple[int, ...]) -> mx.array:
        # Box and Muller 1958; the cosine by the half angle, as mx.cos has float32's precision
        t = mx.tan(math.pi * (self._unit(shape) - 0.5))
        return mx.sqrt(-2 * mx.log(1 - self._unit(shape))) * ((1 - t * t) / (1 + t * t))

    @_cpu()
    def uniform(
        self,
        shape: tuple[int, ...],
        /,
        *,
        low: float = 0.0,
        high: float = 1.0,
        dtype: str = "float32",
    ) -> mx.array:
        wide = dtype == "float64"
        u = self._unit(shape) if wide else mx.random.uniform(shape=shape, key=self._next())
        return mx.minimum(low + (high - low) * u, high).astype(_DTYPES[dtype])

    @_cpu()
    def normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> mx.array:
        wide = dtype == "float64"
        z = self._gauss(shape) if wide else mx.random.normal(shape, key=self._next())
        return (mean + std * z).astype(_DTYPES[dtype])

    @_cpu()
    def truncated_normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> mx.array:
        if dtype == "float64":
            z = self._gauss(shape)
            for _ in range(15):  # drawn again while outside: 0.0455**16 = 3e-22 is then left
                z = mx.where(mx.abs(z) > 2, self._gauss(shape), z)
            z = mx.clip(z, -2, 2)
        else:
            z = mx.random.truncated_normal(-2.0, 2.0, shape=shape, key=self._next())
        return (mean + std * z).astype(_DTYPES[dtype])


# --- the adapter ---------------------------------------------------------------------------------


class MlxBackend(Backend):
    """MLX arrays, on the CPU."""

    name = "mlx"
    framework = "mlx"
    dtypes = tuple(_DTYPES)
    capabilities = frozenset({"compiled", "jvp", "hvp", "bfloat16"})

    def __init__(self, *, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise InvalidArgument(
                f"device {device!r} does not exist here: mlx computes float64 on cpu alone"
            )
        self.ops = ops.bind(_TABLE, self.scope)

    version = property(lambda self: version("mlx"))
    device = property(lambda self: "cpu")

    def scope(self) -> contextlib.AbstractContextManager[None]:
        return _cpu()

    def asarray(self, value: Any, /, *, dtype: str | None = None) -> mx.array:
        if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
            dtype = "float32"
        value = np.asarray(value)
        # without a dtype MLX turns float64 into float32, and leaves the others as they are
        return mx.array(value, dtype=_DTYPES.get(dtype or value.dtype.name))

    def to_numpy(self, x: mx.array, /) -> np.ndarray:
        return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x)

    def is_array(self, x: object, /) -> bool:
        return isinstance(x, mx.array)

    def dtype_of(self, x: mx.array, /) -> str:
        return str(x.dtype).removeprefix("mlx.core.")

    def stream(self, seed: int, /) -> MlxStream:
        return MlxStream(seed)

    @_cpu()
    def sigmoid(self, x: mx.array, /) -> mx.array:
        return sigmoid(x)

    @_cpu()
    def sigmoid_gradient(self, x: mx.array, /) -> mx.array:
        return sigmoid_gradient(x)

    @_cpu()
    def tanh(self, x: mx.array, /) -> mx.array:
        return tanh(x)

    @_cpu()
    def tanh_gradient(self, x: mx.array, /) -> mx.array:
        return tanh_gradient(x)

    @_cpu()
    def relu(self, x: mx.array, /) -> mx.array:
        return relu(x)

    @_cpu()
    def relu_gradient(self, x: mx.array, /) -> mx.array:
        return leaky_relu_gradient(x)

    @_cpu()
    def leaky_relu(self, x: mx.array, /, *, slope: float = 0.01) -> mx.array:
        return _with_derivative(
            lambda x: mx.where(x <= 0, x * slope, x), lambda x: leaky_relu_gradient(x, slope)
        )(x)

    @_cpu()
    def leaky_relu_gradient(self, x: mx.array, /, *, slope: float = 0.01) -> mx.array:
        return leaky_relu_gradient(x, slope)

    @_cpu()
    def native_gradient(self, activation: str, x: mx.array, /) -> mx.array:
        return mx.grad(lambda x: mx.sum(_NATIVE[activation](x)))(x)

    @_cpu()
    def chain_product(
        self, product: mx.array, factors: mx.array, /, *, rescale: bool = False
    ) -> tuple[mx.array, mx.array]:
        log_scale = mx.zeros(product.shape[:1], product.dtype)
        for factor in factors:
            product = product @ factor
            if rescale:
                c = mx.stop_gradient(mx.max(mx.abs(product), axis=(1, 2), keepdims=True))
                c = mx.where(c > 0, c, mx.ones_like(c))
                product, log_scale = product / c, log_scale + mx.log(c).reshape(-1)
        return product, log_scale

    @_cpu()
    def batch_norm(
        self,
        x: mx.array,
        scale: mx.array,
        shift: mx.array,
        mean: mx.array,
        variance: mx.array,
        /,
        *,
        training: bool,
        axis: int = 1,
        eps: float = 1e-5,
        momentum: float = 0.9,
        momentum_weights: str = "running",
        running_variance: str = "biased",
    ) -> tuple[mx.array, mx.array, mx.array]:
        wide = [-1 if k == axis % x.ndim else 1 for k in range(x.ndim)]
        a, b = scale.reshape(wide), shift.reshape(wide)
        if not training:
            z = (x - mean.reshape(wide)) / mx.sqrt(variance.reshape(wide) + eps)
            return z * a + b, mean, variance
        c, m, v = _centred(x, tuple(k for k in range(x.ndim) if k != axis % x.ndim))
        y = c / mx.sqrt(v + eps) * a + b
        count = x.size // m.size
        v = v * (count / (count - 1)) if running_variance == "unbiased" else v
        keep = momentum if momentum_weights == "running" else 1 - momentum
        mean = keep * mean + (1 - keep) * m.reshape(-1)
        variance = keep * variance + (1 - keep) * v.reshape(-1)
        return y, mx.stop_gradient(mean), mx.stop_gradient(variance)

    @_cpu()
    def layer_norm(
        self, x: mx.array, scale: mx.array, shift: mx.array, /, *, axis: int = -1, eps: float = 1e-5
    ) -> mx.array:
        c, _, v = _centred(x, tuple(range(axis % x.ndim, x.ndim)))
        return c / mx.sqrt(v + eps) * scale + shift

    def value_and_gradient(self, f: Callable[..., mx.array], /) -> Callable[..., Any]:
        return _cpu()(mx.value_and_grad(checks.scalar_valued(self, f)))

    @_cpu()
    def vjp(self, f: Callable[[mx.array], mx.array], x: mx.array, /) -> tuple[mx.array, Any]:
        return f(x), _cpu()(lambda v: mx.vjp(f, [x], [v])[1][0])

    @_cpu()
    def jvp(
        self, f: Callable[[mx.array], mx.array], x: mx.array, tangent: mx.array, /
    ) -> tuple[mx.array, mx.array]:
        (y,), (change,) = mx.jvp(f, [x], [tangent])
        return y, change

    @_cpu()
    def hvp(self, f: Callable[[mx.array], mx.array], x: mx.array, vector: mx.array, /) -> mx.array:
        return mx.jvp(mx.grad(f), [x], [vector])[1][0]

    def compile(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        # a stream goes in and out as its key
        def traced(at: int | None, *args: Any) -> tuple[Any, mx.array]:
            stream = None if at is None else MlxStream.of_key(args[at])
            y = f(*(stream if k == at else a for k, a in enumerate(args)))
            return y, mx.zeros(()) if stream is None else stream._key

        function = mx.compile(traced)

        @_cpu()
        def compiled(*args: Any) -> Any:
            checks.compilable(args)
            at = next((k for k, a in enumerate(args) if isinstance(a, MlxStream)), None)
            y, key = function(at, *(a._key if k == at else a for k, a in enumerate(args)))
            if at is not None:
                args[at]._key = key  # so that the next draw goes on as after an eager call
            return y

        return compiled


# --- the vocabulary ------------------------------------------------------------------------------


def _conv(x: mx.array, weight: mx.array, *, padding: int) -> mx.array:
    if x.dtype != mx.float64:
        y = mx.conv_general(mx.moveaxis(x, 1, -1), mx.moveaxis(weight, 1, -1), padding=padding)
        return mx.moveaxis(y, -1, 1)
    x = mx.moveaxis(mx.pad(x, [(0, 0), (0, 0)] + [(padding, padding)] * (x.ndim - 2)), 1, -1)
    kernel = weight.shape[2:]
    sizes = [n - k + 1 for n, k in zip(x.shape[1:-1], kernel, strict=True)]
    y = mx.zeros(())
    for at in itertools.product(*map(range, kernel)):
        window = x[(slice(None), *(slice(k, k + n) for k, n in zip(at, sizes, strict=True)))]
        y = y + window @ weight[(..., *at)].T
    return mx.moveaxis(y, -1, 1)


def _svd(x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    u, s, vh = mx.linalg.svd(x)
    return u[..., : s.shape[-1]], s, vh[..., : s.shape[-1], :]


def _scan(step: Callable[..., Any], carry: Any, xs: mx.array) -> tuple[Any, mx.array]:
    ys = []
    for x in xs:
        carry, y = step(carry, x)
        ys.append(y)
    return carry, mx.stack(ys)


def _create(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    return lambda *args, dtype: function(*args, dtype=_DTYPES[dtype])


_SAME = (
    "abs expm1 log log1p sqrt square tanh maximum minimum clip where isfinite isnan sum mean max "
    "min all any matmul reshape permute_dims expand_dims squeeze concat stack broadcast_to take "
    "zeros_like ones_like stop_gradient"
)
_TABLE: dict[str, Callable[..., Any]] = {
    **{name: getattr(mx, name) for name in _SAME.split()},
    **{name: _create(getattr(mx, name)) for name in ("zeros", "ones", "full", "eye", "arange")},
    "exp": exp,
    "sign": lambda x: mx.where(mx.isnan(x), x, mx.sign(x)),
    "argmax": lambda x, axis: mx.argmax(x, axis=axis).astype(mx.int32),
    "qr": mx.linalg.qr,
    "svd": _svd,
    "conv": _conv,
    "astype": lambda x, dtype: x.astype(_DTYPES[dtype]),
    "scan": _scan,
}
