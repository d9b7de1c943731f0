"""What is known of the product of two matrices from its factors alone.

A (m, k) and B (k, n), singular values s_1 >= s_2 >= ... of A and t_1 >= t_2 >= ... of B:

- **one by one** (Horn and Johnson 1991, Topics in Matrix Analysis, theorem 3.3.16):
  ``sigma_{i+j-1}(AB) <= s_i t_j``; and, for square factors, from their inverses by continuity,
  ``sigma_{i+j-n}(AB) >= s_i t_j``. With i or j at an end: ``||AB|| <= ||A|| ||B||``,
  ``s_n t_i <= sigma_i(AB) <= s_1 t_i``;
- **products of the largest** (Horn 1950): ``sigma_1 ... sigma_k(AB) <= s_1 t_1 ... s_k t_k``, equal
  for k = n where the factors are square, both sides being ``|det A| |det B|``;
- **eigenvalues** (Weyl 1949): ``|lambda_1 ... lambda_k(M)| <= sigma_1 ... sigma_k(M)``, equal for
  k = n. There is no such bound by the eigenvalues of the factors: of ``[[0, 1], [0, 0]]`` and its
  transpose both are 0, and the product has the eigenvalue 1;
- **congruence** (Ostrowski 1959; Horn and Johnson 2013, theorem 4.5.9): for a Hermitian H,
  ``lambda_i(S H S*) = theta_i lambda_i(H)`` with ``sigma_n(S)**2 <= theta_i <= sigma_1(S)**2``;
- **condition numbers**: ``max(c(A)/c(B), c(B)/c(A)) <= c(AB) <= c(A) c(B)`` for square factors;
- **ranks** (Sylvester 1884): ``rank A + rank B - k <= rank AB <= min(rank A, rank B)``.

Each is the best of its kind: some pair reaches it, which `reaching` builds. Singular values come
and go as arrays (..., n), descending, a batch at a time.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = [
    "GAUSSIAN_LOG_CONDITION",
    "condition_interval",
    "gaussian_condition_cdf",
    "horn_logs",
    "log_products",
    "ostrowski_interval",
    "rank_interval",
    "reaching",
    "singular_intervals",
]


GAUSSIAN_LOG_CONDITION = math.pi / 2
"""E ln c of a 2 x 2 Gaussian matrix: the integral of ``2 / (x**2 + 1)`` from 1.

What the bound of the condition number of a product of such matrices grows by, a factor, where the
product's own grows by ln 2 alone, the difference of its Lyapunov exponents."""


def singular_intervals(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high): the narrowest intervals that hold each ``sigma_k(AB)``, A and B square.

    ``high_k = min s_i t_j over i + j = k + 1`` and ``low_k = max s_i t_j over i + j = k + n``.

    Parameters
    ----------
    s, t : numpy.ndarray (..., n)
        Singular values of A and B, descending.

    Returns
    -------
    low, high : numpy.ndarray (..., n)

    Raises
    ------
    InvalidArgument
        If the two have different numbers of singular values.
    """
    s, t = _alike(s, t)
    n = s.shape[-1]
    high = [np.min(s[..., : k + 1] * t[..., k::-1], axis=-1) for k in range(n)]
    low = [np.max(s[..., k:] * t[..., : k - 1 if k else None : -1], axis=-1) for k in range(n)]
    return np.stack(low, axis=-1), np.stack(high, axis=-1)


def log_products(values: np.ndarray) -> np.ndarray:
    """Return ``ln(v_1 ... v_k)`` for k = 1 .. n over the last axis; -inf from the first 0 on."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.cumsum(np.log(values), axis=-1))


def horn_logs(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return Horn's bounds of ``ln(sigma_1 ... sigma_k(AB))``, k = 1 .. n; shapes as above."""
    s, t = _alike(s, t)
    return np.asarray(log_products(s) + log_products(t))


def condition_interval(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) of ``c(AB)``, given the condition numbers of two square factors."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if np.any(a < 1) or np.any(b < 1):
        raise InvalidArgument(
            f"a condition number s_1 / s_n is at least 1; received {min(a.min(), b.min()):g}"
        )
    return np.maximum(a / b, b / a), a * b


def rank_interval(a: int, b: int, inner: int) -> tuple[int, int]:
    """Return (low, high) of ``rank(AB)``, given the ranks and the k of (m, k) (k, n)."""
    checks.integer("inner", inner, low=1)
    for name, rank in (("rank of A", a), ("rank of B", b)):
        checks.integer(name, rank, low=0, high=inner)
    return max(0, a + b - inner), min(a, b)


def ostrowski_interval(eigenvalues: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) of each ``lambda_i(S H S*)``, S square and nonsingular.

    Parameters
    ----------
    eigenvalues : numpy.ndarray (..., n)
        Of the Hermitian H, descending.
    s : numpy.ndarray (..., n)
        Singular values of S, descending.
    """
    values, s = _alike(eigenvalues, s)
    ends = values * np.square(s[..., :1]), values * np.square(s[..., -1:])
    return np.minimum(*ends), np.maximum(*ends)


def reaching(k: int, n: int, *, ratio: float, high: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the diagonals of a pair for which ``sigma_k(AB)`` is the end of its interval.

    High: A is `ratio` > 1 at i - 1 places and B at j - 1 others, i + j = k + 1, and both are 1
    elsewhere. The product is `ratio` at k - 1 places, so that ``sigma_k = 1 = s_i t_j``. Low: both
    are 1 / ratio at places of their own, n - k in all.

    Parameters
    ----------
    k : int
        Which singular value of the product, from 1.
    n : int
        Size of the factors.

    Returns
    -------
    a, b : numpy.ndarray (n,)
    """
    checks.integer("k", k, low=1, high=n)
    checks.finite("ratio", ratio, low=1.0, open_low=True)
    a, b = np.ones(n), np.ones(n)
    count = k - 1 if high else n - k
    value = ratio if high else 1 / ratio
    a[: count // 2] = value
    b[count // 2 : count] = value
    return a, b


def gaussian_condition_cdf(x: np.ndarray) -> np.ndarray:
    """Return ``P(c <= x) = 1 - 2 x / (x**2 + 1)`` of a 2 x 2 matrix of independent N(0, s**2).

    ``2 |det| / ||A||_F**2 = 2 / (c + 1/c)`` is uniform on [0, 1]: for entries a, b, c, d,
    ``||A||**2 +- 2 det = (a +- d)**2 + (b -+ c)**2`` are two independent exponential variables, and
    their difference over their sum is uniform on [-1, 1] (for all sizes: Edelman 1988, SIAM J.
    Matrix Anal. Appl. 9, 543-560).
    """
    x = np.maximum(np.asarray(x, dtype=float), 1.0)
    return np.asarray(np.square(x - 1) / (np.square(x) + 1))


def _alike(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s, t = np.asarray(s, dtype=float), np.asarray(t, dtype=float)
    if s.shape[-1:] != t.shape[-1:] or not s.ndim:
        raise InvalidArgument(
            "both factors must be square and of one size: give as many values of each; received "
            f"arrays of shapes {s.shape} and {t.shape}"
        )
    return s, t
