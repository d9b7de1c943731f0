"""The verdict on sums of ln chi variables: norms of matrix chains and their exponents."""

from __future__ import annotations

import math

import numpy as np

from isometry.common.laws.chains import LogChiSum
from isometry.common.statistics import bounds
from isometry.common.statistics.rates import FALSE_ALARM, MISS, Verdict, enough

__all__ = ["log_norms"]


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

    enough(sample.size, bounds.required(caught), effect)
    low, high = limits(sample.size, false_alarm)
    observed = float(np.mean(sample.astype(np.float64)))
    return Verdict(
        f"mean of {law}",
        observed,
        low - slack,
        high + slack,
        sample.size,
        false_alarm,
        effect,
        p_value=_p(law.times(sample.size), observed * sample.size, slack * sample.size),
    )


def _p(total: LogChiSum, observed: float, slack: float) -> float:
    """Return twice the smaller of Chernoff's bounds: each is at most a with probability a."""
    tails = (
        total.log_tail_bound(observed - slack, upper=True),
        total.log_tail_bound(observed + slack, upper=False),
    )
    return min(1.0, 2 * math.exp(min(tails)))
