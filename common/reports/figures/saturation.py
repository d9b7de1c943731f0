"""Gradients, saturated and dead units, and who learns."""

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

NAMES = (
    "sigmoid",
    "sigmoid, batch norm",
    "sigmoid, shortcuts",
    "tanh",
    "ReLU",
    "leaky ReLU",
    "ReLU, low biases",
    "leaky ReLU, low biases",
)


def _titled(ax: Axes, results: Results, name: str) -> None:
    """Name the net and the steps that it took to 90 %."""
    accuracy = values(first(results), f"accuracy/{name}")
    steps = values(first(results), f"checked/{name}")[accuracy >= 0.9]
    lines = [*name.split(", "), f"{steps[0]} steps" if steps.size else "never"]
    ax.set_title("\n".join([lines[0], ", ".join(lines[1:])]))


def _gradients(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    layer = values(first(results), "layer")
    for ax, name in zip(axes.flat, NAMES, strict=True):
        _titled(ax, results, name)
        theory = f"gradient/{name}/theory"
        if theory in first(results).quantities:
            ax.plot(layer, log10(values(first(results), theory)), color="black", label="wide nets")
        for column, style in styles(results).items():
            gradient = log10(values(results[column], f"gradient/{name}"))
            ax.plot(layer, gradient, **{**style, "linestyle": "none"}, label=column)
        if not values(first(results), f"gradient/{name}").any():
            ax.text(0.5, 0.5, "exactly 0", transform=ax.transAxes, ha="center")
        decades(ax)
    for ax in axes[1]:
        ax.set_xlabel("layer")
    for ax in axes[:, 0]:
        ax.set_ylabel("gradient, of the last")
    legend(figure, *axes.flat)


def _units(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    layer = values(first(results), "layer")
    for ax, name in zip(axes.flat, NAMES, strict=True):
        _titled(ax, results, name)
        for column, style in styles(results).items():
            before, after = (
                values(results[column], f"{when}/{name}") for when in ("before", "after")
            )
            plain = {**style, "linestyle": "none"}
            ax.plot(layer, before, **plain, label=column)
            ax.plot(layer, after, **plain | {"marker": ".", "color": style["color"]})
    for ax in axes[1]:
        ax.set_xlabel("layer")
    axes[0, 0].set_ylabel("share saturated")
    axes[1, 0].set_ylabel("share dead")
    legend(figure, *axes.flat)


def _laws(figure: Figure, results: Results) -> None:
    saturated, dead = figure.subplots(1, 2)
    scale = values(first(results), "scale")
    for name, grey in (("sigmoid", "grey"), ("tanh", "black")):
        exact = values(first(results), f"saturated/{name}/exact")
        saturated.plot(scale, exact, color=grey, label=f"{name}, exact")
        for column, style in styles(results).items():
            look = {**style, "linestyle": "none"}
            saturated.plot(scale, values(results[column], f"saturated/{name}"), **look)
    saturated.set_xscale("log", base=2)
    saturated.set(xlabel="standard deviation of z", title="share of units that are saturated")
    for bias in values(first(results), "bias"):
        exact = values(first(results), f"dead/{bias:g}/exact")
        inputs = np.arange(1, exact.size + 1)
        dead.plot(inputs, exact, color="black")
        for column, style in styles(results).items():
            look = {**style, "linestyle": "none"}
            dead.plot(inputs, values(results[column], f"dead/{bias:g}"), **look, label=column)
        dead.annotate(
            f"bias {bias:g}",
            (1, exact[-1]),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    dead.set(xlabel="inputs at right angles", title="share of ReLU units dead on all of them")
    legend(figure, saturated, dead)


DRAWINGS = (
    Drawing(
        "saturation-gradient",
        4.2,
        "Length of the gradient in each layer's preactivations over that in the last hidden layer, "
        "in nets as they are drawn, and steps to 90 % of the digits (first column's backend). "
        "Line: infinitely wide nets, for those that the theory covers.",
        "Eight panels. The sigmoid's gradient falls by a factor of four each layer, to 3e-5 in the "
        "first, and it never learns; with batch normalization or shortcuts it stays within a "
        "factor of ten and the net learns in some forty steps, as do tanh, ReLU and leaky ReLU. "
        "With low biases ReLU's gradient is exactly zero and leaky ReLU's falls by five a layer.",
        _gradients,
    ),
    Drawing(
        "saturation-units",
        4.2,
        "Share of units whose slope is below a tenth of its largest (sigmoid and tanh, above) or "
        "that are below 0 on all images (ReLU and leaky ReLU, below), by layer, before training "
        "(open) and after it (dots).",
        "Eight panels. No unit of the sigmoid nets is saturated, without or with batch norm; up to "
        "a third are in the last layers with shortcuts, and a few in the first layer of tanh. Few "
        "ReLU units are dead, and fewer leaky ones are below 0. With low biases all are from the "
        "fourth or fifth layer on, before and after training alike.",
        _units,
    ),
    Drawing(
        "saturation-laws",
        3.2,
        "Left: share of units whose slope is below a tenth of its largest, by the standard "
        "deviation of their preactivations. Right: share of ReLU units that are dead on each of "
        "several inputs, by their biases, preactivations having variance 2.",
        "Two panels of falling and rising curves with points of all backends on them: saturation "
        "grows from none to two thirds (sigmoid) and four fifths (tanh) at a standard deviation "
        "of eight; units dead on eight inputs are 0.4 percent without a bias and 87 percent at "
        "minus three.",
        _laws,
    ),
)
