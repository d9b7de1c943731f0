"""Which known law do weights follow? The set of those that the sample cannot tell from the truth.

A law stays in the set if and only if none of its tests rejects:

============== ============================================================ ====================
test           what is judged                                               bound
============== ============================================================ ====================
support        no value lies where the law has none                         no false alarm
spread         second moment about the law's mean                           exact or Bernstein
mean           mean                                                         exact or Bernstein
reach          the smallest and the largest value are as far out            exact
distribution   Kolmogorov's distance                                        DKW, Massart 1990
rows           rows of independent entries are not orthogonal to each other Fisher 1932
============== ============================================================ ====================

The last five share the false alarm equally, so that the true law stays with probability at least
1 - false_alarm. An orthogonal law is tested on ``W W^T = gain**2 I`` instead, up to rounding, and
on its largest entry; what has no chance in it, such as the identity or a Dirac kernel, on its
values. What is made of parts, such as copies of kernels or columns with zeros, is taken apart by
`isometry.common.statistics.structures`. Which laws are sure to leave the set says
`isometry.common.statistics.apart`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import bounds
from isometry.common.statistics.apart import std_resolution
from isometry.common.statistics.candidates import Candidate, Closest, Sample
from isometry.common.statistics.known import classes
from isometry.common.statistics.structures import made_of, of_gates
from isometry.common.statistics.verdicts import MISS

__all__ = ["Candidate", "Closest", "Identification", "identify", "required_weights"]

FALSE_ALARM = 1e-6
TESTS = 5  # that share the false alarm
COARSEST = ("bfloat16", "float16", "float32", "float64")
COARSE = 0.5  # a sample that cannot tell a standard deviation from one half more is too small


@dataclass(frozen=True)
class Identification:
    """What `identify` found.

    Attributes
    ----------
    candidates : tuple of Candidate
        The laws that the sample cannot tell from the truth; none if no known law is left.
    closest : Closest or None
        The nearest known law if there are no candidates.
    detects : float
        Relative change of the standard deviation: laws at least so far from the truth are in the
        set with probability at most `miss`. Of a weight that is made of a smaller one: of that.
    false_alarm : float
        Bound of the probability that the true law, if it is known, is not in the set.
    left_out : tuple of str
        Known laws that were not tested, since they need a fan that was not given.
    """

    candidates: tuple[Candidate, ...]
    closest: Closest | None
    count: int
    dtype: str
    mean: float
    std: float
    smallest: float
    largest: float
    fan_in: int | None
    fan_out: int | None
    false_alarm: float
    detects: float
    miss: float
    left_out: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether a known law is left."""
        return bool(self.candidates)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of every law in the set."""
        return tuple(name for candidate in self.candidates for name in candidate.names)

    def __str__(self) -> str:
        if self.closest is not None:
            return f"unknown; closest: {self.closest}"
        return ", or ".join(" = ".join(c.names) for c in self.candidates)


def identify(
    weights: Any,
    *,
    fan_in: int | None = None,
    fan_out: int | None = None,
    false_alarm: float = FALSE_ALARM,
) -> Identification:
    """Return the set of known laws that the weights cannot tell from the true one.

    Beside laws of independent entries, orthogonal ones and weights without chance these are ICNR
    and sparse weights of such laws, orthogonal blocks for each of 3 or 4 gates, and the bias of
    chrono initialization. The matrix alone does not tell:

    - the gates of a fused kernel of independent entries, which have the law of one gate: give its
      fans;
    - which of two blocks of zeros in a chrono bias is which gate, and its `longest` but for the
      range in the name;
    - zeros that each entry has by chance, as after pruning or dropout, in sparse weights: their
      share is no law's own, so they read "unknown";
    - scales that come from the depth or from data, as in Fixup, muP and LSUV: they read "unknown",
      with the ratio to the closest law.

    Parameters
    ----------
    weights : array_like
        One weight of any shape, or any sample of independent values; anything that `numpy.asarray`
        takes. Values that all lie on the grid of a narrower format, such as bfloat16 held as
        float32, are judged on that grid.
    fan_in, fan_out : int, optional
        Of the weight, as :func:`isometry.fans` gives them: of the whole one, if its kernels repeat.
        Laws that need one that is not given are left out, and named in the result.
    false_alarm : float
        Bound of the probability that the true law is not in the set.

    Raises
    ------
    InvalidArgument
        If there are no values, too few (it says how many are needed), values that are not finite,
        or a fan below 1.

    >>> import numpy as np
    >>> w = np.random.default_rng(0).normal(0, np.sqrt(2 / 512), (512, 256))
    >>> identify(w, fan_in=512, fan_out=256).names[0]
    'he_normal'
    >>> print(identify(2 * w, fan_in=512, fan_out=256))
    unknown; closest: he_normal; twice as large; standard deviation 2.003 times its own
    """
    for name, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        if fan is not None:
            checks.integer(name, fan, low=1)
    values = _array(weights)
    wide = values.astype(np.float64)
    whole = sample = Sample(wide, _format(wide, str(values.dtype.name)), _rate(false_alarm))
    made, outputs = None if sample.constant else made_of(wide, sample.dtype), fan_out
    if made is not None:
        sample = Sample(made.core, sample.dtype, false_alarm / (TESTS + made.tests))
        outputs = fan_out and max(1, fan_out // made.copies)
    known, left_out = classes(fan_in, outputs)
    found = sample.deterministic(known) or ([] if made else of_gates(sample, known))
    needed = required_weights(false_alarm, dtype=sample.dtype)
    enough = sample.count >= needed
    if not (enough or found):
        of = "" if made is None else f", of which the weight is made ({made.words}),"
        raise InvalidArgument(
            f"{sample.count} weights{of} are too few to tell apart laws whose standard deviations "
            f"differ by {COARSE:.0%}, at a false alarm of {false_alarm:g}; at least {needed} are "
            "needed"
        )
    if enough and not sample.constant:
        found += sample.random(known)
    candidates = found if made is None else made.whole(found, sample.rate)
    closest = None if candidates else sample.closest(known)
    if closest and made is not None:
        mistake = "its zeros placed otherwise" if found else closest.mistake
        closest = replace(closest, name=f"{made.words}, of {closest.name}", mistake=mistake)
    return Identification(
        candidates=tuple(candidates),
        closest=closest,
        count=whole.count,
        dtype=whole.dtype,
        mean=whole.mean,
        std=whole.std,
        smallest=float(whole.x[0]),
        largest=float(whole.x[-1]),
        fan_in=fan_in,
        fan_out=fan_out,
        false_alarm=false_alarm,
        detects=sample.detects,
        miss=MISS,
        left_out=tuple(one.name for one in left_out),
    )


def required_weights(false_alarm: float = FALSE_ALARM, *, dtype: str = "float32") -> int:
    """Return how many weights `identify` needs: as tell a standard deviation from 1.5 times it."""
    rate = _rate(false_alarm)
    return bounds.required(lambda count: std_resolution(count, rate, dtype) < COARSE)


# --- arguments ----------------------------------------------------------------------------------


def _rate(false_alarm: float) -> float:
    """Return the share of each test."""
    if not 0 < checks.finite("false_alarm", false_alarm) < 1:
        raise InvalidArgument(
            f"false_alarm must be a probability above 0 and below 1; received {false_alarm:g}"
        )
    return false_alarm / TESTS


def _array(weights: Any) -> np.ndarray:
    values = np.asarray(weights)
    if values.dtype.kind in "biu":
        values = values.astype(np.float64)
    if values.dtype.name not in FORMATS:
        raise InvalidArgument(
            f"weights must be real numbers in {', '.join(FORMATS)}; received an array of "
            f"{values.dtype}"
        )
    if values.size < 2:
        raise InvalidArgument(
            f"weights must be at least two values; received an array of shape {values.shape}"
        )
    wrong = int(np.count_nonzero(~np.isfinite(values.astype(np.float64))))
    if wrong:
        raise InvalidArgument(
            f"weights must be finite; received {wrong} of {values.size} that are NaN or infinite"
        )
    return values


def _format(x: np.ndarray, held_as: str) -> str:
    """Return the format, no wider than that of the array, with the coarsest grid for all values."""

    def holds(name: str, x: np.ndarray) -> bool:
        form = FORMATS[name]
        return bool(np.all(np.abs(x) <= form.largest) and np.all(np.fmod(x, form.ulp(x)) == 0))

    first = x.ravel()[:1000]  # most formats fail there
    return next(
        name for name in COARSEST if name == held_as or (holds(name, first) and holds(name, x))
    )
