"""Mean against deviation over samples by layer, and what preserving the latter does to training."""

from __future__ import annotations

import math
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from isometry.common.results import Result

__all__ = ["DRAWINGS"]

STARTS = {"total": "total variance", "sample": "sample variance"}


def _paint(figure: Figure, results: Results) -> None:
    ratio, loss = figure.subplots(1, 2, width_ratios=(4, 3))
    _ratios(ratio, results)
    _losses(loss, results)
    legend(figure, ratio)


def _ratios(ax: Axes, results: Results) -> None:
    result = first(results)
    layer, exact = values(result, "layer"), values(result, "m/v/theory")
    ax.plot(layer, exact, color="black", linewidth=2, label="infinite width, exact recursion")
    sizes = [int(width) for width in values(result, "width")]
    ends = {"infinite": float(exact[-1])}
    for k, (backend, style) in enumerate(styles(results).items()):
        marks = {**style, "markevery": every(layer.size, k, len(results))}
        for width in sizes:
            measured = values(results[backend], f"m/v/width {width}")
            ax.plot(layer, measured, **marks, label=backend)
            ends.setdefault(f"width {width}", float(measured[-1]))
        normalized = values(results[backend], f"m/v/width {sizes[-1]}, batch norm")
        ax.plot(layer, normalized, **marks)
        ends.setdefault("batch norm", float(normalized[-1]))
    ax.set(xlabel="layer", ylabel="mean over samples / deviation over samples", ylim=(0, None))
    ax.set_title("ReLU, He weights")
    name_ends(ax, ends)


def _losses(ax: Axes, results: Results) -> None:
    lines = dict(zip(STARTS, ("-", "--"), strict=True))
    ends: dict[str, float] = {}
    for k, (backend, style) in enumerate(styles(results).items()):
        step = values(results[backend], "step")
        for start, words in STARTS.items():
            curve = log10(_best(results[backend], start))
            look = {**style, "linestyle": lines[start]}
            ax.plot(step, curve, **look, markevery=every(step.size, k, len(results)))
            ends.setdefault(words.replace(" ", "\n"), float(curve[-1]))
    ax.set(xlabel="gradient step", ylabel="loss (nat)", title="training, the best rate of each")
    decades(ax)
    name_ends(ax, ends)


def _best(result: Result, start: str) -> np.ndarray:
    """Return the losses at the rate whose last one is the lowest."""
    curves = [
        values(result, name) for name in result.quantities if name.startswith(f"loss/{start}/")
    ]
    return min(curves, key=lambda curve: math.inf if math.isnan(curve[-1]) else float(curve[-1]))


DRAWINGS = (
    Drawing(
        "sample-variance",
        3.6,
        "Left: mean over samples divided by the deviation over samples, of the preactivations of "
        "deep ReLU nets whose total variance is preserved, by layer. Black: the exact recursion of "
        "infinite width. Right: loss of a deep ReLU net on the digits under plain gradient steps, "
        "from preserved total variance (solid) and from preserved sample variance (dashed).",
        "Two line charts. On the left the ratio grows along a straight line at infinite width; "
        "finite widths follow it and level off, the narrower the earlier; with batch normalization "
        "it stays below 1. On the right the loss falls further where the sample variance is "
        "preserved than where the total variance is.",
        _paint,
    ),
)
