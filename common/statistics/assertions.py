"""`assert_law`: do samples follow an exact law? With both error rates stated, for anyone's tests.

============= ==================== ================================== ===========================
statistic     units of an effect   what is measured                   source of the bound
============= ==================== ================================== ===========================
mean          sd, absolute         mean; fraction kept of a mask      exact normal or binomial,
                                                                      else Bernstein's inequality
std, variance relative, absolute   second moment about the law's mean exact chi-squared, else
                                                                      Bernstein with its kurtosis
distribution  absolute             Kolmogorov's distance              DKW, Massart 1990
independence  absolute             how often two values of a pair lie exact binomial
                                   on the same side of the median
determinant   absolute             fraction of positive determinants  exact binomial
support       absolute             values outside, an exact count     no false alarm
============= ==================== ================================== ===========================

The support is always judged: it costs no false alarm. Of orthogonal matrices it is that they are
orthogonal, and the other statistics take the first and the last diagonal entry of each matrix,
since the entries of one matrix are dependent; of sparse ones it is the count of zeros in each
column, and the other statistics take the other entries. Pairs are disjoint neighbours, and values
half a sample apart: stack two draws to judge that they are independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Bernoulli, Constant, Distribution, Sparse
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.initializers import Orthogonal
from isometry.common.statistics import bounds, hints, rounding, verdicts
from isometry.common.statistics.verdicts import FALSE_ALARM, MISS, Verdict

__all__ = ["Effect", "assert_law", "required_samples"]

Law = Distribution | Orthogonal | Sparse
Effect = tuple[str, float] | tuple[str, float, float]
"""Unit and size of an effect, and the probability of missing it, `MISS` unless given."""

CONTINUOUS = ("mean", "std", "variance", "distribution", "independence", "support")
UNITS = {
    "mean": ("sd", "absolute"),
    "std": ("relative", "absolute"),
    "variance": ("relative", "absolute"),
}


def assert_law(
    samples: Any,
    law: Law,
    *,
    false_alarm: float = FALSE_ALARM,
    detects: Mapping[str, Effect] | None = None,
    dtype: str | None = None,
) -> tuple[Verdict, ...]:
    """Assert that samples follow a law; return the verdicts, which print both error rates.

    Parameters
    ----------
    samples : array_like
        Independent values of any shape; matrices (count, m, n) for `Orthogonal`; one weight (rows,
        columns) for `Sparse`. Anything that `numpy.asarray` takes.
    law : Distribution, Orthogonal or Sparse
        Such as ``iso.Normal(0, 0.02)`` or ``iso.VarianceScaling(...).resolve(shape, layout)``.
    false_alarm : float
        Upper bound of the probability that samples of the law fail, whatever their number: of the
        whole call, shared equally by the statistics named.
    detects : mapping, optional
        Statistic -> (unit, size) or (unit, size, miss): each effect of at least this size is
        missed with probability at most `miss`, 1e-6 unless given. The effect of a mean is a shift,
        of std a change of scale about the law's mean. By default a change of std by 2 %; of a
        mask's mean by 0.02 of its standard deviation; for `Orthogonal` a Kolmogorov distance of
        0.25; for `Constant` the support alone.
    dtype : {"float16", "bfloat16", "float32", "float64"}, optional
        Of the samples as they were drawn, if the array's is wider: "bfloat16" for float32 values
        of bfloat16. Each value may be off by one unit in the last place of it, and a generator's
        probabilities by 2**-23 (2**-52 in float64).

    Raises
    ------
    AssertionError
        With the statistic, what was observed and allowed, n, both rates, the smallest effect that
        n values detect, and the mistakes that explain the number, if any of the common ones do.
    InvalidArgument
        If there are fewer samples than the effects need: it names how many.

    >>> import numpy as np, isometry as iso
    >>> weights = np.random.default_rng(0).uniform(-0.05, 0.05, 100_000)
    >>> [v.passed for v in iso.assert_law(weights, iso.Uniform(-0.05, 0.05))]
    [True, True]
    """
    values = _array(samples)
    dtype = _dtype(values, dtype)
    shape = _check_shape(values, law)
    effects = _effects(law, detects, shape)
    plan = _plan(law, effects, _rate(false_alarm), dtype, shape)
    view = values.ravel()
    if isinstance(law, Sparse):
        view = _entries(values, law)
    elif isinstance(law, Orthogonal):
        view = values.astype(np.float64) / law.gain
    needed = _needed(plan, effects)
    if len(view) < needed:
        claims = ", ".join(
            f"{name} by {size:g} {unit} with miss rate {miss:g}"
            for name, (unit, size, miss) in effects.items()
        )
        raise InvalidArgument(
            f"{len(view)} samples are too few to detect an effect in {claims} of {law} with a "
            f"false alarm of {false_alarm:g}; at least {needed} are needed"
        )
    found = (
        *_support(values, view, law, effects, false_alarm, dtype),
        *(part.judge(view) for part in plan),
    )
    if not all(verdict.passed for verdict in found):
        raise AssertionError(_message(values, view, law, found, false_alarm, dtype))
    return found


def required_samples(
    law: Law,
    detects: Mapping[str, Effect] | None = None,
    false_alarm: float = FALSE_ALARM,
    *,
    dtype: str = "float32",
    shape: tuple[int, int] | None = None,
) -> int:
    """Return how many samples `assert_law` needs: values, matrices, or entries that are not zero.

    To 1 %, and exact for the support and the distribution. `shape` is that of one matrix of an
    `Orthogonal` law.

    >>> import isometry as iso
    >>> iso.required_samples(iso.Uniform(), {"distribution": ("absolute", 0.015)})
    181565
    """
    if isinstance(law, Orthogonal):
        shape = shape or (2, 2)
    effects = _effects(law, detects, shape)
    checks.choice("dtype", dtype, tuple(FORMATS))
    return _needed(_plan(law, effects, _rate(false_alarm), dtype, shape), effects)


def _needed(plan: list[_Part], effects: Mapping[str, tuple[str, float, float]]) -> int:
    needed = [part.needed for part in plan]
    if "support" in effects:
        _, size, miss = effects["support"]
        needed.append(verdicts.support_size(size, miss))
    return max(needed, default=1)


# --- arguments ----------------------------------------------------------------------------------


def _array(samples: Any) -> np.ndarray:
    values = np.asarray(samples)
    if values.dtype == bool or values.dtype.kind in "iu":
        values = values.astype(np.float64)
    if values.dtype.name not in FORMATS or not values.size:
        raise InvalidArgument(
            f"samples must be real numbers, at least one, in {', '.join(FORMATS)}; received an "
            f"array of {values.dtype} and shape {values.shape}"
        )
    return values


def _dtype(values: np.ndarray, dtype: str | None) -> str:
    if dtype is None:
        return str(values.dtype.name)
    checks.choice("dtype", dtype, tuple(FORMATS))
    wide = values.astype(np.float64)
    off = np.isfinite(wide) & (np.fmod(wide, FORMATS[dtype].ulp(wide)) != 0)
    if off.any():
        raise InvalidArgument(
            f"samples said to be {dtype} must be representable in it; "
            f"received {float(wide[off][0])!r} and {np.count_nonzero(off) - 1} more that are not"
        )
    return dtype


def _rate(false_alarm: float) -> float:
    if not 0 < checks.finite("false_alarm", false_alarm) < 1:
        raise InvalidArgument(
            f"false_alarm must be a probability above 0 and below 1; received {false_alarm:g}"
        )
    return float(false_alarm)


def _check_shape(values: np.ndarray, law: Law) -> tuple[int, int] | None:
    if not isinstance(law, (Orthogonal, Sparse)):
        return None
    wanted = "(count, m, n)" if isinstance(law, Orthogonal) else "(rows, columns)"
    if values.ndim != wanted.count(",") + 1:
        raise InvalidArgument(f"samples of {law} must be {wanted}; received shape {values.shape}")
    return int(values.shape[-2]), int(values.shape[-1])


def _statistics(law: Law, shape: tuple[int, int] | None) -> dict[str, Effect]:
    """Return the statistics that the law has, the default first."""
    if isinstance(law, Sparse):
        law = law.law
    if isinstance(law, Orthogonal):
        if law.gain == 0:
            raise InvalidArgument("an orthogonal law needs a gain above 0; received 0")
        square = shape is not None and shape[0] == shape[1]
        names = ("distribution", "independence", *(("determinant",) if square else ()))
        return dict.fromkeys(names, ("absolute", 0.25))
    if not isinstance(law, Distribution):
        raise InvalidArgument(
            f"law must be exact, such as Normal(0.0, 0.02), or Orthogonal or Sparse; received "
            f"{law!r}; an initializer gives its law by resolve(shape, layout)"
        )
    if isinstance(law, Constant):
        return {"support": ("absolute", 0.5)}
    if not law.moments[1] > 0:
        raise InvalidArgument(f"{law} has one value only; use Constant")
    if isinstance(law, Bernoulli):
        return dict.fromkeys(("mean", "independence", "support"), ("sd", 0.02))
    return dict.fromkeys(("std", *CONTINUOUS), ("relative", 0.02))


def _effects(
    law: Law, detects: Mapping[str, Effect] | None, shape: tuple[int, int] | None
) -> dict[str, tuple[str, float, float]]:
    """Return statistic -> unit, size, miss, all checked."""
    known = _statistics(law, shape)
    default = next(iter(known))
    if detects is None:
        detects = {} if default == "support" else {default: known[default]}
    effects = {}
    for name, effect in detects.items():
        checks.choice(f"statistic of {law}", name, tuple(known))
        if not isinstance(effect, tuple) or len(effect) not in (2, 3):
            raise InvalidArgument(
                f"detects[{name!r}] must be (unit, size) or (unit, size, miss); received {effect!r}"
            )
        unit, size, miss = (*effect, MISS)[:3]
        checks.choice(f"unit of {name}", unit, UNITS.get(name, ("absolute",)))
        checks.finite(f"the size of {name}", size, low=0.0, open_low=True)
        if not 0 < checks.finite(f"the miss rate of {name}", miss) < 1:
            raise InvalidArgument(f"a miss rate lies between 0 and 1; received {miss:g}")
        if name not in UNITS and size >= 1:
            raise InvalidArgument(f"{name} differs by a probability below 1; received {size:g}")
        effects[name] = (unit, float(size), float(miss))
    return effects


# --- the plan -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """One verdict to be: how many samples it needs, and how to judge them."""

    needed: int
    judge: Callable[[np.ndarray], Verdict]


def _plan(
    law: Law,
    effects: Mapping[str, tuple[str, float, float]],
    false_alarm: float,
    dtype: str,
    shape: tuple[int, int] | None,
) -> list[_Part]:
    rated = [name for name in effects if name != "support"]
    # a sparse law spends a share on zeros beyond the structural ones
    rate = false_alarm / max(1, len(rated) + isinstance(law, Sparse))
    parts: list[_Part] = []
    for name in rated:
        unit, size, miss = effects[name]
        if isinstance(law, Orthogonal):
            parts += _orthogonal_parts(name, max(shape or (1,)), size, miss, rate, dtype)
        elif name == "independence":
            parts += _pairs(*_coin(_entry_law(law), dtype), size, miss, rate)
        else:
            parts.append(_entry_part(name, unit, size, miss, _entry_law(law), rate, dtype))
    return parts


def _entry_law(law: Distribution | Sparse) -> Distribution:
    return law.law if isinstance(law, Sparse) else law


def _entry_part(
    name: str, unit: str, size: float, miss: float, law: Distribution, rate: float, dtype: str
) -> _Part:
    std = math.sqrt(law.moments[1])
    if name == "distribution":
        return _law_part(law.cdf, size, miss, rate, dtype)
    if isinstance(law, Bernoulli):
        shift = (size * std if unit == "sd" else size) / law.scale
        claim = f"fraction of {law} that is kept"
        return _fraction_part(
            lambda x: x != 0, claim, law.keep, verdicts.grid(dtype), shift, miss, rate
        )
    if name == "variance":
        size = math.sqrt(1 + size / (std**2 if unit == "absolute" else 1)) - 1
    elif unit == "absolute":
        size /= std
    power, judge = (1, verdicts.mean) if name == "mean" else (2, verdicts.spread)
    needed = verdicts.moment_size(law, power, size, dtype, rate, miss)
    return _Part(
        needed,
        lambda x: judge(x, law, detects=size, dtype=dtype, false_alarm=rate, miss=miss),
    )


def _law_part(
    cdf: Callable[[np.ndarray], np.ndarray], size: float, miss: float, rate: float, dtype: str
) -> _Part:
    return _Part(
        verdicts.distribution_size(size, dtype=dtype, false_alarm=rate, miss=miss),
        lambda x: verdicts.distribution(
            x, cdf, detects=size, dtype=dtype, false_alarm=rate, miss=miss
        ),
    )


def _fraction_part(
    hit: Callable[[np.ndarray], np.ndarray],
    claim: str,
    probability: float,
    slack: float,
    size: float,
    miss: float,
    rate: float,
    each: int = 1,
) -> _Part:
    """Return the part that judges `hit(samples)`, one boolean for `each` samples."""
    return _Part(
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
    """Return a level, the probability that two independent values agree about it, and its slack.

    Both lie above or both not with probability ``p**2 + (1 - p)**2``, p that of one. Rounding and
    the generator's grid move p by at most b, and so the agreement by ``2 |2 p - 1| b + 2 b**2``.
    """
    if isinstance(law, Bernoulli):
        level, p, b = 0.0, law.keep, verdicts.grid(dtype)
    else:  # symmetric: the mean is the median
        level, p = law.moments[0], 0.5
        ulp = FORMATS[dtype].ulp(np.array(level))
        b = float(law.cdf(level + ulp)) - 0.5 + verdicts.grid(dtype)
    return level, p * p + (1 - p) ** 2, 2 * abs(2 * p - 1) * b + 2 * b * b


def _pairs(
    level: float, agree: float, slack: float, size: float, miss: float, rate: float
) -> list[_Part]:
    """Return the parts for neighbours and halves: disjoint pairs, so that each is independent."""

    def neighbours(x: np.ndarray) -> np.ndarray:
        above = x > level
        return np.asarray(above[0 : 2 * (x.size // 2) : 2] == above[1::2])

    def halves(x: np.ndarray) -> np.ndarray:
        above, half = x > level, x.size // 2
        return np.asarray(above[:half] == above[half : 2 * half])

    return [
        _fraction_part(
            hit, f"fraction of {what} on one side", agree, slack, size, miss, rate / 2, each=2
        )
        for hit, what in ((neighbours, "neighbours"), (halves, "values half a sample apart"))
    ]


# --- orthogonal ---------------------------------------------------------------------------------


def _orthogonal_parts(
    name: str, size: int, effect: float, miss: float, rate: float, dtype: str
) -> list[_Part]:
    def determinant(q: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.det(q) > 0)

    if name == "determinant":
        claim = "fraction of positive determinants"
        return [_fraction_part(determinant, claim, 0.5, 0.0, effect, miss, rate)]
    parts = []
    for corner in (0, -1):
        if name == "independence":
            entry = _pairs(0.0, 0.5, 0.0, effect, miss, rate / 2)
        else:
            entry = [_law_part(_haar_entry(size), effect, miss, rate / 2, dtype)]
        parts += [_Part(part.needed, _of_corner(part.judge, corner)) for part in entry]
    return parts


def _of_corner(judge: Callable[[np.ndarray], Verdict], corner: int) -> Callable[..., Verdict]:
    def judged(q: np.ndarray) -> Verdict:
        last = min(q.shape[1:]) - 1
        index = 0 if corner == 0 else last
        return judge(q[:, index, index])

    return judged


def _haar_entry(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the distribution function of an entry q of a Haar-distributed matrix.

    q is symmetric about 0 and ``q**2 ~ Beta(1/2, (n - 1)/2)``, n the larger size: the first
    coordinate of a uniformly distributed unit vector (Mezzadri 2007, section 4).
    """
    from scipy.special import betainc

    def cdf(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=np.float64)
        if size == 1:  # a fair sign
            return np.asarray(((x >= -1).astype(float) + (x >= 1)) / 2)
        within = betainc(0.5, (size - 1) / 2, np.minimum(x * x, 1.0))
        return np.asarray(0.5 + np.sign(x) * within / 2)

    return cdf


