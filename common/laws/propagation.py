"""How signal and gradient travel through a deep random net: exact laws at finite width.

A net is ``z_l = W_l h_{l-1}``, ``h_l = phi(z_l)`` for l = 1 .. L, with widths n_0 .. n_L and W_l
of independent entries N(0, s_l**2); its gradient is ``g_l = d(v . h_L)/d h_l`` for v of
independent entries N(0, 1), and ``d_l = phi'(z_l) g_l``, so that ``g_{l-1} = W_l^T d_l``.

**Second moments** are what Glorot and Bengio (2010, eq. 5 and 6) and He et al. (2015, eq. 9 and
13) propagate: ``E h_l**2 = E phi(z)**2``, ``z ~ N(0, n_{l-1} s_l**2 E h_{l-1}**2)``. They are
exact for linear and ReLU nets at any width and the limit of infinite width (mean field, Poole et
al. 2016, eq. 3; Schoenholz et al. 2017) for tanh.

**Logarithms** are what one sees. By Jensen's inequality ``E ln ||h||**2 < ln E ||h||**2``: each
layer loses about 1/n (linear) or 5/(2n) (ReLU) nats, and the sample mean of a variance over a few
deep nets is ruled by rare large ones (Hanin and Nica 2020). For linear and ReLU nets the log-norm
is an exact sum of independent terms, at every width:

``||h_l||**2 = s_l**2 ||h_{l-1}||**2 chi2_K``,  K = n_l (linear) or Binomial(n_l, 1/2) (ReLU),
``||d_{l-1}||**2 = s_l**2 ||d_l||**2 chi2_K``,  K = n_{l-1} or Binomial(n_{l-1}, 1/2).

The second line holds although d_l depends on W_l, because ReLU's mask depends on the sign of z_l
alone and v is symmetric: W_l^T d_l is Gaussian and independent of h_{l-1}. Its moment generating
function is known in closed form, hence bounds that hold at the stated size (`deviation_bound`), and
so is its characteristic function, hence the distribution of the sum (`sum_cdf`).

**Raw fourth moments** mislead. ``E ||h_L||**4 / (E ||h_L||**2)**2 = prod(1 + 5/n_l)`` grows like
exp(5 sum 1/n_l) (Hanin 2018, theorem 1; Hanin and Nica 2020), but it comes from nets that are so
rare that no sample holds them: `tilted` gives the law of the log-norm weighted by ``||h||**4``,
hence what part of the moment a sample can see.

**One step** has an exact law for any phi, given what was measured one layer before:
``h_l`` has independent entries phi(N(0, s_l**2 ||h_{l-1}||**2)); and, W_l being Gaussian and
unconstrained orthogonally to h_{l-1} given the whole forward pass, the part of g_{l-1} orthogonal
to h_{l-1} has squared norm ``s_l**2 ||d_l||**2 chi2_{n_{l-1} - 1}`` (the conditioning of Bayati
and Montanari 2011, lemma 10). No mean-field assumption is needed to check a tanh net. For weights
that are used more than once, on many rows, in every step, or transposed on the way back, the same
conditioning says what each use adds to those before: `innovations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import digamma, gammaln, loggamma, logsumexp, polygamma

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import mean_field

__all__ = [
    "ACTIVATIONS",
    "CUT",
    "LogChiSquare",
    "alive",
    "backward_laws",
    "clipped_square",
    "dead_probability",
    "deviation_bound",
    "expected_log_variances",
    "forward_laws",
    "fourth_moment_ratio",
    "growth",
    "innovations",
    "mean_bound",
    "second_moments",
    "sum_cdf",
    "sum_quantile",
    "tanh_sum_bound",
]

ACTIVATIONS = ("linear", "relu", "tanh")
CUT = 3.0  # where `clipped_square` clips, in standard deviations
DROPPED = 1e-13  # binomial mass left out below: with few degrees no negative moment exists
_NODES, _WEIGHTS = hermegauss(160)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)


def second_moments(
    activation: str, widths: Sequence[int], variances: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``E h_l**2`` and ``E g_l**2`` per entry, l = 0 .. L, both 1 where they start.

    Forward ``q_l = n_{l-1} s_l**2 E h_{l-1}**2, E h_l**2 = E phi(N(0, q_l))**2``; backward
    ``E g_{l-1}**2 = n_l s_l**2 E phi'(N(0, q_l))**2 E g_l**2``. Exact for linear and ReLU, mean
    field for others; 11 digits in each layer's step.

    Parameters
    ----------
    activation : str
        A name of :data:`isometry.common.laws.mean_field.ACTIVATIONS`.
    widths : sequence of int (L + 1,)
    variances : sequence of float (L,)
        Of the entries of W_1 .. W_L.
    """
    forward, slopes = [1.0], []
    for n_in, variance in zip(widths, variances, strict=False):
        signal, slope = mean_field.second_moments(activation, n_in * variance * forward[-1])
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

    def tilted(self, power: float) -> LogChiSquare:
        """Return the law of X under the density exp(power X) / E exp(power X).

        Again a mixture of log chi-squares: of ``degrees + 2 power``, with weights multiplied by
        ``Gamma(K/2 + power) / Gamma(K/2)``. Power 2 weights each layer by ``||h||**4``.
        """
        half = self.degrees / 2
        logs = np.log(self.weights) + gammaln(half + power) - gammaln(half)
        weights = np.exp(logs - logsumexp(logs))
        return LogChiSquare(self.scale, self.degrees + 2 * power, weights)


