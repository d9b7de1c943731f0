"""Variance by layer, forward and backward, under each initializer."""

from __future__ import annotations

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
    styles,
    values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

ACTIVATIONS = ("linear", "relu", "tanh")
LOWEST = -20.0  # decades; what dies faster leaves the panel and says where it goes
RULES = ("-", "--", "-.", ":")


def _variances(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, len(ACTIVATIONS), sharex=True, sharey=True)
    result = first(results)
    rules = [name.strip() for name in str(result.parameters["initializers"]).split(",")]
    for row, direction in zip(axes, ("forward", "backward"), strict=True):
        for ax, activation in zip(row, ACTIVATIONS, strict=True):
            names = [f"{direction}/{activation}/{rule}" for rule in rules]
            for name, rule, line in zip(names, rules, RULES, strict=False):
                _theory(ax, results, name, rule, line)
            for name in names:
                _measured(ax, results, name)
            ax.set_title(f"{activation}, {direction}")
        row[0].set_ylabel("signal variance" if direction == "forward" else "gradient variance")
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set(ylim=(max(low, LOWEST), high), xlim=(0, values(result, "layer")[-1]))
    decades(axes[0, 0])
    legend(figure, *axes.flat)


def _theory(ax: Axes, results: Results, name: str, rule: str, line: str) -> None:
    """Draw the exact typical variance, or the expectation where that has no closed form."""
    result = first(results)
    layer = values(result, "layer")
    typical = f"{name}/theory/typical"
    theory = typical if typical in result.quantities else f"{name}/theory/mean"
    exact = log10(values(result, theory))
    ax.plot(layer, exact, color="black", linestyle=line, label=f"{rule}, theory")
    if np.nanmin(exact) < LOWEST:
        forward = name.startswith("forward")
        out = layer[exact < LOWEST]
        ax.annotate(
            f"to $10^{{{np.nanmin(exact):.0f}}}$",
            (float(out.min() if forward else out.max()), LOWEST),
            xytext=(4 if forward else -4, 4),
            textcoords="offset points",
            ha="left" if forward else "right",
        )


def _measured(ax: Axes, results: Results, name: str) -> None:
    for k, (backend, style) in enumerate(styles(results).items()):
        layer = values(results[backend], "layer")
        ax.plot(
            layer,
            log10(values(results[backend], name)),
            **{**style, "linestyle": "none"},
            markersize=3,
            markevery=every(layer.size, k, len(results)),
            label=backend,
        )


DRAWINGS = (
    Drawing(
        "xavier-variance",
        5.6,
        "Typical variance (geometric mean over nets) by layer. Above: of the signal, from the "
        "input at layer 0. Below: of the gradient, from the output back to layer 0. Lines: theory, "
        "the exact expected logarithm for linear and ReLU nets, the expectation for tanh. Markers: "
        "backends.",
        "Six line charts on a logarithmic axis: linear, ReLU and tanh nets, forward and backward. "
        "One theory line per initializer, with the markers of each backend. Weights of standard "
        "deviation 0.01 lose so many decades that the line leaves the chart, with a label that "
        "says where it ends.",
        _variances,
    ),
)
