"""Spectra of symmetric matrices known by their products with vectors alone.

A is symmetric, n x n, and given as ``apply(v) = A v``, NumPy vectors in and out.

- **Lanczos** (Parlett 1998, The Symmetric Eigenvalue Problem, chapter 13): m products give a
  tridiagonal T = Q^T A Q. Its eigenvalues theta_i (Ritz values) lie between those of A, and within
  ``beta_m |e_m^T s_i|`` of each there is one of A (section 4.5), s_i its eigenvectors.
- **Quadrature** (Golub and Meurant 2010, Matrices, Moments and Quadrature, chapter 6): with the
  weights ``(e_1^T s_i)**2`` the Ritz values are Gauss's nodes: ``v^T p(A) v = ||v||**2 sum_i w_i
  p(theta_i)``, exact for polynomials up to degree 2 m - 1.
- **Stochastic Lanczos quadrature** (Ubaru, Chen and Saad 2017): for random v of uncorrelated
  entries of variance 1, ``E v^T f(A) v = trace f(A)``; with f = 1 up to x, the spectrum itself.
- **Hutchinson's trace** (1990) is f(x) = x, for which the quadrature is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = [
    "Spectrum",
    "Tridiagonal",
    "hutchinson_bound",
    "hutchinson_variance",
    "lanczos",
    "power_iteration",
    "spectrum",
]

Apply = Callable[[np.ndarray], np.ndarray]
F = TypeVar("F", bound=Callable[..., Any])
PROBES = ("rademacher", "gaussian")

# Between products on one thread alone: OpenBLAS' others wait for work at full speed for 25 ms, on
# the cores on which a framework then multiplies; PyTorch's products took three times as long.
_alone: Callable[[F], F] = ThreadpoolController().wrap(limits=1, user_api="blas")
_norm = _alone(np.linalg.norm)


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """What m steps of Lanczos leave.

    Attributes
    ----------
    diagonal : numpy.ndarray (m,)
    off : numpy.ndarray (m - 1,)
        Positive.
    residual : float
        beta_m, the norm of what the next step would go on with; 0 if the space is invariant.
    """

    diagonal: np.ndarray
    off: np.ndarray
    residual: float

    def quadrature(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Ritz values, ascending, their weights, which sum to 1, and their error bounds."""
        from scipy.linalg import eigh_tridiagonal

        nodes, vectors = eigh_tridiagonal(self.diagonal, self.off)
        return nodes, np.square(vectors[0]), self.residual * np.abs(vectors[-1])


def lanczos(apply: Apply, start: np.ndarray, steps: int) -> Tridiagonal:
    """Run Lanczos with full reorthogonalization, twice a step, in float64.

    It stops early where the space is invariant: where what is left is rounding,
    ``n eps`` of the largest entry so far.

    Parameters
    ----------
    apply : callable
        v -> A v.
    start : numpy.ndarray (n,)
    steps : int
        At least 1; of more than n, n are taken. Memory: n numbers a step.

    Raises
    ------
    InvalidArgument
        If the start is zero, or it or a product is not finite.
    """
    checks.integer("steps", steps, low=1)
    start = np.asarray(start, dtype=float)
    norm = float(_norm(start))
    if not 0 < norm < math.inf:
        raise InvalidArgument(f"the start must be finite and not zero; its norm is {norm:g}")
    steps = min(steps, start.size)
    basis = np.zeros((steps, start.size))
    basis[0] = start / norm
    diagonal: list[float] = []
    off: list[float] = []
    while True:
        k = len(diagonal)
        w = _finite(apply(basis[k]), k)
        along, w, residual = _orthogonalized(w, basis[: k + 1])
        diagonal.append(along)
        largest = max(np.abs(diagonal).max(), max(off, default=0.0))
        if residual <= start.size * np.finfo(float).eps * largest or residual == 0:
            return Tridiagonal(np.array(diagonal), np.array(off), 0.0)
        if k + 1 == steps:
            return Tridiagonal(np.array(diagonal), np.array(off), residual)
        off.append(residual)
        basis[k + 1] = w / residual


