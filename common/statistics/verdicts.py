"""Tests of a law on samples already drawn, each with its two error rates.

``false_alarm`` is an upper bound, valid at the stated sample size, of the probability that a right
sample fails; ``detects`` is an effect that a wrong one shows with probability at most
``MISS`` of being missed. A sample too small for the effect asked for is refused. Each
``..._resolution`` is the smallest effect that n values detect at given rates.

What is allowed beyond the statistical bound: every value may be off by one unit in the last place
of its dtype, and its generator may have a grid of 2**-23 in probability (2**-52 in float64), which
is what :class:`isometry.common.streams.Stream` promises.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws.chains import LogChiSum
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import bounds

__all__ = [
    "FALSE_ALARM",
    "MISS",
    "Verdict",
    "above",
    "distribution",
    "distribution_resolution",
    "distribution_size",
    "fraction",
    "fraction_resolution",
    "fraction_size",
    "grid",
    "log_norms",
    "mean",
    "moment_resolution",
    "moment_size",
    "signs",
    "spread",
    "support",
    "support_resolution",
    "support_size",
]

FALSE_ALARM = 1e-12  # of one verdict: a million of them stay below 1e-6
MISS = 1e-6


@dataclass(frozen=True)
class Verdict:
    """An observed number, the limits it must keep, and the error rates of that test."""

    claim: str
    observed: float
    low: float
    high: float
    count: int
    false_alarm: float
    detects: str
    miss: float = MISS
    smallest: str = ""
    """The smallest effect that this many values detect at these rates."""

    @property
    def passed(self) -> bool:
        """Whether the observed number is within the limits; a NaN is not."""
        return self.low <= self.observed <= self.high

    def __str__(self) -> str:
        return (
            f"{self.claim}: observed {self.observed:.9g}, allowed {self.low:.9g} to "
            f"{self.high:.9g} (n = {self.count}, false alarm at most {self.false_alarm:g}, "
            f"detects {self.detects} with miss rate {self.miss:g})"
        )


def _enough(count: int, needed: int, detects: str, miss: float = MISS) -> None:
    if count < needed:
        raise InvalidArgument(
            f"a sample of {count} values cannot detect {detects} with miss rate {miss:g}; "
            f"it needs at least {needed}"
        )


def grid(dtype: str) -> float:
    """Return the grid, in probability, that a generator of this dtype may have."""
    return 2.0**-52 if dtype == "float64" else 2.0**-23


# --- moments ------------------------------------------------------------------------------------


def mean(
    sample: np.ndarray,
    law: Distribution,
    *,
    detects: float,
    dtype: str,
    false_alarm: float = FALSE_ALARM,
    miss: float = MISS,
) -> Verdict:
    """Judge the mean; `detects` is a shift in units of the law's standard deviation."""
    return _moment(sample, law, 1, detects, dtype, false_alarm, miss)


def spread(
    sample: np.ndarray,
    law: Distribution,
    *,
    detects: float,
    dtype: str,
    false_alarm: float = FALSE_ALARM,
    miss: float = MISS,
) -> Verdict:
    """Judge the second moment about the law's mean; `detects` is a relative change of std."""
    return _moment(sample, law, 2, detects, dtype, false_alarm, miss)


def _slack(law: Distribution, power: int, dtype: str) -> float:
    """Return how far rounding and the generator's grid can move the average of z**power.

    Rounding moves z by ``eps (|z| + |mean| / std)``, or the smallest subnormal over std; the grid
    g moves the average by at most the tails it may lose, ``4 g (ln(1 / g) + 1)`` for a normal law
    and less for bounded ones.
    """
    mean, variance, _ = law.moments
    std, g = math.sqrt(variance), grid(dtype)
    eps, tiny = (float(FORMATS[dtype].ulp(np.array(x))) for x in (1.0, 0.0))
    rounding = 2 * power * (eps * (1 + abs(mean) / std) + tiny / std)
    return rounding + 4 * g * (math.log(1 / g) + 1)


def moment_resolution(
    law: Distribution, power: int, count: int, *, dtype: str, false_alarm: float, miss: float
) -> float:
    """Return the shift in standard deviations (power 1) or relative change of std (power 2)."""
    slack = _slack(law, power, dtype)
    low, high = bounds.moment(law, power, count, false_alarm)
    least, most = bounds.moment(law, power, count, 2 * miss)
    if power == 1:
        return high + slack - least
    if least <= 0 or low <= slack:
        return math.inf
    return max(math.sqrt((high + slack) / least) - 1, 1 - math.sqrt((low - slack) / most))


