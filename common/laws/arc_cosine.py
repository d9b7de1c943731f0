"""What a ReLU layer does to the correlation of two inputs: the arc-cosine kernel.

For (z, z') normal with variances 1 and correlation rho = cos(theta), Cho and Saul (2009, eq. 3)
give ``2 E relu(z) relu(z') = K(rho)``,

``K(rho) = (sin theta + (pi - theta) cos theta) / pi``.

**Sample variance.** Over networks and samples a preactivation has the total variance
``sigma**2 = m**2 + v**2``: m**2 is the average over networks of its squared mean over samples, v**2
that of its variance over samples (Luther and Seung 2019). Two independent samples have the
correlation ``rho = m**2 / sigma**2``. He's rule keeps sigma, and in an infinitely wide net
``rho_{l+1} = K(rho_l)``, so that ``v**2 / sigma**2 = 1 - rho_l`` decays: ``theta_{l+1}`` is about
``theta_l - theta_l**2 / (3 pi)``, hence ``theta_l -> 3 pi / l``, ``m / v -> sqrt(2) l / (3 pi)``.
(The authors' notes print the recursion with ``c**2 = m**2 / (m**2 + v**2)`` in the argument of the
arc cosine; it is c itself.) Leaky ReLU of negative slope a, with its gain, has the correlation map
``((1 - a)**2 K(rho) + 2 a rho) / (1 + a**2)``.

**One step at finite width.** Given the layer before, the rows of a Gaussian W are independent, so
that the expectation of each product of two samples' outputs is the kernel of their products before,
exactly (`step`); and the root of an average of squares over units is a Lipschitz function of W,
hence bounds that hold at the stated width (`departure_bound`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = [
    "Step",
    "asymptotic_angle",
    "correlation",
    "departure_bound",
    "mean_over_deviation",
    "sample_shares",
    "step",
]

SERIES = 12  # terms of sin x - x cos x: the first left out is below 1e-27 at x = 1


def _defect(x: np.ndarray) -> np.ndarray:
    """Return ``sin x - x cos x``, x in [0, pi], without cancellation: x**3 / 3 near 0.

    ``sum_k (-1)**(k+1) 2 k x**(2k+1) / (2k+1)!`` up to 1; relative error at most 16 eps.
    """
    square = np.where(x <= 1, x * x, 0.0)
    series = np.zeros_like(square)
    for k in range(SERIES, 0, -1):
        series = 2 * k / math.factorial(2 * k + 1) * (-1) ** (k + 1) + square * series
    return np.asarray(np.where(x <= 1, series * x * x * x, np.sin(x) - x * np.cos(x)))


def _weight(slope: float) -> float:
    """Return ``(1 - a)**2 / (1 + a**2)``: 1 for ReLU, 0 for the identity."""
    return (1 - slope) ** 2 / (1 + slope**2)


def _slope(slope: float) -> float:
    if abs(checks.finite("slope", slope)) > 1:
        raise InvalidArgument(f"slope must be between -1 and 1; received {slope:g}")
    return slope


def correlation(rho: np.ndarray | float, slope: float = 0.0) -> np.ndarray:
    """Return the correlation map of ReLU, ``E phi(z) phi(z') / E phi(z)**2``.

    ``K(rho) = (sqrt(1 - rho**2) + rho (pi - arccos rho)) / pi``, computed as
    ``(sin x - x cos x) / pi`` with ``x = arccos(-rho)``, which keeps its relative precision down
    to K(-1) = 0. It is no correlation in the sense of statistics: means are not subtracted.

    Parameters
    ----------
    rho : array
        In [-1, 1]; values beyond by rounding are cut off.
    slope : float
        Of leaky ReLU below 0, between -1 and 1.
    """
    inside = np.clip(np.asarray(rho, dtype=np.float64), -1.0, 1.0)
    weight = _weight(_slope(slope))
    mapped = weight * _defect(np.arccos(-inside)) / math.pi
    return np.asarray(mapped + 2 * slope / (1 + slope**2) * inside)


def sample_shares(layers: int, *, rho: float = 0.0, slope: float = 0.0) -> np.ndarray:
    """Return ``v_l**2 / sigma_l**2 = 1 - rho_l`` of an infinitely wide net, l = 0 .. layers.

    ``u <- u - (sin theta - theta cos theta) (1 - a)**2 / ((1 + a**2) pi)``, with u = 1 - rho and
    ``theta = 2 arcsin sqrt(u / 2)``: nothing cancels, so that u keeps 11 digits after 100,000
    layers.

    Parameters
    ----------
    layers : int
        At least 0.
    rho : float
        Correlation of two inputs: 0 for white noise.
    slope : float
        Of leaky ReLU below 0, between -1 and 1.
    """
    checks.integer("layers", layers, low=0)
    if not -1 <= checks.finite("rho", rho) <= 1:
        raise InvalidArgument(f"rho must be between -1 and 1; received {rho:g}")
    weight = _weight(_slope(slope)) / math.pi
    shares = np.empty(layers + 1)
    shares[0] = 1 - rho
    for layer in range(layers):
        u = shares[layer]
        angle = 2 * math.asin(math.sqrt(u / 2))
        shares[layer + 1] = u - weight * float(_defect(np.asarray(angle)))
    return shares


def mean_over_deviation(shares: np.ndarray) -> np.ndarray:
    """Return ``m / v = sqrt(rho / (1 - rho))`` of shares ``1 - rho``; NaN where rho < 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt((1 - shares) / shares))


