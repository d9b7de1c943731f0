"""The phase diagram with the frameworks' defaults in it, and how correlations go."""

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

SCALES = (1, 3, 10)  # layers: contours of the depth scale
PHASES = ("-", "--", ":")
HEIGHTS = (14, 44, 24, 20)  # of the names of places next to each other, in points


def _chaos(figure: Figure, results: Results) -> None:
    plane, decay = figure.subplots(1, 2, width_ratios=(5, 4))
    _plane(plane, results)
    _decay(decay, results)
    legend(figure, decay)


def _plane(ax: Axes, results: Results) -> None:
    result = first(results)
    weight, bias = values(result, "diagram/weight"), values(result, "diagram/bias")
    growth = np.log(values(result, "diagram/chi_1"))
    ax.contourf(weight, bias, growth, levels=np.linspace(-1, 1, 21), cmap="RdBu_r", extend="both")
    levels = sorted([-1 / scale for scale in SCALES] + [1 / scale for scale in SCALES])
    lines = ax.contour(weight, bias, growth, levels=levels, colors="#555555", linewidths=0.5)
    ax.clabel(lines, fmt=lambda level: f"{abs(1 / level):.0f}", fontsize=8)
    for activation, line in (("tanh", "-"), ("erf", "--")):
        x, y = (values(result, f"line/{activation}/{name}") for name in ("weight", "bias"))
        ax.plot(x, y, color="black", linestyle=line)
        k = int(np.searchsorted(y, 0.5))
        left = activation == "erf"
        ax.annotate(
            f"critical,\n{activation}",
            (float(x[k]), float(y[k])),
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
        )
    ax.annotate("order", (1.45, 0.8), ha="center", fontsize=9, fontstyle="italic")
    ax.annotate("chaos", (3.5, 0.25), ha="center", fontsize=9, fontstyle="italic")
    for name in _points(results):
        field = values(result, f"{name}/mean_field")
        ax.plot(field[0], result.parameters["bias"], marker="x", color="black", markersize=6)
    _marked(ax, results)
    ax.set(
        xlabel="variance of weights, times fan-in",
        ylabel="variance of biases",
        xlim=(0, 4),
        ylim=(0, 1),
        title="depth scale in layers, tanh",
    )
    ax.grid(False)


def _marked(ax: Axes, results: Results) -> None:
    """Name each library's default, those at one place together, and the one point of ReLU."""
    places: dict[tuple[float, float], list[str]] = {}
    for name in first(results).quantities:
        parts = name.split("/")
        if parts[0] == "default" and len(parts) == 2:
            x, y = values(first(results), name)
            places.setdefault((round(float(x), 6), float(y)), []).append(parts[1])
    x, y = values(first(results), "line/relu")
    places[float(x), float(y)] = ["critical, ReLU"]
    for k, ((x, y), names) in enumerate(sorted(places.items())):
        ax.plot(x, y, marker="o", color="black", markersize=5, clip_on=False, zorder=5)
        ax.annotate(
            ", ".join(names),
            (x, y),
            xytext=(-6 + 9 * k, HEIGHTS[k % len(HEIGHTS)]),
            textcoords="offset points",
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
        )


def _points(results: Results) -> list[str]:
    return [name.strip() for name in str(first(results).parameters["weights"]).split(",")]


def _decay(ax: Axes, results: Results) -> None:
    result = first(results)
    layer = values(result, "layer")
    for name, line in zip(_points(results), PHASES, strict=False):
        field, xi = values(result, f"{name}/mean_field"), result.quantities[f"{name}/xi"].values
        scale = f"{xi[1]:.3g}" if np.isfinite(xi[1]) else r"\infty"
        ax.plot(
            layer,
            log10(np.abs(values(result, f"{name}/correlation/theory") - field[3])),
            color="black",
            linestyle=line,
            label=rf"{field[0]:.3g}: $\xi_c = {scale}$",
        )
    for k, (backend, style) in enumerate(styles(results).items()):
        for name in _points(results):
            c = values(results[backend], f"{name}/correlation").mean(axis=0)
            ax.plot(
                layer,
                log10(np.abs(c - values(result, f"{name}/mean_field")[3])),
                **{**style, "linestyle": "none"},
                markersize=3,
                markevery=every(layer.size, k, len(results)),
                label=backend,
            )
    ax.set(xlabel="layer", ylabel=r"distance of the correlation from $c^*$")
    ax.set_title("two inputs through tanh nets")
    ax.set_xlim(0, float(layer[-1]) + 1)
    decades(ax)


DRAWINGS = (
    Drawing(
        "edge-of-chaos",
        3.9,
        "Left: phases of a wide tanh net. Colour: blue where two near inputs converge, red where "
        "they part; thin contours: over how many layers, by a factor e. Dots: the dense layers of "
        "the libraries as they come, and the one point where ReLU is critical. Crosses: where nets "
        "were run. Right: the distance of two inputs' correlation from its fixed point, layer by "
        "layer, mean over nets; lines: mean-field theory, named by the variance of the weights. At "
        "the end of the chaotic one the nets' own fluctuations remain.",
        "Left: a plane of weight variance and bias variance, divided by a rising critical line "
        "into an ordered phase on the left, which holds the defaults of all libraries, and a "
        "chaotic phase on the right. Right: three falling curves of markers along theory lines on "
        "a logarithmic axis: fast in the ordered phase, slow in the chaotic phase, and with a "
        "power of depth on the critical line.",
        _chaos,
    ),
)
