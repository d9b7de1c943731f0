"""The laws that a sample does not reject, test by test, and the one nearest to a sample of none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import TRUNCATED_STD, Constant, Distribution
from isometry.common.laws.fans import LAYOUTS
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.identities import Fixed
from isometry.common.laws.initializers import INITIALIZERS
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.laws.rules import Initializer
from isometry.common.statistics import bounds, verdicts
from isometry.common.statistics.apart import std_resolution
from isometry.common.statistics.extremes import reach
from isometry.common.statistics.known import FAMILIES, KnownClass, Law, fixed, of_family
from isometry.common.statistics.matrices import DeltaKernels, Matrices
from isometry.common.statistics.moments import moment_slack
from isometry.common.statistics.rows import independent_rows, largest_entry
from isometry.common.statistics.verdicts import MISS, Verdict

__all__ = ["Candidate", "Closest", "Sample"]

FEW = 64  # rows, of which the longer side is that of the whole: the same limit holds for them
FACTORS = {
    "a gain of sqrt(2) too many": math.sqrt(2),
    "a gain of sqrt(2) left out": 1 / math.sqrt(2),
    "the bound taken for the standard deviation, off by sqrt(3)": math.sqrt(3),
    "the standard deviation taken for the bound, off by 1/sqrt(3)": 1 / math.sqrt(3),
    "a truncation not corrected, off by 0.8796": TRUNCATED_STD,
    "corrected for a cut that there is not, off by 1/0.8796": 1 / TRUNCATED_STD,
    "twice as large": 2.0,
    "half as large": 0.5,
}


@dataclass(frozen=True)
class Candidate:
    """A law that is not rejected, with all names it has at these fans, a formula for each."""

    law: Law | Initializer
    names: tuple[str, ...]
    formulas: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Closest:
    """The known law nearest to a sample of none.

    Attributes
    ----------
    family : str
        The nearest of normal, truncated and uniform, given the sample's own mean and standard
        deviation.
    distance : float
        Kolmogorov's distance from it.
    fits : bool
        Whether that is within the limits of a sample of this family.
    name : str
        The known law of this family with the nearest standard deviation, or the one that a common
        mistake explains.
    ratio : float
        Standard deviation of the sample over that of the law.
    shift : float
        Mean of the sample less that of the law, in standard deviations of the law; 0 if it is too
        small to be told from 0.
    mistake : str
        What explains the ratio to within what the sample can tell; empty if nothing does.
    """

    family: str
    distance: float
    fits: bool
    name: str
    ratio: float
    shift: float
    mistake: str

    def __str__(self) -> str:
        parts = [self.name, self.mistake, f"standard deviation {self.ratio:.4g} times its own"]
        if self.shift:
            parts.append(f"mean {self.shift:.3g} of its standard deviations off")
        if not self.fits:
            parts.append(f"but no family fits, the nearest is {self.distance:.2g} away")
        return "; ".join(filter(None, parts))


class Sample:
    """Weights, sorted and as matrices, and the tests of a law on them."""

    def __init__(self, weights: np.ndarray, dtype: str, rate: float) -> None:
        """Take weights in float64, the format whose grid they are on, and the rate of each test."""
        self.weights, self.dtype, self.rate = weights, dtype, rate
        self.matrices = _matrices(weights)
        self.x = np.sort(weights, axis=None)
        self.count = self.x.size
        with np.errstate(over="ignore", invalid="ignore"):
            self.mean, self.std = float(weights.mean()), float(weights.std())
        if not math.isfinite(self.std):
            raise InvalidArgument(
                f"the squares of weights must be finite in float64; received values from "
                f"{self.x[0]:g} to {self.x[-1]:g}: divide them first"
            )

    @property
    def constant(self) -> bool:
        """Whether all values are equal."""
        return bool(self.x[0] == self.x[-1])

    @property
    def detects(self) -> float:
        """The relative change of std that is sure to be told, whatever the two families are."""
        return 0.0 if self.constant else std_resolution(self.count, self.rate, self.dtype)

    def deterministic(self, known: Sequence[KnownClass]) -> list[Candidate]:
        """Return what is left of constants, weights without chance, and orthogonal ones."""
        if self.constant:
            return [self._constant(known)]
        orthogonal = [
            Candidate(one.law, one.names, one.formulas, tests)
            for one in known
            if isinstance(one.law, Orthogonal) and (tests := self.orthogonal(one.law.gain))
        ]
        return [*self._structured(), *orthogonal]

    def _structured(self) -> Iterator[Candidate]:
        """Yield the initializers by name that give this weight its zeros or all its values."""
        for name, rule in INITIALIZERS.items():
            for layout in LAYOUTS:
                tests = self._of_structure(rule, layout)
                if tests:
                    yield Candidate(rule, (name,), (name,), tests)
                    break

    def _of_structure(self, rule: Initializer, layout: str) -> tuple[Verdict, ...]:
        """Return the tests of a structure in a layout; none if it has none, or another one."""
        shape = self.weights.shape
        try:
            law = rule.resolve(shape, layout)
        except InvalidArgument:  # it has no meaning for this shape
            return ()
        if isinstance(law, Fixed):
            first = _equal(self.weights[:1], law.values[:1], self.dtype)  # quick, and fails most
            tests = [_equal(self.weights, law.values, self.dtype) if first.passed else first]
        elif isinstance(law, DeltaOrthogonal):
            plan = DeltaKernels(law, shape, self.dtype)
            one = self.weights[None]
            taps = plan.view(one)
            tests = [
                *plan.support(one, taps, MISS, self.rate),
                largest_entry(taps[0], gain=1.0, dtype=self.dtype, false_alarm=self.rate),
            ]
        else:
            return ()
        return tuple(tests) if all(test.passed for test in tests) else ()

    def _constant(self, known: Sequence[KnownClass]) -> Candidate:
        law = Constant(float(self.x[0]))
        formula = fixed(law)
        names = next((one.names for one in known if one.law == law), (formula,))
        tests = (verdicts.support(self.x, law, detects=1 - 1e-12, dtype=self.dtype),)
        return Candidate(law, names, (formula,) * len(names), tests)

    def orthogonal(self, gain: float) -> tuple[Verdict, ...]:
        """Return the tests of the first view that is orthogonal; none if no view is."""
        for matrix in self.matrices:
            few = matrix[:FEW]  # which fail for almost every other law, and are quick
            if not all(test.passed for test in self._gram(few, gain)):
                continue
            tests = (
                *self._gram(matrix, gain),
                largest_entry(matrix, gain=gain, dtype=self.dtype, false_alarm=self.rate),
            )
            if all(test.passed for test in tests):
                return tests
        return ()

    def _gram(self, matrix: np.ndarray, gain: float) -> list[Verdict]:
        plan = Matrices(gain, (matrix.shape[0], matrix.shape[1]), self.dtype)
        return plan.support(matrix[None], plan.view(matrix[None]), MISS, self.rate)

    def random(self, known: Sequence[KnownClass]) -> list[Candidate]:
        """Return what is left of the laws of independent entries."""
        return [
            Candidate(one.law, one.names, one.formulas, tests)
            for one in known
            if isinstance(one.law, Distribution)
            and not one.law.atoms
            and (tests := self._passed(one.law))
        ]

    def _passed(self, law: Distribution) -> tuple[Verdict, ...]:
        """Return the tests of a law, the quick ones first; none if one of them rejects."""
        if not self._plausible(law):
            return ()
        passed = []
        for test in self._tests(law):
            if not test.passed:
                return ()
            passed.append(test)
        return tuple(passed)

    def _plausible(self, law: Distribution) -> bool:
        """Whether `spread` may pass, from moments at hand, with room for their rounding."""
        center, variance, _ = law.moments
        second = (self.std**2 + (self.mean - center) ** 2) / variance
        low, high = bounds.moment(law, 2, self.count, self.rate)
        room = moment_slack(law, 2, self.dtype, high) + 1e-6
        return low - room <= second <= high + room

    def _tests(self, law: Distribution) -> Iterator[Verdict]:
        x, dtype, rate = self.x, self.dtype, self.rate
        outside = verdicts.support_resolution(self.count, MISS) * 1.01
        yield verdicts.support(x, law, detects=outside, dtype=dtype)
        # as `required_weights` makes sure of, at the least
        yield verdicts.spread(x, law, detects=1.0, dtype=dtype, false_alarm=rate)
        yield verdicts.mean(x, law, detects=1.0, dtype=dtype, false_alarm=rate)
        yield reach(x, law, dtype=dtype, false_alarm=rate)
        yield verdicts.distribution(x, law.cdf, detects=0.5, dtype=dtype, false_alarm=rate)
        for matrix in self.matrices:
            if len(matrix) > 1:
                share = rate / len(self.matrices)
                yield independent_rows(matrix, law, dtype=dtype, false_alarm=share)

    def closest(self, known: Sequence[KnownClass]) -> Closest:
        """Return the nearest family, and of it the law with the nearest standard deviation."""
        fitted = {family: of_family(family, self.std, self.mean) for family in FAMILIES}
        distances = {name: _distance(self.x, law) for name, law in fitted.items()}
        family = min(distances, key=distances.__getitem__)
        laws = {
            one.names[0]: one.law
            for one in known
            if isinstance(one.law, Distribution) and isinstance(one.law, FAMILIES[family])
        }
        ratios = {name: self.std / math.sqrt(law.moments[1]) for name, law in laws.items()}
        explained = [
            (name, mistake)
            for mistake, factor in FACTORS.items()
            for name in ratios
            if name in INITIALIZERS and abs(ratios[name] / factor - 1) <= self.detects
        ]
        nearest = min(ratios, key=lambda name: abs(math.log(ratios[name])))
        fits = distances[family] <= bounds.dkw(self.count, self.rate) + verdicts.grid(self.dtype)
        near = abs(ratios[nearest] - 1) <= self.detects
        name, mistake = (nearest, "") if near or not (fits and explained) else explained[0]
        law = laws[name]
        smallest = verdicts.moment_resolution(
            law, 1, self.count, dtype=self.dtype, false_alarm=self.rate, miss=MISS
        )
        shift = (self.mean - law.moments[0]) / math.sqrt(law.moments[1])
        return Closest(
            family,
            distances[family],
            fits,
            name,
            ratios[name],
            shift if abs(shift) > smallest else 0.0,
            mistake,
        )


def _equal(w: np.ndarray, values: np.ndarray, dtype: str) -> Verdict:
    """Judge that a weight has these values, to one unit in the last place."""
    off = np.abs(w - values) > FORMATS[dtype].ulp(values)
    claim, effect = "entries that are not those of the rule", "one entry"
    return Verdict(claim, int(off.sum()), 0, 0, w.size, 0.0, effect, 0.0, effect)


def _matrices(w: np.ndarray) -> list[np.ndarray]:
    """Return the weight as a matrix, its short side first; in either layout if it is a kernel."""
    if w.ndim < 2:
        return []
    views = [w.reshape(len(w), -1)]
    if w.ndim > 2:
        views.append(w.reshape(-1, w.shape[-1]))
    return [view if view.shape[0] <= view.shape[1] else view.T for view in views]


def _distance(x: np.ndarray, law: Distribution) -> float:
    cdf, rank = law.cdf(x), np.arange(x.size + 1) / x.size
    return float(max(np.max(rank[1:] - cdf), np.max(cdf - rank[:-1])))
