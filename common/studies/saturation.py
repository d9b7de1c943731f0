"""Which units saturate or die, what is left of the gradient, and who learns in spite of it?

1. One layer: the share of units whose slope is below a tenth of its largest, as weights grow
   (sigmoid, tanh), and the share that is dead on all of several inputs, as biases sink (ReLU),
   against exact laws (`isometry.common.laws.saturation`).
2. Deep nets as drawn: sigmoid, tanh, ReLU and leaky ReLU; the sigmoid with batch normalization and
   with shortcuts past each layer; ReLU and leaky ReLU whose biases begin low. The gradient of each
   output in each layer's preactivations, held to what the next layer makes of it, to its bound by
   the weights' norms, and to the law of its length.
3. The same nets trained on the digits by plain descent: steps to 90 %, units saturated or dead
   before and after, and what a layer of dead units leaves untouched for ever.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import mean_field
from isometry.common.laws import saturation as laws
from isometry.common.laws.distributions import Normal
from isometry.common.laws.normalization import batch_norm
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.gradients import both_passes, placed
from isometry.common.networks.training import CLASSES, PIXELS, Data, digits_data
from isometry.common.networks.trials import Outcome, Regimen, Trainer
from isometry.common.optimizers.presets import optimizer_rule
from isometry.common.results import Check, Quantity
from isometry.common.statistics import bounds
from isometry.common.statistics.rounding import gamma
from isometry.common.statistics.tolerances import ACTIVATION_ULP
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any

FALSE_ALARM = 1e-9
FLAT = 0.1  # share of the largest slope below which a unit is saturated
SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)  # of the weights' standard deviation
BIASES = (0.0, -1.0, -2.0, -3.0)
INPUTS = 8  # at right angles
UNITS = 4000
EDGE = 1e-5  # of a probability: units that rounding may take across a threshold
IMAGES = 768  # that the nets are trained on, and asked for dead units
RATE = 0.1
RIGHT = 0.9  # of the training images
LEARNS_WITHIN, FAILS_FROM = 100, 8  # steps, layers: what is claimed beyond
GUESSED = 0.3  # accuracy of a net that has learned next to nothing
EPS, TINY = (float(getattr(np.finfo(np.float32), name)) for name in ("eps", "tiny"))
LAWS = "isometry.common.laws.saturation"
LOW = "low biases"


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depth: int = 8,
    slope: float = 0.2,
    bias: float = -1.0,
    networks: int = 4,
    steps: int = 100,
) -> Findings:
    """Count saturated and dead units, follow the gradient down the nets, and train them.

    Parameters
    ----------
    depth : int
        Hidden layers of 64 units, between 2 and 30.
    slope : float
        Of leaky ReLU, above 0 and at most 1.
    bias : float
        Of the nets with low biases, at most 0.
    networks : int
        Drawn of each kind without normalization, for the law of the gradient.
    steps : int
        Of training at most, on 64 images each; 0 trains none.
    """
    checks.integer("depth", depth, low=2, high=30)
    if checks.finite("slope", slope, low=0.0, open_low=True) > 1:
        raise InvalidArgument(f"slope must be at most 1; received {slope:g}")
    if checks.finite("bias", bias) > 0:
        raise InvalidArgument(f"bias must be at most 0; received {bias:g}")
    checks.integer("networks", networks, low=1)
    checks.integer("steps", steps, low=0)
    kinds = _kinds(depth, slope, bias)
    total = len(kinds) + 1
    tell(0, total, "one layer")
    quantities, found = _one_layer(nx, nx.stream(seed).child(0))
    data = replace(digits_data(seed), trained=IMAGES)
    benches: dict[FullyConnected, Bench] = {}
    seen: dict[str, Trial] = {}
    for place, (name, kind) in enumerate(kinds.items()):
        tell(place + 1, total, name)
        if kind.network not in benches:
            benches[kind.network] = Bench(nx, kind.network, data)
        seen[name], claims = _study(benches[kind.network], name, kind, seed, networks, steps)
        found += claims
    tell(total, total, "done")
    quantities |= _quantities(kinds, seen, depth)
    return Findings(quantities, tuple(found), _finding(seen, depth, steps))


# --- one layer -----------------------------------------------------------------------------------


def _one_layer(nx: Backend, stream: Stream) -> tuple[dict[str, Quantity], list[Check]]:
    """Count the units of one wide layer: inputs have mean square 1, weights variance 1/n or 2/n."""
    found = []
    quantities = {"scale": Quantity(np.array(SCALES)), "bias": Quantity(np.array(BIASES))}
    with nx.scope():
        weights = stream.normal((UNITS, PIXELS), std=PIXELS**-0.5)
        inputs = nx.ops.eye(PIXELS, INPUTS) * PIXELS**0.5
        z = nx.ops.matmul(weights, inputs)  # of variance 1, independent

        for name, phi in (("sigmoid", nx.sigmoid), ("tanh", nx.tanh)):
            measured, exact = [], []
            for scale in SCALES:
                slope = nx.to_numpy(_slopes(nx, phi, z[:, :1] * scale))
                measured.append(float(np.mean(slope < FLAT * laws.steepest(name))))
                exact.append(laws.saturated_probability(name, FLAT, scale**2))
                claim = f"{name}: share of saturated units at {scale:g} times the weights"
                law = "erfc(t / sqrt(2 variance))"
                found.append(_binomial(claim, measured[-1], exact[-1], UNITS, law))
            quantities[f"saturated/{name}"] = Quantity(np.array(measured))
            quantities[f"saturated/{name}/exact"] = Quantity(np.array(exact))
        for bias in BIASES:
            alive = nx.to_numpy(nx.relu_gradient(z * 2**0.5 + bias)) > 0
            dead = np.cumprod(~alive, axis=1).mean(axis=0)
            counts = range(1, INPUTS + 1)
            exact = [laws.dead_probability(bias, 2.0, m) for m in counts]
            for m in (1, INPUTS):
                claim = f"ReLU, bias {bias:g}: share of units dead on {m} inputs at right angles"
                law = "Phi(-b / sigma)**m"
                found.append(_binomial(claim, float(dead[m - 1]), exact[m - 1], UNITS, law))
            quantities[f"dead/{bias:g}"] = Quantity(dead)
            quantities[f"dead/{bias:g}/exact"] = Quantity(np.array(exact))
    return quantities, found


def _slopes(nx: Backend, phi: Callable[[Array], Array], z: Array) -> Array:
    """Return phi'(z) by the backend's own differentiation."""
    return nx.value_and_gradient(lambda z: nx.ops.sum(phi(z)))(z)[1]


def _binomial(claim: str, observed: float, expected: float, count: int, law: str) -> Check:
    low, high = bounds.proportion((expected - EDGE, expected + EDGE), count, FALSE_ALARM)
    return Check(
        claim,
        observed=observed,
        expected=expected,
        bound=max(high - expected, expected - low),
        source=f"{law} ({LAWS}); exact binomial limits of {count} units",
        false_alarm=FALSE_ALARM,
    )


# --- deep nets -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A net, its hidden activation's law, the biases it begins with, and how it must end."""

    network: FullyConnected
    law: mean_field.Activation
    steepest: float
    bias: float = 0.0
    learns: bool | None = None

    @property
    def normalized(self) -> bool:
        """Whether the gradient passes normalizations, too."""
        return self.network.normalization is not None

    @property
    def residual(self) -> bool:
        """Whether there are shortcuts."""
        return self.network.shortcut is not None

    @property
    def kinked(self) -> bool:
        """Whether the slope jumps at 0."""
        return self.network.initializer == "he_normal"

    @property
    def leaky(self) -> bool:
        """Whether it is leaky ReLU."""
        return callable(self.network.activation)

    @property
    def variance(self) -> tuple[float, float]:
        """Variances of the weights, hidden and last."""
        if self.kinked:
            return 2 / PIXELS, 2 / PIXELS
        return 1 / PIXELS, 2 / (PIXELS + CLASSES)


