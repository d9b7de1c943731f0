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

What is checked holds at this width (:mod:`isometry.common.laws.propagation`). In every family the
weights meet rows r, ``z = W r + b``: inputs, patches of images, a step's input beside the state,
tokens, what nodes hear. With Gaussian weights, whatever the activation, normalization and shortcut,
``||z||**2 ~ s**2 ||(r, s_b / s)||**2 chi2_n``, b being one more column; and so has, independently,
what each further row adds across those before it, of another input (the law of the cosine's step),
of another place, of a later step. The gradient in W is the sum of (gradient in z) r^T over rows,
whatever the weights. In a plain fully connected net the gradient in h_{l-1} across all examples'
signals has the same law; for linear and ReLU nets the log-norms of signal and gradient after all
layers are sums of independent terms, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.laws import propagation, signals
from isometry.common.laws.distributions import Distribution, Normal
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.mean_field import ACTIVATIONS as REFERENCES
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.networks.convolutional import Convolutional
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.on_digits import Options, subject
from isometry.common.networks.passes import Runner
from isometry.common.networks.recurrent import Recurrent
from isometry.common.networks.unrolled import LinearMap, Unrolled
from isometry.common.results import Check, Quantity
from isometry.common.statistics.rounding import gamma
from isometry.common.statistics.tolerances import TANH_ULP
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["EDGES", "run"]

Array = Any

FALSE_ALARM = 1e-9
EDGES = np.linspace(-4, 4, 42)  # of the histograms, in root mean squares of the layer
SATURATED = 0.05
CHERNOFF = "Chernoff's bound (isometry.common.laws.propagation)"


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
        Where it stands: preactivation or activation.
    shortcut : str
        none, residual or dense; of attention none or residual, of other families none.
    networks : int
        Independent nets.
    examples : int
        Digits in the batch, at least 2.
    steps : int
        Steps against the gradient of the batch's loss.
    rate : float
        Length of each, as a share of the norm of all parameters.
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
    passes = []
    for k in range(networks):
        tell(k, networks + 1, f"net {k + 1} of {networks}")
        parameters = net.network.initialize(nx, stream, dtype=dtype)
        passes.append(runner.propagate(parameters, stream))
    tell(networks, networks + 1, f"{steps} steps against the gradient")
    targets = nx.asarray(net.targets.astype(dtype))
    distance = runner.train(parameters, passes[-1], targets, steps, rate)
    quantities = _curves(passes) | {"distance": Quantity(distance)}
    quantities |= _theory(net.network, passes[0], net.inputs[0], bias)
    found = _checks(net.network, passes, bias, dtype)
    tell(networks + 1, networks + 1, "done")
    return Findings(quantities, found, _finding(options, quantities, found, steps, rate))


# --- what is measured ----------------------------------------------------------------------------


def _curves(passes: Sequence[Unrolled]) -> dict[str, Quantity]:
    """Return averages over the nets, layer by layer."""

    def average(f: Any, found: Any) -> Quantity:
        return Quantity(np.asarray(np.mean([[f(a) for a in found(p)] for p in passes], axis=0)))

    def signals(p: Unrolled) -> list[np.ndarray]:
        return p.signals

    def slopes(p: Unrolled) -> list[np.ndarray]:
        return p.slopes

    def gradients(p: Unrolled) -> list[np.ndarray]:
        return [layer[-1].gradients for layer in p.layers]

    def moved(p: Unrolled) -> list[np.ndarray]:
        return [np.concatenate([m.moved.ravel() for m in layer]) for layer in p.layers]

    return {
        "layer": Quantity(np.arange(len(passes[0].layers) + 1), "layer", ulp=0),
        "mean": average(np.mean, signals),
        "variance": average(np.var, signals),
        "second moment": average(lambda h: np.mean(h * h), signals),
        "histogram": average(_histogram, signals),
        "dead": average(lambda slope: np.mean((slope == 0).all(axis=0)), slopes),
        "saturated": average(lambda slope: np.mean(slope < SATURATED), slopes),
        "cosine": average(_cosine, signals),
        "gradient variance": average(np.var, gradients),
        "weight gradient variance": average(np.var, moved),
    }


def _histogram(h: np.ndarray) -> np.ndarray:
    """Return the share of values in each bin of `EDGES`; what lies beyond is in the outermost."""
    size = math.sqrt(np.mean(h * h)) or 1.0
    counts, _ = np.histogram(np.clip(h / size, EDGES[0], EDGES[-1]), EDGES)
    return np.asarray(counts / h.size)


def _cosine(h: np.ndarray) -> float:
    size = float(np.linalg.norm(h[0]) * np.linalg.norm(h[1]))
    return float(np.sum(h[0] * h[1])) / size if size else math.nan


def _variances(p: Unrolled) -> list[float] | None:
    """Return s**2 of the entries of each map's blocks, or None if a rule's have no one variance."""
    found = []
    for m in p.maps:
        for law, n_in in m.laws:
            if isinstance(law, Distribution) and law.moments[0] == 0:
                found.append(law.moments[1])
            elif isinstance(law, Orthogonal):
                found.append(law.gain**2 / max(len(m.weight) // m.gates, n_in))
            elif isinstance(law, DeltaOrthogonal):  # of the one tap that is not 0
                found.append(law.gain**2 / len(m.weight))
            else:
                return None
    return found


def _theory(network: Any, p: Unrolled, x: np.ndarray, bias: float) -> dict[str, Quantity]:
    """Return mean-field theory, of the nets that it is known of."""
    variances = _variances(p)
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
    theory = {"second moment": found.second, "gradient variance": found.gradient}
    if found.cosine is not None:
        theory["cosine"] = found.cosine
    return {f"theory/{name}": Quantity(values) for name, values in theory.items()}


# --- what is checked -----------------------------------------------------------------------------


def _checks(network: Any, passes: Sequence[Unrolled], bias: float, dtype: str) -> tuple[Check, ...]:
    found = [_products(passes, dtype), _outer_products(passes, dtype)]
    laws = [law for m in passes[0].maps for law, _ in m.laws]
    if all(isinstance(law, Normal) and law.moments[0] == 0 < law.moments[1] for law in laws):
        found += _forward_steps(passes, bias, dtype)
        plain = isinstance(network, FullyConnected) and not (
            network.normalization or network.shortcut
        )
        if plain and network.activation != "relu":
            found += _backward_steps(network, passes)
        if plain and network.activation in ("linear", "relu") and bias == 0:
            found += _totals(network, passes)
    if bias == 0 and all(isinstance(law, (Orthogonal, DeltaOrthogonal)) for law in laws):
        found += _isometry(passes, dtype)
    return tuple(found)


def _products(passes: Sequence[Unrolled], dtype: str) -> Check:
    """Compare each z with W r + b in float64."""
    worst = 0.0
    for m in (m for p in passes for m in p.maps):
        size, n = np.abs(m.weight).T, m.weight.shape[1]
        bound = gamma(n + 2, dtype) * (np.abs(m.rows) @ size + np.abs(m.bias)) + m.errors @ size
        tiny = n * FORMATS[dtype].smallest_normal
        worst = max(worst, _share(m.outputs - (m.rows @ m.weight.T + m.bias), bound + tiny))
    return Check(
        "every layer is W r + b of the reference's signal: largest share of the bound",
        observed=worst,
        expected=0.0,
        bound=1.0,
        source="W r + b in float64; gamma_(n+2) (|W| |r| + |b|) (Higham 2002, section 3.5) and the "
        "contract's bounds of activation and normalization, times |W|",
        unit="bound",
    )


def _outer_products(passes: Sequence[Unrolled], dtype: str) -> Check:
    """Compare the gradient in each W with the sum over rows of (gradient in z) r^T in float64."""
    worst = 0.0
    for p in passes:
        for key in {m.key: None for m in p.maps}:
            shared = [m for m in p.maps if m.key == key]
            expected, bound = (
                sum(a.T if m.transposed else a for m, a in zip(shared, parts, strict=True))
                for parts in zip(*(_outer(m, dtype) for m in shared), strict=True)
            )
            m = shared[0]
            deviation = (m.moved.T if m.transposed else m.moved) - expected
            rows = sum(len(m.rows) for m in shared)
            worst = max(worst, _share(deviation, bound + rows * FORMATS[dtype].smallest_normal))
    return Check(
        "the gradient in every W is the sum of (gradient in z) r^T: largest share of the bound",
        observed=worst,
        expected=0.0,
        bound=1.0,
        source="chain rule; gamma_(rows+2) |g|^T |r| and the error of r times |g|",
        unit="bound",
    )


def _outer(m: LinearMap, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    size = np.abs(m.gradients).T
    bound = gamma(len(m.rows) + 2, dtype) * (size @ np.abs(m.rows)) + size @ m.errors
    return m.gradients.T @ m.rows, bound


def _share(deviation: Any, bound: Any) -> float:
    """Return the largest |deviation| / bound, infinite for a NaN, which max() would overlook."""
    share = np.max(np.abs(deviation) / bound)
    return math.inf if math.isnan(share) else float(share)


def _law_check(claim: str, ratios: Sequence[tuple[np.ndarray, int]], source: str) -> Check:
    """Check means of log ratios against ``ln(chi2_K)``: (ratios, K) for each layer."""
    level, worst = FALSE_ALARM / max(1, len(ratios)), 0.0
    for values, degrees in ratios:
        law = propagation.growth("linear", 1.0, degrees)
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


def _resolved(rows: np.ndarray, errors: np.ndarray, dtype: str) -> np.ndarray:
    """Return how far each row must stand out: of rounding, and of worst cases of its errors."""
    eps = float(FORMATS[dtype].ulp(np.array(1.0)))
    size, off = (np.linalg.norm(a, axis=1) for a in (rows, errors))
    return np.asarray(1e4 * eps * size + 1e2 * off)


def _forward_steps(passes: Sequence[Unrolled], bias: float, dtype: str) -> list[Check]:
    """Check the first row of each map, and what the others of two inputs add to it.

    Whether a row counts depends on what came before the map, hence not on what it adds; the number
    that do is fixed given that.
    """
    lengths: list[tuple[np.ndarray, int]] = []
    across: list[tuple[np.ndarray, int]] = []
    for index in range(len(passes[0].maps)):
        ratios, degrees = zip(*(_innovations(p, index, bias, dtype) for p in passes), strict=True)
        for found, part in ((lengths, slice(1)), (across, slice(1, None))):
            values = np.concatenate([r[part] for r in ratios])
            kept = values[~np.isnan(values)]
            if kept.size:
                found.append((kept, degrees[0]))
    given = "given what came before, at any width and for any activation"
    return [
        _law_check(
            "each layer's step of the signal's length follows its law",
            lengths,
            f"ln(||z||**2 / ||r||**2) = ln(s**2 chi2_n) {given}",
        ),
        _law_check(
            "each layer's step of further rows across the first, the cosine's, follows its law",
            across,
            f"ln(s**2 chi2_n) of the part of r' across the rows before it, independent of them "
            f"{given}",
        ),
    ]


def _innovations(p: Unrolled, index: int, bias: float, dtype: str) -> tuple[np.ndarray, int]:
    """Return the ratios of a map's rows of two inputs, and the degrees of freedom of their law."""
    m = p.maps[index]
    before = [other for other in p.maps[:index] if other.key == m.key]
    alike = [other for other in before if other.transposed == m.transposed]
    turned = [other for other in before if other.transposed != m.transposed]
    scales = np.repeat([math.sqrt(law.moments[1]) for law, _ in m.laws], [k for _, k in m.laws])
    rows, errors, outputs = (
        np.vstack([_of_two(p, other, getattr(other, name)) for other in (*alike, m)])
        for name in ("rows", "errors", "outputs")
    )
    seen = np.vstack([_of_two(p, other, other.rows) for other in turned]) if turned else None
    ratios = propagation.innovations(
        np.column_stack([scales * rows, np.full(len(rows), bias)]),
        outputs,
        resolved=_resolved(scales * rows, scales * errors, dtype),
        told=len(rows) - len(_of_two(p, m, m.rows)),
        seen=seen,
    )
    return ratios, outputs.shape[1] - (0 if seen is None else len(seen))


def _of_two(p: Unrolled, m: LinearMap, rows: np.ndarray) -> np.ndarray:
    """Return the rows of the first two examples."""
    return rows[: 2 * len(m.rows) // len(p.signals[0])]


def _backward_steps(network: FullyConnected, passes: Sequence[Unrolled]) -> list[Check]:
    """Check the gradient in h_{l-1} across all examples' signals, given the forward pass."""
    largest = REFERENCES[str(network.activation)].slope(np.linspace(-1, 1, 3)).max()
    ratios = []
    for layer in range(1, network.depth):
        width, examples = passes[0].maps[layer].weight.shape[1], len(passes[0].signals[0])
        if width <= examples:
            continue
        values = []
        for p in passes:
            m, before = p.maps[layer], p.maps[layer - 1]
            d = math.sqrt(m.laws[0][0].moments[1]) * m.gradients[:1]
            g = before.gradients[:1] / (largest * p.slopes[layer - 1][:1])
            values.append(propagation.innovations(d, g, resolved=np.zeros(1), seen=m.rows))
        ratios.append((np.concatenate(values), width - examples))
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


def _totals(network: FullyConnected, passes: Sequence[Unrolled]) -> list[Check]:
    """Check the log-norms after all layers; the last has no activation."""
    activation, n = str(network.activation), network.widths
    variances = _variances(passes[0]) or []
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
                [log_ratio(p.maps[0].gradients[0], p.maps[-1].gradients[0]) for p in passes],
                backward,
            ),
        )
    ]


def _isometry(passes: Sequence[Unrolled], dtype: str) -> list[Check]:
    """Check that orthogonal maps of no fewer outputs than inputs keep every length.

    Of a kernel with a single tap, the inputs are those under it.
    """
    worst, most = 0.0, 0
    for m in (m for p in passes for m in p.maps if len(m.laws) == 1):
        used = (m.weight != 0).any(axis=0)
        n_out, n_in = len(m.weight) // m.gates, int(used.sum())
        length = np.linalg.norm(m.rows[:, used], axis=1)
        met = length > 0
        if n_out >= n_in and met.any():
            gain = math.sqrt(m.gates) * m.laws[0][0].gain
            ratio = np.linalg.norm(m.outputs[met], axis=1) / (gain * length[met])
            worst, most = max(worst, _share(ratio - 1, 1.0)), max(most, len(m.weight))
    if not most:
        return []
    eps = float(FORMATS[dtype].ulp(np.array(1.0)))
    return [
        Check(
            "every layer with orthogonal weights keeps every length: largest relative change",
            observed=worst,
            expected=0.0,
            bound=30 * most * eps
            + math.sqrt(most) * gamma(most + 2, dtype)
            + 2e3 * TANH_ULP[dtype] * eps,
            source="||W h|| = ||h|| for W^T W = I; qr is right to 30 n eps, the product to "
            "gamma_(n+2) |W| |h| (isometry.common.ops; Higham 2002, section 3.5)",
        )
    ]


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
    article = "an" if options.family in ("lstm", "attention", "autoencoder") else "a"
    layer = {"attention": "block", "recurrent": "step", "lstm": "step"}.get(options.family, "layer")
    net = options.family.replace("_", " ").replace("lstm", "LSTM")
    if options.family not in ("lstm", "attention"):
        net += f" {options.activation}"
    return (
        f"In {article} {net} net of {options.depth} {layer}s with {options.initializer} weights "
        f"the signal's second moment is {at('second moment', 1)} after the first {layer} and "
        f"{at('second moment', last)} after {layer} {last}; two digits of cosine "
        f"{float(quantities['cosine'].values[0]):.3g} arrive there with {at('cosine', last)}. The "
        f"gradient in a preactivation has variance {at('gradient variance', -1)} at the output and "
        f"{at('gradient variance', 0)} in the first {layer}. {exact}At most "
        f"{quantities['dead'].values.max():.1%} of a layer's units are dead and "
        f"{quantities['saturated'].values.max():.1%} of its values saturated. {steps} steps "
        f"against the gradient, each of {rate:.2g} of all weights' norm, move those of one {layer} "
        f"by {distance.min():.2g} to {distance.max():.2g} of theirs."
    )
