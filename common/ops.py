"""The vocabulary of backend-free code: `nx.ops`, one list of names, signatures and meanings.

What `common/` computes with a backend's arrays it computes with Python operators and these
functions. Each means what the Python Array API standard (2024.12) means by its name, unless its
docstring says otherwise. An adapter supplies a table, name -> the framework's function, and
`bind` turns it into a namespace with exactly the signatures below; arguments arrive as written
here (keyword-only ones always by keyword, with their default when omitted), dtypes as their names.
Where the framework has a function of that name, signature and meaning, the entry is the function.

exp, expm1, log, log1p, sqrt and tanh, the framework's own, err by at most 8 ULP (``TANH_ULP`` of
`isometry.common.statistics.tolerances`) where argument and result are normal numbers, and by
``ACTIVATION_ULP`` at common arguments. Sums and products (sum, mean, matmul, linear, conv, scan)
are rounded in the dtype of their arguments, float32 or float64, never more coarsely: within
``gamma_n sum |a| |b|`` for n roundings (Higham 2002, lemma 3.1). qr and svd are right to
``30 max(m, n) eps ||A||``. All others are exact.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

from isometry.common.errors import IsometryError

__all__ = ["VOCABULARY", "bind"]

Array = Any
Shape = tuple[int, ...]
Axis = int | tuple[int, ...] | None

VOCABULARY: dict[str, Callable[..., Any]] = {}


def _word(stub: Callable[..., Any]) -> Callable[..., Any]:
    VOCABULARY[stub.__name__] = stub
    return stub


def bind(
    table: Mapping[str, Callable[..., Any]],
    scope: Callable[[], AbstractContextManager[Any]] | None = None,
) -> SimpleNamespace:
    """Return the namespace `nx.ops` of an adapter's table; names must match VOCABULARY exactly.

    Parameters
    ----------
    table : mapping of str to callable
        The framework's function for each word.
    scope : callable, optional
        Context manager to enter around each call, for frameworks that need one to keep float64.
    """
    missing, extra = VOCABULARY.keys() - table.keys(), table.keys() - VOCABULARY.keys()
    if missing or extra:
        raise IsometryError(
            f"ops table does not match the vocabulary: missing {sorted(missing)}, "
            f"unknown {sorted(extra)}"
        )
    return SimpleNamespace(
        **{name: _bound(stub, table[name], scope) for name, stub in VOCABULARY.items()}
    )


def _bound(
    stub: Callable[..., Any],
    function: Callable[..., Any],
    scope: Callable[[], AbstractContextManager[Any]] | None,
) -> Callable[..., Any]:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(stub).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
    }

    @functools.wraps(stub)
    def op(*args: Any, **kwargs: Any) -> Any:
        if scope is None:
            return function(*args, **{**defaults, **kwargs})
        with scope():
            return function(*args, **{**defaults, **kwargs})

    return op


# --- elementwise ------------------------------------------------------------------------------


@_word
def abs(x: Array, /) -> Array:
    """|x|."""


@_word
def exp(x: Array, /) -> Array:
    """e**x."""


@_word
def expm1(x: Array, /) -> Array:
    """e**x - 1 without cancellation near 0."""


@_word
def log(x: Array, /) -> Array:
    """Natural logarithm; log(0) = -inf, log of a negative number is NaN."""


@_word
def log1p(x: Array, /) -> Array:
    """log(1 + x) without cancellation near 0."""


@_word
def sqrt(x: Array, /) -> Array:
    """Square root."""


@_word
def square(x: Array, /) -> Array:
    """x * x."""


@_word
def sign(x: Array, /) -> Array:
    """-1, 0 or 1; NaN stays NaN."""


@_word
def tanh(x: Array, /) -> Array:
    """Hyperbolic tangent, the framework's own (`nx.tanh` has the exact derivative)."""


@_word
def maximum(x1: Array, x2: Array, /) -> Array:
    """Elementwise maximum of two arrays of one dtype; NaN if either is NaN."""


@_word
def minimum(x1: Array, x2: Array, /) -> Array:
    """Elementwise minimum of two arrays of one dtype; NaN if either is NaN."""


@_word
def clip(x: Array, min: float, max: float, /) -> Array:
    """x limited to [min, max]; NaN stays NaN. The gradient is 1 inside and 0 outside."""


@_word
def where(condition: Array, x1: Array, x2: Array, /) -> Array:
    """x1 where the condition holds, else x2; all three broadcast."""


@_word
def isfinite(x: Array, /) -> Array:
    """True where x is neither infinite nor NaN."""


@_word
def isnan(x: Array, /) -> Array:
    """True where x is NaN."""


# --- reductions -------------------------------------------------------------------------------


