"""Variance scaling: LeCun's, Xavier's and He's rules, with any gain, fan and distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

from isometry.common import checks
from isometry.common.laws import fans
from isometry.common.laws.distributions import Distribution, Normal, TruncatedNormal, Uniform
from isometry.common.laws.rules import Initializer

__all__ = ["DISTRIBUTIONS", "VarianceScaling"]

DISTRIBUTIONS = ("normal", "truncated", "uniform")


@dataclass(frozen=True)
class VarianceScaling(Initializer):
    """Entries of mean 0 and variance ``gain**2 / fan``.

    Law: independent entries, N(0, s^2), N(0, s^2) cut at two parent standard deviations and
    rescaled, or U[-sqrt(3) s, sqrt(3) s), with s = gain / sqrt(fan).
    Use: any dense or convolution weight; the gain is the activation's
    (:mod:`isometry.common.laws.gains`), the fan the direction that matters.
    Keeps: with fan_in the second moment of the preactivations from layer to layer, with fan_out
    that of the gradients; fan_avg and fan_geo_avg are compromises, exact where fans are equal.
    Source: LeCun et al. 1998, Efficient BackProp, eq. 16; Glorot and Bengio 2010, eq. 10 to 12 and
    16; He et al. 2015, eq. 10 and 14.

    Parameters
    ----------
    gain : float
        Factor of the standard deviation, at least 0 (then all entries are 0); sqrt(2) for ReLU.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        Which fan, or the arithmetic or geometric mean of both.
    distribution : {"normal", "truncated", "uniform"}
        All three with the same variance.

    Raises
    ------
    InvalidArgument
        If the gain is negative or not finite, a name is unknown, or the shape has no fans.
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
        return self.of_fan(fan.by(self.mode))

    def of_fan(self, fan: float) -> Distribution:
        """Return the exact law for one number, whatever the mode: of variance gain^2 / fan."""
        std = self.gain / math.sqrt(fan)
        if self.distribution == "normal":
            return Normal(0.0, std)
        if self.distribution == "truncated":
            return TruncatedNormal.of_std(std)
        bound = math.sqrt(3) * std
        return Uniform(-bound, bound)
