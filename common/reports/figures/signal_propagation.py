"""Signal and gradient, layer by layer, beside mean-field theory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.networks.on_digits import LAYER
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
from isometry.common.studies.signal_propagation import EDGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]


def _signals(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 3)
    histogram, second, cosine, gradient, shares, distance = axes.flat
    _histogram(histogram, results)
    _curve(second, results, "second moment", logarithmic=True)
    second.set(title="second moment of the signal")
    _curve(cosine, results, "cosine")
    lowest = min(np.nanmin(values(r, "cosine"), initial=0.0) for r in results.values())
    cosine.set(title="cosine of two digits", ylim=(1.05 * lowest, 1.05))
    _curve(gradient, results, "gradient variance", logarithmic=True)
    gradient.set(title="variance of the gradient")
    _curve(shares, results, "saturated")
    _curve(shares, results, "dead", linestyle=":")
    shares.set(title="saturated, and dotted: dead")
    shares.yaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    top = max(values(r, name).max() for r in results.values() for name in ("saturated", "dead"))
    shares.set_ylim(-0.05 * max(top, 0.01), 1.1 * max(top, 0.01))
    _curve(distance, results, "distance", logarithmic=True)
    steps = first(results).parameters["steps"]
    distance.set(title=f"weights moved in {steps} steps")
    for ax in axes.flat:
        ax.set_xlabel(LAYER.get(str(first(results).parameters["family"]), "layer"))
        ax.locator_params(axis="x", integer=True)
    legend(figure, *axes.flat)


def _histogram(ax: Axes, results: Results) -> None:
    counts = values(first(results), "histogram")
    layers = np.arange(len(counts) + 1) - 0.5
    # the fullest bin may hold all zeros of a ReLU; the root shows tails, too
    share = np.sqrt(counts / np.sort(counts, axis=1)[:, -2:-1])
    ax.pcolormesh(layers, EDGES, share.T, cmap="Greys", vmin=0, vmax=1, rasterized=True)
    ax.grid(visible=False)
    ax.set(title=f"distribution, {next(iter(results))}", ylabel="signal / root mean square")


def _curve(
    ax: Axes, results: Results, name: str, *, logarithmic: bool = False, linestyle: str = ""
) -> None:
    shown = log10 if logarithmic else np.asarray
    depth = len(values(first(results), "layer")) - 1
    theory = f"theory/{name}"
    if theory in first(results).quantities:
        exact = shown(values(first(results), theory))
        layers = np.arange(depth + 1 - exact.size, depth + 1)
        ax.plot(layers, exact, color="#bbbbbb", linewidth=4, label="mean field")
    for k, (column, style) in enumerate(styles(results).items()):
        curve = shown(values(results[column], name))
        # signals begin at the input, layer 0; dead and saturated end before the output
        start = 0 if curve.size == depth + 1 else 1
        if linestyle:
            style = {**style, "linestyle": linestyle}
        ax.plot(
            np.arange(start, start + curve.size),
            curve,
            **style,
            markevery=every(2 * curve.size, k, len(results)),
            label=column,
        )
    if logarithmic:
        middle, span = np.mean(ax.get_ylim()), np.ptp(ax.get_ylim())
        ax.set_ylim(middle - max(span, 2) / 2, middle + max(span, 2) / 2)  # two powers of ten
        decades(ax)


DRAWINGS = (
    Drawing(
        "signal-propagation",
        4.6,
        "What each layer does to signal and gradient: distribution of the signal (dark: many "
        "units), its second moment, the cosine between two inputs, the variance of the gradient "
        "in the preactivations, the share of saturated values and dead units, and how far a few "
        "steps against the gradient move the weights, relative to their size. Grey: mean-field "
        "theory, the limit of infinite width.",
        "Six charts over the layer: a map of the distribution of the signal, and one curve per "
        "backend for the second moment, the cosine between two inputs, the gradient's variance, "
        "the shares of saturated and dead units, and the distance of the weights from their "
        "start. Where theory speaks, a grey curve lies under those of the backends.",
        _signals,
    ),
)
