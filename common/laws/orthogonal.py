"""Delta-orthogonal kernels: convolutions that keep the norm of their input.

A convolution whose kernel is zero but for an orthogonal matrix at its centre is that matrix at
every place of the image: a dynamical isometry at any depth (Xiao et al. 2018, Dynamical Isometry
and a Mean Field Theory of CNNs, section 2.3 and algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import fans
from isometry.common.laws.initializers import Orthogonal

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["DeltaOrthogonal"]

Array = Any


@dataclass(frozen=True)
class DeltaOrthogonal:
    """Kernels with a semi-orthogonal centre tap, Haar-distributed, times `gain`, and else zeros.

    Law: the tap (out, in), in <= out, at index ``(k - 1) // 2`` of each kernel axis of size k, is
    as :class:`isometry.common.laws.initializers.Orthogonal` draws it: ``W^T W = gain**2 I``. Every
    other tap is exactly 0. Source: Xiao et al. 2018, algorithm 1; the index is that of
    `jax.nn.initializers.delta_orthogonal`.
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
        fans.fans(shape, self.layout)
        out, in_ = shape[:2] if self.layout == "out_in" else shape[:-3:-1]
        kernel = shape[2:] if self.layout == "out_in" else shape[:-2]
        if not kernel or in_ > out:
            raise InvalidArgument(
                "a delta-orthogonal kernel needs a convolution with no more inputs than outputs; "
                f"received shape {tuple(shape)}, {self.layout}: {in_} inputs, {out} outputs"
            )
        return out, in_, tuple(kernel)

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
        out, in_, kernel = self.sizes(shape)
        taps, matrix = (1,) * len(kernel), (out, in_)
        grown, spread = (*matrix, *taps), (1, 1, *kernel)
        if self.layout == "in_out":
            matrix = (in_, out)
            grown, spread = (*taps, *matrix), (*kernel, 1, 1)
        weight = Orthogonal(self.gain, self.layout).draw(nx, stream, matrix, dtype=dtype)
        delta = np.zeros(kernel)
        delta[tuple((size - 1) // 2 for size in kernel)] = 1
        return nx.ops.reshape(weight, grown) * nx.asarray(delta.reshape(spread), dtype=dtype)
