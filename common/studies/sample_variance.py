"""Does a deep ReLU net still tell its inputs apart when its total variance is preserved?

He's rule preserves the total variance of a preactivation, over networks and samples, at any depth.
Within one network, though, the outputs of different samples become alike: the variance over samples
decays layer by layer and the mean over samples takes its place (Luther and Seung 2019). In the
limit of infinite width the decay is an exact recursion (`isometry.common.laws.arc_cosine`). At
finite width it stops at a share of about 1/n, and each single layer's step has an exact
expectation given the layer before: to that the nets are held here, at every width.

Batch normalization makes every unit's mean over the batch 0 before the activation, and so stops the
decay: with u its output, ``mean relu(u) = mean |u| / 2 <= 1/2``, while ``relu(u)**2`` is 1/2 in
expectation, W being symmetric; the share of the variance over samples is at least 1/2 at any depth.

Does it matter for training? The same weights learn the 8x8 digits by plain gradient steps twice:
with He's scale (total variance 1), and with each unit's weights and bias set so that its
preactivation has mean 0 and variance 1 over the samples, each at the best of the rates up to 0.03.
(Where a rate is too large, as 0.03 is for He's start at the default depth, the loss jumps and
rounding decides where it goes.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.errors import InvalidArgument
from isometry.common.laws import arc_cosine, perceptron, propagation
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.results import Check, Quantity
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any
Parameters = dict[str, Array]

FALSE_ALARM = 1e-9
EPS = 1e-5  # of batch normalization: its default
LAWS = "isometry.common.laws.arc_cosine"
RATES = (0.001, 0.003, 0.01, 0.03)
HIDDEN, IMAGES, CLASSES = 64, 256, 10


@dataclass(frozen=True)
class Moments:
    """Mean and variance over samples of one kind of net, by layer.

    Attributes
    ----------
    mean, sample : numpy.ndarray (L,)
        m_l**2 and v_l**2 of the preactivations, without bias, averaged over units and nets.
    """

    mean: np.ndarray
    sample: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """m / v, by layer; 0 where the estimate of m**2 is below 0."""
        return np.asarray(np.sqrt(np.maximum(self.mean, 0) / self.sample))


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depth: int = 50,
    widths: str = "32,128,512",
    samples: int = 64,
    networks: int = 6,
    training_depth: int = 15,
    steps: int = 60,
) -> Findings:
    """Follow mean and variance over samples through deep ReLU nets, then train two of them.

    Parameters
    ----------
    depth : int
        Number of layers of the nets that are followed, at least 3.
    widths : str
        Comma-separated numbers of units per layer, each at least 8.
    samples : int
        White-noise inputs, at least 4.
    networks : int
        Independent random nets per width, at least 1.
    training_depth : int
        Number of layers of the nets that are trained, at least 2.
    steps : int
        Gradient steps of each training, at least 1.
    """
    checks.integer("depth", depth, low=3, high=10**4)
    checks.integer("samples", samples, low=4, high=10**4)
    checks.integer("networks", networks, low=1, high=10**4)
    checks.integer("training_depth", training_depth, low=2, high=10**3)
    checks.integer("steps", steps, low=1, high=10**5)
    sizes = _widths(widths)
    total = 2 * len(sizes) + 2 * len(RATES)
    stream, training = nx.stream(seed), nx.portable_stream(seed)
    shares = arc_cosine.sample_shares(depth - 1)
    quantities = {
        "layer": Quantity(np.arange(1, depth + 1), "layer"),
        "m/v/theory": Quantity(arc_cosine.mean_over_deviation(shares)),
        "share/theory": Quantity(shares),
        "width": Quantity(np.array(sizes)),
    }
    found: list[Check] = []
    departures = []
    for k, width in enumerate(sizes):
        tell(2 * k, total, f"width {width}, no normalization")
        plain = _nets(nx, stream, width, depth, samples, networks, None)
        departures.append(_departures(plain, width))
        found += _total(plain, width)
        quantities |= _measured(f"width {width}", _moments(plain))
        tell(2 * k + 1, total, f"width {width}, batch normalization")
        normalized = _nets(nx, stream, width, depth, samples, networks, "batch")
        quantities |= _measured(f"width {width}, batch norm", _moments(normalized))
        found += _normalized(normalized, width)
    found = _kernel(departures) + found
    quantities |= _training(nx, tell, training, training_depth, steps, 2 * len(sizes))
    tell(total, total, "done")
    return Findings(quantities, tuple(found), _finding(quantities, sizes, training_depth, steps))


def _widths(widths: str) -> list[int]:
    try:
        sizes = [int(width) for width in widths.split(",")]
    except ValueError:
        raise InvalidArgument(
            f"widths must be whole numbers with commas between them; received {widths!r}; "
            "write 32,128"
        ) from None
    return [checks.integer("a width", width, low=8, high=10**4) for width in sizes]


# --- nets at initialization ----------------------------------------------------------------------


def _nets(
    nx: Backend,
    stream: Stream,
    width: int,
    depth: int,
    samples: int,
    networks: int,
    normalization: str | None,
) -> np.ndarray:
    """Return input and preactivations of all layers, (networks, depth + 1, samples, width)."""
    net = FullyConnected((width,) * (depth + 1), "relu", "he_normal", normalization=normalization)

    def forward(parameters: Parameters, x: Array) -> tuple[Array, ...]:
        _, trace = net.forward(nx, parameters, x)
        return tuple(trace[stack.name] for stack in net.stacks)

    compiled = nx.compile(forward)
    found = np.empty((networks, depth + 1, samples, width))
    for k in range(networks):
        parameters = net.initialize(nx, stream, dtype="float64")
        x = stream.normal((samples, width), dtype="float64")
        found[k, 0] = nx.to_numpy(x)
        found[k, 1:] = np.concatenate([nx.to_numpy(z) for z in compiled(parameters, x)])
    return found


def _moments(z: np.ndarray) -> Moments:
    """Return m**2 and v**2 by layer: v**2 unbiased, and m**2 the mean over pairs of samples."""
    sample = z[:, 1:].var(axis=2, ddof=1).mean(axis=(0, 2))
    mean = np.square(z[:, 1:].mean(axis=2)).mean(axis=(0, 2)) - sample / z.shape[2]
    return Moments(mean, sample)


def _measured(name: str, moments: Moments) -> dict[str, Quantity]:
    share = moments.sample / (moments.mean + moments.sample)
    return {f"m/v/{name}": Quantity(moments.ratio), f"share/{name}": Quantity(share)}


def _departures(z: np.ndarray, width: int) -> np.ndarray:
    """Return, by statistic and layer, F, E F**2 and L of the step from h_{l-1} to h_l.

    F is the root of an average over units and nets of squares of h_l: of its mean over samples,
    then of its deviations from that. Expectations are given each net's layer before.
    """
    networks, layers = len(z), z.shape[1]
    found = np.empty((2, layers - 2, 3))
    for layer in range(1, layers - 1):
        h = np.maximum(z[:, layer], 0)
        before = z[:, 0] if layer == 1 else np.maximum(z[:, layer - 1], 0)
        steps = [arc_cosine.step(one, 2 / width, width) for one in before]
        lipschitz = max(step.lipschitz for step in steps) / math.sqrt(networks)
        for k, (square, expected) in enumerate(
            (
                (np.square(h.mean(axis=1)).mean(), np.mean([step.mean for step in steps])),
                (h.var(axis=1).mean(), np.mean([step.sample for step in steps])),
            )
        ):
            found[k, layer - 1] = math.sqrt(square), expected, lipschitz
    return found


def _kernel(departures: Sequence[np.ndarray]) -> list[Check]:
    """Hold each layer's step to the arc-cosine kernel, averaged over layers and widths.

    Departures of the variance over samples, which decays, are weighted by its expected root.
    """
    layers = departures[0].shape[1]
    weights = np.ones(layers), np.sqrt(arc_cosine.sample_shares(layers)[1:])
    return [
        Check(
            f"the {what} follows the arc-cosine kernel, layer by layer, at every width",
            observed=float(weight @ ((F - np.sqrt(expected)) / lipschitz)),
            expected=0.0,
            bound=arc_cosine.departure_bound(expected, lipschitz, weight, FALSE_ALARM),
            source="root of the squares given the layer before, in units of its Lipschitz "
            "constant; Cho and Saul 2009, eq. 3; Gaussian concentration of a martingale "
            f"({LAWS})",
            unit="Lipschitz constant",
            false_alarm=FALSE_ALARM,
        )
        for what, weight, (F, expected, lipschitz) in zip(
            ("mean over samples", "variance over samples"),
            (np.tile(w / (w.sum() * len(departures)), len(departures)) for w in weights),
            np.concatenate(departures, axis=1).transpose(0, 2, 1),
            strict=True,
        )
    ]


def _total(z: np.ndarray, width: int) -> list[Check]:
    """Hold the log-norm of each net's first sample to its exact law: total variance is kept."""
    squares = np.square(z[:, :, 0]).sum(axis=2)
    grown = np.square(np.maximum(z[:, -2, 0], 0)).sum(axis=1) / squares[:, 0]
    living = grown[grown > 0]
    if living.size == 0:
        return []
    laws = [propagation.alive("relu", 2 / width, width)] * (z.shape[1] - 2)
    return [
        Check(
            f"width {width}: log growth of one sample's squared norm, of nets that are not dead",
            observed=float(np.log(living).mean()),
            expected=sum(law.mean for law in laws),
            bound=propagation.mean_bound(laws, living.size, FALSE_ALARM),
            source="exact sum of independent log chi-squares, Chernoff's bound "
            "(isometry.common.laws.propagation)",
            unit="nat",
            false_alarm=FALSE_ALARM,
        )
    ]