def _kinds(depth: int, slope: float, bias: float) -> dict[str, Kind]:
    widths = (PIXELS,) * (depth + 1) + (CLASSES,)
    leaky = functools.partial(_leaky, slope=slope)
    bent = replace(
        mean_field.named("leaky_relu"),
        value=lambda z: np.where(z > 0, z, slope * z),
        slope=lambda z: np.where(z > 0, 1.0, slope),
        pair=None,
    )

    def kind(activation: Any, law: Any, learns: bool | None, low: float = 0.0, **more: Any) -> Kind:
        smooth = activation in ("sigmoid", "tanh")
        rule = "xavier_normal" if smooth else "he_normal"
        network = FullyConnected(widths, activation, rule, bias="zeros", **more)
        steepest = laws.steepest(activation if smooth else "relu")
        return Kind(network, mean_field.named(law), steepest, low, learns)

    return {
        "sigmoid": kind("sigmoid", "sigmoid", False),
        "sigmoid, batch norm": kind("sigmoid", "sigmoid", True, normalization="batch"),
        "sigmoid, shortcuts": kind("sigmoid", "sigmoid", True, shortcut="residual"),
        "tanh": kind("tanh", "tanh", True),
        "ReLU": kind("relu", "relu", True),
        "leaky ReLU": kind(leaky, bent, True),
        f"ReLU, {LOW}": kind("relu", "relu", None, bias),
        f"leaky ReLU, {LOW}": kind(leaky, bent, None, bias),
    }


