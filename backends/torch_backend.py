"""PyTorch, eager. Exact derivatives are autograd Functions that can be differentiated again.

`compile` returns the function: `torch.compile` is left out (see `TorchBackend.compile`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses

from isometry.common import checks, ops
from isometry.common.contract import Array, Backend
from isometry.common.errors import InvalidArgument
from isometry.common.streams import Stream

__all__ = ["TorchBackend"]

_DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def _in_float32(formula: Callable[..., Array]) -> Callable[..., Array]:
    """Apply a formula in float32 to half precision, rounding once at the end."""

    def wrapped(x: Array, *args: Any) -> Array:
        if x.dtype in (torch.float16, torch.bfloat16):
            return formula(x.float(), *args).to(x.dtype)
        return formula(x, *args)

    return wrapped


# --- activations: formula, then derivative, then the rule that joins them for autodiff ----------


class _Activation(torch.autograd.Function):
    """f(x) whose derivative is the given function, itself differentiable.

    Where f'' is f' times a simple function of f(x), its ratio, a second derivative goes that way.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Array, f: Callable[..., Array], derivative: Any, ratio: Any, *args: float
    ) -> Array:
        y = f(x, *args)
        ctx.save_for_backward(x, y)
        ctx.derivative, ctx.ratio, ctx.args, ctx.slope = derivative, ratio, args, None
        return y

    @staticmethod
    def backward(ctx: Any, g: Array) -> Any:
        x, y = ctx.saved_tensors
        if ctx.ratio and torch.is_grad_enabled():  # to be differentiated, once or many times
            if ctx.slope is None:
                with torch.no_grad():
                    ctx.slope = ctx.derivative(x, y)
            change = _Pulled.apply(g, x, y, ctx)
        elif ctx.slope is None:
            change = g * ctx.derivative(x, y, *ctx.args)
        else:
            change = g * ctx.slope
        return change, None, None, None, *(None for _ in ctx.args)


class _Pulled(torch.autograd.Function):
    """``g f'(x)``, of y = f(x): what it is multiplied by on the way back is computed once."""

    @staticmethod
    def forward(ctx: Any, g: Array, x: Array, y: Array, activation: Any) -> Array:
        slope = activation.slope
        change = g * slope
        ctx.save_for_backward(g, x, y, slope, change * activation.ratio(y))
        ctx.derivative, ctx.ratio = activation.derivative, activation.ratio
        return change

    @staticmethod
    def backward(ctx: Any, u: Array) -> Any:
        g, x, y, slope, bend = ctx.saved_tensors
        if torch.is_grad_enabled():
            slope = ctx.derivative(x, y)
            bend = g * slope * ctx.ratio(y)
        return u * slope, u * bend, None, None


def _joined(
    derivative: Callable[..., Array], ratio: Callable[[Array], Array] | None = None
) -> Callable[..., Callable[..., Array]]:
    """Tell PyTorch that f' is ``derivative(x, f(x), *args)``, and f'' maybe ``f' ratio(f(x))``."""

    def rule(f: Callable[..., Array]) -> Callable[..., Array]:
        def joined(x: Array, *args: Any) -> Array:
            if torch.is_grad_enabled() and x.requires_grad:
                return _Activation.apply(x, f, derivative, ratio, *args)
            return f(x, *args)

        return joined

    return rule


@_joined(lambda x, y: sigmoid_gradient(x), ratio=lambda y: 1 - 2 * y)
def sigmoid(x: Array) -> Array:
    return torch.sigmoid(x)


def _bell(x: Array, scale: float) -> Array:
    """Return y - y**2 of y = sigmoid(-scale |x|), which is at most 1/2: nothing cancels."""
    y = torch.abs(x).mul_(-scale).sigmoid_()
    return torch.addcmul(y, y, y, value=-1, out=y)


@_joined(lambda x, d: d * (1 - 2 * sigmoid(x)))
@_in_float32
def sigmoid_gradient(x: Array) -> Array:
    return _bell(x, 1)


