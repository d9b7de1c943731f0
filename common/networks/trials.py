"""Trials: a small net trained on the digits by one regimen, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isometry.common.laws.perceptron import accuracy, cross_entropy
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.training import Data, rows
from isometry.common.optimizers.optimizer import NonFinite, Optimizer
from isometry.common.optimizers.rules import Rule
from isometry.common.optimizers.schedules import Schedule

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["Clip", "Outcome", "Regimen", "Trainer"]

Array = Any
Arrays = Mapping[str, Array]
Clip = Callable[["Backend", Arrays, Arrays], dict[str, Array]]
"""``clip(nx, parameters, gradients) -> gradients``."""

EVERY = 5  # steps between two looks at the accuracy


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
    """

    rule: Rule
    rate: float
    schedule: Schedule | None = None
    clip: Clip | None = None
    batch: int = 64
    steps: int = 100
    seed: int = 0
    until: float = 0.9


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
        The step, counted from 1, whose loss, gradient or result was not finite: the last tried.
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

    Parameters
    ----------
    nx : Backend
    network : FullyConnected
    data : Data
    """

    def __init__(self, nx: Backend, network: FullyConnected, data: Data) -> None:
        self.nx, self.network, self.data = nx, network, data
        self._optimizers: dict[Rule, Optimizer] = {}
        self._x = nx.asarray(data.x[: data.trained])
        self._labels = data.labels[: data.trained].argmax(axis=1)

        def loss(p: Arrays, x: Array, targets: Array, masks: Arrays) -> Array:
            return cross_entropy(nx, network.output(nx, p, x, masks), targets)

        self.gradient = nx.value_and_gradient(nx.compile(loss))
        self.output = nx.compile(lambda p, x: network.output(nx, p, x))

    def run(
        self, parameters: Arrays, regimen: Regimen, tell: Callable[[int], None] = lambda _: None
    ) -> Outcome:
        """Train from these parameters on; `tell(step)` is called after each step."""
        nx, data = self.nx, self.data
        optimizer = self._optimizers.setdefault(regimen.rule, Optimizer(nx, regimen.rule))
        state = optimizer.start(parameters)
        numbers = sum(math.prod(nx.shape_of(a)) for a in state.arrays.values())
        outcome = Outcome(dict(parameters), numbers)
        streams = nx.stream(regimen.seed)
        if self._look(outcome, 0) >= regimen.until:
            return outcome
        for step in range(regimen.steps):
            chosen = rows(regimen.seed, regimen.batch, step, data.trained)
            masks = (
                self.network.masks(nx, streams.child(step), regimen.batch)
                if self.network.dropout
                else {}
            )
            x, targets = nx.asarray(data.x[chosen]), nx.asarray(data.labels[chosen])
            value, gradient = self.gradient(outcome.parameters, x, targets, masks)
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
                return outcome
            tell(step + 1)
            last = step + 1 == regimen.steps
            if (last or (step + 1) % EVERY == 0) and self._look(outcome, step + 1) >= regimen.until:
                return outcome
        return outcome

    def _look(self, outcome: Outcome, step: int) -> float:
        """Take the accuracy; of outputs that are not finite it is that of guessing, 0.1 or so."""
        share = accuracy(self.nx, self.output(outcome.parameters, self._x), self._labels)
        outcome.checked.append(step)
        outcome.accuracies.append(share)
        return share
