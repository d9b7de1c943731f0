"""Remedies for a net that does not train, and the bench on which each is tried alone.

A remedy trains if the accuracy on the images that it is trained on reaches 90 %. Its largest safe
rate is found by going from its own rate by factors of 4, up as long as the rate does no harm, or
down until it does none, within 1e-6 and 1e4: no harm is that within 10 steps the loss stays finite,
the mean of the last three is at most 0.01 nat above the first, and the net is not dead, its outputs
0 and its loss ln 10 where it began elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common.laws.scaling import VarianceScaling
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.training import CLASSES, PIXELS, Data
from isometry.common.networks.trials import Clip, Outcome, Regimen, Trainer
from isometry.common.optimizers.clipping import clip_by_global_norm, clip_by_value
from isometry.common.optimizers.presets import optimizer_rule
from isometry.common.optimizers.rules import Rule
from isometry.common.optimizers.schedules import Schedule, WarmUp

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["REMEDIES", "Bench", "Remedy", "Row", "safe_rate", "together", "unharmed"]

Array = Any
Arrays = dict[str, Array]
Options = dict[str, Any]

TRAINS = 0.9  # accuracy
BATCH = 128
FACTOR, LOWEST, HIGHEST, SAFE_STEPS = 4.0, 1e-6, 1e4, 10
HARM, DEAD = 0.01, 1e-5  # nat


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What is changed, and why it might help; all else is plain gradient descent at rate 0.1.

    `options` are those of the network; `he` says that the weights are drawn as He's.
    """

    why: str
    rule: Rule = field(default_factory=lambda: optimizer_rule("sgd"))
    rate: float = 0.1
    schedule: Callable[[float], Schedule] | None = None
    clip: Callable[[Backend, Arrays], Arrays] | None = None
    options: Options = field(default_factory=dict)
    he: bool = False

    @property
    def changes_network(self) -> bool:
        """Whether it is another net, or begins elsewhere, and not another training."""
        return bool(self.options) or self.he


REMEDIES: dict[str, Remedy] = {
    "nothing": Remedy(why="gradient descent"),
    "rate / 64": Remedy(why="smaller steps", rate=0.1 / 64),
    "rate x 64": Remedy(why="larger steps", rate=6.4),
    "clip by value": Remedy(
        why="no entry of the gradient above 0.1: the sign where it explodes",
        clip=lambda nx, g: clip_by_value(nx, g, 0.1, nonfinite="propagate"),
    ),
    "clip by norm": Remedy(
        why="no gradient longer than 3, its direction kept",
        clip=lambda nx, g: clip_by_global_norm(nx, g, 3.0, nonfinite="propagate"),
    ),
    "LARS": Remedy(
        why="a step of each layer is 0.15 % of its weights, with momentum 0.9 up to ten times that",
        rule=optimizer_rule("lars", trust=1.5e-3),
        rate=1.0,
    ),
    "LAMB": Remedy(
        why="Adam's direction, at 0.5 % of the layer's weights",
        rule=optimizer_rule("lamb"),
        rate=0.005,
    ),
    "NovoGrad": Remedy(
        why="each layer's gradient divided by its running norm",
        rule=optimizer_rule("novograd"),
        rate=0.05,
    ),
    "Adam": Remedy(
        why="each entry divided by its running size", rule=optimizer_rule("adam"), rate=0.003
    ),
    "warm-up": Remedy(
        why="from a fifth of the rate to all of it in five steps",
        schedule=lambda rate: WarmUp(rate=rate, steps=5),
    ),
    "weight decay": Remedy(
        why="large weights shrink, by 0.1 % a step",
        rule=optimizer_rule("sgd", weight_decay=0.01),
    ),
    "residual": Remedy(why="h + phi(z)", options={"shortcut": "residual"}),
    "dense": Remedy(why="[h, phi(z)]", options={"shortcut": "dense"}),
    "highway": Remedy(why="gates begun nearly closed", options={"shortcut": "highway"}),
    "SkipInit": Remedy(why="h + alpha phi(z), alpha = 0", options={"shortcut": "skipinit"}),
    "batch norm": Remedy(
        why="the scale of the weights is divided out", options={"normalization": "batch"}
    ),
    "initialization": Remedy(why="He's weights: a factor of 1 a layer", he=True),
    "dropout": Remedy(why="a tenth of the units at random", options={"dropout": 0.1}),
}