def _normalized(z: np.ndarray, width: int) -> list[Check]:
    """Hold batch-normalized nets to the law of a step, and their share to its lower limit."""
    before = z[:, 1:-1]
    u = (before - before.mean(axis=2, keepdims=True)) / np.sqrt(
        before.var(axis=2, keepdims=True) + EPS
    )
    h = np.maximum(u, 0)
    through = [np.square(y.mean(axis=2)).sum(axis=2) for y in (z[:, 2:], h)]
    law = propagation.growth("linear", 2 / width, width)
    squares, means = np.square(h).mean(axis=2), np.square(h.mean(axis=2))
    # averages over units, nets and layers: of relu(u)**2, which is in [0, 1] and 1/2 in expectation
    # given the layer before, and of the squared mean over samples, at most 1/4; but for eps
    slack = math.sqrt(math.log(1 / FALSE_ALARM) / (2 * squares.size))
    slack += EPS / (2 * (float(before.var(axis=2).min()) + EPS))
    least = 1 - 1 / (4 * max(1 / 2 - slack, 1 / 4))
    return [
        Check(
            f"width {width}: batch norm, log growth of the mean over samples in one layer",
            observed=float(np.log(through[0] / through[1]).mean()),
            expected=law.mean,
            bound=propagation.mean_bound([law], through[0].size, FALSE_ALARM),
            source="ln(s**2 chi2_n) of W relu(u), u normalized from what the layer was given; "
            "Chernoff's bound (isometry.common.laws.propagation)",
            unit="nat",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            f"width {width}: batch norm keeps at least half of the variance over samples",
            observed=float(1 - means.mean() / squares.mean()),
            expected=(least + 1) / 2,
            bound=(1 - least) / 2,
            source="average over layers, in [1/2, 1] but for chance: mean relu(u) = mean |u| / 2, "
            "and E relu(u)**2 = 1/2 by symmetry; Azuma's inequality",
            false_alarm=FALSE_ALARM,
        ),
    ]


