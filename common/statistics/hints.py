"""What may explain a failed law: the common mistakes whose effect is the one observed.

Each mistake is a factor of the standard deviation (or a shift of the mean) computed from the law
and the shape; it explains a sample if it would bring it within the limits of the same test.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common.laws.distributions import (
    CUT,
    TRUNCATED_STD,
    Bernoulli,
    Constant,
    Distribution,
    Normal,
    TruncatedNormal,
    Uniform,
)
from isometry.common.laws.fans import LAYOUTS, fans
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import bounds

__all__ = ["explain"]


def explain(
    sample: np.ndarray, law: Distribution, shape: tuple[int, ...], false_alarm: float, dtype: str
) -> list[str]:
    """Return the mistakes that explain independent values of a wrong law, as sentences.

    Parameters
    ----------
    sample : array (n,)
    shape : tuple of int
        Of the weight that was drawn: its fans and receptive field are known in either layout.
    """
    x = sample.astype(np.float64)
    if isinstance(law, (Bernoulli, Constant)) or not np.isfinite(x).all() or x.size < 2:
        return []
    center, variance, _ = law.moments
    std = math.sqrt(variance)
    z = (x - center) / std
    found = _of_spread(z, law, shape, false_alarm)
    if isinstance(law, Uniform):
        found += _one_sided(z, law, std, false_alarm)
    if isinstance(law, TruncatedNormal):
        found += _clamped(x, law, false_alarm, dtype)
    return found


def _of_spread(
    z: np.ndarray, law: Distribution, shape: tuple[int, ...], false_alarm: float
) -> list[str]:
    low, high = bounds.moment(law, 2, z.size, false_alarm)
    observed = float(np.mean(np.square(z)))
    if low <= observed <= high:
        return []
    ratio = math.sqrt(observed)
    close = [
        mistake
        for mistake, factor in _factors(law, shape)
        if factor > 0 and not low <= factor**2 <= high and low <= observed / factor**2 <= high
    ]
    start = f"the standard deviation is {ratio:.6g} times the law's"
    return [f"{start}, as with {mistake}" for mistake in close] or [start]


def _factors(law: Distribution, shape: tuple[int, ...]) -> list[tuple[str, float]]:
    """Return mistakes and their factors of the standard deviation."""
    std = math.sqrt(law.moments[1])
    factors = [
        ("the variance given for the standard deviation", std),
        ("the standard deviation given for the variance", 1 / math.sqrt(std)),
        ("a gain of sqrt(2) left out", 1 / math.sqrt(2)),
        ("a gain of sqrt(2) too many", math.sqrt(2)),
        ("the bound of a uniform law given for the standard deviation", math.sqrt(3)),
    ]
    if isinstance(law, Uniform):
        factors.append(("the standard deviation given for the bound", 1 / math.sqrt(3)))
    if isinstance(law, (Normal, TruncatedNormal)):
        factors += [
            ("a truncation whose loss of variance is not corrected", TRUNCATED_STD),
            ("a truncation corrected for although nothing is cut", 1 / TRUNCATED_STD),
        ]
    return factors + (_fan_factors(shape) if len(shape) >= 2 and min(shape) >= 1 else [])


def _fan_factors(shape: tuple[int, ...]) -> list[tuple[str, float]]:
    """Return the factors for both layouts, since the array does not say which is its own."""
    factors = []
    for layout, kernel in zip(LAYOUTS, (shape[2:], shape[:-2]), strict=True):
        fan_in, fan_out = fans(shape, layout)
        factors += [
            (f"fan_in and fan_out swapped in a weight {layout}", math.sqrt(fan_in / fan_out)),
            (f"the receptive field of a weight {layout} left out", math.sqrt(math.prod(kernel))),
        ]
    return factors


def _one_sided(z: np.ndarray, law: Uniform, std: float, false_alarm: float) -> list[str]:
    low, high = bounds.moment(law, 1, z.size, false_alarm)
    shift = (law.high - law.low) / 4 / std  # of the mean, if one half only is drawn
    mean = float(np.mean(z))
    return [
        f"the mean is that of the {half} half of the support, as with a one-sided law"
        for half, sign in (("upper", 1.0), ("lower", -1.0))
        if low <= mean - sign * shift <= high
    ]


def _clamped(x: np.ndarray, law: TruncatedNormal, false_alarm: float, dtype: str) -> list[str]:
    beyond = math.erfc(CUT / math.sqrt(2))
    low, high = bounds.proportion((beyond, beyond), x.size, false_alarm)
    ends = np.array(law.support)
    at_ends = np.mean((np.abs(x[:, None] - ends) <= FORMATS[dtype].ulp(ends)).any(axis=1))
    if not (low > 0 and low <= at_ends <= high):
        return []
    return [f"{at_ends:.2%} of the values are at the bounds, as with values clamped, not redrawn"]
