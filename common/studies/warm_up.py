"""When does a net need a warm-up of the learning rate, and when does initialization replace it?

Residual nets without normalization, branches of two layers, learn the digits by SGD: from He's
weights, with Fixup, and with batch normalization; each at rates that are powers of 2, with and
without a linear warm-up. He's weights multiply the squared signal by an exact law block by block
(:mod:`isometry.common.laws.residual_growth`), and with it the curvature at the start: gradient
descent stands at most 2 / sharpness there, and a warm-up lets the net walk to where it is less
steep. Fixup's Hessian at the start is known exactly, and is the same at any depth
(:mod:`isometry.common.laws.fixup_start`).

Adam's own reason for a warm-up is another: its first steps are the longest, by an exact law
(:mod:`isometry.common.laws.adam_start`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import adam_start, krylov, propagation, residual_growth
from isometry.common.laws.fixup_start import FixupStart
from isometry.common.laws.perceptron import cross_entropy
from isometry.common.networks import curvature
from isometry.common.networks.residual import Residual
from isometry.common.networks.training import CLASSES, PIXELS, Data, digits_data
from isometry.common.networks.trials import Outcome, Regimen, Trainer
from isometry.common.optimizers.optimizer import Optimizer
from isometry.common.optimizers.rules import SGD, Adam
from isometry.common.optimizers.schedules import WarmUp
from isometry.common.results import Check, Quantity
from isometry.common.statistics import bounds
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["run"]

Array = Any
Part = tuple[dict[str, Quantity], list[Check]]

FALSE_ALARM = 1e-9
NAMES = {"none": "He", "fixup": "Fixup", "batch": "batch norm"}
SCHEDULES = ("bare", "warm")
EXPONENTS = range(1, -17, -1)  # of the rates: tried from the largest down
BELOW = 2  # rates tried below the largest that trains
GOAL = 0.9
DRAWS = 8  # nets whose signal is measured
SHOWN = 64  # images at which the Hessian is taken
LANCZOS = 10
WEIGHTS, ADAM_STEPS = 40_000, 30
ROUNDED = 1e-4  # of float32: of a squared step, of a log-length
DEEP = 32  # blocks of a net with Fixup that is not trained
RULE = SGD(rate=1.0)


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depths: str = "4,8",
    width: int = 64,
    images: int = 512,
    steps: int = 80,
    warm: int = 40,
) -> Findings:
    """Train residual nets with and without a warm-up, and measure where they start.

    Parameters
    ----------
    depths : str
        Comma-separated numbers of blocks, rising, each between 2 and 10; the last at least 4.
    width : int
        Units of each layer, between 32 and 1024.
    images : int
        Digits that the nets learn, between 128 and 1536.
    steps : int
        Of SGD on 64 images each, at most; at least 40.
    warm : int
        Steps of the warm-up, between 5 and half of `steps`.
    """
    asked = _depths(depths)
    checks.integer("width", width, low=32, high=1024)
    checks.integer("images", images, low=128, high=1536)
    checks.integer("steps", steps, low=40, high=10**4)
    checks.integer("warm", warm, low=5, high=steps // 2)
    bench = Bench(nx, seed, width, steps, warm, replace(digits_data(seed), trained=images))
    quantities = {"depth": Quantity(np.array(asked), "block")}
    found: list[Check] = []
    nets = [(blocks, remedy) for blocks in asked for remedy in ("none", "fixup")]
    nets.append((asked[-1], "batch"))
    total = len(nets) + 3
    for done, (what, part) in enumerate(
        (("signal", _growth(bench, asked[-1])), ("Adam", _adam(nx, seed)))
    ):
        tell(done, total, what)
        quantities |= part[0]
        found += part[1]
    rows: list[Row] = []
    for done, (blocks, remedy) in enumerate(nets, 2):
        tell(done, total, f"{NAMES[remedy]}, {blocks} blocks")
        rows.append(_train(bench, blocks, remedy))
    tell(total - 1, total, "curvature")
    named, claims = _curvature(bench, asked)
    tell(total, total, "done")
    quantities |= named | _quantities(rows)
    found += [*claims, *_outcomes(asked, rows, named)]
    return Findings(quantities, tuple(found), _finding(bench, asked, rows, quantities))


def _depths(given: str) -> list[int]:
    try:
        found = [int(part) for part in given.split(",")]
    except ValueError:
        found = []
    if not found or sorted(set(found)) != found or not (found[0] >= 2 and 4 <= found[-1] <= 10):
        raise InvalidArgument(
            "depths must be comma-separated rising integers between 2 and 10, the last at least 4: "
            f"deeper nets of He's weights do not train at any rate tried; received {given!r}"
        )
    return found


@dataclass(frozen=True)
class Bench:
    """What all trials share."""

    nx: Backend
    seed: int
    width: int
    steps: int
    warm: int
    data: Data

    def network(self, blocks: int, remedy: str) -> Residual:
        """Return the net of a number of blocks and a remedy."""
        return Residual((PIXELS, self.width, CLASSES), blocks, remedy)

    def shown(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and labels at which the Hessian is taken, in float64."""
        x, labels = self.data.x[:SHOWN], self.data.labels[:SHOWN]
        return x.astype(np.float64), labels.astype(np.float64)


