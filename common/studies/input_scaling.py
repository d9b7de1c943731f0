"""What does standardizing the input do to the Hessian, and to the number of steps?

Linear least squares by gradient descent at the rate 1 / the largest eigenvalue, from zero weights,
until 90 % of the excess over the least loss is gone: the number of steps has a closed form
(`isometry.common.laws.quadratic_descent`). Twice: on features made to have exactly the means and
standard deviations asked for, whose Hessian is then known in closed form too, and on the 8x8 digits
(ten targets, one for each class). Each as it comes, centred, standardized, and whitened.

On the digits softmax regression is trained as well, at the largest rate that is safe by Boehning's
bound (1992), until it is right about 90 % of them. At zero weights its Hessian is that of least
squares times (I - 1/C) / C over the C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.laws import krylov
from isometry.common.laws import quadratic_descent as laws
from isometry.common.laws.perceptron import cross_entropy
from isometry.common.networks import curvature
from isometry.common.results import Check, Quantity
from isometry.common.statistics import rounding
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any
Evaluate = Callable[..., tuple[Array, Array]]

SCALINGS = ("raw", "centred", "standardized", "whitened")
SHARE = 0.1  # of the excess that is left
ACCURACY = 0.9
CLASSES = 10
SEEN = 0.05  # of the images in which a pixel of the digits must not be blank to be a feature
NEAR = 1e-6  # relative: an excess so close to the goal may reach it a step apart
LAWS = "isometry.common.laws.quadratic_descent"


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    examples: int = 1000,
    features: int = 6,
    spread: float = 5.0,
    offset: float = 2.0,
    limit: int = 3000,
) -> Findings:
    """Count the steps of gradient descent before and after scaling the input.

    Parameters
    ----------
    examples : int
        Rows of the made data, and digits, between 100 and 1797.
    features : int
        Of the made data, between 2 and 50.
    spread : float
        Largest over smallest standard deviation of the made features, at least 1; the largest is 1.
    offset : float
        Mean of each made feature.
    limit : int
        Steps of gradient descent, at most.
    """
    images, labels = digits()
    checks.integer("examples", examples, low=100, high=len(images))
    checks.integer("features", features, low=2, high=50)
    checks.finite("spread", spread, low=1.0)
    checks.finite("offset", offset)
    checks.integer("limit", limit, low=1, high=10**7)
    found: list[Check] = []
    seen: dict[str, Seen] = {}
    made = _made(nx, nx.stream(seed), examples, features, spread, offset)
    images, labels = images[:examples], labels[:examples]
    images = 16 * images[:, (images > 0).mean(axis=0) >= SEEN].astype(float)
    sets = {
        "made": (made.x, made.y, np.zeros(0, int)),
        "digits": (nx.asarray(images), nx.asarray(np.eye(CLASSES)[labels]), labels),
    }
    total = len(sets) * len(SCALINGS)
    for data, (x, y, classes) in sets.items():
        evaluate = curvature.flat_gradient(nx, _loss(nx, softmax=False), _shapes(nx, x, y))
        regression = Regression(nx, x, y)
        for scaling in SCALINGS:
            tell(len(seen), total, f"{data}, {scaling}")
            name = f"{data}/{scaling}"
            X = _scaled(nx, x, scaling)
            exact = made.problem(scaling) if data == "made" else _problem(nx, X, y)
            seen[name], claims = _measure(nx, name, X, y, exact, evaluate, limit)
            found += claims
            if data == "digits":
                seen[name].softmax, claim = _softmax(
                    nx, name, regression, X, y, classes, exact, limit
                )
                found.append(claim)
    tell(total, total, "done")
    return Findings(_quantities(seen), tuple(found), _finding(seen, features, examples, limit))


# --- data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Least squares from zero weights: eigenvalues, and offsets in their basis (n, targets)."""

    eigenvalues: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, hessian: np.ndarray, minimum: np.ndarray) -> Problem:
        """Return the problem of a Hessian and its minimum (n, targets)."""
        values, vectors = np.linalg.eigh(hessian)
        return cls(values, np.linalg.norm(vectors.T @ minimum, axis=1))

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue."""
        return float(self.eigenvalues[-1] / self.eigenvalues[0])


@dataclass(frozen=True)
class Made:
    """Features of exact means and standard deviations, uncorrelated, and a linear target."""

    x: Array
    y: Array
    means: np.ndarray
    stds: np.ndarray
    weights: np.ndarray
    bias: float

    def problem(self, scaling: str) -> Problem:
        """Return the problem after a scaling, from the means and standard deviations alone."""
        raw = scaling == "raw"
        unit = scaling in ("standardized", "whitened")
        hessian = laws.scaled_hessian(
            self.means if raw else 0 * self.means, np.ones_like(self.stds) if unit else self.stds
        )
        bias = self.bias if raw else self.bias + self.means @ self.weights
        weights = self.weights * self.stds if unit else self.weights
        return Problem.of(hessian, np.append(weights, bias)[:, None])


def _made(
    nx: Backend, stream: Stream, examples: int, features: int, spread: float, offset: float
) -> Made:
    """Return ``m + sqrt(n) Q diag(s)``, Q of orthonormal columns at right angles to ones."""
    ones = nx.ops.ones((examples, 1), dtype="float64")
    drawn = stream.normal((examples, features), dtype="float64")
    q = nx.ops.qr(nx.ops.concat([ones, drawn], axis=1))[0][:, 1:]
    means, stds = np.full(features, offset), np.geomspace(1, 1 / spread, features)
    weights = np.cos(np.arange(features))  # some fixed direction
    x = q * nx.asarray(np.sqrt(examples) * stds) + nx.asarray(means)
    y = nx.ops.matmul(x, nx.asarray(weights[:, None])) + 0.5
    return Made(x, y, means, stds, weights, 0.5)


def _scaled(nx: Backend, x: Array, scaling: str) -> Array:
    """Return the scaled features, and a column of ones for the bias."""
    ops = nx.ops
    count = nx.shape_of(x)[0]
    if scaling != "raw":
        x = x - ops.mean(x, axis=0, keepdims=True)
    if scaling == "standardized":
        x = x / ops.sqrt(ops.mean(ops.square(x), axis=0, keepdims=True))
    elif scaling == "whitened":
        x = ops.svd(x)[0] * count**0.5
    return ops.concat([x, ops.ones((count, 1), dtype="float64")], axis=1)


def _problem(nx: Backend, X: Array, y: Array) -> Problem:
    """Return the problem of given data, in NumPy."""
    x, target = nx.to_numpy(X), nx.to_numpy(y)
    hessian = x.T @ x / len(x)
    return Problem.of(hessian, np.linalg.lstsq(x, target, rcond=None)[0])


# --- descent -------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What was measured of one scaling of one data set."""

    condition: float
    largest: float
    steps: int
    predicted: int
    softmax: int = 0


