r"""Signal and gradient in a deep plain tanh net with orthogonal weights: exact laws at any width.

The net is ``z_l = g Q_l h_{l-1}``, ``h_l = tanh(z_l)``, with independent Haar-distributed Q_l
(n, n) and no biases. Write ``q_l = ||z_l||^2 / n``, and d_l for the gradient of a loss in z_l.

**Signal.** Given everything before layer l, z_l is uniform on the sphere of radius sqrt(n q_l),
since Q_l is independent of h_{l-1}. A coordinate of the unit sphere has density proportional to
``(1 - u^2)^((n-3)/2)``, so that with v = n q u^2

``E q_{l+1} / (g^2 q_l) = E tanh(sqrt v)^2 / q = 1 - 2 q n/(n+2) + O(q^2)``  (`length_map`),

the mean-field map of Poole et al. 2016, eq. 3, as n grows. At g = 1, where the net is critical, it
gives ``1/q_l = 1/q_1 + 2 l`` nearly: a signal that starts at q = 1/L ends at a third of it, and
whatever it starts from, q_l is about 1/(2l) in the end.

What a layer loses, ``sum_i f(u_i^2)`` with ``f(u^2) = u^2 - tanh(sqrt(n q) u)^2 / (n q)``, grows
with each u_i^2. These are Dirichlet, hence negatively associated (Joag-Dev and Proschan 1983,
theorem 2.8), so ``E exp(t sum f) <= (E exp(t f))^n`` for every real t: Chernoff's bound holds as if
they were independent, and, layers being conditioned on in turn, for their sum.

**Gradient.** Given the whole forward pass, Q_l is known only along h_{l-1}. The gradient
``g_l = g Q_{l+1}^T d_{l+1}`` in h_l has a known component along h_l, alpha = z_{l+1}.d_{l+1} /
||h_l||, and a rest of known norm beta and uniform direction orthogonal to h_l. With
``a = tanh'(z_l)^2``, ``e = h_l^2 / ||h_l||^2`` and m = n - 1

``E ||d_l||^2 = alpha^2 sum a e + beta^2 (sum a - sum a e) / m``,

and the variance is a closed form too (`gradient_ratio`); `slope_map` is chi_1 at this width,
the mean of a over g^2. Freedman's inequality (1975, theorem 1.6, its exponential supermartingale
with a parameter t that is fixed beforehand) then bounds the sum over layers.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import roots_gegenbauer

from isometry.common import checks

__all__ = ["curves", "gradient_ratio", "length_map", "signal_ratio", "slope_map"]

POINTS, NODES = 64, 160  # of t, and of the quadrature


@functools.cache
def _coordinate(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n u^2 and weights: the law of a coordinate of the unit sphere, by quadrature.

    Gauss-Gegenbauer with 160 nodes: tanh^2 has poles at i pi/2, to which u comes as near as
    ``pi / (2 sqrt(n q))``; up to n q = 122 the error is below 1e-9 of the value (mpmath).
    """
    checks.integer("width", width, low=3, high=1000)  # SciPy's polynomials overflow beyond
    u, weights = roots_gegenbauer(NODES, (width - 2) / 2)
    return width * np.square(u), weights / weights.sum()


def length_map(q: float, width: int) -> float:
    """Return ``E tanh(z)^2``, z a coordinate of a point uniform on the sphere ||z||^2 = n q."""
    square, weights = _coordinate(width)
    return float(weights @ np.square(np.tanh(np.sqrt(q * square))))


def slope_map(q: float, width: int) -> float:
    """Return ``E tanh'(z)^2`` for the same z: chi_1 of a net with weights of gain 1."""
    square, weights = _coordinate(width)
    return float(weights @ np.square(1 - np.square(np.tanh(np.sqrt(q * square)))))