# --- the signal of He's weights ------------------------------------------------------------------


def _growth(bench: Bench, blocks: int) -> Part:
    """Compare the log-length that He's blocks give one image with its exact law."""
    nx, net = bench.nx, bench.network(blocks + 1, "none")
    x = nx.asarray(bench.data.x[:1])
    forward = nx.compile(lambda p, x: net.forward(nx, p, x)[1]["signal"])
    signals = [
        nx.to_numpy(forward(net.initialize(nx, stream), x))[:, 0]
        for stream in nx.stream(bench.seed).split(DRAWS)
    ]
    squares = np.square(np.array(signals, dtype=np.float64)).sum(axis=2)  # (draws, blocks + 1)
    logs = np.log(squares / squares[:, :1])
    law, count = residual_growth.block_growth(bench.width), DRAWS * blocks
    bound = propagation.deviation_bound(
        lambda t: count * law.cumulant(t), count * law.mean, count * law.variance, FALSE_ALARM
    )
    claim = Check(
        "He: each block multiplies the squared length of the signal by the law's factor, log-mean",
        observed=float(logs[:, -1].sum()) / count,
        expected=law.mean,
        bound=bound / count + ROUNDED,
        source=f"noncentral chi-square; Chernoff's bound, {DRAWS} nets of {blocks} blocks "
        "(isometry.common.laws.residual_growth)",
        unit="nat",
        false_alarm=FALSE_ALARM,
    )
    quantities = {
        "signal/He": Quantity(logs.mean(axis=0), "nat"),
        "signal/He/theory": Quantity(law.mean * np.arange(blocks + 1), "nat"),
    }
    return quantities, [claim]


# --- Adam ---------------------------------------------------------------------------------------


