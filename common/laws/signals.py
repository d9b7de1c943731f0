r"""What mean-field theory says of signal and gradient in each layer of a net.

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

A convolutional net has M, C, D and G at each place: ``q_l[s] = c_{l-1} s_l^2 sum_t M_{l-1}[s + t] +
s_b^2`` over the taps t of its kernel, p_l the same of C, which is of two images at one place, and
``G_{l-1}[s] = c_l s_l^2 sum_t D_l[s - t]`` (Xiao et al. 2018, section 2). A recurrent one has steps
for layers, ``q_t = n s_U^2 M_{t-1} + s_W^2 ||x_t||^2 + s_b^2``, as if every step had weights of its
own, which in the limit makes no difference (Chen, Pennington and Schoenholz 2018; at width n it
takes t**2 << n steps, as shared weights add their fluctuations up), and ``G_t = E v_t^2 + n s_U^2
D_{t+1}``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.gaussian import products
from isometry.common.laws.mean_field import ACTIVATIONS, expectation, pair_moments, second_moments

__all__ = ["Signals", "propagate", "propagate_images", "propagate_sequences"]


@dataclass(frozen=True, eq=False)
class Signals:
    """Averages over units, layer by layer.

    Attributes
    ----------
    second : array (L + 1,)
        M_0 .. M_L, of which M_L is that of the output: of z_L, or of a sequence's last h.
    cosine : array (L + 1,)
        Of two inputs, ``C_l / sqrt(M_l M_l')``.
    gradient : array (L,)
        D_1 .. D_L; that in an output z_L is 1.
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
    _check_variances(len(widths) - 1, variances)
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


def propagate_images(
    activation: str,
    x: np.ndarray,
    channels: Sequence[int],
    variances: Sequence[float],
    outputs: int,
    *,
    kernel: int = 3,
    padding: str = "circular",
    bias: float = 0.0,
) -> Signals:
    """Follow images through convolutions to the output of a dense readout, and back.

    Averages are over images and places, too; the cosine is that of the first two images, or 1.

    Parameters
    ----------
    activation : str
    x : array (examples, c_0, rows, columns)
    channels : sequence of int (L + 1,)
        c_0 .. c_L.
    variances : sequence of float (L + 1,)
        s_l^2 of the kernels' entries, and of the readout's.
    outputs : int
    kernel : int
        Odd.
    padding : {"circular", "zero"}
    bias : float
        s_b^2.

    Raises
    ------
    InvalidArgument
        If there is not one variance for each layer, or the kernel is even, or a name unknown.
    """
    _check_variances(len(channels), variances)
    checks.choice("padding", padding, ("circular", "zero"))
    if checks.integer("kernel", kernel, low=1) % 2 == 0:
        raise InvalidArgument(f"kernel must be odd, so that it has a centre; received {kernel}")
    margin = kernel // 2
    mode: Any = "wrap" if padding == "circular" else "constant"

    def seen(a: np.ndarray) -> np.ndarray:
        """Return the sum over taps at each place; kernels are as wide both ways, so back, too."""
        around = np.pad(a, ((0, 0), (margin, margin), (margin, margin)), mode)
        windows = np.lib.stride_tricks.sliding_window_view(around, (kernel, kernel), (1, 2))
        return np.asarray(windows.sum(axis=(-1, -2)))

    two = [0, min(1, len(x) - 1)]
    M, C = np.square(x).mean(axis=1), x[two].prod(axis=0, keepdims=True).mean(axis=1)
    seconds, cosines, slopes = [float(M.mean())], [_cosine(C, M[two])], []
    for n_in, variance in zip(channels, variances[:-1], strict=False):
        q, p = (n_in * variance * seen(a) + bias for a in (M, C))
        one, other = q[two]
        C = _between(activation, one, other, p[0])[None]
        M, slope = _at_each(activation, q)
        seconds.append(float(M.mean()))
        cosines.append(_cosine(C, M[two]))
        slopes.append(slope)
    size = channels[-1] * M[0].size
    seconds.append(size * variances[-1] * seconds[-1] + bias)
    logits = (size * variances[-1] * a.mean(axis=(1, 2)) + bias for a in (C, M[two]))
    cosines.append(_cosine(*logits))
    G = np.full(M.shape, outputs * variances[-1])
    gradients = [1.0]
    for layer in range(len(slopes) - 1, -1, -1):
        D = slopes[layer] * G
        gradients.append(float(D.mean()))
        G = channels[layer + 1] * variances[layer] * seen(D)
    return Signals(np.array(seconds), np.array(cosines), np.array(gradients[::-1]))


def propagate_sequences(
    activation: str,
    x: np.ndarray,
    units: int,
    variances: tuple[float, float],
    *,
    bias: float = 0.0,
) -> Signals:
    """Follow sequences through a plain recurrent layer, and back from a functional of every step.

    Averages are over examples, too; the functional has entries of mean square 1.

    Parameters
    ----------
    activation : str
    x : array (steps, examples, inputs)
        Of which the cosine is that of the first two; M_0 and the first cosine are of all steps.
    units : int
    variances : (float, float)
        s_W^2 and s_U^2.
    bias : float
        s_b^2.

    Raises
    ------
    InvalidArgument
        If there is no step, or fewer than two examples, or the activation is unknown.
    """
    if x.ndim != 3 or len(x) < 1 or x.shape[1] < 2:
        raise InvalidArgument(
            "x must be (steps, examples, inputs) of at least one step and two examples; received "
            f"{x.shape}"
        )
    weight, recurrent = variances
    flat = x.swapaxes(0, 1).reshape(x.shape[1], -1)
    seconds, slopes = [float(np.square(x).mean())], []
    lengths = np.square(flat[:2]).sum(axis=1)
    cosines = [_cosine(flat[0] @ flat[1], lengths)]
    M, C = np.zeros(x.shape[1]), np.zeros(())
    for row in x:
        q = units * recurrent * M + weight * np.square(row).sum(axis=1) + bias
        p = units * recurrent * C + weight * np.asarray(row[0] @ row[1]) + bias
        M, slope = _at_each(activation, q)
        C = _between(activation, q[0], q[1], p)
        seconds.append(float(M.mean()))
        cosines.append(_cosine(C, M[:2]))
        slopes.append(slope)
    gradients, G = [], np.ones(x.shape[1])
    for slope in slopes[::-1]:
        D = slope * G
        gradients.append(float(D.mean()))
        G = 1 + units * recurrent * D
    return Signals(np.array(seconds), np.array(cosines), np.array(gradients[::-1]))


def _check_variances(layers: int, variances: Sequence[float]) -> None:
    if len(variances) != layers:
        raise InvalidArgument(
            f"there must be a variance for each of {layers} layers; received {len(variances)}"
        )


def _cosine(products: np.ndarray, squares: np.ndarray) -> float:
    """Return that of two signals of these products and squares; 1 where one is 0.

    Places are summed over.
    """
    one, other = squares.reshape(2, -1).sum(axis=1)
    size = math.sqrt(one * other)
    return float(products.sum()) / size if size else 1.0


def _at_each(activation: str, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``E phi(u)^2`` and ``E phi'(u)^2`` for each variance, once for equal ones."""
    values, where = np.unique(q, return_inverse=True)
    moments = np.array([second_moments(activation, float(v)) for v in values])
    squares, slopes = moments.T[:, where.reshape(q.shape)]
    return squares, slopes


def _between(
    activation: str, first: np.ndarray, second: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """Return ``E phi(u) phi(u')`` at each place, of variances that may be 0."""
    phi = ACTIVATIONS[activation]
    size = np.sqrt(first * second)
    c = np.clip(np.divide(covariance, size, out=np.zeros_like(size), where=size > 0), -1, 1)
    if not phi.pair:
        return products(phi.value, first, second, c)

    def one(*pair: float) -> float:
        return (
            pair_moments(activation, *pair)[0] if pair[0] * pair[1] else 0.0
        )  # all have phi(0) = 0

    return np.asarray(np.vectorize(one, otypes=[float])(first, second, c))