@_alone
def _orthogonalized(w: np.ndarray, basis: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Return w's part along the last of the basis, what is outside of the basis, and its norm."""
    along = float(basis[-1] @ w)
    w = w - basis @ w @ basis
    w -= basis @ w @ basis
    return along, w, float(np.linalg.norm(w))


def _finite(w: np.ndarray, step: int) -> np.ndarray:
    w = np.asarray(w, dtype=float)
    if not np.isfinite(w).all():
        raise InvalidArgument(
            f"product {step + 1} with the matrix is not finite: the function overflows there; use "
            "smaller weights or inputs, or float64"
        )
    return w


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A spectrum seen through random probes: for each one, nodes and weights that sum to 1.

    Attributes
    ----------
    size : int
        n, the number of eigenvalues.
    nodes, weights, errors : numpy.ndarray (probes, m)
        Padded with zero weights where a probe's space was invariant.
    squares : numpy.ndarray (probes,)
        ``||v||**2`` of each probe; n for signs.
    """

    size: int
    nodes: np.ndarray
    weights: np.ndarray
    errors: np.ndarray
    squares: np.ndarray

    @property
    def largest(self) -> tuple[float, float]:
        """The largest Ritz value, at most the largest eigenvalue, and the bound of its error."""
        return self._end(int(np.argmax(self.nodes)))

    @property
    def smallest(self) -> tuple[float, float]:
        """The smallest Ritz value, at least the smallest eigenvalue, and the bound of its error."""
        return self._end(int(np.argmin(self.nodes)))

    def _end(self, flat: int) -> tuple[float, float]:
        place = np.unravel_index(flat, self.nodes.shape)
        return float(self.nodes[place]), float(self.errors[place])

    def power_sums(self, power: int) -> np.ndarray:
        """Return ``v^T A**k v`` of each probe, exact up to k = 2 m - 1.

        Their mean is an estimate of ``trace A**k`` without bias.
        """
        return np.asarray(self.squares * (self.weights * self.nodes**power).sum(axis=1))

    def below(self, x: np.ndarray) -> np.ndarray:
        """Return the estimated share of eigenvalues at most x, averaged over probes."""
        x = np.asarray(x, dtype=float)
        hits = self.nodes[..., None] <= x.ravel()
        return np.asarray(
            (self.weights[..., None] * hits).sum(axis=1).mean(axis=0).reshape(x.shape)
        )

    def density(self, x: np.ndarray, width: float) -> np.ndarray:
        """Return the density at x, each node spread to a Gaussian of standard deviation `width`."""
        checks.finite("width", width, low=0.0, open_low=True)
        z = (np.asarray(x, dtype=float).ravel() - self.nodes[..., None]) / width
        kernel = np.exp(-np.square(z) / 2) / (width * math.sqrt(2 * math.pi))
        summed = (self.weights[..., None] * kernel).sum(axis=1).mean(axis=0)
        return np.asarray(summed.reshape(np.shape(x)))


def spectrum(apply: Apply, probes: np.ndarray, steps: int) -> Spectrum:
    """Run stochastic Lanczos quadrature.

    Parameters
    ----------
    apply : callable
        v -> A v.
    probes : numpy.ndarray (probes, n)
        Independent random signs (least variance of the trace) or N(0, 1) entries.
    steps : int
        m, products a probe.
    """
    probes = np.atleast_2d(np.asarray(probes, dtype=float))
    parts = [lanczos(apply, probe, steps).quadrature() for probe in probes]
    longest = max(len(nodes) for nodes, _, _ in parts)

    def padded(values: np.ndarray, fill: float) -> np.ndarray:
        return np.concatenate([values, np.full(longest - len(values), fill)])

    return Spectrum(
        probes.shape[1],
        np.array([padded(nodes, nodes[-1]) for nodes, _, _ in parts]),
        np.array([padded(weights, 0.0) for _, weights, _ in parts]),
        np.array([padded(errors, errors[-1]) for _, _, errors in parts]),
        np.square(probes).sum(axis=1),
    )


def power_iteration(
    apply: Apply, start: np.ndarray, *, tolerance: float, steps: int
) -> tuple[float, float, int]:
    """Return the eigenvalue of largest absolute value, the bound of its error, and steps taken.

    ``v <- A v / ||A v||``, the value ``v^T A v``; ``||A v - theta v||`` bounds the distance of some
    eigenvalue (Parlett 1998, section 4.5), and it stops where that is `tolerance` of the value. The
    angle shrinks by |lambda_2 / lambda_1| a step: Lanczos needs about the root of that many.

    Parameters
    ----------
    tolerance : float
        Relative.
    steps : int
        At most.
    """
    checks.integer("steps", steps, low=1)
    v = np.asarray(start, dtype=float)
    v = v / _norm(v)
    for step in range(1, steps + 1):
        w = _finite(apply(v), step - 1)
        value, error, norm = _rayleigh(v, w)
        if error <= tolerance * abs(value) or norm == 0:
            break
        v = w / norm
    return value, error, step


@_alone
def _rayleigh(v: np.ndarray, w: np.ndarray) -> tuple[float, float, float]:
    """Return ``v^T w``, how far w is from that times v, and its length."""
    value = float(v @ w)
    return value, float(np.linalg.norm(w - value * v)), float(np.linalg.norm(w))


def hutchinson_variance(matrix: np.ndarray, probes: str) -> float:
    """Return the exact variance of ``v^T A v``, A symmetric, for one probe v.

    Signs: ``2 (||A||_F**2 - sum a_ii**2)``; N(0, 1): ``2 ||A||_F**2`` (Avron and Toledo 2011).
    """
    checks.choice("probes", probes, PROBES)
    A = np.asarray(matrix, dtype=float)
    own = np.square(np.diag(A)).sum() if probes == "rademacher" else 0.0
    return float(2 * (np.square(A).sum() - own))


def hutchinson_bound(eigenvalues: np.ndarray, count: int, false_alarm: float) -> float:
    """Return t with ``P(|average - trace A| >= t) <= false_alarm``, over `count` Gaussian probes.

    ``2 ||a|| sqrt(x) + 2 max|a| x``, ``x = ln(2 / false_alarm)``, of a = each eigenvalue over
    `count`, `count` times: ``v^T A v`` is a sum of ``lambda_i chi2_1`` (Laurent and Massart 2000,
    lemma 1, whose cumulants hold for either sign). It holds at every size.
    """
    checks.integer("count", count, low=1)
    x = math.log(2 / false_alarm)
    a = np.abs(np.asarray(eigenvalues, dtype=float)) / count
    return float(2 * math.sqrt(count * np.square(a).sum() * x) + 2 * a.max() * x)
