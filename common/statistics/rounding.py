"""Derived bounds of rounding errors in linear algebra, for whole matrices rather than entries.

u = eps / 2 is the unit roundoff of the dtype. Source of all: Higham 2002, Accuracy and Stability
of Numerical Algorithms.
"""

from __future__ import annotations

import numpy as np

from isometry.common.laws.formats import FORMATS

__all__ = ["factorization", "log_scale", "orthogonality", "product"]


def _eps(dtype: str) -> float:
    return float(FORMATS[dtype].ulp(np.array(1.0)))


def product(steps: int, size: int, dtype: str) -> float:
    """Return the relative error of a product of `steps` size x size matrices, ``k n eps``.

    In units of ``||P|| ||F_1|| ... ||F_k||`` (Frobenius); section 3.5, eq. 3.12, with a factor of
    2 for the second-order terms and for dividing by the largest entry.
    """
    return steps * size * _eps(dtype)


def log_scale(steps: int, largest: float, dtype: str) -> float:
    """Return the error of a sum of `steps` logarithms of absolute value at most `largest`.

    Recursive summation, ``(k - 1) u sum |log|``, and 4 ULP for each logarithm (section 4.2).
    """
    return steps * (steps + 4) * largest * _eps(dtype)


def factorization(rows: int, columns: int, dtype: str) -> float:
    """Return the error of a QR or SVD in units of ``||A||``, ``30 max(m, n) eps``.

    30 is the ratio from which LAPACK's own tests of a QR call it wrong (TESTING/dtest.in; those of
    the SVD allow 50).
    """
    return 30 * max(rows, columns) * _eps(dtype)


def orthogonality(rows: int, columns: int, dtype: str) -> float:
    """Return the largest entry of ``|Q^T Q - I|`` after a Householder QR, ``max(m, n) eps``.

    Theorem 19.4 has ``c m n**(3/2) u`` in the Frobenius norm; errors of a random matrix's
    reflections do not all point the same way. In half precisions the rounding of Q's own entries
    is added: by Cauchy-Schwarz, ``|row| |error of row| <= eps`` for unit rows.
    """
    working = "float64" if dtype == "float64" else "float32"
    rounded = 0.0 if dtype == working else _eps(dtype)
    return max(rows, columns) * _eps(working) + rounded
