"""How activations grow with the width in three parametrizations, after steps of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    first,
    legend,
    styles,
    values,
)
from isometry.common.studies.coordinate_check import EXPONENTS, PARAMETRIZATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

TITLES = {"standard": "standard", "ntk": "NTK", "mup": "muP"}


def _check(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, len(PARAMETRIZATIONS), sharey="row")
    steps = first(results).parameters["steps"]
    for j, name in enumerate(PARAMETRIZATIONS):
        _growth(axes[0, j], results, j)
        axes[0, j].set(title=TITLES[name], xlabel="width")
        _slopes(axes[1, j], results, j, EXPONENTS[name])
        axes[1, j].set(xlabel="layer")
    axes[0, 0].set_ylabel(f"size after {steps} steps,\nas a multiple of the start")
    axes[1, 0].set_ylabel("power of the width")
    legend(figure, *axes.flat)


def _growth(ax: Axes, results: Results, j: int) -> None:
    """Draw the geometric mean over nets of the last hidden layer's size, and one net's spread."""
    widths = values(first(results), "width")
    for column, style in styles(results).items():
        size = values(results[column], "size")[j, :, :, :, -2]
        with np.errstate(divide="ignore", invalid="ignore"):  # a broken backend's sizes may be 0
            grown = np.log(size[:, :, -1] / size[:, :, 0])
        middle, spread = grown.mean(axis=1), grown.std(axis=1)
        ax.fill_between(
            widths,
            np.exp(middle - spread),
            np.exp(middle + spread),
            color=style["color"],
            alpha=0.1,
        )
        ax.plot(widths, np.exp(middle), **style, label=column)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda v, _: f"{v:g}")
        axis.set_minor_formatter(lambda v, _: "")
    ax.set_xticks(widths)


def _slopes(ax: Axes, results: Results, j: int, limit: float) -> None:
    layers = values(first(results), "size").shape[-1]
    ax.plot([1.6, layers - 0.6], [limit] * 2, color="#bbbbbb", linewidth=4, label="wide limit")
    offsets = np.linspace(-0.2, 0.2, len(results)) if len(results) > 1 else np.zeros(1)
    for offset, (column, style) in zip(offsets, styles(results).items(), strict=True):
        slope = values(results[column], "size slope")[j, -1]
        margin = values(results[column], "size slope margin")[j, -1]
        at = np.arange(1, layers + 1) + offset
        ax.errorbar(at, slope, margin, **{**style, "linestyle": "none"}, linewidth=0.8)
    ax.set_xticks(np.arange(1, layers + 1))


DRAWINGS = (
    Drawing(
        "coordinate-check",
        4.4,
        "Size of preactivations after some steps of Adam, as a multiple of that at the start. "
        "Above: the last hidden layer against the width, geometric mean over independent nets and "
        "one standard deviation. Below: the power of the width it grows with, layer by layer, with "
        "95 % intervals. Grey: the power of its change in wide nets' hidden layers.",
        "Three columns, for the standard, NTK and muP parametrizations. Above, the size of the "
        "last hidden layer against the width on logarithmic axes: steep, less steep, and flat. "
        "Below, the fitted power of each layer with its interval: far above 0 in the hidden "
        "layers of the standard parametrization, less so in NTK, and near 0 in muP.",
        _check,
    ),
)