# --- training ------------------------------------------------------------------------------------


def _training(
    nx: Backend, tell: Tell, stream: Stream, depth: int, steps: int, done: int
) -> dict[str, Quantity]:
    """Train the digits from either initialization at each rate; return losses and shares."""
    images, labels = digits()
    x = images[:IMAGES].astype(np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1 / 16)
    targets = np.eye(CLASSES)[labels[:IMAGES]]
    net = FullyConnected((x.shape[1],) + (HIDDEN,) * (depth - 1) + (CLASSES,), "relu",
                         "he_normal", "zeros")  # fmt: skip
    gradient = nx.value_and_gradient(nx.compile(_loss(nx, net)))
    he = net.initialize(nx, stream, dtype="float64")
    starts = {"total": he, "sample": _standardized(nx, net, he, x)}
    data = nx.asarray(x, dtype="float32"), nx.asarray(targets, dtype="float32")
    quantities = {"rate": Quantity(np.array(RATES)), "step": Quantity(np.arange(steps + 1), "step")}
    for k, ((name, start), rate) in enumerate(itertools.product(starts.items(), RATES)):
        tell(done + k, done + 2 * len(RATES), f"training, {name} variance, rate {rate}")
        parameters = {path: nx.ops.astype(w, "float32") for path, w in start.items()}
        losses: list[float] = []
        for _ in range(steps + 1):
            loss, slopes = gradient(parameters, *data)
            if not losses:
                quantities[f"gradient/training/{name}"] = Quantity(_norms(nx, net, slopes))
            losses.append(float(nx.to_numpy(loss)))
            parameters = {path: w - rate * slopes[path] for path, w in parameters.items()}
        quantities[f"loss/{name}/rate {rate}"] = Quantity(np.array(losses), "nat")
    for name, start in starts.items():
        trace = net.forward(nx, start, nx.asarray(x))[1]
        z = [layer for stack in net.stacks for layer in nx.to_numpy(trace[stack.name])]
        share = [y.var(axis=0).mean() / np.square(y).mean() for y in z]
        quantities[f"share/training/{name}"] = Quantity(np.array(share))
    return quantities


