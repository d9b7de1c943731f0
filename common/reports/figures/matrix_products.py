"""Singular values of products between their bounds, and the condition number through depth."""

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

KINDS = {"gaussian": "Gaussian pairs", "graded": "graded pairs"}
NETS = {
    "gaussian": "Gaussian, linear",
    "gaussian tanh": "Gaussian, tanh",
    "orthogonal": "orthogonal, linear",
    "orthogonal tanh": "orthogonal, tanh",
}


def _bounds(figure: Figure, results: Results) -> None:
    panels: dict[str, Axes] = figure.subplot_mosaic([["gaussian", "graded"], ["depth", "depth"]])
    for kind, title in KINDS.items():
        _pairs(panels[kind], results, kind)
        panels[kind].set_title(title)
        panels[kind].set_ylabel("singular value of AB")
    _depth(panels["depth"], results)
    legend(figure, panels["gaussian"], panels["depth"])


def _pairs(ax: Axes, results: Results, kind: str) -> None:
    result = first(results)
    index = values(result, "index")
    low, high = (log10(values(result, f"{kind}/{end}")) for end in ("low", "high"))
    ax.fill_between(index, low, high, color="#cccccc", label="between the bounds")
    for name, style in styles(results).items():
        found = log10(values(results[name], f"{kind}/singular"))
        ax.plot(index, found, **{**style, "linestyle": "none"}, label=name)
    ax.set(xlabel="index")
    ax.locator_params(axis="x", integer=True)
    decades(ax)


def _depth(ax: Axes, results: Results) -> None:
    result = first(results)
    layer = values(result, "layer")
    bound = values(result, "depth/gaussian/bound")
    ax.plot(layer, bound, color="black", linewidth=2, label="product of the layers' bounds")
    slope = float(values(result, "lyapunov")) * layer
    typical = values(result, "depth/gaussian/condition")
    # the exponents fix the slope alone: the line ends where the first column does
    line = slope - slope[-1] + typical[-1]
    shown = line >= 0
    ax.plot(layer[shown], line[shown], color="#999999", linewidth=4, label="Lyapunov slope")
    for net, title in NETS.items():
        for name, style in styles(results).items():
            ax.plot(layer, values(results[name], f"depth/{net}/condition"), **style)
        end = values(result, f"depth/{net}/condition")[-1]
        offset = {"gaussian": 8, "orthogonal tanh": 10}.get(net, -2)
        ax.annotate(
            title,
            (float(layer[-1]), float(end)),
            xytext=(4, offset - 4),
            textcoords="offset points",
            annotation_clip=False,
        )
    ax.set(xlabel="layer", ylabel="condition number", xlim=(0, float(layer[-1])))
    ax.set_title("Jacobian from input to layer")
    ax.set_xticks(np.arange(0, layer[-1] + 1, max(1, layer[-1] // 10)))
    decades(ax)


DRAWINGS = (
    Drawing(
        "matrix-products-bounds",
        5.6,
        "Above: median singular values of the product AB of random matrices, and between which "
        "bounds those of A and B alone put them; graded factors have singular values from 1 to "
        "1/1000. Below: median condition number of the Jacobian of random nets from the input to "
        "each layer, the product of the layers' condition numbers, which bounds it, and the growth "
        "that the exact Lyapunov exponents give.",
        "Three charts on logarithmic axes. Above, the singular values of products lie inside a "
        "grey band that is decades wide. Below, the condition number of Gaussian nets grows along "
        "the Lyapunov line, at about half the slope of the bound in decades; that of orthogonal "
        "nets stays near 1.",
        _bounds,
    ),
)
