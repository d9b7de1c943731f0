"""The way an optimizer goes, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.optimizers.optimizer import Optimizer

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.optimizers.rules import Rule

__all__ = ["trajectory"]

Arrays = Mapping[str, Any]


def trajectory(
    nx: Backend, rule: Rule, start: Arrays, gradient: Callable[[Arrays], Arrays], steps: int
) -> dict[str, np.ndarray]:
    """Return the parameters before each step and after the last, (steps + 1, ...) of each path.

    Parameters
    ----------
    start : mapping of str to array
        Parameters of the backend.
    gradient : callable
        ``gradient(parameters) -> gradients``, of the same paths. What overflows goes on as it is.
    steps : int
        At least 0.
    """
    checks.integer("steps", steps, low=0)
    optimizer = Optimizer(nx, rule, nonfinite="propagate")
    parameters, state = dict(start), optimizer.start(start)
    course = {path: [nx.to_numpy(w)] for path, w in parameters.items()}
    for _ in range(steps):
        parameters, state = optimizer.step(parameters, gradient(parameters), state)
        for path, w in parameters.items():
            course[path].append(nx.to_numpy(w))
    return {path: np.stack(rows) for path, rows in course.items()}
