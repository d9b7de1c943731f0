"""MXNet 1.9.1: `mx.np` arrays on an asynchronous engine, and graphs made by `hybridize`.

MXNet was retired in 2023; :mod:`isometry.backends.mxnet_compat` holds what it needs to be imported
today. One formula serves arrays and the symbols that stand for them in a graph: ``F = _np(x)`` is
`mx.np` for the one and `mx.sym.np` for the other, as in Gluon's ``hybrid_forward(self, F, x)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np

from isometry.backends.mxnet_compat import load_mxnet
from isometry.common import checks, ops
from isometry.common.contract import Array, Backend
from isometry.common.errors import InvalidArgument
from isometry.common.streams import Stream

__all__ = ["MxnetBackend"]

mx = load_mxnet()
_Symbol = mx.sym.np._Symbol

# Set while a function is traced: arrays that it made from NumPy's, as named inputs of its graph.
_CONSTANTS: ContextVar[dict[str, Array] | None] = ContextVar("_CONSTANTS", default=None)


@contextmanager
def _numpy_semantics() -> Iterator[None]:
    """Allow shapes () and sizes 0, and return `mx.np` arrays; MXNet keeps both flags by thread."""
    with mx.util.np_shape(True), mx.util.np_array(True):
        yield


def _tracing() -> bool:
    return _CONSTANTS.get() is not None


def _np(x: Array) -> Any:
    return mx.sym.np if isinstance(x, _Symbol) else mx.np


def _npx(x: Array) -> Any:
    return mx.sym.npx if isinstance(x, _Symbol) else mx.npx


def _shape(x: Array) -> tuple[int, ...]:
    return tuple(x.infer_shape()[1][0] if isinstance(x, _Symbol) else x.shape)


def _dtype(x: Array) -> str:
    return np.dtype(x.infer_type()[1][0] if isinstance(x, _Symbol) else x.dtype).name


def _detach(x: Array) -> Array:
    if isinstance(x, _Symbol):
        return mx.sym.BlockGrad(x.as_nd_ndarray()).as_np_ndarray()
    return x.detach()


def _in_float32(formula: Callable[..., Array]) -> Callable[..., Array]:
    """Apply a formula in float32 to half precision, rounding once at the end."""

    def wrapped(x: Array, *args: Any, **kwargs: Any) -> Array:
        if _dtype(x) != "float16":
            return formula(x, *args, **kwargs)
        wide = [a.astype("float32") if isinstance(a, type(x)) else a for a in (x, *args)]
        return formula(*wide, **kwargs).astype("float16")

    return wrapped


# --- activations: formula, then derivative, then the rule that joins them for autodiff ----------


def _in_place(x: Array) -> bool:
    return not (isinstance(x, _Symbol) or mx.autograd.is_recording())


@_in_float32
def sigmoid_gradient(x: Array) -> Array:
    F = _np(x)
    e = F.abs(x)
    if not _in_place(x):
        e = F.exp(-e)
        return e / (1 + e * (2 + e))
    e *= -1
    F.exp(e, out=e)
    denominator = e + 2
    denominator *= e
    denominator += 1  # (1 + e)**2
    e /= denominator
    return e


@_in_float32
def tanh_gradient(x: Array) -> Array:
    F = _np(x)
    E = F.abs(x)
    if not _in_place(x):
        E = F.exp(2 * E)
        return 4 / (E + (2 + 1 / E))
    E *= 2
    F.exp(E, out=E)
    denominator = 1 / E
    denominator += 2
    denominator += E  # (2 cosh x)**2
    return 4 / denominator


def relu_gradient(x: Array) -> Array:
    return leaky_relu_gradient(x, 0.0)


def leaky_relu_gradient(x: Array, slope: float) -> Array:
    F = _np(x)
    one = F.ones_like(x)
    return F.where(F.isnan(x), x, F.where(x > 0, one, slope * one))


def _joined(f: Callable[[Array], Array], derivative: Callable[[Array], Array]) -> Any:
    """Return f whose autodiff is `derivative`: ``y = f(x) + f'(x) (s - s)``, the last s detached.

    `autograd.Function` would say the same but cannot be hybridized
    (https://github.com/apache/mxnet/issues/17118).
    """

    @_in_float32
    def wrapped(x: Array) -> Array:
        if _in_place(x):
            return f(x)
        s = _np(x).clip(x, -1e3, 1e3)  # the derivatives are 0 beyond, and inf - inf would be NaN
        return _detach(f(x)) + _detach(derivative(x)) * (s - _detach(s))

    return wrapped


sigmoid = _joined(lambda x: _npx(x).sigmoid(x), sigmoid_gradient)
tanh = _joined(lambda x: _np(x).tanh(x), tanh_gradient)


def relu(x: Array) -> Array:
    return _npx(x).relu(x)  # its own derivative is exact


def leaky_relu(x: Array, slope: float) -> Array:
    return x * _detach(leaky_relu_gradient(x, slope))


_NATIVE = {
    "sigmoid": mx.npx.sigmoid,
    "tanh": mx.np.tanh,
    "relu": mx.npx.relu,
    "leaky_relu": lambda x: mx.npx.leaky_relu(x, act_type="leaky", slope=0.01),
}

# --- normalization ------------------------------------------------------------------------------


def _centred(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return x minus its mean, the mean, and the biased variance; a rounded mean goes first.

    Composed: MXNet's own layers hold eps and momentum in float32 and change the running
    statistics in backward(), and the gradient of its `var` is zero.
    """
    pivot = _mean(_detach(x), axis=axes, keepdims=True)
    c = x - pivot
    correction = _mean(c, axis=axes, keepdims=True)
    c = c - correction
    return c, pivot + correction, _mean(c * c, axis=axes, keepdims=True)


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
        return _numpy_semantics()

    def child(self, index: int, /) -> MxnetStream:
        return MxnetStream(self.seed, (*self.path, index), self._context)

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Seed the generator for the next draw, or for all draws of a graph, as its caller does."""
        if _tracing():
            yield
            return
        token = int(mx.nd.random.randint(0, 2**31 - 1, shape=(1,), ctx=self._context).asscalar())
        # seed s starts parallel generators with s, s + 1, ...: nearby seeds share their numbers
        mx.random.seed(16 * self.entropy(28, counter=self._draws), ctx=self._context)
        self._draws += 1
        try:
            yield
        finally:
            mx.random.seed(token, ctx=self._context)

    def _drawn(self, law: str, low: float, high: float, shape: Any, dtype: str) -> Array:
        # np.random's float64 has 24 bits; nd.random's has 53, and its float32 normals are slow
        if dtype == "float64":
            random = mx.sym.random if _tracing() else mx.nd.random
        else:
            random = mx.sym.np.random if _tracing() else mx.np.random
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
        x = self._drawn("uniform", low, high, shape, dtype)
        return _np(x).minimum(x, high)  # rounding may have gone past it

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
            return self._drawn("normal", 0.0, 1.0, shape, dtype) * std + mean
        return self._drawn("normal", mean, std, shape, dtype)

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
        u = self._drawn("uniform", -bound, bound, shape, "float64")
        return (_npx(u).erfinv(u) * (math.sqrt(2.0) * std) + mean).astype(dtype)


# --- graphs -------------------------------------------------------------------------------------


def _variable(name: str, x: Array) -> Array:
    return mx.sym.var(name, shape=x.shape, dtype=x.dtype).as_np_ndarray()


def _constant(x: Array, constants: dict[str, Array]) -> Array:
    name = f"constant{len(constants)}"
    constants[name] = x
    return _variable(name, x)


def _named(arguments: tuple[Any, ...]) -> dict[str, Array]:
    """Return the arrays among the arguments of a compiled function by name."""
    arrays: dict[str, Array] = {}
    for k, argument in enumerate(arguments):
        if isinstance(argument, dict):
            arrays |= {f"argument{k}.{key}": x for key, x in argument.items()}
        elif not isinstance(argument, MxnetStream):
            arrays[f"argument{k}"] = argument
    for name, x in arrays.items():
        if not isinstance(x, mx.np.ndarray):
            raise InvalidArgument(
                f"a compiled function takes arrays, flat dictionaries of arrays and a native "
                f"stream of backend 'mxnet'; received {x!r} as {name}"
            )
    return arrays


def _replaced(arguments: tuple[Any, ...], symbols: dict[str, Array]) -> Iterator[Any]:
    for k, argument in enumerate(arguments):
        if isinstance(argument, dict):
            yield {key: symbols[f"argument{k}.{key}"] for key in argument}
        elif isinstance(argument, MxnetStream):
            yield MxnetStream(argument.seed, argument.path, argument._context)
        else:
            yield symbols[f"argument{k}"]


class _Graph:
    """A function traced with symbols and hybridized, for arguments of given shapes and dtypes."""

    def __init__(self, f: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._constants: dict[str, Array] = {}
        arrays = _named(arguments)
        token = _CONSTANTS.set(self._constants)
        try:
            symbols = {name: _variable(name, x) for name, x in arrays.items()}
            result = f(*_replaced(arguments, symbols))
            outputs = list(result) if isinstance(result, tuple) else [result]
            self._outputs = len(result) if isinstance(result, tuple) else None
            self._inputs = sorted({name for y in outputs for name in y.list_inputs()})
            if not self._inputs:  # draws alone; but a block has an input
                outputs.append(_constant(mx.np.zeros(1), self._constants))
                self._inputs = [outputs[-1].name]
        finally:
            _CONSTANTS.reset(token)
        values = arrays | self._constants
        self._block = mx.gluon.SymbolBlock(
            outputs, [_variable(name, values[name]) for name in self._inputs]
        )
        self._block.hybridize()

    def __call__(self, arguments: tuple[Any, ...]) -> Any:
        values = _named(arguments) | self._constants
        y = self._block(*(values[name] for name in self._inputs))
        ys = tuple(map(_synced, y if isinstance(y, (list, tuple)) else [y]))
        return ys[0] if self._outputs is None else ys[: self._outputs]


# --- the adapter --------------------------------------------------------------------------------


def _context(device: str) -> Any:
    contexts = {"cpu": mx.cpu(), **{f"gpu:{k}": mx.gpu(k) for k in range(mx.context.num_gpus())}}
    found = contexts.get({"cpu:0": "cpu", "gpu": "gpu:0"}.get(device, device))
    if found is None:
        raise InvalidArgument(
            f"device {device!r} does not exist here: mxnet has {', '.join(contexts)}"
        )
    return found


def _synced(x: Array) -> Array:
    """Return x once it is computed: the engine's errors surface here, not at some later call."""
    if not isinstance(x, _Symbol):
        x.wait_to_read()
    return x


def _leaf(x: Array) -> Array:
    """Return x as a variable of which a recorded result can be differentiated."""
    if isinstance(x, _Symbol):
        raise InvalidArgument(
            "MXNet cannot differentiate inside a compiled function; differentiate outside: "
            "nx.value_and_gradient(nx.compile(f))"
        )
    leaf = x.detach()
    leaf.attach_grad()
    return leaf


def _recorded(f: Callable[..., Array], *args: Any) -> Array:
    """Return f(*args) so that it can be differentiated even if it depends on no variable."""
    with mx.autograd.record():
        y = f(*args)
        return y + _leaf(mx.np.zeros((), dtype=y.dtype, ctx=y.ctx))


class MxnetBackend(Backend):
    """MXNet arrays, on the CPU or a GPU. Operators outside `scope` fail on arrays of shape ()."""

    name = "mxnet"
    framework = "mxnet"
    dtypes = ("float16", "float32", "float64")
    capabilities = frozenset({"compiled"})
    expected_failures = {  # noqa: RUF012 - as the contract declares it
        "streams.global-state": "MXNet 1.9.1 has one generator for all CPU contexts and cannot "
        "read its state (https://github.com/apache/mxnet/issues/18922): a draw takes a number "
        "from it first and reseeds it with that at last, so a seeded program stays reproducible"
    }

    def __init__(self, *, device: str | None = None) -> None:
        self._context = _context(device or "cpu")
        self.ops = ops.bind(self._table(), self.scope)

    @property
    def version(self) -> str:
        return mx.__version__

    @property
    def device(self) -> str:
        kind, k = self._context.device_type, self._context.device_id
        return kind if kind == "cpu" else f"{kind}:{k}"

    def scope(self) -> AbstractContextManager[Any]:
        return _numpy_semantics()

    def asarray(self, value: Any, /, *, dtype: str | None = None) -> Array:
        given = isinstance(value, (np.ndarray, np.generic))
        value = np.array(value, dtype=dtype or (value.dtype if given else "float32"))
        x = mx.np.array(value, dtype=value.dtype, ctx=self._context)
        constants = _CONSTANTS.get()
        return x if constants is None else _constant(x, constants)

    def to_numpy(self, x: Array, /) -> np.ndarray:
        with self.scope():
            return x.asnumpy()

    def is_array(self, x: object, /) -> bool:
        return isinstance(x, (mx.np.ndarray, _Symbol))

    def dtype_of(self, x: Array, /) -> str:
        with self.scope():
            return _dtype(x)

    def shape_of(self, x: Array, /) -> tuple[int, ...]:
        with self.scope():
            return _shape(x)

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
        return _synced(x.grad)

    # --- random matrix chains ---

    def chain_product(
        self, product: Array, factors: Array, /, *, rescale: bool = False
    ) -> tuple[Array, Array]:
        F = _np(factors)
        log_scale = F.zeros_like(product[:, 0, 0])  # (batch,)
        for k in range(_shape(factors)[0]):
            product = _matmul(product, factors[k])  # (batch, n, n)
            if rescale:
                c = F.max(F.abs(_detach(product)), axis=(1, 2), keepdims=True)
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
        shape, F = _shape(x), _np(x)
        axis %= len(shape)
        axes = tuple(k for k in range(len(shape)) if k != axis)
        channels = tuple(-1 if k == axis else 1 for k in range(len(shape)))

        def wide(v: Array) -> Array:  # (channels,) -> (1, channels, 1, ...)
            return v.reshape(channels)

        if not training:
            z = (x - wide(mean)) / F.sqrt(wide(variance) + eps)
            return z * wide(scale) + wide(shift), mean, variance
        c, m, v = _centred(x, axes)
        y = c / F.sqrt(v + eps) * wide(scale) + wide(shift)
        if running_variance == "unbiased":
            count = math.prod(shape) // shape[axis]
            v = v * (count / (count - 1))
        keep = momentum if momentum_weights == "running" else 1 - momentum
        mean = keep * _detach(mean) + (1 - keep) * _detach(m).reshape((-1,))
        variance = keep * _detach(variance) + (1 - keep) * _detach(v).reshape((-1,))
        return y, mean, variance

    def layer_norm(
        self, x: Array, scale: Array, shift: Array, /, *, axis: int = -1, eps: float = 1e-5
    ) -> Array:
        rank = len(_shape(x))
        c, _, v = _centred(x, tuple(range(axis % rank, rank)))
        return c / _np(x).sqrt(v + eps) * scale + shift

    # --- differentiation and compilation ---

    def value_and_gradient(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Any]]:
        def evaluate(parameters: Any, *args: Any) -> tuple[Array, Any]:
            named = parameters if isinstance(parameters, dict) else {"": parameters}
            with self.scope():
                leaves = {k: _leaf(p) for k, p in named.items()}
                value = _recorded(f, leaves if isinstance(parameters, dict) else leaves[""], *args)
                if value.shape != ():
                    raise InvalidArgument(
                        f"f must return a scalar array, of shape (); received {value.shape}"
                    )
                value.backward()
                gradient = {k: _synced(leaf.grad) for k, leaf in leaves.items()}
            return value.detach(), gradient if isinstance(parameters, dict) else gradient[""]

        return evaluate

    def vjp(self, f: Callable[[Array], Array], x: Array, /) -> tuple[Array, Callable[..., Array]]:
        x = _leaf(x)
        y = _recorded(f, x)

        def pullback(v: Array) -> Array:
            with self.scope():
                y.backward(v, retain_graph=True)
                return _synced(x.grad.copy())

        return y.detach(), pullback

    def compile(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        graphs: dict[Any, _Graph] = {}

        def compiled(*arguments: Any) -> Any:
            if _tracing():  # part of a larger graph
                return f(*arguments)
            checks.compilable(arguments)
            with self.scope():
                streams = [a for a in arguments if isinstance(a, MxnetStream)]
                if len(streams) > 1:
                    raise InvalidArgument(
                        f"a compiled function takes at most one stream; received {len(streams)}"
                    )
                signature = tuple((k, x.shape, x.dtype) for k, x in _named(arguments).items())
                if signature not in graphs:
                    graphs[signature] = _Graph(f, arguments)
                with streams[0].seeded() if streams else nullcontext():
                    return graphs[signature](arguments)

        return compiled

    # --- the vocabulary ---

    def _table(self) -> dict[str, Callable[..., Any]]:
        def create(name: str) -> Callable[..., Array]:
            def on_device(*args: Any, dtype: str) -> Array:
                F = mx.sym.np if _tracing() else mx.np
                return getattr(F, name)(*args, dtype=dtype, ctx=self._context)

            return on_device

        return {
            **{name: _word(name) for name in _SAME},
            **{name: create(name) for name in ("zeros", "ones", "full", "eye", "arange")},
            "sign": lambda x: _np(x).where(_np(x).isnan(x), x, _np(x).sign(x)),  # not 0 at NaN
            "clip": _clip,
            "sum": _sum,
            "mean": _mean,
            "matmul": _matmul,
            "qr": _qr,
            "svd": _svd,
            "conv": _conv,
            "permute_dims": _word("transpose"),
            "concat": lambda arrays, axis: _np(arrays[0]).concatenate(list(arrays), axis=axis),
            "stack": lambda arrays, axis: _np(arrays[0]).stack(list(arrays), axis=axis),
            "astype": lambda x, dtype: x.astype(dtype),
            "stop_gradient": _detach,
            "scan": _scan,
        }


_SAME = (
    *("abs", "exp", "expm1", "log", "log1p", "sqrt", "square", "tanh", "maximum", "minimum"),
    *("where", "isfinite", "isnan", "max", "min", "argmax", "all", "any", "reshape"),
    *("expand_dims", "squeeze", "broadcast_to", "take", "zeros_like", "ones_like"),
)


def _word(name: str) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: getattr(_np(x), name)(x, *args, **kwargs)


def _clip(x: Array, low: float, high: float) -> Array:
    F = _np(x)
    return F.minimum(F.maximum(x, low), high)  # the bounds of its clip are float32


# MXNet adds up one by one in x's dtype, 25 % off at 3e7 entries of float32; adding in float64
# takes no longer (https://github.com/apache/mxnet/issues/17143)


def _sum(x: Array, *, axis: Any, keepdims: bool) -> Array:
    return _np(x).sum(x, axis, dtype="float64", keepdims=keepdims).astype(_dtype(x))


def _mean(x: Array, *, axis: Any, keepdims: bool) -> Array:
    return _np(x).mean(x, axis, dtype="float64", keepdims=keepdims).astype(_dtype(x))


@_in_float32  # no float16 on the CPU: https://github.com/apache/mxnet/issues/12700
def _matmul(x1: Array, x2: Array) -> Array:
    return _np(x1).matmul(x1, x2)


@_in_float32
def _conv(x: Array, weight: Array, *, padding: int) -> Array:
    filters, _, *kernel = _shape(weight)
    return _npx(x).convolution(
        x, weight, kernel=kernel, num_filter=filters, pad=[padding] * len(kernel), no_bias=True
    )


def _transposed(x: Array) -> Array:
    return _np(x).swapaxes(x, -1, -2)


def _qr(x: Array) -> tuple[Array, Array]:
    # np.linalg.qr is NumPy's, without gradient; x^T = L Q' gives x = Q'^T L^T
    F = mx.sym if isinstance(x, _Symbol) else mx.nd
    q, r = F.linalg.gelqf(_transposed(x).as_nd_ndarray())
    return _synced(_transposed(q.as_np_ndarray())), _synced(_transposed(r.as_np_ndarray()))


def _svd(x: Array) -> tuple[Array, Array, Array]:
    rows, columns = _shape(x)[-2:]
    if rows <= columns:
        u, s, vh = _np(x).linalg.svd(x)
        return u, _synced(s), vh
    vt, s, ut = _np(x).linalg.svd(_transposed(x))  # MXNet takes rows <= columns only
    return _transposed(ut), _synced(s), _transposed(vt)


def _scan(step: Callable[[Any, Any], Any], carry: Any, xs: Array) -> tuple[Any, Array]:
    if isinstance(xs, _Symbol):
        return _foreach(step, carry, xs)
    ys = []
    for k in range(len(xs)):
        carry, y = step(carry, xs[k])
        ys.append(y)
    return carry, mx.np.stack(ys)


def _foreach(step: Callable[[Any, Any], Any], carry: Any, xs: Array) -> tuple[Any, Array]:
    """Return `scan` as a node of a graph: its body is traced once, whatever the length."""
    several = isinstance(carry, tuple)
    start = carry if several else (carry,)

    def known(x: Array, shape: tuple[int, ...], dtype: str) -> Array:
        code = mx.nd.ndarray._DTYPE_NP_TO_MX[np.dtype(dtype).type]
        x._set_attr(__shape__=str(shape), __dtype__=str(code))
        return x.as_np_ndarray()

    def body(x: Array, states: list[Array]) -> tuple[list[Array], list[Array]]:
        x = known(x, _shape(xs)[1:], _dtype(xs))
        states = [known(s, _shape(c), _dtype(c)) for s, c in zip(states, start, strict=True)]
        carry, y = step(tuple(states) if several else states[0], x)
        states_out = carry if several else (carry,)
        # foreach knows no outputs of shape (), and insists that each input be used
        used = {name for z in (y, *states_out) for name in z.list_inputs()}
        unused = [z.reshape((-1,))[:1] for z in (x, *states) if z.name not in used]
        ys = [mx.sym.np.expand_dims(y, 0), *unused]
        return [z.as_nd_ndarray() for z in ys], [z.as_nd_ndarray() for z in states_out]

    ys, states = mx.sym.contrib.foreach(
        body, xs.as_nd_ndarray(), [c.as_nd_ndarray() for c in start]
    )
    states = tuple(s.as_np_ndarray() for s in states)
    return states if several else states[0], mx.sym.np.squeeze(ys[0].as_np_ndarray(), 1)
