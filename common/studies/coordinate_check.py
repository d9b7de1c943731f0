"""Do activations keep their size as a net gets wider, at the start and after steps of training?

ReLU nets of growing width are trained on digits for a few steps in three parametrizations, and the
size of each layer's preactivations, and of their change, is fitted as a power of the width: a slope
on log-log axes with its confidence interval, and a verdict: it grows, shrinks or stays.

=============== ======================= ==================== ====================
parametrization variance of an entry    rate of Adam         change of hidden z
=============== ======================= ==================== ====================
standard        gain^2 / fan_in         constant             grows with the width
ntk             gain^2 / fan_in         1 / sqrt(fan_in)     with its square root
mup             :mod:`isometry.common.laws.mup`              stays
=============== ======================= ==================== ====================

Rates are relative to those of a net of the base width, where all three are the same net. NTK
weights ``w ~ N(0, 1)`` with the factor ``gain / sqrt(fan_in)`` outside are these: a step of w
changes the product as a step of it by the rate above does (Jacot et al. 2018, section 2; Yang and
Hu 2021, section 3). The last column is theory for hidden layers, in the limit of large widths: a
step of Adam changes each weight by about its rate, and the changes of a row add up coherently.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.errors import InvalidArgument
from isometry.common.laws import perceptron, propagation, regression
from isometry.common.laws.fans import Fans
from isometry.common.laws.mup import MuP
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.optimizers.rules import Adam
from isometry.common.results import Check, Quantity
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["PARAMETRIZATIONS", "run"]

Array = Any

PARAMETRIZATIONS = ("standard", "ntk", "mup")
EXPONENTS = {"standard": 1.0, "ntk": 0.5, "mup": 0.0}
"""Of the change of hidden preactivations in one step of Adam, as powers of the width."""
CLASSES = 10
GAIN = math.sqrt(2)
FALSE_ALARM = 1e-9
OF_SLOPES = 4e-8
LEVEL = 0.05  # of the intervals shown


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    widths: str = "128,256,512",
    layers: int = 4,
    rate: float = 0.01,
    steps: int = 2,
    seeds: int = 10,
    examples: int = 32,
    flat: float = 0.15,
) -> Findings:
    """Fit the size of activations, and of their change, as powers of the width.

    Parameters
    ----------
    widths : str
        Comma-separated widths of the hidden layers, ascending; the first is the base.
    layers : int
        Number of layers, at least 3.
    rate : float
        Adam's learning rate at the base width.
    steps : int
        Steps of training.
    seeds : int
        Independent nets of each width and parametrization.
    examples : int
        Digits in the batch.
    flat : float
        Slope up to which, by its confidence interval, a layer stays, and above which it grows.
    """
    sizes = _widths(widths)
    checks.integer("layers", layers, low=3, high=1000)
    checks.finite("rate", rate, low=0.0, open_low=True)
    checks.integer("steps", steps, low=1, high=10**4)
    checks.integer("seeds", seeds, low=2, high=10**4)
    checks.integer("examples", examples, low=1, high=1797)
    checks.finite("flat", flat, low=0.0, open_low=True)
    # (parametrization, width, seed, step, layer), RMS of z and of z - z(0)
    shape = (len(PARAMETRIZATIONS), len(sizes), seeds, steps + 1, layers)
    size, change = np.empty(shape), np.empty(shape)
    growth = np.empty((len(sizes), seeds, layers))
    streams = iter(nx.stream(seed).split(len(sizes) * seeds))
    for i, width in enumerate(sizes):
        trainer = _Trainer(nx, [width] * (layers - 1), sizes[0], rate, examples)
        for k in range(seeds):
            tell(i * seeds + k, len(sizes) * seeds, f"width {width}")
            drawn = trainer.draw(next(streams))
            growth[i, k] = trainer.growth(drawn)
            for j, parametrization in enumerate(PARAMETRIZATIONS):
                size[j, i, k], change[j, i, k] = trainer.train(drawn, parametrization, steps)
    tell(len(sizes) * seeds, len(sizes) * seeds, "done")
    lines = {
        name: _lines(sizes, values)
        for name, values in (("size", size / size[:, :, :, :1]), ("change", change))
    }
    found = (
        _same_at_base(size[:, 0]),
        _law_at_start(sizes, growth),
        *_verdicts(lines["size"], flat),
    )
    quantities = {
        "width": Quantity(np.array(sizes), ulp=0),
        "size": Quantity(size),
        "change": Quantity(change),
    }
    for name, rows in lines.items():
        values = [[[line.slope for line in row] for row in table] for table in rows]
        margins = [[[line.margin(LEVEL) for line in row] for row in table] for table in rows]
        quantities |= {
            f"{name} slope": Quantity(np.array(values)),
            f"{name} slope margin": Quantity(np.array(margins)),
        }
    return Findings(quantities, found, _finding(lines, steps, sizes))


def _widths(given: str) -> list[int]:
    try:
        sizes = [int(width) for width in given.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) < 2 or sizes[0] < 64 or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise InvalidArgument(
            "widths must be at least two integers, ascending from 64 or more, such as "
            f"'64,128,256,512'; received {given!r}"
        )
    return sizes


class _Trainer:
    """Trains nets of one width, in any parametrization, from the same draws."""

    def __init__(
        self,
        nx: Backend,
        hidden: Sequence[int],
        base: int,
        rate: float,
        examples: int,
    ) -> None:
        self.nx, self.rate = nx, rate
        widths = (64, *hidden, CLASSES)
        based = (64, *[base] * len(hidden), CLASSES)
        self.fans = [Fans(*pair) for pair in itertools.pairwise(widths)]
        self.base = [Fans(*pair) for pair in itertools.pairwise(based)]
        self.roles = ["input", *["hidden"] * (len(hidden) - 1), "output"]
        self.network = network = FullyConnected(
            widths, activation="relu", initializer=VarianceScaling(GAIN, "fan_in", "normal")
        )
        images, labels = digits()
        x = images[:examples] * (8 / np.linalg.norm(images[:examples], axis=1, keepdims=True))
        self.x = nx.asarray(x.astype(np.float32))
        self.targets = nx.asarray(np.eye(CLASSES, dtype=np.float32)[labels[:examples]])

        def forward(parameters: Any, x: Array) -> tuple[Array, ...]:
            _, trace = network.forward(nx, parameters, x)
            return tuple(trace[stack.name] for stack in network.stacks)

        def loss(parameters: Any, x: Array, targets: Array) -> Array:
            return perceptron.cross_entropy(nx, network.output(nx, parameters, x), targets)

        self.forward = nx.compile(forward)
        self.gradient = nx.value_and_gradient(nx.compile(loss))

    def draw(self, stream: Stream) -> dict[str, Array]:
        return self.network.initialize(self.nx, stream)

    def growth(self, drawn: dict[str, Array]) -> np.ndarray:
        """Return ``ln(||z_l||**2 / ||x||**2)`` of the first example, by layer."""
        return np.array([math.log(z[0] @ z[0] / 64) for z in self._preactivations(drawn)])

    def train(
        self, drawn: dict[str, Array], parametrization: str, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return sizes of z and of z - z(0), each (steps + 1, layers), from the same draws."""
        scales = self._stacked(np.sqrt(self._variances(parametrization)))
        rates = self._stacked(self.rate * self._rates(parametrization))
        parameters = {path: w * scales[path] for path, w in drawn.items()}
        start = now = self._preactivations(parameters)
        sizes, changes = [_sizes(now)], [np.zeros(len(now))]
        state: dict[str, Array] = {}
        for step in range(1, steps + 1):
            _, gradient = self.gradient(parameters, self.x, self.targets)
            moved: dict[str, Array] = {}
            states: dict[str, Array] = {}
            for path, w in parameters.items():
                new, kept = Adam().advance(
                    self.nx, {path: w}, {path: gradient[path]}, state, rate=rates[path], step=step
                )
                moved |= new
                states |= kept
            parameters, state = moved, states
            now = self._preactivations(parameters)
            sizes.append(_sizes(now))
            changes.append(_sizes([b - a for a, b in zip(start, now, strict=True)]))
        return np.array(sizes), np.array(changes)

    def _variances(self, parametrization: str) -> np.ndarray:
        """Return the variance of each layer's entries, relative to the standard one."""
        if parametrization != "mup":
            return np.ones(len(self.fans))
        return np.array(
            [
                MuP(role, base, GAIN).law(fan).moments[1] * fan.fan_in / GAIN**2
                for role, base, fan in zip(self.roles, self.base, self.fans, strict=True)
            ]
        )

    def _rates(self, parametrization: str) -> np.ndarray:
        """Return the learning rate of each layer, relative to that of the base width."""
        layers = list(zip(self.roles, self.base, self.fans, strict=True))
        if parametrization == "mup":
            return np.array([MuP(r, base).learning_rate("adam", f) for r, base, f in layers])
        power = 0.5 if parametrization == "ntk" else 0.0
        return np.array([(base.fan_in / f.fan_in) ** power for _, base, f in layers])

    def _stacked(self, layers: np.ndarray) -> dict[str, Array]:
        """Return a number for each layer as an array for each stack of weights."""
        return {
            f"{stack.name}/weight": self.nx.asarray(
                layers[stack.first - 1 :][: stack.count, None, None].astype(np.float32)
            )
            for stack in self.network.stacks
        }

    def _preactivations(self, parameters: dict[str, Array]) -> list[np.ndarray]:
        stacks = self.forward(parameters, self.x)
        found = [z.astype(np.float64) for stack in stacks for z in self.nx.to_numpy(stack)]
        for layer, z in enumerate(found, 1):
            if not np.isfinite(z).all():
                raise InvalidArgument(
                    f"preactivations overflow float32 at layer {layer} of {len(found)}; take a "
                    "lower rate or fewer steps"
                )
        return found


