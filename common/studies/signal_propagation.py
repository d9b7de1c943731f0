"""What does each layer of a deep net do to the signal, and to the gradient that comes back?

Digits run through random nets of any family (:mod:`isometry.common.networks.on_digits`), and a
random linear functional of the output is differentiated. Layer by layer, where a layer of a
recurrent net is a step: mean and second moment of h_l, histogram of ``h_l / rms h_l``, the share of
units that are dead (their activation has derivative 0 for every example) and of values that are
saturated (derivative below 5 % of its largest; of attention, a (1 - a) of its weights), the cosine
between two inputs, the variance of the gradients in z_l and in W_l; and how far a few steps against
the gradient move each W_l. Beside them stands, for fully connected, convolutional and plain
recurrent nets, mean-field theory (:mod:`isometry.common.laws.signals`), the limit of infinite
width.

What is checked holds at this width (:mod:`isometry.common.networks.pass_checks`): each layer's step
of the signal given what came before, each weight's gradient, and what can be said of all layers
together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import signals
from isometry.common.laws.orthogonal import DeltaOrthogonal
from isometry.common.networks import pass_checks
from isometry.common.networks.convolutional import Convolutional
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.on_digits import LAYER, Options, subject
from isometry.common.networks.passes import Runner
from isometry.common.networks.recurrent import Recurrent
from isometry.common.networks.unrolled import Unrolled
from isometry.common.results import Check, Quantity
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["EDGES", "run"]

Array = Any

EDGES = np.linspace(-4, 4, 42)  # of the histograms, in root mean squares of the layer
SATURATED = 0.05


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    family: str = "fully_connected",
    depth: int = 20,
    width: int = 128,
    activation: str = "relu",
    initializer: str = "he_normal",
    bias: float = 0.0,
    normalization: str = "none",
    place: str = "preactivation",
    shortcut: str = "none",
    networks: int = 6,
    examples: int = 32,
    steps: int = 10,
    rate: float = 0.01,
    dtype: str = "float64",
) -> Findings:
    """Follow signal and gradient through a net, layer by layer.

    Parameters
    ----------
    family : str
        fully_connected, convolutional, recurrent, lstm, attention, autoencoder or message_passing.
    depth : int
        Number of layers, steps or blocks, at least 2; the last layer of a fully connected or
        convolutional net gives 10 logits.
    width : int
        Units of each hidden layer, or channels, or features of a token or node; at least 64.
    activation : str
        linear, relu, leaky_relu, tanh or sigmoid. LSTM and attention have their own.
    initializer : str
        Name of the weights' initializer.
    bias : float
        Standard deviation of the biases; 0 for a net without.
    normalization : str
        none, batch, layer or rms; of attention none or layer, of other families none.
    place : str
        Where it stands: preactivation or activation; of attention, before or after the block.
    shortcut : str
        none, residual or dense; of attention none or residual, of other families none.
    networks : int
        Independent nets.
    examples : int
        Digits in the batch, at least 2.
    steps : int
        Steps against the gradient of the batch's loss.
    rate : float
        Length of each, as a share of the norm of all parameters: normalized gradient descent.
    dtype : str
        float32 or float64.
    """
    for name, value, low in (
        ("depth", depth, 2),
        ("width", width, 64),
        ("networks", networks, 1),
        ("examples", examples, 2),
        ("steps", steps, 1),
    ):
        checks.integer(name, value, low=low, high=10**5)
    checks.integer("examples", examples, high=1797)
    checks.finite("bias", bias, low=0.0)
    checks.finite("rate", rate, low=0.0, open_low=True)
    checks.choice("dtype", dtype, ("float32", "float64"))
    options = Options(
        family, depth, width, activation, initializer, normalization, place, shortcut, bias
    )
    net = subject(options, examples)
    stream = nx.stream(seed)
    inputs = tuple(nx.asarray(a.astype(dtype)) for a in net.inputs)
    runner = Runner(nx, net.network, inputs, dtype, net.criterion)
    curves, seen = [], []  # a pass itself may take hundreds of megabytes
    for k in range(networks):
        tell(k, networks + 1, f"net {k + 1} of {networks}")
        parameters = net.network.initialize(nx, stream, dtype=dtype)
        last = runner.propagate(parameters, stream)
        curves.append(_curves(last))
        for name in ("second moment", "gradient variance", "weight gradient variance"):
            if not np.isfinite(curves[-1][name]).all():
                raise InvalidArgument(
                    f"the {name} of {depth} layers overflows float64; take weights of smaller "
                    "scale, fewer layers or a normalization"
                )
        seen.append(pass_checks.measure(net.network, last, bias, dtype))
    tell(networks, networks + 1, f"{steps} steps against the gradient")
    targets = nx.asarray(net.targets.astype(dtype))
    distance = runner.train(parameters, last, targets, steps, rate)
    quantities = {"layer": Quantity(np.arange(len(last.layers) + 1), "layer", ulp=0)}
    for name in curves[0]:
        quantities[name] = Quantity(np.mean([found[name] for found in curves], axis=0))
    quantities["distance"] = Quantity(distance)
    quantities |= _theory(net.network, last, net.inputs[0], bias)
    found = pass_checks.judge(seen, dtype)
    tell(networks + 1, networks + 1, "done")
    return Findings(quantities, found, _finding(options, quantities, found, steps, rate))


# --- what is measured ----------------------------------------------------------------------------


def _curves(p: Unrolled) -> dict[str, np.ndarray]:
    """Return what is measured of a pass, layer by layer."""
    gradients = [layer[-1].gradients for layer in p.layers]
    moved = [np.concatenate([m.weight_gradient.ravel() for m in layer]) for layer in p.layers]
    curves: dict[str, list[Any]] = {
        "mean": [np.mean(h) for h in p.signals],
        "variance": [np.var(h) for h in p.signals],
        "second moment": [np.mean(h * h) for h in p.signals],
        "histogram": [_histogram(h) for h in p.signals],
        "dead": [np.mean((slope == 0).all(axis=0)) for slope in p.slopes],
        "saturated": [np.mean(slope < SATURATED) for slope in p.slopes],
        "cosine": [_cosine(h) for h in p.signals],
        "gradient variance": [np.var(g) for g in gradients],
        "weight gradient variance": [np.var(g) for g in moved],
    }
    return {name: np.array(values) for name, values in curves.items()}


def _histogram(h: np.ndarray) -> np.ndarray:
    """Return the share of values in each bin of `EDGES`; what lies beyond is in the outermost."""
    size = math.sqrt(np.mean(h * h)) or 1.0
    counts, _ = np.histogram(np.clip(h / size, EDGES[0], EDGES[-1]), EDGES)
    return np.asarray(counts / h.size)


def _cosine(h: np.ndarray) -> float:
    size = float(np.linalg.norm(h[0]) * np.linalg.norm(h[1]))
    return float(np.sum(h[0] * h[1])) / size if size else math.nan


def _theory(network: Any, p: Unrolled, x: np.ndarray, bias: float) -> dict[str, Quantity]:
    """Return mean-field theory, of the nets that it is known of."""
    variances = pass_checks.variances(p)
    if variances is None:
        return {}
    activation, spread = str(getattr(network, "activation", None)), bias**2
    if isinstance(network, FullyConnected):
        if network.normalization or network.shortcut == "dense":
            return {}
        found = signals.propagate(
            activation,
            network.widths,
            variances,
            bias=spread,
            cosine=_cosine(x),
            mean=float(x[:2].mean()),
            residual=network.shortcut == "residual",
        )
    elif isinstance(network, Convolutional):
        single = isinstance(p.maps[0].laws[0][0], DeltaOrthogonal)
        found = signals.propagate_images(
            activation,
            x,
            network.channels,
            variances,
            network.outputs,
            kernel=1 if single else network.kernel,
            padding=network.padding,
            bias=spread,
        )
    elif isinstance(network, Recurrent) and network.cell == "plain":
        shared = (variances[0], variances[1])
        found = signals.propagate_sequences(activation, x, network.units, shared, bias=spread)
    else:
        return {}
    theory = {
        "second moment": found.second,
        "cosine": found.cosine,
        "gradient variance": found.gradient,
    }
    return {f"theory/{name}": Quantity(values) for name, values in theory.items()}


# --- in words ------------------------------------------------------------------------------------


def _finding(
    options: Options,
    quantities: dict[str, Quantity],
    found: Sequence[Check],
    steps: int,
    rate: float,
) -> str:
    def at(name: str, layer: int) -> str:
        text = f"{float(quantities[name].values[layer]):.3g}"
        if f"theory/{name}" in quantities:
            text += f" (mean field {float(quantities[f'theory/{name}'].values[layer]):.3g})"
        return text

    distance = quantities["distance"].values
    exact = "".join(
        f"The mean {c.claim} is {c.observed:.3g}; at this width it is {c.expected:.3g}. "
        for c in found
        if c.unit == "nat"
    )
    last = len(quantities["layer"].values) - 2
    layer = LAYER.get(options.family, "layer")
    net = options.family.replace("_", " ").replace("lstm", "LSTM")
    if options.family not in ("lstm", "attention"):
        net = f"{options.activation} {net}"
    article = "an" if net[0] in "aL" else "a"
    units = {"attention": "attention weights", "lstm": "gates"}.get(options.family, "units")
    least, most = float(distance.min()), float(distance.max())
    moved = f"by {most:.2g}" if least == most else f"of each {layer} by {least:.2g} to {most:.2g}"
    return (
        f"In {article} {net} net of {options.depth} {layer}s with {options.initializer} weights "
        f"the signal's second moment is {at('second moment', 1)} after the first {layer} and "
        f"{at('second moment', last)} after {layer} {last}; two digits of cosine "
        f"{float(quantities['cosine'].values[0]):.3g} arrive there with {at('cosine', last)}. The "
        f"gradient in a preactivation has variance {at('gradient variance', -1)} at the output and "
        f"{at('gradient variance', 0)} in the first {layer}. {exact}At most "
        f"{quantities['dead'].values.max():.1%} of a {layer}'s {units} are dead and "
        f"{quantities['saturated'].values.max():.1%} of its values saturated. {steps} steps "
        f"against the gradient, each of {rate:.2g} of all parameters' norm, move the weights "
        f"{moved} of their norm."
    )
