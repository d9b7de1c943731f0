"""How signal and gradient travel through a deep random net: exact laws at finite width.

A net is ``z_l = W_l h_{l-1}``, ``h_l = phi(z_l)`` for l = 1 .. L, with widths n_0 .. n_L and W_l
of independent entries N(0, s_l**2); its gradient is ``g_l = d(v . h_L)/d h_l`` for v of
independent entries N(0, 1), and ``d_l = phi'(z_l) g_l``, so that ``g_{l-1} = W_l^T d_l``.

**Second moments** are what Glorot and Bengio (2010, eq. 5 and 6) and He et al. (2015, eq. 9 and
14) propagate: ``E h_l**2 = E phi(z)**2``, ``z ~ N(0, n_{l-1} s_l**2 E h_{l-1}**2)``. They are
exact for linear and ReLU nets at any width and the limit of infinite width (mean field, Poole et
al. 2016, eq. 3; Schoenholz et al. 2017, eq. 9) for tanh.

**Logarithms** are what one sees. By Jensen's inequality ``E ln ||h||**2 < ln E ||h||**2``: each
layer loses about 1/n (linear) or 5/(2n) (ReLU) nats, and the sample mean of a variance over a few
deep nets is ruled by rare large ones (Hanin and Nica 2020). For linear and ReLU nets the log-norm
is an exact sum of independent terms, at every width:

``||h_l||**2 = s_l**2 ||h_{l-1}||**2 chi2_K``,  K = n_l (linear) or Binomial(n_l, 1/2) (ReLU),
``||d_{l-1}||**2 = s_l**2 ||d_l||**2 chi2_K``,  K = n_{l-1} or Binomial(n_{l-1}, 1/2).

The second line holds although d_l depends on W_l, because ReLU's mask depends on the sign of z_l
alone and v is symmetric: W_l^T d_l is Gaussian and independent of h_{l-1}. Its moment generating
function is known in closed form, hence bounds that hold at the stated size (`deviation_bound`).

**One step** has an exact law for any phi, given what was measured one layer before:
``h_l`` has independent entries phi(N(0, s_l**2 ||h_{l-1}||**2)); and, W_l being Gaussian and
unconstrained orthogonally to h_{l-1} given the whole forward pass, the part of g_{l-1} orthogonal
to h_{l-1} has squared norm ``s_l**2 ||d_l||**2 chi2_{n_{l-1} - 1}`` (the conditioning of Bayati
and Montanari 2011, lemma 10). No mean-field assumption is needed to check a tanh net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import digamma, gammaln, logsumexp, polygamma

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = [
    "ACTIVATIONS",
    "LogChiSquare",
    "backward_laws",
    "deviation_bound",
    "expected_log_variances",
    "forward_laws",
    "growth",
    "mean_bound",
    "moments",
    "second_moments",
    "tanh_sum_bound",
]

ACTIVATIONS = ("linear", "relu", "tanh")
DROPPED = 1e-13  # binomial mass left out below: with few degrees no negative moment exists
_NODES, _WEIGHTS = hermegauss(160)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)


def moments(activation: str, q: float) -> tuple[float, float]:
    """Return ``E phi(z)**2`` and ``E phi'(z)**2`` for z ~ N(0, q).

    Exact for linear (q, 1) and ReLU (q/2, 1/2); for tanh by Gauss-Hermite quadrature with 160
    nodes, relative error below 1e-8 for q <= 2 (held against mpmath in the tests).
    """
    checks.choice("activation", activation, ACTIVATIONS)
    if activation == "linear":
        return q, 1.0
    if activation == "relu":
        return q / 2, 0.5
    y = np.tanh(math.sqrt(q) * _NODES)
    return float(_WEIGHTS @ np.square(y)), float(_WEIGHTS @ np.square(1 - np.square(y)))


def second_moments(
    activation: str, widths: Sequence[int], variances: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``E h_l**2`` and ``E g_l**2`` per entry, l = 0 .. L, both 1 where they start.

    Forward ``q_l = n_{l-1} s_l**2 E h_{l-1}**2, E h_l**2 = E phi(N(0, q_l))**2``; backward
    ``E g_{l-1}**2 = n_l s_l**2 E phi'(N(0, q_l))**2 E g_l**2``. Exact for linear and ReLU, mean
    field for tanh.

    Parameters
    ----------
    widths : sequence of int (L + 1,)
    variances : sequence of float (L,)
        Of the entries of W_1 .. W_L.
    """
    forward, slopes = [1.0], []
    for n_in, variance in zip(widths, variances, strict=False):
        signal, slope = moments(activation, n_in * variance * forward[-1])
        forward.append(signal)
        slopes.append(slope)
    backward = [1.0]
    for n_out, variance, slope in zip(widths[:0:-1], variances[::-1], slopes[::-1], strict=True):
        backward.append(n_out * variance * slope * backward[-1])
    return np.array(forward), np.array(backward[::-1])