def tanh(x: Array) -> Array:
    y = torch.tanh(x)
    if not (torch.is_grad_enabled() and x.requires_grad) or _small(y):
        return y  # PyTorch's derivative is 1 - y**2, of which nothing cancels
    return _Activation.apply(x, lambda _: y.detach(), lambda x, y: tanh_gradient(x), _tanh_ratio)


def _small(y: Array) -> bool:
    """Return whether no |y| exceeds 1/2; a GPU is not asked, as its answer would be waited for."""
    if y.device.type != "cpu" or not y.numel():
        return False
    return y.detach().abs().amax().item() <= 0.5


def _tanh_ratio(y: Array) -> Array:
    return -2 * y


@_joined(lambda x, d: d * _tanh_ratio(tanh(x)))
@_in_float32
def tanh_gradient(x: Array) -> Array:
    return _bell(x, 2).mul_(4)  # 1 / cosh(x)**2


@_joined(lambda x, y: relu_gradient(x))
def relu(x: Array) -> Array:
    return torch.relu(x)


def relu_gradient(x: Array) -> Array:
    return leaky_relu_gradient(x, 0.0)


@_joined(lambda x, y, slope: leaky_relu_gradient(x, slope))
def leaky_relu(x: Array, slope: float) -> Array:
    return torch.where(x <= 0, x * slope, x)


def leaky_relu_gradient(x: Array, slope: float) -> Array:
    one = torch.ones_like(x)
    return torch.where(torch.isnan(x), x.detach(), torch.where(x > 0, one, slope * one))


_NATIVE: dict[str, Callable[[Array], Array]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
}

# --- normalization ------------------------------------------------------------------------------

_LONG = 4096
"""With the channels last PyTorch adds up float32 rows in order, which loses digits in 20,000. From
this many rows on the channels go first, which takes about five times as long."""


