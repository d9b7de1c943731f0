"""Every tolerance of the project, in units in the last place (ULP), and how to measure it.

A budget bounds the distance from the *exact* value for the given input, in ULP of the result's
dtype at the exact value, wherever that value is a normal number. Two results that both keep a
budget differ by at most twice that budget.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.common import checks
from isometry.common.laws.formats import FORMATS

__all__ = [
    "ACTIVATION_ULP",
    "AGREEMENT_ULP",
    "TANH_ULP",
    "ulp_distance",
]

ACTIVATION_ULP: dict[str, float] = {"float16": 1, "bfloat16": 1, "float32": 4, "float64": 3}
"""The sigmoid and the derivatives; 1 in half precisions is a faithful rounding."""

TANH_ULP: dict[str, float] = {**ACTIVATION_ULP, "float32": 8, "float64": 8}
"""tanh itself, which is the framework's own: a rational function in Eigen and XLA, up to 7 ULP."""

AGREEMENT_ULP: dict[str, int] = {name: int(2 * budget) for name, budget in ACTIVATION_ULP.items()}
"""Between two backends that both keep `ACTIVATION_ULP`."""


def ulp_distance(observed: np.ndarray, exact: np.ndarray, dtype: str) -> np.ndarray:
    """Return ``|observed - exact| / ulp(exact)``, the error in ULP of `dtype`, elementwise.

    Parameters
    ----------
    observed : numpy.ndarray
        Values of `dtype`; bfloat16 as the float32 that `Backend.to_numpy` returns.
    exact : numpy.ndarray
        float64 or wider; or, for float64 results, an object array of an exact type:
        `Decimal`, `Fraction` or `mpmath.mpf`, from which `observed` is subtracted in that type.
    dtype : {"float16", "bfloat16", "float32", "float64"}

    Returns
    -------
    numpy.ndarray, float64
        0 where both are the same infinity or both NaN, inf where only one is. With a float64
        `exact` the result carries that reference's own error: 2**-29 ULP for float32 results,
        half a ULP for float64.
    """
    checks.choice("dtype", dtype, tuple(FORMATS))
    values, reference = np.broadcast_arrays(np.asarray(observed), np.asarray(exact))
    unit = FORMATS[dtype].ulp(reference.astype(np.float64))
    if reference.dtype == object:
        return np.asarray(_exact_distance(values, reference, unit), dtype=np.float64)
    wide = np.result_type(reference.dtype, np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.abs(values.astype(wide) - reference) / unit
    same = (values == reference) | (np.isnan(values) & np.isnan(reference))
    finite = np.isfinite(values) & np.isfinite(reference)
    return np.asarray(np.where(same, 0.0, np.where(finite, distance, np.inf)), dtype=np.float64)


def _exact_distance(values: np.ndarray, reference: np.ndarray, unit: np.ndarray) -> np.ndarray:
    def one(value: float, exact: Any, unit: float) -> float:
        if not np.isfinite(value):
            return np.inf
        number = type(exact)  # an exact type takes a float without rounding it
        return float(abs(number(float(value)) - exact) / number(float(unit)))

    return np.asarray(np.frompyfunc(one, 3, 1)(values, reference, unit))
