"""Shapes that clauses have in common: JAX compiles each draw and each QR anew for a new one."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["CONVOLUTION", "DENSE", "ENTRIES", "FEW", "SQUARE", "TALL", "entries"]

DENSE = (400, 640)
"""A dense weight in either layout; inputs and outputs differ, so that swapped fans show."""
CONVOLUTION = (16, 20, 24, 34)
"""A convolution in either layout, (out, in, *kernel) or (*kernel, in, out); all sizes differ."""
TALL = (48, 20)
SQUARE = (20, 20)
FEW = 64
"""How many values a short draw has."""
ENTRIES = (2, 1, 30, 70)
"""What activations are given, wherever their shape does not matter."""


def entries(values: np.ndarray) -> np.ndarray:
    """Return the values, repeated until there are as many as `ENTRIES` has, in that shape."""
    assert len(values) <= math.prod(ENTRIES)
    return np.resize(values, (*ENTRIES, *values.shape[1:]))
