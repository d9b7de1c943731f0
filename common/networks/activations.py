"""Activations by name, as functions of backend and array."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from isometry.common import checks

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["ACTIVATIONS", "Activation", "activation"]

Array = Any
Activation = Callable[["Backend", Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "linear": lambda nx, z: z,
    "relu": lambda nx, z: nx.relu(z),
    "leaky_relu": lambda nx, z: nx.leaky_relu(z),
    "tanh": lambda nx, z: nx.tanh(z),
    "sigmoid": lambda nx, z: nx.sigmoid(z),
}


def activation(given: str | Activation) -> Activation:
    """Return the activation of a name, or the function given: ``phi(nx, z) -> array``."""
    if callable(given):
        return given
    return ACTIVATIONS[checks.choice("activation", given, tuple(ACTIVATIONS))]