def asymptotic_angle(layers: np.ndarray, slope: float = 0.0) -> np.ndarray:
    """Return the limit of theta_l for large l: ``3 pi (1 + a**2) / ((1 - a)**2 l)``.

    Then ``v**2 / sigma**2`` tends to theta**2 / 2 and m / v to sqrt(2) / theta. The relative error
    falls like ln(l) / l.
    """
    return np.asarray(3 * math.pi / (_weight(_slope(slope)) * np.asarray(layers, dtype=float)))


# --- one layer of finite width -------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What is known of the next layer's outputs y = relu(W h), given the samples' outputs h.

    Attributes
    ----------
    mean : float
        Expected average over units of the squared mean over samples.
    sample : float
        The same of the variance over samples (divided by their number).
    lipschitz : float
        Lipschitz constant of the root of either average as a function of ``W / s``.
    """

    mean: float
    sample: float
    lipschitz: float


def step(h: np.ndarray, variance: float, units: int) -> Step:
    """Return the exact expectations of the next layer, of any width.

    ``E y_i(x) y_i(x') = sqrt(q q') K(rho) / 2`` with ``q = s**2 ||h(x)||**2``: its average over
    pairs of samples is that of the squared mean, over samples that of the square. ReLU being
    1-Lipschitz, so is ``W / s -> (y_i(x) / sqrt(units samples))`` with the constant
    ``s ||h||_2 / sqrt(units samples)``, and a projection of it (on the mean over samples, or on
    what is left) no more.

    Parameters
    ----------
    h : array (samples, n)
    variance : float
        s**2, of the entries of W.
    units : int
        Rows of W.
    """
    samples = len(h)
    gram = variance * (h @ h.T)
    root = np.sqrt(np.diag(gram))
    scale = np.outer(root, root)
    rho = np.divide(gram, scale, out=np.zeros_like(gram), where=scale > 0)
    np.fill_diagonal(rho, 1.0)
    product = scale * correlation(rho) / 2
    mean = float(product.mean())
    largest = float(np.linalg.eigvalsh(gram)[-1])
    return Step(
        mean=mean,
        sample=float(np.diag(product).mean()) - mean,
        lipschitz=math.sqrt(max(largest, 0.0) / (units * samples)),
    )


def departure_bound(
    expected: np.ndarray, lipschitz: np.ndarray, weights: np.ndarray, level: float
) -> float:
    """Return b with ``P(|sum_k w_k (F_k - sqrt(E F_k**2)) / L_k| >= b) <= level``.

    F_k is a Lipschitz function, with constant L_k, of independent standard normal variables, given
    what was before k. It is sub-Gaussian with variance factor L_k**2 around its mean (Boucheron,
    Lugosi and Massart 2013, theorem 5.5), so that the sum, one of martingale differences, is with
    the factor ``sum w**2``: ``sqrt(2 ln(2 / level) sum w**2)``. Its variance is at most L_k**2
    (Poincare's inequality, theorem 3.20 there), so that ``E F_k`` lies below ``sqrt(E F_k**2)`` by
    at most ``sqrt(M) - sqrt(M - L**2)``, which is added.

    Parameters
    ----------
    expected : array (count,)
        ``M_k = E F_k**2``, above 0.
    lipschitz : array (count,)
    weights : array (count,)
        Chosen beforehand, none below 0.
    """
    least = np.sqrt(np.maximum(expected - np.square(lipschitz), 0.0))
    bias = (np.sqrt(expected) - least) / lipschitz
    spread = math.sqrt(2 * math.log(2 / level) * float(np.square(weights).sum()))
    return spread + float(weights @ bias)