def _adam(nx: Backend, seed: int) -> Part:
    """Hold the length of Adam's steps on noise, and its adaptive rate, to their exact laws."""
    rule = Adam(rate=1.0)
    optimizer = Optimizer(nx, rule)
    w = {"w": nx.ops.zeros((WEIGHTS,))}
    state, stream = optimizer.start(w), nx.stream(seed).child(1)
    numbers = range(1, ADAM_STEPS + 1)
    squares, inverse = np.empty(ADAM_STEPS), np.empty((ADAM_STEPS, WEIGHTS))
    for k in numbers:
        moved, state = optimizer.step(w, {"w": stream.normal((WEIGHTS,))}, state)
        squares[k - 1] = np.square(nx.to_numpy(moved["w"]).astype(np.float64)).mean()
        second = nx.to_numpy(state.arrays["w/second"]).astype(np.float64)
        inverse[k - 1] = ((1 - rule.decay_second**k) / second) ** 0.5
    b1, b2 = rule.decay_first, rule.decay_second
    exact = np.array([adam_start.step_square(b1, b2, k) for k in numbers])
    largest = np.array([adam_start.largest_square(b1, b2, k) for k in numbers])
    rate = FALSE_ALARM / ADAM_STEPS
    # a variable between 0 and M has a variance of at most M times its mean
    allowed = [
        bounds.bernstein(m * e, m, WEIGHTS, rate) for m, e in zip(largest, exact, strict=True)
    ]
    means, deviations = _adaptive_rate(b2)
    groups = math.ceil(8 * math.log(ADAM_STEPS / FALSE_ALARM))
    medians = [np.median([part.mean() for part in np.array_split(row, groups)]) for row in inverse]
    told = np.isfinite(deviations)
    spread = deviations * math.sqrt(4 / (WEIGHTS // groups)) + ROUNDED * means
    off = np.abs(np.array(medians) - means)[told] / spread[told]
    found = [
        Check(
            "Adam: mean square of each step on noise, in units of the rate, farthest off in units "
            "of its bound",
            observed=float((np.abs(squares - exact) / (np.array(allowed) + ROUNDED)).max()),
            expected=0.0,
            bound=1.0,
            source="E m**2 / v (isometry.common.laws.adam_start); Bernstein's inequality, m**2 / v "
            "being bounded",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            "Adam: mean of the adaptive rate 1 / sqrt(v) from the third step on, farthest off in "
            "units of its bound",
            observed=float(off.max()),
            expected=0.0,
            bound=1.0,
            source="E v**(-1/2) and its exact variance (isometry.common.laws.adam_start); median "
            f"of {groups} means (Lugosi and Mendelson 2019, theorem 2): two deviations of one",
            false_alarm=FALSE_ALARM,
        ),
    ]
    quantities = {
        "adam/step": Quantity(np.sqrt(squares), "rate"),
        "adam/step/theory": Quantity(np.sqrt(exact), "rate"),
        "adam/deviation/theory": Quantity(deviations),
    }
    return quantities, found


def _adaptive_rate(decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of 1 / sqrt(v) at each step; infinite at the first."""
    means, squares = (
        np.array([adam_start.inverse_moment(decay, k, p) for k in range(1, ADAM_STEPS + 1)])
        for p in (0.5, 1.0)
    )
    with np.errstate(invalid="ignore"):
        return means, np.where(np.isfinite(squares), np.sqrt(squares - np.square(means)), np.inf)


# --- training -----------------------------------------------------------------------------------


@dataclass
class Row:
    """What came of one net: outcomes by schedule and exponent of the rate."""

    blocks: int
    remedy: str
    outcomes: dict[str, dict[int, Outcome]] = field(default_factory=dict)

    def largest(self, schedule: str) -> float:
        """Return the largest rate that reached the goal, 0 if none did."""
        good = [e for e, o in self.outcomes[schedule].items() if o.reached(GOAL) is not None]
        return 2.0 ** max(good) if good else 0.0

    def fastest(self, schedule: str) -> float:
        """Return the fewest steps to the goal over the rates; infinite if none reached it."""
        reached = (o.reached(GOAL) for o in self.outcomes[schedule].values())
        return min((float(step) for step in reached if step is not None), default=math.inf)


def _train(bench: Bench, blocks: int, remedy: str) -> Row:
    nx, net = bench.nx, bench.network(blocks, remedy)
    trainer = Trainer(nx, net, bench.data)
    start = net.initialize(nx, nx.stream(bench.seed))
    row = Row(blocks, remedy)
    for schedule in SCHEDULES:
        row.outcomes[schedule] = tried = {}
        for exponent in EXPONENTS:
            rate = 2.0**exponent
            plan = WarmUp(rate=rate, steps=bench.warm) if schedule == "warm" else None
            regimen = Regimen(
                rule=RULE,
                rate=rate,
                schedule=plan,
                steps=bench.steps,
                seed=bench.seed,
                until=GOAL,
            )
            with np.errstate(over="ignore", invalid="ignore"):  # NumPy's; a trial may diverge
                tried[exponent] = trainer.run(start, regimen)
            if rate <= 2.0**-BELOW * row.largest(schedule):
                break
    return row


# --- curvature ----------------------------------------------------------------------------------


def _curvature(bench: Bench, depths: list[int]) -> Part:
    """Return sharpness at the start, He's measured and Fixup's exact, and hold Fixup's to laws."""
    nx = bench.nx
    measured = []
    for blocks in depths:
        net = bench.network(blocks, "none")
        product = curvature.HessianProduct(nx, _loss(nx, net))
        measured.append(_sharpness(bench, product, net.initialize(nx, nx.stream(bench.seed))))
    starts = {blocks: _fixup_start(bench, blocks) for blocks in (*depths, DEEP)}
    found = [_coupling_claim(start, blocks) for blocks, start in starts.items()]
    found += _fixup_claims(bench, starts[depths[-1]], depths[-1])
    limits = [start.sharpness(start.kernel) for start in starts.values()]
    unscaled = [start.sharpness(blocks * start.kernel) for blocks, start in starts.items()]
    quantities = {
        "sharpness/depth": Quantity(np.array(list(starts)), "block"),
        "sharpness/He": Quantity(np.array(measured)),
        "sharpness/Fixup": Quantity(np.array([start.sharpness() for start in starts.values()])),
        "sharpness/Fixup/limit": Quantity(np.array(limits)),
        "sharpness/Fixup without its factor": Quantity(np.array(unscaled)),
    }
    return quantities, found


def _loss(nx: Backend, net: Residual) -> Any:
    return lambda p, x, labels: cross_entropy(nx, net.output(nx, p, x), labels)


def _fixup_start(bench: Bench, blocks: int) -> FixupStart:
    nx, net = bench.nx, bench.network(blocks, "fixup")
    x, labels = bench.shown()
    parameters = net.initialize(nx, nx.stream(bench.seed), dtype="float64")
    _, trace = net.forward(nx, parameters, nx.asarray(x))
    return FixupStart(x, nx.to_numpy(trace["signal"])[0], nx.to_numpy(trace["hidden"]), labels)


def _coupling_claim(start: FixupStart, blocks: int) -> Check:
    return Check(
        f"Fixup, {blocks} blocks: what the branches couple the classifier to",
        observed=start.coupling,
        expected=math.sqrt(np.trace(start.kernel)),
        bound=start.departure_bound(FALSE_ALARM),
        source="arc-cosine kernel, the same at any depth; Lipschitz functions of Gaussian weights "
        "(isometry.common.laws.fixup_start)",
        false_alarm=FALSE_ALARM,
    )


def _fixup_claims(bench: Bench, start: FixupStart, blocks: int) -> list[Check]:
    """Hold the loss and the Hessian of the net at its start to what they are."""
    nx, net = bench.nx, bench.network(blocks, "fixup")
    x, labels = (nx.asarray(a) for a in bench.shown())
    loss = _loss(nx, net)
    parameters = net.initialize(nx, nx.stream(bench.seed), dtype="float64")
    draws = np.random.default_rng(bench.seed)
    vector = {path: np.zeros(nx.shape_of(a)) for path, a in parameters.items()}
    for path in ("output/weight", "output/bias"):  # no unit of a branch changes its sign along it
        vector[path] = draws.normal(size=vector[path].shape)
    given = {path: nx.asarray(v) for path, v in vector.items()}
    product = curvature.hessian_vector_product(nx, loss, parameters, given, x, labels)
    exact = start.product(vector)
    off = math.hypot(*(np.linalg.norm(nx.to_numpy(product[path]) - exact[path]) for path in exact))
    size = math.hypot(*(np.linalg.norm(a) for a in vector.values()))
    reach = start.reach
    length = math.sqrt(sum(float(np.square(nx.to_numpy(a)).sum()) for a in parameters.values()))
    roundings = 4 * bench.width * (blocks + 2)
    return [
        Check(
            f"Fixup, {blocks} blocks: loss at the start",
            observed=float(nx.to_numpy(loss(parameters, x, labels))),
            expected=math.log(CLASSES),
            bound=1e-14,
            source="all outputs are 0: ln 10, within some roundings",
            unit="nat",
        ),
        Check(
            f"Fixup, {blocks} blocks: Hessian at the start times a change of the classifier",
            observed=off / size,
            expected=0.0,
            bound=curvature.product_error(nx, 16 * reach**4, roundings, length),
            source="closed form (isometry.common.laws.fixup_start); derivatives of orders up to 4 "
            f"of the loss are at most 16 r**4, r its reach; {curvature.method(nx)}",
        ),
    ]


def _sharpness(bench: Bench, product: curvature.HessianProduct, parameters: Any) -> float:
    """Return the largest eigenvalue of the Hessian, by Lanczos in float64.

    Differences of gradients, where there is nothing better, see the kinks of ReLU as curvature too.
    """
    nx = bench.nx
    wide = {path: nx.asarray(nx.to_numpy(a).astype(np.float64)) for path, a in parameters.items()}
    x, labels = (nx.asarray(a) for a in bench.shown())
    count = sum(math.prod(nx.shape_of(a)) for a in wide.values())
    probe = np.random.default_rng(bench.seed).choice([-1.0, 1.0], (1, count))
    return krylov.spectrum(product.at(wide, x, labels), probe, LANCZOS).largest[0]


# --- report -------------------------------------------------------------------------------------


def _row(rows: list[Row], blocks: int, remedy: str) -> Row:
    return next(row for row in rows if (row.blocks, row.remedy) == (blocks, remedy))


def _outcomes(
    depths: list[int], rows: list[Row], curvatures: Mapping[str, Quantity]
) -> list[Check]:
    """Return what the trials must show: who needs a warm-up, and who does not."""
    deepest = depths[-1]
    he, fixed = ([_row(rows, b, remedy) for b in depths] for remedy in ("none", "fixup"))
    gains = [math.log2(_over(row.largest("warm"), row.largest("bare")) or math.nan) for row in he]
    edges = [
        row.largest("warm") * sharpness
        for row, sharpness in zip(he, curvatures["sharpness/He"].values, strict=True)
    ]
    replaced = _over(fixed[-1].largest("bare"), he[-1].largest("warm"))
    among = _over(fixed[-1].largest("bare"), fixed[0].largest("bare"))
    why = "outcome of the trials, rates being powers of 2"

    def at_least(claim: str, value: float, least: float, source: str) -> Check:
        return Check(f"{claim}: {least:g} or more", min(value, least), least, 0.0, source)

    return [
        at_least(
            "He: log2 of what a warm-up multiplies the largest rate that trains by, mean of depths",
            float(np.mean(gains)),
            0.5,
            f"{why}; early steps are small where the net is steep",
        ),
        at_least(
            "He: largest rate that trains with a warm-up, times sharpness at the start",
            min(edges),
            2.0,
            "beyond 2 descent diverges on a fixed quadratic, warmed up or not "
            "(isometry.common.laws.quadratic_stability), which this net is not",
        ),
        at_least(
            f"Fixup, {deepest} blocks: largest rate that trains without a warm-up, over He's with "
            "one",
            replaced,
            2.0,
            f"{why}; its sharpness at the start is below He's",
        ),
        Check(
            "Fixup: largest rate that trains without a warm-up, deepest net over shallowest, log2",
            observed=math.log2(among or math.nan),
            expected=0.0,
            bound=1.0,
            source=f"{why}; Hessian at the start the same at any depth (Zhang, Dauphin and Ma "
            "2019, section 3)",
        ),
    ]


def _over(above: float, below: float) -> float:
    """Return the ratio of two rates; infinite where the second net did not train, 0 the first."""
    return above / below if below else math.inf if above else 0.0


def _quantities(rows: list[Row]) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}
    for row in rows:
        for schedule in SCHEDULES:
            key = f"{NAMES[row.remedy]}, {row.blocks} blocks/{schedule}"
            tried = row.outcomes[schedule]
            steps = [o.reached(GOAL) for o in tried.values()]
            found |= {
                f"largest/{key}": Quantity(np.array(row.largest(schedule))),
                f"rate/{key}": Quantity(2.0 ** np.array([float(e) for e in tried])),
                f"steps/{key}": Quantity(
                    np.array([math.inf if step is None else float(step) for step in steps]), "step"
                ),
            }
    return found


def _finding(
    bench: Bench, depths: list[int], rows: list[Row], quantities: Mapping[str, Quantity]
) -> str:
    deepest = depths[-1]

    def told(remedy: str) -> str:
        row = _row(rows, deepest, remedy)
        parts = [
            f"{row.largest(schedule):g} {label} ({row.fastest(schedule):g} steps to 90 % at best)"
            for schedule, label in zip(SCHEDULES, ("without", "with a warm-up"), strict=True)
        ]
        return f"{NAMES[remedy]} {', '.join(parts)}"

    he, ladder, fixed = (quantities[f"sharpness/{k}"].values for k in ("He", "depth", "Fixup"))
    length = quantities["adam/step"].values
    return (
        f"Largest rates at which residual nets of {deepest} blocks learn 90 % of the digits in "
        f"{bench.steps} steps: {'; '.join(told(remedy) for remedy in NAMES)}. The sharpness at the "
        f"start, by {curvature.method(bench.nx)}, is {' and '.join(f'{v:.3g}' for v in he)} with "
        "He's weights at "
        f"{' and '.join(map(str, depths))} blocks, and {fixed.min():.3g} to {fixed.max():.3g} with "
        f"Fixup at {ladder[0]} to {ladder[-1]}: the warm-up treats what Fixup does not have. "
        f"Adam's first step on noise is {length[0]:.3g} of the rate, its step {len(length)} "
        f"{length[-1]:.2g}."
    )
