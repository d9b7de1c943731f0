r"""Activations and their derivatives: float64 references, a decimal oracle, and where they vanish.

=========== ================ ========================== ==================================
activation  value            derivative                 usual code, and where it is 0
=========== ================ ========================== ==================================
sigmoid     1 / (1 + e^-x)   e / (1 + e)^2, e = e^-|x|  y (1 - y): once y rounds to 1
tanh        tanh x           1 / cosh(x)^2              1 - y^2: once y rounds to 1
relu        max(x, 0)        1 if x > 0 else 0          the same
leaky_relu  x or slope * x   1 if x > 0 else slope      the same
=========== ================ ========================== ==================================

With p bits of precision the exact y rounds to 1 from ``ln(2**(p+1) - 1)`` for the sigmoid and
``ln(2**(p+2) - 1) / 2`` for tanh (`rounds_to_one`): 17.33 and 9.01 in float32, 37.43 and 19.06 in
float64. Code that rounds 1 + e^-x first gives 1 already from ``p ln 2``: 16.64 and 36.74. Just
before, y (1 - y) is off by up to its own size. The derivative itself stays a normal number much
longer (`largest_normal`): to 87.33 and 44.36, 708.39 and 354.89. For negative x the sigmoid is
small and y (1 - y) is right: its loss is one-sided, that of tanh two-sided.

References: LeCun et al. 1998, Efficient BackProp, section 4.4, for the activations; Higham 2002,
Accuracy and Stability of Numerical Algorithms, section 1.7, for the cancellation in 1 - y.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np

from isometry.common import checks
from isometry.common.laws.formats import FORMATS

__all__ = [
    "SMOOTH",
    "exact",
    "exact_gradient",
    "largest_normal",
    "leaky_relu",
    "leaky_relu_gradient",
    "relu",
    "relu_gradient",
    "rounds_to_one",
    "sigmoid",
    "sigmoid_gradient",
    "tanh",
    "tanh_gradient",
]

SMOOTH = ("sigmoid", "tanh")
_DIGITS = decimal.Context(prec=50, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return ``1 / (1 + exp(-x))`` in float64, as ``1/(1+e)`` or ``e/(1+e)``, e = exp(-|x|).

    Error at most 3 ULP where the result is normal.
    """
    x = np.asarray(x, dtype=np.float64)
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1.0) / (1.0 + e))


def sigmoid_gradient(x: np.ndarray) -> np.ndarray:
    """Return ``e / (1 + e (2 + e))``, ``e = exp(-|x|)``, in float64; error at most 3 ULP."""
    e = np.exp(-np.abs(np.asarray(x, dtype=np.float64)))
    return np.asarray(e / (1.0 + e * (2.0 + e)))


def tanh(x: np.ndarray) -> np.ndarray:
    """Return NumPy's tanh in float64; error at most 2 ULP."""
    return np.asarray(np.tanh(np.asarray(x, dtype=np.float64)))


def tanh_gradient(x: np.ndarray) -> np.ndarray:
    """Return ``4 / (E + (2 + 1/E))``, ``E = exp(2|x|)``, in float64; error at most 3 ULP.

    E overflows from |x| = 354.89 on, where the result is 0 instead of a subnormal number.
    """
    with np.errstate(over="ignore"):
        grown = np.exp(2.0 * np.abs(np.asarray(x, dtype=np.float64)))
    return np.asarray(4.0 / (grown + (2.0 + 1.0 / grown)))


def relu(x: np.ndarray) -> np.ndarray:
    """Return ``max(x, 0)``, exact; NaN stays NaN."""
    return np.asarray(np.maximum(np.asarray(x, dtype=np.float64), 0.0))


def relu_gradient(x: np.ndarray) -> np.ndarray:
    """Return 1 for x > 0, else 0; NaN stays NaN."""
    return leaky_relu_gradient(x, slope=0.0)


def leaky_relu(x: np.ndarray, *, slope: float = 0.01) -> np.ndarray:
    """Return x for x > 0, ``slope * x`` otherwise; half a ULP."""
    x = np.asarray(x, dtype=np.float64)
    return np.asarray(np.where(x > 0, x, slope * x))


