"""Random matrix chains against their exact law: paths, distribution, Lyapunov spectrum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from isometry.common.laws.chains import log_norm_law
from isometry.common.laws.formats import FORMATS
from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    decades,
    every,
    first,
    legend,
    styles,
    values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

SHOWN = 8  # sample paths per backend: more hide each other


def _paths(figure: Figure, results: Results) -> None:
    norm, departure = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    result = first(results)
    steps = np.append(0, values(result, "path_step"))
    exact = np.append(0, values(result, "path_log10_exact"))
    law = log_norm_law(int(result.parameters["size"]), 1)
    spread = 2 * np.sqrt(steps * law.variance) / math.log(10)
    band = {"color": "#cccccc", "label": "exact mean ± 2 sd"}
    norm.fill_between(steps, exact - spread, exact + spread, **band)
    departure.fill_between(steps, -spread, spread, **band)
    for name, style in styles(results).items():
        paths = values(results[name], "path_log10_norm")[:, :SHOWN]
        paths = np.vstack([np.zeros(paths.shape[1]), paths])
        style = {**style, "marker": "", "linewidth": 0.8}
        norm.plot(steps, paths, **style)
        departure.plot(steps, paths[:, :1] - exact[:, None], **style, label=name)
        departure.plot(steps, paths[:, 1:] - exact[:, None], **style)
    norm.plot(steps, exact, color="black", linewidth=2)
    departure.axhline(0, color="black", linewidth=2, label="exact Lyapunov line")
    norm.set(ylabel="norm of the first column", xlim=(0, float(steps[-1])))
    departure.set(xlabel="number of factors", ylabel="departure from the line")
    _limits(norm, float(exact[-1]) / 2)
    decades(norm)
    decades(departure)
    legend(figure, departure)


def _limits(ax: Axes, middle: float) -> None:
    """Draw the largest finite value of each dtype, equal ones as one line.

    A label stands on the side where the paths, which pass the `middle` halfway, are far away.
    """
    by_exponent: dict[int, list[str]] = {}
    for name, format in FORMATS.items():
        by_exponent.setdefault(format.max_exponent, []).append(name)
    for names in by_exponent.values():
        limit = math.log10(FORMATS[names[0]].largest)
        left = limit > middle
        ax.axhline(limit, color="#555555", linewidth=0.8, linestyle=(0, (6, 2)))
        ax.annotate(
            f"largest {' and '.join(names)}",
            (0 if left else 1, limit),
            xycoords=("axes fraction", "data"),
            xytext=(4 if left else -2, 2),
            textcoords="offset points",
            ha="left" if left else "right",
        )


def _law(figure: Figure, results: Results) -> None:
    axes = figure.subplots(1, 2)
    _distribution(axes[0], results)
    _spectrum(axes[1], results)
    legend(figure, *axes)


def _distribution(ax: Axes, results: Results) -> None:
    parameters = first(results).parameters
    law = log_norm_law(int(parameters["size"]), int(parameters["length"]) + 1)
    x = law.mean + math.sqrt(law.variance) * np.linspace(-4, 4, 201)
    ax.plot(x / math.log(10), law.cdf(x), color="#bbbbbb", linewidth=4, label="exact")
    for k, (name, style) in enumerate(styles(results).items()):
        norm = np.sort(values(results[name], "log_norm"))
        ax.plot(
            norm / math.log(10),
            (np.arange(norm.size) + 0.5) / norm.size,
            **style,
            markevery=every(norm.size, k, len(results)),
            label=name,
        )
    ax.set(xlabel="norm of the product's first column", ylabel="fraction of chains below")
    ax.set_title(f"after {int(parameters['length']) + 1} factors")
    decades(ax, "x")


def _spectrum(ax: Axes, results: Results) -> None:
    exact = values(first(results), "lyapunov_exact")
    index = np.arange(1, exact.size + 1)
    ax.hlines(exact, index - 0.4, index + 0.4, color="#bbbbbb", linewidth=4)
    offsets = np.linspace(-0.25, 0.25, len(results)) if len(results) > 1 else [0.0]
    for offset, (name, style) in zip(offsets, styles(results).items(), strict=True):
        ax.plot(index + offset, values(results[name], "lyapunov"), **{**style, "linestyle": "none"})
    ax.set(xlabel="index", ylabel="Lyapunov exponent (nat per factor)", title="Lyapunov spectrum")
    ax.set_xticks(index)


DRAWINGS = (
    Drawing(
        "matrix-chain-paths",
        5.6,
        f"Norm of products of random Gaussian matrices against their number, {SHOWN} chains per "
        "backend kept in log scale, and its departure from the exact Lyapunov line. Grey: two "
        "exact standard deviations. Dashed: the largest value of each dtype, beyond which a "
        "product formed plainly overflows.",
        "Two line charts on a logarithmic axis. Above, the norms of the chains grow exponentially "
        "along the straight Lyapunov line and cross the levels at which float16, then bfloat16 and "
        "float32, then float64 overflow. Below, their departures from the line spread like a "
        "random walk, nearly all within the grey band, which widens with the square root of the "
        "number of factors.",
        _paths,
    ),
    Drawing(
        "matrix-chain-law",
        3.6,
        "Left: distribution of the norm over all chains against the exact law. Right: Lyapunov "
        "exponents, averaged over chains, against the exact ones.",
        "Two charts. On the left the share of chains below each norm, one curve per backend over "
        "the exact S-shaped curve. On the right one marker per backend on a grey bar for each "
        "exact Lyapunov exponent, in descending order.",
        _law,
    ),
)
