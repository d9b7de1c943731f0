"""Condition number and steps of gradient descent, before and after scaling the input."""

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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

SCALINGS = ("raw", "centred", "standardized", "whitened")
DATA = {"made": "made features", "digits": "8x8 digits"}


def _scaling(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (data, title) in enumerate(DATA.items()):
        _bars(axes[0, column], results, f"{data}/condition")
        _bars(axes[1, column], results, f"{data}/steps", exact=f"{data}/predicted")
        axes[0, column].set_title(title)
    for name, style in styles(results).items():
        softmax = values(results[name], "digits/softmax")
        place = np.arange(len(SCALINGS)) + 0.3
        look = {**style, "linestyle": "none", "marker": "x"}
        axes[1, 1].plot(place, softmax, **look)
    axes[1, 1].plot([], [], "x", color="#555555", label="softmax regression, 90 % accuracy")
    axes[0, 0].set_ylabel("condition number")
    axes[1, 0].set_ylabel("steps to 90 %")
    legend(figure, *axes.flat)


def _bars(ax: Axes, results: Results, name: str, *, exact: str | None = None) -> None:
    place = np.arange(len(SCALINGS))
    if exact is not None:
        predicted = values(first(results), exact)
        ax.bar(place, predicted, color="#cccccc", label="closed form")
    offsets = np.linspace(-0.25, 0.15, len(results)) if len(results) > 1 else [0.0]
    for offset, (column, style) in zip(offsets, styles(results).items(), strict=True):
        found = values(results[column], name)
        ax.plot(place + offset, found, **{**style, "linestyle": "none"}, label=column)
    ax.set_yscale("log")
    ax.set_xticks(place, SCALINGS)


DRAWINGS = (
    Drawing(
        "input-scaling",
        5.0,
        "Condition number of the Hessian of linear least squares, and steps of gradient descent at "
        "the rate 1 / the largest eigenvalue until 90 % of the excess loss is gone, as the input "
        "comes, centred, standardized and whitened. Grey: the closed form. Crosses: steps of "
        "softmax regression to 90 % accuracy.",
        "Four charts on logarithmic axes. From raw to whitened inputs the condition number falls "
        "to 1, for the digits from above ten thousand, and the steps fall with it to 1, but not in "
        "proportion; the markers of the backends stand on the grey bars of the closed form.",
        _scaling,
    ),
)
