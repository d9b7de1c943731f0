"""Can a plain tanh network of ten thousand layers learn, and what must be right for that?

No shortcuts, no normalization: ``h_l = tanh(W_l h_{l-1})`` on the 8x8 digits. The net that learns
is critical and an isometry: orthogonal weights of gain 1, no biases, images scaled so that q, the
mean square of a unit, is 1/depth. By `isometry.common.laws.plain_tanh` signal and gradient then
lose two thirds of their squared length over the whole depth, at any depth. Each contrast departs in
one thing and is named by it:

gaussian
    N(0, 1/n) weights keep the expected length, but their products have Lyapunov exponents
    ``(psi((n-i+1)/2) + ln(2/n)) / 2``: after L layers the tenth singular value is
    ``exp(-L (lambda_1 - lambda_10))`` of the first, and ten classes no longer pass.
gain
    Of 5/3, as PyTorch recommends for tanh: chaos, where correlations between images vanish on the
    depth scale xi_c (`isometry.common.laws.mean_field`).
bias
    Zero at first and trained. A bias's gradient is not scaled by the signal, a weight's is: of the
    squared gradient of one image a share ``1/(1 + n q)`` is the biases', nearly all at q = 1/depth.
unit
    Images of q = 1. The first layers are strongly nonlinear, the gradient at the first layer falls
    as 1/(2 depth).
linear
    The same weights without tanh: what does the nonlinearity add?

All are trained alike: softmax regression on outputs divided by the root mean square that they have
at first; momentum 0.9 on gradients divided by their norm; a step's length is rate / sqrt(depth),
falling linearly to 0, since a step spread over all layers moves the output by sqrt(depth) times
its length. Everything is float32. 10,000 layers take a few minutes; progress says how long.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.laws import chains, mean_field, plain_tanh, propagation
from isometry.common.networks.gradients import placed
from isometry.common.networks.plain import CONTRASTS, CRITICAL, Bench, Net
from isometry.common.networks.training import CLASSES, PIXELS, TRAINED, Training
from isometry.common.results import Check, Quantity
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["run"]

Array = Any
PROBES = 8  # images whose signal and gradient are held to the law
SHALLOWEST = 4
SHORTER = 4  # each contrast is trained at the depth divided by this, again and again, too
LEARNED, LOST = 0.97, 0.9  # training accuracy
POINTS = 200  # of a curve over the layers
REACH = 60.0  # nats of squared length that signal or gradient may change by, in float32
FALSE_ALARM = 1e-9


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depth: int = 100,
    width: int = 32,
    batch: int = 128,
    steps: int = 100,
    rate: float = 0.25,
    contrasts: str = "linear,gaussian,gain,bias,unit",
    rungs: int = 1,
    convolutional: int = 3,
    checkpoint: str = "",
) -> Findings:
    """Train the critical net and its contrasts, and hold signal and gradient to their laws.

    Parameters
    ----------
    depth : int
        Layers of the fully connected nets; 10000 take a few minutes without contrasts.
    width : int
        Units per hidden layer, from 10 to 64.
    batch : int
        Images per step.
    steps : int
        Steps of training.
    rate : float
        Length of the first step times sqrt(depth).
    contrasts : str
        Comma-separated names out of linear, gaussian, gain, bias, unit; empty for none.
    rungs : int
        How often a contrast is trained again at a quarter of the depth.
    convolutional : int
        Layers of the convolutional net with delta-orthogonal kernels; 0 for none.
    checkpoint : str
        Start of the paths of checkpoint files; with it an interrupted run goes on where it was.
    """
    checks.integer("depth", depth, low=SHALLOWEST, high=10**6)
    checks.integer("width", width, low=CLASSES, high=PIXELS)
    checks.integer("batch", batch, low=1, high=TRAINED)
    checks.integer("steps", steps, low=1, high=10**6)
    checks.finite("rate", rate, low=0.0, open_low=True)
    checks.integer("rungs", rungs, low=0, high=20)
    checks.integer("convolutional", convolutional, low=0, high=10**5)
    names = [
        checks.choice("contrast", name.strip(), tuple(CONTRASTS))
        for name in contrasts.split(",")
        if name.strip()
    ]
    bench = Bench(nx, tell, seed, width, batch, steps, rate, checkpoint)
    shorter = [depth // SHORTER**k for k in range(rungs, 0, -1)]
    ladder = [*(layers for layers in shorter if layers >= SHALLOWEST), depth]
    nets = {"critical": (CRITICAL, [depth])}
    for name in names:
        nets[name] = (CONTRASTS[name], [depth] if name == "linear" else ladder)
    count = sum(len(depths) for _, depths in nets.values()) + bool(convolutional)
    bench.total = count * steps
    quantities: dict[str, Quantity] = {}
    found: list[Check] = []
    for name, (net, depths) in nets.items():
        trainings = [bench.train(name, net, layers) for layers in depths]
        quantities |= _outcomes(name, trainings, depths)
        found += _claims(name, net, trainings[-1], depth, width)
        if name not in ("linear", "bias"):  # untrained, bias is the critical net
            named, claims = _law(bench, name, net, depth)
            quantities |= named
            found += claims
    if convolutional:
        training = bench.train_convolutional(convolutional)
        quantities |= _outcomes("convolutional", [training], [convolutional + 1])
        found.append(_learned("convolutional", training))
    quantities["peak_memory"] = Quantity(np.array(_peak_memory()), "MiB")
    bench.finish()
    return Findings(quantities, tuple(found), _finding(quantities, names, depth, width))


# --- outcomes ----------------------------------------------------------------------------------


def _outcomes(name: str, trainings: list[Training], depths: list[int]) -> dict[str, Quantity]:
    last = trainings[-1]
    return {
        f"loss/{name}": Quantity(np.array([loss for loss in last.losses if math.isfinite(loss)])),
        f"depth/{name}": Quantity(np.array(depths), "layer"),
        f"accuracy/{name}": Quantity(np.array([t.accuracy for t in trainings])),
        f"test_accuracy/{name}": Quantity(np.array([t.test_accuracy for t in trainings])),
        f"seconds_per_step/{name}": Quantity(
            np.array([t.seconds / len(t.losses) for t in trainings]), "s"
        ),
    }


def _learned(name: str, training: Training) -> Check:
    return Check(
        f"{name}: learns at least 97 % of the images that it is trained on",
        observed=training.accuracy,
        expected=1.0,
        bound=1 - LEARNED,
        source="an isometry trains at any depth: Xiao et al. 2018 trained 10,000 plain layers",
    )


def _claims(name: str, net: Net, training: Training, depth: int, width: int) -> list[Check]:
    """Return what theory says about the outcome of a net of this depth."""
    if name == "critical":
        return [_learned(name, training)]
    if name not in ("gaussian", "gain") or depth < _loses_from(net, width):
        return []
    why = {
        "gaussian": "the tenth singular value is below 1e-7 of the first (Newman 1986)",
        "gain": "deeper than 6 xi_c (Schoenholz et al. 2017, section 5)",
    }[name]
    return [
        Check(
            f"{name}: learns less than 90 % of the images that it is trained on",
            observed=training.accuracy,
            expected=0.0,
            bound=LOST,
            source=why,
        )
    ]


def _loses_from(net: Net, width: int) -> float:
    """Return the depth from which theory lets nothing pass: Gaussian weights, or chaos."""
    if net.gaussian:
        first, tenth = (chains.exponent_law(width, i, 1).mean for i in (1, CLASSES))
        return -math.log(float(np.finfo(np.float32).eps)) / (first - tenth)
    return 6 * mean_field.mean_field("tanh", net.gain**2, 0.0).xi_c


# --- signal and gradient ------------------------------------------------------------------------


def _law(bench: Bench, name: str, net: Net, depth: int) -> tuple[dict[str, Quantity], list[Check]]:
    """Hold signal and gradient of the net as drawn to their laws."""
    number, z, d = _probe(bench, net, depth)
    layers, width = len(z), bench.width
    with np.errstate(under="ignore"):
        q = np.square(z).mean(axis=-1)
    shown = np.unique(np.linspace(0, layers - 1, POINTS).astype(int))
    start = 1.0 if net.unit else 1 / depth
    quantities = {f"layer/{name}": Quantity(number + shown, "layer")}
    if net.gaussian:
        law = propagation.growth("linear", 1 / width, width)
        lengths, logs = start * np.exp(law.mean * np.arange(layers)), None
        found = [_gaussian_claim(z, law)]
    else:
        lengths, logs = plain_tanh.curves(start * net.gain**2, width, layers, net.gain)
        found = _orthogonal_claims(name, net, z, d, start)
    quantities[f"signal/{name}"] = Quantity(q[shown].mean(axis=1))
    quantities[f"signal/{name}/theory"] = Quantity(lengths[shown])
    if logs is not None:
        with np.errstate(under="ignore"):
            squares = np.square(d).sum(axis=-1)
        steepness = np.log(squares / squares[-1])
        quantities[f"gradient/{name}"] = Quantity(steepness[shown].mean(axis=1), "nat")
        quantities[f"gradient/{name}/theory"] = Quantity((logs[-1] - logs)[shown], "nat")
    return quantities, found


def _probe(bench: Bench, net: Net, depth: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Return z_l and the gradients d_l of one output each in it, of the square layers.

    The number of the first, and arrays (layers, images, width) in float64; of a net that float32
    does not hold as a whole the first layers (Gaussian weights: the signal dies) or the last
    (chaos: the gradient explodes).
    """
    nx, width = bench.nx, bench.width
    network = net.network(depth, width)
    stack = next(s for s in network.stacks if s.hidden and s.n_in == s.n_out)
    parameters = placed(nx, network.initialize(nx, nx.stream(bench.seed)))
    data = bench.data(1.0 if net.unit else 1 / depth)
    x, labels = nx.asarray(data.x[:PROBES]), data.labels[:PROBES]
    passes = bench.probe(network)(parameters, x, labels)
    z, d = (a[stack.first - 1 :] for a in passes[:2])
    if net.gaussian:
        start, end = 0, int(REACH * width)
    else:
        change = abs(math.log(net.gain**2 * plain_tanh.slope_map(_settled(net), width)))
        start, end = max(0, stack.count - int(REACH / max(change, 1e-9))), stack.count
    return stack.first + start, z[start:end], d[start:end]


