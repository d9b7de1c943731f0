"""An optimizer: a rule at work on a backend's arrays, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.optimizers.norms import widened
from isometry.common.optimizers.rules import Rule

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["NonFinite", "Optimizer", "State"]

Array = Any
Arrays = Mapping[str, Array]
POLICIES = ("raise", "skip", "propagate")


class NonFinite(InvalidArgument):
    """A gradient holds an infinity or a NaN."""


@dataclass(frozen=True)
class State:
    """What an optimizer remembers.

    Attributes
    ----------
    step : int
        Steps taken; skipped ones do not count.
    skipped : int
        Steps not taken, for a gradient that was not finite.
    arrays : dict of str to array
        ``path/slot``, in float32 or float64; as many entries a parameter as the rule's paper says.
    """

    step: int = 0
    skipped: int = 0
    arrays: dict[str, Array] = field(default_factory=dict)


class Optimizer:
    """A rule on a backend; compiled where the backend compiles, once for all steps.

    Parameters
    ----------
    nx : Backend
    rule : Rule
    nonfinite : str
        What happens when a gradient is infinite or NaN: "raise" `NonFinite`, naming the first such
        parameter; "skip" the step and count it; or "propagate": compute with it.
    donate : bool
        Whether `step` may take the memory of the parameters and the state that it is given, which
        are not to be used afterwards. PyTorch, NumPy, MXNet and JAX then move in place (1.3 to 3
        times as fast, large arrays); TensorFlow's tensors stay as they are.

    Examples
    --------
    >>> import isometry as iso
    >>> nx = iso.load("numpy")
    >>> descent = iso.Optimizer(nx, iso.optimizer_rule("sgd", rate=0.5))
    >>> w = {"w": nx.asarray([1.0, -2.0])}
    >>> w, state = descent.step(w, {"w": nx.asarray([0.5, 0.0])}, descent.start(w))
    >>> w["w"]
    array([ 0.75, -2.  ], dtype=float32)
    """

    def __init__(
        self, nx: Backend, rule: Rule, *, nonfinite: str = "raise", donate: bool = False
    ) -> None:
        checks.choice("nonfinite", nonfinite, POLICIES)
        self.nx, self.rule, self.nonfinite = nx.donating() if donate else nx, rule, nonfinite
        self._eager = (donate and nx.mutable) or "compiled" not in nx.capabilities
        self._move = self._moved if self._eager else self.nx.compile(self._moved)

    def start(self, parameters: Arrays, /) -> State:
        """Return the state before the first step."""
        with self.nx.scope():
            wide = {path: widened(self.nx, w) for path, w in parameters.items()}
            return State(arrays=self.rule.begin(self.nx, wide))

    def step(
        self, parameters: Arrays, gradients: Arrays, state: State, /, *, rate: float | None = None
    ) -> tuple[dict[str, Array], State]:
        """Return the parameters and the state after a step.

        Parameters
        ----------
        parameters, gradients : mapping of str to array
            Of the same paths, shapes and dtypes. Half precision is moved in float32 and rounded.
        state : State
            Of `start`, or of the step before.
        rate : float, optional
            Instead of the rule's own: a schedule's.

        Raises
        ------
        InvalidArgument
            If paths, shapes or dtypes differ, the state is of other parameters, or the rate is
            negative or not finite.
        NonFinite
            If a gradient is, and the policy is "raise".
        """
        rate = self.rule.rate if rate is None else checks.finite("rate", rate, low=0.0)
        self._check(parameters, gradients, state)
        if not parameters:
            return {}, replace(state, step=state.step + 1)
        if self.nonfinite != "propagate" and (bad := self._first_nonfinite(gradients)):
            if self.nonfinite == "skip":
                return dict(parameters), replace(state, skipped=state.skipped + 1)
            raise NonFinite(
                f"the gradient of {bad!r} is not finite at step {state.step + 1}; lower the rate, "
                'clip, or choose nonfinite="skip" or "propagate"'
            )
        c: dict[str, Any] = dict(self.rule.coefficients(state.step + 1, rate))
        held = {f"{path}/": w for path, w in parameters.items()} | state.arrays
        with self.nx.scope():
            if not self._eager:
                c = {name: self.nx.asarray(x, dtype="float64") for name, x in c.items()}
            new = dict(zip(sorted(held), self._move(held, dict(gradients), c), strict=True))
        moved = {path: new.pop(f"{path}/") for path in parameters}
        return moved, replace(state, step=state.step + 1, arrays=new)

    # --- arithmetic ---

    def _moved(self, held: Arrays, gradients: Arrays, numbers: Arrays) -> tuple[Array, ...]:
        """Return what is held after a step: ``path/`` is a parameter, ``path/slot`` its state.

        By their names in alphabetical order: compilers do not keep the order of a dictionary.
        """
        nx = self.nx
        new: dict[str, Array] = {}
        for path, given in gradients.items():
            before = held[f"{path}/"]
            w, g = ({path: widened(nx, x)} for x in (before, given))
            c = numbers
            if not self._eager:
                dtype = nx.dtype_of(w[path])
                c = {name: nx.ops.astype(x, dtype) for name, x in numbers.items()}
            w, state = self.rule.apply(nx, w, g, held, c)
            new |= {f"{path}/": nx.ops.astype(w[path], nx.dtype_of(before)), **state}
        return tuple(new[name] for name in sorted(new))

    # --- checks ---

    def _check(self, parameters: Arrays, gradients: Arrays, state: State) -> None:
        nx = self.nx
        if parameters.keys() != gradients.keys():
            raise InvalidArgument(
                f"parameters and gradients must have the same paths; received {sorted(parameters)} "
                f"and {sorted(gradients)}"
            )
        for path, w in parameters.items():
            kinds = [(nx.shape_of(x), nx.dtype_of(x)) for x in (w, gradients[path])]
            if kinds[0] != kinds[1]:
                raise InvalidArgument(
                    f"parameter {path!r} has shape {kinds[0][0]} and dtype {kinds[0][1]}, its "
                    f"gradient {kinds[1][0]} and {kinds[1][1]}; they must be equal"
                )
        slots = {f"{path}/{slot}" for path in parameters for slot in self.rule.slots}
        if slots != state.arrays.keys():
            raise InvalidArgument(
                f"the state is not that of {type(self.rule).__name__} on these parameters: it has "
                f"{sorted(state.arrays)} and must have {sorted(slots)}; begin with start()"
            )

    def _first_nonfinite(self, gradients: Arrays) -> str:
        return next((path for path, g in gradients.items() if not self.nx.all_finite(g)), "")
