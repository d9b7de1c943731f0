"""Why is a deep narrow net a plateau in gradient and curvature, and what leads off it?

Initializers preserve second moments. Gradient and Hessian of almost every deep narrow net vanish
all the same, because the median of a product falls exponentially where its second moment stays 1
(Orvieto, Kohler, Pavllo, Hofmann and Lucchi 2022). Four parts, each beside its exact law:

- *Chains*, nets of width 1: the first weight's gradient has L - 1 factors, its second derivative
  with the last weight L - 2. Medians against depth, Gaussian and uniform, Xavier and He.
- *Width against depth*: linear nets with Xavier's and ReLU nets with He's weights, whose width is
  constant, grows like the root of the depth, or equals it. The gradient of the first matrix, and
  the Hessian times one of its coordinates, which is seen in the last matrix: both have the exact
  log-norms of products of L - 1 and L - 2 layers.
- *Escape*: chains of equal weights leave the plateau by gradient descent in the time of the flow,
  exponential in the depth; by Adam and RMSprop in steps that do not depend on it.
- *Remedies*: residual chains, exactly; residual and batch-normalized ReLU nets, measured.

Hessians are products by automatic differentiation where the backend has them, and otherwise central
differences of gradients in float64; the finding says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import neural_chains, propagation
from isometry.common.laws.neural_chains import SCALES, ChainLaw, chain_law
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.gradients import compiled_gradient, whole
from isometry.common.optimizers.rules import SGD, Adam, Momentum, Rule
from isometry.common.results import Check, Quantity
from isometry.common.statistics.bounds import dkw, proportion
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any
Part = tuple[dict[str, Quantity], list[Check]]

FALSE_ALARM = 5e-10
DIFFERENCE = 2.0**-20  # step of a central difference, in float64
PROFILES: dict[str, Callable[[int], int]] = {
    "width 4": lambda depth: 4,
    "width 2 sqrt(depth)": lambda depth: round(2 * math.sqrt(depth)),
    "width = depth": lambda depth: depth,
}
RULES = {"linear": 1.0, "relu": 2.0}  # Xavier's and He's variance, times the width
REMEDY_WIDTH, BATCH = 8, 32  # units and inputs of the nets under remedies
PLATEAU, ESCAPED = 0.3, 0.5  # equal weights of the chains that escape
CHAINS_TO_ESCAPE = (2, 3, 4, 6, 8)
RATES = {"descent": 0.2, "momentum": 0.2, "adam": 0.01, "rmsprop": 0.01}
DECAY, SECOND = 0.9, 0.9  # of momentum, and of RMSprop's average of squares
MOST = 2000  # steps
UPDATES: dict[str, Rule] = {
    "descent": SGD(rate=RATES["descent"]),
    "momentum": Momentum(rate=RATES["momentum"], momentum=DECAY),
    "adam": Adam(rate=RATES["adam"]),
    "rmsprop": Adam(rate=RATES["rmsprop"], decay_first=0.0, decay_second=SECOND),
}
SCALAR: dict[str, Callable[[], neural_chains.Update]] = {
    "descent": partial(neural_chains.descent, RATES["descent"]),
    "momentum": partial(neural_chains.descent, RATES["momentum"], DECAY),
    "adam": partial(neural_chains.adaptive, RATES["adam"], 0.9, 0.999),
    "rmsprop": partial(neural_chains.adaptive, RATES["rmsprop"], 0.0, SECOND),
}
LAWS = "isometry.common.laws.neural_chains"
ORDERS = ("gradient", "Hessian")


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depths: str = "5,20,80",
    chains: int = 2000,
    net_depths: str = "8,24",
    nets: int = 200,
    remedy_nets: int = 10,
) -> Findings:
    """Measure gradient and curvature of chains and nets, and let equal chains escape.

    Parameters
    ----------
    depths : str
        Comma-separated numbers of layers of the chains, each at least 3.
    chains : int
        Independent chains per law, at least 100.
    net_depths : str
        Comma-separated numbers of layers of the wider nets, each at least 4.
    nets : int
        Independent nets per width and depth, at least 20.
    remedy_nets : int
        Independent nets with and without shortcuts and normalization, at least 1.
    """
    lengths, layers = _depths("depths", depths, 3), _depths("net_depths", net_depths, 4)
    checks.integer("chains", chains, low=100, high=10**6)
    checks.integer("nets", nets, low=20, high=10**5)
    checks.integer("remedy_nets", remedy_nets, low=1, high=10**4)
    streams = nx.stream(seed).split(3)
    parts = (
        ("chains", partial(_chains, nx, streams[0], lengths, chains)),
        ("width against depth", partial(_nets, nx, streams[1], layers, nets)),
        ("escape from the plateau", partial(_escape, nx)),
        ("remedies", partial(_remedies, nx, streams[2], layers, remedy_nets)),
    )
    quantities = {
        "depth": Quantity(np.array(lengths), "layer"),
        "net depth": Quantity(np.array(layers), "layer"),
    }
    found: list[Check] = []
    for done, (what, part) in enumerate(parts):
        tell(done, len(parts), what)
        named, claims = part()
        quantities |= named
        found += claims
    tell(len(parts), len(parts), "done")
    return Findings(quantities, tuple(found), _finding(nx, quantities, lengths, layers))


def _depths(name: str, value: str, low: int) -> list[int]:
    try:
        found = [int(depth) for depth in value.split(",")]
    except ValueError:
        raise InvalidArgument(
            f"{name} must be whole numbers with commas between them; received {value!r}; write 8,32"
        ) from None
    return [checks.integer(f"each of {name}", depth, low=low, high=10**4) for depth in found]


# --- second derivatives --------------------------------------------------------------------------


def _hessian_times(nx: Backend, f: Callable[[Array], Array], x: Array, vector: Array) -> Array:
    """Return the Hessian of f at x times vector, or a central difference of gradients."""
    if "hvp" in nx.capabilities:
        return nx.hvp(f, x, vector)
    gradient = nx.value_and_gradient(f)
    ahead, behind = (gradient(x + step * vector)[1] for step in (DIFFERENCE, -DIFFERENCE))
    return (ahead - behind) / (2 * DIFFERENCE)


# --- chains --------------------------------------------------------------------------------------


def _kinds(depth: int) -> dict[str, tuple[str, float]]:
    """Return the laws of a factor, by name: kind and standard deviation."""
    found = {
        f"{rule}, {kind}": (kind, std)
        for kind in ("normal", "uniform")
        for rule, std in SCALES.items()
    }
    return found | {
        "residual": ("residual", 1.0),
        "residual / sqrt(depth)": ("residual", depth**-0.5),
    }


def _chains(nx: Backend, stream: Stream, lengths: Sequence[int], chains: int) -> Part:
    """Hold gradient and second derivative of chains to their exact laws.

    The weights of a shorter chain are the first of the longest one's: a framework compiles few
    shapes, and each check has its law all the same.
    """
    longest = max(lengths)
    z = stream.normal((longest, 4 * chains), dtype="float64")
    u = stream.uniform((longest, 2 * chains), low=-1.0, dtype="float64")
    medians: dict[str, list[tuple[float, float]]] = {}
    found: list[Check] = []
    for depth in lengths:
        derivatives = _chain_derivatives(nx, z, u, depth)
        for k, (name, (kind, std)) in enumerate(_kinds(depth).items()):
            for what, values in derivatives.items():
                law = chain_law(kind, std, depth - (1 if what == "gradient" else 2))
                logs = values[k * chains : (k + 1) * chains]
                medians.setdefault(f"{what}/{name}", []).append(
                    (float(np.median(logs)), law.median)
                )
                found += _held(f"{name}, depth {depth}: {what}", logs, law)
    quantities = {}
    for name, rows in medians.items():
        measured, exact = np.array(rows).T
        quantities[f"median/{name}"] = Quantity(measured, "nat")
        quantities[f"median/{name}/exact"] = Quantity(exact, "nat")
    return quantities, found


def _chain_derivatives(nx: Backend, z: Array, u: Array, depth: int) -> dict[str, np.ndarray]:
    """Return ``ln|df/dw_1|`` and ``ln|d2f/dw_1 dw_L|`` of chains of every kind, kind by kind.

    z and u (depth or more, chains of the kinds that use them) are standard normal and uniform on
    [-1, 1).
    """
    chains = nx.shape_of(u)[1] // 2
    kinds = _kinds(depth).values()
    normal = np.repeat([std for kind, std in kinds if kind != "uniform"], chains)
    uniform = np.repeat([std * math.sqrt(3) for kind, std in kinds if kind == "uniform"], chains)
    residual = np.repeat([float(kind == "residual") for kind, _ in kinds], chains)
    along = np.zeros((depth, residual.size))
    along[0] = 1.0

    def derivatives(
        z: Array, u: Array, normal: Array, uniform: Array, shift: Array, along: Array
    ) -> tuple[Array, Array]:
        z, u = z[:depth] * normal, u[:depth] * uniform
        w = nx.ops.concat([z[:, : 2 * chains], u, z[:, 2 * chains :]], axis=1)

        def f(w: Array) -> Array:
            return nx.ops.sum(_product(nx, w + shift))

        return nx.value_and_gradient(f)(w)[1][0], _hessian_times(nx, f, w, along)[depth - 1]

    numbers = (nx.asarray(a) for a in (normal, uniform, residual, along))
    found = (nx.to_numpy(a) for a in whole(nx, derivatives)(z, u, *numbers))
    with np.errstate(divide="ignore"):
        return {what: np.log(np.abs(a)) for what, a in zip(ORDERS, found, strict=True)}


def _product(nx: Backend, factors: Array) -> Array:
    """Return the product over the first axis, halved until one row is left."""
    size = nx.shape_of(factors)[0]
    while size > 1:
        half = size // 2
        paired = factors[:half] * factors[half : 2 * half]
        factors = nx.ops.concat([paired, factors[2 * half :]]) if size % 2 else paired
        size -= half
    return factors


def _held(name: str, logs: np.ndarray, law: ChainLaw) -> list[Check]:
    """Hold ``ln|derivative|`` to its law: median and distribution function."""
    exact = law.cdf(np.sort(logs))
    steps = np.arange(logs.size + 1) / logs.size
    return [
        _median(name, float((logs <= law.median).mean()), logs.size, LAWS),
        Check(
            f"{name}: distribution function",
            observed=float(max((exact - steps[:-1]).max(), (steps[1:] - exact).max())),
            expected=0.0,
            bound=dkw(logs.size, FALSE_ALARM),
            source=f"exact law of a sum of independent logarithms ({LAWS}); Dvoretzky, Kiefer and "
            "Wolfowitz with Massart's constant (1990)",
            false_alarm=FALSE_ALARM,
        ),
    ]


def _median(name: str, below: float, count: int, source: str) -> Check:
    low, high = proportion((0.5, 0.5), count, FALSE_ALARM)
    return Check(
        f"{name}: share below the exact median",
        observed=below,
        expected=0.5,
        bound=max(0.5 - low, high - 0.5),
        source=f"median by the exact distribution ({source}); exact binomial",
        false_alarm=FALSE_ALARM,
    )


# --- width against depth -------------------------------------------------------------------------


def _nets(nx: Backend, stream: Stream, depths: Sequence[int], nets: int) -> Part:
    """Hold gradient and Hessian of wider nets to their exact laws, profile by profile.

    All cut their weights from the same draws, as the chains do.
    """
    most = max(depth * width(depth) ** 2 for depth in depths for width in PROFILES.values())
    z = stream.normal((2 * most * nets,), dtype="float64")
    rows: dict[str, list[float]] = {}
    found: list[Check] = []
    for profile, width in PROFILES.items():
        for depth in depths:
            n = width(depth)
            shape = (2, depth, nets, n, n)
            squares = _net_derivatives(nx, z, shape)
            for k, (activation, gain) in enumerate(RULES.items()):
                name = f"{activation}, {profile}"
                logs = {what: np.log(both[k][both[k] > 0]) / 2 for what, both in squares.items()}
                one = propagation.alive(activation, gain / n, n)
                for what, factors in (("gradient", depth - 1), ("Hessian", depth - 2)):
                    exact = propagation.sum_quantile(factors * [one], 0.5) / 2
                    rows.setdefault(f"{what}/{name}/exact", []).append(exact)
                    found.append(
                        _median(
                            f"{name}, depth {depth}: {what}, of nets that are not dead",
                            float((logs[what] <= exact).mean()),
                            logs[what].size,
                            "isometry.common.laws.propagation",
                        )
                    )
                for what, values in logs.items():
                    rows.setdefault(f"{what}/{name}", []).append(float(np.median(values)))
    return {
        f"median/{name}": Quantity(np.array(values), "nat") for name, values in rows.items()
    }, found


def _net_derivatives(nx: Backend, z: Array, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return squared norms (2, nets): linear nets with Xavier's, then ReLU nets with He's weights.

    Each net is ``f = e_1 . W_L phi(.. phi(W_1 e_1))``. "gradient" is that with respect to W_1;
    "product" the whole of the Hessian times the coordinate W_1[1, 1], and "Hessian" its part in the
    first row of W_L, the derivative of h_{L-1}.

    Parameters
    ----------
    z : array
        Standard normal.
    shape : tuple of int
        (2, depth, nets, n, n), of the first of z as the weights take them.
    """
    ops = nx.ops
    _, depth, nets, n, _ = shape
    unit = np.zeros((2 * nets, n, 1))
    unit[:, 0] = 1.0
    linear = np.repeat([1.0, 0.0], nets)[:, None, None]
    along = np.zeros((depth, 2 * nets, n, n))
    along[0, :, 0, 0] = 1.0

    def derivatives(z: Array, x: Array, linear: Array, along: Array) -> tuple[Array, Array]:
        z = ops.reshape(z[: math.prod(shape)], shape)
        stds = [math.sqrt(gain / n) for gain in RULES.values()]
        W = ops.concat([z[k] * std for k, std in enumerate(stds)], axis=1)

        def layer(h: Array, W: Array) -> tuple[Array, None]:
            z = ops.matmul(W, h)
            return linear * z + (1 - linear) * nx.relu(z), None

        def f(W: Array) -> Array:
            h, _ = ops.scan(layer, x, W[: depth - 1])
            return ops.sum(ops.matmul(W[depth - 1], h)[:, 0])

        return nx.value_and_gradient(f)(W)[1][0], _hessian_times(nx, f, W, along)

    numbers = (nx.asarray(a) for a in (unit, linear, along))
    gradient, product = (nx.to_numpy(a) for a in whole(nx, derivatives)(z, *numbers))
    norms = {
        "gradient": np.square(gradient).sum(axis=(1, 2)),
        "Hessian": np.square(product[-1, :, 0]).sum(axis=1),
        "product": np.square(product).sum(axis=(0, 2, 3)),
    }
    return {what: squares.reshape(2, nets) for what, squares in norms.items()}


