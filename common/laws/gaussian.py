r"""Expectations of functions of Gaussian numbers, to machine precision, kinks and all.

Gauss-Legendre panels that end at every kink and shrink towards it, so that 16 nodes each give
machine precision for a function that is analytic between its kinks on a scale of 1/100 or more, at
any variance. Gauss-Hermite rules, the usual choice, need many nodes for tanh at large variances and
do not reach 11 digits at a kink.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = ["Function", "cut_normal", "expectation", "pair_expectations", "products"]

Function = Callable[[np.ndarray], np.ndarray]

REACH = 14.0  # standard deviations: what lies beyond is below 1e-42 of a bounded function
TOLERANCE = 1e-11  # relative difference of two rules that `expectation` accepts
TERMS = 256  # of Mehler's series; 11 digits of tanh take 60 at variance 1, 250 at 4
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def cut_normal(cut: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a cut c does to N(0, 1): mass within, and standard deviations after it.

    ``m = 2 Phi(c) - 1`` lies within [-c, c]; truncated there the variance is ``1 - 2 c phi(c) / m``
    (Johnson, Kotz and Balakrishnan 1994, section 10.1), clamped there ``m - 2 c phi(c) + c**2
    (1 - m)``. Relative error at most 1e-12 for c of 0.1 or more.

    Parameters
    ----------
    cut : array
        c, above 0.

    Returns
    -------
    mass, truncated, clamped : array
    """
    from scipy.special import ndtr

    c = np.asarray(cut, dtype=np.float64)
    mass = 2 * ndtr(c) - 1
    second = mass - c * np.exp(-np.square(c) / 2) * math.sqrt(2 / math.pi)  # of what lies within
    return mass, np.sqrt(second / mass), np.sqrt(second + np.square(c) * (1 - mass))


def expectation(f: Function, q: float, *, kinks: tuple[float, ...] = (0.0,)) -> float:
    """Return ``E f(u)``, u ~ N(0, q), to 11 digits of ``E |f(u)|``.

    Parameters
    ----------
    f : callable
        NumPy function of an array, analytic between its kinks; of at most exponential growth.
    q : float
        At least 0.
    kinks : tuple of float
        Where f or a derivative jumps. 0 is always among them.

    Raises
    ------
    InvalidArgument
        If f is not finite, or two rules differ: f has a kink that was not named, or oscillates.
    """
    checks.finite("q", q, low=0.0)
    if q == 0:
        return float(f(np.zeros(1))[0])
    values = []
    for halvings in (8, 9):
        z, weights = _rule(_size(q, kinks), tuple(kinks), halvings)
        with np.errstate(all="ignore"):
            terms = weights * f(math.sqrt(q) * z)
        values.append(float(terms.sum()))
    if not math.isfinite(values[1]) or abs(values[0] - values[1]) > TOLERANCE * np.abs(terms).sum():
        raise InvalidArgument(
            f"the expectation over N(0, {q:.6g}) did not converge: two rules gave {values[0]!r} "
            f"and {values[1]!r}; the function must be finite, and analytic but for its kinks, of "
            f"which {kinks} were named"
        )
    return values[1]


def pair_expectations(
    functions: Sequence[Function],
    q_1: float,
    q_2: float,
    c: float,
    *,
    kinks: tuple[float, ...] = (0.0,),
) -> list[float]:
    """Return ``E f(u_1) f(u_2)`` of each function, u_1 and u_2 of correlation c.

    ``u_1 = sqrt(q_1) z_1``, ``u_2 = sqrt(q_2) (c z_1 + sqrt(1 - c^2) z_2)``; the rule of z_2 is
    laid out anew for each z_1, around where u_2 passes a kink. 11 digits, for functions that
    `expectation` takes and that grow no faster than a polynomial.
    """
    s_1, s_2, rest = math.sqrt(q_1), math.sqrt(q_2), math.sqrt((1 - c) * (1 + c))
    # what is left of z_2 varies on the scale of `rest` where z_1 passes a kink
    halvings = 2 - math.floor(math.log2(max(rest, 1e-9)))
    z_1, weights_1 = _rule(_size(q_1, kinks), kinks, halvings)
    if rest * s_2 < 1e-9:  # a second derivative of f times this, squared, is no longer seen
        inner = [f(s_2 * c * z_1) for f in functions]
    else:
        passed = (np.array([0.0, *kinks]) / s_2 - c * z_1[:, None]) / rest
        z_2, weights_2 = _panels(_edges(passed, 1 / (s_2 * rest), 2))
        weights_2 = weights_2 * np.exp(-np.square(z_2) / 2) / math.sqrt(2 * math.pi)
        u_2 = s_2 * (c * z_1[:, None] + rest * z_2)
        inner = [(weights_2 * f(u_2)).sum(axis=1) for f in functions]
    return [float((f(s_1 * z_1) * weights_1) @ g) for f, g in zip(functions, inner, strict=True)]


