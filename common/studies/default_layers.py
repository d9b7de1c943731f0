"""What does a net of layers as they come do to the signal, and to the gradient that comes back?

Every library's dense layer, with all at its default, ``z_l = W_l h_{l-1} + b_l``: its law, as
`isometry.common.recipes.behaviours` states it and the tests hold it to what the library draws,
drawn by the backend. Square nets of several widths, depths and activations are run forward, and
backward from a functional of the output with entries N(0, 1). Beside the root mean squares of z_l
and of the gradient in it stands mean-field theory (:mod:`isometry.common.laws.signals`), the limit
of infinite width.

What is checked holds at any width: given h_{l-1}, z_l has independent entries of mean 0 and
variance ``s_w^2 ||h_{l-1}||^2 + s_b^2``, strictly sub-Gaussian whichever the law.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import signals
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.mean_field import ACTIVATIONS as REFERENCES
from isometry.common.networks.activations import ACTIVATIONS
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.passes import Runner
from isometry.common.recipes.behaviours import BEHAVIOURS
from isometry.common.results import Check, Quantity
from isometry.common.statistics.bounds import sub_gaussian_square
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

FALSE_ALARM = 1e-9
EXAMPLES = 16


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    activations: str = "tanh,relu,sigmoid",
    widths: str = "32,128",
    depths: str = "5,15,50",
    networks: int = 2,
) -> Findings:
    """Send a signal through nets of default layers, and a gradient back.

    Parameters
    ----------
    activations : str
        Comma-separated, of linear, relu, leaky_relu, tanh and sigmoid.
    widths : str
        Comma-separated numbers of units of every layer, and of the input.
    depths : str
        Comma-separated numbers of layers.
    networks : int
        Independent nets of each kind.
    """
    checks.integer("networks", networks, low=1, high=10**4)
    names = [
        checks.choice("activation", a.strip(), tuple(ACTIVATIONS)) for a in activations.split(",")
    ]
    sizes = {"width": _integers("widths", widths), "depth": _integers("depths", depths)}
    stream = nx.stream(seed)
    kinds = [(a, n, d) for a in names for n in sizes["width"] for d in sizes["depth"]]
    quantities = {
        "width": Quantity(np.array(sizes["width"]), "unit", ulp=0),
        "depth": Quantity(np.array(sizes["depth"]), "layer", ulp=0),
    }
    ratios: dict[str, list[np.ndarray]] = {library: [] for library in BEHAVIOURS["dense"]}
    for k, (activation, width, depth) in enumerate(kinds):
        tell(k, len(kinds), f"{activation}, {depth} layers of {width} units")
        x = _inputs(stream, nx, width)
        runner = Runner(nx, _network(activation, width, depth, "torch"), x, "float64")
        for library in ratios:
            network = _network(activation, width, depth, library)
            laws = _laws(library, width)
            forward, backward = [], []
            for _ in range(networks):
                parameters = network.initialize(nx, stream, dtype="float64")
                z = runner.preactivations(parameters)
                forward.append([math.sqrt(np.mean(np.square(a))) for a in z])
                g = runner.gradients(parameters, stream, "offset")
                backward.append([math.sqrt(np.mean(np.square(a))) for a in g])
                ratios[library].append(_ratios(activation, nx.to_numpy(x), z, laws))
            key = f"{library}/{activation}/{width}/{depth}"
            signal, gradient = _theory(activation, width, depth, laws)
            quantities |= {
                f"{key}/signal": Quantity(np.array(forward)),
                f"{key}/signal/theory": Quantity(signal),
                f"{key}/gradient": Quantity(np.array(backward)),
                f"{key}/gradient/theory": Quantity(gradient),
            }
    tell(len(kinds), len(kinds), "done")
    found = tuple(_check(library, np.concatenate(r)) for library, r in ratios.items())
    return Findings(quantities, found, _finding(quantities, names, sizes))


def _integers(name: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1 or max(values) > 10**5:
        raise InvalidArgument(
            f"{name} must be numbers from 1 to 100000 with commas between; received {text!r}"
        )
    return values


def _laws(library: str, width: int) -> tuple[Distribution, Distribution]:
    """Return the laws of weights and biases."""
    dense = BEHAVIOURS["dense"][library]
    sizes = {"fan_in": width, "fan_out": width}
    return dense.kernel.exact(sizes), dense.bias.exact(sizes)


def _network(activation: str, width: int, depth: int, library: str) -> FullyConnected:
    weight, bias = _laws(library, width)
    return FullyConnected((width,) * (depth + 1), activation, weight, bias)


def _inputs(stream: Stream, nx: Backend, width: int) -> object:
    """Return examples (EXAMPLES, width) of directions at random, of mean square 1."""
    x = nx.to_numpy(stream.normal((EXAMPLES, width), dtype="float64"))
    x = x * math.sqrt(width) / np.linalg.norm(x, axis=1, keepdims=True)
    return nx.asarray(x, dtype="float64")


def _theory(
    activation: str, width: int, depth: int, laws: tuple[Distribution, Distribution]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the root mean squares of z_l, and of the gradient in it, of infinitely wide nets."""
    weight, bias = (law.moments[1] for law in laws)
    found = signals.propagate(activation, (width,) * (depth + 1), (weight,) * depth, bias=bias)
    return np.sqrt(width * weight * found.second[:-1] + bias), np.sqrt(found.gradient)


def _ratios(
    activation: str,
    x: np.ndarray,
    z: list[np.ndarray],
    laws: tuple[Distribution, Distribution],
) -> np.ndarray:
    """Return the squares of the first example's z_l over their variance, given the layer before.

    A layer after one of zeros, without biases, has none.
    """
    weight, bias = (law.moments[1] for law in laws)
    phi = REFERENCES[activation].value
    found = []
    for h, after in zip([x[0], *(phi(a[0]) for a in z[:-1])], z, strict=True):
        variance = weight * float(h @ h) + bias
        if variance > 0:
            found.append(np.square(after[0]) / variance)
    return np.concatenate(found)


def _check(library: str, ratios: np.ndarray) -> Check:
    low, high = sub_gaussian_square(ratios.size, FALSE_ALARM)
    return Check(
        f"{library}: every layer's preactivations have the variance of its default law",
        observed=float(ratios.mean()),
        expected=1.0,
        bound=max(1 - low, high - 1),
        source="mean of z^2 / (s_w^2 ||h||^2 + s_b^2) of the layer before, exactly 1 at any width; "
        "bound for strictly sub-Gaussian entries (isometry.common.statistics.bounds)",
        false_alarm=FALSE_ALARM,
    )


def _finding(
    quantities: dict[str, Quantity], activations: list[str], sizes: dict[str, list[int]]
) -> str:
    width, depth = max(sizes["width"]), max(sizes["depth"])

    def grown(library: str, activation: str, what: str, ends: tuple[int, int]) -> str:
        rows = quantities[f"{library}/{activation}/{width}/{depth}/{what}"].values
        start, end = (np.sqrt(np.mean(np.square(rows[:, k]))) for k in ends)
        return f"{end / start:.2g}" if start else "0"

    parts = [
        f"{activation}: "
        + ", ".join(
            f"{library} {grown(library, activation, 'signal', (0, -1))} and "
            f"{grown(library, activation, 'gradient', (-1, 0))}"
            for library in BEHAVIOURS["dense"]
        )
        for activation in activations
    ]
    return (
        f"Through {depth} dense layers of {width} units as they come, preactivations change from "
        f"the first to the last, and their gradient from the last to the first, by the factors "
        f"{'; '.join(parts)}."
    )
