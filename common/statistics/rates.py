"""A verdict: an observed number, the limits it must keep, and both error rates of that test.

``false_alarm`` is an upper bound, valid at the stated sample size, of the probability that a right
sample fails; ``detects`` is an effect that a wrong one shows with probability at most ``miss`` of
being missed. A sample too small for the effect asked for is refused.

A sample is right if it has the law but for this: every value may be off by one unit in the last
place of its dtype, and every probability by `grid`. An effect is one of the values as they are,
rounding included.
"""

from __future__ import annotations

from dataclasses import dataclass

from isometry.common.errors import InvalidArgument

__all__ = ["FALSE_ALARM", "MISS", "Verdict", "enough", "grid"]

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
    p_value: float | None = None
    """p with ``P(p <= a) <= a`` for a right sample and every a. Uniform where the statistic's law
    is exact and continuous (moments of a normal law, Kolmogorov's distance), larger where it is
    discrete or the limits are an inequality's; None where there is no false alarm."""

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


def enough(count: int, needed: int, detects: str, miss: float = MISS) -> None:
    """Raise unless the sample is as large as its claim needs."""
    if count < needed:
        raise InvalidArgument(
            f"a sample of {count} values cannot detect {detects} with miss rate {miss:g}; "
            f"it needs at least {needed}"
        )


def grid(dtype: str) -> float:
    """Return how far a right sample's probabilities may be off: 2**-22, in float64 2**-51.

    Half of it is the grid of the generator, which :class:`isometry.common.streams.Stream` promises
    (half precisions are rounded from float32); half is the arithmetic after it: ``low + (high -
    low) u`` rounds u by up to 2**-24 of the interval, a rational quantile function by as much.
    """
    return 2.0**-51 if dtype == "float64" else 2.0**-22
