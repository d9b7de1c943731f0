"""The elementary laws: exact moments, support and distribution function, and how to draw them.

``TRUNCATED_STD`` is the standard deviation of N(0, 1) conditioned on [-2, 2]:
``sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)) = 0.87962566103423978``, phi and Phi being the density and
distribution function of N(0, 1) (Johnson, Kotz and Balakrishnan 1994, Continuous Univariate
Distributions 1, chapter 13, section 10.1).
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.rules import Initializer, check_range

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = [
    "CUT",
    "TRUNCATED_STD",
    "Bernoulli",
    "Constant",
    "Distribution",
    "Normal",
    "Sparse",
    "TruncatedNormal",
    "Uniform",
]

Array = Any
CUT = 2.0  # a truncated normal is cut at mean +- CUT * std, std being the parent's
_PHI = math.exp(-CUT * CUT / 2) / math.sqrt(2 * math.pi)
_MASS = math.erf(CUT / math.sqrt(2))  # P(|z| <= CUT)
_VARIANCE = 1 - 2 * CUT * _PHI / _MASS
_FOURTH = 3 - 2 * (CUT**3 + 3 * CUT) * _PHI / _MASS  # E z**4 given |z| <= CUT
# a literal: portable weights have the same bits also where exp or erf round otherwise
TRUNCATED_STD = 0.8796256610342398


class Distribution(Initializer):
    """The exact law of independent, identically distributed entries."""

    @property
    @abc.abstractmethod
    def moments(self) -> tuple[float, float, float]:
        """Mean, variance and kurtosis (fourth central moment over squared variance)."""

    @property
    @abc.abstractmethod
    def support(self) -> tuple[float, float]:
        """Smallest closed interval that holds every value."""

    @property
    def atoms(self) -> tuple[float, ...]:
        """All values of a discrete law; none for a continuous one."""
        return ()

    @abc.abstractmethod
    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Return P(X <= x) in float64."""

    @abc.abstractmethod
    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw an array of this law on the backend."""

    def resolve(self, shape: tuple[int, ...], layout: str) -> Distribution:
        """Return the law of one weight of this shape: itself, for a law without fans."""
        return self


@dataclass(frozen=True)
class Constant(Distribution):
    """Every entry equals `value`."""

    value: float

    def __post_init__(self) -> None:
        checks.finite("value", self.value)

    @property
    def moments(self) -> tuple[float, float, float]:
        return (self.value, 0.0, math.nan)

    @property
    def support(self) -> tuple[float, float]:
        return (self.value, self.value)

    @property
    def atoms(self) -> tuple[float, ...]:
        return (self.value,)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.asarray(x) >= self.value, dtype=float)

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        check_range("value", self.value, dtype)
        return nx.ops.full(shape, self.value, dtype=dtype)


@dataclass(frozen=True)
class Bernoulli(Distribution):
    """A mask: `scale` with probability `keep`, else 0.

    Variance ``scale**2 keep (1 - keep)``, kurtosis ``1 / (keep (1 - keep)) - 3``. Dropout that
    keeps the mean multiplies by ``Bernoulli(keep, 1 / keep)`` (Srivastava et al. 2014, section 10).
    """

    keep: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < checks.finite("keep", self.keep) < 1:
            raise InvalidArgument(
                f"keep must be a probability above 0 and below 1; received {self.keep:g}; "
                "for 0 or 1 choose Constant"
            )
        if checks.finite("scale", self.scale) <= 0:
            raise InvalidArgument(f"scale must be above 0; received {self.scale:g}")

    @property
    def moments(self) -> tuple[float, float, float]:
        mixed = self.keep * (1 - self.keep)
        return (self.scale * self.keep, self.scale**2 * mixed, 1 / mixed - 3)

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, self.scale)

    @property
    def atoms(self) -> tuple[float, ...]:
        return (0.0, self.scale)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=float)
        return np.asarray(np.where(x < 0, 0.0, np.where(x < self.scale, 1 - self.keep, 1.0)))

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        # in float32 at least: a uniform in half precision has too few values for a probability
        working = "float64" if dtype == "float64" else "float32"
        kept = stream.uniform(shape, dtype=working) < self.keep
        values = (nx.ops.full(shape, value, dtype=dtype) for value in (self.scale, 0.0))
        return nx.ops.where(kept, *values)


@dataclass(frozen=True)
class Uniform(Distribution):
    """U[low, high): variance ``(high - low)**2 / 12``, kurtosis 9/5."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        low, high = checks.finite("low", self.low), checks.finite("high", self.high)
        if low > high:
            raise InvalidArgument(f"low must not exceed high; received low={low:g}, high={high:g}")

    @property
    def moments(self) -> tuple[float, float, float]:
        return ((self.low + self.high) / 2, (self.high - self.low) ** 2 / 12, 9 / 5)

    @property
    def support(self) -> tuple[float, float]:
        return (self.low, self.high)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        return np.clip((np.asarray(x, dtype=float) - self.low) / (self.high - self.low), 0, 1)

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        return stream.uniform(shape, low=self.low, high=self.high, dtype=dtype)


