"""What does batch norm change: for small batches, for the scale of the weights, in training?

Exact at any size (:mod:`isometry.common.laws.batch_statistics`): a factor a of the weights before
batch norm is the factor 1 / a**2 of eps, so that up to eps it changes nothing but the gradient, by
1 / a; each unit's gradient is orthogonal to its weights up to eps; two examples become +1 and -1;
and of m normal values a standardized one has a known law.

Measured, with nets of two hidden layers on digits, with and without batch norm: the loss after some
steps over initial scales of the weights and over batch sizes from 2 up, with mini-batches of one
class each beside mixed ones; how far the inputs of the last activation drift while training; and
along the step, as Santurkar et al. 2018 (section 3.1) do, the range of the loss, and the local
Lipschitz constants of the loss and of its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.laws import batch_statistics as law
from isometry.common.laws import normalization, perceptron
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.optimizers.rules import SGD
from isometry.common.results import Check, Quantity
from isometry.common.statistics.bounds import dkw
from isometry.common.statistics.rounding import gamma
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["BATCHES", "KINDS", "PARTS", "SCALES", "run"]

Array = Any
Part = tuple[dict[str, Quantity], list[Check]]

EPS = 1e-5
FALSE_ALARM = 1e-9
KINDS = {"plain": None, "batch norm": "batch"}
SCALES = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the initial weights, as multiples of He's
BATCHES = (2, 8, 32)
PARTS = (0.25, 0.5, 1.0, 2.0)  # of the step, where loss and gradient are looked at
LAW_BATCHES = (3, 4, 8, 32)
FEATURES = 2000
FACTORS = (0.125, 8.0)  # powers of 2: the weights are scaled without rounding
PROBE = 128
ROUNDINGS = 2000  # of float64 in a product of 64 terms, a norm over 32, and their gradients


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    width: int = 64,
    steps: int = 30,
    rate: float = 0.1,
    seeds: int = 2,
) -> Findings:
    """Hold batch norm to its exact laws, and train with and without it.

    Parameters
    ----------
    width : int
        Units of each hidden layer.
    steps : int
        Steps of gradient descent, at least 2.
    rate : float
        Learning rate.
    seeds : int
        Independent nets for each setting.
    """
    checks.integer("width", width, low=1, high=10**5)
    checks.integer("steps", steps, low=2, high=10**6)
    checks.finite("rate", rate, low=0.0, open_low=True)
    checks.integer("seeds", seeds, low=1, high=10**4)
    streams = nx.stream(seed).split(3)
    total = 2 + len(KINDS)
    tell(0, total, "scale of the weights")
    found = _scaled(nx, streams[0], width)
    tell(1, total, "small batches")
    quantities, claims = _small(nx, streams[1])
    found += claims
    for k, (kind, stream) in enumerate(zip(KINDS, streams[2].split(len(KINDS)), strict=True)):
        tell(2 + k, total, f"training: {kind}")
        quantities |= _train_all(nx, kind, stream, width, steps, rate, seeds)
    tell(total, total, "done")
    quantities |= {"scale": Quantity(np.array(SCALES)), "batch": Quantity(np.array(BATCHES))}
    return Findings(quantities, tuple(found), _finding(quantities, steps))


# --- exact laws ----------------------------------------------------------------------------------


def _scaled(nx: Backend, stream: Stream, width: int) -> list[Check]:
    """Check what a factor of the weights does to output and gradient, and Euler's identity."""
    ops = nx.ops
    images, _ = digits()
    x = nx.asarray(images[:32].astype(np.float64))
    weight = stream.normal((width, 64), std=math.sqrt(2 / 64), dtype="float64")
    v = stream.normal((32, width), dtype="float64")
    ones, zeros = ops.ones((width,), dtype="float64"), ops.zeros((width,), dtype="float64")

    def functional(eps: float) -> Callable[..., Array]:
        def f(p: Any, x: Array, v: Array, zeros: Array) -> Array:
            z = ops.linear(x, p["weight"])
            y = nx.batch_norm(z, p["scale"], zeros, zeros, zeros, training=True, eps=eps)[0]
            return ops.sum(nx.tanh(y) * v)

        return nx.value_and_gradient(f)

    worst = [0.0, 0.0]
    for a in FACTORS:
        value, gradient = functional(EPS)({"weight": a * weight, "scale": ones}, x, v, zeros)
        same, other = functional(EPS / a**2)({"weight": weight, "scale": ones}, x, v, zeros)
        size = math.sqrt(32 * width)  # of the sum of as many terms of size 1
        worst[0] = max(worst[0], abs(float(nx.to_numpy(value)) - float(nx.to_numpy(same))) / size)
        g, h = a * nx.to_numpy(gradient["weight"]), nx.to_numpy(other["weight"])
        worst[1] = max(worst[1], float(np.linalg.norm(g - h) / np.linalg.norm(h)))
    _, gradient = functional(EPS)({"weight": weight, "scale": ones}, x, v, zeros)
    w, g, d = (nx.to_numpy(a) for a in (weight, gradient["weight"], gradient["scale"]))
    variance = (nx.to_numpy(x) @ w.T).var(axis=0)
    along = np.sum(w * g, axis=1)
    size = np.linalg.norm(w, axis=1) * np.linalg.norm(g, axis=1)
    euler = np.abs(along - EPS / (variance + EPS) * d) / size
    bound = gamma(ROUNDINGS, "float64")
    source = f"exact; {ROUNDINGS} roundings (isometry.common.laws.batch_statistics)"
    return [
        Check(
            "weights scaled by a give the output of eps / a**2: largest difference",
            observed=_whole(worst[0]),
            expected=0.0,
            bound=bound,
            source=source,
        ),
        Check(
            "weights scaled by a have 1 / a of the gradient of eps / a**2: largest difference",
            observed=_whole(worst[1]),
            expected=0.0,
            bound=bound,
            source=source,
        ),
        Check(
            "each unit's gradient is orthogonal to its weights up to eps: departure from Euler's "
            "identity, of their lengths",
            observed=float(euler.max()),
            expected=0.0,
            bound=bound,
            source=f"w . dL/dw = eps / (v + eps) gamma dL/dgamma; {source}",
        ),
    ]


