"""Finite-sample bounds: how far an average may stray from a law, and with what probability.

Each function returns limits that a right sample of n independent values leaves with probability
at most `rate`, at this n: an exact distribution or an inequality, never a normal approximation.
Each ``..._p`` turns it round: a number that is at most a with probability at most a, for every a.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution, Normal

__all__ = [
    "Limits",
    "bernstein",
    "bernstein_p",
    "dkw",
    "kolmogorov_p",
    "moment",
    "moment_p",
    "one_sided_bernstein",
    "one_sided_bernstein_p",
    "proportion",
    "proportion_p",
    "required",
    "sub_gaussian_square",
]

Limits = tuple[float, float]


def _two_sided(lower: float, upper: float) -> float:
    """Return the p-value of the smaller of two tails; 0 for a NaN, which no right sample has."""
    if math.isnan(lower) or math.isnan(upper):
        return 0.0
    return min(1.0, 2 * min(lower, upper))


# --- the distribution function ------------------------------------------------------------------


def dkw(count: int, rate: float) -> float:
    """Return t with ``P(sup |F_n - F| > t) <= rate``: ``sqrt(ln(2 / rate) / (2 n))``.

    For every law F, discrete ones included (Massart 1990, corollary 1).
    """
    return math.sqrt(math.log(2 / rate) / (2 * count))


def kolmogorov_p(count: int, distance: float) -> float:
    """Return ``P(sup |F_n - F| >= distance)``: exact for continuous F, larger for others.

    Simard and L'Ecuyer 2011, J. Stat. Software 39 (11), to five digits or more.
    """
    from scipy.stats import kstwo

    if math.isnan(distance):
        return 0.0
    return float(kstwo.sf(distance, count)) if distance > 0 else 1.0


# --- averages -----------------------------------------------------------------------------------


def one_sided_bernstein(variance: float, largest: float, rate: float) -> float:
    """Return t with ``P(sum - mean >= t) <= rate``, `variance` being that of the sum.

    Bernstein's inequality, ``exp(-t**2 / (2 (v + M t / 3)))``, given that each summand exceeds its
    mean by at most M = `largest` (Boucheron, Lugosi and Massart 2013, Concentration Inequalities,
    corollary 2.11 and eq. 2.10).
    """
    logarithm = -math.log(rate)
    third = largest * logarithm / 3
    return third + math.sqrt(third**2 + 2 * variance * logarithm)


def one_sided_bernstein_p(variance: float, largest: float, t: float) -> float:
    """Return Bernstein's bound of ``P(sum - mean >= t)``, 1 for t below 0."""
    if math.isnan(t):
        return 0.0
    return math.exp(-t * t / (2 * (variance + largest * t / 3))) if t > 0 else 1.0


def bernstein(variance: float, largest: float, count: int, rate: float) -> float:
    """Return t with ``P(|average - mean| >= t) <= rate``, given that ``|x - mean| <= largest``.

    `one_sided_bernstein` for either side, of n values of this variance.
    """
    return one_sided_bernstein(count * variance, largest, rate / 2) / count


def bernstein_p(variance: float, largest: float, count: int, t: float) -> float:
    """Return Bernstein's bound of ``P(|average - mean| >= t)``, at most 1."""
    return min(1.0, 2 * one_sided_bernstein_p(count * variance, largest, count * t))


def moment(law: Distribution, power: int, count: int, rate: float) -> Limits:
    """Return limits of ``mean(((x - mean) / std)**power)``, power 1 or 2; each side rate / 2.

    For a normal law the average is exactly ``N(0, 1 / n)`` (power 1) or ``chi2_n / n`` (power 2).
    For a bounded law they are `bernstein`'s, with the variance and the bound of the summand.
    """
    if isinstance(law, Normal):
        return _normal_moment(power, count, rate)
    t = bernstein(*_summand(law, power), count, rate)
    return power - 1 - t, power - 1 + t


def moment_p(law: Distribution, power: int, count: int, average: float, slack: float) -> float:
    """Return the p-value of an average that `moment` limits, if it is right to `slack`."""
    if isinstance(law, Normal):
        from scipy.stats import chi2, norm

        low, high = average + slack, average - slack
        if power == 1:
            root = math.sqrt(count)
            return _two_sided(float(norm.cdf(low * root)), float(norm.sf(high * root)))
        return _two_sided(float(chi2.cdf(low * count, count)), float(chi2.sf(high * count, count)))
    return bernstein_p(*_summand(law, power), count, abs(average - (power - 1)) - slack)


def sub_gaussian_square(count: int, rate: float) -> Limits:
    """Return limits of the mean of n squares of variables of variance 1, strictly sub-Gaussian.

    That is ``E exp(t x) <= exp(t**2 / 2)`` for every t, as of a normal law, and of a uniform or a
    truncated normal one on an interval about 0: tilted by exp(t x) they have their largest variance
    at t = 0. So have sums of them. Then ``E exp(t x**2) <= (1 - 2 t)**(-1/2)`` as for chi-square,
    whence the upper limit ``1 + 2 sqrt(u) + 2 u`` (Laurent and Massart 2000, lemma 1), and ``E x**4
    <= 3``, whence ``E exp(-t x**2) <= exp(-t + 3 t**2 / 2)`` and the lower limit ``1 - sqrt(6 u)``;
    u = ln(2 / rate) / n. They hold, too, for squares of which each, given those before it, is so.
    """
    u = math.log(2 / rate) / count
    return 1 - math.sqrt(6 * u), 1 + 2 * math.sqrt(u) + 2 * u


def _summand(law: Distribution, power: int) -> Limits:
    """Return the variance of ``((x - mean) / std)**power`` and how far it may be off its mean."""
    mean, variance, kurtosis = law.moments
    if not (math.isfinite(law.support[1] - law.support[0]) and variance > 0):
        raise InvalidArgument(f"moments have a bound for normal and bounded laws; received {law!r}")
    radius = max(law.support[1] - mean, mean - law.support[0]) / math.sqrt(variance)
    return (1.0, radius) if power == 1 else (kurtosis - 1, max(1.0, radius**2 - 1))


def _normal_moment(power: int, count: int, rate: float) -> Limits:
    from scipy.stats import chi2, norm

    if power == 1:
        t = float(norm.isf(rate / 2)) / math.sqrt(count)
        return -t, t
    return float(chi2.ppf(rate / 2, count)) / count, float(chi2.isf(rate / 2, count)) / count


# --- coins --------------------------------------------------------------------------------------


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


def proportion_p(probability: Limits, count: int, hits: int) -> float:
    """Return the p-value of a number of hits that `proportion` limits; exact binomial."""
    from scipy.stats import binom

    least, most = (min(max(p, 0.0), 1.0) for p in probability)
    return _two_sided(float(binom.cdf(hits, count, least)), float(binom.sf(hits - 1, count, most)))


# --- sample sizes -------------------------------------------------------------------------------


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