# --- escape --------------------------------------------------------------------------------------


def _escape(nx: Backend) -> Part:
    """Train chains of equal weights, of all depths at once, until they are off the plateau."""
    counts = np.array(CHAINS_TO_ESCAPE)
    quantities = {"escape/depth": Quantity(counts, "layer")}
    found: list[Check] = []
    times = [neural_chains.flow_time(depth, PLATEAU, ESCAPED) for depth in CHAINS_TO_ESCAPE]
    quantities["escape/flow"] = Quantity(np.array(times) / RATES["descent"], "step")
    gradient = compiled_gradient(nx, _plateau_loss(nx))
    for name, rate in RATES.items():
        steps = _steps(nx, gradient, name)
        quantities[f"escape/{name}"] = Quantity(steps, "step")
        exact = [
            neural_chains.steps_to_escape(SCALAR[name](), depth, PLATEAU, ESCAPED, MOST)
            for depth in CHAINS_TO_ESCAPE
        ]
        found.append(
            Check(
                f"{name}: steps off the plateau are those of one weight's recursion, at any depth",
                observed=float(np.abs(steps - exact).max()),
                expected=0.0,
                bound=1.0,
                source="w <- w + update(w**(L-1) (1 - w**L)) in Python floats; rounding may decide "
                f"one step ({LAWS})",
                unit="step",
            )
        )
        if name == "descent":
            found += _follows_the_flow(steps, times, rate)
        if name == "rmsprop":
            found.append(_does_not_slow_down(steps, rate))
    return quantities, found


