"""What does each layer of a deep net do to the signal, and to the gradient that comes back?

Digits, each scaled to squares of mean 1, run through random fully connected nets, and a random
linear functional of the output is differentiated. Layer by layer: mean and second moment of h_l,
histogram of ``h_l / rms h_l``, the share of units that are dead (their activation has derivative 0
for every example) and of values that are saturated (derivative below 5 % of its largest), the
cosine between two inputs, the variance of the gradients in z_l and in W_l; and how far a few steps
of gradient descent move each W_l. Beside them stands mean-field theory
(:mod:`isometry.common.laws.signals`), the limit of infinite width.

What is checked holds at this width (:mod:`isometry.common.laws.propagation`). With Gaussian weights
and whatever activation, normalization and shortcut, ``z_l = W_l h_{l-1} + b_l`` given h_{l-1} has
``||z_l||**2 ~ s_l**2 ||(h_{l-1}, s_b / s_l)||**2 chi2_n``, b_l being one more column; and so has,
independently, what a second input adds across the first: the law of the cosine's step. In a plain
net the gradient in h_{l-1} across all examples' signals has the same law. For linear and ReLU nets
the log-norms of signal and gradient after all layers are sums of independent terms, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.laws import propagation, signals
from isometry.common.laws.distributions import Distribution, Normal
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.initializers import INITIALIZERS, Orthogonal
from isometry.common.laws.mean_field import ACTIVATIONS as REFERENCES
from isometry.common.networks.activations import ACTIVATIONS
from isometry.common.networks.fully_connected import NORMS, PLACES, FullyConnected
from isometry.common.networks.passes import Pass, Runner
from isometry.common.results import Check, Quantity
from isometry.common.statistics.rounding import gamma
from isometry.common.statistics.tolerances import TANH_ULP
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["EDGES", "SHORTCUTS", "run"]

Array = Any

FALSE_ALARM = 1e-9
CLASSES = 10
EDGES = np.linspace(-4, 4, 42)  # of the histograms, in root mean squares of the layer
SHORTCUTS = ("residual", "dense")
SATURATED = 0.05
CHERNOFF = "Chernoff's bound (isometry.common.laws.propagation)"


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
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
    rate: float = 0.05,
    dtype: str = "float64",
) -> Findings:
    """Follow signal and gradient through a net, layer by layer.

    Parameters
    ----------
    depth : int
        Number of layers, at least 2; the last gives 10 logits.
    width : int
        Units of each hidden layer, at least 64.
    activation : str
        linear, relu, leaky_relu, tanh or sigmoid.
    initializer : str
        Name of the weights' initializer.
    bias : float
        Standard deviation of the biases; 0 for a net without.
    normalization : str
        none, batch, layer or rms.
    place : str
        Where it stands: preactivation or activation.
    shortcut : str
        none, residual or dense.
    networks : int
        Independent nets.
    examples : int
        Digits in the batch, at least 2.
    steps : int
        Steps of gradient descent on the cross-entropy of the batch.
    rate : float
        Learning rate of these steps.
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
    checks.choice("activation", activation, tuple(ACTIVATIONS))
    checks.choice("initializer", initializer, tuple(INITIALIZERS))
    checks.choice("normalization", normalization, ("none", *NORMS))
    checks.choice("place", place, PLACES)
    checks.choice("shortcut", shortcut, ("none", *SHORTCUTS))
    network = FullyConnected(
        (64, *[width] * (depth - 1), CLASSES),
        activation=activation,
        initializer=initializer,
        bias=Normal(0.0, bias) if bias else None,
        normalization=None if normalization == "none" else normalization,
        place=place,
        shortcut=None if shortcut == "none" else shortcut,
    )
    x, targets = _batch(examples)
    stream = nx.stream(seed)
    runner = Runner(nx, network, nx.asarray(x.astype(dtype)), dtype)
    passes = []
    for k in range(networks):
        tell(k, networks + 1, f"net {k + 1} of {networks}")
        parameters = network.initialize(nx, stream, dtype=dtype)
        passes.append(runner.propagate(parameters, stream))
    tell(networks, networks + 1, f"{steps} steps of gradient descent")
    distance = runner.train(parameters, nx.asarray(targets.astype(dtype)), steps, rate)
    quantities = _curves(network, passes) | {"distance": Quantity(distance)}
    theory = _theory(network, bias, x)
    quantities |= theory
    found = _checks(network, passes, bias, dtype)
    tell(networks + 1, networks + 1, "done")
    return Findings(quantities, found, _finding(network, quantities, found, steps, rate))


