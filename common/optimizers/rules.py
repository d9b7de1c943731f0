"""Update rules, each once: what moves one array of parameters, given its gradient.

A rule is a frozen dataclass of constants. Its arithmetic knows neither steps nor schedules: all
that changes from step to step are a few numbers, `Rule.coefficients`, which are Python's in an
eager step and arrays of shape () in a compiled one, so that it compiles once. It is done in float32
or float64: parameters of half precision are moved in float32 and rounded at last
(`isometry.common.optimizers.optimizer`).

Weight decay acts in one of three ways on ``w``, ``g`` and the step ``u`` of the rule:

===========  ======================================  ===========================================
coupled      ``w <- w - u(g + d w)``                 Krogh and Hertz 1991: the penalty d w**2 / 2
decoupled    ``w <- w - rate d w - u(g)``            Loshchilov and Hutter 2019, as in PyTorch
independent  ``w <- w - d w - u(g)``                 the same paper, algorithm 2, schedule 1
===========  ======================================  ===========================================
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from isometry.common import checks
from isometry.common.errors import InvalidArgument

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["SGD", "Adagrad", "Adam", "Momentum", "RMSprop", "Rule"]

Array = Any
Arrays = Mapping[str, Array]
Numbers = Mapping[str, Any]  # floats, or arrays of shape () and the parameter's dtype
Moved = tuple[Any, dict[str, Array]]

DECAYS = ("coupled", "decoupled", "independent")


@dataclass(frozen=True, kw_only=True)
class Rule(abc.ABC):
    """What all rules have.

    Attributes
    ----------
    rate : float
        Learning rate, at least 0; a step may be given another.
    weight_decay : float
        d, at least 0.
    decay : str
        "coupled", "decoupled" or "independent".
    """

    rate: float
    weight_decay: float = 0.0
    decay: str = "coupled"

    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays that a parameter's state holds, as `start` makes them."""
    fractions: ClassVar[tuple[str, ...]] = ()
    """Constants in [0, 1): decays of running means."""

    def __post_init__(self) -> None:
        checks.choice("decay", self.decay, DECAYS)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in self.fractions:
                _fraction(field.name, value)
            elif isinstance(field.default, float) or field.name == "rate":
                checks.finite(field.name, value, low=0.0)

    def start(self, nx: Backend, w: Array, /) -> dict[str, Array]:
        """Return the state of one parameter before the first step."""
        return {slot: nx.ops.zeros_like(w) for slot in self.slots}

    def begin(self, nx: Backend, parameters: Arrays, /) -> dict[str, Array]:
        """Return the state of all parameters before the first step, under ``path/slot``."""
        return {
            f"{path}/{slot}": x
            for path, w in parameters.items()
            for slot, x in self.start(nx, w).items()
        }

    def coefficients(self, step: int, rate: float) -> dict[str, float]:
        """Return the numbers of a step, counted from 1, at a rate."""
        kept = {"decoupled": 1 - rate * self.weight_decay, "independent": 1 - self.weight_decay}
        return {"rate": rate, "kept": kept.get(self.decay, 1.0)}

    def apply(
        self, nx: Backend, parameters: Arrays, gradients: Arrays, state: Arrays, c: Numbers, /
    ) -> Moved:
        """Return all parameters and their state, ``path/slot``, after a step of these numbers."""
        moved: dict[str, Array] = {}
        new: dict[str, Array] = {}
        for path, w in parameters.items():
            own = {slot: state[f"{path}/{slot}"] for slot in self.slots}
            moved[path], own = self.move(nx, path, w, gradients[path], own, c)
            new |= {f"{path}/{slot}": x for slot, x in own.items()}
        return moved, new

    def advance(
        self,
        nx: Backend,
        parameters: Arrays,
        gradients: Arrays,
        state: Arrays,
        /,
        *,
        step: int = 1,
        rate: float | None = None,
    ) -> Moved:
        """Return all parameters and their state after a step, eagerly and without checks.

        An empty state is that before the first step. `Optimizer` checks, and compiles.
        """
        c = self.coefficients(step, self.rate if rate is None else rate)
        return self.apply(nx, parameters, gradients, state or self.begin(nx, parameters), c)

    @abc.abstractmethod
    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        """Return the parameter after a step, and its state.

        Parameters
        ----------
        path : str
            Name of the parameter.
        w, g : array
            Parameter and gradient, of one shape and dtype, float32 or float64.
        state : mapping of str to array
            What `start` or the step before returned.
        c : mapping of str to number
            `coefficients` of this step.
        """

    def decayed(self, nx: Backend, w: Array, g: Array, c: Numbers) -> tuple[Array, Array]:
        """Return the parameter and the gradient with the weight decay in one of them."""
        if not self.weight_decay:
            return w, g
        if self.decay == "coupled":
            return w, g + self.weight_decay * w
        return nx.scaled(w, c["kept"]), g


