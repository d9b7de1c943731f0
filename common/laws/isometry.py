r"""Dynamical isometry: the singular values of a deep random net's input-output Jacobian.

``J = D_L W_L ... D_1 W_1``, ``D_l = diag(phi'(z_l))``, with W_l of independent entries of variance
sigma_w^2 / n, or sigma_w times a Haar orthogonal matrix. At criticality, ``sigma_w^2 mu_1 = 1``, a
gradient keeps its mean square; it keeps its norm in every direction, *isometry*, only if the
squared singular values s do not spread. With ``mu_k = E phi'(u)^(2 k)``, u ~ N(0, q*), their mean
is 1 and their variance, as n grows,

``variance = L (mu_2 / mu_1^2 - 1 - s_1)``,  s_1 = -1 (Gaussian) or 0 (orthogonal).

=========== ======================= ===========================================================
phi         mu_2 / mu_1^2 - 1       what orthogonal weights make of it
=========== ======================= ===========================================================
linear      0                       isometry: every s is 1
ReLU        1, at every q*          none: half of the directions are lost, variance L
tanh, erf   -> 0 as q* -> 0         isometry with q* of order 1 / L
sigmoid     3.2 or more             none: chi_1 = 1 needs sigma_w^2 >= 103, far in saturation
=========== ======================= ===========================================================

The logistic sigmoid has phi(0) = 1/2, so that q* >= sigma_w^2 / 4, and slopes of at most 1/4, so
that chi_1 = 1 needs sigma_w^2 > 16. Centred, ``sigmoid(u) - 1/2 = tanh(u/2) / 2``, it is a tanh.

Sources: Saxe, McClelland and Ganguli 2014, Exact solutions to the nonlinear dynamics of learning,
section 4; Pennington, Schoenholz and Ganguli 2017, Resurrecting the sigmoid, eq. 17 to 22, and
2018, The emergence of spectral universality in deep networks, eq. 14; Penson and Zyczkowski 2011,
Product of Ginibre matrices: Fuss-Catalan and Raney distributions, eq. 2 and 22.

**Finite width.** For linear and ReLU nets the second moment is known exactly at every n
(`trace_moments`). There, D_l may be taken for independent of all W: ReLU's mask depends on the
signs of z_l, and an orthogonal or Gaussian W_l keeps its law when its rows change sign, which
changes neither J J^T's spectrum nor what follows, as W_{l+1} keeps its law when columns do.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import binom

from isometry.common import checks
from isometry.common.laws.mean_field import Activation, expectation, named

__all__ = [
    "WEIGHTS",
    "fuss_catalan",
    "fuss_catalan_density",
    "given_slopes",
    "largest_linear",
    "slope_spread",
    "spectrum_variance",
    "trace_moments",
]

WEIGHTS = {"gaussian": -1.0, "orthogonal": 0.0}
"""s_1, the first coefficient of the S-transform of W^T W about 0."""


def slope_spread(activation: str | Activation, q: float) -> float:
    """Return ``mu_2 / mu_1^2 - 1``, u ~ N(0, q), q > 0: what one layer's slopes add to L = 1.

    To 11 digits of ``mu_2 / mu_1^2``.
    """
    phi = named(activation)
    checks.finite("q", q, low=0.0, open_low=True)
    mu_1, mu_2 = (
        expectation(lambda u, k=k: phi.slope(u) ** (2 * k), q, kinks=phi.kinks)  # type: ignore[misc]
        for k in (1, 2)
    )
    return mu_2 / mu_1**2 - 1


def spectrum_variance(activation: str | Activation, q: float, depth: int, weights: str) -> float:
    """Return the variance of the squared singular values of J over their squared mean.

    ``L (mu_2 / mu_1^2 - 1 - s_1)`` in the limit of wide layers, all at q* = q; it holds off
    criticality too, where the mean is ``(sigma_w^2 mu_1)^L``.

    Parameters
    ----------
    activation : str or Activation
        As in :mod:`isometry.common.laws.mean_field`.
    q : float
        Above 0.
    depth : int
        L, at least 1.
    weights : {"gaussian", "orthogonal"}
    """
    checks.integer("depth", depth, low=1)
    s_1 = WEIGHTS[checks.choice("weights", weights, tuple(WEIGHTS))]
    return depth * (slope_spread(activation, q) - s_1)


def largest_linear(depth: int) -> float:
    """Return ``(L + 1)^(L + 1) / L^L``: the largest squared singular value, linear and Gaussian.

    Of L square Gaussian layers, wide, mean 1: the end of the Fuss-Catalan law; about e (L + 1/2).
    """
    checks.integer("depth", depth, low=1)
    return (depth + 1) * math.exp(depth * math.log1p(1 / depth))


def fuss_catalan(depth: int, power: int) -> float:
    """Return ``C((L + 1) k, k) / (L k + 1)``, the mean of s^k over the same squared values."""
    checks.integer("depth", depth, low=1)
    checks.integer("power", power, low=0)
    return float(binom((depth + 1) * power, power)) / (depth * power + 1)


def fuss_catalan_density(depth: int, points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return s, rising to `largest_linear`, and the density of the Fuss-Catalan law there.

    For 0 < a < pi / (L + 1),

    ``s = sin((L + 1) a)^(L + 1) / (sin a sin(L a)^L)``,
    ``density = sin(a)^2 sin(L a)^(L - 1) / (pi sin((L + 1) a)^L)``

    (Haagerup and Moeller 2013, The law of large numbers for the free multiplicative convolution,
    proposition 5; the law of Penson and Zyczkowski in closed form).
    """
    checks.integer("depth", depth, low=1)
    a = np.linspace(math.pi / (depth + 1), 0, points + 1, endpoint=False)[1:]
    top, whole, part = np.sin((depth + 1) * a), np.sin(a), np.sin(depth * a)
    s = top ** (depth + 1) / (whole * part**depth)
    return s, whole**2 * part ** (depth - 1) / (math.pi * top**depth)


