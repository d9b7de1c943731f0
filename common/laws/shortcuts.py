r"""Signal and gradient in a deep ReLU net with shortcuts: mean squares, layer by layer.

The net is ``z_l = W_l h_{l-1}`` without biases, with independent entries of W_l ~ N(0, s_l^2), and
h_l of z_l and h_{l-1} as `isometry.common.networks.fully_connected` has it. Write M, A for the mean
square and the mean of a unit of h_{l-1}, ``q = n_{l-1} s_l^2 M`` for the variance of z_l, ``a =
sqrt(q / (2 pi))`` for E phi(z_l), and G_l for the mean square of the gradient in a unit of h_l:

========== =============================================== =======================================
shortcut   mean square of h_l                              G_{l-1} / G_l
========== =============================================== =======================================
none       q/2                                             n s^2 / 2
residual   M + 2 A a + q/2                                 1 + n s^2 / 2
dense      of all units together M (1 + n_l s^2 / 2)       1 + n_l s^2 / 2, of those that are new
highway    E t^2 q/2 + 2 E t(1-t) A a + E (1-t)^2 M        E (1-t)^2 + n s^2 (E t^2 / 2 +
                                                           E (t(1-t))^2 (q/2 - 2 A a + M))
skipinit   M                                               1
========== =============================================== =======================================

with t = sigmoid(u), u ~ N(c, n s^2 M): gates whose weights are drawn as W and whose bias is c. The
weights being new in each layer, z_l is independent of which unit of h_{l-1} it is added to. The
forward column is exact in expectation at any width without gates, the others in the limit of
infinite width with gradients independent of the weights (Yang and Schoenholz 2017, section 3, for
the residual net). SkipInit is exact: its blocks begin as the identity.

**Batch normalization** before each ReLU makes ``q = n s^2 / 2`` in every layer but the first, and
the gradient grow by ``pi / (pi - 1)`` a layer backwards, whatever the weights' scale, in wide nets
and large batches whose examples have become uncorrelated (Yang et al. 2019, A mean field theory of
batch normalization, table 1): ``n s^2 / 2`` over the variance ``n s^2 (1/2 - 1/(2 pi))`` of z_l
between examples.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from isometry.common import checks
from isometry.common.laws.gaussian import Function, expectation

__all__ = ["BATCH_NORM", "SHORTCUTS", "Curves", "propagate"]

SHORTCUTS = ("none", "residual", "dense", "highway", "skipinit")
BATCH_NORM = math.pi / (math.pi - 1)
"""Growth of a gradient's mean square by a layer of batch norm and ReLU, backwards."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Mean squares, layer by layer.

    Attributes
    ----------
    preactivation : array (depth,)
        Of a unit of z_1 .. z_L.
    gradient : array (depth - 1,)
        G_1 .. G_{L-1}, of which the last is 1.
    """

    preactivation: np.ndarray
    gradient: np.ndarray


def propagate(
    shortcut: str, width: int, depth: int, gain: float, *, mean: float = 0.0, gate: float = 0.0
) -> Curves:
    """Follow the table from an input of mean square 1 to the last layer, and back.

    Parameters
    ----------
    shortcut : str
        One of `SHORTCUTS`.
    width : int
        Of the input and of every hidden layer.
    depth : int
        L, at least 2; the last layer has neither activation nor shortcut.
    gain : float
        s_l^2 is ``2 gain^2 / fan-in``: 1 is He's initialization.
    mean : float
        Of the input's entries, A before the first layer.
    gate : float
        c, the bias of a highway's gates.

    Raises
    ------
    InvalidArgument
        If the shortcut is unknown, or a number is not allowed.

    >>> propagate("residual", 64, 4, 1.0).gradient
    array([4., 2., 1.])
    """
    checks.choice("shortcut", shortcut, SHORTCUTS)
    checks.integer("width", width, low=1)
    checks.integer("depth", depth, low=2)
    checks.finite("gain", gain, low=0.0, open_low=True)
    square, variances, growths = 1.0, [], []
    for layer in range(1, depth):
        fan_in = width * layer if shortcut == "dense" else width
        step = _Step(square, mean, 2 * gain**2, width / fan_in)
        variances.append(step.variance)
        square, mean, growth = _STEPS[shortcut](step, gate)
        growths.append(growth)
    variances.append(2 * gain**2 * square)
    gradient = np.cumprod([1.0, *growths[:0:-1]])[::-1]  # the first layer's is of the input
    return Curves(np.array(variances), gradient)


@dataclass(frozen=True)
class _Step:
    """One layer: M, A, ``n_in s^2``, and ``n_out / n_in``."""

    square: float
    mean: float
    scale: float
    share: float

    @property
    def variance(self) -> float:
        """q."""
        return self.scale * self.square

    @property
    def level(self) -> float:
        """``E relu(z)``."""
        return math.sqrt(self.variance / (2 * math.pi))


Moved = tuple[float, float, float]
"""M and A of the layer's output, and ``G_{l-1} / G_l``."""


def _plain(step: _Step, gate: float) -> Moved:
    return step.variance / 2, step.level, step.scale / 2


def _residual(step: _Step, gate: float) -> Moved:
    square = step.square + 2 * step.mean * step.level + step.variance / 2
    return square, step.mean + step.level, 1 + step.scale / 2


def _dense(step: _Step, gate: float) -> Moved:
    grown = 1 + step.scale * step.share / 2  # of the sum of squares, over 1 + share units
    mean = (step.mean + step.share * step.level) / (1 + step.share)
    return step.square * grown / (1 + step.share), mean, grown


def _highway(step: _Step, gate: float) -> Moved:
    of = functools.partial(_gates, gate, step.variance)
    opened, closed = of(lambda t: t * t), of(lambda t: (1 - t) ** 2)
    mixed, steep = of(lambda t: t * (1 - t)), of(lambda t: (t * (1 - t)) ** 2)
    product = step.mean * step.level
    square = opened * step.variance / 2 + 2 * mixed * product + closed * step.square
    apart = step.variance / 2 - 2 * product + step.square
    share = of(lambda t: t)
    mean = share * step.level + (1 - share) * step.mean
    return square, mean, closed + step.scale * (opened / 2 + steep * apart)


def _gates(gate: float, variance: float, f: Function) -> float:
    """Return ``E f(sigmoid(u))``, u ~ N(gate, variance)."""
    from scipy.special import expit

    return expectation(lambda u: f(expit(gate + u)), variance)


def _skipinit(step: _Step, gate: float) -> Moved:
    return step.square, step.mean, 1.0


_STEPS = {
    "none": _plain,
    "residual": _residual,
    "dense": _dense,
    "highway": _highway,
    "skipinit": _skipinit,
}
