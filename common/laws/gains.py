r"""Gains: the factor of the standard deviation that makes up for an activation.

Two tables that share names and not values. `pytorch_gain` is `torch.nn.init.calculate_gain`, by
convention. `exact_gain` is the one number that keeps the second moment,

``gain = 1 / sqrt(E f(Z)**2)``,  Z ~ N(0, 1):

with weights of variance gain^2 / fan_in, preactivations of second moment 1 stay at 1 (He et al.
2015, eq. 7 to 10, for ReLU; Poole et al. 2016, eq. 3, for any f, in the limit of infinite width).
For linear, ReLU and leaky ReLU every other second moment stays as well, at any width; for the
others 1 is the fixed point, which need not attract. Gradients have another condition,
``gain**2 E f'(Z)**2 = 1``, the same only for those three.

============ ================ ================ ===========================================
activation   pytorch_gain     exact_gain       E f(Z)^2
============ ================ ================ ===========================================
linear       1                1                1
relu         sqrt(2)          sqrt(2)          1/2
leaky_relu   sqrt(2/(1+a^2))  the same         (1 + a^2)/2; PReLU too, at its first slope a
tanh         5/3              1.592537         quadrature
sigmoid      1                1.846229         quadrature
elu                           1.245198         1/2 + c
selu         3/4              1.000000         l^2 (1/2 + a^2 c)
gelu                          1.533530         1/3 + 1/(2 pi sqrt(3))
silu                          1.676532         quadrature
============ ================ ================ ===========================================

``c = E (e^Z - 1)^2 [Z < 0] = e^2 P(-2) - 2 e^(1/2) P(-1) + 1/2`` with P the distribution function
of N(0, 1); a and l are SELU's constants. The alpha of ELU is 1, the slope of leaky ReLU 0.01 unless
given, as in PyTorch; GELU is x P(x), not its tanh approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from isometry.common import checks

__all__ = ["EXACT", "PYTORCH", "exact_gain", "pytorch_gain"]

SELU_ALPHA = 1.6732632423543772848  # Klambauer et al. 2017, eq. 14
SELU_SCALE = 1.0507009873554804934

PYTORCH: dict[str, float] = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3 / 4,
}
"""`torch.nn.init.calculate_gain`, leaky ReLU apart. 5/3 and 3/4 are empirical."""


def _below(x: float) -> float:
    """P(Z <= x)."""
    return math.erfc(-x / math.sqrt(2)) / 2


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _mean_square(f: Callable[[float], float]) -> float:
    """Return E f(Z)^2 by the trapezoidal rule with step 1/8 on [-12, 12].

    For f analytic in |Im x| < a, bounded there so that the integrand's integral along each line is
    at most M, its error is at most ``2 M / (exp(2 pi a / h) - 1)`` (Trefethen and Weideman 2014,
    theorem 5.1). tanh, sigmoid and SiLU have M < 10 at a = 1: 3e-21; what lies beyond 12 adds
    1e-30. What remains is rounding, below 4 ULP.
    """
    h = 1 / 8
    density = h / math.sqrt(2 * math.pi)
    nodes = (k * h for k in range(-96, 97))
    return density * math.fsum(f(x) ** 2 * math.exp(-x * x / 2) for x in nodes)


_ELU = math.exp(2) * _below(-2) - 2 * math.exp(0.5) * _below(-1) + 0.5  # c of the table

SECOND_MOMENTS: dict[str, float] = {
    "linear": 1.0,
    "sigmoid": _mean_square(_sigmoid),
    "tanh": _mean_square(math.tanh),
    "relu": 0.5,
    "elu": 0.5 + _ELU,
    "selu": SELU_SCALE**2 * (0.5 + SELU_ALPHA**2 * _ELU),
    "gelu": 1 / 3 + 1 / (2 * math.pi * math.sqrt(3)),
    "silu": _mean_square(lambda x: x * _sigmoid(x)),
}
"""E f(Z)^2, Z ~ N(0, 1), leaky ReLU apart."""

EXACT: dict[str, float] = {name: 1 / math.sqrt(m) for name, m in SECOND_MOMENTS.items()}
"""``1 / sqrt(E f(Z)^2)``, leaky ReLU apart."""


def pytorch_gain(activation: str, *, slope: float = 0.01) -> float:
    """Return the gain of PyTorch's table.

    Parameters
    ----------
    activation : {"linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"}
    slope : float
        Of leaky ReLU for x < 0; the others have none.

    Raises
    ------
    InvalidArgument
        If the activation is unknown or the slope not finite.

    >>> pytorch_gain("tanh"), exact_gain("tanh")
    (1.6666666666666667, 1.5925374197228312)
    """
    return _gain(PYTORCH, activation, slope)


def exact_gain(activation: str, *, slope: float = 0.01) -> float:
    """Return ``1 / sqrt(E f(Z)**2)``, which keeps a second moment of 1; error below 4 ULP.

    Parameters
    ----------
    activation : str
        Also "elu", "gelu" and "silu"; "leaky_relu" stands for PReLU as well.
    slope : float
        As in `pytorch_gain`, and with the same errors.
    """
    return _gain(EXACT, activation, slope)


def _gain(table: dict[str, float], activation: str, slope: float) -> float:
    checks.finite("slope", slope)
    checks.choice("activation", activation, (*table, "leaky_relu"))
    if activation == "leaky_relu":
        return math.sqrt(2 / (1 + slope**2))
    return table[activation]