def leaky_relu_gradient(x: np.ndarray, *, slope: float = 0.01) -> np.ndarray:
    """Return 1 for x > 0, `slope` for x <= 0; NaN stays NaN."""
    x = np.asarray(x, dtype=np.float64)
    return np.asarray(np.where(np.isnan(x), x, np.where(x > 0, 1.0, slope)))


def exact(activation: str, x: np.ndarray) -> np.ndarray:
    """Return the sigmoid or tanh of finite x to 45 digits or more, as an object array of Decimal.

    The exponential is the standard library's correctly rounded `decimal.Decimal.exp` in 50
    digits, the same on every platform (one of NumPy's longdouble is not).
    """
    return _in_decimal({"sigmoid": _sigmoid, "tanh": _tanh}, activation, x)


def exact_gradient(activation: str, x: np.ndarray) -> np.ndarray:
    """Return the derivative of the sigmoid or tanh to 45 digits or more; otherwise as `exact`."""
    return _in_decimal({"sigmoid": _sigmoid_gradient, "tanh": _tanh_gradient}, activation, x)


def _in_decimal(
    table: dict[str, Callable[[float], Decimal]], activation: str, x: np.ndarray
) -> np.ndarray:
    function = table[checks.choice("activation", activation, SMOOTH)]
    with decimal.localcontext(_DIGITS):
        return np.asarray(np.frompyfunc(function, 1, 1)(np.asarray(x, dtype=np.float64)))


def _sigmoid(x: float) -> Decimal:
    return 1 / (1 + (-Decimal(x)).exp())


def _sigmoid_gradient(x: float) -> Decimal:
    e = (-abs(Decimal(x))).exp()
    return e / (1 + e) ** 2


def _tanh(x: float) -> Decimal:
    if abs(x) < 1e-5:  # where 1 - e cancels: x - x**3/3 + ..., next term x**11 / 100
        t = Decimal(x)
        s = t * t
        return t * (1 - s / 3 * (1 - s * 2 / 5 * (1 - s * 17 / 42 * (1 - s * 62 / 153))))
    e = (-2 * abs(Decimal(x))).exp()
    return ((1 - e) / (1 + e)).copy_sign(Decimal(x))


def _tanh_gradient(x: float) -> Decimal:
    e = (-2 * abs(Decimal(x))).exp()
    return 4 * e / (1 + e) ** 2


def largest_normal(activation: str, dtype: str) -> float:
    """Return the largest float64 x at which the derivative is a normal number of `dtype`.

    Solved in closed form: with m the smallest normal number, ``sigma'(x) = m`` gives
    ``x = -ln e``, ``e = m / ((1 - 2m + sqrt(1 - 4m)) / 2)``, and tanh'(x) = 4 sigma'(2x).
    """
    m = FORMATS[checks.choice("dtype", dtype, tuple(FORMATS))].smallest_normal
    if checks.choice("activation", activation, SMOOTH) == "tanh":
        return _inverse_gradient(m / 4) / 2
    return _inverse_gradient(m)


def _inverse_gradient(value: float) -> float:
    """Return the x >= 0 with sigma'(x) = value; m / 4 stays exact down to the subnormals."""
    rest = (1 - 2 * value + math.sqrt(1 - 4 * value)) / 2
    return math.log(rest) - math.log(value)


def rounds_to_one(activation: str, dtype: str) -> float:
    """Return the x from which the exact activation rounds to 1, so that 1 - y is 0.

    ``1 - y = 2**-(p+1)``: sigmoid at ``ln(2**(p+1) - 1)``, tanh at ``ln(2**(p+2) - 1) / 2``.
    """
    precision = FORMATS[checks.choice("dtype", dtype, tuple(FORMATS))].precision
    if checks.choice("activation", activation, SMOOTH) == "tanh":
        return math.log(math.ldexp(1.0, precision + 2) - 1) / 2
    return math.log(math.ldexp(1.0, precision + 1) - 1)
