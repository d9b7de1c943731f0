"""Which way does each optimizer go down a long valley, and how many steps does it take?

A quadratic bowl of two dimensions whose axes are turned away from those of the weights, so that
rules that treat each weight by itself do not see its directions. Gradient descent, heavy ball and
Nesterov's method go at their best constants, their paths being powers of a companion matrix
(`isometry.common.laws.quadratic_stability`); Adam, RMSprop, Adagrad and Quickprop at one rate each,
held to their papers' recursions (`isometry.common.laws.descent_paths`). Newton's step is at the
minimum at once, whatever the bowl.

Each path is held to its recursion as long as rounding is known to leave it alone: near the minimum
RMSprop's rate over its root mean square grows past the edge of divergence, rounding grows with it,
and two right programs part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import descent_paths as paths
from isometry.common.laws import quadratic_stability as laws
from isometry.common.networks import curvature
from isometry.common.optimizers.presets import optimizer_rule
from isometry.common.optimizers.rules import Rule
from isometry.common.optimizers.second_order import newton_step
from isometry.common.optimizers.trajectory import trajectory
from isometry.common.results import Check, Quantity
from isometry.common.statistics import rounding
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["run"]

Array = Any

START = np.array([1.0, 0.4])  # along the valley and across, in the bowl's own directions
SHARE = 0.01  # of the distance that is left
NEAR = 1e-9  # relative: a distance so close to the goal may reach it a step apart
TOLD = 1e-6  # of the start: paths are compared until rounding may take them farther apart
APART = 4.0  # two runs' rounding, and as much again for terms of second order
TINY = float(np.finfo(np.float64).tiny)  # underflow
NEWTON = "Newton"


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    condition: float = 20.0,
    angle: float = 30.0,
    steps: int = 80,
) -> Findings:
    """Follow every rule down one bowl, step by step.

    Parameters
    ----------
    condition : float
        Condition number of the bowl, at least 1, at most 10,000; its largest curvature is 1.
    angle : float
        Between the valley and the first weight's axis, in degrees.
    steps : int
        Of each rule, between 2 and 400.
    """
    if checks.finite("condition", condition, low=1.0) > 1e4:
        raise InvalidArgument(f"condition must be at most 10000; received {condition:g}")
    checks.finite("angle", angle)
    checks.integer("steps", steps, low=2, high=400)
    bowl = Bowl.of(condition, angle)
    runners = [*_linear(bowl), *_adaptive()]
    total = len(runners) + 1
    evaluate = nx.value_and_gradient(nx.compile(_loss(nx)))
    seen: dict[str, Course] = {}
    found: list[Check] = []
    for runner in runners:
        tell(len(seen), total, runner.name)
        seen[runner.name], claims = _follow(nx, evaluate, bowl, runner, steps)
        found += claims
    tell(len(seen), total, NEWTON)
    seen[NEWTON], claim = _newton(nx, bowl, steps)
    tell(total, total, "done")
    return Findings(_quantities(bowl, seen), (*found, claim), _finding(seen, condition, steps))


@dataclass(frozen=True)
class Bowl:
    """``w^T H w / 2``: curvatures (2,), directions in columns, and a start (2,) in weights."""

    curvatures: np.ndarray
    directions: np.ndarray
    hessian: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, condition: float, angle: float) -> Bowl:
        """Return the bowl of a condition number, turned by an angle in degrees."""
        turn = math.radians(angle)
        q = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        curvatures = np.array([1 / condition, 1.0])
        hessian = (q * curvatures) @ q.T
        return cls(curvatures, q, (hessian + hessian.T) / 2, q @ START)


@dataclass(frozen=True)
class Runner:
    """A rule, its recursion and the slots of that one's state; its constants if it is linear."""

    name: str
    rule: Rule
    step: paths.Step
    slots: int
    tuned: laws.Tuning | None = None


def _linear(bowl: Bowl) -> list[Runner]:
    runners = []
    for name in laws.METHODS:
        tuned = laws.best(name, float(bowl.curvatures[0]), float(bowl.curvatures[1]))
        rate, m = tuned.rate, tuned.momentum
        rule = {
            "gradient descent": optimizer_rule("sgd", rate=rate),
            "heavy ball": optimizer_rule("momentum", rate=rate, momentum=m),
            "Nesterov": optimizer_rule("nesterov", rate=rate, momentum=m),
        }[name]
        step = paths.momentum(rate, m, nesterov=tuned.nesterov)
        runners.append(Runner(name, rule, step, 2, tuned))
    return runners


def _adaptive() -> list[Runner]:
    return [
        Runner("Adam", optimizer_rule("adam", rate=0.1), paths.adam(0.1), 3),
        Runner("RMSprop", optimizer_rule("rmsprop", rate=0.05), paths.rmsprop(0.05), 2),
        Runner("Adagrad", optimizer_rule("adagrad", rate=0.5), paths.adagrad(0.5), 2),
        Runner("Quickprop", optimizer_rule("quickprop", rate=0.1), paths.quickprop(0.1), 3),
    ]


def _loss(nx: Backend) -> Callable[..., Array]:
    def loss(parameters: Mapping[str, Array], hessian: Array) -> Array:
        w = parameters["w"]  # (1, 2)
        return nx.ops.sum(nx.ops.matmul(w, hessian) * w) / 2

    return loss


