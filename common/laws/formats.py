"""The four floating-point formats: precision, exponent range, and the spacing of their values.

========= ========= ============ ============
name      precision min_exponent max_exponent
========= ========= ============ ============
float16   11        -14          15
bfloat16  8         -126         127
float32   24        -126         127
float64   53        -1022        1023
========= ========= ============ ============

Source: IEEE 754-2019, table 3.5; bfloat16 is float32 with 16 bits of the significand dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True)
class Format:
    """A binary format: ``precision`` bits of significand, exponents of its normal numbers."""

    precision: int
    min_exponent: int
    max_exponent: int

    @property
    def largest(self) -> float:
        """Largest finite value, ``(2 - 2**(1 - precision)) * 2**max_exponent``."""
        return math.ldexp(2.0 - math.ldexp(1.0, 1 - self.precision), self.max_exponent)

    @property
    def smallest_normal(self) -> float:
        """Smallest positive normal value, ``2**min_exponent``."""
        return math.ldexp(1.0, self.min_exponent)

    @property
    def eps(self) -> float:
        """Distance from 1 to the next number, ``2**(1 - precision)``: `ulp` at 1."""
        return math.ldexp(1.0, 1 - self.precision)

    def ulp(self, x: np.ndarray) -> np.ndarray:
        """Return the unit in the last place at x, ``2**(max(e, min_exponent) - precision + 1)``.

        e is the exponent of x, ``2**e <= |x| < 2**(e+1)``; the result is float64 and exact. At 0 it
        is the smallest subnormal.
        """
        size = np.maximum(np.abs(np.asarray(x, dtype=np.float64)), self.smallest_normal)
        _, exponent = np.frexp(size)
        lowest = np.maximum(exponent - 1, self.min_exponent)
        return np.asarray(np.ldexp(1.0, np.minimum(lowest, self.max_exponent) - self.precision + 1))


FORMATS: dict[str, Format] = {
    "float16": Format(11, -14, 15),
    "bfloat16": Format(8, -126, 127),
    "float32": Format(24, -126, 127),
    "float64": Format(53, -1022, 1023),
}
