"""Saturated and dead units: how many, by the Gaussian law of their preactivations.

A unit of weights N(0, s**2) and bias b has, at an input x, ``z ~ N(b, s**2 ||x||**2)``, exactly.

- **Saturated** is where the slope is below a share r of its largest (`steepest`): beyond
  ``z = 2 arcosh(1/sqrt r)`` of the sigmoid, whose slope is ``1/(4 cosh(z/2)**2)``, and half of that
  of tanh. ReLU does not saturate.
- **Dead** on m inputs is a ReLU unit whose z is not above 0 at any. At inputs at right angles to
  each other its z are independent: ``P = Phi(-b / (s ||x||))**m``. Its gradient is 0, exactly, and
  descent leaves it where it is as long as what enters it does not change. A layer of which all
  units are dead on all inputs passes nothing: no weight before or in it ever changes again.
- **Gradient.** With d_l the gradient in z_l, ``d_{l-1} = phi'(z_{l-1}) (W_l^T d_l)``, so that
  ``||d_{l-1}|| <= max phi' ||W_l|| ||d_l||`` for every input, whatever was learned. In wide nets
  ``||d_{l-1}||**2 = sigma_w**2 E phi'(z_{l-1})**2 ||d_l||**2`` (Schoenholz et al. 2017, eq. 15):
  `gradient_curve`. At any width, W_l of independent N(0, s**2) entries, the part of ``W_l^T d_l``
  at right angles to what enters the layer has the squared length ``s**2 ||d_l||**2 chi2_{n-1}``,
  independently from layer to layer (`isometry.common.laws.propagation`, "one step").
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common import checks
from isometry.common.laws import mean_field

__all__ = [
    "dead_probability",
    "gradient_curve",
    "saturated_probability",
    "steepest",
    "threshold",
]

STEEPEST = {"linear": 1.0, "relu": 1.0, "leaky_relu": 1.0, "tanh": 1.0, "sigmoid": 0.25}


def steepest(activation: str) -> float:
    """Return the largest slope: 1/4 of the sigmoid, 1 of the others (leaky: of slope up to 1)."""
    return STEEPEST[checks.choice("activation", activation, tuple(STEEPEST))]


def threshold(activation: str, share: float) -> float:
    """Return the |z| beyond which the slope is below `share`, in (0, 1], of its largest."""
    checks.choice("activation", activation, ("sigmoid", "tanh"))
    checks.finite("share", share, low=0.0, open_low=True)
    z = math.acosh(1 / math.sqrt(share))
    return 2 * z if activation == "sigmoid" else z


def saturated_probability(activation: str, share: float, variance: float) -> float:
    """Return ``P(|z| > threshold)``, z ~ N(0, variance)."""
    checks.finite("variance", variance, low=0.0, open_low=True)
    return math.erfc(threshold(activation, share) / math.sqrt(2 * variance))


def dead_probability(bias: float, variance: float, inputs: int) -> float:
    """Return ``Phi(-b / sigma)**m``: a unit is dead on m inputs at right angles, of one length.

    Parameters
    ----------
    bias : float
    variance : float
        Of z at each input.
    inputs : int
        m, at least 1.
    """
    checks.finite("bias", bias)
    checks.finite("variance", variance, low=0.0, open_low=True)
    once = math.erfc(bias / math.sqrt(2 * variance)) / 2
    return float(once ** checks.integer("inputs", inputs, low=1))


def gradient_curve(
    activation: str | mean_field.Activation, weight: float, depth: int, *, start: float = 1.0
) -> np.ndarray:
    """Return ``||d_l||**2 / ||d_depth||**2``, l = 1 .. depth, of wide nets without biases.

    Parameters
    ----------
    activation : str or Activation
    weight : float
        sigma_w**2: the variance of a weight times the width.
    depth : int
    start : float
        Mean square of the input's entries.
    """
    checks.integer("depth", depth, low=1)
    signal, slopes = start, []
    for _ in range(depth):
        signal, slope = mean_field.second_moments(activation, weight * signal)
        slopes.append(weight * slope)
    return np.append(np.cumprod(slopes[-2::-1])[::-1], 1.0)