def _binomial(width: int) -> np.ndarray:
    """Return the probabilities of 0 .. width under Binomial(width, 1/2)."""
    k = np.arange(width + 1.0)
    logs = gammaln(width + 1) - gammaln(k + 1) - gammaln(width - k + 1) - width * math.log(2)
    return np.asarray(np.exp(logs))


def _mixture(scale: float, mass: np.ndarray) -> LogChiSquare:
    """Return the law of degrees 0, 1, .. of these probabilities, less 0 and the fewest degrees."""
    kept = np.cumsum(mass) > DROPPED
    kept[0] = False
    degrees = np.arange(float(mass.size))[kept]
    return LogChiSquare(scale, degrees, mass[kept], float(mass[~kept].sum()))


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
    return _mixture(scale, _binomial(width))


def alive(activation: str, scale: float, width: int) -> LogChiSquare:
    """Return the law of `growth` given that the layer is not dead, K >= 1.

    What is independent over layers stays so, given that none of them is dead.
    """
    if activation != "relu":
        return growth(activation, scale, width)
    mass = _binomial(width)
    mass[0] = 0.0
    return _mixture(scale, mass / mass.sum())


def dead_probability(widths: Sequence[int]) -> float:
    """Return the probability that one of the ReLU layers is 0 on an input: 1 - prod(1 - 2**-n)."""
    return -math.expm1(sum(math.log1p(-(2.0**-n)) for n in widths))


