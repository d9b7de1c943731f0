"""Finite-sample bounds: how far an average may stray from a law, and with what probability.

Each function returns limits that a right sample of n independent values leaves with probability
at most `rate`, at this n: an exact distribution or an inequality, never a normal approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution, Normal

__all__ = ["Limits", "bernstein", "dkw", "fair_coin", "moment", "proportion", "required"]

Limits = tuple[float, float]


def dkw(count: int, rate: float) -> float:
    """Return t with ``P(sup |F_n - F| > t) <= rate``: ``sqrt(ln(2 / rate) / (2 n))``.

    For every law F, discrete ones included (Massart 1990, corollary 1).
    """
    return math.sqrt(math.log(2 / rate) / (2 * count))


def bernstein(variance: float, largest: float, count: int, rate: float) -> float:
    """Return t with ``P(|average - mean| >= t) <= rate``, given that ``|x - mean| <= largest``.

    Bernstein's inequality, ``2 exp(-n t**2 / (2 (v + M t / 3)))``, solved for t (Boucheron, Lugosi
    and Massart 2013, Concentration Inequalities, corollary 2.11 and eq. 2.10).
    """
    logarithm = math.log(2 / rate)
    third = largest * logarithm / 3
    return (third + math.sqrt(third**2 + 2 * count * variance * logarithm)) / count


def moment(law: Distribution, power: int, count: int, rate: float) -> Limits:
    """Return limits of ``mean(((x - mean) / std)**power)``, power 1 or 2; each side rate / 2.

    For a normal law the average is exactly ``N(0, 1 / n)`` (power 1) or ``chi2_n / n`` (power 2).
    For a bounded law they are `bernstein`'s, with the variance and the bound of the summand.
    """
    if isinstance(law, Normal):
        return _normal_moment(power, count, rate)
    mean, variance, kurtosis = law.moments
    if not (math.isfinite(law.support[1] - law.support[0]) and variance > 0):
        raise InvalidArgument(f"moments have a bound for normal and bounded laws; received {law!r}")
    radius = max(law.support[1] - mean, mean - law.support[0]) / math.sqrt(variance)
    v, largest, expected = (
        (1.0, radius, 0.0) if power == 1 else (kurtosis - 1, max(1.0, radius**2 - 1), 1.0)
    )
    t = bernstein(v, largest, count, rate)
    return expected - t, expected + t


def _normal_moment(power: int, count: int, rate: float) -> Limits:
    from scipy.stats import chi2, norm

    if power == 1:
        t = float(norm.isf(rate / 2)) / math.sqrt(count)
        return -t, t
    return float(chi2.ppf(rate / 2, count)) / count, float(chi2.isf(rate / 2, count)) / count


def fair_coin(count: int, rate: float) -> Limits:
    """Return limits of the fraction of heads in n fair, independent tosses; exact binomial."""
    low, _ = proportion((0.5, 0.5), count, rate)
    return low, (count - round(low * count)) / count  # as the fraction itself is rounded


def proportion(probability: Limits, count: int, rate: float) -> Limits:
    """Return limits of the fraction of hits in n independent trials; exact binomial.

    The limits hold for every probability of a hit in the closed interval `probability`: they are
    the lower one at its lower end and the upper one at its upper end; each side rate / 2.
    """
    from scipy.stats import binom

    least, most = (min(max(p, 0.0), 1.0) for p in probability)
    # smallest k with P(K <= k) >= rate / 2, and the same of n - K
    low = float(binom.ppf(rate / 2, count, least))
    misses = float(binom.ppf(rate / 2, count, 1 - most))
    return low / count, (count - misses) / count


def required(caught: Callable[[int], bool]) -> int:
    """Return the smallest n, to 1 %, from which on an effect is `caught`."""
    count = 16
    while not caught(count):
        if count > 2**40:
            raise InvalidArgument("the effect to detect is too small for any sample size")
        count *= 2
    low = count // 2
    while count - low > max(1, count // 100):
        middle = (low + count) // 2
        low, count = (low, middle) if caught(middle) else (middle, count)
    return count