def curves(q: float, width: int, depth: int, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return q_l and ``ln(||d_1||^2 / ||d_l||^2)`` as expected, l = 1 .. depth, from q_1 = q.

    Each follows from the expectation of one step, put in the place of the step: right up to the
    fluctuation of the sums, which `signal_ratio` and `gradient_ratio` bound.
    """
    lengths, logs = [q], [0.0]
    for _ in range(depth - 1):
        logs.append(logs[-1] + math.log(gain**2 * slope_map(lengths[-1], width)))
        lengths.append(gain**2 * length_map(lengths[-1], width))
    return np.array(lengths), np.array(logs)


def signal_ratio(
    before: np.ndarray, after: np.ndarray, width: int, start: float, level: float, gain: float = 1.0
) -> float:
    """Return the largest deviation of a signal's loss of length from its law, over its bound.

    The loss is summed over layers: ``sum_l (||z_l||^2 - ||h_l||^2) / ||z_l||^2`` minus what is
    expected given each ||z_l||.

    Parameters
    ----------
    before : array (layers, inputs)
        ``||W_l^-1 z_l||^2 / n g^2``: g^2 ||h_{l-1}||^2 / n, what q_l is if weights keep the norm.
    after : array (layers, inputs)
        ``||h_l||^2 / n``.
    start : float
        The q_1 that the net was built for; it fixes t, before anything is drawn.
    level : float
        Probability with which some input exceeds its bound, a ratio of 1.
    """
    layers, inputs = before.shape
    logarithm = math.log(2 * inputs / level)
    nominal, _ = curves(start, width, layers, gain)

    def cumulant(t: float, q: np.ndarray) -> np.ndarray:
        square, weights = _coordinate(width)
        f = square - np.square(np.tanh(np.sqrt(q[..., None] * square))) / q[..., None]
        mean = (f @ weights)[..., None]  # of n f, the mean loss of a layer
        terms = np.exp(np.clip(t * (f - mean) / width, -700, 700)) @ weights
        return np.asarray(width * np.log(terms))

    spread = math.sqrt(layers * np.mean(np.square(nominal)) * 48 / width)
    grid = math.sqrt(logarithm) / spread * np.geomspace(1 / 32, 2, POINTS)
    worst = np.zeros(inputs)
    ratio = after / before
    expected = np.array([[length_map(q, width) / q for q in row] for row in before])
    deviation = (expected - ratio).sum(axis=0)  # positive: lost more than expected
    for sign in (1.0, -1.0):
        best = min(grid, key=lambda t: (cumulant(sign * t, nominal).sum() + logarithm) / t)
        bound = (np.sum([cumulant(sign * best, q) for q in before], axis=0) + logarithm) / best
        worst = np.fmax(worst, np.where(np.isnan(deviation), np.inf, sign * deviation / bound))
    return float(worst.max())


def gradient_ratio(z: np.ndarray, d: np.ndarray, level: float, gain: float = 1.0) -> float:
    """Return the largest deviation of the gradient's steps from their law, over its bound.

    ``sum_l (||d_l||^2 / ||g_l||^2 - E)`` over layers, given the forward pass.

    Parameters
    ----------
    z, d : array (layers, inputs, n)
        Preactivations, and gradients in them, of square layers.
    level : float
        As in `signal_ratio`.
    """
    inputs, n = z.shape[1:]
    logarithm = math.log(2 * inputs / level)
    h, m = np.tanh(z[:-1]), n - 1
    total = gain**2 * np.square(d[1:]).sum(axis=-1)  # ||g_l||^2
    norm = np.square(h).sum(axis=-1)
    along = np.square((z[1:] * d[1:]).sum(axis=-1)) / norm / total  # share alpha^2 / ||g_l||^2
    a = np.square(1 - np.square(h))
    e = np.square(h) / norm[..., None]
    on, square_on = (a * e).sum(axis=-1), (a * a * e).sum(axis=-1)
    trace = a.sum(axis=-1) - on
    trace_square = (a * a).sum(axis=-1) - 2 * square_on + on**2
    ratio = np.square(d[:-1]).sum(axis=-1) / total
    deviation = (ratio - along * on - (1 - along) * trace / m).sum(axis=0)
    across = 2 * (m * trace_square - trace**2) / (m**2 * (m + 2))
    mixed = 4 * (square_on - on**2) / m
    width = a.max(axis=-1) - a.min(axis=-1)  # no step deviates by more

    def bound(t: np.ndarray, variance: np.ndarray) -> np.ndarray:
        growth = np.expm1(t * width) - t * width
        scaled = np.where(width > 0, growth / np.square(np.maximum(width, 1e-300)), t * t / 2)
        return np.asarray(((scaled * variance).sum(axis=0) + logarithm) / t)

    # t is chosen from the forward pass, as if nothing of the gradient lay along the signal
    spread = np.sqrt(across.sum(axis=0))
    grid = [math.sqrt(2 * logarithm) / spread * c for c in np.geomspace(1 / 64, 2, POINTS)]
    at = np.argmin([bound(t, across) for t in grid], axis=0)
    t = np.array(grid)[at, np.arange(inputs)]
    variance = (1 - along) ** 2 * across + along * (1 - along) * mixed
    worst = np.abs(deviation) / bound(t, variance)
    return float(np.where(np.isnan(worst), np.inf, worst).max())