def _batch(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return digits of squared norm 64, and their classes as rows of the identity."""
    images, labels = digits()
    x = images[:examples].astype(np.float64)
    x *= 8 / np.linalg.norm(x, axis=1, keepdims=True)
    return x, np.eye(CLASSES)[labels[:examples]]


# --- what is measured ----------------------------------------------------------------------------


def _curves(network: FullyConnected, passes: Sequence[Pass]) -> dict[str, Quantity]:
    """Return averages over the nets, layer by layer."""

    def average(f: Any, attribute: str) -> np.ndarray:
        rows = [[f(a) for a in getattr(p, attribute)] for p in passes]
        return np.asarray(np.mean(rows, axis=0))

    slope = REFERENCES[str(network.activation)].slope
    largest = float(slope(np.linspace(-1, 1, 3)).max())
    return {
        "layer": Quantity(np.arange(network.depth + 1), "layer", ulp=0),
        "mean": Quantity(average(np.mean, "signals")),
        "variance": Quantity(average(np.var, "signals")),
        "second moment": Quantity(average(lambda h: np.mean(h * h), "signals")),
        "histogram": Quantity(average(_histogram, "signals")),
        "dead": Quantity(average(lambda u: np.mean((slope(u) == 0).all(axis=0)), "inner")),
        "saturated": Quantity(average(lambda u: np.mean(slope(u) < SATURATED * largest), "inner")),
        "cosine": Quantity(average(_cosine, "signals")),
        "gradient variance": Quantity(average(np.var, "gradients")),
        "weight gradient variance": Quantity(average(np.var, "moved")),
    }


def _histogram(h: np.ndarray) -> np.ndarray:
    """Return the share of values in each bin of `EDGES`; what lies beyond is in the outermost."""
    size = math.sqrt(np.mean(h * h)) or 1.0
    counts, _ = np.histogram(np.clip(h / size, EDGES[0], EDGES[-1]), EDGES)
    return np.asarray(counts / h.size)


def _cosine(h: np.ndarray) -> float:
    size = float(np.linalg.norm(h[0]) * np.linalg.norm(h[1]))
    return float(h[0] @ h[1]) / size if size else math.nan


def _variances(network: FullyConnected) -> list[float] | None:
    """Return s_l**2 of each layer, or None if the initializer's entries have no one variance."""
    found = []
    for stack in network.stacks:
        law = INITIALIZERS[str(network.initializer)].resolve((stack.n_out, stack.n_in), "out_in")
        if isinstance(law, Distribution) and law.moments[0] == 0:
            variance = law.moments[1]
        elif isinstance(law, Orthogonal):
            variance = law.gain**2 / max(stack.n_out, stack.n_in)
        else:
            return None
        found += [variance] * stack.count
    return found


def _theory(network: FullyConnected, bias: float, x: np.ndarray) -> dict[str, Quantity]:
    """Return mean-field theory, for nets without normalization and without dense shortcuts."""
    variances = _variances(network)
    if variances is None or network.normalization or network.shortcut == "dense":
        return {}
    found = signals.propagate(
        str(network.activation),
        network.widths,
        variances,
        bias=bias**2,
        cosine=_cosine(x),
        mean=float(x[:2].mean()),
        residual=network.shortcut == "residual",
    )
    return {
        "theory/second moment": Quantity(found.second),
        "theory/cosine": Quantity(found.cosine),
        "theory/gradient variance": Quantity(found.gradient),
    }


# --- what is checked -----------------------------------------------------------------------------


def _checks(
    network: FullyConnected, passes: Sequence[Pass], bias: float, dtype: str
) -> tuple[Check, ...]:
    found = [_products(passes, dtype)]
    laws = [
        INITIALIZERS[str(network.initializer)].resolve((s.n_out, s.n_in), "out_in")
        for s in network.stacks
    ]
    plain = not network.normalization and not network.shortcut
    if all(isinstance(law, Normal) and law.moments[0] == 0 < law.moments[1] for law in laws):
        variances = _variances(network) or []
        found += _forward_steps(passes, variances, bias, dtype)
        if plain and network.activation != "relu":
            found += _backward_steps(network, passes, variances)
        if plain and network.activation in ("linear", "relu") and bias == 0:
            found += _totals(network, passes, variances)
    if all(isinstance(law, Orthogonal) for law in laws) and bias == 0:
        found.append(_isometry(network, passes, dtype))
    return tuple(found)


def _products(passes: Sequence[Pass], dtype: str) -> Check:
    """Compare each z_l with W_l h_{l-1} in float64."""
    worst = 0.0
    for p in passes:
        for W, b, h, error, z in zip(
            p.weights, p.biases, p.signals, p.errors, p.preactivations, strict=False
        ):
            size, n = np.abs(W).T, W.shape[1]
            bound = gamma(n + 2, dtype) * (np.abs(h) @ size + np.abs(b)) + error @ size
            tiny = n * FORMATS[dtype].smallest_normal
            worst = max(worst, _share(z - (h @ W.T + b), bound + tiny))
    return Check(
        "every layer is W h + b of the reference's signal h: largest share of the bound",
        observed=worst,
        expected=0.0,
        bound=1.0,
        source="W h + b in float64; gamma_(n+2) (|W| |h| + |b|) (Higham 2002, section "
        "3.5) and the contract's bounds of activation and normalization, times |W|",
        unit="bound",
    )


def _share(deviation: Any, bound: Any) -> float:
    """Return the largest |deviation| / bound, infinite for a NaN, which max() would overlook."""
    share = np.max(np.abs(deviation) / bound)
    return math.inf if math.isnan(share) else float(share)


def _law_check(claim: str, ratios: Sequence[tuple[np.ndarray, float, int]], source: str) -> Check:
    """Check means of log ratios against ``ln(s**2 chi2_K)``: (ratios, s**2, K) for each layer."""
    level, worst = FALSE_ALARM / max(1, len(ratios)), 0.0
    for values, scale, degrees in ratios:
        law = propagation.growth("linear", scale, degrees)
        bound = propagation.mean_bound([law], values.size, level)
        worst = max(worst, _share(np.log(values).mean() - law.mean, bound))
    return Check(
        claim,
        observed=worst,
        expected=0.0,
        bound=1.0,
        source=f"{source}; {CHERNOFF}, shared by the layers",
        unit="bound",
        false_alarm=FALSE_ALARM,
    )


def _forward_steps(
    passes: Sequence[Pass], variances: Sequence[float], bias: float, dtype: str
) -> list[Check]:
    """Check the length of one input, and what a second adds to it, given the layer before.

    Whether a net counts at a layer depends on the layer before alone, hence not on its weights:
    the signal must not be 0, and its part across that of the other must stand out of rounding.
    """
    resolved = 1e6 * float(FORMATS[dtype].ulp(np.array(1.0)))
    lengths: list[tuple[np.ndarray, float, int]] = []
    across: list[tuple[np.ndarray, float, int]] = []
    for layer, variance in enumerate(variances):
        grown: tuple[list[float], list[float]] = ([], [])
        for p in passes:
            extra = np.full(2, bias / math.sqrt(variance))
            h = np.column_stack([p.signals[layer][:2], extra])
            z = p.preactivations[layer][:2]
            size = float(h[0] @ h[0])
            if size > 0:
                grown[0].append(float(z[0] @ z[0]) / size)
                along = float(h[0] @ h[1]) / size
                rest = h[1] - along * h[0]
                if np.linalg.norm(rest) > resolved * np.linalg.norm(h[1]):
                    part = z[1] - along * z[0]
                    grown[1].append(float(part @ part) / float(rest @ rest))
        width = p.preactivations[layer].shape[1]
        for found, values in zip((lengths, across), grown, strict=True):
            if values:
                found.append((np.array(values), variance, width))
    given = "given the layer before, at any width and for any activation"
    return [
        _law_check(
            "each layer's step of the signal's length follows its law",
            lengths,
            f"ln(||z||**2 / ||h||**2) = ln(s**2 chi2_n) {given}",
        ),
        _law_check(
            "each layer's step of the second input across the first, the cosine's, follows its law",
            across,
            f"ln(s**2 chi2_n) of the part of h' across h, independent of z {given}",
        ),
    ]


def _backward_steps(
    network: FullyConnected, passes: Sequence[Pass], variances: Sequence[float]
) -> list[Check]:
    """Check the gradient in h_{l-1} across all examples' signals, given the forward pass."""
    slope = REFERENCES[str(network.activation)].slope
    ratios = []
    for layer in range(1, network.depth):
        width, examples = passes[0].weights[layer].shape[1], len(passes[0].signals[0])
        if width <= examples:
            continue
        values = []
        for p in passes:
            g = p.gradients[layer - 1][0] / slope(p.inner[layer - 1][0])
            span, _ = np.linalg.qr(p.signals[layer].T)
            part = g - span @ (span.T @ g)
            values.append(float(part @ part) / float(np.sum(np.square(p.gradients[layer][0]))))
        ratios.append((np.array(values), variances[layer], width - examples))
    if not ratios:
        return []
    return [
        _law_check(
            "each layer's step of the gradient across the signals follows its law",
            ratios,
            "ln(s**2 chi2_(n - examples)), given the forward pass (Bayati and Montanari 2011, "
            "lemma 10), for any activation",
        )
    ]


def _totals(
    network: FullyConnected, passes: Sequence[Pass], variances: Sequence[float]
) -> list[Check]:
    """Check the log-norms after all layers; the last has no activation."""
    activation, n = str(network.activation), network.widths
    hidden = propagation.forward_laws(activation, n[:-1], variances[:-1])
    forward = [*hidden, propagation.growth("linear", variances[-1], n[-1])]
    backward = [
        propagation.growth(activation, s, width)
        for s, width in zip(variances[1:], n[1:-1], strict=True)
    ]

    def log_ratio(end: np.ndarray, start: np.ndarray) -> float:
        return math.log(float(end @ end) / float(start @ start))

    return [
        Check(
            f"{what} over all layers",
            observed=float(np.mean(values)),
            expected=sum(law.mean for law in laws),
            bound=propagation.mean_bound(laws, len(passes), FALSE_ALARM),
            source=f"exact sum of independent log chi-squares; {CHERNOFF}",
            unit="nat",
            false_alarm=FALSE_ALARM,
        )
        for what, values, laws in (
            (
                "growth of ln ||h||**2",
                [log_ratio(p.signals[-1][0], p.signals[0][0]) for p in passes],
                forward,
            ),
            (
                "growth of ln ||dL/dz||**2 from the last to the first",
                [log_ratio(p.gradients[0][0], p.gradients[-1][0]) for p in passes],
                backward,
            ),
        )
    ]


def _isometry(network: FullyConnected, passes: Sequence[Pass], dtype: str) -> Check:
    """Check that orthogonal layers of no fewer outputs than inputs keep every length."""
    gain = INITIALIZERS[str(network.initializer)].gain  # type: ignore[attr-defined]
    worst, most = 0.0, 0
    for p in passes:
        for W, h, z in zip(p.weights, p.signals, p.preactivations, strict=False):
            n_out, n_in = W.shape
            if n_out >= n_in:
                ratio = np.linalg.norm(z, axis=1) / (gain * np.linalg.norm(h, axis=1))
                worst, most = max(worst, _share(ratio - 1, 1.0)), max(most, n_out)
    eps = float(FORMATS[dtype].ulp(np.array(1.0)))
    return Check(
        "every layer with orthogonal weights keeps every length: largest relative change",
        observed=worst,
        expected=0.0,
        bound=30 * most * eps
        + math.sqrt(most) * gamma(most + 2, dtype)
        + 2e3 * TANH_ULP[dtype] * eps,
        source="||W h|| = ||h|| for W^T W = I; qr is right to 30 n eps, the product to gamma_(n+2) "
        "|W| |h| (isometry.common.ops; Higham 2002, section 3.5)",
    )


# --- in words ------------------------------------------------------------------------------------


def _finding(
    network: FullyConnected,
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
    last = network.depth - 1
    return (
        f"In a {network.activation} net of {network.depth} layers with {network.initializer} "
        f"weights the signal's second moment is {at('second moment', 1)} after the first layer and "
        f"{at('second moment', last)} after layer {last}; two digits of cosine "
        f"{float(quantities['cosine'].values[0]):.3g} arrive there with {at('cosine', last)}. The "
        f"gradient in a preactivation has variance {at('gradient variance', -1)} at the output and "
        f"{at('gradient variance', 0)} in the first layer. {exact}At most "
        f"{quantities['dead'].values.max():.1%} of a layer's units are dead and "
        f"{quantities['saturated'].values.max():.1%} of its values saturated. {steps} steps at "
        f"rate {rate:g} move the weights of a layer by {distance.min():.2g} to "
        f"{distance.max():.2g} of their norm."
    )
