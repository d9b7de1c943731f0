"""Shapes that clauses have in common: JAX compiles each draw and each QR anew for a new one."""

from __future__ import annotations

__all__ = ["CONVOLUTION", "DENSE", "SQUARE", "TALL"]

DENSE = (400, 640)
"""A dense weight in either layout; inputs and outputs differ, so that swapped fans show."""
CONVOLUTION = (16, 20, 24, 34)
"""A convolution in either layout, (out, in, *kernel) or (*kernel, in, out); all sizes differ."""
TALL = (48, 20)
SQUARE = (32, 32)
