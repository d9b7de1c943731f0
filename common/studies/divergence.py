"""From which rate does descent diverge on a quadratic, and how fast does it contract below?

Along an eigenvector of curvature lambda, gradient descent, heavy ball and Nesterov's method are
linear recursions of two steps whose roots are known (`isometry.common.laws.quadratic_stability`).
With z the larger root and y the other, ``w(t) - y w(t-1)`` is multiplied by exactly z at each step:
the growth per step is measured by it, to rounding, on both sides of the edge.

1. One-dimensional losses of many curvatures at one rate: growth per step against the spectral
   radius, and the edge between what contracts and what diverges. At the rate 1 / lambda descent is
   there in one step; twice that is the edge.
2. A bowl that no axis is aligned with, its gradient by automatic differentiation, at rates just
   below and just above the edge of its steepest direction.
3. Bowls of growing condition number, each method at its best constants: the contraction per step,
   and the steps until the distance to the minimum is a thousandth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import quadratic_stability as laws
from isometry.common.optimizers.rules import SGD, Momentum, Rule
from isometry.common.optimizers.trajectory import trajectory
from isometry.common.results import Check, Quantity
from isometry.common.statistics import rounding
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["run"]

Array = Any
Gradient = Callable[[Mapping[str, Array]], Mapping[str, Array]]

CURVATURE = 3.0  # its inverse is rounded
START = 0.7
GRID = np.arange(1, 26) / 20  # rate times curvature, in units of the edge
SHARE = 1e-3  # of the distance that is left
NEAR = 1e-9  # relative: a distance so close to the goal may reach it a step apart
ROUNDINGS = 16  # of a step, and of the roots' sum and product, at most
TINY = float(np.finfo(np.float64).tiny)
LAWS = "isometry.common.laws.quadratic_stability"
ROUNDED = "rounding of each step, carried on by the root"


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    momenta: str = "0.5,0.9,0.99",
    conditions: str = "10,100,1000",
    size: int = 20,
    steps: int = 200,
    margin: float = 0.01,
) -> Findings:
    """Bracket the rates from which each method diverges, and measure how it contracts below them.

    Parameters
    ----------
    momenta : str
        Comma-separated momenta of heavy ball and Nesterov's method, each above 0 and below 1.
    conditions : str
        Comma-separated condition numbers of the bowls of the third part, above 1, at most 10,000.
    size : int
        Dimensions of each bowl, between 2 and 200.
    steps : int
        Steps at each rate of the first two parts, between 20 and 300.
    margin : float
        How far below and above the edge the bowls' rates are, in units of it, at most 0.05.
    """
    asked = _numbers("momenta", momenta, 0.0, 1.0)
    numbers = _numbers("conditions", conditions, 1.0, 10001.0)
    checks.integer("size", size, low=2, high=200)
    checks.integer("steps", steps, low=20, high=300)
    if checks.finite("margin", margin, low=0.0, open_low=True) > 0.05:
        raise InvalidArgument(f"margin must be at most 0.05; received {margin:g}")
    methods = [Method("gradient descent", 0.0, False)]
    for nesterov, name in ((False, "heavy ball"), (True, "Nesterov")):
        methods += [Method(f"{name}, momentum {m:g}", m, nesterov) for m in asked]
    total = len(methods) + len(numbers)
    bowl = _bowl(nx, seed, size)
    gradient = nx.value_and_gradient(nx.compile(_loss(nx)))
    seen: list[Edge] = []
    found: list[Check] = []
    for method in methods:
        tell(len(seen), total, method.name)
        edge, claims = _edge(nx, method, bowl, gradient, steps, margin)
        seen.append(edge)
        found += claims
    rows: list[dict[str, Contraction]] = []
    for number in numbers:
        tell(len(methods) + len(rows), total, f"condition number {number:g}")
        row, claims = _condition(nx, gradient, number, size)
        rows.append(row)
        found += claims
    tell(total, total, "done")
    quantities = _quantities(methods, seen, asked, numbers, rows)
    return Findings(quantities, tuple(found), _finding(methods, seen, numbers, rows, margin))


def _numbers(name: str, text: str, low: float, high: float) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if (
        not values
        or not all(low < value < high for value in values)
        or len(set(values)) < len(values)
    ):
        raise InvalidArgument(
            f"{name} must be different numbers above {low:g} and below {high:g}, with commas "
            f"between them; received {text!r}"
        )
    return sorted(values)


@dataclass(frozen=True)
class Method:
    """A linear rule: gradient descent is the one without momentum."""

    name: str
    momentum: float
    nesterov: bool

    @property
    def edge(self) -> float:
        """Rate times curvature from which it diverges."""
        return laws.edge(self.momentum, nesterov=self.nesterov)

    def rule(self, rate: float) -> Rule:
        """Return the rule of `isometry.common.optimizers`."""
        if not self.momentum:
            return SGD(rate=rate)
        return Momentum(rate=rate, momentum=self.momentum, nesterov=self.nesterov)


# --- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    """Growth per step along eigenvectors (n,), what it is by the law, and how far it may be off."""

    measured: np.ndarray
    exact: np.ndarray
    error: np.ndarray

    @property
    def largest_error(self) -> float:
        """How far the largest of the measured may be off."""
        low, high = (self.exact - self.error).max(), (self.exact + self.error).max()
        return float(max(high - self.exact.max(), self.exact.max() - low))

    def check(self, claim: str, place: int, source: str) -> Check:
        """Return the check of one of them."""
        return Check(
            claim,
            observed=float(self.measured[place]),
            expected=float(self.exact[place]),
            bound=float(self.error[place]),
            source=f"{source} ({LAWS}); {ROUNDED}",
        )


def _growth(
    course: np.ndarray, sizes: np.ndarray, a: np.ndarray, method: Method, error: float
) -> Growth:
    """Measure growth from ``p(t) = w(t) - y w(t-1)``, which is multiplied by z at each step.

    A step computes ``T w(t) - D w(t-1)`` within ``error (1 + m) (1 + a)`` of the three sizes
    involved. What that adds to p is carried on by z, so that after k steps p is within the sum of
    ``|z|**(k - t)`` times these of ``z**k p(1)``; underflow adds the smallest normal number each.

    Parameters
    ----------
    course, sizes : numpy.ndarray (steps + 1, n)
        Coordinates along eigenvectors, and lengths that bound what is rounded at each step.
    a : numpy.ndarray (n,)
        Rate times curvature.
    error : float
        Relative error of a step.
    """
    z, y = laws.roots(a, method.momentum, nesterov=method.nesterov)
    radius = np.abs(z)
    modes = np.abs(course[1:] - y * course[:-1])
    first, last, count = modes[0], modes[-1], len(modes) - 1
    near = sizes[2:] + sizes[1:-1] + sizes[:-2]  # of the steps 1 to count
    carried = radius ** np.arange(count - 1, -1, -1)[:, None]
    off = (carried * near).sum(axis=0) + sizes[-1] + sizes[-2]
    off += count * radius**count * (sizes[0] + sizes[1])
    off *= error * (1 + method.momentum) * (1 + a)
    off += count * TINY * np.maximum(1, radius) ** count
    start = np.where(first > 0, first, 1)
    share, reach = radius**count, off / start
    measured = (last / start) ** (1 / count)
    low = np.maximum(share - reach, 0) ** (1 / count)
    high = (share + reach) ** (1 / count)
    return Growth(measured, radius, np.maximum(high - radius, radius - low) + 4 * np.spacing(high))


def _loss(nx: Backend) -> Callable[..., Array]:
    def loss(parameters: Mapping[str, Array], data: Mapping[str, Array]) -> Array:
        """Return sum c w**2 / 2 of the losses of one dimension and sum s w^T H w / 2 of bowls."""
        line, rows = parameters["line"], parameters["bowl"]
        slopes = data["scale"] * nx.ops.matmul(rows, data["hessian"])
        return nx.ops.sum(data["curvature"] * line * line) / 2 + nx.ops.sum(slopes * rows) / 2

    return loss


# --- edges ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bowl:
    """A quadratic of many dimensions, its steepest direction, and a start as far off in each."""

    hessian: np.ndarray
    curvature: float
    direction: np.ndarray
    start: np.ndarray


def _bowl(nx: Backend, seed: int, size: int) -> Bowl:
    """Return a bowl whose curvatures fall from 1 to 1/100 along random orthogonal directions."""
    drawn = nx.portable_stream(seed).normal((size, size), dtype="float64")
    q = nx.to_numpy(nx.ops.qr(drawn)[0])
    hessian = (q * np.geomspace(0.01, 1, size)) @ q.T
    hessian = (hessian + hessian.T) / 2
    values, vectors = np.linalg.eigh(hessian)
    return Bowl(hessian, float(values[-1]), vectors[:, -1], q.sum(axis=1))


@dataclass(frozen=True)
class Edge:
    """What was measured of one method: growth at each a, and distances in the bowl."""

    a: np.ndarray
    growth: Growth
    distance: np.ndarray


def _edge(
    nx: Backend, method: Method, bowl: Bowl, gradient: Callable[..., Any], steps: int, margin: float
) -> tuple[Edge, list[Check]]:
    """Run all curvatures of one dimension and both bowls at one rate."""
    sides = np.array([1 - margin, 1 + margin])
    a = method.edge * np.sort(np.concatenate([GRID, sides]))
    if not method.momentum:
        a = np.append(a, [1.0, 2.0])  # the best in one dimension, and twice it
    rate = 1 / CURVATURE
    scale = method.edge * sides / (rate * bowl.curvature)
    data = {
        "curvature": nx.asarray(a * CURVATURE),
        "scale": nx.asarray(scale[:, None]),
        "hessian": nx.asarray(bowl.hessian),
    }
    start = {
        "line": nx.asarray(np.full(a.shape, START)),
        "bowl": nx.asarray(np.tile(bowl.start, (2, 1))),
    }
    with nx.scope():
        course = trajectory(
            nx, method.rule(rate), start, lambda parameters: gradient(parameters, data)[1], steps
        )
    line = course["line"]
    growth = _growth(line, np.abs(line), a, method, rounding.gamma(ROUNDINGS, "float64"))
    count = bowl.direction.size
    error = rounding.gamma(ROUNDINGS + 2 * count**1.5, "float64")
    error += rounding.factorization(count, count, "float64")  # of the direction
    distance = np.linalg.norm(course["bowl"], axis=2)
    steepest = course["bowl"] @ bowl.direction
    sided = _growth(steepest, distance, method.edge * sides, method, error)
    found = _line_checks(method, a, growth, margin)
    found += [
        sided.check(
            f"{method.name}: growth per step in the bowl {margin:g} {side} its edge",
            place,
            "larger root at the largest eigenvalue, below 1 where it contracts",
        )
        for place, side in enumerate(("below", "above"))
    ]
    if not method.momentum:
        found += _one_dimension(line[:, -2:])
    return Edge(a, growth, distance / distance[0]), found


def _line_checks(method: Method, a: np.ndarray, growth: Growth, margin: float) -> list[Check]:
    short, long = a[growth.measured < 1 - growth.error], a[growth.measured > 1 + growth.error]
    below, above = short.max(initial=0.0), long.min(initial=np.inf)
    return [
        Check(
            f"{method.name}: growth per step in one dimension, farthest off in units of its bound",
            observed=float(np.max(np.abs(growth.measured - growth.exact) / growth.error)),
            expected=0.0,
            bound=1.0,
            source=f"larger root of z**2 - T z + D ({LAWS}); {ROUNDED}",
        ),
        Check(
            f"{method.name}: edge, between the largest rate that contracts and the smallest that "
            "diverges",
            observed=float(below + above) / 2,
            expected=method.edge,
            bound=margin * method.edge * (1 + 1e-12),
            source=f"2 (1 + m), (2 + 2 m)/(1 + 2 m) for Nesterov ({LAWS})",
            unit="1 / curvature",
        ),
    ]


def _one_dimension(line: np.ndarray) -> list[Check]:
    distance = np.abs(line) / START
    error = rounding.gamma(4, "float64")
    return [
        Check(
            "gradient descent: distance after one step at the rate 1 / curvature",
            observed=float(distance[1, 0]),
            expected=0.0,
            bound=error,
            source="1 - rate curvature = 0, within four roundings",
        ),
        Check(
            "gradient descent: distance after all steps at twice that rate",
            observed=float(distance[-1, 1]),
            expected=1.0,
            bound=rounding.gamma(4 * len(line), "float64"),
            source="1 - rate curvature = -1, within four roundings a step",
        ),
    ]


# --- condition numbers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Contraction:
    """What was measured of one method at its best constants."""

    measured: float
    exact: float
    steps: int
    predicted: int


def _condition(
    nx: Backend, gradient: Callable[..., Any], number: float, size: int
) -> tuple[dict[str, Contraction], list[Check]]:
    curvatures, offsets = np.geomspace(1, number, size), np.ones(size)
    data = {
        "curvature": nx.asarray(curvatures),
        "scale": nx.asarray(np.zeros((2, 1))),
        "hessian": nx.asarray(np.zeros((size, size))),
    }
    start = {"line": nx.asarray(offsets), "bowl": nx.asarray(np.zeros((2, size)))}
    seen: dict[str, Contraction] = {}
    found: list[Check] = []
    for name in laws.METHODS:
        tuned = laws.best(name, 1.0, number)
        method = Method(name, tuned.momentum, tuned.nesterov)
        a = tuned.rate * curvatures
        early, late = (
            laws.steps_to(share, a, offsets, tuned.momentum, nesterov=tuned.nesterov)
            for share in (SHARE * (1 + NEAR), SHARE * (1 - NEAR))
        )
        with nx.scope():
            course = trajectory(
                nx, method.rule(tuned.rate), start, lambda w: gradient(w, data)[1], late + 1
            )["line"]
        growth = _growth(course, np.abs(course), a, method, rounding.gamma(ROUNDINGS, "float64"))
        distance = np.linalg.norm(course, axis=1) / np.sqrt(size)
        within = distance <= SHARE
        steps = int(np.argmax(within)) if within.any() else len(distance)
        seen[name] = Contraction(float(growth.measured.max()), tuned.contraction, steps, early)
        found += [
            Check(
                f"{name}: contraction per step at condition number {number:g}, best constants",
                observed=float(growth.measured.max()),
                expected=tuned.contraction,
                # roots that meet are off by the root of the rounding of rate and momentum
                bound=growth.largest_error + 4 * float(np.finfo(float).eps) ** 0.5,
                source=f"(k - 1)/(k + 1), with sqrt k for heavy ball, 1 - 2/sqrt(3 k + 1) for "
                f"Nesterov ({LAWS}); {ROUNDED}",
            ),
            Check(
                f"{name}: steps to a thousandth at condition number {number:g}, best constants",
                observed=float(steps),
                expected=(early + late) / 2,
                bound=(late - early) / 2,
                source=f"powers of the companion matrix ({LAWS})",
                unit="step",
            ),
        ]
    return seen, found


# --- report --------------------------------------------------------------------------------------


def _quantities(
    methods: list[Method],
    seen: list[Edge],
    momenta: list[float],
    conditions: list[float],
    rows: list[dict[str, Contraction]],
) -> dict[str, Quantity]:
    found = {
        "momentum": Quantity(np.array(momenta)),
        "condition": Quantity(np.array(conditions)),
        "edges": Quantity(np.array([method.edge for method in methods]), "1 / curvature"),
    }
    for method, edge in zip(methods, seen, strict=True):
        order = np.argsort(edge.a)
        found |= {
            f"{method.name}/a": Quantity(edge.a[order], "1 / curvature"),
            f"{method.name}/growth": Quantity(edge.growth.measured[order]),
            f"{method.name}/growth/exact": Quantity(edge.growth.exact[order]),
            f"{method.name}/below": Quantity(edge.distance[:, 0]),
            f"{method.name}/above": Quantity(edge.distance[:, 1]),
        }
    for name in laws.METHODS:
        column = [row[name] for row in rows]
        found |= {
            f"contraction/{name}": Quantity(np.array([c.measured for c in column])),
            f"contraction/{name}/exact": Quantity(np.array([c.exact for c in column])),
            f"steps/{name}": Quantity(np.array([c.steps for c in column]), "step"),
            f"steps/{name}/exact": Quantity(np.array([c.predicted for c in column]), "step"),
        }
    return found


def _finding(
    methods: list[Method],
    seen: list[Edge],
    conditions: list[float],
    rows: list[dict[str, Contraction]],
    margin: float,
) -> str:
    edges = "; ".join(
        f"{method.name}: {method.edge:.4g} ({edge.distance[-1, 0]:.1e} of the distance is left "
        f"below, {edge.distance[-1, 1]:.1e} above)"
        for method, edge in zip(methods, seen, strict=True)
    )
    steps = "; ".join(
        f"{name} {', '.join(str(row[name].steps) for row in rows)}" for name in laws.METHODS
    )
    return (
        f"Rate times largest curvature at which descent turns from contracting to diverging, "
        f"bracketed to {margin:g} of it, with what {len(seen[0].distance) - 1} steps in a bowl "
        f"leave just below and just above: {edges}. In one dimension the rate 1 / curvature is "
        f"there in one step and twice that never. Steps to a thousandth of the distance at "
        f"condition numbers {', '.join(f'{c:g}' for c in conditions)}, best constants: {steps}. A "
        "large condition number is bad: the steps grow with it, and with its root if there is "
        "momentum."
    )
