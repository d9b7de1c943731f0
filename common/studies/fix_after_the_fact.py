"""A net was set up to vanish, another to explode: which remedy makes them train after the fact?

Plain ReLU nets on the digits, all layers but the last as wide as the image, without biases, whose
weights are `dying` or `exploding` times He's. Each layer multiplies signal and gradient by that
factor: the logarithm of the squared norm is a sum of independent terms ``ln(s^2 chi2_K)``, K ~
Binomial(64, 1/2), at any width (`isometry.common.laws.propagation`), and what shortcuts make of it
is a recursion (`isometry.common.laws.shortcuts`). Gradient descent fails on both nets. Every remedy
of `isometry.common.networks.remedies` is then switched on alone, at fixed settings that are the
same for both nets, and last the best change of the training with the best change of the net.

A remedy trains if the accuracy on the images that it is trained on reaches 90 % within `steps`; its
largest safe rate is one that does no harm (`isometry.common.networks.remedies`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import propagation, shortcuts
from isometry.common.networks.fully_connected import GATE
from isometry.common.networks.gradients import both_passes
from isometry.common.networks.remedies import REMEDIES, Bench, Options, Row, together
from isometry.common.networks.training import CLASSES, PIXELS, digits_data
from isometry.common.results import Check, Quantity
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["KINDS", "MENDS", "NETS", "run"]

Array = Any
Arrays = dict[str, Array]

NETS = ("dying", "exploding")
LEARNED, LOST = 0.8, 0.3  # accuracy: what the checks are content with
PROBES, DRAWS = 64, 4  # images and nets of the per-layer picture
FALSE_ALARM = 1e-9

NOTHING, BEST = "nothing", "best two"
MENDS = {
    "dying": ("residual", "dense", "highway", "SkipInit", "batch norm", "initialization"),
    "exploding": ("clip by value", "LARS", "LAMB", "Adam", "batch norm", "initialization"),
}
"""Remedies that are claimed to mend each net at its default size."""
WHY = {
    "dying": "signal and gradient pass beside the weights, or their scale is divided out or right "
    "(isometry.common.laws.shortcuts)",
    "exploding": "the length of a step does not grow with the gradient, or nothing explodes "
    "(isometry.common.laws.shortcuts)",
}
KINDS = (NOTHING, "residual", "dense", "highway", "SkipInit", "batch norm")
"""Remedies of the per-layer picture."""


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depth: int = 8,
    dying: float = 0.2,
    exploding: float = 2.0,
    steps: int = 100,
    remedies: str = "",
) -> Findings:
    """Train both nets with every remedy alone, then with the best two.

    Parameters
    ----------
    depth : int
        Layers, at least 3.
    dying : float
        Weights of the net that vanishes, as a multiple of He's: above 0 and below 1.
    exploding : float
        Weights of the net that explodes, as a multiple of He's: above 1, at most 10.
    steps : int
        Steps of training at most.
    remedies : str
        Comma-separated names of remedies to try beside nothing; empty for all.
    """
    checks.integer("depth", depth, low=3, high=50)
    if checks.finite("dying", dying, low=0.0, open_low=True) >= 1:
        raise InvalidArgument(f"dying must be below 1, or nothing vanishes; received {dying:g}")
    if checks.finite("exploding", exploding, low=1.0, open_low=True) > 10:
        raise InvalidArgument(f"exploding must be at most 10; received {exploding:g}")
    checks.integer("steps", steps, low=1, high=10**5)
    names = [
        checks.choice("remedy", name.strip(), tuple(REMEDIES))
        for name in remedies.split(",")
        if name.strip()
    ]
    chosen = [name for name in REMEDIES if not names or name in names or name == NOTHING]
    gains = {"dying": dying, "exploding": exploding}
    bench = Bench(nx, digits_data(seed), seed, depth, steps, gains)
    total = len(KINDS) + len(NETS) * (len(chosen) + 1)
    quantities, found = _picture(bench, lambda k, what: tell(k, total, what))
    rows: dict[str, dict[str, Row]] = {}
    best: dict[str, str] = {}
    for net in NETS:
        rows[net] = {}
        for name in chosen:
            tell(len(KINDS) + sum(map(len, rows.values())), total, f"{net}: {name}")
            rows[net][name] = bench.row(net, REMEDIES[name])
        pair = _best_two(rows[net])
        if pair:
            tell(len(KINDS) + sum(map(len, rows.values())), total, f"{net}: {BEST}")
            rows[net][BEST] = bench.row(net, together(*pair))
            best[net] = " + ".join(pair)
    tell(total, total, "done")
    quantities |= _quantities(rows)
    found += _memory(rows["dying"], depth)
    if (depth, dying, exploding) == (8, 0.2, 2.0) and steps >= 100:
        found += [claim for net in NETS for claim in _outcomes(net, rows[net])]
    return Findings(quantities, tuple(found), _finding(rows, best, steps))


def _best_two(rows: dict[str, Row]) -> tuple[str, str] | None:
    """Return the best change of the training and that of the net, if both were tried.

    By steps to 90 %, and where none gets there by accuracy.
    """
    best = []
    for side in (False, True):
        names = [n for n in rows if n != NOTHING and REMEDIES[n].changes_network is side]
        if not names:
            return None
        best.append(min(names, key=lambda name: (rows[name].steps, -rows[name].accuracy)))
    return best[0], best[1]


# --- the picture, layer by layer -----------------------------------------------------------------


def _picture(
    bench: Bench, tell: Callable[[int, str], None]
) -> tuple[dict[str, Quantity], list[Check]]:
    """Measure signal and gradient in each layer of the untrained nets, beside their laws."""
    depth = bench.depth
    mean = float(bench.data.x[:PROBES].mean())
    quantities = {"layer": Quantity(np.arange(1, depth), "layer", ulp=0)}
    found = []
    for k, kind in enumerate(KINDS):
        options = REMEDIES[kind].options
        tell(k, f"layer by layer: {kind}")
        measure = both_passes(bench.nx, bench.network(1.0, options), "nudge")
        for net in NETS:
            passes = _passes(bench, net, options, measure)
            z, g = (_rms([p[part] for p in passes]) for part in (0, 1))
            quantities[f"signal/{net}/{kind}"] = Quantity(z)
            quantities[f"gradient/{net}/{kind}"] = Quantity(g / g[-1])
            signal, gradient = _theory(kind, depth, bench.gains[net], mean)
            quantities[f"signal/{net}/{kind}/theory"] = Quantity(signal)
            quantities[f"gradient/{net}/{kind}/theory"] = Quantity(gradient)
            if kind == NOTHING:
                found += _growth(bench, net, passes)
            if kind == "SkipInit":
                found.append(_identity(net, passes))
    return quantities, found


def _rms(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the root mean square of each layer, over nets, images and units."""
    return np.asarray(np.sqrt(np.square(layers).mean(axis=(0, 2, 3))))


