"""Medians of gradient and Hessian of chains and nets against depth, escape times, and remedies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    decades,
    first,
    legend,
    log10,
    name_ends,
    styles,
    values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

CHAINS = {
    "xavier, normal": "-",
    "he, normal": "--",
    "xavier, uniform": "-.",
    "he, uniform": ":",
    "residual / sqrt(depth)": (0, (5, 1, 1, 1, 1, 1)),
}
NETS = {"width = depth": "-", "width 2 sqrt(depth)": "--", "width 4": "-."}
OPTIMIZERS = {"descent": "-", "momentum": "--", "adam": "-.", "rmsprop": ":"}
REMEDIES = {"batch norm": "-", "residual": "--", "plain": "-."}


def _vanish(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 2)
    for row, what in zip(axes, ("gradient", "Hessian"), strict=True):
        chains = {f"{what}/{name}": line for name, line in CHAINS.items()}
        _medians(row[0], results, "depth", chains)
        nets = {f"{what}/relu, {name}": line for name, line in NETS.items()}
        _medians(row[1], results, "net depth", nets)
        row[0].set(ylabel=f"median {what}", title="chains")
        row[1].set(ylabel=f"median {what}", title="ReLU nets, He")
    for ax in axes.flat:
        ax.set_xlabel("layers")
    legend(figure, axes[0, 0])


def _medians(ax: Axes, results: Results, depth: str, names: Mapping[str, object]) -> None:
    """Draw exact medians as lines, measured ones as markers, and name the lines."""
    ends = {}
    for name, line in names.items():
        layers = values(first(results), depth)
        exact = values(first(results), f"median/{name}/exact") / math.log(10)
        ax.plot(layers, exact, color="black", linestyle=line)
        ends[name.split("/", 1)[1].removeprefix("relu, ")] = float(exact[-1])
        for backend, style in styles(results).items():
            measured = values(results[backend], f"median/{name}") / math.log(10)
            ax.plot(layers, measured, **{**style, "linestyle": "none"}, label=backend)
    decades(ax)
    name_ends(ax, ends)


def _escape(figure: Figure, results: Results) -> None:
    escape, remedy = figure.subplots(1, 2)
    depth = values(first(results), "escape/depth")
    flow = log10(values(first(results), "escape/flow"))
    escape.plot(depth, flow, color="#bbbbbb", linewidth=4, label="gradient flow, closed form")
    _curves(escape, results, depth, {f"escape/{name}": line for name, line in OPTIMIZERS.items()})
    escape.set(xlabel="layers", ylabel="steps off the plateau", title="chains of equal weights")
    layers = values(first(results), "net depth")
    _curves(remedy, results, layers, {f"remedy/{name}": line for name, line in REMEDIES.items()})
    remedy.set(xlabel="layers", ylabel="median gradient", title="ReLU nets of width 8")
    legend(figure, escape)


def _curves(ax: Axes, results: Results, layers: np.ndarray, names: Mapping[str, object]) -> None:
    ends: dict[str, float] = {}
    for backend, style in styles(results).items():
        for name, line in names.items():
            curve = log10(values(results[backend], name))
            label = backend if name == next(iter(names)) else None
            ax.plot(layers, curve, **{**style, "linestyle": line}, label=label)
            ends.setdefault(name.split("/", 1)[1], float(curve[-1]))
    decades(ax)
    name_ends(ax, ends)


DRAWINGS = (
    Drawing(
        "vanishing-curvature",
        5.6,
        "Median size of the gradient of the first layer (above) and of its second derivative with "
        "the last layer (below) against depth. Lines: exact. Markers: backends. Left: chains, nets "
        "of width 1. Right: ReLU nets whose width is constant, grows with the root of the depth, "
        "or equals it.",
        "Four line charts on logarithmic axes. The medians of chains fall along straight lines, "
        "fastest for Gaussian weights with Xavier's variance; scaled residual chains stay level. "
        "Those of ReLU nets fall where the width is constant, less where it grows with the root of "
        "the depth, and stay level where it equals the depth. Gradient and Hessian look alike.",
        _vanish,
    ),
    Drawing(
        "vanishing-curvature-escape",
        3.4,
        "Left: steps that a chain of weights 0.3 needs to reach 0.5, against its depth. Grey: "
        "the gradient flow's time over descent's rate. Right: median gradient of the first layer "
        "of narrow ReLU nets: plain, with residual branches scaled by 1/sqrt(depth), with batch "
        "normalization.",
        "Two line charts on logarithmic axes. On the left gradient descent follows the flow's time "
        "and needs exponentially many steps with depth, momentum fewer, Adam and RMSprop about 20 "
        "at any depth. On the right the gradient of plain nets falls with depth, that of residual "
        "nets stays level, and that of batch-normalized nets grows.",
        _escape,
    ),
)