@dataclass(frozen=True, kw_only=True)
class SGD(Rule):
    """Gradient descent: ``u = rate g`` (Robbins and Monro 1951, equation 9)."""

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        w, g = self.decayed(nx, w, g, c)
        return nx.axpy(w, -c["rate"], g), {}


FORMS = ("outside", "inside", "average")


@dataclass(frozen=True, kw_only=True)
class Momentum(Rule):
    """Heavy ball (Polyak 1964), in three forms that part when the rate changes.

    =======  =========================  ==============  ==============================
    outside  ``v <- m v + g``           ``u = rate v``  ``u = rate (g + m v)``
    inside   ``v <- m v + rate g``      ``u = v``       ``u = rate g + m v``
    average  ``v <- m v + (1 - m) g``   ``u = rate v``  ``u = rate ((1 - m) g + m v)``
    =======  =========================  ==============  ==============================

    The last column is Nesterov's look-ahead, as Sutskever et al. 2013 (equations 3 and 4) have it,
    at the point that they look ahead to.

    Attributes
    ----------
    momentum : float
        m, in [0, 1).
    form : str
        "outside" (PyTorch, Optax), "inside" (Keras, MXNet, Sutskever et al.) or "average".
    nesterov : bool
    """

    momentum: float = 0.9
    form: str = "outside"
    nesterov: bool = False

    slots = ("velocity",)
    fractions = ("momentum",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("form", self.form, FORMS)

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        w, g = self.decayed(nx, w, g, c)
        m = self.momentum
        weight = {"outside": 1.0, "inside": c["rate"], "average": 1 - m}[self.form]
        length = 1.0 if self.form == "inside" else c["rate"]
        velocity = nx.axpy(nx.scaled(state["velocity"], m), weight, g)
        if self.nesterov:  # length (weight g + m v)
            w = nx.axpy(w, -length * weight, g)
            length = length * m
        return nx.axpy(w, -length, velocity), {"velocity": velocity}


PLACES = ("outside", "hat", "inside")


@dataclass(frozen=True, kw_only=True)
class Adam(Rule):
    """Adam (Kingma and Ba 2015, algorithm 1), and where eps is added.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g**2``, with ``m' = m / (1 - b1**t)`` and
    ``v' = v / (1 - b2**t)`` at step t:

    =======  ==============================================================  ================
    outside  ``u = rate m' / (sqrt(v') + eps)``                              PyTorch, Optax
    hat      ``u = rate sqrt(1 - b2**t) / (1 - b1**t) m / (sqrt(v) + eps)``  Keras, MXNet
    inside   ``u = rate m' / sqrt(v' + eps)``                                Optax's eps_root
    =======  ==============================================================  ================

    "hat" is the paper's just above its section 2.1: at the first step it is an eps of 31.6 times
    the size with b2 = 0.999. AdamW (Loshchilov and Hutter 2019) is this with decay "decoupled".

    Attributes
    ----------
    decay_first, decay_second : float
        b1 and b2, in [0, 1).
    eps : float
    place : str
        "outside", "hat" or "inside".
    """

    rate: float = 1e-3
    decay_first: float = 0.9
    decay_second: float = 0.999
    eps: float = 1e-8
    place: str = "outside"

    slots = ("first", "second")
    fractions = ("decay_first", "decay_second")

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("place", self.place, PLACES)

    def coefficients(self, step: int, rate: float) -> dict[str, float]:
        first, second = 1 - self.decay_first**step, 1 - self.decay_second**step
        # sqrt(v') + eps = (sqrt(v) + eps sqrt(1 - b2**t)) / sqrt(1 - b2**t), and so inside
        eps = {"outside": math.sqrt(second), "hat": 1.0, "inside": second}[self.place] * self.eps
        return super().coefficients(step, rate) | {
            "scale": rate * math.sqrt(second) / first,
            "eps": eps,
        }

    def moments(self, nx: Backend, g: Array, state: Arrays, c: Numbers) -> Moved:
        """Return what ``scale m`` is divided by, and the new moments m and v."""
        b1, b2 = self.decay_first, self.decay_second
        first = nx.axpy(nx.scaled(state["first"], b1), 1 - b1, g)
        second = nx.addcmul(nx.scaled(state["second"], b2), 1 - b2, g, g)
        return _root(nx, second, c["eps"], self.place), {"first": first, "second": second}

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        w, g = self.decayed(nx, w, g, c)
        root, moments = self.moments(nx, g, state, c)
        return nx.addcdiv(w, -c["scale"], moments["first"], root), moments


@dataclass(frozen=True, kw_only=True)
class RMSprop(Rule):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5): a running mean of squared gradients.

    ``v <- b v + (1 - b) g**2``; ``u = rate g / (sqrt(v) + eps)`` with `place` "outside" (PyTorch),
    ``u = rate g / sqrt(v + eps)`` "inside" (Keras, Optax, MXNet).

    Attributes
    ----------
    decay_second : float
        b, in [0, 1).
    eps : float
    place : str
        "outside" or "inside".
    """

    rate: float = 1e-3
    decay_second: float = 0.9
    eps: float = 1e-8
    place: str = "outside"

    slots = ("second",)
    fractions = ("decay_second",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("place", self.place, ("outside", "inside"))

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        w, g = self.decayed(nx, w, g, c)
        b = self.decay_second
        second = nx.addcmul(nx.scaled(state["second"], b), 1 - b, g, g)
        root = _root(nx, second, self.eps, self.place)
        return nx.addcdiv(w, -c["rate"], g, root), {"second": second}


@dataclass(frozen=True, kw_only=True)
class Adagrad(Rule):
    """Adagrad (Duchi, Hazan and Singer 2011, figure 1, diagonal): the sum of squared gradients.

    ``s <- s + g**2``; ``u = rate g / (sqrt(s) + eps)`` with `place` "outside" (PyTorch),
    ``u = rate g / sqrt(s + eps)`` "inside" (Keras, Optax, MXNet).

    Attributes
    ----------
    initial : float
        s before the first step; 0 in the paper, 0.1 in Keras and Optax.
    eps : float
    place : str
        "outside" or "inside".
    """

    rate: float = 1e-2
    initial: float = 0.0
    eps: float = 1e-10
    place: str = "outside"

    slots = ("total",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("place", self.place, ("outside", "inside"))

    def start(self, nx: Backend, w: Array, /) -> dict[str, Array]:
        return {"total": nx.ops.zeros_like(w) + self.initial}

    def move(self, nx: Backend, path: str, w: Array, g: Array, state: Arrays, c: Numbers) -> Moved:
        w, g = self.decayed(nx, w, g, c)
        total = nx.addcmul(state["total"], 1.0, g, g)
        root = _root(nx, total, self.eps, self.place)
        return nx.addcdiv(w, -c["rate"], g, root), {"total": total}


def _fraction(name: str, value: object) -> None:
    if checks.finite(name, value, low=0.0) >= 1:
        raise InvalidArgument(f"{name} must be at least 0 and below 1; received {value}")


def _root(nx: Backend, squares: Array, eps: Any, place: str) -> Array:
    sqrt = nx.ops.sqrt
    return sqrt(squares + eps) if place == "inside" else sqrt(squares) + eps