def fourth_moment_ratio(activation: str, widths: Sequence[int]) -> float:
    """Return ``E ||h||**4 / (E ||h||**2)**2`` after layers of these widths.

    ``prod(1 + 5/n)`` for ReLU, ``prod(1 + 2/n)`` for linear nets, whatever the variance of the
    Gaussian weights: ``E chi2_K = n/2, E chi2_K**2 = n (n + 5) / 4`` for K ~ Binomial(n, 1/2).
    """
    excess = {"linear": 2.0, "relu": 5.0}[
        checks.choice("activation", activation, ("linear", "relu"))
    ]
    return math.exp(sum(math.log1p(excess / n) for n in widths))


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
    smallest over 96 values of t around the normal optimum; each of them gives a valid bound, so
    the choice affects its sharpness alone. No normal approximation.
    """
    log_level = math.log(2 / level)
    t = math.sqrt(2 * log_level / variance) * np.geomspace(1 / 64, 2, 96)
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


def sum_cdf(laws: Sequence[LogChiSquare], x: np.ndarray) -> np.ndarray:
    """Return P(S <= x) of a sum S of independent laws, with absolute error at most 1e-11.

    ``F(x) = 1/2 - (1/pi) sum_k Im(phi(t_k) exp(-i t_k x)) / (k + 1/2)``, ``t_k = (k + 1/2) h``,
    phi the characteristic function (Gil-Pelaez 1951 by the midpoint rule). Its error is at most the
    probability beyond ``x -+ 2 pi / h`` (Davies 1973, Biometrika 60, 415-417), at most 1e-13 by
    Chernoff's bound, and the terms left off, at most 1e-13: ``|phi(t)|`` is at most the product of
    ``E |Gamma(K/2 + i t)| / Gamma(K/2)``, and each factor falls, from t to t + h, at least by
    ``exp(-h Im psi(K/2 + i t))`` with its largest K.
    """
    mean, bound = _centre(laws)
    step = math.pi / bound
    grouped = _grouped(laws)
    t = (np.arange(_nodes(grouped, step)) + 0.5) * step
    log_phi = np.zeros(t.size, dtype=complex)
    with np.errstate(divide="ignore"):  # a factor below the smallest number is 0, and so is phi
        for law, count in grouped:
            log_phi += count * (1j * t * math.log(2 * law.scale) + np.log(_ratio(law, t)))
    inside = np.clip(np.asarray(x, dtype=np.float64), mean - bound, mean + bound)[..., None]
    waves = np.imag(np.exp(log_phi - 1j * t * inside)) / (t / step)
    return np.asarray(np.clip(0.5 - waves.sum(axis=-1) / math.pi, 0.0, 1.0))


def clipped_square(laws: Sequence[LogChiSquare]) -> tuple[float, float]:
    """Return mean and variance of ``min(z**2, 9)``, z = (S - mean) / standard deviation.

    A bounded measure of spread, for which finite-sample inequalities hold: ``E min(|z|, 3)**p =
    int_0^3 p w**(p-1) P(|z| > w) dw`` by Gauss-Legendre with 64 nodes on `sum_cdf`.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    w, weights = CUT * (nodes + 1) / 2, CUT * weights / 2
    mean = sum(law.mean for law in laws)
    deviation = math.sqrt(sum(law.variance for law in laws))
    beyond = 1 - sum_cdf(laws, mean + w * deviation) + sum_cdf(laws, mean - w * deviation)
    second, fourth = (float((weights * p * w ** (p - 1) * beyond).sum()) for p in (2, 4))
    return second, fourth - second**2


def sum_quantile(laws: Sequence[LogChiSquare], probability: float) -> float:
    """Return x with P(S <= x) = `probability`, as exactly as `sum_cdf`; by bisection."""
    mean, bound = _centre(laws)
    grid = np.linspace(mean - bound, mean + bound, 65)
    for _ in range(8):  # each narrows 64 times
        k = int(np.searchsorted(sum_cdf(laws, grid), probability))
        grid = np.linspace(grid[max(k - 1, 0)], grid[min(k, 64)], 65)
    return float(grid[32])


def _centre(laws: Sequence[LogChiSquare]) -> tuple[float, float]:
    """Return the mean of a sum of laws, and how far from it at most 1e-13 lie."""
    mean = sum(law.mean for law in laws)
    variance = sum(law.variance for law in laws)
    grouped = _grouped(laws)
    bound = deviation_bound(
        lambda t: np.sum([count * law.cumulant(t) for law, count in grouped], axis=0),
        mean,
        variance,
        1e-13,
    )
    return mean, bound


def _grouped(laws: Sequence[LogChiSquare]) -> list[tuple[LogChiSquare, int]]:
    """Return each law once, with how often it comes."""
    found: dict[tuple[float, bytes, bytes], list[LogChiSquare]] = {}
    for law in laws:
        key = (law.scale, law.degrees.tobytes(), law.weights.tobytes())
        found.setdefault(key, []).append(law)
    return [(group[0], len(group)) for group in found.values()]


