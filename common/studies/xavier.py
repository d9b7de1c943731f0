"""How do signal and gradient survive fifty layers under each initializer?

Random nets ``h_l = phi(W_l h_{l-1})`` of two stages, the second half as wide as the first, are run
forward from a fixed input and backward from a random linear functional v of the output, one
vector-Jacobian product per layer. LeCun's rule keeps the forward variance of a linear net, Xavier's
shares the loss where the width changes between both directions, He's keeps a ReLU net, and
N(0, 0.01**2) dies.

The variance per layer is reported as its geometric mean over nets, that is on the log scale. The
average of raw variances would be ruled by rare large nets: by Jensen's inequality the logarithm
lies below the logarithm of the expectation that Glorot, Bengio and He compute, by about half the
variance of the log-norm, 5/(2n) nats a layer for ReLU. Both are in the result: ``theory/mean``, the
expectation, and ``theory/typical``, the exact expected logarithm. Laws and bounds are those of
:mod:`isometry.common.laws.propagation`; everything is computed in float64, since N(0, 0.01**2)
passes below the smallest float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.laws import propagation
from isometry.common.laws.distributions import Normal
from isometry.common.laws.initializers import Initializer, initializer
from isometry.common.results import Check, Quantity
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["RULES", "run"]

Array = Any

RULES: dict[str, Initializer] = {
    "lecun_normal": initializer("lecun_normal"),
    "xavier_normal": initializer("xavier_normal"),
    "he_normal": initializer("he_normal"),
    "normal_0.01": Normal(0.0, 0.01),
}
"""Gaussian rules: for them the laws of the log-norm are exact."""

FALSE_ALARM = 1e-9
LAWS = "isometry.common.laws.propagation"


@dataclass(frozen=True)
class Trace:
    """What one pass forward and backward left, as NumPy arrays (networks, width), by layer."""

    signals: list[np.ndarray]  # h_0 .. h_L
    gradients: list[np.ndarray]  # g_0 .. g_L
    deltas: list[np.ndarray]  # d_1 .. d_L, gradients with respect to z_l


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depth: int = 50,
    width: int = 256,
    networks: int = 8,
    initializers: str = "lecun_normal,xavier_normal,he_normal,normal_0.01",
) -> Findings:
    """Propagate through random nets and compare every layer with its law.

    Parameters
    ----------
    depth : int
        Number of layers, at least 2.
    width : int
        Units per layer in the first half, at least 128; the second half has half as many.
    networks : int
        Independent random nets per initializer, at least 2.
    initializers : str
        Comma-separated names out of lecun_normal, xavier_normal, he_normal, normal_0.01.
    """
    checks.integer("depth", depth, low=2, high=10**5)
    checks.integer("width", width, low=128, high=10**5)
    checks.integer("networks", networks, low=2, high=10**5)
    rules = [
        checks.choice("initializer", name.strip(), tuple(RULES)) for name in initializers.split(",")
    ]
    widths = [width] * (depth // 2 + 1) + [width // 2] * (depth - depth // 2)
    stream = nx.stream(seed)
    quantities = {"layer": Quantity(np.arange(depth + 1), "layer")}
    found: list[Check] = []
    worst: dict[tuple[str, str], float] = {}
    for k, rule in enumerate(rules):
        weights, variances = _draw(nx, stream, rule, widths, networks)
        for j, activation in enumerate(propagation.ACTIVATIONS):
            tell(k * 3 + j, 3 * len(rules), f"{rule}, {activation}")
            trace = _propagate(nx, stream, weights, activation, networks)
            name = f"{activation}/{rule}"
            quantities |= _curves(name, trace, activation, widths, variances)
            if activation != "tanh":
                found += _totals(name, trace, activation, widths, variances)
            level = FALSE_ALARM / (len(rules) * depth)
            for direction, ratio in (
                ("forward", _forward_ratio(trace, activation, widths, variances, level)),
                ("backward", _backward_ratio(trace, variances, level)),
            ):
                worst[direction, activation] = max(worst.get((direction, activation), 0.0), ratio)
    found += [_worst_layer(*key, ratio) for key, ratio in worst.items()]
    tell(3 * len(rules), 3 * len(rules), "done")
    return Findings(quantities, tuple(found), _finding(quantities, rules, depth))


def _draw(
    nx: Backend, stream: Stream, rule: str, widths: Sequence[int], networks: int
) -> tuple[list[Array], list[float]]:
    """Return W_l as (networks, n_l, n_{l-1}), each net drawn on its own, and their variances."""
    weights, variances = [], []
    for n_in, n_out in itertools.pairwise(widths):
        shape = (n_out, n_in)
        variances.append(RULES[rule].resolve(shape, "out_in").moments[1])  # type: ignore[attr-defined]
        drawn = [
            nx.initialize(RULES[rule], shape, stream, dtype="float64") for _ in range(networks)
        ]
        weights.append(nx.ops.stack(drawn))
    return weights, variances


def _propagate(
    nx: Backend, stream: Stream, weights: Sequence[Array], activation: str, networks: int
) -> Trace:
    """Run forward from ones and backward from v ~ N(0, I), keeping every layer.

    Any fixed input of the same norm has the same law, Gaussian weights being isotropic.
    """
    phi = {"linear": lambda z: 1.0 * z, "relu": nx.relu, "tanh": nx.tanh}[activation]
    h = nx.ops.ones((networks, nx.shape_of(weights[0])[2], 1), dtype="float64")
    signals, pullbacks = [_flat(nx, h)], []
    for W in weights:
        z, through_weight = nx.vjp(_linear(nx, W), h)
        h, through_phi = nx.vjp(phi, z)
        signals.append(_flat(nx, h))
        pullbacks.append((through_weight, through_phi))
    g = stream.normal(nx.shape_of(h), dtype="float64")
    gradients, deltas = [_flat(nx, g)], []
    for through_weight, through_phi in reversed(pullbacks):
        delta = through_phi(g)
        g = through_weight(delta)
        deltas.append(_flat(nx, delta))
        gradients.append(_flat(nx, g))
    return Trace(signals, gradients[::-1], deltas[::-1])


def _linear(nx: Backend, W: Array) -> Callable[[Array], Array]:
    return lambda h: nx.ops.matmul(W, h)


def _flat(nx: Backend, x: Array) -> np.ndarray:
    return nx.to_numpy(x)[:, :, 0]


def _log_variance(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over nets of ``ln(||h||**2 / n)``, layer by layer; -inf where all died."""
    with np.errstate(divide="ignore"):
        return np.array([np.log(np.square(h).mean(axis=1)).mean() for h in layers])


