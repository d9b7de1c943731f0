"""Orthogonal weights, and kernels that are one at their centre: what keeps the norm of its input.

A convolution whose kernel is zero but for an orthogonal matrix at its centre is that matrix at
every place of the image: a dynamical isometry at any depth (Xiao et al. 2018, Dynamical Isometry
and a Mean Field Theory of CNNs, algorithm 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import fans
from isometry.common.laws.rules import Initializer, check_range

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["DeltaOrthogonal", "Orthogonal"]

Array = Any


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """Haar-distributed orthogonal (or semi-orthogonal) weights times `gain`.

    Law: the weight, flattened to (out, in * receptive field) = (m, n), is the first columns or
    rows of a Haar-distributed orthogonal matrix of size max(m, n): W W^T = gain^2 I if m <= n,
    else W^T W = gain^2 I; an entry has variance gain^2 / max(m, n). The Q of a QR of Gaussian
    entries is Haar only after each column is multiplied by the sign of R's diagonal.
    Use: recurrent weights, and deep dense nets with linear or tanh units.
    Keeps: the norm of every input (m >= n), or of every gradient (m <= n), exactly and at any
    depth of a linear net; Gaussian weights keep it on average alone.
    Source: Saxe et al. 2014, section 3; Mezzadri 2007 for Haar's measure.

    Parameters
    ----------
    gain : float
        At least 0.

    Raises
    ------
    InvalidArgument
        If the gain is negative or not finite, or the shape has fewer than two sizes. A convolution
        with fewer outputs than inputs is no error: its matrix is wide and its rows orthonormal.
    """

    gain: float = 1.0
    layout: str = "out_in"

    def __post_init__(self) -> None:
        checks.finite("gain", self.gain, low=0.0)
        checks.choice("layout", self.layout, fans.LAYOUTS)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Orthogonal:
        """Return the law for a layout; raises if the shape is no matrix."""
        fans.rows_and_columns(shape, layout)
        return replace(self, layout=layout)

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw one weight; half precisions are rounded from float32, as LAPACK has none."""
        return nx.ops.reshape(self.draw_stack(nx, stream, shape, 1, dtype=dtype), shape)

    def draw_stack(
        self,
        nx: Backend,
        stream: Stream,
        shape: tuple[int, ...],
        count: int,
        /,
        *,
        dtype: str = "float32",
    ) -> Array:
        """Draw `count` independent weights at once, as (count, *shape)."""
        check_range("gain", self.gain, dtype)
        ops = nx.ops
        rows, columns = fans.rows_and_columns(shape, self.layout)
        tall, wide = max(rows, columns), min(rows, columns)
        working = "float64" if dtype == "float64" else "float32"
        q, r = ops.qr(stream.normal((count, tall, wide), dtype=working))
        diagonal = ops.sum(r * ops.eye(wide, wide, dtype=working), axis=1, keepdims=True)
        one = ops.ones_like(diagonal)
        q = q * (self.gain * ops.where(diagonal < 0, -one, one))
        # q is (count, tall, wide); out_in stores (rows, columns), in_out its transpose
        if (self.layout == "out_in") == (rows < columns):
            q = ops.permute_dims(q, (0, 2, 1))
        return ops.astype(ops.reshape(q, (count, *shape)), dtype)


@dataclass(frozen=True)
class DeltaOrthogonal(Initializer):
    """Kernels with a semi-orthogonal centre tap, Haar-distributed, times `gain`, and else zeros.

    Law: the tap (out, in), in <= out, at index (k - 1) // 2 of each kernel axis of size k, is as
    `Orthogonal` draws it: W^T W = gain^2 I. Every other tap is exactly 0. 1-D to 3-D. The index is
    that of `jax.nn.initializers.delta_orthogonal`.
    Use: very deep plain convolutional nets of stride 1.
    Keeps: the norm of the whole image, at any depth of a linear net.
    Source: Xiao et al. 2018, algorithm 2.

    Parameters
    ----------
    gain : float
        At least 0; a factor of the weights, not of their variance.

    Raises
    ------
    InvalidArgument
        If there is no kernel, or fewer outputs than inputs: no such map keeps every norm.
    """

    gain: float = 1.0
    layout: str = "out_in"

    def __post_init__(self) -> None:
        checks.finite("gain", self.gain, low=0.0)
        checks.choice("layout", self.layout, fans.LAYOUTS)

    def resolve(self, shape: tuple[int, ...], layout: str) -> DeltaOrthogonal:
        """Return the law for a layout; raises if no such kernel keeps the norm of its input."""
        law = replace(self, layout=layout)
        law.sizes(shape)
        return law

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
        """Return (out, in, kernel) of a shape, ``out_in``: (out, in, *kernel)."""
        out, in_, kernel = fans.axes(shape, self.layout)
        if not kernel or in_ > out:
            raise InvalidArgument(
                "a delta-orthogonal kernel needs a convolution with no more inputs than outputs; "
                f"received shape {tuple(shape)}, {self.layout}: {in_} inputs, {out} outputs"
            )
        return out, in_, kernel

    def centre(self, shape: tuple[int, ...]) -> tuple[Any, ...]:
        """Return the index of the centre tap, for arrays that end in the shape of a kernel."""
        *_, kernel = self.sizes(shape)
        taps = tuple((size - 1) // 2 for size in kernel)
        both = (slice(None), slice(None))
        return (..., *both, *taps) if self.layout == "out_in" else (..., *taps, *both)

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw one kernel; the centre tap as `Orthogonal` draws a matrix."""
        return nx.ops.reshape(self.draw_stack(nx, stream, shape, 1, dtype=dtype), shape)

    def draw_stack(
        self,
        nx: Backend,
        stream: Stream,
        shape: tuple[int, ...],
        count: int,
        /,
        *,
        dtype: str = "float32",
    ) -> Array:
        """Draw `count` independent kernels at once, as (count, *shape)."""
        out, in_, kernel = self.sizes(shape)
        taps, matrix = (1,) * len(kernel), (out, in_)
        grown, spread = (*matrix, *taps), (1, 1, *kernel)
        if self.layout == "in_out":
            matrix = (in_, out)
            grown, spread = (*taps, *matrix), (*kernel, 1, 1)
        law = Orthogonal(self.gain, self.layout)
        weight = law.draw_stack(nx, stream, matrix, count, dtype=dtype)
        delta = np.zeros(kernel)
        delta[tuple((size - 1) // 2 for size in kernel)] = 1
        spread_delta = nx.asarray(delta.reshape(spread), dtype=dtype)
        return nx.ops.reshape(weight, (count, *grown)) * spread_delta