@dataclass(frozen=True)
class Row:
    """What came of a remedy; `safe` is NaN where no rate of the grid is safe."""

    outcome: Outcome
    safe: float
    count: int

    @property
    def steps(self) -> float:
        """To 90 %, or infinity."""
        reached = self.outcome.reached(TRAINS)
        return math.inf if reached is None else float(reached)

    @property
    def accuracy(self) -> float:
        """At the end."""
        return self.outcome.accuracies[-1]

    @property
    def memory(self) -> float:
        """Numbers that the optimizer remembers, per parameter."""
        return self.outcome.state / self.count


class Bench:
    """What all trials share; a net of one kind is compiled once."""

    def __init__(
        self,
        nx: Backend,
        data: Data,
        seed: int,
        depth: int,
        steps: int,
        gains: dict[str, float],
    ) -> None:
        self.nx, self.data, self.seed = nx, data, seed
        self.depth, self.steps, self.gains = depth, steps, gains
        self._trainers: dict[str, Trainer] = {}
        self._clips: dict[Any, Clip] = {}

    def network(self, gain: float, options: Options) -> FullyConnected:
        """Return a net of weights of this multiple of He's."""
        widths = (*[PIXELS] * self.depth, CLASSES)
        return FullyConnected(widths, "relu", VarianceScaling(gain * 2**0.5), **options)

    def row(self, net: str, remedy: Remedy) -> Row:
        """Train a net with a remedy, and look for its largest safe rate."""
        nx = self.nx
        network = self.network(1.0 if remedy.he else self.gains[net], remedy.options)
        key = str(remedy.options)
        trainer = self._trainers.setdefault(key, Trainer(nx, network, self.data))
        parameters = network.initialize(nx, nx.stream(self.seed))
        count = sum(math.prod(nx.shape_of(a)) for a in parameters.values())
        if remedy.clip:
            self._clips.setdefault(remedy.clip, _compiled(nx, remedy.clip))

        def regimen(rate: float) -> Regimen:
            schedule = remedy.schedule(rate) if remedy.schedule else None
            return Regimen(
                rule=remedy.rule,
                rate=rate,
                schedule=schedule,
                clip=self._clips.get(remedy.clip),
                batch=BATCH,
                steps=self.steps,
                seed=self.seed,
                until=TRAINS,
            )

        outcome = trainer.run(parameters, regimen(remedy.rate))

        def harmless(rate: float) -> bool:
            trial = outcome  # which began with the steps that its own rate is judged by
            if rate != remedy.rate or (trial.failed is None and len(trial.losses) < SAFE_STEPS):
                short = replace(regimen(rate), steps=SAFE_STEPS, look=0)
                trial = trainer.run(parameters, short)
            failed = trial.failed is not None and trial.failed <= SAFE_STEPS
            return not failed and unharmed(trial.losses[:SAFE_STEPS])

        return Row(outcome, safe_rate(harmless, remedy.rate), count)


def _compiled(nx: Backend, clip: Callable[[Backend, Arrays], Arrays]) -> Clip:
    """Return a clip that is compiled: with a tuple as its result, in the order of the paths."""

    @nx.compile
    def ordered(gradients: Arrays) -> tuple[Array, ...]:
        clipped = clip(nx, gradients)
        return tuple(clipped[path] for path in sorted(clipped))

    def clipped(nx: Backend, parameters: Any, gradients: Any) -> Arrays:
        return dict(zip(sorted(gradients), ordered(gradients), strict=True))

    return clipped


def unharmed(losses: Sequence[float]) -> bool:
    """Return whether finite losses are those of a net that came to no harm."""
    chance = math.log(CLASSES)
    dead = abs(losses[-1] - chance) < DEAD and abs(losses[0] - chance) > HARM
    return not dead and float(np.mean(losses[-3:])) <= losses[0] + HARM


def safe_rate(harmless: Callable[[float], bool], rate: float) -> float:
    """Return the largest rate that does no harm, as the module says; NaN if none was found."""
    if harmless(rate):
        while rate * FACTOR <= HIGHEST and harmless(rate * FACTOR):
            rate *= FACTOR
        return rate
    while rate / FACTOR >= LOWEST:
        rate /= FACTOR
        if harmless(rate):
            return rate
    return math.nan


def together(training: str, network: str) -> Remedy:
    """Return the change of the training of one and that of the net of another."""
    changed = REMEDIES[network]
    return replace(REMEDIES[training], options=changed.options, he=changed.he)