def _leaky(nx: Backend, z: Array, *, slope: float) -> Array:
    return nx.leaky_relu(z, slope=slope)


@dataclass(frozen=True)
class Probe:
    """A net's arrays on all images: z and d (depth, images, 64), weights (depth, 64, 64) and last.

    d is the gradient of the output of the image's own class in z.
    """

    z: np.ndarray
    d: np.ndarray
    weights: np.ndarray
    last: np.ndarray
    bias: np.ndarray
    inner: np.ndarray

    @property
    def dead(self) -> np.ndarray:
        """Which units (depth, 64) are not above 0 on any image."""
        return np.asarray((self.inner <= 0).all(axis=1))


class Bench:
    """One network on all training images; what is compiled, is compiled once."""

    def __init__(self, nx: Backend, network: FullyConnected, data: Data) -> None:
        self.nx, self.network, self.data = nx, network, data
        self.trainer = Trainer(nx, network, data)
        self.x = data.x[: data.trained].astype(np.float64)
        self.targets = data.labels[: data.trained].astype(np.float64)
        self._x = nx.asarray(data.x[: data.trained])
        self._passes = both_passes(nx, network, "offset")

    def draw(self, stream: Stream, bias: float) -> dict[str, Array]:
        """Draw the parameters; hidden biases begin at `bias`."""
        parameters = placed(self.nx, self.network.initialize(self.nx, stream))
        with self.nx.scope():
            parameters["stack0/bias"] = parameters["stack0/bias"] + bias
        return parameters

    def probe(self, parameters: Mapping[str, Array]) -> Probe:
        """Run forward and backward."""
        nx = self.nx
        z, d, _ = self._passes(parameters, self._x, self.targets)
        own = {k: nx.to_numpy(a).astype(np.float64) for k, a in parameters.items()}
        inner = z
        if self.network.normalization:
            zeros, ones = np.zeros(PIXELS), np.ones(PIXELS)
            inner = np.stack(
                [
                    batch_norm(u, scale, shift, zeros, ones, training=True)[0]
                    for u, scale, shift in zip(
                        z, own["stack0/scale"], own["stack0/shift"], strict=True
                    )
                ]
            )
        weights, last = own["stack0/weight"], own["stack1/weight"][0]
        return Probe(z, d, weights, last, own["stack0/bias"], inner)

    def signals(self, kind: Kind, probe: Probe, images: int | None = None) -> np.ndarray:
        """Return h_0 .. h_depth of the first images, of the reference from the backend's z."""
        h = [self.x[:images]]
        for z in probe.z:
            y = kind.law.value(z[:images])
            h.append(h[-1] + y if kind.residual else y)
        return np.stack(h)


@dataclass(frozen=True)
class Trial:
    """What was seen of one kind: its gradient by layer, its units before and after, its training.

    `gradient` is the root mean square of ``||d_l|| / ||d_depth||`` (depth,).
    """

    gradient: np.ndarray
    before: np.ndarray
    after: np.ndarray
    outcome: Outcome

    def steps(self, most: int) -> int:
        """Return the steps to 90 %, one more than were allowed where it was not reached."""
        found = self.outcome.reached(RIGHT)
        return most + 1 if found is None else found


def _study(
    bench: Bench, name: str, kind: Kind, seed: int, networks: int, steps: int
) -> tuple[Trial, list[Check]]:
    streams = bench.nx.stream(seed).child(1)
    lawful = not kind.normalized and kind.bias == 0
    draws = [bench.draw(streams.child(k), kind.bias) for k in range(networks if lawful else 1)]
    start = bench.probe(draws[0])
    found = []
    if lawful:
        probes = [start, *(bench.probe(p) for p in draws[1:])]
        found.append(_law(bench, name, kind, probes))
    regimen = Regimen(
        rule=optimizer_rule("sgd", rate=RATE), rate=RATE, steps=steps, seed=seed, until=RIGHT
    )
    outcome = bench.trainer.run(draws[0], regimen)
    end = bench.probe(outcome.parameters)
    if kind.kinked:
        found.append(_dead(name, kind, start))
    if not kind.normalized:
        found.append(_backward(bench, name, kind, start))
        if not kind.residual:
            found.append(_bound(name, kind, (start, end)))
        if kind.kinked and not kind.leaky and start.dead.all(axis=1).any():
            found.append(_untouched(bench.nx, name, draws[0], outcome, start))
    found += _outcome(name, kind, outcome, len(start.z), steps)
    trial = Trial(_gradient(start), _share(kind, start), _share(kind, end), outcome)
    return trial, found


