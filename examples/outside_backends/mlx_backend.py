"""MLX behind the contract of Isometry, as a stranger to the project would write it.

MLX's own functions are handed through as they are; what the suite finds in them is declared in
`mlx_failures.toml`. MLX has float64 on the CPU alone, so that is where everything here runs.
"""

import contextlib

import mlx.core as mx
import mlx.nn
import numpy as np

from isometry import Backend, InvalidArgument
from isometry.common import checks, ops
from isometry.common.streams import Stream, cannot_split

_DTYPES = {name: getattr(mx, name) for name in ("float16", "bfloat16", "float32", "float64")}
_DRAWN = dict.fromkeys(_DTYPES, mx.float32) | {"float64": mx.float64}


@contextlib.contextmanager
def _cpu(self):
    with mx.stream(mx.cpu):
        yield


class MlxStream(Stream):
    """A threefry key; each draw splits it into the next key and its own."""

    dtypes = tuple(_DTYPES)
    scope = _cpu

    def __init__(self, seed, path=()):
        super().__init__(seed, path)
        self.key = mx.array(np.array(divmod(self.entropy(64), 2**32), np.uint32))

    def child(self, index, /):
        if self.seed is None:  # while compiling
            raise cannot_split()
        return MlxStream(self.seed, (*self.path, index))

    def _next(self):
        self.key, key = mx.random.split(self.key)
        return key

    def uniform(self, shape, /, *, low=0.0, high=1.0, dtype="float32"):
        u = mx.random.uniform(shape=shape, key=self._next())  # float32: MLX refuses float64
        return mx.minimum(low + (high - low) * u.astype(_DRAWN[dtype]), high).astype(_DTYPES[dtype])

    def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
        z = mx.random.normal(shape, dtype=_DRAWN[dtype], key=self._next())
        return (mean + std * z).astype(_DTYPES[dtype])

    def truncated_normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
        z = mx.random.truncated_normal(-2.0, 2.0, shape, key=self._next())
        return (mean + std * z.astype(_DRAWN[dtype])).astype(_DTYPES[dtype])


class MlxBackend(Backend):
    """MLX arrays, on the CPU."""

    name = "mlx"
    framework = "mlx"
    dtypes = tuple(_DTYPES)
    capabilities = frozenset({"compiled", "jvp", "hvp", "bfloat16"})
    mutable = True
    device = "cpu"
    scope = _cpu

    def __init__(self, *, device=None):
        if device not in (None, "cpu"):
            raise InvalidArgument(f"device {device!r} does not exist here: use cpu")
        self.ops = ops.bind(_TABLE, self.scope)

    def asarray(self, value, /, *, dtype=None):
        if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
            dtype = "float32"
        value = np.asarray(value)
        return mx.array(value, dtype=_DTYPES.get(dtype or value.dtype.name))

    def to_numpy(self, x, /):
        return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x)

    def is_array(self, x, /):
        return isinstance(x, mx.array)

    def dtype_of(self, x, /):
        return str(x.dtype).removeprefix("mlx.core.")

    def stream(self, seed, /):
        return MlxStream(seed)

    def native_gradient(self, activation, x, /):
        f = mx.tanh if activation == "tanh" else getattr(mlx.nn, activation)
        return mx.grad(lambda x: mx.sum(f(x)))(x)

    def value_and_gradient(self, f, /):
        return self.scope()(mx.value_and_grad(checks.scalar_valued(self, f)))

    def jvp(self, f, x, tangent, /):
        (y,), (change,) = mx.jvp(f, [x], [tangent])
        return y, change

    def hvp(self, f, x, vector, /):
        return mx.jvp(mx.grad(f), [x], [vector])[1][0]

    def compile(self, f, /):
        @mx.compile
        def traced(at, *args):  # streams go in and come out as their keys
            streams = {k: MlxStream(0) for k in at}
            for k, stream in streams.items():
                stream.seed, stream.key = None, args[k]
            y = f(*(streams.get(k, a) for k, a in enumerate(args)))
            return y, [stream.key for stream in streams.values()]

        @self.scope()
        def compiled(*args):
            checks.compilable(args)
            at = tuple(k for k, a in enumerate(args) if isinstance(a, MlxStream))
            y, keys = traced(at, *(a.key if k in at else a for k, a in enumerate(args)))
            for k, key in zip(at, keys, strict=True):
                args[k].key = key
            return y

        return compiled


def _conv(x, weight, *, padding):
    y = mx.conv_general(mx.moveaxis(x, 1, -1), mx.moveaxis(weight, 1, -1), padding=padding)
    return mx.moveaxis(y, -1, 1)


def _svd(x):
    u, s, vh = mx.linalg.svd(x)  # square, also of a matrix that is not
    return u[..., : s.shape[-1]], s, vh[..., : s.shape[-1], :]


def _scan(step, carry, xs):
    ys = []
    for x in zip(*xs, strict=True) if isinstance(xs, tuple) else xs:
        carry, y = step(carry, x)
        ys.append(y)
    return carry, None if ys[0] is None else mx.stack(ys)


def _create(function):
    return lambda *args, dtype: function(*args, dtype=_DTYPES[dtype])


_TABLE = {
    **{word: getattr(mx, word) for word in ops.VOCABULARY if hasattr(mx, word)},
    **{word: _create(getattr(mx, word)) for word in ("zeros", "ones", "full", "eye", "arange")},
    "sign": lambda x: mx.where(mx.isnan(x), x, mx.sign(x)),  # MLX: sign(nan) = 0
    "argmax": lambda x, axis: mx.argmax(x, axis=axis).astype(mx.int32),
    "astype": lambda x, dtype: x.astype(_DTYPES[dtype]),
    "linear": lambda x, weight: x @ weight.T,
    "split": lambda x, sizes, axis: tuple(mx.split(x, np.cumsum(sizes)[:-1].tolist(), axis)),
    **{"conv": _conv, "qr": mx.linalg.qr, "svd": _svd, "scan": _scan},
}