def _ratio(law: LogChiSquare, t: np.ndarray, *, absolute: bool = False) -> np.ndarray:
    """Return ``E Gamma(K/2 + i t) / Gamma(K/2)``, or the expectation of its absolute value."""
    half = law.degrees / 2
    logs = loggamma(half + 1j * np.asarray(t)[..., None]) - gammaln(half)
    terms = np.exp(logs.real if absolute else logs)
    return np.asarray(terms @ law.weights / law.weights.sum())


def _nodes(grouped: Sequence[tuple[LogChiSquare, int]], step: float) -> int:
    """Return how many nodes leave off at most 1e-13."""
    nodes = 16
    while True:
        t = nodes * step
        size, slope = 1.0, 0.0
        for law, count in grouped:
            size *= float(_ratio(law, np.array(t), absolute=True)) ** count
            slope += count * float(digamma(law.degrees.max() / 2 + 1j * t).imag)
        if size / -math.expm1(-slope * step) <= 1e-13 * nodes:
            return nodes
        nodes *= 2


def innovations(
    rows: np.ndarray,
    outputs: np.ndarray,
    *,
    resolved: np.ndarray,
    known: int = 0,
    seen: np.ndarray | None = None,
) -> np.ndarray:
    """Return what the output of each row adds to those before, ``||P z_i'||**2 / ||r_i'||**2``.

    For ``z_i = W r_i``, W (n_out, n_in) of independent entries N(0, 1), and rows of which each of
    the first `known` may depend on the outputs of those before it, and the others on those of the
    known: r_i' is r_i less its projection on r_1 .. r_{i-1}, and
    z_i' the same combination of outputs, hence W r_i'. Given the outputs before, W is unconstrained
    orthogonally to those rows (Bayati and Montanari 2011, lemma 10), so that the ratio has the law
    chi2_{n_out - k}, and the ratios are independent. P projects away the k rows of `seen`, vectors
    v of which W^T v is known, too: those that the transposed weights were given before.

    Parameters
    ----------
    rows : array (m, n_in)
    outputs : array (m, n_out)
    resolved : array (m,)
        A row with ``||r_i'||`` no larger than this is left out: rounding hides what it adds. To
        each row's own is added what those before leave in it, ``|c_k| resolved_k / ||r_k'||`` for
        a component c_k along r_k'.
    known : int
        So many first rows came in earlier uses of the weights; their ratios are not returned.
    seen : array (k, n_out), optional
        Linearly independent.

    Returns
    -------
    array (m - known,)
        NaN for a row left out; and for all where one of the `known` was that is not 0, as what
        later rows owe to it is not resolved.
    """
    basis, images = np.empty((0, rows.shape[1])), np.empty((0, outputs.shape[1]))
    away = np.empty((outputs.shape[1], 0)) if seen is None else np.linalg.qr(seen.T)[0]
    floors = np.empty(0)
    found = np.full(len(rows), math.nan)
    for i, (r, z) in enumerate(zip(rows, outputs, strict=True)):
        peak = float(np.abs(r).max()) or 1.0  # squares of the largest numbers are none
        r, z = r / peak, z / peak
        floor = resolved[i] / peak + float(np.abs(basis @ r) @ floors)
        for _ in range(2):  # the second time removes what rounding left (Giraud et al. 2005)
            along = basis @ r
            r, z = r - along @ basis, z - along @ images
        rest = float(np.linalg.norm(r))
        if rest > floor:
            found[i] = float(np.sum(np.square(z - away @ (away.T @ z)))) / rest**2
            basis, images = np.vstack([basis, r / rest]), np.vstack([images, z / rest])
            floors = np.append(floors, floor / rest)
        elif i < known and rows[i].any():
            return np.full(len(rows) - known, math.nan)
    return found[known:]


def tanh_sum_bound(q: np.ndarray, width: int, level: float) -> tuple[float, float]:
    """Return mean and deviation bound of ``sum_j sum_{i <= width} tanh(z_ij)**2``.

    z_ij ~ N(0, q_j) independent: the sum over nets j of ``||h_l||**2`` given the layer before.
    The cumulant generating function is by Gauss-Hermite quadrature with 160 nodes; its error, below
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