def products(f: Function, q_1: np.ndarray, q_2: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return ``E f(u_1) f(u_2)`` for each of many variances and correlations, to 11 digits.

    Mehler's series, ``sum_k a_k(q_1) a_k(q_2) c**k``, ``a_k(q) = E f(sqrt(q) z) He_k(z) /
    sqrt(k!)``, z ~ N(0, 1) (Kibble 1945, Proc. Camb. Phil. Soc. 41). By Parseval's identity its
    first K terms leave out ``r(q) = E f(u)^2 - sum_k a_k(q)^2`` of E f(u)^2, so that by Cauchy's
    and Schwarz's inequality the product lacks at most ``|c|**K sqrt(r(q_1) r(q_2))``. The integrals
    are trapezoids, whose error is about the square of that with every other node. Where one or the
    other is too much, at large variances, it is `pair_expectations`.

    Parameters
    ----------
    f : callable
        NumPy function of an array, analytic on the real line and bounded.
    q_1, q_2 : array
        Variances, at least 0.
    c : array of the same shape
        Correlations, from -1 to 1.
    """
    step = 1 / 16
    z = np.arange(-REACH, REACH + step, step)
    weights = step * np.exp(-np.square(z) / 2) / math.sqrt(2 * math.pi)
    hermite = [np.ones_like(z), z]
    for k in range(1, TERMS - 1):
        hermite.append((z * hermite[k] - math.sqrt(k) * hermite[k - 1]) / math.sqrt(k + 1))
    series, lacking = c[..., None] ** np.arange(TERMS), np.abs(c) ** TERMS
    scale, coarse = np.ones_like(c), np.zeros(np.shape(c), dtype=bool)
    for q in (q_1, q_2):
        values = f(np.sqrt(q)[..., None] * z)
        square = np.square(values) @ weights
        coarser = 2 * np.square(values[..., ::2]) @ weights[::2]
        coarse = coarse | (np.abs(square - coarser) > math.sqrt(TOLERANCE) / 4 * square)
        a = (values * weights) @ np.array(hermite).T
        series = series * a
        lacking = lacking * np.sqrt(np.maximum(square - np.square(a).sum(axis=-1), 0.0))
        scale = scale * np.sqrt(square)
    found = np.asarray(series.sum(axis=-1))
    for at in map(tuple, np.argwhere(coarse | (lacking > TOLERANCE * scale))):
        variances = float(q_1[at]), float(q_2[at])
        found[at] = pair_expectations((f,), *variances, float(c[at]), kinks=())[0]
    return found


def _size(q: float, kinks: tuple[float, ...]) -> float:
    """Return sqrt(q); or, if the one kink is at 0, the power of 2 below, for one rule of many q."""
    std = math.sqrt(q)
    return std if any(kinks) else 2.0 ** math.floor(math.log2(std))


@functools.lru_cache(maxsize=256)
def _rule(std: float, kinks: tuple[float, ...], halvings: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes z and weights of N(0, 1) for functions of std * z with these kinks."""
    z, weights = _panels(_edges(np.array([0.0, *kinks]) / std, 1 / std, halvings))
    return z, weights * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _edges(kinks: np.ndarray, scale: float, halvings: int) -> np.ndarray:
    """Return panel edges on [-REACH, REACH]: steps of 2, and steps that shrink to each kink.

    Parameters
    ----------
    kinks : array (..., k)
    scale : float
        Size of the features of f around a kink, of which the smallest step is 2**-halvings.
    """
    exponents = np.arange(-halvings, max(1, math.ceil(1 - math.log2(scale))) + 1)
    steps = scale * 2.0 ** (exponents + halvings % 2 / 2)  # two rules share no edge but the kinks
    steps = steps[steps <= 2]
    around = np.concatenate([-steps, [0.0], steps])
    shape = kinks.shape[:-1]
    graded = (kinks[..., None] + around).reshape(*shape, -1)
    grid = np.linspace(-REACH, REACH, int(REACH) + 1 + halvings % 2)
    grid = np.broadcast_to(grid, (*shape, grid.size))
    return np.sort(np.clip(np.concatenate([grid, graded], axis=-1), -REACH, REACH), axis=-1)


def _panels(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights (..., 16 panels) of Gauss-Legendre on the panels between edges."""
    half = np.diff(edges, axis=-1)[..., None] / 2
    middle = edges[..., :-1, None] + half
    shape = (*edges.shape[:-1], -1)
    return (middle + half * _NODES).reshape(shape), (half * _WEIGHTS).reshape(shape)
