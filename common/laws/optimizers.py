"""Update rules of gradient descent, as pure functions over flat dictionaries ``path -> array``.

Each takes the parameters, their gradients and the state left by the step before, and returns the
new parameters and state; nothing is changed in place. An empty state means zeros, as at the start.
Arrays keep their dtype: every coefficient is a Python number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["DECAY", "OPTIMIZERS", "Update", "adam", "momentum", "sgd"]

Array = Any
Arrays = Mapping[str, Array]
Update = Callable[..., tuple[dict[str, Array], dict[str, Array]]]
DECAY = 0.9  # of the velocity, by default


def sgd(
    nx: Backend, parameters: Arrays, gradients: Arrays, state: Arrays, /, *, rate: float, step: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Gradient descent: ``w <- w - rate g`` (Robbins and Monro 1951); no state."""
    return {path: w - rate * gradients[path] for path, w in parameters.items()}, {}


def momentum(
    nx: Backend,
    parameters: Arrays,
    gradients: Arrays,
    state: Arrays,
    /,
    *,
    rate: float,
    step: int,
    decay: float = DECAY,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Heavy ball: ``v <- decay v + g; w <- w - rate v`` (Polyak 1964, as PyTorch writes it).

    The state holds v under the path of its parameter.
    """
    velocity = {path: decay * state.get(path, 0.0) + g for path, g in gradients.items()}
    return {path: w - rate * velocity[path] for path, w in parameters.items()}, velocity


def adam(
    nx: Backend,
    parameters: Arrays,
    gradients: Arrays,
    state: Arrays,
    /,
    *,
    rate: float,
    step: int,
    decay_first: float = 0.9,
    decay_second: float = 0.999,
    eps: float = 1e-8,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Adam (Kingma and Ba 2015, algorithm 1).

    ``m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g**2``;
    ``w <- w - rate m' / (sqrt(v') + eps)`` with ``m' = m / (1 - b1**step)`` and
    ``v' = v / (1 - b2**step)``.

    Parameters
    ----------
    step : int
        Number of this step, counted from 1.
    state : mapping
        m and v under ``path/first`` and ``path/second``.
    """
    new: dict[str, Array] = {}
    moved: dict[str, Array] = {}
    for path, w in parameters.items():
        g = gradients[path]
        first = decay_first * state.get(f"{path}/first", 0.0) + (1 - decay_first) * g
        second = decay_second * state.get(f"{path}/second", 0.0) + (1 - decay_second) * (g * g)
        root = nx.ops.sqrt(second / (1 - decay_second**step))
        moved[path] = w - rate * ((first / (1 - decay_first**step)) / (root + eps))
        new |= {f"{path}/first": first, f"{path}/second": second}
    return moved, new


OPTIMIZERS: dict[str, Update] = {"sgd": sgd, "momentum": momentum, "adam": adam}
