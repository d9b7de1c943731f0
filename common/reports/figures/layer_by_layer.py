"""The same dying net with one remedy at a time."""

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
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]


def _panels(figure: Figure, results: Results) -> None:
    names = [q.partition("/")[2] for q in first(results).quantities if q.startswith("signal/")]
    axes = figure.subplots(2, len(names), sharex=True, sharey="row")
    for column, name in enumerate(names):
        for row, what in enumerate(("signal", "gradient")):
            ax = axes[row, column]
            for backend, style in styles(results).items():
                for other, look in (("nothing", {"alpha": 0.3}), (name, {"label": backend})):
                    found = values(results[backend], f"{what}/{other}")
                    curve = log10(np.sqrt(np.mean(np.square(found), axis=0)))
                    ax.plot(np.arange(1, curve.size + 1), curve, **{**style, "marker": ""}, **look)
            decades(ax)
        axes[0, column].set_title(name, fontsize=8)
        axes[1, column].set_xlabel("layer")
    axes[0, 0].set_ylabel("preactivations")
    axes[1, 0].set_ylabel("gradient in h")
    legend(figure, *axes.flat)


DRAWINGS = (
    Drawing(
        "layer-by-layer",
        3.6,
        "Root mean square of preactivations (above) and of the gradient in signals (below), by "
        "layer: a ReLU net of too small weights with one remedy at a time, and, pale, without.",
        "Seven pairs of panels. Without a remedy both fall by six decades. Dense and highway "
        "shortcuts, batch normalization and He's weights keep signal and gradient within about "
        "two decades; SkipInit keeps them exactly level. Residual shortcuts let both grow.",
        _panels,
    ),
)