def _curves(
    name: str,
    trace: Trace,
    activation: str,
    widths: Sequence[int],
    variances: Sequence[float],
) -> dict[str, Quantity]:
    curves = {}
    mean = propagation.second_moments(activation, widths, variances)
    for k, (direction, layers) in enumerate(
        (("forward", trace.signals), ("backward", trace.gradients))
    ):
        curves[f"{direction}/{name}"] = Quantity(np.exp(_log_variance(layers)))
        curves[f"{direction}/{name}/theory/mean"] = Quantity(mean[k])
        if activation != "tanh":
            typical = propagation.expected_log_variances(activation, widths, variances)
            curves[f"{direction}/{name}/theory/typical"] = Quantity(np.exp(typical[k]))
    return curves


def _totals(
    name: str,
    trace: Trace,
    activation: str,
    widths: Sequence[int],
    variances: Sequence[float],
) -> list[Check]:
    """Compare what the whole net did to the log-norm with its exact law."""
    expected = propagation.expected_log_variances(activation, widths, variances)
    forward = propagation.forward_laws(activation, widths, variances)
    backward = propagation.backward_laws(activation, widths, variances)
    return [
        Check(
            f"{name}: {what}",
            observed=float(_log_variance([values])[0]),
            expected=float(exact),
            bound=propagation.mean_bound(laws, len(values), FALSE_ALARM),
            source=f"exact sum of independent log chi-squares, Chernoff's bound ({LAWS})",
            unit="nat",
            false_alarm=FALSE_ALARM,
        )
        for what, values, exact, laws in (
            ("log variance of the signal after the last layer", trace.signals[-1],
             expected[0][-1], forward),
            ("log variance of the gradient at the input", trace.gradients[0],
             expected[1][0], backward),
        )
    ]  # fmt: skip