# --- support ------------------------------------------------------------------------------------


def _support(
    values: np.ndarray,
    view: np.ndarray,
    law: Law,
    effects: Mapping[str, tuple[str, float, float]],
    false_alarm: float,
    dtype: str,
) -> list[Verdict]:
    if isinstance(law, Orthogonal):
        return [_orthogonality(view, law.gain, dtype)]
    _, _, miss = effects.get("support", ("", 0.0, MISS))
    smallest = verdicts.support_resolution(view.size, miss)
    inside = verdicts.support(view, _entry_law(law), detects=smallest, dtype=dtype, miss=miss)
    if isinstance(law, Sparse):
        rated = 1 + sum(name != "support" for name in effects)
        return [inside, *_zeros(values, view, law, false_alarm / rated, dtype)]
    return [inside]


def _orthogonality(q: np.ndarray, gain: float, dtype: str) -> Verdict:
    _, m, n = q.shape
    gram = q @ q.transpose(0, 2, 1) if m <= n else q.transpose(0, 2, 1) @ q
    # many matrices: LAPACK's ratio, since the largest error grows with their number
    working = "float64" if dtype == "float64" else "float32"
    limit = rounding.orthogonality(m, n, dtype) + rounding.factorization(m, n, working)
    if math.frexp(gain)[0] != 0.5:  # the gain and its products are rounded
        limit += 2 * float(FORMATS[dtype].ulp(np.array(1.0)))
    return Verdict(
        f"largest entry of |W W^T / {gain:g}**2 - I|",
        float(np.max(np.abs(gram - np.eye(min(m, n))))),
        0.0,
        limit,
        len(q),
        0.0,
        f"an entry off by {2 * limit:g}",
        smallest=f"an entry off by {limit:g}",
    )


