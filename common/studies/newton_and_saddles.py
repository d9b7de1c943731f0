"""Which critical points does each method go to, and how rare are minima among them?

1. A quadratic saddle: what each step multiplies each direction by. Gradient descent and damped
   Newton leave it at a known rate, Newton's method is on it after one step.
2. Double wells of n dimensions that no axis is aligned with, from random starts: where each method
   ends. They have ``3**n`` critical points, ``2**n`` of them minima, and Newton's method takes a
   known share of the starts to each kind (`isometry.common.laws.saddles`). Every step is held to
   its closed form, from where the backend was: errors do not add up.
3. Random curvature: the share of random symmetric matrices that are positive definite, against the
   exact probability (`isometry.common.laws.definite`).

Newton's steps from many starts at once take one Hessian-vector product a dimension: the Hessian of
a sum over starts has a block for each. A step of `newton_step` from one start is held to the same
closed form.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.laws import definite
from isometry.common.laws import saddles as laws
from isometry.common.networks import curvature
from isometry.common.optimizers.optimizer import Optimizer
from isometry.common.optimizers.presets import optimizer_rule
from isometry.common.optimizers.second_order import newton_step
from isometry.common.optimizers.trajectory import trajectory
from isometry.common.results import Check, Quantity
from isometry.common.statistics import bounds, rounding
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["run"]

Array = Any
Loss = Callable[..., Array]

REACH = 1.5  # starts are uniform in the cube of this half-width
RATE = 0.15  # at most 1 / (3 REACH**2 - 1)
DAMPING = 2.0  # twice the steepest descent of curvature: that of a top
NEAR = 1e-6  # of a critical point: where a course ends
MOST = 500  # steps; a start that rounding sees needs at most 360
SQUARED = (1e-3, 1e-2)  # distances whose squares are told from rounding, and the next from squares
FALSE_ALARM = 1e-9
CURVATURES = np.array([1.0, 0.5, -0.25, -0.5])
DESCENTS = 40  # steps on the quadratic saddle
TINY = float(np.finfo(np.float64).tiny)
LAWS = "isometry.common.laws.saddles"
ONE_STEP = "each step from where it was, farthest off in units of its bound"
SOLVED = "bound: errors of H and g times the condition number (Higham 2002, theorem 7.2)"

METHODS = ("gradient descent", "damped Newton", "Newton")


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    largest: int = 8,
    starts: int = 4000,
    size: int = 5,
    matrices: int = 50000,
) -> Findings:
    """Start each method at random, and count where it ends; count positive definite matrices.

    Parameters
    ----------
    largest : int
        Dimensions of the wells: powers of 2 up to it, between 2 and 16.
    starts : int
        Of each method in each dimension, between 100 and 20,000.
    size : int
        Of the random matrices, from 1 up to it, at most 8.
    matrices : int
        Of each size, between 100 and 100,000.
    """
    checks.integer("largest", largest, low=2, high=16)
    checks.integer("starts", starts, low=100, high=20000)
    checks.integer("size", size, low=1, high=definite.LARGEST)
    checks.integer("matrices", matrices, low=100, high=100000)
    sizes = [2**k for k in range(largest.bit_length()) if 2**k <= largest]
    total = len(sizes) + 2
    streams = nx.stream(seed).split(len(sizes) + 1)
    tell(0, total, "a quadratic saddle")
    found = _quadratic(nx, seed)
    seen = []
    for place, n in enumerate(sizes):
        tell(place + 1, total, f"double wells, {n} dimensions")
        drawn = streams[place].uniform((starts, n), low=-REACH, high=REACH, dtype="float64")
        wells = Wells(nx, _rotation(nx, seed, n), nx.to_numpy(drawn))
        courses = {name: wells.follow(name) for name in METHODS}
        seen.append(courses)
        found += _ends(n, courses)
        if n == 2:
            found += wells.library()
    tell(total - 1, total, "random matrices")
    shares, claims = _matrices(nx, streams[-1], size, matrices)
    tell(total, total, "done")
    return Findings(
        _quantities(sizes, seen, shares), (*found, *claims), _finding(sizes, seen, shares)
    )


def _rotation(nx: Backend, seed: int, n: int) -> np.ndarray:
    drawn = nx.portable_stream(seed).normal((n, n), dtype="float64")
    return np.asarray(nx.to_numpy(nx.ops.qr(drawn)[0]))


# --- a quadratic saddle --------------------------------------------------------------------------


def _quadratic(nx: Backend, seed: int) -> list[Check]:
    n = CURVATURES.size
    rotation = _rotation(nx, seed, n)
    hessian = nx.asarray((rotation * CURVATURES) @ rotation.T)
    start = {"w": nx.asarray(rotation.sum(axis=1)[None])}  # as far off in each direction

    def loss(parameters: Mapping[str, Array], hessian: Array) -> Array:
        w = parameters["w"]
        return nx.ops.sum(nx.ops.matmul(w, hessian) * w) / 2

    evaluate = nx.value_and_gradient(nx.compile(loss))
    with nx.scope():
        descent = trajectory(
            nx,
            optimizer_rule("sgd", rate=1.0),
            start,
            lambda parameters: evaluate(parameters, hessian)[1],
            DESCENTS,
        )["w"][:, 0]
        moved = {
            damping: nx.to_numpy(newton_step(nx, loss, start, hessian, damping=damping)["w"])[0]
            for damping in (1.0, 0.0)
        }
    lengths = np.linalg.norm(descent[:-1], axis=1)
    rounded = n * rounding.gamma(4 * n + 16, "float64")  # of a slope, of its weights' length
    factors = laws.descent_factor(CURVATURES, 1.0)
    found = [
        _factors("gradient descent", descent @ rotation, factors, rounded * lengths),
        _growth(descent @ rotation[:, -1], float(factors[-1]), 2 * n**0.5 * rounded),
    ]
    length = float(lengths[0])
    hessians = n * curvature.product_error(nx, n * (1 + length) ** 2, 4 * n + 16, length)
    solved = 4 * (hessians + 2 * rounding.factorization(n, n, "float64") * length)
    for name, (damping, after) in zip(METHODS[1:], moved.items(), strict=True):
        course = np.stack([descent[0], after]) @ rotation
        error = solved / np.abs(CURVATURES + damping).min(keepdims=True)
        found.append(_factors(name, course, laws.damped_factor(CURVATURES, damping), error))
    return found


def _factors(name: str, along: np.ndarray, factors: np.ndarray, error: np.ndarray) -> Check:
    """Hold each step (steps + 1, n) to what it multiplies each direction by."""
    off = np.linalg.norm(along[1:] - factors * along[:-1], axis=1)
    return Check(
        f"{name} on a quadratic saddle: {ONE_STEP}",
        observed=float(np.max(off / error)),
        expected=0.0,
        bound=1.0,
        source=f"1 - rate lambda; d / (lambda + d) ({LAWS}); {SOLVED}",
    )


def _growth(steepest: np.ndarray, factor: float, error: float) -> Check:
    return Check(
        "gradient descent on a quadratic saddle: growth per step along its steepest descent",
        observed=float(abs(steepest[-1] / steepest[0]) ** (1 / DESCENTS)),
        expected=factor,
        bound=factor * error,  # no direction grows faster: what is off does not, either
        source="1 + rate |lambda| (Lee et al. 2016); each step's rounding, carried on",
    )


# --- double wells --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """Where a method went, in the wells' own directions.

    Attributes
    ----------
    starts, ends : numpy.ndarray (starts, n)
    arrived : numpy.ndarray (starts,)
        Whether every coordinate is at -1, 0 or 1.
    steps : int
        Until all had arrived.
    off : float
        How far a step was from its closed form, at most, in units of its bound.
    squares : float
        Newton's largest ``|e' / e**2 - 3/2|`` of a well's coordinate e on the way to a saddle; NaN
        where there is none.
    """

    starts: np.ndarray
    ends: np.ndarray
    arrived: np.ndarray
    steps: int
    off: float
    squares: float

    @property
    def index(self) -> np.ndarray:
        """How many coordinates of each start ended on top (starts,)."""
        return np.asarray((np.abs(self.ends) < 0.5).sum(axis=1))

    @property
    def share_of_minima(self) -> float:
        """Share of the starts that ended in a minimum."""
        return float(np.mean(self.arrived & (self.index == 0)))


class Wells:
    """Double wells of n dimensions along the columns of a rotation, and where to start in them.

    Parameters
    ----------
    nx : Backend
    rotation : numpy.ndarray (n, n)
    starts : numpy.ndarray (starts, n)
        In the wells' own directions.
    """

    def __init__(self, nx: Backend, rotation: np.ndarray, starts: np.ndarray) -> None:
        self.nx, self.rotation, self.starts = nx, rotation, starts
        self._turned = nx.asarray(rotation)

        def loss(parameters: Mapping[str, Array], turned: Array) -> Array:
            u = nx.ops.matmul(parameters["w"], turned)
            return nx.ops.sum(nx.ops.square(u * u - 1)) / 4

        self.loss: Loss = loss
        self._evaluate = nx.value_and_gradient(nx.compile(loss))
        self._product = curvature.HessianProduct(nx, loss)
        self._descent = Optimizer(nx, optimizer_rule("sgd", rate=RATE))

    def follow(self, name: str) -> Course:
        """Run a method from every start until all have arrived."""
        w = self.starts @ self.rotation.T
        u = w @ self.rotation
        wells = np.array([-1.0, 1.0])
        goals = np.array([-1.0, 0.0, 1.0]) if name == "Newton" else wells
        off, steps, past = 0.0, 0, [u]
        while steps < MOST and not _near(u, goals).all():
            w, exact, error = self._step(name, w, u)
            u = w @ self.rotation
            off = max(off, float(np.max(np.linalg.norm(u - exact, axis=1) / error)))
            if name == "Newton":
                past.append(u)
            steps += 1
        arrived = np.asarray(_near(u, np.array([-1.0, 0.0, 1.0])).all(axis=1))
        squares = _squares(past, u)
        return Course(self.starts, u, arrived, steps, off, squares)

    def library(self) -> list[Check]:
        """Hold a step of `newton_step` from the first start to its closed form."""
        found = []
        u = self.starts[:1]
        w = {"w": self.nx.asarray(u @ self.rotation.T)}
        for name, damping in (("damped Newton", DAMPING), ("Newton", 0.0)):
            with self.nx.scope():
                moved = newton_step(self.nx, self.loss, w, self._turned, damping=damping)["w"]
            off = self.nx.to_numpy(moved) @ self.rotation - laws.newton(u, damping)
            found.append(
                Check(
                    f"{name}: newton_step from one start, off in units of its bound",
                    observed=float(np.linalg.norm(off) / self._newton_error(u, damping)[0]),
                    expected=0.0,
                    bound=1.0,
                    source=f"(2 u**3 + d u)/(3 u**2 - 1 + d) ({LAWS}); {SOLVED}",
                )
            )
        return found

    def _step(
        self, name: str, w: np.ndarray, u: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the weights after a step, where it should lead in the wells, and its error."""
        nx = self.nx
        with nx.scope():
            parameters = {"w": nx.asarray(w)}
            slopes = self._evaluate(parameters, self._turned)[1]
            if name == "gradient descent":
                state = self._descent.start(parameters)
                parameters, _ = self._descent.step(parameters, slopes, state)
                return nx.to_numpy(parameters["w"]), laws.descend(u, RATE), self._descent_error(u)
            damping = DAMPING if name == "damped Newton" else 0.0
            # a start's own length sets its difference step where derivatives are differences
            lengths = 1 + np.linalg.norm(w, axis=1)[:, None]
            columns = [
                nx.to_numpy(
                    self._product(parameters, {"w": nx.asarray(lengths * unit)}, self._turned)["w"]
                )
                / lengths
                for unit in np.eye(w.shape[1])
            ]
            g = nx.to_numpy(slopes["w"])
        H = np.stack(columns, axis=2)
        H = (H + H.transpose(0, 2, 1)) / 2 + damping * np.eye(w.shape[1])
        moved = w - np.linalg.solve(H, g[:, :, None])[:, :, 0]
        return moved, laws.newton(u, damping), self._newton_error(u, damping)

    def _sizes(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Return each length, a bound of all derivatives along unit vectors, and roundings."""
        n, length = u.shape[1], np.linalg.norm(u, axis=1)
        return length, 6 * n * (1 + length) ** 3, 3 * n + 24

    def _descent_error(self, u: np.ndarray) -> np.ndarray:
        _, size, roundings = self._sizes(u)
        return np.asarray(2 * rounding.gamma(roundings, "float64") * size)

    def _newton_error(self, u: np.ndarray, damping: float) -> np.ndarray:
        length, size, roundings = self._sizes(u)
        n = u.shape[1]
        slope = rounding.gamma(roundings, "float64") * size
        # a difference step is this share of what it would be for the start alone
        share = (1 + np.linalg.norm(length)) / np.linalg.norm(1 + length)
        each = curvature.product_error(self.nx, 1.0, roundings, 0.0)
        hessian = n**0.5 * each * size * np.square(1 + length) / share
        curvatures = np.abs(3 * u * u - 1 + damping)
        solved = rounding.factorization(n, n, "float64") * curvatures.max(axis=1)
        least = curvatures.min(axis=1)
        moved = laws.newton(u, damping)
        step = np.linalg.norm(moved - u, axis=1)
        with np.errstate(divide="ignore"):
            error = 2 * (slope + (hessian + solved) * step) / least
        error += rounding.gamma(roundings, "float64") * (length + np.linalg.norm(moved, axis=1))
        return np.asarray(np.where(hessian + solved < least / 4, error, np.inf) + TINY)


def _near(u: np.ndarray, goals: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(u[:, :, None] - goals).min(axis=2) <= NEAR)


def _squares(past: list[np.ndarray], ends: np.ndarray) -> float:
    """Return how far ``|e'| / e**2`` is from 3/2, at most, in wells on the way to a saddle."""
    on_top = np.abs(ends) < 0.5
    saddles = on_top.any(axis=1) & ~on_top.all(axis=1)
    to_well = ~on_top & saddles[:, None]
    goals = np.where(on_top, 0.0, np.sign(ends))
    ratios = [np.empty(0)]
    for before, after in itertools.pairwise(past):
        e, later = np.abs(before - goals), np.abs(after - goals)
        here = e.max(axis=1, keepdims=True) < 0.5  # where no other coordinate's rounding is large
        seen = to_well & here & (e > SQUARED[0]) & (e < SQUARED[1])
        ratios.append(later[seen] / e[seen] ** 2)
    found = np.abs(np.concatenate(ratios) - 1.5)
    return float(found.max()) if found.size else np.nan


def _ends(n: int, courses: dict[str, Course]) -> list[Check]:
    found = []
    count = len(courses["Newton"].starts)
    dimensions = f"{n} dimension{'s' if n > 1 else ''}"
    for name, course in courses.items():
        found.append(
            Check(
                f"{name}, {dimensions}: {ONE_STEP}",
                observed=course.off,
                expected=0.0,
                bound=1.0,
                source=f"u - rate (u**3 - u); (2 u**3 + d u)/(3 u**2 - 1 + d) ({LAWS}); {SOLVED}",
            )
        )
        if name == "Newton":
            continue
        lost = ~course.arrived | (np.sign(course.starts) != np.round(course.ends)).any(axis=1)
        found.append(
            Check(
                f"{name}, {dimensions}: starts that do not end in the minimum of their own signs",
                observed=float(lost.sum()),
                expected=0.0,
                bound=0.0,
                source=f"increasing, fixed at -1, 0 and 1 ({LAWS}); only a start whose side of a "
                "saddle rounding does not see may be lost",
                unit="start",
                false_alarm=count * n * rounding.gamma(32 * n, "float64"),
            )
        )
    course, top = courses["Newton"], laws.top_share(REACH)
    found.append(
        Check(
            f"Newton, {dimensions}: starts that reach no critical point",
            observed=float((~course.arrived).sum()),
            expected=0.0,
            bound=0.0,
            source=f"all but countably many starts do ({LAWS})",
            unit="start",
        )
    )
    found += [
        _binomial(
            f"Newton, {dimensions}: share of directions that end on top",
            float(np.mean(np.abs(course.ends) < 0.5)),
            top,
            count * n,
            f"1/(sqrt 5 {REACH:g}) ({LAWS})",
        ),
    ]
    if n > 1:
        found += [
            _binomial(
                f"Newton, {dimensions}: share of starts that end in a minimum",
                course.share_of_minima,
                (1 - top) ** n,
                count,
                f"(1 - 1/(sqrt 5 {REACH:g}))**{n} ({LAWS})",
            ),
            Check(
                f"Newton, {dimensions}: error over the square of the one before, near saddles",
                observed=1.5 + course.squares,
                expected=1.5,
                bound=0.04,
                source="(3 + 2 e)/(2 + 6 e + 3 e**2) at |e| <= 0.01: quadratic at a saddle too",
            ),
        ]
    return found


def _binomial(claim: str, observed: float, expected: float, count: int, law: str) -> Check:
    low, high = bounds.proportion((expected, expected), count, FALSE_ALARM)
    return Check(
        claim,
        observed=observed,
        expected=expected,
        bound=max(high - expected, expected - low),
        source=f"{law}; exact binomial limits of {count}",
        false_alarm=FALSE_ALARM,
    )


# --- random curvature ----------------------------------------------------------------------------


def _matrices(
    nx: Backend, stream: Any, size: int, matrices: int
) -> tuple[list[float], list[Check]]:
    """Count the positive definite ones of matrices ``(G + G^T) / 2``."""
    shares, found = [], []
    for n in range(1, size + 1):
        with nx.scope():
            drawn = stream.normal((matrices, n, n), dtype="float64")
            symmetric = nx.to_numpy((drawn + nx.ops.permute_dims(drawn, (0, 2, 1))) / 2)
        shares.append(float(np.mean(np.linalg.eigvalsh(symmetric)[:, 0] > 0)))
        found.append(
            _binomial(
                f"random symmetric matrices of size {n}: share that is positive definite",
                shares[-1],
                definite.positive_definite_probability(n),
                matrices,
                "Pfaffian of de Bruijn (isometry.common.laws.definite)",
            )
        )
    return shares, found


# --- report --------------------------------------------------------------------------------------


def _quantities(
    sizes: list[int], seen: list[dict[str, Course]], shares: list[float]
) -> dict[str, Quantity]:
    top = laws.top_share(REACH)
    found = {
        "dimensions": Quantity(np.array(sizes)),
        "minima": Quantity(np.array([laws.share_of_minima(n) for n in sizes])),
        "minima/Newton/exact": Quantity(np.array([(1 - top) ** n for n in sizes])),
        "size": Quantity(np.arange(1, len(shares) + 1)),
        "definite": Quantity(np.array(shares)),
        "definite/exact": Quantity(
            np.array([definite.positive_definite_probability(n + 1) for n in range(len(shares))])
        ),
        "start": Quantity(seen[1]["Newton"].starts),
    }
    for name in METHODS:
        found |= {
            f"minima/{name}": Quantity(np.array([c[name].share_of_minima for c in seen])),
            f"steps/{name}": Quantity(np.array([c[name].steps for c in seen]), "step"),
            f"end/{name}": Quantity(np.round(seen[1][name].ends)),
        }
    return found


def _finding(sizes: list[int], seen: list[dict[str, Course]], shares: list[float]) -> str:
    def row(values: list[float]) -> str:
        return ", ".join(f"{value:.2g}" for value in values)

    newton = [courses["Newton"].share_of_minima for courses in seen]
    others = min(c[name].share_of_minima for c in seen for name in METHODS[:2])
    took = "every start" if others == 1 else f"{others:.3g} of the starts or more"
    count = len(seen[0]["Newton"].starts)
    return (
        f"Of the critical points of double wells in {', '.join(map(str, sizes))} dimensions "
        f"{row([laws.share_of_minima(n) for n in sizes])} are minima. Of {count} random starts "
        f"Newton's method took {row(newton)} to a minimum and the others to saddles and maxima, "
        "where its error is squared at each step as at a minimum; gradient descent and damped "
        f"Newton took {took} to a minimum, and leave a quadratic saddle by 1 + rate |lambda| and "
        f"d / (d - |lambda|) a step. Of random symmetric matrices of size 1 to {len(shares)} the "
        f"share that is positive definite is {row(shares)}: it falls as the exponential of the "
        "square of the size."
    )