@dataclass(frozen=True, eq=False)
class LogChiSquare:
    """The law of ``ln(scale chi2_K)``, with K random: P(K = degrees[k]) = weights[k].

    Attributes
    ----------
    dropped : float
        Probability of the degrees left out (`growth`); a bound must add it.
    """

    scale: float
    degrees: np.ndarray
    weights: np.ndarray
    dropped: float = 0.0

    @property
    def mean(self) -> float:
        """``ln(scale) + ln 2 + E digamma(K/2)``."""
        terms = digamma(self.degrees / 2)
        return math.log(2 * self.scale) + float(np.average(terms, weights=self.weights))

    @property
    def variance(self) -> float:
        """``E trigamma(K/2) + Var digamma(K/2)``."""
        terms, within = digamma(self.degrees / 2), polygamma(1, self.degrees / 2)
        centre = np.average(terms, weights=self.weights)
        return float(np.average(within + np.square(terms - centre), weights=self.weights))

    def cumulant(self, t: np.ndarray) -> np.ndarray:
        """Return ``ln E exp(t X)``; infinite where it does not exist.

        ``E (scale chi2_K)**t = (2 scale)**t E Gamma(K/2 + t) / Gamma(K/2)`` for t > -K/2.
        """
        half = self.degrees / 2
        shifted = np.asarray(t, dtype=float)[:, None] + half
        exists = shifted > 0
        ratio = gammaln(np.where(exists, shifted, 1.0)) - gammaln(half)
        ratio = np.where(exists, ratio, np.inf)
        return np.asarray(
            np.asarray(t) * math.log(2 * self.scale) + logsumexp(ratio, b=self.weights, axis=1)
        )


def growth(activation: str, scale: float, width: int) -> LogChiSquare:
    """Return the law of ``ln(scale chi2_K)``, K = `width` (linear) or Binomial(width, 1/2) (ReLU).

    Of the binomial, K = 0 (a dead layer) is left out, and the fewest degrees up to a mass of 1e-13.
    """
    if activation == "linear":
        return LogChiSquare(scale, np.array([float(width)]), np.ones(1))
    if activation != "relu":
        raise InvalidArgument(
            f"an exact law of log-norms exists for linear and relu nets; received {activation!r}"
        )
    k = np.arange(width + 1.0)
    logs = gammaln(width + 1) - gammaln(k + 1) - gammaln(width - k + 1) - width * math.log(2)
    mass = np.exp(logs)
    below = np.cumsum(mass)
    kept = below > DROPPED
    kept[0] = False
    dropped = float(mass[~kept].sum())
    return LogChiSquare(scale, k[kept], mass[kept], dropped)


def forward_laws(
    activation: str, widths: Sequence[int], variances: Sequence[float]
) -> list[LogChiSquare]:
    """Return the independent laws whose sum is ``ln(||h_L||**2 / ||h_0||**2)``, layer by layer."""
    return [growth(activation, s, n) for s, n in zip(variances, widths[1:], strict=True)]


