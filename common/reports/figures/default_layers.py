"""Signal and gradient in nets of each library's default layers."""

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

LIBRARIES = ("torch", "keras", "flax", "gluon")


def _curves(figure: Figure, results: Results) -> None:
    activations = str(first(results).parameters["activations"]).split(",")
    width, depth = (int(values(first(results), name).max()) for name in ("width", "depth"))
    axes = figure.subplots(2, len(activations), sharex=True, sharey="row", squeeze=False)
    layer = np.arange(1, depth + 1)
    greys = dict(zip(LIBRARIES, ("#000000", "#555555", "#888888", "#bbbbbb"), strict=True))
    for column, activation in enumerate(activations):
        for row, what in enumerate(("signal", "gradient")):
            ax = axes[row, column]
            for library, grey in greys.items():
                key = f"{library}/{activation.strip()}/{width}/{depth}/{what}"
                theory = log10(values(first(results), f"{key}/theory"))
                ax.plot(layer, theory, color=grey, label=f"{library}, theory")
                for name, style in styles(results).items():
                    found = np.sqrt(np.mean(np.square(values(results[name], key)), axis=0))
                    look = {**style, "linestyle": "none", "markevery": max(depth // 8, 1)}
                    ax.plot(layer, log10(found), **look, label=name)
            decades(ax)
        axes[0, column].set_title(activation)
        axes[1, column].set_xlabel("layer")
    axes[0, 0].set_ylabel("preactivations")
    axes[1, 0].set_ylabel("their gradient")
    legend(figure, *axes.flat)


DRAWINGS = (
    Drawing(
        "default-layers",
        4.6,
        "Root mean square of preactivations (above) and of the gradient in them (below), by layer, "
        "in nets of dense layers with every library's defaults (lines: mean-field theory), as each "
        "backend ran them (marks).",
        "Panels of straight lines on a logarithmic scale, with marks of all backends on them. "
        "With tanh and ReLU the signal of Gluon's layers falls fastest, that of PyTorch's "
        "comes to rest on its biases, that of Keras' and Flax' falls slowest; with the sigmoid it "
        "stays. Gradients fall in all, least in Keras' and Flax' tanh nets and most with sigmoids.",
        _curves,
    ),
)
