"""Do equal hidden units ever become different, and what tells them apart?

One hidden layer of tanh units learns the 8x8 digits of scikit-learn (softmax cross-entropy over
ten classes). Units that start with equal incoming and outgoing weights get equal gradients, and
every update rule that treats coordinates alike keeps them equal: the layer acts as a single unit
(Goodfellow, Bengio and Courville 2016, section 8.4). Dropout, random weights and unequal outgoing
weights break the symmetry (but not outgoing weights that differ by the same amount for every class:
the softmax does not see that). So does rounding, where a matrix kernel computes the columns at its
edge in another order than the others: at width 37 units may differ in the last bit after one step,
and training amplifies the difference, within a bound that is derived for SGD and momentum
(`isometry.common.statistics.rounding.EqualUnits`). At widths 2 and 4 units stay equal bit for bit
on the reference adapter, NumPy; another framework's kernels are free to round units differently,
and are held to the bound for the steps in which it says something. Adam has no such bound: it
divides a gradient by its size, so that rounding near zero may become a whole step.

Everything random (batches, masks, weights) comes from a portable stream: every backend trains the
same nets on the same batches with the same masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.laws import perceptron
from isometry.common.optimizers.rules import SGD, Adam, Momentum, Rule
from isometry.common.results import Check, Quantity
from isometry.common.statistics.rounding import EqualUnits
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any
Parameters = dict[str, Array]
Gradient = Callable[..., tuple[Array, Parameters]]

CLASSES = 10
CONSTANT = 0.01
KEEP = 0.5  # probability that dropout keeps a unit
RULES: dict[str, Rule] = {
    "sgd": SGD(rate=0.3),
    "momentum": Momentum(rate=0.06, momentum=0.9),
    "adam": Adam(rate=0.02),
}
DECAYS = {"sgd": 0.0, "momentum": 0.9}  # update rules that have a rounding bound
REFERENCE = "numpy"
BOUNDED_STEPS = 10  # the bound of equal units then is still a small part of their weights
ROUNDING_WIDTH, ROUNDING_STEPS, ROUNDING_RATE = 37, 20, 0.05
EPS = float(np.finfo(np.float32).eps)
ROUNDING = (
    "sum over steps of componentwise rounding errors for any order of summation (Higham 2002, "
    "section 3.1), stretched by the gradient's Lipschitz constant"
)


@dataclass(frozen=True)
class Trial:
    """One way to train: update rule, how W1 and W2 start, and whether units are dropped."""

    optimizer: str
    incoming: str = "constant"
    outgoing: str = "constant"
    dropout: bool = False

    @property
    def breaks(self) -> bool:
        """Whether the units must come apart."""
        return self.dropout or self.incoming != "constant" or self.outgoing != "constant"


TRIALS = {
    "sgd": Trial("sgd"),
    "momentum": Trial("momentum"),
    "adam": Trial("adam"),
    "dropout": Trial("sgd", dropout=True),
    "xavier": Trial("sgd", incoming="xavier_uniform", outgoing="xavier_uniform"),
    "outgoing": Trial("sgd", outgoing="xavier_uniform"),
}


@dataclass(frozen=True)
class Course:
    """What happened to the units, after each step (0 is the start)."""

    incoming: np.ndarray  # largest difference between two units' incoming weights
    outgoing: np.ndarray
    rank: np.ndarray  # numerical rank of W1
    share: float  # largest distance between equal units over its rounding bound, first steps
    accuracy: float  # on all 1797 images, after the last step


def run(nx: Backend, tell: Tell, /, *, seed: int, steps: int = 120, batch: int = 128) -> Findings:
    """Train nets of two and four units in six ways, and one of 37 to watch rounding.

    Parameters
    ----------
    steps : int
        Updates of each training, at least 10.
    batch : int
        Images per update, between 16 and 1797.
    """
    images, labels = digits()
    checks.integer("steps", steps, low=10, high=10**6)
    checks.integer("batch", batch, low=16, high=len(images))
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    quantities = {"step": Quantity(np.arange(steps + 1), "step")}
    found: list[Check] = []
    courses: dict[str, Course] = {}
    gradient = nx.value_and_gradient(nx.compile(perceptron.loss(nx)))
    total = 2 * len(TRIALS) + 1
    for units in (2, 4):
        for name, trial in TRIALS.items():
            tell(len(courses), total, f"{units} units, {name}")
            course = _train(nx, gradient, trial, units, images, targets, seed, steps, batch)
            label = f"{units} units/{name}"
            courses[label] = course
            quantities |= {
                f"{label}/incoming": Quantity(course.incoming),
                f"{label}/outgoing": Quantity(course.outgoing),
                f"{label}/rank": Quantity(course.rank),
                f"{label}/accuracy": Quantity(np.array(course.accuracy)),
            }
            found += _verdicts(nx, label, trial, course, units)
    tell(total - 1, total, f"{ROUNDING_WIDTH} units, rounding")
    spread, bound = _rounding(nx, gradient, images[:256], targets[:256], seed)
    quantities |= {"rounding/spread": Quantity(spread), "rounding/bound": Quantity(bound)}
    found.append(_rounding_check(spread, bound))
    tell(total, total, "done")
    return Findings(quantities, tuple(found), _finding(courses, spread, bound))


# --- training ------------------------------------------------------------------------------------


def _start(nx: Backend, trial: Trial, units: int, inputs: int, stream: Stream) -> Parameters:
    def weight(how: str, shape: tuple[int, ...]) -> Array:
        if how == "constant":
            return nx.ops.full(shape, CONSTANT)
        if how == "by class":
            column = nx.ops.arange(0.0, CLASSES - 0.5, 1.0) * (0.4 / (CLASSES - 1)) - 0.2
            return nx.ops.broadcast_to(nx.ops.expand_dims(column, axis=1), shape)
        return nx.initialize(how, shape, stream)

    return {
        "hidden/weight": weight(trial.incoming, (units, inputs)),
        "hidden/bias": nx.ops.zeros((units,)),
        "output/weight": weight(trial.outgoing, (CLASSES, units)),
        "output/bias": nx.ops.zeros((CLASSES,)),
    }


def _train(
    nx: Backend,
    gradient: Gradient,
    trial: Trial,
    units: int,
    images: np.ndarray,
    targets: np.ndarray,
    seed: int,
    steps: int,
    batch: int,
) -> Course:
    initial, batches, masks = nx.portable_stream(seed).split(3)
    parameters = _start(nx, trial, units, images.shape[1], initial)
    state: Parameters = {}
    measured = [_measure(nx, parameters)]
    equal, share = _equal_units(trial), 0.0
    for step in range(1, steps + 1):
        chosen = _sample(nx, batches, len(images), batch)
        data = [nx.asarray(images[chosen]), nx.asarray(targets[chosen])]
        if trial.dropout:
            kept = masks.uniform((batch, units)) < KEEP
            data.append(nx.ops.astype(kept, "float32") / KEEP)
        if equal and step <= BOUNDED_STEPS:
            equal.step(_float64(nx, parameters), images[chosen], targets[chosen])
        _, gradients = gradient(parameters, *data)
        parameters, state = RULES[trial.optimizer].advance(
            nx, parameters, gradients, state, step=step
        )
        measured.append(_measure(nx, parameters))
        if equal and step <= BOUNDED_STEPS:
            share = max(share, _distance(nx, parameters) / equal.distance)
    incoming, outgoing, rank = (np.array(column) for column in zip(*measured, strict=True))
    scores = perceptron.logits(nx, parameters, nx.asarray(images), None)
    return Course(
        incoming, outgoing, rank, share, perceptron.accuracy(nx, scores, targets.argmax(axis=1))
    )


def _equal_units(trial: Trial) -> EqualUnits | None:
    """Return the rounding bound of a trial that keeps units equal, where there is one."""
    if trial.breaks or trial.optimizer not in DECAYS:
        return None
    return EqualUnits(rate=RULES[trial.optimizer].rate, decay=DECAYS[trial.optimizer])


def _float64(nx: Backend, parameters: Parameters) -> dict[str, np.ndarray]:
    return {path: nx.to_numpy(w).astype(np.float64) for path, w in parameters.items()}


def _sample(nx: Backend, stream: Stream, count: int, batch: int) -> np.ndarray:
    """Return `batch` distinct indices below `count`: those of the smallest uniforms."""
    return np.argsort(nx.to_numpy(stream.uniform((count,))), kind="stable")[:batch]


def _spread(units: np.ndarray) -> float:
    """Return the largest difference between two rows in any coordinate."""
    return float((units.max(axis=0) - units.min(axis=0)).max())


def _measure(nx: Backend, parameters: Parameters) -> tuple[float, float, int]:
    """Return the spread of incoming and outgoing weights, and the numerical rank of W1.

    Singular values below half of float32's digits of the largest count as zero: rounding alone
    stays below, broken symmetry does not.
    """
    W1 = nx.to_numpy(parameters["hidden/weight"]).astype(np.float64)
    W2 = nx.to_numpy(parameters["output/weight"]).astype(np.float64)
    values = np.linalg.svd(W1, compute_uv=False)
    return _spread(W1), _spread(W2.T), int((values > math.sqrt(EPS) * values[0]).sum())


def _verdicts(nx: Backend, label: str, trial: Trial, course: Course, units: int) -> list[Check]:
    rank = Check(
        f"{label}: numerical rank of W1 after the last step",
        observed=float(course.rank[-1]),
        expected=float(units if trial.breaks else 1),
        bound=0.0,
        source="permutation symmetry of hidden units (Goodfellow et al. 2016, section 8.4); "
        "singular values below sqrt(eps) of the largest count as 0",
    )
    if trial.breaks:
        return [rank]
    verdicts = [rank]
    if nx.name == REFERENCE:
        verdicts.append(
            Check(
                f"{label}: largest difference between units at any step, on the reference",
                observed=float(max(course.incoming.max(), course.outgoing.max())),
                expected=0.0,
                bound=0.0,
                source="equal columns get equal gradients, bit for bit: at this width NumPy's "
                "matrix products treat them alike",
            )
        )
    if trial.optimizer in DECAYS:
        verdicts.append(
            Check(
                f"{label}: distance between equal units, largest share of its rounding bound in "
                f"{BOUNDED_STEPS} steps",
                observed=course.share,
                expected=0.0,
                bound=1.0,
                source=ROUNDING,
                unit="bound",
            )
        )
    return verdicts


# --- rounding as a symmetry breaker --------------------------------------------------------------


def _rounding(
    nx: Backend, gradient: Gradient, images: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the spread of 37 equal units after each SGD step, and its bound.

    The spread is the largest Euclidean distance between two units, each the vector of its
    incoming weights, bias and outgoing weights. The outgoing weights start from -0.2 to 0.2 by
    class, equal for all units, so that W1 has a gradient from the first step on.
    """
    trial = Trial("sgd", outgoing="by class")
    parameters = _start(nx, trial, ROUNDING_WIDTH, images.shape[1], nx.portable_stream(seed))
    x, y = nx.asarray(images), nx.asarray(targets)
    equal = EqualUnits(rate=ROUNDING_RATE)
    spread, bound = [0.0], [0.0]
    for _ in range(ROUNDING_STEPS):
        equal.step(_float64(nx, parameters), images, targets)
        _, gradients = gradient(parameters, x, y)
        parameters, _ = SGD(rate=ROUNDING_RATE).advance(nx, parameters, gradients, {})
        spread.append(_distance(nx, parameters))
        bound.append(equal.distance)
    return np.array(spread), np.array(bound)