# --- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """A path (steps + 1, 2), the step that is within 1 %, and the last that rounding leaves alone.

    The first is one more than the steps taken where none is.
    """

    weights: np.ndarray
    within: int
    told: int


def _follow(
    nx: Backend, evaluate: Callable[..., Any], bowl: Bowl, runner: Runner, steps: int
) -> tuple[Course, list[Check]]:
    hessian, start = nx.asarray(bowl.hessian), {"w": nx.asarray(bowl.start[None])}
    with nx.scope():
        weights = trajectory(
            nx, runner.rule, start, lambda parameters: evaluate(parameters, hessian)[1], steps
        )["w"][:, 0]
    exact = paths.follow(runner.step, runner.slots, bowl.hessian, bowl.start, steps)
    reference = exact.weights if runner.tuned is None else _powers(bowl, runner.tuned, steps)
    error = APART * np.linalg.norm(exact.error, axis=1) + TINY
    blurred = ~(error <= TOLD * np.linalg.norm(START))  # NaN is
    told = int(np.argmax(blurred)) - 1 if blurred.any() else steps
    off = np.linalg.norm(weights - reference, axis=1)[1 : told + 1]
    found = [
        Check(
            f"{runner.name}: distance from the exact path, farthest off in units of its bound",
            observed=float(np.max(off / error[1 : told + 1], initial=0.0)),
            expected=0.0,
            bound=1.0,
            source=("powers of the companion matrix" if runner.tuned else "the paper's recursion")
            + "; bound: rounding of each step, carried on by the Jacobians of the steps after it "
            "(isometry.common.laws.descent_paths)",
        )
    ]
    within = _within(weights)
    if runner.tuned is not None:
        found.append(_steps(bowl, runner.name, runner.tuned, within, steps))
    return Course(weights, within, told), found


def _powers(bowl: Bowl, tuned: laws.Tuning, steps: int) -> np.ndarray:
    a = tuned.rate * bowl.curvatures
    along = START * laws.multipliers(a, tuned.momentum, steps, nesterov=tuned.nesterov)
    return np.asarray(along @ bowl.directions.T)


def _within(weights: np.ndarray) -> int:
    near = np.linalg.norm(weights, axis=1) <= SHARE * np.linalg.norm(START)
    return int(np.argmax(near)) if near.any() else len(weights)


def _steps(bowl: Bowl, name: str, tuned: laws.Tuning, within: int, steps: int) -> Check:
    early, late = (
        min(
            steps + 1,
            laws.steps_to(
                share, tuned.rate * bowl.curvatures, START, tuned.momentum, nesterov=tuned.nesterov
            ),
        )
        for share in (SHARE * (1 + NEAR), SHARE * (1 - NEAR))
    )
    return Check(
        f"{name}: steps to come within 1 %",
        observed=float(within),
        expected=(early + late) / 2,
        bound=(late - early) / 2,
        source="powers of the companion matrix (isometry.common.laws.quadratic_stability)",
        unit="step",
    )


def _newton(nx: Backend, bowl: Bowl, steps: int) -> tuple[Course, Check]:
    """Take one step of Newton, and stay."""
    start = {"w": nx.asarray(bowl.start[None])}
    with nx.scope():
        moved = nx.to_numpy(newton_step(nx, _loss(nx), start, nx.asarray(bowl.hessian))["w"])[0]
    length, top = float(np.linalg.norm(START)), float(np.abs(bowl.hessian).sum())
    # slopes and the Hessian are off by so much of its size, the solution by the condition number
    error = curvature.product_error(nx, top * (1 + length) ** 2, 8, length)
    error += rounding.gamma(8, "float64") + rounding.factorization(2, 2, "float64")
    weights = np.concatenate([bowl.start[None], np.tile(moved, (steps, 1))])
    claim = Check(
        f"{NEWTON}: distance after one step, of the start's",
        observed=float(np.linalg.norm(moved)) / length,
        expected=0.0,
        bound=4 * error / float(bowl.curvatures[0]),
        source="w - H**-1 H w = 0; bound: errors of H and g times the condition number (Higham "
        f"2002, theorem 7.2); {curvature.method(nx)}",
    )
    return Course(weights, _within(weights), steps), claim


# --- report --------------------------------------------------------------------------------------


def _quantities(bowl: Bowl, seen: dict[str, Course]) -> dict[str, Quantity]:
    found = {"hessian": Quantity(bowl.hessian)}
    for name, course in seen.items():
        distance = np.linalg.norm(course.weights, axis=1) / np.linalg.norm(START)
        found |= {
            f"path/{name}": Quantity(course.weights),
            f"distance/{name}": Quantity(distance),
            f"steps/{name}": Quantity(np.array(course.within), "step"),
            f"told/{name}": Quantity(np.array(course.told), "step"),
        }
    return found


def _finding(seen: dict[str, Course], condition: float, steps: int) -> str:
    def count(course: Course) -> str:
        return f"more than {steps}" if course.within > steps else str(course.within)

    row = ", ".join(f"{name} {count(course)}" for name, course in seen.items())
    lost = [
        f"{name} after {course.told} steps" for name, course in seen.items() if course.told < steps
    ]
    return (
        f"Steps to come within 1 % of the minimum of a bowl of condition number {condition:g}: "
        f"{row}; those of the first three are the companion matrix's. Every path is that of its "
        "paper's recursion to rounding"
        + (f", as far as that can be told: rounding decides {', '.join(lost)}" if lost else "")
        + "."
    )
