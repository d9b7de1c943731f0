"""What does the Hessian of a loss look like, and does a small largest eigenvalue train faster?

Hessians are seen through their products with vectors alone (`isometry.common.networks.curvature`):
stochastic Lanczos quadrature, its largest eigenvalue, Hutchinson's trace, power iteration. They are
first held to models whose Hessian has a closed form, and all of whose eigenvalues are known; then
they look at nets that learn the 8x8 digits, at several depths, from several initial weights, with
and without batch normalization, and each net is trained by gradient descent. The spectra of the
weights themselves are held to the law of Marchenko and Pastur.

Everything that the nets are made of comes from portable streams: every backend measures the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.errors import InvalidArgument
from isometry.common.laws import krylov
from isometry.common.laws import marchenko_pastur as mp
from isometry.common.laws.distributions import Normal
from isometry.common.laws.initializers import Initializer
from isometry.common.laws.perceptron import cross_entropy
from isometry.common.networks import closed_forms, curvature
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.results import Check, Quantity
from isometry.common.statistics.bounds import moment
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any
Part = tuple[dict[str, Quantity], list[Check]]

FALSE_ALARM = 1e-9
CLASSES = 10
EXAMPLES, PROBES, LANCZOS = 100, 100, 20  # of the models with closed forms
QUADRATURES = 10  # of their probes
MATRICES, SHAPE, POINTS = 40, (64, 128), 19  # weights held to Marchenko and Pastur
CONVERGED = 0.02  # relative error of a net's largest eigenvalue
RATE = 0.1
GOAL = math.log(CLASSES) / 2  # half the loss of guessing
KRYLOV = "isometry.common.laws.krylov"


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    examples: int = 128,
    width: int = 24,
    depths: str = "2,6,12",
    lanczos: int = 24,
    steps: int = 100,
) -> Findings:
    """Hold matrix-free spectra to exact ones, and measure those of nets that learn.

    Parameters
    ----------
    examples : int
        Digits that the nets learn, between 16 and 1797.
    width : int
        Units of each hidden layer, at least 2.
    depths : str
        Comma-separated numbers of layers, each at least 2; the middle one gets every initializer.
    lanczos : int
        Products with the Hessian for each of two probes, at least 8.
    steps : int
        Of gradient descent, at most.
    """
    images, labels = digits()
    checks.integer("examples", examples, low=16, high=len(images))
    checks.integer("width", width, low=2, high=10**4)
    checks.integer("lanczos", lanczos, low=8, high=10**4)
    checks.integer("steps", steps, low=1, high=10**5)
    asked = _depths(depths)
    middle = asked[len(asked) // 2]
    if middle < 4:
        raise InvalidArgument(
            f"the middle one of the depths must be at least 4, for its small weights to vanish; "
            f"received {depths!r}"
        )
    streams = nx.portable_stream(seed).split(3)
    models = closed_forms.models(nx, streams[0], images[:EXAMPLES], labels[:EXAMPLES])
    trials = _trials(asked, middle)
    total = len(models) + len(trials) + 1
    quantities: dict[str, Quantity] = {}
    found: list[Check] = []
    parts = [(name, partial(_closed_form, nx, streams[0], name, model)) for name, model in models]
    parts.append(("weights", partial(_weights, nx, streams[1])))
    for done, (what, part) in enumerate(parts):
        tell(done, total, what)
        named, claims = part()
        quantities |= named
        found += claims
    seen = []
    inputs = images[:examples].astype(float)
    data = (
        nx.asarray((inputs - inputs.mean()) / inputs.std()),
        nx.asarray(np.eye(CLASSES)[labels[:examples]]),
    )
    compiled: dict[tuple[int, bool], Architecture] = {}
    for done, trial in enumerate(trials, len(parts)):
        tell(done, total, trial.name)
        key = (trial.depth, trial.batch_norm)
        if key not in compiled:
            compiled[key] = _architecture(nx, trial, images.shape[1], width)
        seen.append(_net(nx, streams[2], trial, compiled[key], data, lanczos, steps))
    tell(total, total, "done")
    named, claims = _nets(trials, seen, steps)
    return Findings(quantities | named, (*found, *claims), _finding(nx, trials, seen, steps))


def _depths(text: str) -> list[int]:
    names = [name.strip() for name in text.split(",")]
    return [
        checks.integer("a depth", int(name) if name.isdigit() else name, low=2, high=1000)
        for name in names
    ]


# --- models with a closed form -------------------------------------------------------------------


def _closed_form(nx: Backend, stream: Stream, name: str, model: closed_forms.Model) -> Part:
    """Compare products, quadrature, largest eigenvalue and trace with the exact Hessian."""
    exact = np.linalg.eigvalsh(model.hessian)
    count = len(exact)
    parameters = {path: nx.asarray(w) for path, w in model.parameters.items()}
    product = curvature.HessianProduct(nx, model.loss)
    apply = product.at(parameters, *map(nx.asarray, model.data))
    length = float(np.linalg.norm(curvature.flatten(nx, parameters)))
    error = curvature.product_error(nx, model.size, 8 * (EXAMPLES + count) + 400, length)
    probes = nx.to_numpy(stream.normal((PROBES, count), dtype="float64"))
    products = np.array([apply(v) for v in probes])
    off = np.linalg.norm(products - probes @ model.hessian, axis=1)
    trace = float((probes * products).sum(axis=1).mean())
    seen = krylov.spectrum(apply, probes[:QUADRATURES], LANCZOS)
    largest, ritz = seen.largest
    how = curvature.method(nx)
    power = np.linalg.matrix_power(model.hessian, 4)
    fourth = np.array([v @ power @ v for v in probes[:QUADRATURES]])
    scale = float(np.abs(exact).max())
    found = [
        Check(
            f"{name}: Hessian times vector, largest error relative to the vector",
            observed=float((off / np.linalg.norm(probes, axis=1)).max()),
            expected=0.0,
            bound=error,
            source=f"closed form (isometry.common.laws.hessians); {how}",
        ),
        Check(
            f"{name}: largest eigenvalue",
            observed=largest,
            expected=float(exact[-1]),
            bound=ritz + 2 * error,
            source=f"eigenvalues of the closed form; the residual of Lanczos ({KRYLOV})",
        ),
        Check(
            f"{name}: Hutchinson's trace",
            observed=trace,
            expected=float(exact.sum()),
            bound=krylov.hutchinson_bound(exact, PROBES, FALSE_ALARM) + count * error,
            source=f"trace of the closed form; Laurent and Massart 2000 ({KRYLOV})",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            f"{name}: the quadrature is exact for v^T H^4 v",
            observed=float(np.max(np.abs(seen.power_sums(4) - fourth) / seen.squares)),
            expected=0.0,
            bound=8 * LANCZOS * (error + scale * count * np.finfo(float).eps) * scale**3,
            source=f"Golub and Meurant 2010 ({KRYLOV}); closed form; {how}",
        ),
    ]
    if name == "least squares":
        value, residual, _ = krylov.power_iteration(apply, probes[0], tolerance=1e-8, steps=2000)
        found.append(
            Check(
                f"{name}: largest eigenvalue by power iteration",
                observed=value,
                expected=float(exact[-1]),
                bound=residual + 2 * error,
                source="eigenvalues of the closed form; ||A v - theta v|| of a unit v",
            )
        )
    return {
        f"{name}/eigenvalues": Quantity(exact),
        f"{name}/estimated": Quantity(seen.below(exact)),
        f"{name}/trace": Quantity(np.array([trace, exact.sum()])),
    }, found


# --- weights -------------------------------------------------------------------------------------


def _weights(nx: Backend, stream: Stream) -> Part:
    """Compare singular values of weights with Marchenko and Pastur's law, and with none."""
    rows, columns = SHAPE
    g = rows / columns
    low, high = mp.edges(g)
    points = np.linspace(low, high, POINTS + 2)[1:-1]
    exact = mp.below(points, g)
    quantities = {"marchenko-pastur/x": Quantity(points), "marchenko-pastur/cdf": Quantity(exact)}
    found: list[Check] = []
    for rule in ("lecun_normal", "lecun_uniform", "orthogonal"):
        drawn = [nx.initialize(rule, SHAPE, stream, dtype="float64") for _ in range(MATRICES)]
        values = nx.to_numpy(nx.ops.svd(nx.ops.stack(drawn))[1])  # variance 1 / n: W W^T as it is
        shares = (np.square(values)[..., None] <= points).mean(axis=(0, 1))
        quantities[f"marchenko-pastur/{rule}"] = Quantity(shares)
        if rule == "orthogonal":
            continue
        found.append(
            Check(
                f"{rule}: eigenvalues of W W^T follow Marchenko and Pastur",
                observed=float(np.abs(shares - exact).max()),
                expected=0.0,
                bound=mp.count_bound(rows, MATRICES, POINTS, FALSE_ALARM) + 1 / rows,
                source="McDiarmid's inequality for independent rows, and one eigenvalue for the "
                "bias at finite size, whose first order is at most a quarter of one (Bai and "
                "Silverstein 2004, theorem 1.1; isometry.common.laws.marchenko_pastur)",
                false_alarm=FALSE_ALARM,
            )
        )
        if rule == "lecun_normal":
            found += _gaussian_weights(values)
    return quantities, found