def _plateau_loss(nx: Backend) -> Callable[[dict[str, Array], Array], Array]:
    """Return ``sum (1 - w_L ... w_1)**2 / 2`` over chains; no layer is where the mask is 0."""

    def loss(parameters: dict[str, Array], mask: Array) -> Array:
        product = _product(nx, parameters["w"] * mask + (1 - mask))
        return nx.ops.sum(nx.ops.square(1 - product)) / 2

    return loss


def _steps(nx: Backend, gradient: Callable[..., Any], name: str) -> np.ndarray:
    """Return after how many steps each chain has passed the end of the plateau."""
    depths = np.array(CHAINS_TO_ESCAPE)
    layers = (np.arange(depths.max())[:, None] < depths).astype(np.float64)
    mask = nx.asarray(layers)
    parameters = {"w": nx.asarray(np.full(layers.shape, PLATEAU))}
    state: dict[str, Array] = {}
    steps = np.full(depths.size, MOST + 1)
    for step in range(1, MOST + 1):
        slopes = gradient(parameters, mask)[1]
        parameters, state = UPDATES[name].advance(nx, parameters, slopes, state, step=step)
        w = np.where(layers > 0, nx.to_numpy(parameters["w"]), math.inf).min(axis=0)
        steps = np.where((w >= ESCAPED) & (steps > MOST), step, steps)
        if (steps <= MOST).all():
            break
    return steps


