"""Where each method ends among double wells, and how rare minima are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    decades,
    first,
    legend,
    log10,
    styles,
    values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

METHODS = ("gradient descent", "damped Newton", "Newton")
ENDS = (("minimum", "#bbbbbb", 2), ("saddle", "#56B4E9", 4), ("maximum", "#CC79A7", 6))
"""By index: what a start is called, its colour and size."""


def _saddles(figure: Figure, results: Results) -> None:
    grid = figure.add_gridspec(2, 6, height_ratios=(1, 0.85))
    starts = [figure.add_subplot(grid[0, 2 * k : 2 * k + 2]) for k in range(3)]
    wells, matrices = (figure.add_subplot(grid[1, 3 * k : 3 * k + 3]) for k in range(2))
    for ax, name in zip(starts, METHODS, strict=True):
        _starts(ax, results, name)
    starts[0].set_ylabel("second well")
    _wells(wells, results)
    _matrices(matrices, results)
    legend(figure, starts[2], wells)


def _starts(ax: Axes, results: Results, name: str) -> None:
    start, end = (values(first(results), q) for q in ("start", f"end/{name}"))
    index = (end == 0).sum(axis=1)
    for k, (label, color, size) in enumerate(ENDS):
        here = start[index == k]
        ax.scatter(here[:, 0], here[:, 1], s=size, color=color, linewidths=0, label=label)
    wells = np.array([-1, 1])
    ax.plot(*map(np.ravel, np.meshgrid(wells, wells)), "+", color="black", markersize=7)
    ax.set_title(name)
    ax.set(aspect="equal", xlabel="first well", xticks=(-1, 0, 1), yticks=(-1, 0, 1))


def _wells(ax: Axes, results: Results) -> None:
    """Draw the share of starts that end in a minimum, by dimension."""
    result = first(results)
    x = values(result, "dimensions")
    ax.plot(x, log10(values(result, "minima")), color="grey", ls="--", label="minima among all")
    ax.plot(x, log10(values(result, "minima/Newton/exact")), color="black", label="exact")
    for column, style in styles(results).items():
        look = {**style, "linestyle": "none"}
        ax.plot(x, log10(values(results[column], "minima/Newton")), **look, label=column)
        ax.plot(x, log10(values(results[column], "minima/gradient descent")), **look)
    newton = log10(values(result, "minima/Newton/exact"))[-1]
    for name, height, below in (("gradient descent", 0.0, -6), ("Newton", newton, 14)):
        ax.annotate(
            name,
            (x[-1], height),
            (0, below),
            textcoords="offset points",
            ha="right",
            va="top" if below < 0 else "bottom",
        )
    ax.set(xlabel="dimensions", title="double wells: starts that end in a minimum")
    decades(ax)


def _matrices(ax: Axes, results: Results) -> None:
    """Draw the share of random matrices that are positive definite, by size."""
    result = first(results)
    x = values(result, "size")
    ax.plot(x, log10(values(result, "definite/exact")), color="black", label="exact")
    for column, style in styles(results).items():
        look = {**style, "linestyle": "none"}
        ax.plot(x, log10(values(results[column], "definite")), **look)
    ax.set(xlabel="size", title="random matrices: positive definite")
    ax.set_xticks(x)
    decades(ax)


DRAWINGS = (
    Drawing(
        "newton-and-saddles",
        5.0,
        "Above: random starts among two double wells (crosses: the four minima), by the kind of "
        "critical point at which each method ends; first column's backend. Below left: share of "
        "the starts that end in a minimum, by dimension, with the share of minima among all "
        "critical points. Below right: share of random symmetric matrices without a direction "
        "that falls.",
        "Three squares of dots. Under gradient descent and damped Newton all starts are grey: they "
        "end in a minimum. Under Newton those in two bands that cross in the middle end at "
        "saddles, and where the bands meet at the maximum. Below, the share of Newton's starts "
        "that reach a minimum falls by the same factor with each dimension, to a few percent at "
        "8, while gradient descent stays at one, and the share of positive definite matrices "
        "bends down to one in ten thousand at size 5; all backends lie on the exact curves.",
        _saddles,
    ),
)