def _gaussian_weights(values: np.ndarray) -> list[Check]:
    rows, columns = SHAPE
    low, high = mp.edge_bound(rows, columns, FALSE_ALARM / (2 * MATRICES))
    reached = values * math.sqrt(columns)
    worst = max(float(reached.max()) / high, low / float(reached.min()))
    mean_square = float(np.square(values).mean())
    least, most = moment(Normal(), 2, rows * columns * MATRICES, FALSE_ALARM)
    return [
        Check(
            "lecun_normal: all singular values are between the edges",
            observed=max(worst - 1, 0.0),
            expected=0.0,
            bound=0.0,
            source="sqrt(n) -+ (sqrt(p) + t) (Davidson and Szarek 2001, theorem 2.13)",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            "lecun_normal: mean eigenvalue of W W^T",
            observed=mean_square,
            expected=(least + most) / 2,
            bound=(most - least) / 2,
            source="n p times it is chi-squared of n p degrees, exactly",
            false_alarm=FALSE_ALARM,
        ),
    ]


# --- nets ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One net: its depth, initial weights, and whether it has batch normalization."""

    depth: int
    rule: str
    initializer: str | Initializer
    batch_norm: bool

    @property
    def name(self) -> str:
        """As quantities and figures call it."""
        return f"{self.depth} layers, {self.rule}{', batch norm' if self.batch_norm else ''}"

    def network(self, widths: tuple[int, ...]) -> FullyConnected:
        """Return the net, of tanh units."""
        norm = "batch" if self.batch_norm else None
        return FullyConnected(widths, "tanh", self.initializer, normalization=norm)


