"""Trials: a small net trained on the digits by one regimen, and what came of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isometry.common.laws.perceptron import accuracy, cross_entropy
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.gradients import compiled_gradient, placed
from isometry.common.networks.residual import Residual
from isometry.common.networks.training import Data, rows
from isometry.common.optimizers.layerwise import Layerwise
from isometry.common.optimizers.optimizer import NonFinite, Optimizer, State
from isometry.common.optimizers.rules import Rule
from isometry.common.optimizers.schedules import Schedule

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["Clip", "Outcome", "Regimen", "Trainer"]

Array = Any
Arrays = Mapping[str, Array]
Clip = Callable[["Backend", Arrays, Arrays], dict[str, Array]]
"""``clip(nx, parameters, gradients) -> gradients``."""


@dataclass(frozen=True, kw_only=True)
class Regimen:
    """How a net is trained.

    Attributes
    ----------
    rule : Rule
    rate : float
        Learning rate; what `schedule` returns at each step takes its place.
    schedule : callable, optional
        ``schedule(step) -> rate``, steps counted from 0.
    clip : callable, optional
        ``clip(nx, parameters, gradients) -> gradients``, before the rule sees them.
    batch, steps, seed : int
        Images per step; steps at most; of the order of the images and of dropout.
    until : float
        Accuracy on the training images at which the training ends; above 1 it never does.
    look : int
        Steps between two looks at the accuracy, one before the first and one after the last; 0 for
        none.
    """

    rule: Rule
    rate: float
    schedule: Schedule | None = None
    clip: Clip | None = None
    batch: int = 64
    steps: int = 100
    seed: int = 0
    until: float = 0.9
    look: int = 5


@dataclass
class Outcome:
    """What came of a trial.

    Attributes
    ----------
    losses : list of float
        Cross-entropy in nats of each step's batch, before the step.
    checked : list of int
        Steps after which the accuracy was taken; 0 is before the first.
    accuracies : list of float
        On the training images, with the batch's statistics and without dropout.
    failed : int, optional
        The step, counted from 1, whose loss or gradient was not finite: the last tried.
    parameters : dict of str to array
        After the last whole step.
    state : int
        Numbers that the optimizer remembered.
    """

    parameters: dict[str, Array]
    state: int
    losses: list[float] = field(default_factory=list)
    checked: list[int] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    failed: int | None = None

    def reached(self, share: float) -> int | None:
        """Return the first looked-at step at which the accuracy was at least a share, or None."""
        pairs = zip(self.checked, self.accuracies, strict=True)
        return next((step for step, right in pairs if right >= share), None)


class Trainer:
    """One network on one set of data; loss, gradient and output are compiled once for all trials.

    Rules and clips see the stacks, ``stackK/name`` of (count, ...); a rule that goes by norms takes
    that of each layer.

    Parameters
    ----------
    nx : Backend
    network : FullyConnected or Residual
    data : Data
    """

    def __init__(self, nx: Backend, network: FullyConnected | Residual, data: Data) -> None:
        self.nx, self.network, self.data = nx, network, data
        self._x = nx.asarray(data.x[: data.trained])
        self._labels = data.labels[: data.trained].argmax(axis=1)

        def loss(parameters: Arrays, x: Array, targets: Array, masks: Arrays) -> Array:
            return cross_entropy(nx, network.output(nx, parameters, x, masks), targets)

        self._gradient = compiled_gradient(nx, loss)
        self._output = nx.compile(lambda parameters, x: network.output(nx, parameters, x))

    def run(
        self, parameters: Arrays, regimen: Regimen, tell: Callable[[int], None] = lambda _: None
    ) -> Outcome:
        """Train from these parameters on; `tell(step)` is called after each step."""
        nx, optimizer = self.nx, _optimizer(self.nx, regimen.rule)
        start = placed(nx, parameters)
        state = optimizer.start(start)
        numbers = sum(math.prod(nx.shape_of(a)) for a in state.arrays.values())
        outcome = Outcome(start, numbers)
        self._train(outcome, optimizer, state, regimen, tell)
        return outcome

    def _train(
        self,
        outcome: Outcome,
        optimizer: Optimizer,
        state: State,
        regimen: Regimen,
        tell: Callable[[int], None],
    ) -> None:
        nx, data = self.nx, self.data
        streams = nx.stream(regimen.seed)
        if self._done(outcome, 0, regimen):
            return
        for step in range(regimen.steps):
            chosen = rows(regimen.seed, regimen.batch, step, data.trained)
            masks = (
                self.network.masks(nx, streams.child(step), regimen.batch)
                if isinstance(self.network, FullyConnected) and self.network.dropout
                else {}
            )
            x, targets = nx.asarray(data.x[chosen]), nx.asarray(data.labels[chosen])
            value, gradient = self._gradient(outcome.parameters, x, targets, masks)
            outcome.losses.append(float(nx.to_numpy(value)))
            rate = regimen.schedule(step) if regimen.schedule else regimen.rate
            try:
                if not math.isfinite(outcome.losses[-1]):
                    raise NonFinite("the loss is not finite")
                if regimen.clip:
                    gradient = regimen.clip(nx, outcome.parameters, gradient)
                outcome.parameters, state = optimizer.step(
                    outcome.parameters, gradient, state, rate=rate
                )
            except NonFinite:
                outcome.failed = step + 1
                return
            tell(step + 1)
            if self._done(outcome, step + 1, regimen):
                return

    def _done(self, outcome: Outcome, step: int, regimen: Regimen) -> bool:
        """Look at the accuracy where it is time; outputs that are not finite are guesses, 0.1."""
        if not regimen.look or (step % regimen.look and step != regimen.steps):
            return False
        share = accuracy(self.nx, self._output(outcome.parameters, self._x), self._labels)
        outcome.checked.append(step)
        outcome.accuracies.append(share)
        return share >= regimen.until


@functools.lru_cache(maxsize=32)
def _optimizer(nx: Backend, rule: Rule) -> Optimizer:
    """Return a rule at work on stacks: one for all nets, which often have the same shapes."""
    return Optimizer(nx, replace(rule, stacked=True) if isinstance(rule, Layerwise) else rule)