def _forward_ratio(
    trace: Trace,
    activation: str,
    widths: Sequence[int],
    variances: Sequence[float],
    level: float,
) -> float:
    """Return the largest deviation of a layer's step forward from its law, in units of its bound.

    Linear and ReLU: the growth of the log-norm. Tanh: ``sum ||h_l||**2`` over nets, given the
    layer before.
    """
    worst = 0.0
    for before, after, variance in zip(trace.signals, trace.signals[1:], variances, strict=False):
        networks, width = after.shape
        norms = np.square(before).sum(axis=1)
        if activation == "tanh":
            mean, bound = propagation.tanh_sum_bound(variance * norms, width, level)
            deviation = np.square(after).sum() - mean
        else:
            law = propagation.growth(activation, variance, width)
            bound = propagation.mean_bound([law], networks, level)
            with np.errstate(divide="ignore"):
                deviation = np.log(np.square(after).sum(axis=1) / norms).mean() - law.mean
        worst = max(worst, _ratio(deviation, bound))
    return worst


def _backward_ratio(trace: Trace, variances: Sequence[float], level: float) -> float:
    """Return the largest deviation of a layer's step backward, in units of its bound.

    ``ln(||P g_{l-1}||**2 / ||d_l||**2)``, P removing the direction of h_{l-1}, against
    ``ln(s_l**2 chi2_{n_{l-1} - 1})``: exact for every activation.
    """
    worst = 0.0
    for h, g, delta, variance in zip(
        trace.signals, trace.gradients, trace.deltas, variances, strict=False
    ):
        unit = h / np.linalg.norm(h, axis=1, keepdims=True)
        across = g - unit * np.sum(unit * g, axis=1, keepdims=True)
        law = propagation.growth("linear", variance, h.shape[1] - 1)
        bound = propagation.mean_bound([law], len(h), level)
        with np.errstate(divide="ignore"):
            grown = np.log(np.square(across).sum(axis=1) / np.square(delta).sum(axis=1))
        worst = max(worst, _ratio(grown.mean() - law.mean, bound))
    return worst


def _ratio(deviation: float, bound: float) -> float:
    """Return |deviation| / bound, or infinity for a NaN, which max() would overlook."""
    return math.inf if math.isnan(deviation) else abs(float(deviation)) / bound


def _worst_layer(direction: str, activation: str, ratio: float) -> Check:
    source = {
        ("forward", "linear"): "ln(s**2 chi2_n)",
        ("forward", "relu"): "ln(s**2 chi2_K), K ~ Binomial(n, 1/2)",
        ("forward", "tanh"): "sum of tanh(N(0, s**2 ||h||**2))**2 given the layer before, exact at "
        "any width; cumulants by Gauss-Hermite quadrature",
    }.get(
        (direction, activation),
        "ln(s**2 chi2_(n-1)) orthogonally to the signal, given the forward pass",
    )
    return Check(
        f"{activation}: each layer's step {direction} follows its law, under every initializer",
        observed=ratio,
        expected=0.0,
        bound=1.0,
        source=f"{source}; Chernoff's bound, shared by the layers ({LAWS})",
        unit="bound",
        false_alarm=FALSE_ALARM,
    )


def _finding(quantities: dict[str, Quantity], rules: Sequence[str], depth: int) -> str:
    def at(name: str, layer: int) -> str:
        return f"{float(quantities[name].values[layer]):.2g}"

    parts = [
        f"{rule}: signal x {', '.join(at(f'forward/{a}/{rule}', -1) for a in acts)}, gradient x "
        f"{', '.join(at(f'backward/{a}/{rule}', 0) for a in acts)}"
        for acts in [propagation.ACTIVATIONS]
        for rule in rules
    ]
    text = (
        f"Variance after {depth} layers as a multiple of where it started, typical (geometric mean "
        f"over nets), for linear, ReLU and tanh nets. {'; '.join(parts)}."
    )
    if "he_normal" in rules:
        text += (
            " He keeps the expectation of a ReLU net at "
            f"{at('forward/relu/he_normal/theory/mean', -1)}, yet its typical net at "
            f"{at('forward/relu/he_normal/theory/typical', -1)}: at finite width depth costs "
            "5/(2n) nats a layer."
        )
    return text
