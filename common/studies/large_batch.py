"""How far can batch size and learning rate grow together, with SGD, LARS and NovoGrad?

The linear scaling rule multiplies the rate with the batch, so that equal epochs go equally far. To
first order it keeps the path (:mod:`isometry.common.laws.minibatch`); descent ends it, which stands
no more than 2 / sharpness. A small net learns the digits for the same number of epochs at batch
sizes from 32 to all images, at rates grown by the same factors: plain SGD, with momentum, LARS,
whose step is a share of the weights' norm, and NovoGrad, whose first step has one norm in each
layer, both whatever the gradient's scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import krylov, minibatch
from isometry.common.laws.perceptron import cross_entropy
from isometry.common.laws.quadratic_stability import edge
from isometry.common.networks import curvature
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.training import CLASSES, PIXELS, TRAINED, digits_data
from isometry.common.networks.trials import Regimen, Trainer
from isometry.common.optimizers.layerwise import LARS, NovoGrad
from isometry.common.optimizers.rules import SGD, Momentum, Rule
from isometry.common.results import Check, Quantity
from isometry.common.statistics.rounding import gamma
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["run"]

Array = Any
Part = tuple[dict[str, Quantity], list[Check]]

BASE = 32  # batch size at which each rule's rate is good
RULES: dict[str, Rule] = {  # with that rate
    "SGD": SGD(rate=2.0**-4),
    "momentum": Momentum(rate=2.0**-7),
    "LARS": LARS(rate=2.0**-9, trust=1.0),
    "NovoGrad": NovoGrad(rate=2.0**-7),
}
FEW, BATCHES = 8, (2, 4)  # examples of which all batches are drawn
STEPS, SLICE = 4, 32  # small steps of least squares, and the examples of each
REACHES = (0.1, 0.01, 0.001)  # rate times the sum of their curvatures
SCALES = (1e-6, 1.0, 1e6)  # of gradients
SHARE = 0.01  # rate of the steps whose length is measured
SHOWN, LANCZOS = 256, 12
LOST, LEARNED = 0.6, 0.65
ROUNDINGS = 10**5  # on the way to one entry of a gradient, at most


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    batches: str = "32,128,512,1536",
    epochs: int = 5,
    width: int = 64,
) -> Findings:
    """Train a net at growing batch sizes and rates, for equal epochs.

    Parameters
    ----------
    batches : str
        Comma-separated batch sizes, rising from 32 to 1536, the number of images.
    epochs : int
        Of each trial, between 2 and 100.
    width : int
        Units of both hidden layers, between 16 and 1024.
    """
    sizes = _sizes(batches)
    checks.integer("epochs", epochs, low=2, high=100)
    checks.integer("width", width, low=16, high=1024)
    bench = Bench(nx, seed, FullyConnected((PIXELS, width, width, CLASSES), "relu", "he_normal"))
    total = 4 + len(RULES) * len(sizes)
    quantities: dict[str, Quantity] = {}
    found: list[Check] = []
    parts = {"noise": _noise, "linear scaling": _path, "length of steps": _lengths}
    for done, (what, part) in enumerate(parts.items()):
        tell(done, total, what)
        named, claims = part(bench)
        quantities |= named
        found += claims
    tell(3, total, "curvature")
    sharpness = _sharpness(bench)
    trainer = Trainer(nx, bench.network, digits_data(seed))
    seen = {}
    for i, (name, rule) in enumerate(RULES.items()):
        seen[name] = Accuracies([], [], [])
        for j, size in enumerate(sizes):
            tell(4 + i * len(sizes) + j, total, f"{name}, batches of {size}")
            found_at = {
                other: _accuracy(bench, trainer, rule, size, rule.rate * other / BASE, epochs)
                for other in (sizes if size == TRAINED else sorted({BASE, size}))
            }
            seen[name].kept.append(found_at[BASE])
            seen[name].scaled.append(found_at[size])
        seen[name].full.extend(found_at.values())
    tell(total, total, "done")
    quantities |= {
        "batch": Quantity(np.array(sizes), "image"),
        "sharpness": Quantity(np.array(sharpness)),
    }
    for name, row in seen.items():
        quantities |= {
            f"accuracy/{name}/scaled": Quantity(np.array(row.scaled)),
            f"accuracy/{name}/kept": Quantity(np.array(row.kept)),
            f"accuracy/{name}/full batch": Quantity(np.array(row.full)),
        }
    found += _outcomes(seen, sizes, sharpness)
    return Findings(
        quantities, tuple(found), _finding(seen, sizes, epochs, sharpness, curvature.method(nx))
    )


def _sizes(given: str) -> list[int]:
    try:
        found = [int(part) for part in given.split(",")]
    except ValueError:
        found = []
    if sorted(set(found)) != found or found[:1] != [BASE] or found[-1:] != [TRAINED]:
        raise InvalidArgument(
            f"batches must be comma-separated rising integers from {BASE} to {TRAINED}; received "
            f"{given!r}"
        )
    return found


@dataclass(frozen=True)
class Bench:
    """What all parts share."""

    nx: Backend
    seed: int
    network: FullyConnected

    def start(self, dtype: str = "float32") -> dict[str, Array]:
        """Return the parameters before the first step."""
        return self.network.initialize(self.nx, self.nx.stream(self.seed), dtype=dtype)

    def loss(self, p: Mapping[str, Array], x: Array, labels: Array) -> Array:
        """Return the mean cross-entropy of a batch."""
        return cross_entropy(self.nx, self.network.output(self.nx, p, x), labels)

    def images(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first images and labels in float64."""
        data = digits_data(self.seed)
        return data.x[:count].astype(np.float64), data.labels[:count].astype(np.float64)


