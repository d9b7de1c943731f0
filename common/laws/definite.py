r"""How probable it is that a random symmetric matrix is positive definite: a minimum, not a saddle.

The Gaussian orthogonal ensemble has independent entries N(0, 1) on the diagonal and N(0, 1/2) off
it (``(G + G^T) / 2``, G of entries N(0, 1)). Its eigenvalues have the density
``prod_{i<j} |x_i - x_j| exp(-sum x_i**2 / 2) / Z_n`` with Mehta's
``Z_n = (2 pi)**(n/2) prod_{j <= n} Gamma(1 + j/2) / Gamma(3/2)``. The integral over
``0 < x_1 < ... < x_n`` is a Pfaffian (de Bruijn 1955, J. Indian Math. Soc. 19, section 4), so

``P_n = n! Pf(A) / Z_n``,  ``A_jk = int_{0<x<y} (x**j y**k - x**k y**j) exp(-(x**2 + y**2)/2)``,

j, k = 0 .. n-1, and for odd n one more row and column of ``int_0^inf x**j exp(-x**2/2)``. In polar
coordinates, with a = (j+1)/2, b = (k+1)/2 and I the regularized incomplete Beta function,
``A_jk = 2**(a+b-2) Gamma(a) Gamma(b) (2 I_{1/2}(a, b) - 1)``. ``P_1 = 1/2``,
``P_2 = (2 - sqrt 2)/4``, ``P_3 = (pi - 2 sqrt 2)/(4 pi)``, and for large n
``ln P_n ~ -n**2 ln(3)/4`` (Dean and Majumdar 2006, Phys. Rev. Lett. 97, 160201; 2008, Phys. Rev. E
77, 041108).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import betainc, gammaln

from isometry.common import checks

__all__ = ["DECAY", "LARGEST", "positive_definite_probability"]

DECAY = math.log(3) / 4
"""``-ln P_n / n**2`` for large n."""

LARGEST = 8
"""The largest n: monomials are far from orthogonal, and lose about a digit a size."""


@functools.cache
def positive_definite_probability(n: int) -> float:
    """Return P_n, n from 1 to 8, with a relative error of at most 2e-9 (1e-11 up to 6).

    >>> round(positive_definite_probability(2), 10)
    0.1464466094
    """
    checks.integer("n", n, low=1, high=LARGEST)
    a = np.arange(1, n + 1) / 2
    # each row and column over Gamma(a): the determinant then is neither large nor small
    A = 2.0 ** np.add.outer(a, a - 2) * (2 * betainc(a[:, None], a, 0.5) - 1)
    if n % 2:
        edge = 2 ** (a - 1)[:, None]
        A = np.block([[A, edge], [-edge.T, np.zeros((1, 1))]])
    log_pfaffian = np.linalg.slogdet(A)[1] / 2 + gammaln(a).sum()
    log_total = n * math.log(2 * math.pi) / 2 + (gammaln(1 + a) - gammaln(1.5)).sum()
    return math.exp(math.lgamma(n + 1) + log_pfaffian - log_total)
