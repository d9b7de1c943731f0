"""TensorFlow, eager and `tf.function`. Exact derivatives are custom gradients of custom gradients.

Keras is not used. Importing this file leaves the runtime uninitialized and every setting alone.
"""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from isometry.common import checks, ops
from isometry.common.contract import Array, Backend
from isometry.common.errors import InvalidArgument
from isometry.common.streams import Stream, cannot_split

__all__ = ["TensorflowBackend"]

_DTYPES = ("float16", "bfloat16", "float32", "float64")


def _in_float32(formula: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Apply a formula in float32 to half precision, rounding once at the end."""

    def wrapped(x: Array) -> Array:
        if x.dtype in (tf.float16, tf.bfloat16):
            return tf.cast(formula(tf.cast(x, tf.float32)), x.dtype)
        return formula(x)

    return wrapped


# --- activations: formula, then derivative, then the rule that joins them for autodiff ----------


def _joined(derivative: Callable[..., Array]) -> Callable[..., Callable[..., Array]]:
    """Tell TensorFlow that f' is `derivative`, which has such a rule of its own in turn."""

    def rule(f: Callable[..., Array]) -> Callable[..., Array]:
        def joined(x: Array, *args: float) -> Array:
            @tf.custom_gradient
            def activation(x: Array) -> tuple[Array, Callable[[Array], Array]]:
                return f(x, *args), lambda g: g * derivative(x, *args)

            return activation(tf.identity(x))  # x of this graph, not of one whose gradient this is

        return joined

    return rule


@_joined(lambda x: sigmoid_gradient(x))
@_in_float32
def sigmoid(x: Array) -> Array:
    e = tf.exp(-tf.abs(x))  # tf.sigmoid is off by up to 5.3 ULP in float32
    return tf.where(x < 0, e, tf.ones_like(e)) / (1 + e)


@_joined(lambda x: sigmoid_gradient(x) * (1 - 2 * sigmoid(x)))
@_in_float32
def sigmoid_gradient(x: Array) -> Array:
    # e / (1 + e)**2 with e = 1/E, in fewer passes. The numerator is -1 since Grappler makes of
    # 1 / y a tf.math.reciprocal, which is off by thousands of ULP at the limits of float32
    E = tf.exp(tf.abs(x))
    return -1 / ((-1 / E - 2) - E)


@_joined(lambda x: tanh_gradient(x))
@_in_float32
def tanh(x: Array) -> Array:
    return tf.tanh(x)


@_joined(lambda x: -2 * tanh(x) * tanh_gradient(x))
@_in_float32
def tanh_gradient(x: Array) -> Array:
    E = tf.exp(2 * tf.abs(x))  # of -2|x| it would be subnormal, and flushed to 0, from 43.67
    return -4 / ((-1 / E - 2) - E)  # 4 / (2 cosh x)**2


@_joined(lambda x: relu_gradient(x))
def relu(x: Array) -> Array:
    return tf.nn.relu(x)


def relu_gradient(x: Array) -> Array:
    return leaky_relu_gradient(x, 0.0)


@_joined(lambda x, slope: leaky_relu_gradient(x, slope))
def leaky_relu(x: Array, slope: float) -> Array:
    return tf.where(x <= 0, x * slope, x)


def leaky_relu_gradient(x: Array, slope: float) -> Array:
    one = tf.ones_like(x)
    return tf.where(tf.math.is_nan(x), tf.stop_gradient(x), tf.where(x > 0, one, slope * one))


_NATIVE: dict[str, Callable[[Array], Array]] = {
    "sigmoid": tf.nn.sigmoid,
    "tanh": tf.tanh,
    "relu": tf.nn.relu,
    "leaky_relu": lambda x: tf.nn.leaky_relu(x, alpha=0.01),
}

# --- random matrix chains -----------------------------------------------------------------------


def chain_product(product: Array, factors: Array, *, rescale: bool) -> tuple[Array, Array]:
    steps = tf.shape(factors)[0]
    rows = tf.TensorArray(factors.dtype, size=steps).unstack(factors)  # keeps gradients linear

    def step(k: Array, product: Array, log_scale: Array) -> tuple[Array, Array, Array]:
        product = tf.matmul(product, rows.read(k))  # (batch, n, n)
        if rescale:
            c = tf.stop_gradient(tf.reduce_max(tf.abs(product), axis=(1, 2)))
            c = tf.where(c > 0, c, tf.ones_like(c))
            product = product / c[:, None, None]
            log_scale = log_scale + tf.math.log(c)
        return k + 1, product, log_scale

    start = (0, product, tf.zeros_like(product[:, 0, 0]))
    _, product, log_scale = tf.while_loop(lambda k, *_: k < steps, step, start)
    return product, log_scale


@functools.cache
def _compiled_chain_product(dtype: tf.DType, rescale: bool) -> Callable[..., tuple[Array, Array]]:
    """Return the loop as one graph for all shapes: in Python a step costs 0.1 ms more."""
    signature = [tf.TensorSpec([None] * rank, dtype) for rank in (3, 4)]
    return tf.function(
        functools.partial(chain_product, rescale=rescale),
        input_signature=signature,
        autograph=False,
    )


# --- normalization ------------------------------------------------------------------------------


_LONG = 1024
"""TensorFlow adds float32 rows up in order, which loses 3 digits in 20,000. From this many on the
sum is in float64, which takes half as long again. Along a row it adds up pairwise."""


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    long = axes[0] == 0 and math.prod(x.shape[k] for k in axes) >= _LONG
    summed = tf.float64 if long else x.dtype
    return tf.cast(tf.reduce_mean(tf.cast(x, summed), axes, keepdims=True), x.dtype)


def _centred(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return x minus its mean, the mean, and the biased variance; a rounded mean goes first.

    Not `tf.nn.moments`: it stops the gradient of its mean, so that second derivatives are wrong.
    """
    pivot = tf.stop_gradient(_mean(x, axes))
    c = x - pivot
    correction = _mean(c, axes)
    c = c - correction
    return c, pivot + correction, _mean(tf.square(c), axes)


# --- streams ------------------------------------------------------------------------------------


class _State(NamedTuple):
    """What a stream is inside a compiled function: tensors go in and come out."""

    key: Array  # (1,) uint64
    counter: Array  # (2,) uint64: blocks within a draw, number of the draw


class TensorflowStream(Stream):
    """Philox, counter-based and without state in TensorFlow: its global generator is not touched.

    The `tf.random.stateless_*` functions are these operations behind a hash of the seed, at 0.6 ms
    a call.
    """

    dtypes = _DTYPES

    def __init__(self, seed: int, path: tuple[int, ...], device: str) -> None:
        super().__init__(seed, path)
        self._device = device
        key, start = divmod(self.entropy(128), 2**64)
        with self.scope():
            self.state = _State(tf.constant([key], tf.uint64), tf.constant([0, start], tf.uint64))

    def scope(self) -> AbstractContextManager[Any]:
        return tf.device(self._device)

    def child(self, index: int, /) -> TensorflowStream:
        return TensorflowStream(self.seed, (*self.path, index), self._device)

    def _draw(self, operation: Callable[..., Array], shape: tuple[int, ...], dtype: str) -> Array:
        key, counter = self.state
        self.state = _State(key, counter + tf.constant([0, 1], tf.uint64))
        drawn = tf.float64 if dtype == "float64" else tf.float32
        philox = tf.random.Algorithm.PHILOX.value
        shape = tf.constant(shape, tf.int32)
        return operation(shape=shape, key=key, counter=counter, alg=philox, dtype=drawn)

    def uniform(
        self,
        shape: tuple[int, ...],
        /,
        *,
        low: float = 0.0,
        high: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        x = self._draw(tf.raw_ops.StatelessRandomUniformV2, shape, dtype)
        number = x.dtype.as_numpy_dtype
        low, high, width = number(low), number(high), number(high - low)
        if low + width > high:  # rounding is monotone: if this does not exceed high, no draw does
            width = np.nextafter(width, number(0))
        return tf.cast(x * width + low, dtype)

    def normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        z = self._draw(tf.raw_ops.StatelessRandomNormalV2, shape, dtype)
        return tf.cast(z * std + mean, dtype)

    def truncated_normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        z = self._draw(tf.raw_ops.StatelessTruncatedNormalV2, shape, dtype)  # cut at +-2
        return tf.cast(z * std + mean, dtype)


class _ResumedStream(TensorflowStream):
    """A stream inside a compiled function, where seed and path are not known."""

    def __init__(self, state: _State, device: str) -> None:
        self.state, self._device, self._children = state, device, 0

    def child(self, index: int, /) -> TensorflowStream:
        raise cannot_split()


# --- the adapter --------------------------------------------------------------------------------


def _devices() -> list[str]:
    found = tf.config.list_physical_devices()  # unlike logical ones, does not start the runtime
    return [":".join(device.name.lower().split(":")[-2:]) for device in found]


class TensorflowBackend(Backend):
    """TensorFlow tensors, on the CPU or a GPU."""

    name = "tensorflow"
    framework = "tensorflow"
    dtypes = _DTYPES
    capabilities = frozenset({"compiled", "jvp", "hvp", "bfloat16"})

    def __init__(self, *, device: str | None = None) -> None:
        spelled = (device or "cpu").replace("cuda", "gpu")
        self._device = spelled + ("" if ":" in spelled else ":0")
        if self._device not in _devices():
            raise InvalidArgument(
                f"device {device!r} does not exist here: tensorflow has {', '.join(_devices())}"
            )
        self.ops = ops.bind(_TABLE, self.scope)

    @property
    def version(self) -> str:
        return tf.__version__

    @property
    def device(self) -> str:
        return self._device

    def scope(self) -> AbstractContextManager[Any]:
        return tf.device(self._device)  # where there is a GPU, TensorFlow would compute on it

    def asarray(self, value: Any, /, *, dtype: str | None = None) -> Array:
        if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
            dtype = "float32"
        number = tf.as_dtype(dtype).as_numpy_dtype if dtype else value.dtype
        with np.errstate(over="ignore"):  # NumPy warns of what rounds to infinity
            return tf.constant(np.array(value, dtype=number))

    def adopt(self, value: np.ndarray, /, *, dtype: str) -> Array:
        if value.dtype != dtype:
            return self.asarray(value, dtype=dtype)
        return tf.identity(tf.experimental.dlpack.from_dlpack(value.__dlpack__()))

    def to_numpy(self, x: Array, /) -> np.ndarray:
        return np.array(tf.cast(x, tf.float32) if x.dtype == tf.bfloat16 else x)

    def is_array(self, x: object, /) -> bool:
        return isinstance(x, tf.Tensor)

    def dtype_of(self, x: Array, /) -> str:
        return str(x.dtype.name)

    def stream(self, seed: int, /) -> TensorflowStream:
        return TensorflowStream(seed, (), self._device)

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
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = _NATIVE[activation](x)
        return tape.gradient(y, x)

    # --- random matrix chains ---

    def chain_product(
        self, product: Array, factors: Array, /, *, rescale: bool = False
    ) -> tuple[Array, Array]:
        # where a graph is being built already, the loop goes into it, with its shapes
        if tf.executing_eagerly():
            return _compiled_chain_product(product.dtype, rescale)(product, factors)
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
            return tf.reshape(v, channels)

        if not training:
            z = (x - wide(mean)) / tf.sqrt(wide(variance) + eps)
            return z * wide(scale) + wide(shift), mean, variance
        c, m, v = _centred(x, axes)
        y = c * (wide(scale) / tf.sqrt(v + eps)) + wide(shift)
        if running_variance == "unbiased":
            count = x.shape.num_elements() // m.shape.num_elements()
            v = v * (count / (count - 1))
        keep = momentum if momentum_weights == "running" else 1 - momentum
        mean = tf.stop_gradient(keep * mean + (1 - keep) * tf.reshape(m, [-1]))
        variance = tf.stop_gradient(keep * variance + (1 - keep) * tf.reshape(v, [-1]))
        return y, mean, variance

    def layer_norm(
        self, x: Array, scale: Array, shift: Array, /, *, axis: int = -1, eps: float = 1e-5
    ) -> Array:
        axes = tuple(range(axis % x.ndim, x.ndim))
        c, _, v = _centred(x, axes)
        return c / tf.sqrt(v + eps) * scale + shift

    # --- differentiation and compilation ---

    def value_and_gradient(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Any]]:
        f = checks.scalar_valued(self, f)

        def evaluate(parameters: Any, *args: Any) -> tuple[Array, Any]:
            with self.scope(), tf.GradientTape() as tape:
                tape.watch(parameters)
                value = f(parameters, *args)
                gradient = tape.gradient(value, parameters, unconnected_gradients="zero")
                # through tf.gather a gradient is IndexedSlices; the contract's is an array
                return value, tf.nest.map_structure(tf.convert_to_tensor, gradient)

        return evaluate

    def vjp(self, f: Callable[[Array], Array], x: Array, /) -> tuple[Array, Callable[..., Array]]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = f(x)

        def pullback(v: Array) -> Array:
            with self.scope():
                return tf.convert_to_tensor(
                    tape.gradient(y, x, output_gradients=v, unconnected_gradients="zero")
                )

        return y, pullback

    def jvp(self, f: Callable[[Array], Array], x: Array, tangent: Array, /) -> tuple[Array, Array]:
        # tf.autodiff.ForwardAccumulator takes the derivative of a custom gradient for 0, and fails
        # on a tf.function that holds one; v -> v^T J is linear, and its transpose is J
        y, pullback = self.vjp(f, x)
        return y, self.vjp(pullback, tf.zeros_like(y))[1](tangent)

    def hvp(self, f: Callable[[Array], Array], x: Array, vector: Array, /) -> Array:
        evaluate = self.value_and_gradient(f)
        return self.vjp(lambda x: evaluate(x)[1], x)[1](vector)  # the Hessian is symmetric

    def compile(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        # XLA compiles every shape again, and draws need the bits of eager mode: it is left to
        # functions that take memory over, which it moves in one pass without arrays in between
        @tf.function(autograph=False, jit_compile=True if self.overwrites else None)
        def traced(*args: Any) -> tuple[Any, list[_State]]:
            args = tuple(
                _ResumedStream(a, self._device) if isinstance(a, _State) else a for a in args
            )
            y = f(*args)
            return y, [a.state for a in args if isinstance(a, _ResumedStream)]

        def compiled(*args: Any) -> Any:
            checks.compilable(args)
            streams = [a for a in args if isinstance(a, TensorflowStream)]
            with self.scope():
                y, states = traced(
                    *(a.state if isinstance(a, TensorflowStream) else a for a in args)
                )
            for stream, state in zip(streams, states, strict=True):
                stream.state = state  # moved on by what was drawn
            return y

        return compiled


# --- the vocabulary -----------------------------------------------------------------------------


def _conv(x: Array, weight: Array, *, padding: int) -> Array:
    # the CPU has kernels for channels last only: (batch, *spatial, in), (*kernel, in, out)
    spatial = range(2, x.ndim)
    x = tf.pad(x, [(0, 0), (0, 0), *[(padding, padding)] * len(spatial)])
    y = tf.nn.convolution(
        tf.transpose(x, (0, *spatial, 1)),
        tf.transpose(weight, (*spatial, 1, 0)),
        data_format=("NWC", "NHWC", "NDHWC")[x.ndim - 3],  # the 3-D gradient needs it spelled out
    )
    return tf.transpose(y, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def _arange(start: float, stop: float, step: float, *, dtype: str) -> Array:
    return tf.cast(tf.range(start, stop, step, "float64"), dtype)  # graphs have no range in half


# A scan reads its rows where they lie, and the derivative of each is put into a list, which goes
# through the steps beside the carry: TensorFlow's own derivative of a row read is an array of all
# rows, zero but for one, at every step. A custom_gradient would keep the list at every step, too;
# a rule of an operation does not, but graphs alone know it, not tapes: it is for the loop's body.

_ROW = f"isometry.row.{uuid.uuid4()}"  # a name is taken for good, and files are loaded anew


def _row_gradients(part: Array) -> Array:
    """Return a list for the derivatives of the rows, the derivative of which is that of part."""
    shape, count = tf.constant(part.shape[1:].as_list(), tf.int32), part.shape[0]

    @tf.custom_gradient
    def rows(part: Array) -> tuple[Array, Callable[[Array], Array]]:
        empty = tf.raw_ops.TensorListReserve(
            element_shape=shape, num_elements=count, element_dtype=part.dtype
        )
        return empty, lambda g: tf.raw_ops.TensorListStack(
            input_handle=g, element_shape=shape, element_dtype=part.dtype, num_elements=count
        )

    return rows(part)


@tf.RegisterGradient(_ROW)
def _row_gradient(op: Any, g: Array, row: Array, _: Any) -> tuple[Array, None, None]:
    k = op.inputs[2]
    return tf.raw_ops.TensorListSetItem(input_handle=g, index=k, item=row), None, None


def _scan(step: Callable[[Any, Any], Any], carry: Any, xs: Any) -> tuple[Any, Array | None]:
    several = isinstance(xs, tuple)
    parts = xs if several else (xs,)
    ys: Any = []
    if tf.executing_eagerly():
        for row in zip(*map(tf.unstack, parts), strict=True):
            carry, y = step(carry, row if several else row[0])
            ys.append(y)
        return carry, None if ys[0] is None else tf.stack(ys)
    count = parts[0].shape[0]
    fixed = tuple(map(tf.stop_gradient, parts))

    def read(lists: tuple[Array, ...], k: Array) -> tuple[tuple[Array, ...], Any]:
        with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": _ROW}):
            rows = [tf.identity_n([d, part[k], k]) for d, part in zip(lists, fixed, strict=True)]
        lists, x, _ = zip(*rows, strict=True)
        return lists, x if several else x[0]

    lists = tuple(map(_row_gradients, parts))
    _, y = step(carry, read(lists, tf.constant(0))[1])  # shows what a y is, and is never computed
    if y is not None:
        shape = tf.constant(y.shape.as_list(), tf.int32)
        ys = tf.raw_ops.EmptyTensorList(
            element_shape=shape, max_num_elements=count, element_dtype=y.dtype
        )

    def body(k: Array, carry: Any, lists: Any, ys: Array) -> tuple[Array, Any, Any, Array]:
        lists, x = read(lists, k)
        carry, y = step(carry, x)
        if y is not None:
            ys = tf.raw_ops.TensorListPushBack(input_handle=ys, tensor=y)
        return k + 1, carry, lists, ys

    _, carry, _, ys = tf.while_loop(
        lambda k, *_: k < count, body, (0, carry, lists, ys), maximum_iterations=count
    )
    if y is None:
        return carry, None
    return carry, tf.raw_ops.TensorListStack(
        input_handle=ys, element_shape=shape, element_dtype=y.dtype, num_elements=count
    )


def _svd(x: Array) -> tuple[Array, Array, Array]:
    s, u, v = tf.linalg.svd(x)
    return u, s, tf.linalg.adjoint(v)


_TABLE: dict[str, Callable[..., Any]] = {
    "abs": tf.abs,
    "exp": tf.exp,
    "expm1": tf.math.expm1,
    "log": tf.math.log,
    "log1p": tf.math.log1p,
    "sqrt": tf.sqrt,
    "square": tf.square,
    "sign": tf.sign,
    "tanh": tf.tanh,
    "maximum": tf.maximum,
    "minimum": tf.minimum,
    "clip": tf.clip_by_value,
    "where": tf.where,
    "isfinite": tf.math.is_finite,
    "isnan": tf.math.is_nan,
    "sum": tf.reduce_sum,
    "mean": tf.reduce_mean,
    "max": tf.reduce_max,
    "min": tf.reduce_min,
    "argmax": tf.argmax,
    "all": tf.reduce_all,
    "any": tf.reduce_any,
    "matmul": tf.matmul,
    "linear": functools.partial(tf.matmul, transpose_b=True),
    "qr": tf.linalg.qr,
    "svd": _svd,
    "conv": _conv,
    "reshape": tf.reshape,
    "permute_dims": tf.transpose,
    "expand_dims": tf.expand_dims,
    "squeeze": tf.squeeze,
    "concat": tf.concat,
    "stack": tf.stack,
    "split": lambda x, sizes, axis: tuple(tf.split(x, sizes, axis)),
    "broadcast_to": tf.broadcast_to,
    "take": tf.gather,
    "zeros": tf.zeros,
    "ones": tf.ones,
    "full": lambda shape, value, dtype: tf.constant(value, dtype, shape),
    "eye": tf.eye,
    "arange": _arange,
    "zeros_like": tf.zeros_like,
    "ones_like": tf.ones_like,
    "astype": tf.cast,
    "stop_gradient": tf.stop_gradient,
    "scan": _scan,
}