# --- exact laws ----------------------------------------------------------------------------------


def _noise(bench: Bench) -> Part:
    """Take the gradient of every batch of a few examples: its noise is the law's, exactly."""
    nx = bench.nx
    x, labels = bench.images(FEW)
    evaluate = nx.value_and_gradient(nx.compile(bench.loss))
    parameters = bench.start("float64")

    def gradient(chosen: list[int]) -> np.ndarray:
        found = evaluate(parameters, nx.asarray(x[chosen]), nx.asarray(labels[chosen]))[1]
        return curvature.flatten(nx, found)

    def spread(batch: int) -> float:
        chosen = [gradient(list(c)) for c in itertools.combinations(range(FEW), batch)]
        return float(np.square(np.array(chosen) - full).sum(axis=1).mean())

    full = gradient(list(range(FEW)))
    single = spread(1)
    found = [
        Check(
            f"noise of all batches of {batch} out of {FEW} examples, of that of single ones",
            observed=spread(batch) / single,
            expected=minibatch.noise(batch, FEW),
            bound=gamma(ROUNDINGS, "float64") * (1 + float(full @ full) / single),
            source="(N - m) / (m (N - 1)) (Cochran 1977, theorem 2.2); all batches, so no chance",
        )
        for batch in BATCHES
    ]
    return {}, found


def _path(bench: Bench) -> Part:
    """Take small steps of least squares, and the large one that linear scaling puts there."""
    nx, rule = bench.nx, SGD(rate=1.0)
    x, labels = bench.images(STEPS * SLICE)
    target = labels.argmax(axis=1).astype(np.float64)[:, None]
    slices = [slice(k * SLICE, (k + 1) * SLICE) for k in range(STEPS)]
    w = np.random.default_rng(bench.seed).normal(size=PIXELS)

    def loss(p: Mapping[str, Array], x: Array, y: Array) -> Array:
        return nx.ops.mean(nx.ops.square(nx.ops.matmul(x, p["w"]) - y)) / 2

    evaluate = nx.value_and_gradient(nx.compile(loss))

    def descend(parts: list[slice], rate: float) -> np.ndarray:
        p = {"w": nx.asarray(w[:, None])}
        for part in parts:
            slope = evaluate(p, nx.asarray(x[part]), nx.asarray(target[part]))[1]
            p, _ = rule.advance(nx, p, slope, {}, rate=rate)
        return nx.to_numpy(p["w"])[:, 0]

    hessians = np.array([x[part].T @ x[part] / SLICE for part in slices])
    slopes = [x[part].T @ (x[part] @ w[:, None] - target[part]) / SLICE for part in slices]
    steep = sum(float(np.linalg.norm(h, 2)) for h in hessians)
    off, gaps = [], []
    for reach in REACHES:
        rate = reach / steep
        gap = minibatch.scaling_gap(hessians, np.array(slopes)[:, :, 0], rate)
        small = descend(slices, rate)
        moved = small - descend([slice(0, STEPS * SLICE)], STEPS * rate)
        error = gap.remainder + gamma(ROUNDINGS, "float64") * float(np.linalg.norm(w))
        off.append(float(np.linalg.norm(moved - gap.leading)) / error)
        gaps.append(float(np.linalg.norm(moved) / np.linalg.norm(small - w)))
    claim = Check(
        f"least squares: {STEPS} small steps less the large one, off the term of order rate**2 in "
        "units of the terms after it",
        observed=max(off),
        expected=0.0,
        bound=1.0,
        source="r**2 sum_{i<j} H_j g_i, the remainder bounded (isometry.common.laws.minibatch)",
    )
    quantities = {
        "gap/reach": Quantity(np.array(REACHES)),
        "gap/share of the way": Quantity(np.array(gaps)),
    }
    return quantities, [claim]


