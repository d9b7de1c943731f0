"""Initializers as data: distribution, gain, fan rule. Drawing is the backend's.

============== =========================== ============================================
name           variance of a weight        source
============== =========================== ============================================
lecun_*        1 / fan_in                  LeCun et al. 1998, Efficient BackProp, eq. 16
xavier_*       2 / (fan_in + fan_out)      Glorot and Bengio 2010, eq. 12 and 16
he_*           2 / fan_in                  He et al. 2015, eq. 10
orthogonal     1 / max(rows, columns)      Saxe et al. 2014; Mezzadri 2007 for Haar's measure
============== =========================== ============================================

``_normal`` is a plain normal, ``_truncated`` a normal cut at two parent standard deviations and
rescaled to the same variance, ``_uniform`` is uniform on ``+- sqrt(3 * variance)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import fans
from isometry.common.laws.distributions import (
    Constant,
    Distribution,
    Normal,
    TruncatedNormal,
    Uniform,
)

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["INITIALIZERS", "Initializer", "Orthogonal", "VarianceScaling", "initializer"]

Array = Any
DISTRIBUTIONS = ("normal", "truncated", "uniform")


@dataclass(frozen=True)
class VarianceScaling:
    """Entries of mean 0 and variance ``gain**2 / fan``.

    Parameters
    ----------
    gain : float
        Factor of the standard deviation; sqrt(2) for ReLU (He et al. 2015).
    mode : {"fan_in", "fan_out", "fan_avg"}
        Which fan; the mean of both for ``fan_avg``.
    distribution : {"normal", "truncated", "uniform"}
        All three with the same variance.
    """

    gain: float = 1.0
    mode: str = "fan_in"
    distribution: str = "normal"

    def __post_init__(self) -> None:
        checks.finite("gain", self.gain, low=0.0)
        checks.choice("fan mode", self.mode, fans.MODES)
        checks.choice("distribution", self.distribution, DISTRIBUTIONS)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Distribution:
        """Return the exact law of the entries of a weight of this shape."""
        return self.law(fans.fans(shape, layout))

    def law(self, fan: fans.Fans) -> Distribution:
        """Return the exact law for given fans: of grouped, fused or transposed weights.

        >>> VarianceScaling(mode="fan_out").law(fans.fans((64, 8, 3, 3), groups=4))
        Normal(mean=0.0, std=0.08333333333333333)
        """
        std = self.gain / math.sqrt(fan.by(self.mode))
        if self.distribution == "normal":
            return Normal(0.0, std)
        if self.distribution == "truncated":
            return TruncatedNormal.of_std(std)
        bound = math.sqrt(3) * std
        return Uniform(-bound, bound)


@dataclass(frozen=True)
class Orthogonal:
    """Haar-distributed orthogonal (or semi-orthogonal) weights times `gain`.

    Law: the weight, flattened to (out, in * receptive field) = (m, n), is the first columns or
    rows of a Haar-distributed orthogonal matrix of size max(m, n): ``W W^T = gain**2 I`` if
    m <= n, else ``W^T W = gain**2 I``. The Q of a QR of Gaussian entries is Haar only after each
    column is multiplied by the sign of R's diagonal (Mezzadri 2007, section 5).
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
        ops = nx.ops
        rows, columns = fans.rows_and_columns(shape, self.layout)
        tall, wide = max(rows, columns), min(rows, columns)
        working = "float64" if dtype == "float64" else "float32"
        q, r = ops.qr(stream.normal((tall, wide), dtype=working))
        diagonal = ops.sum(r * ops.eye(wide, wide, dtype=working), axis=0)
        one = ops.ones_like(diagonal)
        q = q * (self.gain * ops.where(diagonal < 0, -one, one))
        # q is (tall, wide); out_in stores (rows, columns), in_out its transpose
        if (self.layout == "out_in") == (rows < columns):
            q = ops.permute_dims(q, (1, 0))
        return ops.astype(ops.reshape(q, shape), dtype)


Initializer = Distribution | VarianceScaling | Orthogonal

_RELU_GAIN = math.sqrt(2.0)

INITIALIZERS: dict[str, Initializer] = {
    "zeros": Constant(0.0),
    "ones": Constant(1.0),
    "orthogonal": Orthogonal(),
    **{
        f"{family}_{distribution}": VarianceScaling(gain, mode, distribution)
        for family, gain, mode in (
            ("lecun", 1.0, "fan_in"),
            ("xavier", 1.0, "fan_avg"),
            ("he", _RELU_GAIN, "fan_in"),
        )
        for distribution in DISTRIBUTIONS
    },
}


def initializer(rule: str | Initializer) -> Initializer:
    """Return the initializer of a name, or the given one unchanged.

    >>> initializer("he_uniform")
    VarianceScaling(gain=1.4142135623730951, mode='fan_in', distribution='uniform')
    """
    if isinstance(rule, str):
        return INITIALIZERS[checks.choice("initializer", rule, tuple(INITIALIZERS))]
    if not isinstance(rule, (Distribution, VarianceScaling, Orthogonal)):
        raise InvalidArgument(
            f"an initializer must be one of {', '.join(INITIALIZERS)} or a law such as "
            f"Normal(0.0, 0.01); received {rule!r} of type {type(rule).__name__}"
        )
    return rule