def _settled(net: Net) -> float:
    """Return the q that the signal settles at: 0 at the critical point."""
    return mean_field.mean_field("tanh", net.gain**2, 0.0).q if net.gain > 1 else 0.0


def _gaussian_claim(z: np.ndarray, law: propagation.LogChiSquare) -> Check:
    """Compare the log-norm that N(0, 1/n) weights give one image with its exact law."""
    h = np.tanh(z[:-1, 0])
    steps = np.log(np.square(z[1:, 0]).sum(axis=-1) / np.square(h).sum(axis=-1))
    count = len(steps)
    bound = propagation.deviation_bound(
        lambda t: count * law.cumulant(t), count * law.mean, count * law.variance, FALSE_ALARM
    )
    return Check(
        "gaussian: each layer multiplies the squared length of the signal by chi2_n / n",
        observed=float(steps.sum()) / count,
        expected=law.mean,
        bound=bound / count,
        source="psi(n/2) + ln(2/n) nats a layer; Chernoff's bound, exact moments of chi2_n "
        "(isometry.common.laws.propagation)",
        unit="nat",
        false_alarm=FALSE_ALARM,
    )


def _orthogonal_claims(
    name: str, net: Net, z: np.ndarray, d: np.ndarray, start: float
) -> list[Check]:
    q = np.square(z).mean(axis=-1)
    ratios = {
        "signal": plain_tanh.signal_ratio(
            q[:-1], q[1:] / net.gain**2, z.shape[-1], start, FALSE_ALARM, net.gain
        ),
        "gradient": plain_tanh.gradient_ratio(z, d, FALSE_ALARM, net.gain),
    }
    return [
        Check(
            f"{name}: the length of the {what} changes through all layers as its law says",
            observed=ratio,
            expected=0.0,
            bound=1.0,
            source=f"{bound} (isometry.common.laws.plain_tanh), of the worst of {PROBES} images",
            unit="bound",
            false_alarm=FALSE_ALARM,
        )
        for (what, ratio), bound in zip(
            ratios.items(), ("Chernoff's bound", "Freedman's inequality"), strict=True
        )
    ]