def _lengths(bench: Bench) -> Part:
    """Measure the first step of LARS and NovoGrad in each layer, at gradients of any scale."""
    nx = bench.nx
    x, labels = bench.images(FEW)
    p = bench.start("float64")
    gradient = nx.value_and_gradient(bench.loss)(p, nx.asarray(x), nx.asarray(labels))[1]
    found = []
    for name, rule in {"LARS": LARS(rate=SHARE, trust=1.0), "NovoGrad": NovoGrad(eps=0.0)}.items():
        off = []
        for scale in SCALES:
            scaled = {path: scale * g for path, g in gradient.items()}
            moved, _ = rule.advance(nx, p, scaled, {}, rate=SHARE)
            for path, w in p.items():
                before, after = nx.to_numpy(w), nx.to_numpy(moved[path])
                length = float(np.linalg.norm(before))
                step = float(np.linalg.norm(after - before))
                off.append(abs(step / (SHARE * (length if name == "LARS" else 1.0)) - 1))
        found.append(
            Check(
                f"{name}: length of the first step in each layer, "
                + ("of rate ||w||" if name == "LARS" else "of the rate")
                + f", gradients times {SCALES[0]:g} to {SCALES[-1]:g}: largest relative error",
                observed=max(off),
                expected=0.0,
                bound=gamma(ROUNDINGS, "float64") / SHARE,
                source="You, Gitman and Ginsburg 2017, algorithm 1; Ginsburg et al. 2019, "
                "algorithm 1; rounding of float64",
            )
        )
    return {}, found


def _sharpness(bench: Bench) -> float:
    """Return the largest eigenvalue of the Hessian at the start, by Lanczos.

    Differences of gradients, where there is nothing better, see the kinks of ReLU as curvature too.
    """
    nx = bench.nx
    x, labels = (nx.asarray(a) for a in bench.images(SHOWN))
    parameters = bench.start("float64")
    size = sum(math.prod(nx.shape_of(w)) for w in parameters.values())
    probe = np.random.default_rng(bench.seed).choice([-1.0, 1.0], (1, size))
    apply = curvature.HessianProduct(nx, bench.loss).at(parameters, x, labels)
    return krylov.spectrum(apply, probe, LANCZOS).largest[0]


# --- training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accuracies:
    """Of a rule at each batch size, with the rate in proportion and with that of batches of 32.

    `full` are those of the full batch at the rates in proportion to each size.
    """

    scaled: list[float]
    kept: list[float]
    full: list[float]


def _accuracy(
    bench: Bench, trainer: Trainer, rule: Rule, size: int, rate: float, epochs: int
) -> float:
    """Return the accuracy on the images trained on after some epochs; of guessing if it failed."""
    steps = math.ceil(epochs * TRAINED / size)
    regimen = Regimen(
        rule=rule, rate=rate, batch=size, steps=steps, seed=bench.seed, until=2.0, look=steps
    )
    with np.errstate(over="ignore", invalid="ignore"):  # NumPy's; a trial may diverge
        outcome = trainer.run(bench.start(), regimen)
    return 1 / CLASSES if outcome.failed else outcome.accuracies[-1]


def _outcomes(seen: Mapping[str, Accuracies], sizes: list[int], sharpness: float) -> list[Check]:
    largest = RULES["SGD"].rate * sizes[-1] / BASE
    why = f"outcome of the trials, rate and batch times {sizes[-1] // BASE}"
    beyond = "SGD: rate scaled to the full batch, times sharpness at the start, over the edge"
    found = [
        Check(
            f"{beyond}: 1 or more",
            observed=min(largest * sharpness / edge(0.0), 1.0),
            expected=1.0,
            bound=0.0,
            source="gradient descent diverges on a quadratic beyond 2 / sharpness "
            "(isometry.common.laws.quadratic_stability)",
        ),
        Check(
            f"SGD: accuracy at the full batch and the scaled rate, at most {LOST:g}",
            observed=seen["SGD"].scaled[-1],
            expected=LOST / 2,
            bound=LOST / 2,
            source=f"{why}: beyond the edge",
        ),
    ]
    middle, half = (1 + LEARNED) / 2, (1 - LEARNED) / 2
    reasons = {
        "momentum": "edge 2 (1 + m) / sharpness at a rate (1 - m) times as large",
        "LARS": "steps of a share of the weights' norm",
        "NovoGrad": "gradients divided by their norms",
    }
    return found + [
        Check(
            f"{name}: accuracy at the full batch and the scaled rate, at least {LEARNED:g}",
            observed=seen[name].scaled[-1],
            expected=middle,
            bound=half,
            source=f"{why}: {reason}",
        )
        for name, reason in reasons.items()
    ]


def _finding(
    seen: Mapping[str, Accuracies], sizes: list[int], epochs: int, sharpness: float, how: str
) -> str:
    rows = "; ".join(
        f"{name} {', '.join(f'{100 * a:.0f} %' for a in row.scaled)}" for name, row in seen.items()
    )
    best = ", ".join(f"{name} {100 * max(row.full):.0f} %" for name, row in seen.items())
    return (
        f"Accuracy after {epochs} epochs at batches of {', '.join(map(str, sizes))}, rates grown "
        f"in proportion: {rows}. The sharpness at the start is {sharpness:.3g}, by {how}: the edge "
        f"of plain descent is at a rate of {edge(0.0) / sharpness:.2g}; linear scaling asks for "
        f"{RULES['SGD'].rate * sizes[-1] / BASE:g} at the full batch. At the best of these rates "
        f"the full batch reaches: {best}."
    )