RULES: dict[str, str | Initializer] = {
    "xavier": "xavier_normal",
    "he": "he_normal",
    "orthogonal": "orthogonal",
    "N(0, 0.5)": Normal(0.0, 0.5),
    "N(0, 0.01)": Normal(0.0, 0.01),
}


def _trials(depths: list[int], middle: int) -> list[Trial]:
    return [
        Trial(depth, rule, initializer, batch_norm)
        for depth in depths
        for batch_norm in (False, True)
        for rule, initializer in RULES.items()
        if depth == middle or rule == "xavier"
    ]


@dataclass(frozen=True)
class Seen:
    """What was measured of a net: ends of the spectrum, its error, mean, nodes; steps to the goal.

    Steps are those at the fixed rate, and at 1 / the largest eigenvalue; one more than the limit
    where the goal was not reached.
    """

    largest: float
    error: float
    smallest: float
    trace: float
    spectrum: krylov.Spectrum
    gradient: float
    fixed: int
    adapted: int


@dataclass(frozen=True)
class Architecture:
    """What is compiled once for all nets of a depth: the products, and the gradient."""

    widths: tuple[int, ...]
    product: curvature.HessianProduct
    evaluate: Callable[..., tuple[Array, Array]]


def _architecture(nx: Backend, trial: Trial, inputs: int, width: int) -> Architecture:
    widths = (inputs,) + (width,) * (trial.depth - 1) + (CLASSES,)
    net = trial.network(widths)

    def loss(parameters: dict[str, Array], x: Array, y: Array) -> Array:
        return cross_entropy(nx, net.output(nx, parameters, x), y)

    parameters = net.initialize(nx, nx.portable_stream(0), dtype="float64")
    shapes = curvature.shapes_of(nx, parameters)
    return Architecture(
        widths, curvature.HessianProduct(nx, loss), curvature.flat_gradient(nx, loss, shapes)
    )


def _net(
    nx: Backend,
    stream: Stream,
    trial: Trial,
    architecture: Architecture,
    data: tuple[Array, Array],
    lanczos: int,
    steps: int,
) -> Seen:
    weights, signs = stream.split(2)
    net = trial.network(architecture.widths)
    parameters = net.initialize(nx, weights, dtype="float64")
    start = curvature.flatten(nx, parameters)
    probes = np.where(nx.to_numpy(signs.uniform((2, start.size), dtype="float64")) < 0.5, -1, 1)
    apply = architecture.product.at(parameters, *data)
    spectrum = krylov.spectrum(apply, probes, lanczos)
    evaluate = architecture.evaluate
    largest, error = spectrum.largest
    gradient = float(np.linalg.norm(nx.to_numpy(evaluate(nx.asarray(start), *data)[1])))
    return Seen(
        largest,
        error,
        spectrum.smallest[0],
        float(spectrum.power_sums(1).mean()),
        spectrum,
        gradient,
        _descend(nx, evaluate, start, data, RATE, steps),
        _descend(nx, evaluate, start, data, 1 / largest, steps),
    )