def trace_moments(width: int, depth: int, weights: str, *, keep: float = 1.0) -> np.ndarray:
    """Return ``E mean(s)^2`` and ``E mean(s^2)`` over the n squared singular values, exactly.

    For linear nets (keep = 1) and ReLU nets (keep = 1/2) of any width n, with ``sigma_w^2 keep =
    1``. Layer by layer, for ``A' = D W A W^T D`` with D's entries 1 with probability p = keep and
    else 0, independent of W:

    - Gaussian: ``E (tr A')^2 = v^2 (p^2 n (n - 1) t_1 + p n t_1 + 2 p n t_2)`` and
      ``E tr A'^2 = v^2 (p n t_1 + (p^2 n (n - 1) + 2 p n) t_2)``, v = 1 / (p n);
    - orthogonal: with ``d = E sum (W A W^T)_ii^2 = (t_1 + 2 t_2) / (n + 2)``,
      ``E (tr A')^2 = t_1 + (1 / p - 1) d`` and ``E tr A'^2 = t_2 + (1 / p - 1) d``,

    t_1 = (tr A)^2, t_2 = tr A^2 (second moments of Gaussian and Haar quadratic forms). E mean(s)
    itself is 1.

    Returns
    -------
    array (2,)
    """
    checks.integer("width", width, low=1)
    checks.integer("depth", depth, low=1)
    checks.choice("weights", weights, tuple(WEIGHTS))
    n, p = float(width), float(keep)
    if weights == "gaussian":
        v, pairs = 1 / (p * n), p * p * n * (n - 1)
        step = v**2 * np.array([[pairs + p * n, 2 * p * n], [p * n, pairs + 2 * p * n]])
    else:
        step = np.eye(2) + (1 / p - 1) / (n + 2) * np.array([[1.0, 2.0], [1.0, 2.0]])
    start = np.array([n * n, n])
    return np.asarray(np.linalg.matrix_power(step, depth) @ start / start)


def given_slopes(slopes: np.ndarray, weights: str) -> np.ndarray:
    """Return ``E mean(s)^2`` and ``E mean(s^2)`` of nets of known D_l, W independent of them.

    With S_1 and S_2 the sums of e_i and e_i^2, e_i = sigma_w^2 phi'(z_i)^2, layer by layer

    - Gaussian: ``E (tr A')^2 = (S_1^2 t_1 + 2 S_2 t_2) / n^2`` and
      ``E tr A'^2 = (S_2 t_1 + (S_1^2 + S_2) t_2) / n^2``;
    - orthogonal: with a, b, c the means of M_ii^2, M_ii M_jj and M_ij^2 for M = O A O^T,
      ``S_2 a + (S_1^2 - S_2) b`` and ``S_2 a + (S_1^2 - S_2) c``.

    In a real net W_l and D_l share z_l, one direction of n: an error of order 1 / n.

    Parameters
    ----------
    slopes : array (L, networks, n)
        ``sigma_w phi'(z)``.
    weights : {"gaussian", "orthogonal"}

    Returns
    -------
    array (2, networks)
    """
    checks.choice("weights", weights, tuple(WEIGHTS))
    e = np.square(slopes)
    _, networks, n = e.shape
    squared, second = np.full(networks, float(n * n)), np.full(networks, float(n))
    for s_1, s_2 in zip(e.sum(axis=2) ** 2, np.square(e).sum(axis=2), strict=True):
        if weights == "gaussian":
            squared, second = (
                (s_1 * squared + 2 * s_2 * second) / n**2,
                (s_2 * squared + (s_1 + s_2) * second) / n**2,
            )
        else:
            a = (squared + 2 * second) / (n * (n + 2))
            squared, second = (
                s_2 * a + (s_1 - s_2) * (total - n * a) / (n * (n - 1))
                for total in (squared, second)
            )
    return np.stack([squared / n**2, second / n])