def backward_laws(
    activation: str, widths: Sequence[int], variances: Sequence[float]
) -> list[LogChiSquare]:
    """Return the independent laws whose sum is ``ln ||g_0||**2``, from the last layer to the first.

    ``d_L`` has squared norm chi2_K for v ~ N(0, I); the last step, to g_0, has no mask.
    """
    scales = [1.0, *variances[:0:-1]]
    laws = [growth(activation, s, n) for s, n in zip(scales, widths[:0:-1], strict=True)]
    return [*laws, growth("linear", variances[0], widths[0])]


def expected_log_variances(
    activation: str, widths: Sequence[int], variances: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``E ln(||h_l||**2 / n_l)`` and ``E ln(||g_l||**2 / n_l)``, l = 0 .. L, in nats.

    The first for ``||h_0||**2 = n_0``. Linear and ReLU only.
    """
    n = np.log(np.asarray(widths, dtype=float))
    steps = [law.mean for law in forward_laws(activation, widths, variances)]
    forward = n[0] + np.cumsum([0.0, *steps]) - n
    masked = [law.mean for law in backward_laws(activation, widths, variances)[:-1]]
    # ln||d_l||**2 for l = L .. 1, then one unmasked step to g_{l-1}
    unmasked = [
        growth("linear", s, width).mean
        for s, width in zip(variances[::-1], widths[-2::-1], strict=True)
    ]
    backward = [growth("linear", 1.0, widths[-1]).mean, *(np.cumsum(masked) + unmasked)]
    return forward, np.array(backward[::-1]) - n


def deviation_bound(
    cumulant: Callable[[np.ndarray], np.ndarray], mean: float, variance: float, level: float
) -> float:
    """Return b with ``P(|S - mean| >= b) <= level``, by Chernoff's inequality.

    ``P(S >= mean + b) <= exp(K(t) - t (mean + b))`` for each t > 0, K being the cumulant
    generating function, and likewise below (Boucheron, Lugosi and Massart 2013, section 2.2). The
    smallest over 64 values of t around the normal optimum; each of them gives a valid bound, so
    the choice affects its sharpness alone. No normal approximation.
    """
    log_level = math.log(2 / level)
    t = math.sqrt(2 * log_level / variance) * np.geomspace(1 / 16, 2, 64)
    upper = np.min((cumulant(t) + log_level) / t) - mean
    lower = np.min((cumulant(-t) + log_level) / t) + mean
    return float(max(upper, lower))


def mean_bound(laws: Sequence[LogChiSquare], count: int, false_alarm: float) -> float:
    """Return a bound on ``|S - E S|``, S being the mean over `count` nets of a sum of laws.

    It is exceeded with probability at most `false_alarm`, dropped masses included.
    """
    level = false_alarm - count * sum(law.dropped for law in laws)
    if not level > 0:
        raise InvalidArgument(
            f"false_alarm must exceed the mass left out, {false_alarm - level:g}; "
            f"received {false_alarm:g}; use fewer nets or layers"
        )
    return deviation_bound(
        lambda t: count * np.sum([law.cumulant(t / count) for law in laws], axis=0),
        sum(law.mean for law in laws),
        sum(law.variance for law in laws) / count,
        level,
    )


def tanh_sum_bound(q: np.ndarray, width: int, level: float) -> tuple[float, float]:
    """Return mean and deviation bound of ``sum_j sum_{i <= width} tanh(z_ij)**2``.

    z_ij ~ N(0, q_j) independent: the sum over nets j of ``||h_l||**2`` given the layer before.
    The cumulant generating function is by Gauss-Hermite quadrature, as `moments`; its error, below
    2e-6 of the bound for q <= 2 and 128 values or more (mpmath), is added to it.
    """
    squares = np.square(np.tanh(np.sqrt(q)[:, None] * _NODES))
    means = squares @ _WEIGHTS
    variances = np.square(squares - means[:, None]) @ _WEIGHTS
    mean, variance = width * float(means.sum()), width * float(variances.sum())

    def cumulant(t: np.ndarray) -> np.ndarray:
        exponents = t[:, None, None] * squares
        return np.asarray(width * logsumexp(exponents, b=_WEIGHTS, axis=-1).sum(axis=-1))

    return mean, (1 + 1e-5) * deviation_bound(cumulant, mean, variance, level)