def _theory(kind: str, depth: int, gain: float, mean: float) -> tuple[np.ndarray, np.ndarray]:
    if kind == "batch norm":
        signal = gain * np.sqrt([2.0, *[1.0] * (depth - 2)])
        return signal, shortcuts.BATCH_NORM ** (np.arange(depth - 2, -1, -1) / 2)
    shortcut = "none" if kind == NOTHING else kind.lower()
    curves = shortcuts.propagate(shortcut, PIXELS, depth, gain, mean=mean, gate=GATE)
    return np.sqrt(curves.preactivation[:-1]), np.sqrt(curves.gradient)


Pass = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""z (L - 1, batch, width), gradients in h of the same shape, z_L and v (batch, classes)."""


def _passes(bench: Bench, net: str, options: Options, measure: Callable[..., Any]) -> list[Pass]:
    nx = bench.nx
    network = bench.network(bench.gains[net], options)
    x, passes = nx.asarray(bench.data.x[:PROBES]), []
    for stream in nx.stream(bench.seed).split(DRAWS):
        parameters = network.initialize(nx, stream)
        v = nx.to_numpy(stream.normal((PROBES, CLASSES)))
        z, g, last = measure(parameters, x, v)
        passes.append((z, g, last, v.astype(np.float64)))
    return passes


def _growth(bench: Bench, net: str, passes: Sequence[Pass]) -> list[Check]:
    """Hold the growth of one image's signal and gradient through all layers to their laws."""
    depth = bench.depth
    x = bench.data.x[0].astype(np.float64)
    forth = [math.log(np.square(last[0]).sum() / np.square(x).sum()) for _, _, last, _ in passes]
    back = [math.log(np.square(g[0, 0]).sum() / np.square(v[0]).sum()) for _, g, _, v in passes]
    variance = 2 * bench.gains[net] ** 2 / PIXELS
    layer = propagation.growth("relu", variance, PIXELS)
    laws = {
        "signal": [*[layer] * (depth - 1), propagation.growth("linear", variance, CLASSES)],
        "gradient": [*[layer] * (depth - 2), propagation.growth("linear", variance, PIXELS)],
    }
    return [
        Check(
            f"{net}: growth of ln ||{what}||**2 through all layers, mean of {DRAWS} nets",
            observed=float(np.mean(logs)),
            expected=sum(law.mean for law in laws[what]),
            bound=propagation.mean_bound(laws[what], DRAWS, FALSE_ALARM),
            source="sum of ln(s**2 chi2_K), K ~ Binomial(64, 1/2); Chernoff's bound "
            "(isometry.common.laws.propagation)",
            unit="nat",
            false_alarm=FALSE_ALARM,
        )
        for what, logs in (("signal", forth), ("gradient", back))
    ]


