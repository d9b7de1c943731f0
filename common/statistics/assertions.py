"""`assert_law`: do samples follow an exact law? With both error rates stated, for anyone's tests.

============= ==================== ================================== ===========================
statistic     units of an effect   what is measured                   source of the bound
============= ==================== ================================== ===========================
mean          sd, absolute         mean; fraction kept of a mask      exact normal or binomial,
                                                                      else Bernstein's inequality
std, variance relative, absolute   second moment about the law's mean exact chi-squared, else
                                                                      Bernstein with its kurtosis
distribution  absolute             Kolmogorov's distance              DKW, Massart 1990
distinct      values               how many different values, in half negative association and
                                   precision                          Bernstein's inequality
independence  absolute             how often two values of a pair lie exact binomial
                                   on the same side of the median
determinant   absolute             fraction of positive determinants  exact binomial
support       absolute             values outside, an exact count     no false alarm
============= ==================== ================================== ===========================

The support is always judged: it costs no false alarm. Of orthogonal matrices it is that they are
orthogonal, and the other statistics take the first and the last diagonal entry of each matrix,
since the entries of one matrix are dependent; of delta-orthogonal kernels also that they are zero
beside the centre tap. Of sparse weights it is the count of zeros in each column; that their rows
are random is judged too, at a share of the rate, and the other statistics take the other entries.

Independence has three uses. The pairs are disjoint neighbours, and values half a sample apart:

- within a draw: pass the draw;
- between two draws of one generator: pass ``np.stack([first, second])``;
- between two seeds: pass ``np.stack([of_one_seed, of_the_other])``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution, Sparse
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.initializers import Orthogonal
from isometry.common.laws.orthogonal import DeltaOrthogonal
from isometry.common.statistics import hints, verdicts
from isometry.common.statistics.matrices import DeltaKernels, Matrices, SparseEntries
from isometry.common.statistics.plans import Checked, Effect, Entries, Part, Plan
from isometry.common.statistics.verdicts import FALSE_ALARM, MISS, Verdict

__all__ = ["Effect", "assert_law", "required_samples"]

Law = Distribution | Orthogonal | DeltaOrthogonal | Sparse

UNITS = {
    "mean": ("sd", "absolute"),
    "std": ("relative", "absolute"),
    "variance": ("relative", "absolute"),
    "distinct": ("values",),
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
        Independent values of any shape; matrices (count, m, n) for `Orthogonal`; kernels
        ``(count, *shape)`` in the law's layout for `DeltaOrthogonal`; one weight (rows, columns)
        for `Sparse`. Anything that `numpy.asarray` takes.
    law : Distribution, Orthogonal, DeltaOrthogonal or Sparse
        Such as ``iso.Normal(0, 0.02)`` or ``iso.VarianceScaling(...).resolve(shape, layout)``.
    false_alarm : float
        Upper bound of the probability that samples of the law fail, whatever their number: of the
        whole call, shared equally by the statistics named.
    detects : mapping, optional
        Statistic -> (unit, size) or (unit, size, miss): each effect of at least this size is
        missed with probability at most `miss`, 1e-6 unless given. The effect of a mean is a shift,
        of std a change of scale about the law's mean, of distinct a generator that has at most
        so many values. By default a change of std by 2 %; of a mask's mean by 0.02 of its standard
        deviation; for orthogonal laws a Kolmogorov distance of 0.25; for `Constant` the support
        alone.
    dtype : {"float16", "bfloat16", "float32", "float64"}, optional
        Of the samples as they were drawn, if the array's is wider: "bfloat16" for float32 values
        of bfloat16. Each value may be off by one unit in the last place of it, and its
        probabilities by 2**-22 (2**-51 in float64), for the generator's grid and arithmetic.

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
    plan = _plan(law, values.shape[1:], dtype)
    effects = _effects(law, plan, detects)
    rate = _rate(false_alarm, plan, effects)
    parts = _parts(plan, effects, rate)
    view = plan.view(values)
    needed = _needed(parts, effects)
    if len(view) < needed:
        claims = ", ".join(
            f"{name} by {size:g} {unit} with miss rate {miss:g}"
            for name, (unit, size, miss) in effects.items()
        )
        raise InvalidArgument(
            f"{len(view)} samples are too few to detect an effect in {claims} of {law} with a "
            f"false alarm of {false_alarm:g}; at least {needed} are needed"
        )
    _, _, miss = effects.get("support", ("", 0.0, MISS))
    found = (
        *plan.support(values, view, miss, rate),
        *(part.judge(view) for part in parts),
    )
    if not all(verdict.passed for verdict in found):
        raise AssertionError(_message(values, view, law, plan, found, false_alarm, dtype))
    return found


def required_samples(
    law: Law,
    detects: Mapping[str, Effect] | None = None,
    false_alarm: float = FALSE_ALARM,
    *,
    dtype: str = "float32",
    shape: tuple[int, ...] | None = None,
) -> int:
    """Return how many samples `assert_law` needs: values, matrices, or entries that are not zero.

    To 1 %, and exact for the support and the distribution. `shape` is that of one matrix or kernel
    of an orthogonal law.

    >>> import isometry as iso
    >>> iso.required_samples(iso.Uniform(), {"distribution": ("absolute", 0.015)})
    181568
    """
    plan = _plan(law, shape or (), checks.choice("dtype", dtype, tuple(FORMATS)))
    effects = _effects(law, plan, detects)
    return _needed(_parts(plan, effects, _rate(false_alarm, plan, effects)), effects)


def _parts(plan: Plan, effects: Mapping[str, Checked], rate: float) -> list[Part]:
    rated = {name: effect for name, effect in effects.items() if name != "support"}
    return [part for name, effect in rated.items() for part in plan.parts(name, effect, rate)]


def _needed(parts: list[Part], effects: Mapping[str, Checked]) -> int:
    needed = [part.needed for part in parts]
    if "support" in effects:
        _, size, miss = effects["support"]
        needed.append(verdicts.support_size(size, miss))
    return max(needed, default=1)


# --- arguments ----------------------------------------------------------------------------------


def _plan(law: Law, shape: tuple[int, ...], dtype: str) -> Plan:
    """Return how samples of one law are judged, `shape` being that of one matrix or kernel."""
    if isinstance(law, Orthogonal):
        if len(shape) != 2:
            raise InvalidArgument(
                f"samples of {law} must be (count, m, n), and the shape of one (m, n); "
                f"received matrices of shape {shape}"
            )
        return Matrices(law.gain, (shape[0], shape[1]), dtype)
    if isinstance(law, DeltaOrthogonal):
        return DeltaKernels(law, shape, dtype)
    if isinstance(law, Sparse):
        return SparseEntries(law, dtype)
    if isinstance(law, Distribution):
        return Entries(law, dtype)
    raise InvalidArgument(
        f"law must be exact, such as Normal(0.0, 0.02), or Orthogonal, DeltaOrthogonal or Sparse; "
        f"received {law!r}; an initializer gives its law by resolve(shape, layout)"
    )


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
    format_ = FORMATS[dtype]
    off = np.isfinite(wide) & (
        (np.fmod(wide, format_.ulp(wide)) != 0) | (np.abs(wide) > format_.largest)
    )
    if off.any():
        raise InvalidArgument(
            f"samples said to be {dtype} must be representable in it; "
            f"received {float(wide[off][0])!r} and {np.count_nonzero(off) - 1} more that are not"
        )
    return dtype


def _rate(false_alarm: float, plan: Plan, effects: Mapping[str, Checked]) -> float:
    """Return the share of each statistic that spends false alarm."""
    if not 0 < checks.finite("false_alarm", false_alarm) < 1:
        raise InvalidArgument(
            f"false_alarm must be a probability above 0 and below 1; received {false_alarm:g}"
        )
    return false_alarm / max(1, plan.always + sum(name != "support" for name in effects))


def _effects(law: Law, plan: Plan, detects: Mapping[str, Effect] | None) -> dict[str, Checked]:
    """Return statistic -> unit, size, miss, all checked."""
    known = plan.statistics
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


# --- the message --------------------------------------------------------------------------------


def _message(
    values: np.ndarray,
    view: np.ndarray,
    law: Law,
    plan: Plan,
    found: tuple[Verdict, ...],
    false_alarm: float,
    dtype: str,
) -> str:
    lines = [f"samples of shape {values.shape} do not follow {law}:"]
    for verdict in found:
        if not verdict.passed:
            smallest = verdict.smallest or verdict.detects
            lines.append(f"  {verdict}; the smallest effect it detects is {smallest}")
    if plan.entry is not None:
        explained = hints.explain(view, plan.entry, values.shape, false_alarm, dtype)
        lines += [f"  hint: {hint}" for hint in explained]
    return "\n".join(lines)