def _distance(nx: Backend, parameters: Parameters) -> float:
    unit = np.concatenate(
        [
            nx.to_numpy(parameters["hidden/weight"]),
            nx.to_numpy(parameters["hidden/bias"])[:, None],
            nx.to_numpy(parameters["output/weight"]).T,
        ],
        axis=1,
    ).astype(np.float64)
    return float(np.sqrt(np.square(unit[:, None] - unit[None]).sum(axis=2)).max())


def _rounding_check(spread: np.ndarray, bound: np.ndarray) -> Check:
    return Check(
        f"{ROUNDING_WIDTH} units/sgd: distance between equal units, largest share of its "
        f"rounding bound in {ROUNDING_STEPS} steps",
        observed=float((spread[1:] / bound[1:]).max()),
        expected=0.0,
        bound=1.0,
        source=ROUNDING,
        unit="bound",
    )


def _finding(courses: Mapping[str, Course], spread: np.ndarray, bound: np.ndarray) -> str:
    def reached(name: str) -> str:
        return f"{100 * courses[name].accuracy:.1f} %"

    equal = max(
        float(max(course.incoming.max(), course.outgoing.max()))
        for name, course in courses.items()
        if not TRIALS[name.split("/")[1]].breaks
    )
    apart = {name: courses[f"4 units/{name}"].incoming[-1] for name in TRIALS}
    how = "bit for bit" if equal == 0 else f"to {equal:.1g}"
    return (
        f"From constant weights two and four units stay equal {how} under SGD, momentum and Adam: "
        f"W1 has rank 1, and four units reach {reached('4 units/sgd')} (Adam "
        f"{reached('4 units/adam')}) where two reach {reached('2 units/sgd')}. Four units come "
        f"apart by {apart['dropout']:.2g} under dropout ({reached('4 units/dropout')}), "
        f"{apart['xavier']:.2g} from Xavier weights ({reached('4 units/xavier')}) and "
        f"{apart['outgoing']:.2g} from unequal outgoing weights ({reached('4 units/outgoing')}). "
        f"At width {ROUNDING_WIDTH} equal units are {spread[1]:.1e} apart after one step and "
        f"{spread[-1]:.1e} after {ROUNDING_STEPS} (bounds {bound[1]:.1e} and {bound[-1]:.1e})"
        + (": rounding alone broke the symmetry." if spread[-1] > 0 else ": here rounding did not.")
    )