def _identity(net: str, passes: Sequence[Pass]) -> Check:
    """SkipInit begins as the identity; the first layer is one too where the width stays."""
    off = max(float(np.abs(g - g[-1]).max() / np.abs(g[-1]).max()) for _, g, _, _ in passes)
    return Check(
        f"{net}: with SkipInit the gradient is the same in every layer, farthest off",
        observed=off,
        expected=0.0,
        bound=0.0,
        source="h + 0 phi(z): no rounding (De and Smith 2020)",
    )


# --- checks and words ----------------------------------------------------------------------------


def _outcomes(net: str, rows: dict[str, Row]) -> list[Check]:
    """Return the claims about accuracies at the default size, with wide margins."""
    bare = Check(
        f"{net}: with nothing done it learns less than 30 % of the images",
        observed=rows[NOTHING].accuracy,
        expected=0.0,
        bound=LOST,
        source="a layer multiplies signal and gradient by 0.2 or by 2: the growth above",
    )
    return [bare] + [
        Check(
            f"{net}: with {name} it learns at least 80 % of the images",
            observed=rows[name].accuracy,
            expected=1.0,
            bound=1 - LEARNED,
            source=WHY[net],
        )
        for name in MENDS[net]
        if name in rows
    ]


def _memory(rows: dict[str, Row], depth: int) -> list[Check]:
    """Compare the numbers that optimizers remember with their papers'."""
    count = rows[NOTHING].count
    expected = {
        NOTHING: (0, "none"),
        "LARS": (count, "one per parameter (You et al. 2017)"),
        "LAMB": (2 * count, "two per parameter (You et al. 2020)"),
        "NovoGrad": (count + depth, "one per parameter, one per layer (Ginsburg et al. 2019)"),
        "Adam": (2 * count, "two per parameter (Kingma and Ba 2015)"),
    }
    return [
        Check(
            f"{name}: numbers that the optimizer remembers",
            observed=float(rows[name].outcome.state),
            expected=float(numbers),
            bound=0.0,
            source=source,
        )
        for name, (numbers, source) in expected.items()
        if name in rows
    ]


def _quantities(rows: dict[str, dict[str, Row]]) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}
    for net, named in rows.items():
        for name, row in named.items():
            key = f"{net}/{name}"
            found |= {
                f"accuracy/{key}": Quantity(np.array(row.accuracy)),
                f"steps/{key}": Quantity(np.array(row.steps), "step"),
                f"safe rate/{key}": Quantity(np.array(row.safe)),
                f"memory/{key}": Quantity(np.array(row.memory)),
                f"loss/{key}": Quantity(np.array(row.outcome.losses), "nat"),
            }
    return found


def _finding(rows: dict[str, dict[str, Row]], best: dict[str, str], steps: int) -> str:
    text = []
    for net, named in rows.items():
        alone = {name: row for name, row in named.items() if name != BEST}
        trained = sorted((row.steps, name) for name, row in alone.items() if row.steps < math.inf)
        failed = [f"{n} ({row.accuracy:.0%})" for n, row in alone.items() if row.steps == math.inf]
        text.append(
            f"The {net} net reaches 90 % with "
            + (", ".join(f"{name} ({count:.0f} steps)" for count, name in trained) or "none")
            + f"; not within {steps} steps with "
            + (", ".join(failed) or "none")
            + "."
        )
        if net in best:
            row = named[BEST]
            took = f"{row.steps:.0f} steps" if row.steps < math.inf else f"{row.accuracy:.0%}"
            text.append(f"The best two, {best[net]}: {took}.")
    if {"NovoGrad", "Adam"} <= rows["dying"].keys():
        memory = [rows["dying"][name].memory for name in ("NovoGrad", "Adam")]
        text.append(f"NovoGrad remembers {memory[0]:.4f} numbers a parameter, Adam {memory[1]:g}.")
    return " ".join(text)
