"""The normal quantile by operations that IEEE 754 rounds exactly: the same bits on every machine.

``exp``, ``log`` and ``erf`` differ between C libraries in their last bits, and a compiler may fuse
``a * b + c``; +, -, * and bit operations, each a NumPy call of its own, leave no such freedom. So
the quantile is a piecewise polynomial: a cell for each exponent and top `SPLIT` mantissa bits of
the probability, `DEGREE` + 1 coefficients in each, and Horner's rule.

The coefficients are computed at the first use (0.15 s) in decimal arithmetic, in which the General
Decimal Arithmetic Specification fixes every digit, ``exp`` and ``sqrt`` included. For the
upper-tail quantile z(p), ``1 - Phi(z) = p`` gives ``z' = -1 / phi(z)`` and hence

    z'' = z (z')**2      (Steinbrecher and Shaw 2008, Quantile mechanics, Eur. J. Appl. Math. 19)

The Taylor coefficients at a cell's centre follow from z and z' there, and from them z and z' at
the next centre: an integration from p = 2**-64 up to p = 1/2. Upwards, errors shrink relative to
p; at p = 1/2, where z must be 0, 23 decimals are right.
"""

from __future__ import annotations

import functools
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

import numpy as np

__all__ = ["upper_quantile"]

Series = list[Decimal]

SPLIT = 5
CELLS = 1 << SPLIT  # per binade
BINADES = 63  # p from 2**-64 to 1/2
DEGREE = 8  # what the polynomials leave out is below 64**-9 / 9 = 6e-18
TERMS = 17  # what an integration step of at most 3/64 leaves out, below (3/64)**18 / 18 = 7e-26
PI = Decimal("3.14159265358979323846264338327950288")
START = Decimal("9.08015512487361266922209289434936")  # the quantile of 2**-64

_SHIFT = np.int64(52 - SPLIT)
_FIRST = np.int64(1023 << SPLIT)  # exponent and top mantissa bits of 1.0
_FRACTION = np.int64((1 << (52 - SPLIT)) - 1)
_ONE = np.int64(1023 << 52)
_CENTRE = 1 + 0.5 / CELLS


def upper_quantile(x: np.ndarray) -> np.ndarray:
    """Return z with ``1 - Phi(z) = x / 2**64``, Phi the distribution function of N(0, 1).

    Parameters
    ----------
    x : float64 array (n,), contiguous, ``1 <= x <= 2**63``

    Returns
    -------
    float64 array (n,)
        Within ``3e-16 max(1, |z|)`` of the exact quantile of the given x: half an ULP each from
        the constant coefficient and the last addition, and below a tenth of that from the rest.
    """
    bits = x.view(np.int64)
    cell = bits >> _SHIFT
    cell -= _FIRST
    position = ((bits & _FRACTION) | _ONE).view(np.float64)
    position -= _CENTRE  # distance to the cell's centre, exact, at most 1/64
    highest, *lower = _coefficients()
    # every index is valid; mode="clip" spares take a buffer
    z: np.ndarray = highest.take(cell, mode="clip")
    term = np.empty_like(z)
    for coefficients in lower:
        z *= position
        z += coefficients.take(cell, mode="clip", out=term)
    return z


@functools.cache
def _coefficients() -> np.ndarray:
    """Return the coefficients (DEGREE + 1, BINADES * CELLS + 1), highest power first.

    In each binade p is measured in units of its lower end, so that every cell is 1/32 wide, and
    from one binade to the next the slope doubles. The last cell is there for p = 1/2 alone.
    """
    half = Decimal(1) / (2 * CELLS)
    rows = []
    with localcontext(Context(prec=30, rounding=ROUND_HALF_EVEN)):
        slope = -(2 * PI).sqrt() * (START * START / 2).exp() / 2**64
        series = _taylor(START, slope)
        step = half  # from the lower end of the first binade to the first centre
        for index in range(BINADES * CELLS + 1):
            z, slope = _value_and_slope(series, step)
            if index and index % CELLS == 0:
                slope *= 2
            series = _taylor(z, slope)
            rows.append([float(c) for c in reversed(series[: DEGREE + 1])])
            # the first cell of the next binade is twice as wide in the units of this one
            step = 3 * half if index % CELLS == CELLS - 1 else 2 * half
    return np.ascontiguousarray(np.transpose(rows))


def _taylor(z: Decimal, slope: Decimal) -> Series:
    """Return the first TERMS + 1 coefficients of the solution of ``z'' = z (z')**2``."""
    series, slopes, squares = [z, slope], [slope], Series()
    for k in range(TERMS - 1):
        squares.append(_convolution(slopes, slopes, k))
        slopes.append(_convolution(series, squares, k) / (k + 1))
        series.append(slopes[-1] / (k + 2))
    return series


def _convolution(a: Series, b: Series, k: int) -> Decimal:
    """Return coefficient k of the product of two power series."""
    return sum((a[i] * b[k - i] for i in range(k + 1)), Decimal(0))


def _value_and_slope(series: Series, step: Decimal) -> tuple[Decimal, Decimal]:
    """Return the power series and its derivative at `step`, by Horner's rule."""
    value = slope = Decimal(0)
    for coefficient in reversed(series):
        slope = slope * step + value
        value = value * step + coefficient
    return value, slope
