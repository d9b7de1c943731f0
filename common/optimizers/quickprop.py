"""Quickprop: each weight jumps to the minimum of a parabola through its last two slopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isometry.common.optimizers.rules import Array, Arrays, Moved, Numbers, Rule

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["Quickprop"]


@dataclass(frozen=True, kw_only=True)
class Quickprop(Rule):
    """Quickprop (Fahlman 1988, An empirical study of learning speed, section 3.3).

    With the slope ``s = -(g + d w)``, and the slope p and the change x of the step before, for each
    weight

    ``x' = x s / (p - s)``, but ``growth x`` where ``sign(x) s > growth / (1 + growth) sign(x) p``:
    the parabola's minimum lies farther than that, or behind. To this ``rate s`` is added where s
    points along x; ``w <- w + x'``. Where x is 0, as at the first step, which has no parabola,
    ``x' = rate s``. (The conditions are those of the author's own program, quickprop1.lisp.)

    Attributes
    ----------
    growth : float
        The paper's mu: how much longer than the last a step may be.
    """

    rate: float = 0.1
    growth: float = 1.75

    slots = ("slope", "step")

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        ops = nx.ops
        w, g = self.decayed(nx, w, g, c)
        s, p, x = -g, state["slope"], state["step"]
        ahead = ops.sign(x) * s  # positive where s goes on as x did
        zero, one = ops.zeros_like(s), ops.ones_like(s)
        gap = p - s
        jump = x * s / ops.where(ops.abs(gap) > 0, gap, one)
        far = ahead > self.growth / (1 + self.growth) * (ops.sign(x) * p)
        jump = ops.where(far, self.growth * x, jump)
        descent = c["rate"] * s
        onward = ops.where(ahead > 0, descent, zero)
        step = ops.where(ops.abs(x) > 0, jump + onward, descent)
        return nx.axpy(w, 1.0, step), {"slope": s, "step": step}