def _norms(nx: Backend, net: FullyConnected, gradients: Parameters) -> np.ndarray:
    """Return the Frobenius norm of each layer's gradient."""
    weights = [nx.to_numpy(gradients[f"{stack.name}/weight"]) for stack in net.stacks]
    return np.sqrt([np.square(weight).sum() for layers in weights for weight in layers])


def _loss(nx: Backend, net: FullyConnected) -> Any:
    def loss(parameters: Parameters, x: Array, targets: Array) -> Array:
        return perceptron.cross_entropy(nx, net.output(nx, parameters, x), targets)

    return loss


def _standardized(
    nx: Backend, net: FullyConnected, parameters: Parameters, x: np.ndarray
) -> Parameters:
    """Rescale each unit's weights and set its bias: mean 0 and variance 1 over the samples.

    The data-dependent initialization of Salimans and Kingma (2016, section 3), layer by layer.
    """
    found, h = {}, x
    for stack in net.stacks:
        weights = nx.to_numpy(parameters[f"{stack.name}/weight"])
        rows = []
        for k, weight in enumerate(weights):
            z = h @ weight.T
            mean, deviation = z.mean(axis=0), z.std(axis=0)
            deviation = np.where(deviation > 0, deviation, 1.0)
            weights[k] = weight / deviation[:, None]
            rows.append(-mean / deviation)
            h = np.maximum((z - mean) / deviation, 0)
        found[f"{stack.name}/weight"] = nx.asarray(weights)
        found[f"{stack.name}/bias"] = nx.asarray(np.array(rows))
    return found


def _best(quantities: dict[str, Quantity], name: str) -> tuple[float, float]:
    """Return the lowest last loss of an initialization, and its rate."""
    last = [float(quantities[f"loss/{name}/rate {rate}"].values[-1]) for rate in RATES]
    finite = [loss if math.isfinite(loss) else math.inf for loss in last]
    return min(zip(finite, RATES, strict=True))


def _finding(quantities: dict[str, Quantity], sizes: Sequence[int], depth: int, steps: int) -> str:
    def last(name: str) -> float:
        return float(quantities[name].values[-1])

    layers = quantities["layer"].values[-1]
    widths = ", ".join(f"{last(f'm/v/width {n}'):.2f} at width {n}" for n in sizes)
    (total, total_rate), (sample, sample_rate) = (
        _best(quantities, name) for name in ("total", "sample")
    )
    growth = quantities["gradient/training/sample"].values
    return (
        f"At layer {layers} of a ReLU net with He weights the mean over samples is {widths} times "
        f"the deviation over samples; the recursion of infinite width says "
        f"{last('m/v/theory'):.2f}, where the variance over samples is "
        f"{100 * last('share/theory'):.2g} % of the total. With batch normalization it stays at "
        f"{100 * last(f'share/width {sizes[-1]}, batch norm'):.0f} %. {depth} layers learn the "
        f"digits in {steps} plain gradient steps to a loss of {total:.3g} nat from preserved total "
        f"variance (rate {total_rate:g}) and {sample:.3g} from preserved sample variance (rate "
        f"{sample_rate:g}); at the output the samples start with "
        f"{100 * last('share/training/total'):.2g} % and "
        f"{100 * last('share/training/sample'):.0f} % of the variance. The second has its price: "
        f"the first layer's gradient is {growth[0] / growth[-1]:.3g} times the last one's."
    )
