"""What a residual branch of two ReLU layers does to the length of a signal: exact at any width.

``h' = h + W_2 relu(W_1 h)``, W_1 and W_2 of independent entries N(0, 2 / n), n x n (He's). Given h,
``||relu(W_1 h)||**2 = ||h||**2 2 / n chi2_K`` with K ~ Binomial(n, 1/2), and W_2 turns that into a
Gaussian vector, independent of h, so that

``R = ||h'||**2 / ||h||**2 = sigma**2 chi2'_n(1 / sigma**2)``, ``sigma**2 = 4 chi2_K / n**2``,

a noncentral chi-square: chi2 of n + 2 J degrees, J ~ Poisson(1 / (2 sigma**2)). The R of
different blocks are independent, whatever came before, and

``E R = 3``: the squared length triples block by block (Zhang, Dauphin and Ma 2019, section 2, have
a factor of 2 for branches that keep it). Gradients grow at least as much in the direction of h:
without biases the net is homogeneous, ``J h = f(h)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln, polygamma
from scipy.stats import poisson

from isometry.common import checks

__all__ = ["BlockGrowth", "block_growth"]

NODES = 160  # of Gauss and Legendre over chi2_K
REACH = 13.0  # standard deviations of chi2_K
DROPPED = 1e-13  # of the Poisson law, and of the largest weight of chi2_K
SMALLEST = 32  # width: chi2_K has then little mass near 0, where nodes are few


@dataclass(frozen=True, eq=False)
class BlockGrowth:
    """The law of ``ln R``, of R = 2 sigma**2 Gamma(shape, 1) with sigma and the shape random.

    Attributes
    ----------
    logs : numpy.ndarray (a,)
        Values of ``ln(2 sigma**2)``.
    shapes : numpy.ndarray (b,)
        n / 2 + J.
    mass : numpy.ndarray (a, b)
        Probabilities.
    """

    logs: np.ndarray
    shapes: np.ndarray
    mass: np.ndarray

    @property
    def mean(self) -> float:
        """``E ln R``."""
        return float((self.mass * (self.logs[:, None] + digamma(self.shapes))).sum())

    @property
    def variance(self) -> float:
        """``Var ln R``."""
        off = self.logs[:, None] + digamma(self.shapes) - self.mean
        return float((self.mass * (np.square(off) + polygamma(1, self.shapes))).sum())

    def cumulant(self, t: np.ndarray) -> np.ndarray:
        """Return ``ln E R**t``; infinite for t at most -n / 2."""
        t = np.asarray(t, dtype=float)
        exists = t + self.shapes[0] > 0
        inside = np.where(exists, t, 0.0)
        ratios = np.exp(gammaln(self.shapes[:, None] + inside) - gammaln(self.shapes)[:, None])
        moments = (np.exp(self.logs[:, None] * inside) * (self.mass @ ratios)).sum(axis=0)
        return np.asarray(np.where(exists, np.log(moments), np.inf))


def block_growth(width: int) -> BlockGrowth:
    """Return the law of ``ln R`` for n = `width`, at least 32.

    Its moments are right to 9 digits: chi2_K by Gauss and Legendre on its density up to 13 standard
    deviations, the Poisson law summed.
    """
    n = checks.integer("width", width, low=SMALLEST)
    top = n / 2 + REACH * math.sqrt(5 * n / 4)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    s = top * (nodes + 1) / 2
    weights = weights * _density(s, n)
    kept = weights > DROPPED * weights.max()
    variances, weights = 4 * s[kept] / n**2, weights[kept]
    most = float(poisson.isf(DROPPED, 0.5 / variances.min()))
    j = np.arange(most + 1)
    mass = weights[:, None] * poisson.pmf(j, 0.5 / variances[:, None])
    return BlockGrowth(np.log(2 * variances), n / 2 + j, mass / mass.sum())


def _density(s: np.ndarray, n: int) -> np.ndarray:
    """Return the density of chi2_K at s, K ~ Binomial(n, 1/2) above 0."""
    k = np.arange(1.0, n + 1)[:, None]
    choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) - n * math.log(2)
    logs = (k / 2 - 1) * np.log(s) - s / 2 - k / 2 * math.log(2) - gammaln(k / 2)
    return np.asarray(np.exp(choose + logs).sum(axis=0))