@functools.cache
def moment_size(
    law: Distribution, power: int, detects: float, dtype: str, false_alarm: float, miss: float
) -> int:
    """Return, to 1 %, the sample size from which on the moment detects the effect."""

    def caught(count: int) -> bool:
        resolution = moment_resolution(
            law, power, count, dtype=dtype, false_alarm=false_alarm, miss=miss
        )
        return resolution < detects

    return bounds.required(caught)


def _moment(
    sample: np.ndarray,
    law: Distribution,
    power: int,
    detects: float,
    dtype: str,
    false_alarm: float,
    miss: float,
) -> Verdict:
    claim, effect = (
        ("mean", "a shift of {:g} standard deviations")
        if power == 1
        else ("second moment", "a change of {:.2%} in the standard deviation")
    )
    needed = moment_size(law, power, detects, dtype, false_alarm, miss)
    _enough(sample.size, needed, effect.format(detects), miss)
    center, variance, _ = law.moments
    z = (sample.astype(np.float64) - center) / math.sqrt(variance)
    low, high = bounds.moment(law, power, sample.size, false_alarm)
    slack = _slack(law, power, dtype)
    smallest = moment_resolution(
        law, power, sample.size, dtype=dtype, false_alarm=false_alarm, miss=miss
    )
    return Verdict(
        f"standardized {claim} of {law}",
        float(np.mean(z**power)),
        low - slack,
        high + slack,
        sample.size,
        false_alarm,
        effect.format(detects),
        miss,
        effect.format(smallest),
    )


# --- the whole law ------------------------------------------------------------------------------


def distribution(
    sample: np.ndarray,
    cdf: Callable[[np.ndarray], np.ndarray],
    *,
    detects: float,
    dtype: str,
    false_alarm: float = FALSE_ALARM,
    miss: float = MISS,
) -> Verdict:
    """Judge the whole law by Kolmogorov's distance; `detects` is the distance of another law.

    The distance is measured from F at one unit in the last place further out on either side, so
    that rounding the values cannot add to it; that of another law is meant so, too.
    """
    effect = "a law at Kolmogorov distance {:g}"
    allowed = bounds.dkw(sample.size, false_alarm)
    smallest = distribution_resolution(sample.size, dtype=dtype, false_alarm=false_alarm, miss=miss)
    needed = distribution_size(detects, dtype=dtype, false_alarm=false_alarm, miss=miss)
    _enough(sample.size, needed, effect.format(detects), miss)
    x = np.sort(sample.astype(np.float64).ravel())
    ulp = FORMATS[dtype].ulp(x)
    rank = np.arange(x.size) / x.size
    above = np.max(rank + 1 / x.size - cdf(x + ulp))
    below = np.max(cdf(x - ulp) - rank)
    return Verdict(
        "Kolmogorov distance",
        float(max(above, below)),
        -math.inf,
        allowed + grid(dtype),
        x.size,
        false_alarm,
        effect.format(detects),
        miss,
        effect.format(smallest),
    )


def distribution_resolution(count: int, *, dtype: str, false_alarm: float, miss: float) -> float:
    """Return the Kolmogorov distance: DKW's band, and the miss of another law one-sided.

    The empirical distribution function at the one point where the laws differ most is a mean of
    n coins: Hoeffding 1963, theorem 1.
    """
    missed = math.sqrt(math.log(1 / miss) / (2 * count))
    return bounds.dkw(count, false_alarm) + missed + grid(dtype)


def distribution_size(detects: float, *, dtype: str, false_alarm: float, miss: float) -> int:
    """Return the sample size: what exceeds the grid in the resolution falls as 1 / sqrt(n)."""
    beyond = grid(dtype)
    if detects <= beyond:
        raise InvalidArgument(
            f"a distance of {detects:g} is within the grid of {dtype}'s generators, {beyond:g}"
        )
    one = distribution_resolution(1, dtype=dtype, false_alarm=false_alarm, miss=miss)
    return math.ceil(((one - beyond) / (detects - beyond)) ** 2)


def support(
    sample: np.ndarray, law: Distribution, *, detects: float, dtype: str, miss: float = MISS
) -> Verdict:
    """Judge that no value leaves the support by more than one ULP; never a false alarm.

    `detects` is the probability with which a wrong law leaves it. The support of a discrete law
    is its atoms.
    """
    effect = "a probability of {:g} outside"
    _enough(sample.size, support_size(detects, miss), effect.format(detects), miss)
    intervals = [(atom, atom) for atom in law.atoms] or [law.support]
    x = sample.astype(np.float64)
    inside = np.zeros(x.shape, dtype=bool)
    for low, high in intervals:
        ulp = FORMATS[dtype].ulp(np.array([low, high]))
        inside |= (x >= low - ulp[0]) & (x <= high + ulp[1]) & np.isfinite(x)
    return Verdict(
        f"values outside the support of {law}",
        int(np.count_nonzero(~inside)),
        0,
        0,
        x.size,
        0.0,
        effect.format(detects),
        miss,
        effect.format(support_resolution(x.size, miss)),
    )


