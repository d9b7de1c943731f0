"""What does each remedy change, layer by layer, in the same dying net?

A ReLU net whose weights are a fraction of He's: the signal shrinks from layer to layer, and so does
the gradient on its way back. Each remedy that changes the net (`isometry.common.networks.remedies`)
is switched on alone, nothing is trained, and the root mean squares of the preactivations z_1 .. z_L
and of the gradients in the signals h_1 .. h_{L-1} are taken layer by layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.laws import propagation
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.passes import Runner
from isometry.common.networks.remedies import REMEDIES
from isometry.common.networks.training import CLASSES, PIXELS
from isometry.common.results import Check, Quantity
from isometry.common.statistics.rounding import gamma
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["run"]

FALSE_ALARM = 1e-9
NETS = {"nothing": REMEDIES["nothing"]} | {
    # dropout alone changes no mean square
    name: remedy
    for name, remedy in REMEDIES.items()
    if remedy.changes_network and name != "dropout"
}


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depth: int = 20,
    gain: float = 0.5,
    networks: int = 6,
    examples: int = 32,
) -> Findings:
    """Switch remedies on one at a time in a net that dies, and look at every layer.

    Parameters
    ----------
    depth : int
        Number of layers, at least 3; the last gives 10 logits.
    gain : float
        Standard deviation of the weights, over that of He's.
    networks : int
        Independent nets of each kind.
    examples : int
        Digits in the batch, at least 2.
    """
    checks.integer("depth", depth, low=3, high=10**4)
    checks.finite("gain", gain, low=0.0, open_low=True)
    checks.integer("networks", networks, low=1, high=10**4)
    checks.integer("examples", examples, low=2, high=1797)
    images = digits()[0][:examples].astype(np.float64)
    x = images * 8 / np.linalg.norm(images, axis=1, keepdims=True)
    stream = nx.stream(seed)
    quantities: dict[str, Quantity] = {}
    found: list[Check] = []
    for k, (name, remedy) in enumerate(NETS.items()):
        tell(k, len(NETS), name)
        scale = 1.0 if remedy.he else gain
        network = FullyConnected(
            (*[PIXELS] * depth, CLASSES), "relu", VarianceScaling(scale * 2**0.5), **remedy.options
        )
        runner = Runner(nx, network, nx.asarray(x), "float64")
        forward, backward = [], []
        for _ in range(networks):
            parameters = network.initialize(nx, stream, dtype="float64")
            forward.append(runner.preactivations(parameters))
            backward.append(runner.gradients(parameters, stream, "nudge"))
        quantities |= {
            f"signal/{name}": Quantity(_sizes(forward)),
            f"gradient/{name}": Quantity(_sizes(backward)),
        }
        if not remedy.options:
            found += _totals(name, scale, x, forward, backward)
        if name == "SkipInit":
            found.append(_unchanged(nx.to_numpy(parameters["stack0/weight"]), x, forward[-1]))
    tell(len(NETS), len(NETS), "done")
    return Findings(quantities, tuple(found), _finding(quantities, depth, gain))


def _sizes(nets: list[list[np.ndarray]]) -> np.ndarray:
    """Return the root mean squares (networks, layers)."""
    return np.array([[math.sqrt(np.mean(np.square(a))) for a in net] for net in nets])


def _totals(
    name: str,
    scale: float,
    x: np.ndarray,
    forward: list[list[np.ndarray]],
    backward: list[list[np.ndarray]],
) -> list[Check]:
    """Check the log-norms of an example over all layers of plain ReLU nets: an exact law."""
    depth = len(forward[0])
    variance = 2 * scale**2 / PIXELS
    hidden = propagation.forward_laws("relu", [PIXELS] * depth, [variance] * (depth - 1))
    step = propagation.growth("relu", variance, PIXELS)
    # the gradient in z_l: that in h_l where z_l is above 0
    inner = [
        [g[0] * (z[0] > 0) for g, z in zip(*net, strict=False)]
        for net in zip(backward, forward, strict=True)
    ]
    cases = (
        (
            "signal",
            [_log_ratio(z[-1][0], x[0]) for z in forward],
            [*hidden, propagation.growth("linear", variance, CLASSES)],
        ),
        ("gradient", [_log_ratio(d[0], d[-1]) for d in inner], [step] * (depth - 2)),
    )
    return [
        Check(
            f"{name}: growth of the {what}'s squared norm over all layers",
            observed=float(np.mean(values)),
            expected=sum(law.mean for law in laws),
            bound=propagation.mean_bound(laws, len(values), FALSE_ALARM),
            source="exact sum of independent log chi-squares; Chernoff's bound "
            "(isometry.common.laws.propagation)",
            unit="nat",
            false_alarm=FALSE_ALARM,
        )
        for what, values, laws in cases
    ]


def _log_ratio(end: np.ndarray, start: np.ndarray) -> float:
    return math.log(float(end @ end) / float(start @ start))


def _unchanged(weights: np.ndarray, x: np.ndarray, z: list[np.ndarray]) -> Check:
    """Check that SkipInit, begun at alpha = 0, hands the input itself to every layer."""
    worst = max(
        float(np.max(np.abs(a - x @ W.T) / (np.abs(x) @ np.abs(W).T)))
        for a, W in zip(z, weights, strict=False)
    )
    return Check(
        "SkipInit: every layer is given the input itself: largest error over |W| |x|",
        observed=worst,
        expected=0.0,
        bound=gamma(PIXELS + 2, "float64"),
        source="h_l = h_{l-1} + 0 phi(z_l) (De and Smith 2020); gamma_(n+2) |W| |x| (Higham 2002, "
        "section 3.5)",
    )


def _finding(quantities: dict[str, Quantity], depth: int, gain: float) -> str:
    def change(name: str) -> str:
        signal, gradient = (
            np.sqrt(np.mean(np.square(quantities[f"{what}/{name}"].values), axis=0))
            for what in ("signal", "gradient")
        )
        return f"{name} {signal[-1] / signal[0]:.2g} and {gradient[0] / gradient[-1]:.2g}"

    return (
        f"In a ReLU net of {depth} layers with {gain:g} times He's weights the preactivations "
        "change from the first layer to the last, and the signal's gradient from the last to the "
        f"first, by the factors {'; '.join(change(name) for name in NETS)}."
    )
