"""Very deep plain nets: how they learn, where contrasts fail, and what signal and gradient do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    decades,
    every,
    first,
    legend,
    log10,
    name_ends,
    styles,
    values,
)
from isometry.common.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

GREY = "#777777"
SMOOTH = 5  # steps that a loss is averaged over: batches differ


def _names(result: Result, prefix: str) -> list[str]:
    """Return the nets of a result that have a quantity of this prefix, without their theory."""
    found = (name.removeprefix(prefix) for name in result.quantities if name.startswith(prefix))
    return [name for name in found if "/" not in name]


def _contrasts(results: Results) -> list[str]:
    """Return the nets that differ from the critical one in a way that shows, and itself."""
    names = _names(first(results), "accuracy/")
    return [name for name in names if name not in ("linear", "convolutional")]


def _training(figure: Figure, results: Results) -> None:
    loss, accuracy = figure.subplots(1, 2)
    _losses(loss, results)
    _accuracies(accuracy, results)
    legend(figure, loss)


def _losses(ax: Axes, results: Results) -> None:
    ends = {}
    for name in _contrasts(results):
        curve = _smooth(values(first(results), f"loss/{name}"))
        if curve.size and name != "critical":
            ax.plot(np.arange(curve.size), curve, color=GREY, linewidth=0.7)
            ends[name] = float(curve[-1])
    for k, (column, style) in enumerate(styles(results).items()):
        curve = _smooth(values(results[column], "loss/critical"))
        marks = every(curve.size, k, len(results))
        ax.plot(np.arange(curve.size), curve, **style, markevery=marks, label=column)
        ends.setdefault("critical", float(curve[-1]))
    ax.axhline(math.log(10), color="black", linewidth=0.8, linestyle=":")
    ax.set(xlabel="step", ylabel="cross-entropy (nat)", ylim=(0, 3.5))
    ax.set_title(f"training at {_depth(results)} layers")
    name_ends(ax, {name: min(end, 3.4) for name, end in ends.items()})


def _smooth(curve: np.ndarray) -> np.ndarray:
    kernel = np.ones(min(SMOOTH, max(curve.size, 1)))
    return np.convolve(curve, kernel / kernel.size, mode="valid") if curve.size else curve


def _accuracies(ax: Axes, results: Results) -> None:
    ends = {}
    names = _contrasts(results)
    for name in names:
        depths = values(first(results), f"depth/{name}")
        rows = [values(result, f"accuracy/{name}") for result in results.values()]
        mean = np.mean(rows, axis=0)
        ax.plot(depths, 100 * mean, color=GREY, linewidth=0.7)
        for row, style in zip(rows, styles(results).values(), strict=True):
            ax.plot(depths, 100 * row, **{**style, "linestyle": "none"})
        ends[name] = float(100 * mean[-1])
    ax.set_xscale("log")
    depths = values(first(results), f"depth/{names[-1]}")
    ax.set_xticks(depths, [f"{int(depth)}" for depth in depths])
    ax.minorticks_off()
    ax.axhline(97, color="black", linewidth=0.8, linestyle=":")
    ax.set(xlabel="layers", ylabel="training accuracy (%)", ylim=(0, 105))
    ax.set_title("where contrasts fail")
    name_ends(ax, ends)


def _depth(results: Results) -> int:
    return int(first(results).parameters["depth"])


def _theory(figure: Figure, results: Results) -> None:
    signal, gradient = figure.subplots(1, 2)
    _layers(signal, results, "signal/", log10)
    signal.set(ylabel="mean square q of a unit", title="signal")
    _layers(gradient, results, "gradient/", lambda nats: nats / math.log(10))
    gradient.set(ylabel="squared norm, of that at the last", title="gradient")
    legend(figure, signal)


def _layers(
    ax: Axes, results: Results, prefix: str, decade: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Draw each net's curve over the layers, every backend's, on the theory's."""
    ends = {}
    for name in _names(first(results), prefix):
        theory = decade(values(first(results), f"{prefix}{name}/theory"))
        layer = values(first(results), f"layer/{name}")
        ax.plot(layer, theory, color="#bbbbbb", linewidth=4)
        for k, (column, style) in enumerate(styles(results).items()):
            curve = decade(values(results[column], prefix + name))
            marks = every(layer.size, k, len(results))
            label = column if name == "critical" else None
            ax.plot(layer, curve, **style, markevery=marks, label=label)
        ends[name] = float(theory[-1] if prefix == "signal/" else theory[0])
    ax.plot([], [], color="#bbbbbb", linewidth=4, label="theory")
    ax.set(xlabel="layer")
    ax.locator_params(axis="x", nbins=4)  # of six digits each
    decades(ax)
    if prefix == "gradient/":
        ax.invert_xaxis()  # as it travels; its ends are at the first layer
    name_ends(ax, ends)


DRAWINGS = (
    Drawing(
        "ten-thousand-layers-training",
        3.4,
        "Plain tanh nets on the 8x8 digits. Left: cross-entropy of the critical net on each "
        "backend, mean of 5 steps, and in grey that of its contrasts on the first; dotted: chance. "
        "Right: accuracy on the images trained on, by depth; dotted: 97 %.",
        "Two charts. On the left the loss of the critical net falls towards zero on every backend, "
        "while grey curves of the contrasts with Gaussian weights and too large a gain stay near "
        "chance. On the right the accuracy of contrasts falls with depth, that of too large a gain "
        "and of Gaussian weights first, while the critical net stays at the top.",
        _training,
    ),
    Drawing(
        "ten-thousand-layers-theory",
        3.4,
        "Left: mean square of the units of each layer before training, mean of 8 images. Right: "
        "squared norm of the gradient in the preactivations, from the last layer back to the "
        "first. Grey: the exact theory of one step, iterated; backends draw weights of their own.",
        "Two charts on logarithmic axes over the layers. On the left the signal of the critical "
        "net falls to about a third, that of a unit-scale input falls to the same height, Gaussian "
        "weights wander downwards and too large a gain holds it near one. On the right the "
        "critical gradient is nearly flat, that of unit-scale input shrinks, and that of too large "
        "a gain explodes. All lie on the grey theory.",
        _theory,
    ),
)