def _gradient(probe: Probe) -> np.ndarray:
    squares = np.square(probe.d).sum(axis=2)
    alive = squares[-1] > 0
    if not alive.any():
        return np.zeros(len(squares))
    return np.asarray(np.sqrt((squares[:, alive] / squares[-1, alive]).mean(axis=1)))


def _share(kind: Kind, probe: Probe) -> np.ndarray:
    """Return by layer the share of dead units, or of saturated units and images."""
    if kind.kinked:
        return np.asarray(probe.dead.mean(axis=1))
    slopes = kind.law.slope(probe.inner)
    return np.asarray((slopes < FLAT * kind.steepest).mean(axis=(1, 2)))


# --- what the gradient is held to ----------------------------------------------------------------


def _law(bench: Bench, name: str, kind: Kind, probes: list[Probe]) -> Check:
    """Hold the length of the first image's gradients to chi-square, over layers and nets."""
    total, degrees = 0.0, 0
    for probe in probes:
        h = bench.signals(kind, probe, 1)[:, 0]
        hidden, last = kind.variance
        layers = [(probe.last, bench.targets[0], h[-1], last)]
        layers += [
            (W, d, entered, hidden)
            for W, d, entered in zip(probe.weights, probe.d[:, 0], h, strict=False)
        ]
        for W, d, entered, variance in layers:
            square = float(d @ d)
            if not square:
                continue
            g = d @ W
            length = float(entered @ entered)
            along = float(g @ entered) ** 2 / length if length else 0.0
            total += (float(g @ g) - along) / (variance * square)
            degrees += PIXELS - bool(length)
    low, high = bounds.moment(Normal(), 2, degrees, FALSE_ALARM)
    return Check(
        f"{name}: squared length that a layer gives the gradient, at right angles to its input",
        observed=total / degrees,
        expected=1.0,
        bound=max(high - 1, 1 - low) + len(probes) * 1e-6,
        source=f"chi-square of {degrees} degrees ({LAWS}, isometry.common.laws.propagation)",
        false_alarm=FALSE_ALARM,
    )


def _backward(bench: Bench, name: str, kind: Kind, probe: Probe) -> Check:
    """Hold each layer's gradient to what the next layer's makes of it, in float64."""
    depth = len(probe.z)
    rounded = gamma(2 * PIXELS + 2 * depth + 16)
    h = bench.signals(kind, probe)
    g, size = (
        bench.targets @ W for W in (probe.last, np.abs(probe.last))
    )  # in h_depth, and the sum of its terms' sizes
    farthest = 0.0
    for layer in range(depth - 1, -1, -1):
        W, z, d = probe.weights[layer], probe.z[layer], probe.d[layer]
        slope = kind.law.slope(z)
        # z as the gradient's own pass has it may be off that of the pass forward
        off = depth * rounded * (np.abs(h[layer]) @ np.abs(W).T + np.abs(probe.bias[layer]))
        error = (rounded + ACTIVATION_ULP["float32"] * EPS) * slope * size + PIXELS * TINY
        if kind.kinked:
            told = np.abs(z) > off
        else:
            told, error = np.ones(z.shape, dtype=bool), error + off * size
        farthest = max(farthest, float((np.abs(d - slope * g) / error)[told].max(initial=0.0)))
        through, sizes = d @ W, np.abs(d) @ np.abs(W)
        g, size = (g + through, size + sizes) if kind.residual else (through, sizes)
    return Check(
        f"{name}: gradient in each layer, farthest off what the next one makes of it",
        observed=farthest,
        expected=0.0,
        bound=1.0,
        source="phi'(z) W^T d, and past a shortcut g + W^T d, in float64; bound: rounding in "
        "float32 (Higham 2002, lemma 3.1)",
    )


