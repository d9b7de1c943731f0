"""Update rules that look at a whole layer: its norm, and that of its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isometry.common import checks
from isometry.common.optimizers.norms import norm
from isometry.common.optimizers.rules import Adam, Array, Arrays, Moved, Numbers, Rule

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["LAMB", "LARS", "Layerwise", "NovoGrad"]


def _ratio(nx: Backend, above: Array, below: Array, whole: Array) -> Array:
    """Return ``above / whole``, and 1 where a norm is 0: such a layer moves as without it."""
    one = nx.ops.ones_like(above)
    return nx.ops.where(above > 0, nx.ops.where(below > 0, above / whole, one), one)


@dataclass(frozen=True, kw_only=True)
class Layerwise(Rule):
    """What these rules have.

    Attributes
    ----------
    stacked : bool
        Whether each array holds several layers, counted by its first axis, with a norm each.
    """

    stacked: bool = False

    def norm(self, nx: Backend, x: Array) -> Array:
        """Return the norm, () in shape, or those of each layer, (count, 1, ..)."""
        return norm(nx, x, axis=tuple(range(1, len(nx.shape_of(x)))) if self.stacked else None)


@dataclass(frozen=True, kw_only=True)
class LARS(Layerwise):
    """Layer-wise rates (You, Gitman and Ginsburg 2017, algorithm 1): a step in proportion to ||w||.

    ``q = trust ||w|| / (||g|| + d ||w|| + eps)``; ``v <- m v + rate q (g + d w)``; ``w <- w - v``.

    With a norm of 0, q is 1: zeros move by plain descent (Optax, MXNet, timm; the paper is silent).
    LARC (NVIDIA's Apex) is `clip` with `form` "outside".

    Attributes
    ----------
    momentum : float
        m, in [0, 1).
    trust : float
        The paper's eta.
    eps : float
    denominator : str
        "separate", as above (the paper, MXNet, timm), or "together": ``||g + d w|| + eps`` (Optax).
    form : str
        "inside", as above, or "outside": ``v <- m v + q (g + d w)``, ``w <- w - rate v`` (timm, and
        MXNet by its correction of the momentum). They part when the rate changes.
    clip : bool
        Whether q is ``min(q / rate, 1)``: the layer's rate is then the smaller of q and rate.
    exempt : tuple of str
        Endings of the paths of parameters that move with q = 1, such as biases.
    """

    rate: float = 0.1
    momentum: float = 0.9
    trust: float = 1e-3
    eps: float = 0.0
    denominator: str = "separate"
    form: str = "inside"
    clip: bool = False
    exempt: tuple[str, ...] = ()

    slots = ("velocity",)
    fractions = ("momentum",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("decay of LARS", self.decay, ("coupled",))
        checks.choice("denominator", self.denominator, ("separate", "together"))
        checks.choice("form", self.form, ("inside", "outside"))

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        decayed = g + self.weight_decay * w
        within, length = (c["rate"], 1.0) if self.form == "inside" else (1.0, c["rate"])
        if not path.endswith(self.exempt):
            within = within * self._trust(nx, w, g, decayed, c)
        velocity = nx.axpy(nx.scaled(state["velocity"], self.momentum), within, decayed)
        return nx.axpy(w, -length, velocity), {"velocity": velocity}

    def _trust(self, nx: Backend, w: Array, g: Array, decayed: Array, c: Numbers) -> Array:
        above = self.norm(nx, w)
        below = self.norm(nx, g if self.denominator == "separate" else decayed)
        whole = below + self.eps
        if self.denominator == "separate":
            whole = whole + self.weight_decay * above
        ratio = _ratio(nx, self.trust * above, below, whole)
        one = nx.ops.ones_like(ratio)
        return nx.ops.minimum(ratio / c["rate"], one) if self.clip else ratio


@dataclass(frozen=True, kw_only=True)
class LAMB(Adam, Layerwise):
    """LAMB (You et al. 2020, algorithm 2): Adam's direction r at the length of the layer.

    ``r = m' / (sqrt(v') + eps) + d w``; ``w <- w - rate ||w|| / ||r|| r``, the ratio being 1 where
    a norm is 0. With `decay` "decoupled" the decay acts beside it (Keras): ``w <- w - rate d w``
    first, and r has none.
    """

    eps: float = 1e-6
    weight_decay: float = 0.01

    def coefficients(self, step: int, rate: float) -> dict[str, float]:
        found = super().coefficients(step, 1.0)
        return found | Rule.coefficients(self, step, rate)

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        root, moments = self.moments(nx, g, state, c)
        direction = c["scale"] * (moments["first"] / root)
        if self.decay == "coupled":
            direction = direction + self.weight_decay * w
        else:
            w = nx.scaled(w, c["kept"])
        above, below = self.norm(nx, w), self.norm(nx, direction)
        length = c["rate"] * _ratio(nx, above, below, below)
        return nx.axpy(w, -length, direction), moments


AVERAGING = ("never", "always", "after the first")


@dataclass(frozen=True, kw_only=True)
class NovoGrad(Layerwise):
    """NovoGrad (Ginsburg et al. 2019, algorithm 1): one second moment for each layer.

    ``v_1 = ||g||**2``, ``v <- b2 v + (1 - b2) ||g||**2``; ``p = g / (sqrt(v) + eps) + d w``;
    ``m_1 = p``, ``m <- b1 m + p``; ``w <- w - rate m``.

    Its state is half of Adam's: one array and one number.

    Attributes
    ----------
    decay_first, decay_second : float
        b1 and b2, in [0, 1).
    eps : float
    averaging : str
        Whether p is multiplied by ``1 - b1`` in m: "never" (the paper, Optax), "always" (timm, at
        the first step too) or "after the first".
    """

    rate: float = 1e-2
    decay_first: float = 0.95
    decay_second: float = 0.98
    eps: float = 1e-8
    averaging: str = "never"

    slots = ("first", "second")
    fractions = ("decay_first", "decay_second")

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("averaging", self.averaging, AVERAGING)

    def start(self, nx: Backend, w: Array, /) -> dict[str, Array]:
        shape = nx.shape_of(w)
        shape = (shape[0], *[1] * len(shape[1:])) if self.stacked else ()
        zero = nx.ops.zeros(shape, dtype=nx.dtype_of(w))
        return {"first": nx.ops.zeros_like(w), "second": zero}

    def coefficients(self, step: int, rate: float) -> dict[str, float]:
        averaged = self.averaging == "always" or (self.averaging != "never" and step > 1)
        return super().coefficients(step, rate) | {
            "old": 0.0 if step == 1 else self.decay_second,
            "new": 1.0 if step == 1 else 1 - self.decay_second,
            "share": 1 - self.decay_first if averaged else 1.0,
        }

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        second = c["old"] * state["second"] + c["new"] * nx.ops.square(self.norm(nx, g))
        one = nx.ops.ones_like(second)
        inverse = nx.ops.where(second > 0, 1 / (nx.ops.sqrt(second) + self.eps), one)
        w, push = self.decayed(nx, w, inverse * g, c)
        first = nx.axpy(nx.scaled(state["first"], self.decay_first), c["share"], push)
        return nx.axpy(w, -c["rate"], first), {"first": first, "second": second}
