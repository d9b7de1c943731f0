"""Verdicts on the mean and on the second moment about the law's mean."""

from __future__ import annotations

import functools
import math

import numpy as np

from isometry.common.laws.distributions import Distribution
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import bounds
from isometry.common.statistics.rates import FALSE_ALARM, MISS, Verdict, enough, grid

__all__ = ["mean", "moment_resolution", "moment_size", "moment_slack", "spread"]

EFFECTS = {
    1: "a shift of {:g} standard deviations",
    2: "a change of {:.2%} in the standard deviation",
}


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


def _moment(
    sample: np.ndarray,
    law: Distribution,
    power: int,
    detects: float,
    dtype: str,
    false_alarm: float,
    miss: float,
) -> Verdict:
    effect, count = EFFECTS[power], sample.size
    needed = moment_size(law, power, detects, dtype, false_alarm, miss)
    enough(count, needed, effect.format(detects), miss)
    center, variance, _ = law.moments
    z = (sample.astype(np.float64) - center) / math.sqrt(variance)
    observed = float(np.mean(z**power))
    low, high = bounds.moment(law, power, count, false_alarm)
    slack = moment_slack(law, power, dtype, high)
    smallest = moment_resolution(law, power, count, dtype=dtype, false_alarm=false_alarm, miss=miss)
    return Verdict(
        f"standardized {'mean' if power == 1 else 'second moment'} of {law}",
        observed,
        low - slack,
        high + slack,
        count,
        false_alarm,
        effect.format(detects),
        miss,
        effect.format(smallest),
        bounds.moment_p(law, power, count, observed, slack),
    )


def moment_slack(law: Distribution, power: int, dtype: str, high: float) -> float:
    """Return how far rounding and the grid can move an average of z**power that is at most `high`.

    Rounding moves z by ``eps (|z| + |mean| / std)``, or the smallest subnormal over std, and so
    the average of z**power by at most ``power max(1, mean z**2)`` times that, to first order;
    twice as much is allowed. The grid g moves it by at most the tails it may lose,
    ``4 g (ln(1 / g) + 1)`` for a normal law and less for bounded ones.
    """
    mean, variance, _ = law.moments
    std, g = math.sqrt(variance), grid(dtype)
    eps, tiny = (float(FORMATS[dtype].ulp(np.array(x))) for x in (1.0, 0.0))
    rounding = 2 * power * max(1.0, high) * (eps * (1 + abs(mean) / std) + tiny / std)
    return rounding + 4 * g * (math.log(1 / g) + 1)


def moment_resolution(
    law: Distribution, power: int, count: int, *, dtype: str, false_alarm: float, miss: float
) -> float:
    """Return the shift in standard deviations (power 1) or relative change of std (power 2)."""
    low, high = bounds.moment(law, power, count, false_alarm)
    slack = moment_slack(law, power, dtype, high)
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