def _follows_the_flow(steps: np.ndarray, times: Sequence[float], rate: float) -> list[Check]:
    found = []
    for depth, count, time in zip(CHAINS_TO_ESCAPE, steps, times, strict=True):
        delay = neural_chains.descent_delay(depth, PLATEAU, ESCAPED, rate)
        found.append(
            Check(
                f"descent, depth {depth}: steps x rate off the plateau is the flow's time",
                observed=float(count) * rate,
                expected=time + delay / 2,
                bound=delay / 2,
                source="gradient flow in closed form; Euler's delay is between 0 and rate (1 + "
                f"ln of the ratio of speeds) ({LAWS})",
            )
        )
    return found


def _does_not_slow_down(steps: np.ndarray, rate: float) -> Check:
    limits = [
        neural_chains.adaptive_limits(depth, PLATEAU, ESCAPED, rate, SECOND)
        for depth in CHAINS_TO_ESCAPE
    ]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    return Check(
        "rmsprop: the most steps that any depth takes off the plateau",
        observed=float(steps.max()),
        expected=(low + high) / 2,
        bound=(high - low) / 2,
        source="while gradients rise a step is at least rate, at most rate / sqrt(1 - decay) "
        f"({LAWS})",
        unit="step",
    )


# --- remedies ------------------------------------------------------------------------------------