@dataclass(frozen=True)
class Normal(Distribution):
    """N(mean, std**2), not truncated: kurtosis 3."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        checks.finite("mean", self.mean)
        checks.finite("std", self.std, low=0.0)

    @property
    def moments(self) -> tuple[float, float, float]:
        return (self.mean, self.std**2, 3.0)

    @property
    def support(self) -> tuple[float, float]:
        return (-math.inf, math.inf)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        return np.asarray(ndtr((np.asarray(x, dtype=float) - self.mean) / self.std))

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        return stream.normal(shape, mean=self.mean, std=self.std, dtype=dtype)


@dataclass(frozen=True)
class TruncatedNormal(Distribution):
    """N(mean, std**2) conditioned on ``|x - mean| <= 2 std``.

    `std` is the parent's; the law's own standard deviation is ``TRUNCATED_STD * std`` and its
    kurtosis 2.3655. ``TruncatedNormal.of_std(s)`` gives the law whose own one is `s`.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        checks.finite("mean", self.mean)
        checks.finite("std", self.std, low=0.0)

    @classmethod
    def of_std(cls, std: float, mean: float = 0.0) -> TruncatedNormal:
        """Return the truncated normal whose own standard deviation, after the cut, is `std`."""
        return cls(mean, std / TRUNCATED_STD)

    @property
    def moments(self) -> tuple[float, float, float]:
        return (self.mean, self.std**2 * _VARIANCE, _FOURTH / _VARIANCE**2)

    @property
    def support(self) -> tuple[float, float]:
        return (self.mean - CUT * self.std, self.mean + CUT * self.std)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        z = np.clip((np.asarray(x, dtype=float) - self.mean) / self.std, -CUT, CUT)
        return np.asarray((ndtr(z) - ndtr(-CUT)) / _MASS)

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        return stream.truncated_normal(shape, mean=self.mean, std=self.std, dtype=dtype)


@dataclass(frozen=True)
class Sparse(Initializer):
    """A matrix with the same number of zeros in each column, its other entries of `law`.

    Law: in each column of the weight seen as (out, in), ceil(fraction * out) entries are 0, at
    rows drawn at random, independently for each column; the others are independent, of `law`. So
    each input feeds the same number of units. Entries of one column are dependent: hence no
    `Distribution`.
    Use: wide layers whose units shall differ and not saturate, as for Hessian-free optimization.
    Keeps: the number of connections of each input, and the second moment of the preactivations if
    the law has variance out / ((out - zeros) fan_in).
    Source: Martens 2010, Deep learning via Hessian-free optimization, section 5, which counts for
    each output; `torch.nn.init.sparse_` for columns and the count.

    Parameters
    ----------
    fraction : float
        Above 0 and below 1.
    law : Distribution
        Continuous.

    Raises
    ------
    InvalidArgument
        If the fraction or the law is not one of these, the weight no matrix, or nothing but zeros
        would be left.
    """

    fraction: float
    law: Distribution
    layout: str = "out_in"

    def __post_init__(self) -> None:
        if not 0 < checks.finite("fraction", self.fraction) < 1:
            raise InvalidArgument(
                f"fraction must lie between 0 and 1, exclusive; received {self.fraction:g}"
            )
        if not isinstance(self.law, Distribution) or self.law.atoms:
            raise InvalidArgument(
                f"the other entries need a continuous law, such as Normal; received {self.law!r}"
            )
        checks.choice("layout", self.layout, ("out_in", "in_out"))

    def zeros(self, rows: int) -> int:
        """Return the number of zeros in a column of that many rows."""
        return math.ceil(self.fraction * rows)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Sparse:
        """Return the law for a layout; raises if the shape is no matrix, or all would be zero."""
        sizes = checks.shape("shape", shape, low=1)
        law = replace(self, layout=layout)
        rows = sizes[0 if layout == "out_in" else -1] if len(sizes) == 2 else 0
        if law.zeros(rows) >= rows:
            raise InvalidArgument(
                f"a sparse weight is a matrix with more outputs than zeros in a column; received "
                f"shape {sizes}, {layout}, of which {self.fraction:g} shall be zeros"
            )
        return law

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw values, then zeros row by row: selection sampling.

        With m zeros still wanted among the n rows left, a row has one with probability m / n
        (Knuth, The Art of Computer Programming 2, section 3.4.2, algorithm S).
        """
        ops = nx.ops
        rows, columns = shape if self.layout == "out_in" else shape[::-1]
        values = self.law.draw(nx, stream, (rows, columns), dtype=dtype)
        working = "float64" if dtype == "float64" else "float32"
        # below 1, so that u n < m is certain when m = n
        chances = ops.clip(stream.uniform((rows, columns), dtype=working), 0.0, 1 - 2.0**-24)

        def step(carry: tuple[Array, Array], u: Array) -> tuple[tuple[Array, Array], Array]:
            wanted, left = carry
            zero = ops.astype(u * left < wanted, working)
            return (wanted - zero, left - 1.0), zero

        counts = (
            ops.full((columns,), float(size), dtype=working) for size in (self.zeros(rows), rows)
        )
        _, zero = ops.scan(step, tuple(counts), chances)
        weight = ops.where(zero > 0.5, ops.zeros_like(values), values)
        return weight if self.layout == "out_in" else ops.permute_dims(weight, (1, 0))