def _zeros(
    values: np.ndarray, view: np.ndarray, law: Sparse, rate: float, dtype: str
) -> list[Verdict]:
    """Judge that no column has too few zeros, and that no more are added than rounding makes."""
    wanted = law.zeros(len(values))
    short = int(np.count_nonzero(np.count_nonzero(values == 0, axis=0) < wanted))
    tiny = FORMATS[dtype].ulp(np.array(0.0))
    rounded = float(law.law.cdf(tiny) - law.law.cdf(-tiny)) + verdicts.grid(dtype)
    _, high = bounds.proportion((0.0, rounded), view.size, rate)
    effect = f"a probability of {verdicts.above(high, view.size, MISS):g} of further zeros"
    columns = values.shape[1]
    return [
        Verdict(f"columns with fewer than {wanted} zeros", short, 0, 0, columns, 0.0, "one column"),
        Verdict(
            f"fraction of zeros beyond {wanted} in each column",
            float(np.mean(view == 0)),
            0.0,
            high,
            view.size,
            rate,
            effect,
            smallest=effect,
        ),
    ]


def _entries(values: np.ndarray, law: Sparse) -> np.ndarray:
    """Return what is left of each column without its first structural zeros."""
    zero = values == 0
    structural = zero & (np.cumsum(zero, axis=0) <= law.zeros(len(values)))
    return np.asarray(values[~structural])


# --- the message --------------------------------------------------------------------------------


def _message(
    values: np.ndarray,
    view: np.ndarray,
    law: Law,
    found: tuple[Verdict, ...],
    false_alarm: float,
    dtype: str,
) -> str:
    lines = [f"samples of shape {values.shape} do not follow {law}:"]
    for verdict in found:
        if not verdict.passed:
            smallest = verdict.smallest or verdict.detects
            lines.append(f"  {verdict}; the smallest effect it detects is {smallest}")
    if not isinstance(law, Orthogonal):
        entry = _entry_law(law)
        lines += [
            f"  hint: {hint}"
            for hint in hints.explain(view, entry, values.shape, false_alarm, dtype)
        ]
    return "\n".join(lines)
