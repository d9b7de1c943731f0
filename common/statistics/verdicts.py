"""Tests of a law on samples already drawn, each with its two error rates.

``false_alarm`` is an upper bound, valid at the stated sample size, of the probability that a right
sample fails; ``detects`` is an effect that a wrong one shows with probability at most
``MISS`` of being missed. A sample too small for the effect asked for is refused.

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
    "distribution",
    "log_norms",
    "mean",
    "signs",
    "spread",
    "support",
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

    @property
    def passed(self) -> bool:
        """Whether the observed number is within the limits; a NaN is not."""
        return self.low <= self.observed <= self.high

    def __str__(self) -> str:
        return (
            f"{self.claim}: observed {self.observed:.9g}, allowed {self.low:.9g} to "
            f"{self.high:.9g} (n = {self.count}, false alarm at most {self.false_alarm:g}, "
            f"detects {self.detects} with miss rate {MISS:g})"
        )


def _enough(count: int, needed: int, detects: str) -> None:
    if count < needed:
        raise InvalidArgument(
            f"a sample of {count} values cannot detect {detects} with miss rate {MISS:g}; "
            f"it needs at least {needed}"
        )


def _grid(dtype: str) -> float:
    return 2.0**-52 if dtype == "float64" else 2.0**-23


# --- moments ------------------------------------------------------------------------------------


def mean(
    sample: np.ndarray,
    law: Distribution,
    *,
    detects: float,
    dtype: str,
    false_alarm: float = FALSE_ALARM,
) -> Verdict:
    """Judge the mean; `detects` is a shift in units of the law's standard deviation."""
    return _moment(sample, law, 1, detects, dtype, false_alarm)


def spread(
    sample: np.ndarray,
    law: Distribution,
    *,
    detects: float,
    dtype: str,
    false_alarm: float = FALSE_ALARM,
) -> Verdict:
    """Judge the second moment about the law's mean; `detects` is a relative change of std."""
    return _moment(sample, law, 2, detects, dtype, false_alarm)


def _slack(law: Distribution, power: int, dtype: str) -> float:
    """Return how far rounding and the generator's grid can move the average of z**power.

    Rounding moves z by ``eps (|z| + |mean| / std)``, the grid g moves the average by at most the
    tails it may lose, ``4 g (ln(1 / g) + 1)`` for a normal law and less for bounded ones.
    """
    mean, variance, _ = law.moments
    grid = _grid(dtype)
    eps = float(FORMATS[dtype].ulp(np.array(1.0)))
    rounding = 2 * power * eps * (1 + abs(mean) / math.sqrt(variance))
    return rounding + 4 * grid * (math.log(1 / grid) + 1)


@functools.cache
def _moment_size(
    law: Distribution, power: int, detects: float, dtype: str, false_alarm: float
) -> int:
    slack = _slack(law, power, dtype)

    def caught(count: int) -> bool:
        low, high = bounds.moment(law, power, count, false_alarm)
        least, most = bounds.moment(law, power, count, 2 * MISS)
        if power == 1:
            return least + detects > high + slack
        return least * (1 + detects) ** 2 > high + slack and most * (1 - detects) ** 2 < low - slack

    return bounds.required(caught)


def _moment(
    sample: np.ndarray,
    law: Distribution,
    power: int,
    detects: float,
    dtype: str,
    false_alarm: float,
) -> Verdict:
    claim, effect = (
        ("mean", f"a shift of {detects:g} standard deviations")
        if power == 1
        else ("second moment", f"a change of {detects:.2%} in the standard deviation")
    )
    _enough(sample.size, _moment_size(law, power, detects, dtype, false_alarm), effect)
    center, variance, _ = law.moments
    z = (sample.astype(np.float64) - center) / math.sqrt(variance)
    low, high = bounds.moment(law, power, sample.size, false_alarm)
    slack = _slack(law, power, dtype)
    return Verdict(
        f"standardized {claim} of {law}",
        float(np.mean(z**power)),
        low - slack,
        high + slack,
        sample.size,
        false_alarm,
        effect,
    )


# --- the whole law ------------------------------------------------------------------------------


def distribution(
    sample: np.ndarray,
    cdf: Callable[[np.ndarray], np.ndarray],
    *,
    detects: float,
    dtype: str,
    false_alarm: float = FALSE_ALARM,
) -> Verdict:
    """Judge the whole law by Kolmogorov's distance; `detects` is the distance of another law.

    The distance is measured from F at one unit in the last place further out on either side, so
    that rounding the values cannot add to it; that of another law is meant so, too.
    """
    effect = f"a law at Kolmogorov distance {detects:g}"
    allowed = bounds.dkw(sample.size, false_alarm)
    missed = math.sqrt(math.log(1 / MISS) / (2 * sample.size))  # one-sided, at one point
    needed = math.ceil(sample.size * ((allowed + missed) / (detects - _grid(dtype))) ** 2)
    _enough(sample.size, needed, effect)
    x = np.sort(sample.astype(np.float64).ravel())
    ulp = FORMATS[dtype].ulp(x)
    rank = np.arange(x.size) / x.size
    above = np.max(rank + 1 / x.size - cdf(x + ulp))
    below = np.max(cdf(x - ulp) - rank)
    return Verdict(
        "Kolmogorov distance",
        float(max(above, below)),
        -math.inf,
        allowed + _grid(dtype),
        x.size,
        false_alarm,
        effect,
    )


def support(sample: np.ndarray, law: Distribution, *, detects: float, dtype: str) -> Verdict:
    """Judge that no value leaves the support by more than one ULP; never a false alarm.

    `detects` is the probability with which a wrong law leaves it.
    """
    effect = f"a probability of {detects:g} outside"
    _enough(sample.size, math.ceil(math.log(MISS) / math.log1p(-detects)), effect)
    low, high = law.support
    ulp = FORMATS[dtype].ulp(np.array([low, high]))
    x = sample.astype(np.float64)
    outside = int(np.count_nonzero(~((x >= low - ulp[0]) & (x <= high + ulp[1]))))
    return Verdict(f"values outside the support of {law}", outside, 0, 0, x.size, 0.0, effect)


# --- coins and chains ---------------------------------------------------------------------------


def signs(positive: np.ndarray, *, detects: float, false_alarm: float = FALSE_ALARM) -> Verdict:
    """Judge independent booleans that must be fair coins.

    `detects` is the distance of the probability from 1/2. Products of the signs of two samples,
    symmetric about 0, are fair coins exactly if the samples are independent in sign.
    """
    effect = f"a probability {detects:g} away from 1/2"
    _enough(positive.size, _coin_size(detects, false_alarm), effect)
    low, high = bounds.fair_coin(positive.size, false_alarm)
    return Verdict(
        "fraction of positive signs",
        float(np.mean(positive)),
        low,
        high,
        positive.size,
        false_alarm,
        effect,
    )


@functools.cache
def _coin_size(detects: float, false_alarm: float) -> int:
    from scipy.stats import binom

    def caught(count: int) -> bool:
        _, high = bounds.fair_coin(count, false_alarm)
        return float(binom.cdf(round(high * count), count, 0.5 + detects)) <= MISS

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
