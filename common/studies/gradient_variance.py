"""How much do the gradients of random nets of one shape differ, and how can one tell?

At initialization the squared norms of signal and gradient in a ReLU net with He's variance keep
their expectation at every depth, yet they spread: the variance of their logarithm grows with
``beta = sum 1/n`` over the hidden widths, 5 beta to leading order, whatever the arrangement of
widths (Hanin 2018; Hanin and Rolnick 2018). Shapes of equal beta and unequal depth stand side by
side here, many nets each, and are held to the exact law of the log-norm, given that no layer died,
and to the exact probability of that (`isometry.common.laws.propagation`).

Hanin states the growth for fourth moments: ``E ||h||**4 / (E ||h||**2)**2 = prod(1 + 5/n)``. A
sample cannot show it. The fourth moment comes from nets so rare that no sample holds one: the study
gives the share of it that lies beyond the largest of its nets, exactly, and the number of nets that
would show half of it. Logarithms have neither problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import propagation
from isometry.common.results import Check, Quantity
from isometry.common.statistics.bounds import bernstein, dkw, proportion
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any

FALSE_ALARM = 1e-9
TOGETHER, BLOCK = 250, 2**24  # nets, and weights (128 MiB), drawn at once, at most
LAWS = "isometry.common.laws.propagation"


@dataclass(frozen=True)
class Shape:
    """Hidden widths of a net, and the exact laws of its log-norms given that it is alive."""

    name: str
    widths: tuple[int, ...]

    @property
    def beta(self) -> float:
        """Sum of 1/n over the hidden layers."""
        return sum(1 / n for n in self.widths)

    @property
    def variances(self) -> list[float]:
        """He's, of each layer: 2 / fan_in, the input being as wide as the first layer."""
        return [2 / n for n in (self.widths[0], *self.widths[:-1])]

    def laws(self, direction: str) -> list[propagation.LogChiSquare]:
        """Return independent laws whose sum is ``ln ||h_L||**2`` or ``ln ||g_0||**2``."""
        if direction == "forward":
            return [
                propagation.alive("relu", s, n)
                for s, n in zip(self.variances, self.widths, strict=True)
            ]
        scales = [1.0, *self.variances[:0:-1]]
        masked = [
            propagation.alive("relu", s, n)
            for s, n in zip(scales, reversed(self.widths), strict=True)
        ]
        return [*masked, propagation.growth("linear", self.variances[0], self.widths[0])]


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    shapes: str = "32x8,8x2,32x16,16x8,10+40x8,32x32,16x16,10+40x16,16x32,8x16",
    networks: int = 2000,
) -> Findings:
    """Draw many nets of each shape and hold their log-norms, forward and backward, to the law.

    Parameters
    ----------
    shapes : str
        Comma-separated widths x layers; 10+40x8 has layers of 10 and 40 units in turn, 8 in all.
    networks : int
        Independent random nets per shape, at least 100.
    """
    asked = [_shape(name.strip()) for name in shapes.split(",")]
    checks.integer("networks", networks, low=100, high=10**6)
    stream = nx.stream(seed)
    quantities = {
        "beta": Quantity(np.array([shape.beta for shape in asked])),
        "depth": Quantity(np.array([len(shape.widths) for shape in asked]), "layer"),
    }
    found: list[Check] = []
    for k, shape in enumerate(asked):
        tell(k, len(asked), f"shape {shape.name}")
        norms = _norms(nx, stream, shape, networks)
        found.append(_deaths(shape, norms["forward"]))
        for direction, squares in norms.items():
            logs = np.log(squares[squares > 0])
            quantities[f"log_norm/{direction}/{shape.name}"] = Quantity(logs, "nat")
            found += _held(f"{shape.name}, {direction}", logs, shape.laws(direction))
    quantities |= _variances(asked, quantities) | _moments(asked, quantities, networks)
    tell(len(asked), len(asked), "done")
    return Findings(quantities, tuple(found), _finding(asked, quantities, networks))