# --- in words -----------------------------------------------------------------------------------


def _peak_memory() -> float:
    """Return the largest memory that the process has held, in MiB; NaN where nobody counts it."""
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _finding(quantities: dict[str, Quantity], names: Sequence[str], depth: int, width: int) -> str:
    def last(name: str) -> float:
        return float(quantities[name].values[-1])

    text = (
        f"A plain tanh network of {depth} layers, {width} units wide, fits "
        f"{last('accuracy/critical'):.1%} of the digits it is trained on and "
        f"{last('test_accuracy/critical'):.1%} of others, at "
        f"{last('seconds_per_step/critical'):.2g} s a step; its signal keeps "
        f"{last('signal/critical') / quantities['signal/critical'].values[0]:.2f} of its squared "
        f"length ({last('signal/critical/theory') * depth:.2f} / depth predicted)."
    )
    if "linear" in names:
        gain = last("accuracy/critical") - last("accuracy/linear")
        unseen = last("test_accuracy/critical") - last("test_accuracy/linear")
        text += (
            f" Without tanh the same weights reach {last('accuracy/linear'):.1%}: so near the "
            f"linear net the nonlinearity adds {100 * gain:+.1f} points, {100 * unseen:+.1f} on "
            "unseen images."
        )
    for name in names:
        if name != "linear":
            text += f" {name.capitalize()}: {_ladder(quantities, name)}."
    if "accuracy/convolutional" in quantities:
        layers = int(last("depth/convolutional")) - 1
        text += (
            f" {layers} convolutional layers with delta-orthogonal kernels reach "
            f"{last('accuracy/convolutional'):.1%}."
        )
    return text


def _ladder(quantities: dict[str, Quantity], name: str) -> str:
    pairs = list(
        zip(quantities[f"depth/{name}"].values, quantities[f"accuracy/{name}"].values, strict=True)
    )
    listed = ", ".join(f"{accuracy:.1%} at {layers} layers" for layers, accuracy in pairs)
    failed = [layers for layers, accuracy in pairs if accuracy < LOST]
    return listed + (f", fails from {failed[0]} on" if failed else ", does not fail")