def support_resolution(count: int, miss: float) -> float:
    """Return the probability p outside with ``(1 - p)**n = miss``."""
    return -math.expm1(math.log(miss) / count)


def support_size(detects: float, miss: float) -> int:
    """Return n with ``(1 - detects)**n <= miss``."""
    return math.ceil(math.log(miss) / math.log1p(-detects) * (1 - 1e-12))


# --- coins and chains ---------------------------------------------------------------------------


def signs(positive: np.ndarray, *, detects: float, false_alarm: float = FALSE_ALARM) -> Verdict:
    """Judge independent booleans that must be fair coins.

    `detects` is the distance of the probability from 1/2. Products of the signs of two samples,
    symmetric about 0, are fair coins exactly if the samples are independent in sign.
    """
    return fraction(
        positive, 0.5, detects=detects, false_alarm=false_alarm, claim="fraction of positive signs"
    )


def fraction(
    hits: np.ndarray,
    probability: float,
    *,
    detects: float,
    claim: str,
    slack: float = 0.0,
    false_alarm: float = FALSE_ALARM,
    miss: float = MISS,
) -> Verdict:
    """Judge independent booleans that must be true with `probability`, by the exact binomial law.

    Parameters
    ----------
    detects : float
        A distance of the probability from the right one.
    slack : float
        How far the probability of a right sample may be off.
    """
    effect = f"a probability {{:g}} away from {probability:g}"
    needed = fraction_size(probability, slack, detects, false_alarm, miss)
    _enough(hits.size, needed, effect.format(detects), miss)
    interval = (probability - slack, probability + slack)
    low, high = bounds.proportion(interval, hits.size, false_alarm)
    smallest = fraction_resolution(
        probability, hits.size, slack=slack, false_alarm=false_alarm, miss=miss
    )
    return Verdict(
        claim,
        float(np.mean(hits)),
        low,
        high,
        hits.size,
        false_alarm,
        effect.format(detects),
        miss,
        effect.format(smallest),
    )


def fraction_resolution(
    probability: float, count: int, *, slack: float, false_alarm: float, miss: float
) -> float:
    """Return the distance of another probability: exact, Clopper and Pearson 1934.

    ``P(K <= k; q) = miss`` at the upper quantile `miss` of Beta(k + 1, n - k). Infinite where no
    other probability on one side is sure to be caught.
    """
    interval = (probability - slack, probability + slack)
    low, high = bounds.proportion(interval, count, false_alarm)
    if low == 0 or high == 1:
        return math.inf
    return max(
        above(high, count, miss) - probability, above(1 - low, count, miss) - 1 + probability
    )


def above(high: float, count: int, miss: float) -> float:
    """Return the q with ``P(K <= high n; q) = miss``, the number of hits K being binomial."""
    from scipy.stats import beta

    most = round(high * count)
    return 1.0 if most == count else float(beta.isf(miss, most + 1, count - most))


@functools.cache
def fraction_size(
    probability: float, slack: float, detects: float, false_alarm: float, miss: float
) -> int:
    """Return, to 1 %, the sample size from which on the fraction detects the effect."""

    def caught(count: int) -> bool:
        resolution = fraction_resolution(
            probability, count, slack=slack, false_alarm=false_alarm, miss=miss
        )
        # a discrete law's limits, and what they catch, jump by 1 / n from one n to the next
        return resolution + 2 / count <= detects

    return bounds.required(caught)


def log_norms(
    sample: np.ndarray,
    law: LogChiSum,
    *,
    detects: float,
    slack: float,
    false_alarm: float = FALSE_ALARM,
) -> Verdict:
    """Judge the mean of independent values of `law`, by Chernoff's bound of their exact sum.

    Parameters
    ----------
    detects : float
        A shift of the mean per term of the law, in nats: a factor e**detects per matrix.
    slack : float
        Bound of the rounding error of a value, in nats.
    """
    effect = f"a shift of {detects:g} nat per factor"

    def limits(count: int, rate: float) -> bounds.Limits:
        low, high = law.times(count).limits(rate)
        return low / count, high / count

    def caught(count: int) -> bool:
        low, high = limits(count, false_alarm)
        least, most = limits(count, 2 * MISS)
        shift = detects * law.count
        return least + shift > high + slack and most - shift < low - slack

    _enough(sample.size, bounds.required(caught), effect)
    low, high = limits(sample.size, false_alarm)
    return Verdict(
        f"mean of {law}",
        float(np.mean(sample.astype(np.float64))),
        low - slack,
        high + slack,
        sample.size,
        false_alarm,
        effect,
    )
