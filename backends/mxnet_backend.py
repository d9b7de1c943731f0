"""MXNet 1.9.1: `mx.np` arrays on an asynchronous engine, and graphs made by `hybridize`.

MXNet was retired in 2023; :mod:`isometry.backends.mxnet_compat` holds what it needs to be imported
today, :mod:`isometry.backends.mxnet_graph` how one formula serves arrays and graphs: its ``F`` is
``np_of(x)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from isometry.backends.mxnet_graph import (
    Graph,
    Symbol,
    constant,
    detach,
    dtype_of,
    legacy_of,
    mx,
    np_of,
    npx_of,
    shape_of,
    synced,
    tracing,
    unrolled,
)
from isometry.common import checks, ops
from isometry.common.contract import Array, Backend
from isometry.common.errors import InvalidArgument
from isometry.common.streams import Stream, cannot_split

__all__ = ["MxnetBackend"]


def _scope() -> AbstractContextManager[Any]:
    """Allow shapes () and sizes 0, which MXNet keeps as a flag of each thread."""
    return mx.util.np_shape(True)


def _in_float32(formula: Callable[..., Array]) -> Callable[..., Array]:
    """Apply a formula in float32 to half precision, rounding once at the end."""

    def wrapped(x: Array, *args: Any, **kwargs: Any) -> Array:
        if dtype_of(x) != "float16":
            return formula(x, *args, **kwargs)
        wide = [a.astype("float32") if isinstance(a, type(x)) else a for a in (x, *args)]
        return formula(*wide, **kwargs).astype("float16")

    return wrapped


# --- activations: formula, then derivative, then the rule that joins them for autodiff ----------


def _in_place(x: Array) -> bool:
    return not (isinstance(x, Symbol) or mx.autograd.is_recording())


def _bell(x: Array, scale: float, height: float) -> Array:
    """Return height (y - y**2) of y = sigmoid(-scale |x|), which is at most 1/2: nothing cancels.

    In MXNet's legacy operators, which do not broadcast: np's take twice the time.
    """
    F = legacy_of(x)
    y = F.sigmoid(-scale * F.abs(x.as_nd_ndarray()))
    return F.contrib.quadratic(y, a=-height, b=height, c=0).as_np_ndarray()


@_in_float32
def sigmoid_gradient(x: Array) -> Array:
    return _bell(x, 1, 1)


@_in_float32
def tanh_gradient(x: Array) -> Array:
    return _bell(x, 2, 4)  # 1 / cosh(x)**2


def relu_gradient(x: Array) -> Array:
    return leaky_relu_gradient(x, 0.0)


def leaky_relu_gradient(x: Array, slope: float) -> Array:
    F = np_of(x)
    one = F.ones_like(x)
    return F.where(F.isnan(x), x, F.where(x > 0, one, slope * one))


def _joined(f: Callable[[Any, Any], Any], falling: Callable[[Array], Array]) -> Any:
    """Return f whose autodiff is -d, d `falling`: ``f(s) + d(s) (s - x)``, s the detached x.

    A -0 is added, so that -0 stays -0. Infinities' difference is NaN, whose sign is 0; that of 0
    is 0 too, and MXNet has a sign with derivative 1, the straight-through estimator. It is s that
    is detached, not f(s) and d(s): MXNet would differentiate these all the same, and multiply by 0
    at last.

    `autograd.Function` would say the same but cannot be hybridized
    (https://github.com/apache/mxnet/issues/17118).
    """

    @_in_float32
    def wrapped(x: Array) -> Array:
        if _in_place(x):
            return f(mx.nd, x.as_nd_ndarray()).as_np_ndarray()
        F, x = legacy_of(x), x.as_nd_ndarray()
        s = F.BlockGrad(x)
        zero = F.contrib.sign_ste(F.elemwise_sub(s, x))
        d = falling(s.as_np_ndarray()).as_nd_ndarray()
        return F.elemwise_add(f(F, s), F.elemwise_mul(d, zero)).as_np_ndarray()

    return wrapped


sigmoid = _joined(lambda F, x: F.sigmoid(x), lambda x: _bell(x, 1, -1))
# oneDNN's takes a tenth of the time of F.tanh in float32; its sigmoid is 0 from x = -87 on
tanh = _joined(lambda F, x: F.Activation(x, act_type="tanh"), lambda x: _bell(x, 2, -4))


def relu(x: Array) -> Array:
    return npx_of(x).relu(x)  # its own derivative is exact


def leaky_relu(x: Array, slope: float) -> Array:
    return x * detach(leaky_relu_gradient(x, slope))


_NATIVE: dict[str, Callable[[Array], Array]] = {
    "sigmoid": mx.npx.sigmoid,
    "tanh": mx.np.tanh,
    "relu": mx.npx.relu,
    "leaky_relu": lambda x: mx.npx.leaky_relu(x, act_type="leaky", slope=0.01),
}

# --- normalization ------------------------------------------------------------------------------


# Composed: MXNet's own layers hold eps and momentum in float32, change the running statistics in
# backward(), and are off by 0.3 (batch norm) and 5.5 (layer norm) at mean/std 1e6. Sums are
# products with ones, which are BLAS' and take a tenth of the time of MXNet's own sums, and so are
# their transposes, which spread a number over all that it is the mean of: the derivative of
# broadcasting is a sum.

Whole = tuple[int, int, int]
"""Sizes n, c, r of all that comes before the axes which have statistics, of these, and after."""


def _ones(x: Array, *shape: int) -> Array:
    context = None if isinstance(x, Symbol) else x.ctx
    return np_of(x).ones(shape, dtype=dtype_of(x), ctx=context)


def _rows(whole: Whole) -> tuple[int, int]:
    """Return the two axes that x is summed in."""
    n, c, r = whole
    return (n, c) if r == 1 < n else (n * c, r)


def _formed(x: Array, shape: tuple[int, ...], dtype: str) -> Array:
    """Return x in this shape and dtype; as it is where it is so, for MXNet would copy it."""
    x = x if shape_of(x) == shape else x.reshape(shape)
    return x if dtype_of(x) == dtype else x.astype(dtype)


def _mean_of(x: Array, whole: Whole) -> Array:
    """Return the mean (1, c) of x, of shape `_rows`."""
    F, (n, c, r) = np_of(x), whole
    x = x if r == 1 < n else F.dot(x, _ones(x, r, 1)).reshape((n, c))
    return (x if n == 1 else F.dot(_ones(x, 1, n), x)) / (n * r)


def _spread(v: Array, whole: Whole) -> Array:
    """Return v (1, c), repeated, in the shape `_rows`."""
    F, (n, c, r) = np_of(v), whole
    v = v if n == 1 else F.dot(_ones(v, n, 1), v)
    return v if r == 1 < n else F.dot(v.reshape((n * c, 1)), _ones(v, 1, r))


def _centred(x: Array, whole: Whole) -> tuple[Array, Array, Array, Array]:
    """Return x less its rounded mean, and what is left of the mean in it.

    Then the mean and the biased variance, all (1, c) and in float64. The first is in float32 at
    least, of shape `_rows`.
    """
    x = _formed(x, _rows(whole), "float64" if dtype_of(x) == "float64" else "float32")
    pivot = _mean_of(detach(x).astype("float64"), whole)
    c = x - _spread(detach(pivot).astype(dtype_of(x)), whole)
    wide = detach(c).astype("float64")
    rest = _exactly(_mean_of(c, whole), _mean_of(wide, whole))
    square = _exactly(_mean_of(c * c, whole), _mean_of(wide * wide, whole))
    return c, rest, pivot + rest, square - rest * rest  # rest is rounding: nothing cancels


def _exactly(x: Array, value: Array) -> Array:
    """Return the value with the derivative of x; x itself where that overflowed."""
    F, x = np_of(x), x.astype("float64")
    return F.where(F.isfinite(x), x + (value - detach(x)), x)


# --- streams ------------------------------------------------------------------------------------


class MxnetStream(Stream):
    """MXNet's one generator for all CPU contexts, seeded for each draw and then handed back.

    Its state cannot be read, so a token is drawn from it first and becomes its seed at last: our
    draws depend on our seed alone, and a program that seeds MXNet itself stays reproducible.
    A seed has 32 bits, 28 of them free: of n draws two are the same with probability n**2 / 2**29.
    """

    dtypes = ("float16", "float32", "float64")

    def __init__(self, seed: int, path: tuple[int, ...], context: Any) -> None:
        super().__init__(seed, path)
        self._context = context
        self._draws = 0

    def scope(self) -> AbstractContextManager[Any]:
        return _scope()

    def child(self, index: int, /) -> MxnetStream:
        return MxnetStream(self.seed, (*self.path, index), self._context)

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Seed the generator for the next draw, or for all draws of a graph."""
        if tracing():
            raise InvalidArgument(
                "MXNet cannot seed inside a compiled function; make the stream outside and pass it"
            )
        token = int(mx.nd.random.randint(0, 2**31 - 1, shape=(1,), ctx=self._context).asscalar())
        # seed s starts parallel generators with s, s + 1, ...: nearby seeds share their numbers
        mx.random.seed(16 * self.entropy(28, counter=self._draws), ctx=self._context)
        self._draws += 1
        try:
            yield
        finally:
            mx.random.seed(token, ctx=self._context)

    def _draw(self, law: str, low: float, high: float, shape: Any, dtype: str) -> Array:
        # np.random's float64 has 24 bits; nd.random's has 53, and its float32 normals are slow
        if dtype == "float64":
            random = mx.sym.random if tracing() else mx.nd.random
        else:
            random = mx.sym.np.random if tracing() else mx.np.random
        drawn = "float64" if dtype == "float64" else "float32"
        with self.seeded():
            x = getattr(random, law)(low, high, shape, drawn, ctx=self._context).as_np_ndarray()
        return x.astype(dtype) if dtype == "float16" else x

    def uniform(
        self,
        shape: tuple[int, ...],
        /,
        *,
        low: float = 0.0,
        high: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        x = self._draw("uniform", low, high, shape, dtype)
        return np_of(x).minimum(x, high, out=x if _in_place(x) else None)  # rounded past it

    def normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        if dtype == "float64":  # nd.random refuses std 0
            return self._draw("normal", 0.0, 1.0, shape, dtype) * std + mean
        return self._draw("normal", mean, std, shape, dtype)

    def truncated_normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        # by inversion, z = sqrt(2) erfinv(u), |u| <= erf(sqrt(2)), in float64, as float32 is coarse
        # near +-2; the factor keeps erfinv's rounding from reaching past 2
        bound = math.erf(math.sqrt(2.0)) * (1 - 2**-50)
        u = self._draw("uniform", -bound, bound, shape, "float64")
        return (npx_of(u).erfinv(u) * (math.sqrt(2.0) * std) + mean).astype(dtype)


class _ResumedStream(MxnetStream):
    """A stream inside a compiled function: the graph draws when it runs, seeded as a whole.

    So its second draw has not the bits of an eager second draw: no operator takes a seed.
    """

    @contextmanager
    def seeded(self) -> Iterator[None]:
        yield

    def child(self, index: int, /) -> MxnetStream:
        raise cannot_split()


# --- the adapter --------------------------------------------------------------------------------


def _context(device: str) -> Any:
    contexts = {"cpu": mx.cpu(), **{f"gpu:{k}": mx.gpu(k) for k in range(mx.context.num_gpus())}}
    if device not in contexts:
        raise InvalidArgument(
            f"device {device!r} does not exist here: mxnet has {', '.join(contexts)}"
        )
    return contexts[device]


def _leaf(x: Array) -> Array:
    """Return x as a variable of which a recorded result can be differentiated."""
    if isinstance(x, Symbol):
        raise InvalidArgument(
            "MXNet cannot differentiate inside a compiled function; differentiate outside: "
            "nx.value_and_gradient(nx.compile(f))"
        )
    leaf = x.detach()
    mx.autograd.mark_variables([leaf], [mx.np.empty(x.shape, dtype=x.dtype, ctx=x.ctx)])
    return leaf


def _gradient(leaf: Array) -> Array:
    """Return the gradient in a leaf, which is 0 where the result did not depend on it."""
    return synced(leaf.grad if leaf._fresh_grad else mx.np.zeros_like(leaf))


def _resumed(argument: Any) -> Any:
    if isinstance(argument, MxnetStream):
        return _ResumedStream(argument.seed, argument.path, argument._context)
    return argument


def _recorded(f: Callable[..., Array], *args: Any) -> Array:
    """Return f(*args) so that it can be differentiated even if it depends on no variable."""
    with mx.autograd.record():
        y = f(*args)
        return y - _leaf(mx.np.zeros((), dtype=y.dtype, ctx=y.ctx))  # a sum would lose -0


class MxnetBackend(Backend):
    """MXNet arrays, on the CPU or a GPU. Operators outside `scope` fail on arrays of shape ()."""

    name = "mxnet"
    framework = "mxnet"
    dtypes = ("float16", "float32", "float64")
    capabilities = frozenset({"compiled"})
    mutable = True
    expected_failures = {  # noqa: RUF012 - as the contract declares it
        "streams.global-state": "MXNet 1.9.1 has one generator for all CPU contexts and cannot "
        "read its state (https://github.com/apache/mxnet/issues/18922): a draw takes a number "
        "from it first and reseeds it with that at last, so a seeded program stays reproducible",
        "ops.infinite-sums": "MXNet 1.9.1 adds up with Kahan's compensation, inf - inf for an "
        "infinite sum (https://github.com/apache/mxnet/pull/17975)",
    }

    def __init__(self, *, device: str | None = None) -> None:
        self._context = _context(device or "cpu")
        self.ops = ops.bind(_table(self._context), self.scope)

    @property
    def version(self) -> str:
        return mx.__version__

    @property
    def device(self) -> str:
        kind, k = self._context.device_type, self._context.device_id
        return kind if kind == "cpu" else f"{kind}:{k}"

    def scope(self) -> AbstractContextManager[Any]:
        return _scope()

    def asarray(self, value: Any, /, *, dtype: str | None = None) -> Array:
        if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
            dtype = "float32"
        with np.errstate(over="ignore"):  # NumPy warns of what rounds to infinity
            value = np.array(value, dtype=dtype)
        return constant(mx.np.array(value, dtype=value.dtype, ctx=self._context))

    def adopt(self, value: np.ndarray, /, *, dtype: str) -> Array:
        if value.dtype != dtype:
            return self.asarray(value, dtype=dtype)
        x = mx.nd.from_numpy(value, zero_copy=True).as_np_ndarray()
        return constant(x.as_in_ctx(self._context))

    def to_numpy(self, x: Array, /) -> np.ndarray:
        return x.asnumpy()

    def is_array(self, x: object, /) -> bool:
        return isinstance(x, (mx.np.ndarray, Symbol))

    def dtype_of(self, x: Array, /) -> str:
        return dtype_of(x)

    def shape_of(self, x: Array, /) -> tuple[int, ...]:
        return shape_of(x)

    def stream(self, seed: int, /) -> MxnetStream:
        return MxnetStream(seed, (), self._context)

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
        x = _leaf(x)
        with mx.autograd.record():
            y = _NATIVE[activation](x)
        y.backward()
        return _gradient(x)

    # --- random matrix chains ---

    def chain_product(
        self, product: Array, factors: Array, /, *, rescale: bool = False
    ) -> tuple[Array, Array]:
        F = np_of(factors)
        log_scale = F.zeros_like(product[:, 0, 0])  # (batch,)
        for k in range(shape_of(factors)[0]):
            product = _matmul(product, factors[k])  # (batch, n, n)
            if rescale:
                c = F.max(F.abs(detach(product)), axis=(1, 2), keepdims=True)
                c = F.where(c > 0, c, F.ones_like(c))
                product = product / c
                log_scale = log_scale + F.log(c.reshape((-1,)))
        return product, log_scale

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
        shape, F = shape_of(x), np_of(x)
        axis %= len(shape)
        channels = tuple(-1 if k == axis else 1 for k in range(len(shape)))

        def wide(v: Array) -> Array:  # (channels,) -> (1, channels, 1, ...)
            return v.reshape(channels)

        if not training:
            z = (x - wide(mean)) / F.sqrt(wide(variance) + eps)
            return z * wide(scale) + wide(shift), mean, variance
        whole = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        c, rest, m, v = _centred(x, whole)
        factor = scale.reshape((1, -1)).astype("float64") / F.sqrt(v + eps)
        offset = shift.reshape((1, -1)).astype("float64") - rest * factor
        y = c * _spread(factor.astype(dtype_of(c)), whole)
        y = y + _spread(offset.astype(dtype_of(c)), whole)
        if running_variance == "unbiased":
            count = math.prod(shape) // shape[axis]
            v = v * (count / (count - 1))
        keep = momentum if momentum_weights == "running" else 1 - momentum
        running = [
            (keep * detach(old).astype("float64") + (1 - keep) * detach(new).reshape((-1,))).astype(
                dtype_of(old)
            )
            for old, new in ((mean, m), (variance, v))
        ]
        return _formed(y, shape, dtype_of(x)), *running

    def layer_norm(
        self, x: Array, scale: Array, shift: Array, /, *, axis: int = -1, eps: float = 1e-5
    ) -> Array:
        shape, F = shape_of(x), np_of(x)
        inner = math.prod(shape[axis % len(shape) :])
        whole = (1, math.prod(shape) // inner, inner)
        c, rest, _, v = _centred(x, whole)
        dtype, inverse = dtype_of(c), 1 / F.sqrt(v + eps)
        scale, shift = (a.reshape((1, -1)).astype(dtype) for a in (scale, shift))
        inverse, rest = (a.astype(dtype).reshape((-1, 1)) for a in (inverse, rest * inverse))
        # c inverse scale + shift - rest inverse scale
        left = F.concatenate([_ones(c, whole[1], 1), -rest], axis=1)
        y = c * F.dot(inverse, scale) + F.dot(left, F.concatenate([shift, scale], axis=0))
        return _formed(y, shape, dtype_of(x))

    # --- differentiation and compilation ---

    def value_and_gradient(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Any]]:
        f = checks.scalar_valued(self, f)

        def evaluate(parameters: Any, *args: Any) -> tuple[Array, Any]:
            named = parameters if isinstance(parameters, dict) else {"": parameters}
            with self.scope():
                leaves = {k: _leaf(p) for k, p in named.items()}
                value = _recorded(f, leaves if isinstance(parameters, dict) else leaves[""], *args)
                value.backward(retain_graph=True)  # or a pullback with the same constants fails
                gradient = {k: _gradient(leaf) for k, leaf in leaves.items()}
            return value.detach(), gradient if isinstance(parameters, dict) else gradient[""]

        return evaluate

    def vjp(self, f: Callable[[Array], Array], x: Array, /) -> tuple[Array, Callable[..., Array]]:
        x = _leaf(x)
        y = _recorded(f, x)

        def pullback(v: Array) -> Array:
            y.backward(v, retain_graph=True)
            return _gradient(x).copy()

        return y.detach(), pullback

    def compile(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        graphs: dict[Any, Graph] = {}

        def compiled(*args: Any) -> Any:
            if tracing():  # part of a larger graph
                return f(*args)
            checks.compilable(args)
            streams = [a for a in args if isinstance(a, MxnetStream)]
            if len(streams) > 1:
                raise InvalidArgument(
                    f"a compiled function takes at most one stream; received {len(streams)}; "
                    "draw outside from the others and pass the arrays"
                )
            with self.scope():
                signature = Graph.signature(args)
                if signature not in graphs:
                    graphs[signature] = Graph(f, tuple(map(_resumed, args)), self._context)
                with streams[0].seeded() if streams else nullcontext():
                    return graphs[signature](args)

        return compiled

    def all_finite(self, x: Array, /) -> bool:
        # a sum takes 4 to 8 times as long; this knows no empty array, and no float64 beyond float32
        quick = 0 not in x.shape and mx.nd.all_finite(x.as_nd_ndarray()).asscalar()
        return bool(quick) or super().all_finite(x)


# --- the vocabulary -----------------------------------------------------------------------------


def _word(name: str) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: getattr(np_of(x), name)(x, *args, **kwargs)


def _sign(x: Array) -> Array:
    F = np_of(x)
    return F.where(F.isnan(x), x, F.sign(x))  # MXNet: sign(nan) = 0


def _clip(x: Array, low: float, high: float) -> Array:
    F = np_of(x)
    return F.minimum(F.maximum(x, low), high)  # the bounds of its clip are float32


@_in_float32
def _tanh(x: Array) -> Array:
    return npx_of(x).activation(x, act_type="tanh")  # oneDNN's, a fifth of the time of np.tanh


# MXNet adds up one by one in x's dtype, 25 % off at 3e7 entries of float32; adding in float64
# takes no longer (https://github.com/apache/mxnet/issues/17143)


def _sum(x: Array, *, axis: Any, keepdims: bool) -> Array:
    return np_of(x).sum(x, axis, dtype="float64", keepdims=keepdims).astype(dtype_of(x))


def _mean(x: Array, *, axis: Any, keepdims: bool) -> Array:
    return np_of(x).mean(x, axis, keepdims=keepdims)


@_in_float32  # no float16 on the CPU: https://github.com/apache/mxnet/issues/12700
def _matmul(x1: Array, x2: Array) -> Array:
    F, batches = np_of(x1), [shape_of(x)[:-2] for x in (x1, x2)]
    if batches[0] != batches[1]:  # its gradient is wrong where an inner axis broadcasts
        batch = np.broadcast_shapes(*batches)
        x1, x2 = (F.broadcast_to(x, (*batch, *shape_of(x)[-2:])) for x in (x1, x2))
    return F.matmul(x1, x2)


@_in_float32
def _linear(x: Array, weight: Array) -> Array:
    shape = shape_of(x)
    rows = x if len(shape) == 2 else x.reshape((math.prod(shape[:-1]), shape[-1]))
    # legacy, but np's product of a transpose copies it, there and back
    F = legacy_of(x)
    y = F.dot(rows.as_nd_ndarray(), weight.as_nd_ndarray(), transpose_b=True).as_np_ndarray()
    return y if len(shape) == 2 else y.reshape((*shape[:-1], shape_of(weight)[0]))


@_in_float32
def _conv(x: Array, weight: Array, *, padding: int) -> Array:
    filters, _, *kernel = shape_of(weight)
    dtype = dtype_of(x)
    if dtype == "float32":
        # oneDNN, which does no other, lays weights out anew in place while others read them: those
        # of a view are wrong from the second call on, those within a loop now and then
        # (src/operator/nn/mkldnn/mkldnn_convolution.cc, after "For inference")
        x, weight = x.astype("float64"), weight.astype("float64")
    y = npx_of(x).convolution(
        x, weight, kernel=kernel, num_filter=filters, pad=[padding] * len(kernel), no_bias=True
    )
    return y.astype(dtype)


def _split(x: Array, sizes: Any, *, axis: int) -> tuple[Array, ...]:
    starts = [*itertools.accumulate(sizes)][:-1]
    return tuple(np_of(x).split(x, starts, axis)) if starts else (x,)


def _transposed(x: Array) -> Array:
    return np_of(x).swapaxes(x, -1, -2)


def _qr(x: Array) -> tuple[Array, Array]:
    # np.linalg.qr is NumPy's, without gradient; x^T = L Q' gives x = Q'^T L^T
    F = legacy_of(x)
    q, r = F.linalg.gelqf(_transposed(x).as_nd_ndarray())
    return synced(_transposed(q.as_np_ndarray())), synced(_transposed(r.as_np_ndarray()))


def _svd(x: Array) -> tuple[Array, Array, Array]:
    rows, columns = shape_of(x)[-2:]
    if rows <= columns:
        u, s, vh = np_of(x).linalg.svd(x)
        return u, synced(s), vh
    vt, s, ut = np_of(x).linalg.svd(_transposed(x))  # MXNet takes rows <= columns only
    return _transposed(ut), synced(s), _transposed(vt)


def _scan(step: Callable[[Any, Any], Any], carry: Any, xs: Any) -> tuple[Any, Array | None]:
    several = isinstance(xs, tuple)
    first = xs[0] if several else xs
    if isinstance(first, Symbol):
        return unrolled(step, carry, xs)
    ys = []
    for k in range(len(first)):
        carry, y = step(carry, tuple(part[k] for part in xs) if several else xs[k])
        ys.append(y)
    return carry, None if ys[0] is None else mx.np.stack(ys)


def _on_device(name: str, context: Any) -> Callable[..., Array]:
    def create(*args: Any, dtype: str) -> Array:
        F = mx.sym.np if tracing() else mx.np
        if (name, dtype) == ("arange", "float16"):  # all zeros otherwise
            return F.arange(*args, dtype="float32", ctx=context).astype(dtype)
        return getattr(F, name)(*args, dtype=dtype, ctx=context)

    return create


def _table(context: Any) -> dict[str, Callable[..., Any]]:
    return {
        "abs": _word("abs"),
        "exp": _word("exp"),
        "expm1": _word("expm1"),
        "log": _word("log"),
        "log1p": _word("log1p"),
        "sqrt": _word("sqrt"),
        "square": _word("square"),
        "sign": _sign,
        "tanh": _tanh,
        "maximum": _word("maximum"),
        "minimum": _word("minimum"),
        "clip": _clip,
        "where": _word("where"),
        "isfinite": _word("isfinite"),
        "isnan": _word("isnan"),
        "sum": _sum,
        "mean": _mean,
        "max": _word("max"),
        "min": _word("min"),
        "argmax": _word("argmax"),
        "all": _word("all"),
        "any": _word("any"),
        "matmul": _matmul,
        "linear": _linear,
        "qr": _qr,
        "svd": _svd,
        "conv": _conv,
        "reshape": _word("reshape"),
        "permute_dims": _word("transpose"),
        "expand_dims": _word("expand_dims"),
        "squeeze": _word("squeeze"),
        "concat": lambda arrays, axis: np_of(arrays[0]).concatenate(list(arrays), axis=axis),
        "stack": lambda arrays, axis: np_of(arrays[0]).stack(list(arrays), axis=axis),
        "split": _split,
        "broadcast_to": _word("broadcast_to"),
        "take": _word("take"),
        "zeros": _on_device("zeros", context),
        "ones": _on_device("ones", context),
        "full": _on_device("full", context),
        "eye": _on_device("eye", context),
        "arange": _on_device("arange", context),
        "zeros_like": _word("zeros_like"),
        "ones_like": _word("ones_like"),
        "astype": lambda x, dtype: x.astype(dtype),
        "stop_gradient": detach,
        "scan": _scan,
    }