def _measure(
    nx: Backend,
    name: str,
    X: Array,
    y: Array,
    exact: Problem,
    evaluate: Evaluate,
    limit: int,
) -> tuple[Seen, list[Check]]:
    count, width = nx.shape_of(X)
    values = nx.to_numpy(nx.ops.svd(X / count**0.5)[1])
    condition = float((values[0] / values[-1]) ** 2)
    rate = 1 / float(exact.eigenvalues[-1])
    steps = _descend(nx, evaluate, X, y, exact, rate, limit)
    early, late = (
        min(limit, laws.steps_to(SHARE * near, exact.eigenvalues, exact.offsets, rate))
        for near in (1 + NEAR, 1 - NEAR)
    )
    error = rounding.factorization(count, width, "float64")
    ratio = float(values[0] / values[-1])
    return Seen(condition, float(values[0] ** 2), steps, early), [
        Check(
            f"{name}: condition number of the Hessian, relative to the exact one",
            observed=condition / exact.condition,
            expected=1.0,
            # that of the reference, by eigenvalues, is off by eps times itself
            bound=4 * error * (2 * ratio + ratio**2),
            source=f"closed form for the made data ({LAWS}), eigenvalues of X^T X / n for digits",
        ),
        Check(
            f"{name}: steps of gradient descent to 90 %",
            observed=float(steps),
            expected=(early + late) / 2,
            bound=(late - early) / 2,
            source=f"sum lambda c**2 (1 - r lambda)**(2 t) <= a tenth of its start ({LAWS})",
            unit="step",
        ),
    ]


def _loss(nx: Backend, *, softmax: bool) -> Callable[..., Array]:
    def loss(parameters: dict[str, Array], X: Array, y: Array) -> Array:
        outputs = nx.ops.linear(X, parameters["weight"])
        if softmax:
            return cross_entropy(nx, outputs, y)
        return nx.ops.mean(nx.ops.sum(nx.ops.square(outputs - y), axis=1)) / 2

    return loss


def _shapes(nx: Backend, x: Array, y: Array) -> curvature.Shapes:
    """Return the weights' shape: one row a target, one column a feature, and the bias."""
    return (("weight", (nx.shape_of(y)[1], nx.shape_of(x)[1] + 1)),)