def _descend(
    nx: Backend,
    evaluate: Callable[..., tuple[Array, Array]],
    start: np.ndarray,
    data: tuple[Array, Array],
    rate: float,
    steps: int,
) -> int:
    """Return the number of steps of gradient descent to half the loss of guessing."""
    with nx.scope():
        w = nx.asarray(start)
        for step in range(steps + 1):
            value, gradient = evaluate(w, *data)
            if float(nx.to_numpy(value)) <= GOAL:
                return step
            w = w - rate * gradient
    return steps + 1


def _nets(trials: list[Trial], seen: list[Seen], steps: int) -> Part:
    nodes = {
        f"{trial.name}/{what}": Quantity(getattr(net.spectrum, what))
        for trial, net in zip(trials, seen, strict=True)
        for what in ("nodes", "weights")
    }
    smallest = min(range(len(seen)), key=lambda k: seen[k].largest)
    return nodes | {
        "net/depth": Quantity(np.array([trial.depth for trial in trials]), "layer"),
        "net/batch_norm": Quantity(np.array([trial.batch_norm for trial in trials])),
        "net/largest": Quantity(np.array([net.largest for net in seen])),
        "net/smallest": Quantity(np.array([net.smallest for net in seen])),
        "net/trace": Quantity(np.array([net.trace for net in seen])),
        "net/gradient": Quantity(np.array([net.gradient for net in seen])),
        "net/steps": Quantity(np.array([(net.fixed, net.adapted) for net in seen]), "step"),
        "net/rank_correlation": Quantity(np.array(_correlations(seen))),
    }, [
        Check(
            "nets: largest error of the largest eigenvalue, relative",
            observed=max(net.error / abs(net.largest) for net in seen),
            expected=0.0,
            bound=CONVERGED,
            source=f"an eigenvalue is within the residual of Lanczos ({KRYLOV})",
        ),
        Check(
            "nets: the one of the smallest largest eigenvalue does not reach the goal",
            observed=float(seen[smallest].fixed),
            expected=float(steps + 1),
            bound=0.0,
            source="weights of N(0, 0.01): gradient and Hessian vanish together, a plateau",
            unit="step",
        ),
    ]


def _correlations(seen: list[Seen]) -> list[float]:
    """Return Spearman's correlation of the largest eigenvalue with the steps, for both rates.

    0 where all nets take as many steps.
    """
    from scipy.stats import rankdata

    found = []
    for steps in ([net.fixed for net in seen], [net.adapted for net in seen]):
        ranks = [rankdata(column) for column in ([net.largest for net in seen], steps)]
        a, b = (rank - rank.mean() for rank in ranks)
        size = math.sqrt((a @ a) * (b @ b))
        found.append(float(a @ b) / size if size > 0 else 0.0)
    return found


def _finding(nx: Backend, trials: list[Trial], seen: list[Seen], steps: int) -> str:
    nets = {trial.name: net for trial, net in zip(trials, seen, strict=True)}

    def told(name: str) -> str:
        net = nets[name]
        taken = f"{net.fixed} steps" if net.fixed <= steps else f"not within {steps} steps"
        return f"{name} {net.largest:.2g} ({taken})"

    fixed, adapted = _correlations(seen)
    verdict = "does not mean" if fixed < 0.5 else "goes with"
    ratio = [
        f"{nets[f'{t.name}, batch norm'].largest / nets[t.name].largest:.2g} at {t.depth} layers"
        for t in trials
        if t.rule == "xavier" and not t.batch_norm
    ]
    return (
        f"Products with the Hessian are by {curvature.method(nx)}; where the Hessian has a closed "
        "form they, the quadrature, the largest eigenvalue and the trace are right. Largest "
        f"eigenvalue of the untrained nets, and steps at rate {RATE} to half the loss of guessing: "
        f"{'; '.join(told(name) for name in nets)}. Batch normalization changes it by a factor of "
        f"{', '.join(ratio)}. A small one {verdict} faster training: over these nets its rank "
        f"correlation with the steps is {fixed:.2f} at a fixed rate, the smallest belonging to a "
        f"net that does not learn; at the rate 1 / the largest eigenvalue it is {adapted:.2f}: "
        "what a large one costs is the rate. Weights of independent entries follow the law of "
        "Marchenko and Pastur."
    )