def _normalized(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """Return x (batch, channels, ...) normalized, each channel's mean, and its unbiased variance.

    With momentum 1 what the layer calls running statistics are those of the batch.
    """
    rows = x.transpose(0, 1)  # (channels, batch, ...)
    long = x.stride(1) == 1 and x.numel() >= _LONG * len(rows)
    flat = rows.reshape(1, len(rows), -1) if long else x
    m, v = x.new_zeros(len(rows)), x.new_zeros(len(rows))
    y = F.batch_norm(flat, m, v, scale, shift, training=True, momentum=1.0, eps=eps)
    return (y.reshape(rows.shape).transpose(0, 1) if long else y), m, v


# --- differentiation ----------------------------------------------------------------------------


def _leaves(parameters: Any) -> tuple[Any, list[Array], Callable[[Sequence[Array]], Any]]:
    """Return the parameters to differentiate in, as given and as a list.

    And what gives arrays of a list the form of the parameters, each in memory of its own.
    """
    if not isinstance(parameters, dict):
        leaf = parameters.detach().requires_grad_()
        return leaf, [leaf], lambda found: _apart(found)[0]
    leaves = {k: p.detach().requires_grad_() for k, p in parameters.items()}
    named = list(leaves.values())
    return leaves, named, lambda found: dict(zip(leaves, _apart(found), strict=True))


def _pulled(
    ys: Sequence[Array], leaves: list[Array], vs: Sequence[Array | None] = (None,), **how: bool
) -> Sequence[Array]:
    """Return the sum of v^T J over ys, in each leaf; 0 in those that nothing depends on."""
    traced = [(y, v) for y, v in zip(ys, vs, strict=True) if y.requires_grad]
    if not traced:  # all are constants
        return [torch.zeros_like(leaf) for leaf in leaves]
    ys, vs = zip(*traced, strict=True)
    return torch.autograd.grad(ys, leaves, vs, materialize_grads=True, **how)


def _apart(arrays: Sequence[Array]) -> list[Array]:
    """Return each array in memory of its own: PyTorch's gradients may share it, or repeat it."""
    found, taken = [], set()
    for x in arrays:
        memory = x.untyped_storage()
        shares = memory.nbytes() < x.nbytes or memory.data_ptr() in taken
        found.append(x.clone() if shares else x)
        taken.add(memory.data_ptr())
    return found


def _hessian(f: Callable[[Any], Array], parameters: Any) -> Callable[[Any], Any]:
    given, leaves, formed = _leaves(parameters)
    gradient = _pulled([f(given)], leaves, create_graph=True)

    def product(vector: Any) -> Any:
        checks.same_paths(given, vector)
        vectors = [vector[k] for k in given] if isinstance(given, dict) else [vector]
        return formed(_pulled(gradient, leaves, vectors, retain_graph=True))  # H is symmetric

    return product


# --- streams ------------------------------------------------------------------------------------


class TorchStream(Stream):
    """A `torch.Generator` of its own: the default generator is not touched."""

    dtypes = tuple(_DTYPES)

    def __init__(self, seed: int, path: tuple[int, ...], device: torch.device) -> None:
        super().__init__(seed, path)
        self._device = device
        self._generator = torch.Generator(device).manual_seed(self.entropy(63))

    def child(self, index: int, /) -> TorchStream:
        return TorchStream(self.seed, (*self.path, index), self._device)

    def _empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        drawn = torch.float64 if dtype == "float64" else torch.float32
        return torch.empty(shape, dtype=drawn, device=self._device)

    def uniform(
        self,
        shape: tuple[int, ...],
        /,
        *,
        low: float = 0.0,
        high: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        x = self._empty(shape, dtype).uniform_(low, high, generator=self._generator)
        return x.to(_DTYPES[dtype])

    def normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        x = self._empty(shape, dtype).normal_(mean, std, generator=self._generator)
        return x.to(_DTYPES[dtype])

    def truncated_normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        # its bounds are absolute: drawn at std 1 they are +-2 std, and std 0 needs no exception
        x = self._empty(shape, dtype)
        torch.nn.init.trunc_normal_(x, 0.0, 1.0, -2.0, 2.0, generator=self._generator)
        return x.mul_(std).add_(mean).to(_DTYPES[dtype])


# --- the adapter --------------------------------------------------------------------------------


def _devices() -> list[str]:
    found = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


class TorchBackend(Backend):
    """PyTorch tensors, on the CPU or a GPU."""

    name = "torch"
    framework = "torch"
    dtypes = tuple(_DTYPES)
    capabilities = frozenset({"jvp", "hvp", "bfloat16"})
    mutable = True

    def __init__(self, *, device: str | None = None) -> None:
        try:
            self._device = torch.empty(0, device=device or "cpu").device
            if self._device.type == "cpu" and torch.device(device or "cpu").index:
                raise RuntimeError("torch takes cpu:99 for cpu")
        except (RuntimeError, AssertionError) as error:
            raise InvalidArgument(
                f"device {device!r} does not exist here: torch has {', '.join(_devices())}"
            ) from error
        self.ops = ops.bind(_table(self._device))

    @property
    def version(self) -> str:
        return torch.__version__

    @property
    def device(self) -> str:
        return str(self._device)

    def asarray(self, value: Any, /, *, dtype: str | None = None) -> Array:
        if isinstance(value, (np.ndarray, np.generic)):
            x = torch.from_numpy(np.array(value))
        else:
            x = torch.tensor(value, dtype=_DTYPES[dtype or "float32"], device=self._device)
        return x.to(device=self._device, dtype=_DTYPES[dtype] if dtype else x.dtype)

    def adopt(self, value: np.ndarray, /, *, dtype: str) -> Array:
        return torch.from_numpy(value).to(device=self._device, dtype=_DTYPES[dtype])

    def to_numpy(self, x: Array, /) -> np.ndarray:
        x = x.detach().cpu()
        return np.array((x.float() if x.dtype == torch.bfloat16 else x).numpy())

    def is_array(self, x: object, /) -> bool:
        return isinstance(x, torch.Tensor)

    def dtype_of(self, x: Array, /) -> str:
        return str(x.dtype).removeprefix("torch.")

    def stream(self, seed: int, /) -> TorchStream:
        return TorchStream(seed, (), self._device)

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
        x = x.detach().requires_grad_()
        return torch.autograd.grad(_NATIVE[activation](x).sum(), x)[0]

    # --- random matrix chains ---

    def chain_product(
        self, product: Array, factors: Array, /, *, rescale: bool = False
    ) -> tuple[Array, Array]:
        log_scale = torch.zeros(
            len(product), dtype=product.dtype, device=product.device
        )  # (batch,)
        for factor in factors:  # (batch, n, n)
            product = torch.matmul(product, factor)
            if rescale:
                c = product.detach().abs().amax(dim=(1, 2))
                c = torch.where(c > 0, c, torch.ones_like(c))
                product = product / c[:, None, None]
                log_scale = log_scale + torch.log(c)
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
        shape = x.shape
        x = torch.movedim(x, axis, 1) if len(shape) > 1 else x[None]  # (batch, channels, ...)
        axes = [k for k in range(x.ndim) if k != 1]

        def wide(v: Array) -> Array:  # (channels,) -> (1, channels, 1, ...)
            return v.reshape(1, -1, *[1] * (x.ndim - 2))

        if training:
            pivot = x.detach().mean(axes, keepdim=True)  # normalization is shift-invariant
            y, m, v = _normalized(x - pivot, scale, shift, eps)
            if running_variance == "biased":
                count = x.numel() // v.numel()
                v = v * ((count - 1) / count)
            keep = momentum if momentum_weights == "running" else 1 - momentum
            mean = keep * mean.detach() + (1 - keep) * (pivot.reshape(-1) + m)
            variance = keep * variance.detach() + (1 - keep) * v
        else:
            z = (x - wide(mean)) / torch.sqrt(wide(variance) + eps)
            y = z * wide(scale) + wide(shift)
        y = torch.movedim(y, 1, axis) if len(shape) > 1 else y[0]
        return y, mean, variance

    def layer_norm(
        self, x: Array, scale: Array, shift: Array, /, *, axis: int = -1, eps: float = 1e-5
    ) -> Array:
        axes = tuple(range(axis % x.ndim, x.ndim))
        pivot = x.detach().mean(axes, keepdim=True)  # normalization is shift-invariant
        return F.layer_norm(x - pivot, scale.shape, scale, shift, eps)

    # --- differentiation and compilation ---

    def value_and_gradient(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Any]]:
        f = checks.scalar_valued(self, f)

        def evaluate(parameters: Any, *args: Any) -> tuple[Array, Any]:
            given, leaves, formed = _leaves(parameters)
            value = f(given, *args)
            return value.detach(), formed(_pulled([value], leaves))

        return evaluate

    def vjp(self, f: Callable[[Array], Array], x: Array, /) -> tuple[Array, Callable[..., Array]]:
        x = x.detach().requires_grad_()
        y = f(x)
        return y.detach(), lambda v: _pulled([y], [x], [v], retain_graph=True)[0]

    def jvp(self, f: Callable[[Array], Array], x: Array, tangent: Array, /) -> tuple[Array, Array]:
        return torch.autograd.functional.jvp(f, x, tangent)

    def hvp(self, f: Callable[[Array], Array], x: Array, vector: Array, /) -> Array:
        return _hessian(f, x)(vector)

    def hessian(self, f: Callable[[Any], Array], parameters: Any, /) -> Callable[[Any], Any]:
        return _hessian(f, parameters)

    def compile(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        # torch.compile is left out: it needs a C++ compiler at run time, which the plain install
        # does not bring, and took 24 s for the first function and about 1 s for each further
        # function and shape (torch 2.13, 2 cores), against microseconds for what it would save
        return f

    # PyTorch's own take one number

    def axpy(self, x: Array, a: Any, y: Array, /) -> Array:
        if _several(a):
            return super().axpy(x, a, y)
        return (x.add_ if self.overwrites else x.add)(y, alpha=a)

    def addcmul(self, x: Array, a: Any, y: Array, z: Array, /) -> Array:
        if _several(a):
            return super().addcmul(x, a, y, z)
        return (x.addcmul_ if self.overwrites else x.addcmul)(y, z, value=a)

    def addcdiv(self, x: Array, a: Any, y: Array, z: Array, /) -> Array:
        if _several(a):
            return super().addcdiv(x, a, y, z)
        return (x.addcdiv_ if self.overwrites else x.addcdiv)(y, z, value=a)


def _several(a: Any) -> bool:
    return isinstance(a, torch.Tensor) and a.ndim > 0


# --- the vocabulary -----------------------------------------------------------------------------


def _scan(step: Callable[[Any, Any], Any], carry: Any, xs: Any) -> tuple[Any, Array | None]:
    ys = []
    for x in zip(*xs, strict=True) if isinstance(xs, tuple) else xs:
        carry, y = step(carry, x)
        ys.append(y)
    return carry, None if ys[0] is None else torch.stack(ys)


def _on_device(function: Callable[..., Array], device: torch.device) -> Callable[..., Array]:
    def create(*args: Any, dtype: str) -> Array:
        return function(*args, dtype=_DTYPES[dtype], device=device)

    return create


def _table(device: torch.device) -> dict[str, Callable[..., Any]]:
    return {
        "abs": torch.abs,
        "exp": torch.exp,
        "expm1": torch.expm1,
        "log": torch.log,
        "log1p": torch.log1p,
        "sqrt": torch.sqrt,
        "square": torch.square,
        "sign": lambda x: torch.where(torch.isnan(x), x, torch.sign(x)),  # torch: sign(nan) = 0
        "tanh": torch.tanh,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "clip": torch.clip,
        "where": torch.where,
        "isfinite": torch.isfinite,
        "isnan": torch.isnan,
        "sum": lambda x, axis, keepdims: torch.sum(x, axis, keepdims),
        "mean": lambda x, axis, keepdims: torch.mean(x, axis, keepdims),
        "max": lambda x, axis, keepdims: torch.amax(x, () if axis is None else axis, keepdims),
        "min": lambda x, axis, keepdims: torch.amin(x, () if axis is None else axis, keepdims),
        "argmax": torch.argmax,
        "all": lambda x, axis: torch.all(x) if axis is None else torch.all(x, axis),
        "any": lambda x, axis: torch.any(x) if axis is None else torch.any(x, axis),
        "matmul": torch.matmul,
        "linear": F.linear,
        "qr": torch.linalg.qr,
        "svd": lambda x: torch.linalg.svd(x, full_matrices=False),
        "conv": lambda x, w, padding: (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3](
            x, w, padding=padding
        ),
        "reshape": torch.reshape,
        "permute_dims": torch.permute,
        "expand_dims": lambda x, axis: torch.unsqueeze(x, axis),
        "squeeze": torch.squeeze,
        "concat": torch.concat,
        "stack": lambda arrays, axis: torch.stack(arrays, axis),
        "split": lambda x, sizes, axis: torch.split(x, list(sizes), axis),
        "broadcast_to": torch.broadcast_to,
        "take": lambda x, indices, axis: torch.index_select(x, axis, indices),
        "zeros": _on_device(torch.zeros, device),
        "ones": _on_device(torch.ones, device),
        "full": _on_device(torch.full, device),
        "eye": _on_device(torch.eye, device),
        "arange": _on_device(torch.arange, device),
        "zeros_like": torch.zeros_like,
        "ones_like": torch.ones_like,
        "astype": lambda x, dtype: x.to(_DTYPES[dtype]),
        "stop_gradient": torch.detach,
        "scan": _scan,
    }
