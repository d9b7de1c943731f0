"""What `assert_law` judges of one law: its statistics, how they are judged, and its support."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Bernoulli, Constant, Distribution
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import verdicts
from isometry.common.statistics.distinct import HALF
from isometry.common.statistics.verdicts import Verdict

__all__ = ["Checked", "Effect", "Entries", "Part", "Plan", "fraction_part", "law_part", "pairs"]

Effect = tuple[str, float] | tuple[str, float, float]
"""Unit and size of an effect, and the probability of missing it, `MISS` unless given."""
Checked = tuple[str, float, float]
"""Unit, size and miss."""


@dataclass(frozen=True)
class Part:
    """One verdict to be: how many samples it needs, and how to judge them."""

    needed: int
    judge: Callable[[np.ndarray], Verdict]


class Plan(abc.ABC):
    """How samples of one law and dtype are judged."""

    always = 0
    """How many statistics that nobody asked for spend false alarm."""
    entry: Distribution | None = None
    """The law of independent entries, which explains a failure; none for matrices."""

    @property
    @abc.abstractmethod
    def statistics(self) -> Mapping[str, Effect]:
        """The statistics that may be asked for; the first with its default effect."""

    @abc.abstractmethod
    def view(self, values: np.ndarray) -> np.ndarray:
        """Return what is independent along the first axis; raise for values of a wrong shape."""

    @abc.abstractmethod
    def parts(self, name: str, effect: Checked, rate: float) -> list[Part]:
        """Return what judges a view by one statistic, with a false alarm of `rate` in all."""

    @abc.abstractmethod
    def support(
        self, values: np.ndarray, view: np.ndarray, miss: float, rate: float
    ) -> list[Verdict]:
        """Judge what is always judged; each of the `always` statistics may spend `rate`."""


# --- independent entries ------------------------------------------------------------------------


class Entries(Plan):
    """Independent values of a distribution, in an array of any shape."""

    entry: Distribution

    def __init__(self, law: Distribution, dtype: str) -> None:
        if not (law.moments[1] > 0 or isinstance(law, Constant)):
            raise InvalidArgument(f"{law} has one value only; use Constant")
        self.entry, self.dtype = law, dtype

    @property
    def statistics(self) -> Mapping[str, Effect]:
        if isinstance(self.entry, Constant):
            return {"support": ("absolute", 0.5)}
        if isinstance(self.entry, Bernoulli):
            return dict.fromkeys(("mean", "independence", "support"), ("sd", 0.02))
        names = ("std", "mean", "variance", "distribution", "independence", "support")
        half = ("distinct",) if self.dtype in HALF else ()
        return dict.fromkeys((*names, *half), ("relative", 0.02))

    def view(self, values: np.ndarray) -> np.ndarray:
        return values.ravel()

    def parts(self, name: str, effect: Checked, rate: float) -> list[Part]:
        unit, size, miss = effect
        law, dtype, std = self.entry, self.dtype, math.sqrt(self.entry.moments[1])
        if name == "independence":
            return pairs(*_coin(law, dtype), size, miss, rate)
        if name == "distribution":
            return [law_part(law.cdf, size, miss, rate, dtype)]
        if name == "distinct":
            return [_distinct_part(law, int(size), rate, dtype)]
        if isinstance(law, Bernoulli):
            shift = (size * std if unit == "sd" else size) / law.scale
            claim = f"fraction of {law} that is kept"
            grid = verdicts.grid(dtype)
            return [fraction_part(_kept, claim, law.keep, grid, shift, miss, rate)]
        if name == "variance":
            size = math.sqrt(1 + size / (std**2 if unit == "absolute" else 1)) - 1
        elif unit == "absolute":
            size /= std
        return [_moment_part(law, 1 if name == "mean" else 2, size, miss, rate, dtype)]

    def support(
        self, values: np.ndarray, view: np.ndarray, miss: float, rate: float
    ) -> list[Verdict]:
        smallest = verdicts.support_resolution(view.size, miss)
        return [verdicts.support(view, self.entry, detects=smallest, dtype=self.dtype, miss=miss)]


def _kept(mask: np.ndarray) -> np.ndarray:
    return np.asarray(mask != 0)


def _moment_part(
    law: Distribution, power: int, size: float, miss: float, rate: float, dtype: str
) -> Part:
    judge = verdicts.mean if power == 1 else verdicts.spread
    return Part(
        verdicts.moment_size(law, power, size, dtype, rate, miss),
        lambda x: judge(x, law, detects=size, dtype=dtype, false_alarm=rate, miss=miss),
    )


def _distinct_part(law: Distribution, size: int, rate: float, dtype: str) -> Part:
    return Part(
        verdicts.distinct_size(law, size, dtype, rate),
        lambda x: verdicts.distinct(x, law, detects=size, dtype=dtype, false_alarm=rate),
    )


def law_part(
    cdf: Callable[[np.ndarray], np.ndarray],
    size: float,
    miss: float,
    rate: float,
    dtype: str,
    slack: float = 0.0,
) -> Part:
    """Return the part that judges the distribution function."""
    return Part(
        verdicts.distribution_size(size, dtype=dtype, false_alarm=rate, miss=miss),
        lambda x: verdicts.distribution(
            x, cdf, detects=size, dtype=dtype, slack=slack, false_alarm=rate, miss=miss
        ),
    )


def fraction_part(
    hit: Callable[[np.ndarray], np.ndarray],
    claim: str,
    probability: float,
    slack: float,
    size: float,
    miss: float,
    rate: float,
    each: int = 1,
) -> Part:
    """Return the part that judges `hit(samples)`, one boolean for `each` samples."""
    return Part(
        each * verdicts.fraction_size(probability, slack, size, rate, miss),
        lambda x: verdicts.fraction(
            hit(x),
            probability,
            detects=size,
            claim=claim,
            slack=slack,
            false_alarm=rate,
            miss=miss,
        ),
    )


# --- independence -------------------------------------------------------------------------------


def _coin(law: Distribution, dtype: str) -> tuple[float, float, float]:
    """Return a level, the probability that a value lies above, and how far it may be off."""
    if isinstance(law, Bernoulli):
        return 0.0, law.keep, verdicts.grid(dtype)
    level = law.moments[0]  # symmetric: the mean is the median
    ulp = FORMATS[dtype].ulp(np.array(level))
    return level, 0.5, float(law.cdf(level + ulp)) - 0.5 + verdicts.grid(dtype)


def pairs(level: float, p: float, off: float, size: float, miss: float, rate: float) -> list[Part]:
    """Return the parts for neighbours and halves: disjoint pairs, so that each is independent.

    Two independent values agree, both above the level or both not, with probability
    ``p**2 + (1 - p)**2``. If p is off by b, that is off by at most ``2 |2 p - 1| b + 2 b**2``.
    """
    agree, slack = p * p + (1 - p) ** 2, 2 * abs(2 * p - 1) * off + 2 * off * off

    def neighbours(x: np.ndarray) -> np.ndarray:
        above = x > level
        return np.asarray(above[0 : 2 * (x.size // 2) : 2] == above[1::2])

    def halves(x: np.ndarray) -> np.ndarray:
        above, half = x > level, x.size // 2
        return np.asarray(above[:half] == above[half : 2 * half])

    return [
        fraction_part(
            hit, f"fraction of {what} on one side", agree, slack, size, miss, rate / 2, each=2
        )
        for hit, what in ((neighbours, "neighbours"), (halves, "values half a sample apart"))
    ]