def _bound(name: str, kind: Kind, probes: tuple[Probe, ...]) -> Check:
    """Hold the gradient to its bound by the weights' norms, on every image, trained or not."""
    largest = 0.0
    for probe in probes:
        lengths = np.linalg.norm(probe.d, axis=2)
        norms = np.linalg.norm(probe.weights, ord=2, axis=(1, 2))
        allowed = kind.steepest * norms[1:, None] * lengths[1:] + PIXELS * TINY
        largest = max(largest, float((lengths[:-1] / allowed).max()))
    return Check(
        f"{name}: gradient in a layer over its bound by the next, largest of all images, before "
        "and after training",
        observed=largest,
        expected=0.0,
        bound=1 + gamma(4 * PIXELS + 16) * PIXELS**0.5,
        source=f"||d|| <= {kind.steepest:g} ||W|| ||d of the next|| for every input ({LAWS})",
    )


def _dead(name: str, kind: Kind, probe: Probe) -> Check:
    """Count what reaches units that are below 0 on all images: nothing, but for leaky ones."""
    reached = np.abs(probe.d).max(axis=1)[probe.dead]
    if kind.leaky:
        what, lost, source = "get no gradient", reached == 0, "the slope there is above 0"
    else:
        what, lost, source = "get a gradient", reached > 0, "the slope there is 0, exactly"
    return Check(
        f"{name}: units below 0 on all images that {what}",
        observed=float(lost.sum()),
        expected=0.0,
        bound=0.0,
        source=source,
        unit="unit",
    )


def _untouched(
    nx: Backend, name: str, start: Mapping[str, Array], outcome: Outcome, probe: Probe
) -> Check:
    """Count what training changed before or in a layer that was dead on all images: nothing."""
    last = int(np.flatnonzero(probe.dead.all(axis=1))[-1]) + 1
    changed = sum(
        int(np.sum(nx.to_numpy(start[path])[:last] != nx.to_numpy(outcome.parameters[path])[:last]))
        for path in ("stack0/weight", "stack0/bias")
    )
    return Check(
        f"{name}: parameters up to the last dead layer that training changed",
        observed=float(changed),
        expected=0.0,
        bound=0.0,
        source=f"nothing passes a layer whose units are all dead on all images ({LAWS})",
        unit="parameter",
    )


def _outcome(name: str, kind: Kind, outcome: Outcome, depth: int, steps: int) -> list[Check]:
    accuracy = max(outcome.accuracies)
    if kind.learns and steps >= LEARNS_WITHIN:
        return [
            Check(
                f"{name}: learns 90 % of the images within {steps} steps",
                observed=accuracy,
                expected=1.0,
                bound=1 - RIGHT,
                source="the gradient reaches the first layer within two decades of the last",
            )
        ]
    if kind.learns is False and depth >= FAILS_FROM:
        return [
            Check(
                f"{name}: learns less than 30 % of the images",
                observed=accuracy,
                expected=0.0,
                bound=GUESSED,
                source=f"a layer keeps a quarter of the gradient times ||W|| at most ({LAWS})",
            )
        ]
    return []


# --- report --------------------------------------------------------------------------------------


def _quantities(kinds: dict[str, Kind], seen: dict[str, Trial], depth: int) -> dict[str, Quantity]:
    found = {"layer": Quantity(np.arange(1, depth + 1), "layer")}
    for name, trial in seen.items():
        kind = kinds[name]
        found |= {
            f"gradient/{name}": Quantity(trial.gradient),
            f"before/{name}": Quantity(trial.before),
            f"after/{name}": Quantity(trial.after),
            f"checked/{name}": Quantity(np.array(trial.outcome.checked), "step"),
            f"accuracy/{name}": Quantity(np.array(trial.outcome.accuracies)),
        }
        if not (kind.normalized or kind.residual or kind.bias):
            weight = PIXELS * kind.variance[0]
            curve = np.sqrt(laws.gradient_curve(kind.law, weight, depth))
            found[f"gradient/{name}/theory"] = Quantity(curve)
    return found


def _finding(seen: dict[str, Trial], depth: int, steps: int) -> str:
    def took(trial: Trial) -> str:
        count = trial.steps(steps)
        return "never" if count > steps else str(count)

    row = "; ".join(
        f"{name} {took(t)} ({t.gradient[0]:.1e}, {t.before.mean():.0%} to {t.after.mean():.0%})"
        for name, t in seen.items()
    )
    return (
        f"Nets of {depth} hidden layers: steps to 90 % of the digits (in brackets the gradient in "
        "the first layer over that in the last, and the share of units saturated or, of ReLU, dead "
        f"on all images, before and after): {row}. A layer of sigmoids passes on a quarter of the "
        "gradient times its weights' norm at most, and nets die of that without being saturated; "
        "normalization and shortcuts mend it. A layer of dead units stops a ReLU net for ever; a "
        "leaky one passes its slope, to the power of the dead layers."
    )