@_word
def sum(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Sum over the axes (all by default), in x's own dtype."""


@_word
def mean(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Arithmetic mean over the axes (all by default)."""


@_word
def max(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Largest value over the axes (all by default)."""


@_word
def min(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Smallest value over the axes (all by default)."""


@_word
def argmax(x: Array, /, *, axis: int) -> Array:
    """Index of the first largest value along one axis, as an array of signed integers."""


@_word
def all(x: Array, /, *, axis: Axis = None) -> Array:
    """True where every value along the axes is true; x is boolean."""


@_word
def any(x: Array, /, *, axis: Axis = None) -> Array:
    """True where some value along the axes is true; x is boolean."""


# --- linear algebra ---------------------------------------------------------------------------


@_word
def matmul(x1: Array, x2: Array, /) -> Array:
    """Matrix product over the last two axes; leading axes broadcast; at least 2-D."""


@_word
def linear(x: Array, weight: Array, /) -> Array:
    """What a dense layer makes of its input, ``x W^T``.

    Not in the standard. x is (..., in), at least 2-D, and weight is (out, in):
    ``y[..., o] = sum_i x[..., i] weight[o, i]``.
    """


@_word
def qr(x: Array, /) -> tuple[Array, Array]:
    """Reduced QR over the last two axes, rows >= columns; signs of diag(R) are LAPACK's."""


@_word
def svd(x: Array, /) -> tuple[Array, Array, Array]:
    """Reduced (U, s, Vh) over the last two axes, singular values in descending order."""


@_word
def conv(x: Array, weight: Array, /, *, padding: int = 0) -> Array:
    """Cross-correlation, stride 1, zero padding on each side of each spatial axis.

    Not in the standard. x is (batch, in, *spatial), weight is (out, in, *kernel), 1-D to 3-D:
    ``y[b, o, s] = sum_{i, k} x[b, i, s + k - padding] weight[o, i, k]``.
    """


# --- shape ------------------------------------------------------------------------------------


@_word
def reshape(x: Array, shape: Shape, /) -> Array:
    """Same values in C order under a new shape; one size may be -1."""


@_word
def permute_dims(x: Array, axes: Shape, /) -> Array:
    """Axes reordered."""


@_word
def expand_dims(x: Array, /, *, axis: int) -> Array:
    """A new axis of size 1."""


@_word
def squeeze(x: Array, /, *, axis: int) -> Array:
    """One axis of size 1 removed."""


@_word
def concat(arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
    """Arrays joined along an existing axis."""


@_word
def stack(arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
    """Arrays joined along a new axis."""


@_word
def split(x: Array, sizes: Sequence[int], /, *, axis: int = 0) -> tuple[Array, ...]:
    """Cut x along an existing axis into parts of these sizes, which add up to its own.

    Not in the standard: `concat` turned round.
    """


@_word
def broadcast_to(x: Array, shape: Shape, /) -> Array:
    """x repeated to a larger shape."""


@_word
def take(x: Array, indices: Array, /, *, axis: int) -> Array:
    """Elements at integer positions along one axis; `indices` is 1-D and within bounds."""


# --- creation, on the backend's device --------------------------------------------------------


@_word
def zeros(shape: Shape, /, *, dtype: str = "float32") -> Array:
    """Array of zeros."""


@_word
def ones(shape: Shape, /, *, dtype: str = "float32") -> Array:
    """Array of ones."""


@_word
def full(shape: Shape, value: float, /, *, dtype: str = "float32") -> Array:
    """Array filled with one value."""


@_word
def eye(rows: int, columns: int, /, *, dtype: str = "float32") -> Array:
    """Ones on the main diagonal, zeros elsewhere."""


@_word
def arange(start: float, stop: float, step: float, /, *, dtype: str = "float32") -> Array:
    """start, start + step, ... below stop."""


@_word
def zeros_like(x: Array, /) -> Array:
    """Zeros of x's shape and dtype."""


@_word
def ones_like(x: Array, /) -> Array:
    """Ones of x's shape and dtype."""


# --- others -----------------------------------------------------------------------------------


@_word
def astype(x: Array, dtype: str, /) -> Array:
    """x in another dtype of the backend, rounded to nearest even; also of a boolean array.

    float64 may become a half precision by way of float32, rounded twice, as most frameworks do.
    """


@_word
def stop_gradient(x: Array, /) -> Array:
    """x, through which no derivative flows. Not in the standard."""


@_word
def scan(step: Callable[[Any, Any], Any], carry: Any, xs: Any, /) -> tuple[Any, Array | None]:
    """Fold over the leading axis, keeping outputs. Not in the standard; jax.lax.scan's meaning.

    ``step(carry, x) -> (carry, y)``; carry is an array or a tuple of arrays whose shapes and
    dtypes stay as they are, xs an array or a tuple of arrays of one length, and x then a tuple of
    their rows, y one array, or None in every step; returns the last carry, and the ys stacked or
    None. Compiled, the step is traced and not called for each row. Loops of TensorFlow and JAX then
    compile in constant time; a graph of MXNet has a copy of the step for each row, which takes 1.5
    ms for a dense layer's, since its own loop, `foreach`, is slower at each call.
    """