def _remedies(nx: Backend, stream: Stream, depths: Sequence[int], nets: int) -> Part:
    """Measure the gradient of the first matrix in ReLU nets of width 8, with and without help."""
    n = REMEDY_WIDTH
    medians: dict[str, list[float]] = {}
    for depth in depths:
        widths = (n,) * (depth + 1)
        he = VarianceScaling(2**0.5)
        families = {
            "plain": FullyConnected(widths, "relu", he),
            "residual": FullyConnected(
                widths, "relu", VarianceScaling((2 / depth) ** 0.5), shortcut="residual"
            ),
            "batch norm": FullyConnected(widths, "relu", he, normalization="batch"),
        }
        for name, net in families.items():
            gradient = compiled_gradient(nx, _functional(nx, net))
            norms = []
            for _ in range(nets):
                parameters = net.initialize(nx, stream, dtype="float64")
                x, v = (stream.normal((BATCH, n), dtype="float64") for _ in range(2))
                slopes = gradient(parameters, x, v)[1]
                norms.append(np.linalg.norm(nx.to_numpy(slopes["stack0/weight"])[0]))
            medians.setdefault(name, []).append(float(np.median(norms)))
    return {f"remedy/{name}": Quantity(np.array(values)) for name, values in medians.items()}, []


def _functional(nx: Backend, net: FullyConnected) -> Callable[..., Array]:
    """Return a random linear functional of the net's outputs, averaged over the batch."""

    def functional(parameters: dict[str, Array], x: Array, v: Array) -> Array:
        return nx.ops.sum(net.output(nx, parameters, x) * v) / BATCH

    return functional


