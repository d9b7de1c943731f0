"""Update rules as recursions on a quadratic bowl, and how far rounding can take them off.

The state of a recursion is (slots, n): the weights w and what the rule remembers. A rule is a
function ``step(state, g, t) -> (state, sizes)``, t counted from 1; it accepts further leading axes,
complex numbers and long doubles, and its `sizes` are the sums of the absolute values of what is
added up in each entry. The formulas are the papers', written with the rate outside the velocity.

`follow` runs a rule on ``w^T H w / 2`` and bounds the distance between any two runs of it in
floating point, to first order: an error l made at step k becomes ``J_t ... J_(k+1) l`` at step t,
with J the Jacobian of a step, found by complex steps (Squire and Trapp 1998), so that

``error(t) = sum_k |J_t ... J_(k+1)| l_k``,  ``l = gamma (sizes + |ds/dg| |H| |w|)``

(Higham 2002, Accuracy and Stability of Numerical Algorithms, sections 1.6 and 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isometry.common import checks
from isometry.common.statistics.rounding import gamma

__all__ = ["Path", "Step", "adagrad", "adam", "follow", "momentum", "quickprop", "rmsprop"]

Step = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]

ROUNDINGS = 16  # of an entry in one step of any rule here, and of a gradient with two terms
TINY = 1e-30  # a complex step: its square vanishes


@dataclass(frozen=True)
class Path:
    """A recursion's way.

    Attributes
    ----------
    weights : numpy.ndarray (steps + 1, n)
    error : numpy.ndarray (steps + 1, n)
        Bound of what rounding adds in one run, to first order.
    """

    weights: np.ndarray
    error: np.ndarray


def follow(step: Step, slots: int, hessian: np.ndarray, start: np.ndarray, steps: int) -> Path:
    """Run a rule on ``w^T H w / 2`` from a start, the other slots zero.

    Parameters
    ----------
    step : callable
        One of this module's.
    slots : int
        Of its state, w among them.
    hessian : numpy.ndarray (n, n)
        Symmetric.
    start : numpy.ndarray (n,)
    """
    checks.integer("steps", steps, low=0)
    size = start.size
    unit = gamma(ROUNDINGS + 2 * size, "float64")
    state = np.zeros((slots, size))
    state[0] = start
    weights, errors = [start], [np.zeros(size)]
    carried = np.zeros((0, slots * size, slots * size))
    for t in range(1, steps + 1):
        g = state[0] @ hessian
        new, sizes = step(state, g, t)
        by_state, by_gradient = _jacobians(step, state, hessian, t)
        local = sizes.ravel() + np.abs(by_gradient) @ (np.abs(state[0]) @ np.abs(hessian))
        carried = np.concatenate([by_state @ carried, np.diag(unit * local)[None]])
        state = new
        weights.append(state[0])
        errors.append(np.abs(carried).sum(axis=(0, 2))[:size])
    return Path(np.array(weights), np.array(errors))


def _jacobians(
    step: Step, state: np.ndarray, hessian: np.ndarray, t: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives of a step's flat state, by the state and by the gradient alone."""
    count, size = state.size, state.shape[1]
    moved = state + 1j * TINY * np.eye(count).reshape(count, *state.shape)
    by_state = step(moved, moved[:, 0] @ hessian, t)[0].imag.reshape(count, count).T / TINY
    slopes = state[0] @ hessian + 1j * TINY * np.eye(size)
    still = np.broadcast_to(state, (size, *state.shape))
    by_gradient = step(still, slopes, t)[0].imag.reshape(size, count).T / TINY
    return by_state, by_gradient


# --- rules ---------------------------------------------------------------------------------------


def momentum(rate: float, m: float, *, nesterov: bool = False) -> Step:
    """``v <- m v + g``; ``w <- w - rate v``, and ``w - rate (g + m v)`` looking ahead; (w, v)."""

    def step(state: np.ndarray, g: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        w, v = _slots(state)
        velocity, size = m * v + g, m * np.abs(v) + np.abs(g)
        push = g + m * velocity if nesterov else velocity
        length = np.abs(g) + m * size if nesterov else size
        return _stacked(w - rate * push, velocity), _stacked(np.abs(w) + rate * length, size)

    return step


def adam(rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Step:
    """Kingma and Ba 2015, algorithm 1; (w, first moment, second moment)."""

    def step(state: np.ndarray, g: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        w, first, second = _slots(state)
        size = b1 * np.abs(first) + (1 - b1) * np.abs(g)
        first, second = b1 * first + (1 - b1) * g, b2 * second + (1 - b2) * g**2
        slope = rate / (1 - b1**t) / (np.sqrt(second / (1 - b2**t)) + eps)
        return (
            _stacked(w - slope * first, first, second),
            _stacked(np.abs(w) + np.abs(slope) * size, size, np.abs(second)),
        )

    return step


def rmsprop(rate: float, b: float = 0.9, eps: float = 1e-8) -> Step:
    """Tieleman and Hinton 2012; (w, mean square)."""

    def step(state: np.ndarray, g: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        w, second = _slots(state)
        second = b * second + (1 - b) * g**2
        return _scaled(w, g, second, rate, eps)

    return step


def adagrad(rate: float, eps: float = 1e-10) -> Step:
    """Duchi, Hazan and Singer 2011, figure 1, diagonal; (w, sum of squares)."""

    def step(state: np.ndarray, g: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        w, total = _slots(state)
        return _scaled(w, g, total + g**2, rate, eps)

    return step


def quickprop(rate: float, growth: float = 1.75) -> Step:
    """Fahlman 1988, section 3.3, as in his quickprop1.lisp; (w, slope, step)."""
    most = growth / (1 + growth)

    def step(state: np.ndarray, g: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        w, p, x = _slots(state)
        s, side = -g, np.sign(x.real)
        gap = np.where(p.real == s.real, 1, p - s)
        far = side * s.real > most * side * p.real
        jump = np.where(side == 0, 0, np.where(far, growth * x, x * s / gap))
        onward = np.where((side == 0) | (side * s.real > 0), rate * s, 0)
        size = np.abs(jump) + np.abs(onward)
        return _stacked(w + jump + onward, s, jump + onward), _stacked(
            np.abs(w) + size, np.abs(s), size
        )

    return step


def _scaled(
    w: np.ndarray, g: np.ndarray, squares: np.ndarray, rate: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    u = rate * g / (np.sqrt(squares) + eps)
    return _stacked(w - u, squares), _stacked(np.abs(w) + np.abs(u), np.abs(squares))


def _slots(state: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(state[..., slot, :] for slot in range(state.shape[-2]))


def _stacked(*slots: np.ndarray) -> np.ndarray:
    return np.stack(slots, axis=-2)