def _descend(
    nx: Backend, evaluate: Evaluate, X: Array, y: Array, exact: Problem, rate: float, limit: int
) -> int:
    """Return the first step with 90 % of the excess gone; the start's is known."""
    start = laws.excess(exact.eigenvalues, exact.offsets, rate, 0)
    w = nx.ops.zeros((nx.shape_of(X)[1] * nx.shape_of(y)[1],), dtype="float64")
    least = None
    with nx.scope():
        for step in range(limit):
            value, gradient = evaluate(w, X, y)
            loss = float(nx.to_numpy(value))
            least = loss - start if least is None else least
            if loss - least <= SHARE * start:
                return step
            w = w - rate * gradient
    return limit


class Regression:
    """Softmax regression of features of one shape: its gradient and products, compiled once."""

    def __init__(self, nx: Backend, x: Array, y: Array) -> None:
        loss = _loss(nx, softmax=True)
        shapes = _shapes(nx, x, y)
        self.shape = shapes[0][1]
        self.evaluate = curvature.flat_gradient(nx, loss, shapes)
        self.product = curvature.HessianProduct(nx, loss)


def _softmax(
    nx: Backend,
    name: str,
    regression: Regression,
    X: Array,
    y: Array,
    labels: np.ndarray,
    exact: Problem,
    limit: int,
) -> tuple[int, Check]:
    """Return the steps of softmax regression, and the check of its Hessian at zero weights."""
    shape, largest = regression.shape, float(exact.eigenvalues[-1])
    parameters = {"weight": nx.ops.zeros(shape, dtype="float64")}
    apply = regression.product.at(parameters, X, y)
    start = np.outer(np.cos(np.arange(CLASSES)), np.ones(shape[1])).ravel()
    value, ritz = krylov.spectrum(apply, start, 20).largest
    inputs = nx.to_numpy(X)
    reach = 8 * (1 + np.square(inputs).sum(axis=1).max()) ** 2
    error = curvature.product_error(nx, reach, 8 * sum(inputs.shape), 0.0)
    claim = Check(
        f"{name}: largest eigenvalue of softmax regression at zero weights, relative",
        observed=value * CLASSES / largest,
        expected=1.0,
        bound=(ritz + 2 * error) * CLASSES / largest,
        source="(I - 1/C) / C times the Hessian of least squares, by Lanczos; "
        f"{curvature.method(nx)}",
    )
    w, step, right = nx.ops.zeros((shape[0] * shape[1],), dtype="float64"), 0, 0.0
    with nx.scope():
        while right < ACCURACY and step < limit:
            w = w - (2 / largest) * regression.evaluate(w, X, y)[1]
            outputs = inputs @ nx.to_numpy(w).reshape(shape).T
            step, right = step + 1, float(np.mean(outputs.argmax(axis=1) == labels))
    return step, claim


# --- report --------------------------------------------------------------------------------------


def _quantities(seen: dict[str, Seen]) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}
    for data in ("made", "digits"):
        rows = [seen[f"{data}/{scaling}"] for scaling in SCALINGS]
        found |= {
            f"{data}/condition": Quantity(np.array([row.condition for row in rows])),
            f"{data}/largest": Quantity(np.array([row.largest for row in rows])),
            f"{data}/steps": Quantity(np.array([row.steps for row in rows]), "step"),
            f"{data}/predicted": Quantity(np.array([row.predicted for row in rows]), "step"),
        }
    softmax = [seen[f"digits/{scaling}"].softmax for scaling in SCALINGS]
    return found | {"digits/softmax": Quantity(np.array(softmax), "step")}


def _finding(seen: dict[str, Seen], features: int, examples: int, limit: int) -> str:
    def row(data: str, what: str) -> str:
        return ", ".join(f"{getattr(seen[f'{data}/{s}'], what):.3g}" for s in SCALINGS)

    def times(data: str) -> str:
        raw, centred, standardized, _ = (seen[f"{data}/{s}"] for s in SCALINGS)
        return (
            f"centring divides them by {raw.steps / centred.steps:.2g} and equal scales by another "
            f"{centred.steps / standardized.steps:.2g}, the condition number by "
            f"{raw.condition / standardized.condition:.2g} in all"
        )

    return (
        f"As it comes, centred, standardized and whitened: of {features} made features the "
        f"Hessian's condition number is {row('made', 'condition')}, and gradient descent takes "
        f"{row('made', 'steps')} steps to lose 90 % of its excess ({times('made')}); of {examples} "
        f"digits it is {row('digits', 'condition')}, with {row('digits', 'steps')} steps "
        f"({times('digits')}), and softmax regression takes {row('digits', 'softmax')} steps to "
        f"90 % accuracy (at most {limit}). All steps of least squares are those of the closed "
        "form. The condition number bounds the steps and does not tell them: they depend on where "
        "the excess lies."
    )