def _finding(
    nx: Backend,
    quantities: dict[str, Quantity],
    lengths: Sequence[int],
    layers: Sequence[int],
) -> str:
    def at(name: str, k: int = -1) -> float:
        return float(quantities[name].values[k])

    def power(name: str) -> str:
        return f"10**{at(f'median/{name}') / math.log(10):.1f}"

    how = (
        "automatic differentiation"
        if "hvp" in nx.capabilities
        else ("central differences of gradients in float64")
    )
    steps = ", ".join(
        f"{name} {at(f'escape/{name}', 0):.0f} and {at(f'escape/{name}'):.0f}" for name in RATES
    )
    wide = "; ".join(
        f"{profile}: {power(f'gradient/relu, {profile}')} and {power(f'Hessian/relu, {profile}')}"
        for profile in PROFILES
    )
    return (
        f"In chains of {lengths[-1]} layers the median gradient is "
        f"{power('gradient/xavier, normal')} with Xavier's and {power('gradient/he, normal')} with "
        f"He's Gaussian weights, the median second derivative {power('Hessian/xavier, normal')} "
        f"and {power('Hessian/he, normal')}, where the gradient's second moments are 1 "
        f"and 2**{lengths[-1] - 1} (Hessians by {how}). ReLU nets of {layers[-1]} layers with He "
        f"weights, gradient and Hessian: {wide}. From equal weights of {PLATEAU} a chain of "
        f"{CHAINS_TO_ESCAPE[0]} and one of {CHAINS_TO_ESCAPE[-1]} layers are off the plateau after "
        f"{steps} steps; the flow takes as long as {at('escape/flow', 0):.2g} and "
        f"{at('escape/flow'):.4g} steps of descent. "
        f"Residual chains with branches scaled by 1/sqrt(depth) keep a median gradient of "
        f"{math.exp(at('median/gradient/residual / sqrt(depth)')):.2g}; in ReLU nets of width "
        f"{REMEDY_WIDTH} and {layers[-1]} layers the gradient is {at('remedy/plain'):.2g} without "
        f"help, {at('remedy/residual'):.2g} with scaled residual branches and "
        f"{at('remedy/batch norm'):.2g} with batch normalization."
    )