def _shape(name: str) -> Shape:
    try:
        widths, depth = name.split("x")
        cycle, count = [int(width) for width in widths.split("+")], int(depth)
    except ValueError:
        raise InvalidArgument(
            f"a shape is a width, an x and a number of layers; received {name!r}; write 16x8, or "
            "10+40x8 for layers of 10 and 40 units in turn"
        ) from None
    for width in cycle:
        checks.integer("a width", width, low=1, high=1024)
    checks.integer("the number of layers", count, low=1, high=1024)
    shape = Shape(name, tuple((cycle * count)[:count]))
    if (dead := propagation.dead_probability(shape.widths)) > 1 / 2:
        raise InvalidArgument(
            f"at most half of the nets of a shape may be dead; received {name!r}, of which "
            f"{100 * dead:.3g} % are; take fewer or wider layers"
        )
    return shape


# --- measured ------------------------------------------------------------------------------------


def _norms(nx: Backend, stream: Stream, shape: Shape, networks: int) -> dict[str, np.ndarray]:
    """Return ``||h_L||**2`` and ``||g_0||**2`` of each net, from ||x|| = 1 and v ~ N(0, I)."""
    inputs = (shape.widths[0], *shape.widths[:-1])
    size = sum(n_in * n_out for n_in, n_out in zip(inputs, shape.widths, strict=True))
    # the same number in all blocks, for every shape of net: a framework compiles few shapes
    count = min(networks, TOGETHER, max(1, BLOCK // size))
    parts: dict[str, list[np.ndarray]] = {"forward": [], "backward": []}
    for _ in range(math.ceil(networks / count)):
        weights = [
            stream.normal((count, n_out, n_in), std=math.sqrt(s), dtype="float64")
            for n_in, n_out, s in zip(inputs, shape.widths, shape.variances, strict=True)
        ]
        x = nx.ops.full((count, inputs[0], 1), inputs[0] ** -0.5, dtype="float64")

        def forward(x: Array, weights: Sequence[Array] = weights) -> Array:
            for W in weights:
                x = nx.relu(nx.ops.matmul(W, x))
            return x

        h, pullback = nx.vjp(forward, x)
        g = pullback(stream.normal(nx.shape_of(h), dtype="float64"))
        for direction, vector in (("forward", h), ("backward", g)):
            parts[direction].append(np.square(nx.to_numpy(vector)[:, :, 0]).sum(axis=1))
    return {direction: np.concatenate(norms)[:networks] for direction, norms in parts.items()}


def _deaths(shape: Shape, squares: np.ndarray) -> Check:
    exact = propagation.dead_probability(shape.widths)
    low, high = proportion((exact, exact), squares.size, FALSE_ALARM)
    return Check(
        f"{shape.name}: share of dead nets",
        observed=float((squares == 0).mean()),
        expected=exact,
        bound=max(exact - low, high - exact),
        source="1 - prod(1 - 2**-n): each unit is active with probability 1/2; exact binomial",
        false_alarm=FALSE_ALARM,
    )


def _held(name: str, logs: np.ndarray, laws: Sequence[propagation.LogChiSquare]) -> list[Check]:
    """Hold log-norms of nets that are alive to their law: mean, spread and distribution."""
    mean, variance = sum(law.mean for law in laws), sum(law.variance for law in laws)
    ordered = np.sort(logs)
    exact, steps = propagation.sum_cdf(laws, ordered), np.arange(logs.size + 1) / logs.size
    square, of_square = propagation.clipped_square(laws)
    return [
        Check(
            f"{name}: mean log-norm",
            observed=float(logs.mean()),
            expected=mean,
            bound=propagation.mean_bound(laws, logs.size, FALSE_ALARM),
            source=f"exact sum of independent log chi-squares, Chernoff's bound ({LAWS})",
            unit="nat",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            f"{name}: spread of the log-norm, mean of min(z**2, 9)",
            observed=float(
                np.minimum(np.square(logs - mean) / variance, propagation.CUT**2).mean()
            ),
            expected=square,
            bound=bernstein(of_square, propagation.CUT**2, logs.size, FALSE_ALARM),
            source="z in exact standard deviations; expectation by quadrature of the exact "
            "distribution; Bernstein's inequality",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            f"{name}: distribution function of the log-norm",
            observed=float(max((exact - steps[:-1]).max(), (steps[1:] - exact).max())),
            expected=0.0,
            bound=dkw(logs.size, FALSE_ALARM),
            source="characteristic function of the sum inverted; Dvoretzky, Kiefer and Wolfowitz "
            "with Massart's constant (1990)",
            false_alarm=FALSE_ALARM,
        ),
    ]


# --- what moments tell ---------------------------------------------------------------------------


def _variances(shapes: Sequence[Shape], quantities: dict[str, Quantity]) -> dict[str, Quantity]:
    """Return the variance of the log-norm, by shape: measured and exact, in both directions."""
    found = {}
    for direction in ("forward", "backward"):
        measured = [quantities[f"log_norm/{direction}/{s.name}"].values.var() for s in shapes]
        exact = [sum(law.variance for law in s.laws(direction)) for s in shapes]
        found[f"log_variance/{direction}"] = Quantity(np.array(measured), "nat**2")
        found[f"log_variance/{direction}/exact"] = Quantity(np.array(exact), "nat**2")
    return found


def _moments(
    shapes: Sequence[Shape], quantities: dict[str, Quantity], networks: int
) -> dict[str, Quantity]:
    """Return ``E ||h||**4 / (E ||h||**2)**2``: exact, as the sample has it, and what it can see."""
    raw, exact, seen, needed = [], [], [], []
    for shape in shapes:
        squares = np.exp(quantities[f"log_norm/forward/{shape.name}"].values)
        second = shape.widths[-1] / shape.widths[0]  # E ||h||**2, dead nets included
        raw.append(np.square(squares / second).sum() / networks)
        laws = shape.laws("forward")
        tilted = [law.tilted(2.0) for law in laws]
        exact.append(propagation.fourth_moment_ratio("relu", shape.widths))
        largest = propagation.sum_quantile(laws, 1 - 1 / networks)
        seen.append(propagation.sum_cdf(tilted, np.array(largest)))
        half = propagation.sum_quantile(tilted, 0.5)
        needed.append(1 / (1 - propagation.sum_cdf(laws, np.array(half))))
    return {
        "fourth_moment/sample": Quantity(np.array(raw)),
        "fourth_moment/exact": Quantity(np.array(exact)),
        "fourth_moment/seen": Quantity(np.array(seen)),
        "fourth_moment/needed": Quantity(np.array(needed), "network"),
    }


def _finding(shapes: Sequence[Shape], quantities: dict[str, Quantity], networks: int) -> str:
    def at(name: str, k: int) -> float:
        return float(quantities[name].values[k])

    order = sorted(range(len(shapes)), key=lambda k: shapes[k].beta)
    rows = [
        f"{shapes[k].name} (beta {shapes[k].beta:.3g}) {at('log_variance/backward', k):.2f} "
        f"({at('log_variance/backward/exact', k):.2f})"
        for k in order
    ]
    k = order[-1]
    return (
        f"Variance of the gradient's log-norm over {networks} nets of width x depth, and the exact "
        f"one: {', '.join(rows)}. It grows with beta, the sum of 1/width, and not with depth: by 5 "
        f"beta to leading order, and by more in narrower nets. The fourth moment of the signal in "
        f"{shapes[k].name} is {at('fourth_moment/exact', k):.4g} times the square of the second; "
        f"the sample says {at('fourth_moment/sample', k):.4g}, because nets that are no larger "
        f"than the largest of {networks} hold {100 * at('fourth_moment/seen', k):.2g} % of it: to "
        f"see half of it takes {at('fourth_moment/needed', k):.2g} nets."
    )