def _sizes(layers: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([math.sqrt(np.mean(z * z)) for z in layers])


def _lines(widths: Sequence[int], values: np.ndarray) -> list[list[list[regression.Line]]]:
    """Return lines [parametrization][step][layer] of ln values against ln width.

    Changes are 0 at the start, whose line is the horizontal one.
    """
    seeds = values.shape[2]
    x = np.repeat(np.log(widths), seeds)
    logs = np.log(np.where(values > 0, values, 1.0))
    return [
        [
            [
                regression.fit(x, logs[j, :, :, step, layer].ravel())
                for layer in range(values.shape[4])
            ]
            for step in range(values.shape[3])
        ]
        for j in range(len(values))
    ]


# --- checks --------------------------------------------------------------------------------------


def _same_at_base(size: np.ndarray) -> Check:
    return Check(
        "at the base width the three parametrizations are one net, at every step",
        observed=float(np.abs(size - size[0]).max()),
        expected=0.0,
        bound=0.0,
        source="variances and rates are the same numbers there (Yang et al. 2022, section 4)",
    )


def _law_at_start(widths: Sequence[int], growth: np.ndarray) -> Check:
    """Check how the first example's norm grows against the exact law of each width and layer."""
    seeds, layers = growth.shape[1:]
    worst, level = 0.0, FALSE_ALARM / (len(widths) * layers)
    for width, grown in zip(widths, growth.mean(axis=1), strict=True):
        units = [*[width] * (layers - 1), CLASSES]
        scales = [GAIN**2 / n for n in (64, *units[:-1])]
        before: list[propagation.LogChiSquare] = []
        for n, scale, observed in zip(units, scales, grown, strict=True):
            laws = [*before, propagation.growth("linear", scale, n)]
            bound = propagation.mean_bound(laws, seeds, level)
            share = abs(observed - sum(law.mean for law in laws)) / bound
            worst = max(worst, math.inf if math.isnan(share) else float(share))
            before.append(propagation.growth("relu", scale, n))
    return Check(
        "at the start sizes follow their exact law at every width and layer: share of the bound",
        observed=worst,
        expected=0.0,
        bound=1.0,
        source="ln(||z||**2 / ||x||**2), an exact sum of independent log chi-squares, and "
        "Chernoff's bound (isometry.common.laws.propagation)",
        unit="bound",
        false_alarm=FALSE_ALARM,
    )


def _verdicts(lines: list[list[list[regression.Line]]], flat: float) -> list[Check]:
    """Decide whether the hidden preactivations, relative to the start, grow after the steps.

    The first layer's inputs, and so its growth, do not depend on the width, and the last layer's
    outputs are not hidden.
    """
    last = {name: rows[-1][1:-1] for name, rows in zip(PARAMETRIZATIONS, lines, strict=True)}
    rate = OF_SLOPES / len(last["mup"])
    lowest = min(line.slope - line.margin(LEVEL) for line in last["standard"])
    beyond = max(abs(line.slope) - line.margin(rate) for line in last["mup"])
    source = (
        "Student's t of the slope of ln size against ln width, independent nets (isometry.common."
        "laws.regression), exact where logarithms of sizes are normal of one variance; "
    )
    return [
        Check(
            "standard: every hidden layer grows with the width: lowest limit of its slope",
            observed=lowest,
            expected=EXPONENTS["standard"],
            bound=EXPONENTS["standard"] - flat,
            source=source + "95 % intervals, above `flat`: at the default sizes slopes of 0.45 and "
            "0.8 are 10 standard errors above it; in the limit 1 (Yang et al. 2022, section 2)",
            false_alarm=OF_SLOPES,
        ),
        Check(
            "mup: every hidden layer stays: slope less the margin of its interval",
            observed=max(0.0, beyond) if math.isfinite(beyond) else math.nan,
            expected=EXPONENTS["mup"],
            bound=flat,
            source=source + "in the limit 0 (Yang and Hu 2021, theorem 5.1); flat allows for "
            "finite widths",
            false_alarm=OF_SLOPES,
        ),
    ]


def _finding(
    lines: dict[str, list[list[list[regression.Line]]]], steps: int, sizes: Sequence[int]
) -> str:
    def slopes(name: str, j: int, step: int) -> str:
        return " and ".join(
            f"{line.slope:.2f} +- {line.margin(LEVEL):.2f}" for line in lines[name][j][step][1:-1]
        )

    after = "; ".join(f"{name} {slopes('size', j, -1)}" for j, name in enumerate(PARAMETRIZATIONS))
    first = "; ".join(
        f"{name} {slopes('change', j, 1)} (theory {EXPONENTS[name]:g})"
        for j, name in enumerate(PARAMETRIZATIONS)
    )
    return (
        f"From width {sizes[0]} to {sizes[-1]} the size of the hidden preactivations after {steps} "
        f"steps of Adam, relative to the start, goes as the width to the power of: {after}, layer "
        f"by layer, with 95 % intervals. Their change in the first step goes as: {first}."
    )
