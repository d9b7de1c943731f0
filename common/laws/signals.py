r"""What mean-field theory says of signal and gradient in each layer of a fully connected net.

For ``z_l = W_l h_{l-1} + b_l`` and ``h_l = phi(z_l)`` or ``h_{l-1} + phi(z_l)``, with entries of
W_l of mean 0 and variance s_l^2, b_l ~ N(0, s_b^2), and u, u' ~ N(0, q_l) of covariance p_l,

========== =====================================================================================
variance   ``q_l = n_{l-1} s_l^2 M_{l-1} + s_b^2``, and p_l the same of C_{l-1}
signal     ``M_l = E phi(u)^2`` and ``C_l = E phi(u) phi(u')``; with a residual connection
           ``M_l = M_{l-1} + 2 A_{l-1} E phi(u) + E phi(u)^2``, C_l likewise, ``A_l = A_{l-1} + E
           phi(u)`` (z_l, given h_{l-1}, is independent of which of its units it is added to)
gradient   ``D_l = E phi'(u)^2 G_l``, ``G_{l-1} = n_l s_l^2 D_l``, plus G_l where h_{l-1} is added
========== =====================================================================================

M and C are averages over units of the product of an input's signal with itself and with another
input's, A that of the signal, D and G of the squared gradient in z_l and h_l (Poole et al. 2016,
eq. 3 and 5; Schoenholz et al. 2017; residual: Yang and Schoenholz 2017, section 3). The
limit of infinite width; M is exact at any width for linear and ReLU nets without biases.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws.mean_field import ACTIVATIONS, expectation, pair_moments, second_moments

__all__ = ["Signals", "propagate"]


@dataclass(frozen=True, eq=False)
class Signals:
    """Averages over units, layer by layer.

    Attributes
    ----------
    second : array (L + 1,)
        M_0 .. M_L, of which M_L is that of the output, z_L.
    cosine : array (L + 1,)
        C_l / M_l, of two inputs of one length.
    gradient : array (L,)
        D_1 .. D_L, with D_L = 1.
    """

    second: np.ndarray
    cosine: np.ndarray
    gradient: np.ndarray


def propagate(
    activation: str,
    widths: Sequence[int],
    variances: Sequence[float],
    *,
    bias: float = 0.0,
    second: float = 1.0,
    cosine: float = 0.0,
    mean: float = 0.0,
    residual: bool = False,
) -> Signals:
    """Follow the recursion from the input to the output, which has no activation, and back.

    11 digits in each layer's step, as those of `isometry.common.laws.mean_field`.

    Parameters
    ----------
    activation : str
        A name of :data:`isometry.common.laws.mean_field.ACTIVATIONS`.
    widths : sequence of int (L + 1,)
    variances : sequence of float (L,)
        s_l^2, of the entries of W_1 .. W_L.
    bias : float
        s_b^2.
    second, cosine, mean : float
        M_0 above 0, C_0 / M_0 and A_0.
    residual : bool
        h_{l-1} is added to the output of each hidden layer of the width of its input.

    Raises
    ------
    InvalidArgument
        If there is not one variance for each layer, or the activation is unknown.
    """
    if len(variances) != len(widths) - 1:
        raise InvalidArgument(
            f"there must be a variance for each of {len(widths) - 1} layers; "
            f"received {len(variances)}"
        )
    seconds, products, slopes = [second], [second * cosine], []
    added = [residual and n_in == n_out for n_in, n_out in itertools.pairwise(widths)]
    for n_in, variance, skip in zip(widths, variances[:-1], added, strict=False):
        q = n_in * variance * seconds[-1] + bias
        p = n_in * variance * products[-1] + bias
        square, slope = second_moments(activation, q)
        product = _product(activation, q, p, square)
        if skip:
            phi = ACTIVATIONS[activation]
            level = expectation(phi.value, q, kinks=phi.kinks)
            square += seconds[-1] + 2 * mean * level
            product += products[-1] + 2 * mean * level
            mean += level
        seconds.append(square)
        products.append(product)
        slopes.append(slope)
    last = widths[-2] * variances[-1]
    seconds.append(last * seconds[-1] + bias)
    products.append(last * products[-1] + bias)
    M = np.array(seconds)
    cosines = np.divide(products, M, out=np.ones_like(M), where=M > 0)
    return Signals(M, cosines, _gradient(widths, variances, slopes, added))


def _product(activation: str, q: float, p: float, square: float) -> float:
    """Return ``E phi(u) phi(u')``; two inputs that have become one stay so."""
    if q == 0 or p >= q:
        return square
    return pair_moments(activation, q, q, max(-1.0, p / q))[0]


def _gradient(
    widths: Sequence[int],
    variances: Sequence[float],
    slopes: Sequence[float],
    added: Sequence[bool],
) -> np.ndarray:
    found = [1.0]
    arriving = widths[-1] * variances[-1]  # G_{L-1}
    for layer in range(len(slopes) - 1, -1, -1):
        found.append(slopes[layer] * arriving)
        arriving = widths[layer + 1] * variances[layer] * found[-1] + (
            arriving if added[layer] else 0.0
        )
    return np.array(found[::-1])