def _whole(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _small(nx: Backend, stream: Stream) -> Part:
    """Check batches of two, and the law of one value among m."""
    found = []
    x = stream.normal((2, FEATURES), dtype="float64")
    two = _standardized(nx, x)
    found.append(
        Check(
            "two examples become +1 and -1 in every feature, up to eps: largest error",
            observed=float(np.abs(two - law.pair(nx.to_numpy(x), EPS)).max()),
            expected=0.0,
            bound=normalization.normalization_bound("float64"),
            source="+-d / sqrt(d**2 + eps), d half their difference; the contract's bound",
        )
    )
    quantities = {"standardized/2": Quantity(np.sort(two[0]))}
    for batch in LAW_BATCHES:
        # a standard deviation of 1e4, beside which eps is rounding
        x = stream.normal((batch, FEATURES), std=1e4, dtype="float64")
        z = np.sort(_standardized(nx, x)[0])
        exact, steps = law.standardized_cdf(z, batch), np.arange(FEATURES + 1) / FEATURES
        found.append(
            Check(
                f"one of {batch} normal values, standardized, has its exact law",
                observed=float(max((exact - steps[:-1]).max(), (steps[1:] - exact).max())),
                expected=0.0,
                bound=dkw(FEATURES, FALSE_ALARM),
                source="z**2 / (m - 1) ~ Beta(1/2, (m - 2)/2) (Thompson 1935); bound: Dvoretzky, "
                "Kiefer and Wolfowitz with Massart's constant (1990)",
                false_alarm=FALSE_ALARM,
            )
        )
        quantities[f"standardized/{batch}"] = Quantity(z)
    return quantities, found


def _standardized(nx: Backend, x: Array) -> np.ndarray:
    ones = nx.ops.ones((FEATURES,), dtype="float64")
    zeros = nx.ops.zeros((FEATURES,), dtype="float64")
    return nx.to_numpy(nx.batch_norm(x, ones, zeros, zeros, ones, training=True, eps=EPS)[0])


# --- training ------------------------------------------------------------------------------------


class _Trainer:
    """Trains nets of one kind; each compiled function is compiled once for a batch size."""

    def __init__(self, nx: Backend, kind: str, width: int, rate: float) -> None:
        self.nx, self.rate, self.kind = nx, rate, kind
        self.network = network = FullyConnected(
            (64, width, width, 10),
            activation="relu",
            initializer="he_normal",
            bias="zeros",
            normalization=KINDS[kind],
        )
        images, labels = digits()
        self.images, self.labels = images - images.mean(axis=0), labels
        self.probe = [self.batch(rows) for rows in np.arange(PROBE).reshape(-1, BATCHES[-1])]

        def loss(parameters: Any, x: Array, targets: Array) -> Array:
            return perceptron.cross_entropy(nx, network.output(nx, parameters, x), targets)

        def last(parameters: Any, x: Array) -> Array:
            return network.forward(nx, parameters, x)[1][network.stacks[-2].name]

        self.gradient = nx.value_and_gradient(nx.compile(loss))
        self.last = nx.compile(last)

    def batch(self, rows: np.ndarray) -> tuple[Array, Array]:
        targets = np.eye(10, dtype=np.float32)[self.labels[rows]]
        return self.nx.asarray(self.images[rows]), self.nx.asarray(targets)

    def batches(self, size: int, steps: int, *, alike: bool = False) -> list[tuple[Array, Array]]:
        """Return mini-batches, the same for every net: mixed, or of one class each in turn."""
        rng = np.random.default_rng(size)
        rows = np.arange(PROBE, len(self.labels))
        found = []
        for step in range(steps):
            pool = rows[self.labels[rows] == step % 10] if alike else rows
            found.append(self.batch(rng.choice(pool, size, replace=False)))
        return found

    def draw(self, stream: Stream, scale: float) -> dict[str, Array]:
        drawn = self.network.initialize(self.nx, stream)
        return {p: scale * a if p.endswith("weight") else a for p, a in drawn.items()}

    def train(self, parameters: dict[str, Array], batches: list[tuple[Array, Array]]) -> Any:
        """Yield the parameters before each step, with the batch and its gradient; then the last."""
        for x, targets in batches:
            _, gradient = self.gradient(parameters, x, targets)
            yield parameters, (x, targets), gradient
            parameters, _ = SGD(rate=self.rate).advance(self.nx, parameters, gradient, {})
        yield parameters, None, None

    def trained(self, parameters: dict[str, Array], batches: list[tuple[Array, Array]]) -> float:
        """Return the probe's loss after training, by batches of 32; infinite if that diverged."""
        for last, _, _ in self.train(parameters, batches):
            parameters = last
        losses = [self.nx.to_numpy(self.gradient(parameters, *b)[0]) for b in self.probe]
        value = float(np.mean(losses))
        return value if math.isfinite(value) else math.inf

    def drift(self, parameters: dict[str, Array], start: Any) -> tuple[float, Any]:
        """Return how far the last activation's inputs moved, in their first standard deviations."""
        if self.kind == "plain":
            z = self.nx.to_numpy(self.last(parameters, self.probe[0][0]))[0].astype(np.float64)
            mean, std = z.mean(axis=0), z.std(axis=0)
        else:  # after the norm: its shift and scale
            name = self.network.stacks[-2].name
            mean, std = (
                self.nx.to_numpy(parameters[f"{name}/{what}"])[0].astype(np.float64)
                for what in ("shift", "scale")
            )
        first = start or (mean, np.abs(std))
        return float(np.mean(np.abs(mean - first[0]) / np.maximum(first[1], EPS))), first

    def along(
        self, parameters: dict[str, Array], batch: tuple[Array, Array], gradient: dict[str, Array]
    ) -> tuple[float, float, float]:
        """Return the range of the loss along the step, and both local Lipschitz constants.

        ``max |L(w - s g) - L(w)| / (s ||g||)`` and the same of the gradient.
        """
        flat = _flat(self.nx, gradient)
        length = float(np.linalg.norm(flat)) * self.rate
        start = float(self.nx.to_numpy(self.gradient(parameters, *batch)[0]))
        losses, slopes, bends = [start], [0.0], [0.0]
        for part in PARTS:
            there, _ = SGD(rate=part * self.rate).advance(self.nx, parameters, gradient, {})
            value, turned = self.gradient(there, *batch)
            losses.append(float(self.nx.to_numpy(value)))
            slopes.append(abs(losses[-1] - start) / (part * length))
            bends.append(float(np.linalg.norm(_flat(self.nx, turned) - flat)) / (part * length))
        return max(losses) - min(losses), max(slopes), max(bends)


def _flat(nx: Backend, arrays: dict[str, Array]) -> np.ndarray:
    return np.concatenate(
        [nx.to_numpy(arrays[p]).astype(np.float64).ravel() for p in sorted(arrays)]
    )


def _train_all(
    nx: Backend, kind: str, stream: Stream, width: int, steps: int, rate: float, seeds: int
) -> dict[str, Quantity]:
    trainer = _Trainer(nx, kind, width, rate)
    streams = iter(stream.split(seeds * (len(SCALES) + len(BATCHES) + 3)))
    large = BATCHES[-1]

    def losses(scale: float, batches: list[tuple[Array, Array]]) -> list[float]:
        return [trainer.trained(trainer.draw(next(streams), scale), batches) for _ in range(seeds)]

    mixed = trainer.batches(large, steps)
    found = {
        "loss/scale": [losses(scale, mixed) for scale in SCALES],
        "loss/batch": [losses(1.0, trainer.batches(size, steps)) for size in BATCHES],
        "loss/one class": losses(1.0, trainer.batches(large, steps, alike=True)),
    }
    drifts, smooth, first = [], [], None
    for parameters, batch, gradient in trainer.train(trainer.draw(next(streams), 1.0), mixed):
        drift, first = trainer.drift(parameters, first)
        drifts.append(drift)
        if gradient is not None:
            smooth.append(trainer.along(parameters, batch, gradient))
    ranges, slopes, bends = np.array(smooth).T
    return {
        **{f"{name}/{kind}": Quantity(np.array(values), "nat") for name, values in found.items()},
        f"drift/{kind}": Quantity(np.array(drifts)),
        f"range/{kind}": Quantity(ranges, "nat"),
        f"lipschitz/loss/{kind}": Quantity(slopes),
        f"lipschitz/gradient/{kind}": Quantity(bends),
    }


# --- in words ------------------------------------------------------------------------------------


def _finding(quantities: dict[str, Quantity], steps: int) -> str:
    def value(name: str) -> np.ndarray:
        return quantities[name].values

    parts = []
    for kind in KINDS:
        scales = value(f"loss/scale/{kind}").mean(axis=1)
        sizes = value(f"loss/batch/{kind}").mean(axis=1)
        alike = value(f"loss/one class/{kind}").mean()
        loss, gradient = (
            np.median(value(f"lipschitz/{what}/{kind}")) for what in ("loss", "gradient")
        )
        parts.append(
            f"{kind} {scales.min():.2g} to {scales.max():.2g} over initial scales "
            f"{SCALES[0]:g} to {SCALES[-1]:g}, {sizes[0]:.2g} with batches of {BATCHES[0]} and "
            f"{sizes[-1]:.2g} with {BATCHES[-1]}, {alike:.2g} with batches of one class each; the "
            f"last activation's inputs drift by {value(f'drift/{kind}')[-1]:.2g} standard "
            f"deviations, and the Lipschitz constants along the step are, in the median, "
            f"{loss:.2g} of the loss and {gradient:.2g} of its gradient"
        )
    return f"Loss of a probe after {steps} steps, in nats, 2.3 being chance: {'; '.join(parts)}."
