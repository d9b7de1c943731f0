"""Maximal update parametrization: variances and learning rates that carry from width to width.

============ ============================= =================== ======================
role         variance of an entry          learning rate, SGD  learning rate, Adam
============ ============================= =================== ======================
input, bias  1 / fan_in                    fan_out             1
hidden       1 / fan_in                    fan_out / fan_in    1 / fan_in
output       1 / fan_in^2                  1 / fan_in          1 / fan_in
============ ============================= =================== ======================

Each up to a constant, which the model of a base width fixes: there all is as without muP. The
table is that of Yang et al. 2022 (Tensor Programs V, table 3; from Yang and Hu 2021, Tensor
Programs IV, table 1), where all widths grow alike and a hidden layer's SGD factor is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.fans import Fans, fans
from isometry.common.laws.rules import Initializer
from isometry.common.laws.scaling import DISTRIBUTIONS, VarianceScaling

__all__ = ["LEARNING_RATES", "ROLES", "MuP"]

LEARNING_RATES = {  # role -> optimizer -> exponents of fan_in and fan_out, relative to the base
    "input": {"sgd": (0, 1), "adam": (0, 0)},
    "hidden": {"sgd": (-1, 1), "adam": (-1, 0)},
    "output": {"sgd": (-1, 0), "adam": (-1, 0)},
}
ROLES = tuple(LEARNING_RATES)


@dataclass(frozen=True)
class MuP(Initializer):
    """The weight of a layer of a given role, scaled from the same layer of a base model.

    Law: entries of mean 0 and variance gain^2 / fan_in; for the output layer
    (gain^2 / fan_in) (base fan_in / fan_in).
    Use: nets whose hyperparameters are tuned at a small width and used at a large one; multiply
    the learning rate of each weight by `learning_rate`.
    Keeps: the size of every preactivation, and of its change in one step of SGD or Adam, as the
    width grows: features are learned in every layer, and the best learning rate stays.
    Source: Yang et al. 2022, Tensor Programs V, table 3.

    Parameters
    ----------
    role : {"input", "hidden", "output"}
        Whether fan_in, fan_out or both grow with the width: input layers (embeddings, first
        layers, biases) have a fixed fan_in, output layers a fixed fan_out.
    base : Fans
        Of this layer in the base model.
    gain : float
    distribution : {"normal", "truncated", "uniform"}

    Raises
    ------
    InvalidArgument
        If the role or distribution is unknown, a base fan below 1, the gain negative or not
        finite, or the shape has no fans.
    """

    role: str
    base: Fans
    gain: float = 1.0
    distribution: str = "normal"

    def __post_init__(self) -> None:
        checks.choice("role", self.role, ROLES)
        if not isinstance(self.base, Fans):
            raise InvalidArgument(
                f"base must be the Fans of the layer in the base model, such as Fans(64, 64); "
                f"received {self.base!r}"
            )
        for name, fan in zip(Fans._fields, self.base, strict=True):
            checks.integer(f"{name} of the base", fan, low=1)
        checks.finite("gain", self.gain, low=0.0)
        checks.choice("distribution", self.distribution, DISTRIBUTIONS)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Distribution:
        """Return the exact law of the entries of a weight of this shape."""
        return self.law(fans(shape, layout))

    def law(self, fan: Fans) -> Distribution:
        """Return the exact law for given fans."""
        shrunk = math.sqrt(self.base.fan_in / fan.fan_in) if self.role == "output" else 1.0
        return VarianceScaling(self.gain * shrunk, "fan_in", self.distribution).law(fan)

    def learning_rate(self, optimizer: str, fan: Fans) -> float:
        """Return the factor of the base model's learning rate for a layer of these fans.

        Parameters
        ----------
        optimizer : {"sgd", "adam"}
            Momentum does not matter; "adam" stands for all that divide each entry's gradient by
            its size, as Adagrad and RMSProp.

        >>> MuP("hidden", Fans(64, 64)).learning_rate("adam", Fans(1024, 1024))
        0.0625
        """
        rates = LEARNING_RATES[self.role]
        in_, out = rates[checks.choice("optimizer", optimizer, tuple(rates))]
        return float(
            (fan.fan_in / self.base.fan_in) ** in_ * (fan.fan_out / self.base.fan_out) ** out
        )
