"""Spread of log-norms against the sum of 1/width, and what a sample shows of the fourth moment."""

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


def _paint(figure: Figure, results: Results) -> None:
    spread, fourth = figure.subplots(1, 2)
    names = [name.strip() for name in str(first(results).parameters["shapes"]).split(",")]
    beta = values(first(results), "beta")
    order = np.argsort(values(first(results), "log_variance/backward/exact"))
    place = np.arange(order.size)
    exact = values(first(results), "log_variance/backward/exact")[order]
    bars = {"color": "#cccccc", "linewidth": 5}
    spread.hlines(place, 0, exact, **bars, label="exact")
    spread.plot(5 * beta[order], place, "k|", markersize=10, markeredgewidth=1.5, label="5 beta")
    fourth.hlines(place, 0, log10(values(first(results), "fourth_moment/exact"))[order], **bars)
    for name, style in styles(results).items():
        marks = {**style, "linestyle": "none"}
        spread.plot(
            values(results[name], "log_variance/backward")[order], place, **marks, label=name
        )
        fourth.plot(log10(values(results[name], "fourth_moment/sample"))[order], place, **marks)
    _shapes(spread, [f"{names[k]}, {beta[k]:g}" for k in order], place)
    spread.set(xlabel="variance of the gradient's log-norm (nat²)", ylabel="width x depth, beta")
    spread.set_title("logarithms")
    _seen(fourth, values(first(results), "fourth_moment/seen")[order], place)
    fourth.set(xlabel="fourth moment / (second moment)²", ylabel="held by nets like those drawn")
    fourth.set_title("raw fourth moments")
    decades(fourth, "x")
    legend(figure, spread)


def _shapes(ax: Axes, names: list[str], place: np.ndarray) -> None:
    ax.set_yticks(place, names)
    ax.set_xlim(left=0)


def _seen(ax: Axes, shares: np.ndarray, place: np.ndarray) -> None:
    """Write at the right what part of the fourth moment a sample of this size can hold."""
    ax.set_yticks(place, [f"{100 * share:.2g} %" for share in shares])
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.spines["left"].set_visible(True)
    ax.set_xlim(left=0)


DRAWINGS = (
    Drawing(
        "gradient-variance",
        4.0,
        "Left: variance of the gradient's log-norm over many ReLU nets with He weights, for each "
        "shape, with beta, the sum of 1/width. Grey: exact. Ticks: 5 beta. Right: fourth moment of "
        "the signal's norm over its squared second one, exact (grey) and as the sample has it; at "
        "the edge, the share of the exact one that lies in nets no larger than the largest of the "
        "sample.",
        "Two bar charts, one row per shape of net. On the left the markers of all backends stand "
        "at the ends of the exact bars, which grow with beta. On the right the exact bars grow by "
        "decades, and the markers stay far below them where beta is large.",
        _paint,
    ),
)
