"""Schedules: the learning rate as a function of the step, counted from 0.

All are exact at their corners: a warm-up reaches its rate at its last step and not before, a
restart is at the highest rate, a decay ends at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from isometry.common import checks

__all__ = [
    "Cosine",
    "Cyclical",
    "DivideWhenStuck",
    "Polynomial",
    "Schedule",
    "StepDecay",
    "WarmRestarts",
    "WarmUp",
]

Schedule = Callable[[int], float]


def _positive(**named: float) -> None:
    for name, value in named.items():
        checks.finite(name, value, low=0.0, open_low=True)


def _count(**named: int) -> None:
    for name, value in named.items():
        checks.integer(name, value, low=1)


@dataclass(frozen=True, kw_only=True)
class StepDecay:
    """``rate factor**floor(step / every)``."""

    rate: float
    factor: float = 0.1
    every: int

    def __post_init__(self) -> None:
        _positive(rate=self.rate, factor=self.factor)
        _count(every=self.every)

    def __call__(self, step: int, /) -> float:
        return self.rate * self.factor ** (step // self.every)


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """``end + (rate - end) (1 - step / steps)**power``, and `end` from `steps` on.

    LARS takes power 2 (You et al. 2017, section 5).
    """

    rate: float
    end: float = 0.0
    steps: int
    power: float = 1.0

    def __post_init__(self) -> None:
        _positive(rate=self.rate, power=self.power)
        checks.finite("end", self.end, low=0.0)
        _count(steps=self.steps)

    def __call__(self, step: int, /) -> float:
        left = max(0.0, 1 - step / self.steps)
        return self.end + (self.rate - self.end) * math.pow(left, self.power)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """``end + (rate - end) (1 + cos(pi step / steps)) / 2``, and `end` from `steps` on.

    Loshchilov and Hutter 2017, equation 5, without a restart.
    """

    rate: float
    end: float = 0.0
    steps: int

    def __post_init__(self) -> None:
        _positive(rate=self.rate)
        checks.finite("end", self.end, low=0.0)
        _count(steps=self.steps)

    def __call__(self, step: int, /) -> float:
        return self.end + (self.rate - self.end) * _half_wave(min(step / self.steps, 1.0))


@dataclass(frozen=True, kw_only=True)
class WarmRestarts:
    """Cosines, each `growth` times as long as the one before (Loshchilov and Hutter 2017, eq. 5).

    At the restarts, ``period``, ``period (1 + growth)``, ..., the rate is the highest; the lowest
    is approached and not reached, for a restart takes its place.
    """

    rate: float
    end: float = 0.0
    period: int
    growth: int = 1

    def __post_init__(self) -> None:
        _positive(rate=self.rate)
        checks.finite("end", self.end, low=0.0)
        _count(period=self.period, growth=self.growth)

    def __call__(self, step: int, /) -> float:
        period = self.period
        while step >= period:
            step -= period
            period *= self.growth
            if self.growth == 1:
                step %= period
        return self.end + (self.rate - self.end) * _half_wave(step / period)


def _half_wave(part: float) -> float:
    """Return ``(1 + cos(pi part)) / 2``: exactly 1, 1/2 and 0 at 0, 1/2 and 1."""
    return 0.5 if part == 0.5 else math.cos(math.pi * part / 2) ** 2 if part < 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Cyclical:
    """Triangles between two rates (Smith 2017, section 3.1).

    ``low + (high - low) max(0, 1 - |step / half - 2 cycle + 1|) s`` in the cycle
    ``floor(1 + step / (2 half))``, with s by `mode`: 1 ("triangular"), ``2**(1 - cycle)``
    ("triangular2"), or ``gamma**step`` ("exp_range").
    """

    low: float = 1e-3
    high: float = 6e-3
    half: int = 2000
    mode: str = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        checks.finite("low", self.low, low=0.0)
        _positive(high=self.high, gamma=self.gamma)
        _count(half=self.half)
        checks.choice("mode", self.mode, ("triangular", "triangular2", "exp_range"))

    def __call__(self, step: int, /) -> float:
        cycle, within = divmod(step, 2 * self.half)
        height = 1 - abs(within / self.half - 1)
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.gamma**step}
        return self.low + (self.high - self.low) * height * scale[self.mode]


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """``rate (step + 1) / steps`` for the first `steps` steps, then what follows.

    Linear, as Goyal et al. 2017, section 2.2, have it. At step ``steps - 1`` the rate is whole; the
    schedule `then` begins at its own step 0 after that, and without it the rate stays.
    """

    rate: float
    steps: int
    then: Schedule | None = None

    def __post_init__(self) -> None:
        _positive(rate=self.rate)
        _count(steps=self.steps)

    def __call__(self, step: int, /) -> float:
        if step < self.steps:
            return self.rate * (step + 1) / self.steps
        return self.rate if self.then is None else self.then(step - self.steps)


@dataclass(kw_only=True)
class DivideWhenStuck:
    """The rate divided when the loss has not fallen for some steps; it must be told the losses.

    ``report(loss)`` after each step: where the best loss is not undercut by ``margin |best|`` for
    `patience` reports in a row, the rate is divided by `divisor` and the count begins again. A NaN
    undercuts nothing.
    """

    rate: float
    divisor: float = 10.0
    patience: int = 10
    margin: float = 1e-4
    best: float = field(default=math.inf, init=False)
    stuck: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _positive(rate=self.rate, divisor=self.divisor)
        checks.finite("margin", self.margin, low=0.0)
        _count(patience=self.patience)

    def __call__(self, step: int, /) -> float:
        return self.rate

    def report(self, loss: float, /) -> None:
        """Take note of the loss of a step."""
        limit = self.best - self.margin * abs(self.best) if math.isfinite(self.best) else self.best
        if loss < limit:
            self.best, self.stuck = loss, 0
            return
        self.stuck += 1
        if self.stuck >= self.patience:
            self.rate /= self.divisor
            self.stuck = 0
