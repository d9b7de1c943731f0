"""Descent on quadratics: growth per step, the edge of divergence, steps by condition number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.laws.quadratic_stability import METHODS, edge
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

LINES = dict(zip(METHODS, ("-", "--", ":"), strict=True))


def _divergence(figure: Figure, results: Results) -> None:
    (growth, edges), (distance, steps) = figure.subplots(2, 2)
    momenta = values(first(results), "momentum")
    middle = float(momenta[len(momenta) // 2])
    shown = {
        name: name if name == METHODS[0] else f"{name}, momentum {middle:g}" for name in METHODS
    }
    _growth(growth, results, shown)
    growth.set_title(f"momentum {middle:g}")
    _edges(edges, results, momenta)
    _distance(distance, results, shown)
    distance.set_title(f"bowl, momentum {middle:g}, beside its edge")
    _steps(steps, results)
    for name, line in LINES.items():
        growth.plot([], [], color="black", linestyle=line, label=f"{name}, exact")
    legend(figure, growth)


def _growth(ax: Axes, results: Results, shown: dict[str, str]) -> None:
    for method, name in shown.items():
        exact = first(results)
        a = values(exact, f"{name}/a")
        ax.plot(a, values(exact, f"{name}/growth/exact"), color="black", linestyle=LINES[method])
        for k, (column, style) in enumerate(styles(results).items()):
            look = {**style, "linestyle": "none", "markevery": (k, len(results))}  # in turns
            label = column if method == METHODS[0] else None
            ax.plot(a, values(results[column], f"{name}/growth"), **look, label=label)
    ax.axhline(1, color="#999999", linewidth=0.8)
    ax.set(xlabel="rate, times curvature", ylabel="growth per step", ylim=(0, 2))


def _edges(ax: Axes, results: Results, momenta: np.ndarray) -> None:
    """Draw the edge against momentum, and the rates that were seen beside it as markers."""
    m = np.linspace(0, 1, 101)[:-1]
    for method in METHODS[1:]:
        exact = [edge(float(x), nesterov=method == "Nesterov") for x in m]
        ax.plot(m, exact, color="black", linestyle=LINES[method])
        side = 0.05 if method == METHODS[1] else -0.3
        ax.annotate(method, (0.03, exact[25] + side))
        for column, style in styles(results).items():
            found = [_bracket(results, column, f"{method}, momentum {x:g}") for x in momenta]
            ax.plot(momenta, found, **{**style, "linestyle": "none"})
    for column, style in styles(results).items():
        ax.plot([0], [_bracket(results, column, METHODS[0])], **{**style, "linestyle": "none"})
    ax.annotate("diverges", (0.97, 0.95), xycoords="axes fraction", ha="right", va="top")
    ax.annotate("contracts", (0.97, 0.05), xycoords="axes fraction", ha="right")
    ax.set(xlabel="momentum", ylabel="rate, times largest curvature", ylim=(0, 4.6))
    ax.set_title("edge of divergence")


def _bracket(results: Results, column: str, name: str) -> float:
    """Return the middle between the largest rate that contracts and the smallest that diverges."""
    a = values(results[column], f"{name}/a")
    growth = values(results[column], f"{name}/growth")
    if not ((growth < 1).any() and (growth > 1).any()):
        return float("nan")
    return float(a[growth < 1 - 1e-9].max(initial=0) + a[growth > 1 + 1e-9].min(initial=9)) / 2


def _distance(ax: Axes, results: Results, shown: dict[str, str]) -> None:
    for method, name in shown.items():
        for side in ("below", "above"):
            for k, (column, style) in enumerate(styles(results).items()):
                curve = log10(values(results[column], f"{name}/{side}"))
                if k == 0:
                    ax.plot(curve, color="black", linestyle=LINES[method])
                step = max(curve.size // 4, 1)
                look = {**style, "linestyle": "none"}
                ax.plot(curve, **look, markevery=(k * step // len(results), step))
    ax.axhline(0, color="#999999", linewidth=0.8)
    ax.set(xlabel="step", ylabel="distance to the minimum", ylim=(-5, 5))
    decades(ax)


def _steps(ax: Axes, results: Results) -> None:
    number = values(first(results), "condition")
    for method, line in LINES.items():
        exact = values(first(results), f"steps/{method}/exact")
        ax.plot(number, exact, color="black", linestyle=line)
        for column, style in styles(results).items():
            found = values(results[column], f"steps/{method}")
            ax.plot(number, found, **{**style, "linestyle": "none"})
    ax.set(xscale="log", yscale="log", xlabel="condition number", ylabel="steps to a thousandth")
    ax.set_title("best constants")


DRAWINGS = (
    Drawing(
        "divergence",
        5.6,
        "Gradient descent, heavy ball and Nesterov's method on quadratics. Top left: growth per "
        "step against rate times curvature, with the spectral radius. Top right: the edge from "
        "which they diverge, against momentum. Bottom left: distance to the minimum of a bowl at "
        "rates just below and just above the edge. Bottom right: steps to a thousandth of the "
        "distance against the condition number, at each method's best constants. Black: exact; "
        "bottom left the first backend's.",
        "Four charts. Growth per step lies below 1 up to an edge and rises above it beyond, "
        "latest for the heavy ball and first for Nesterov's method. The edge rises from 2 to 4 "
        "with momentum for the heavy ball and falls to 4/3 for Nesterov's. Beside the edge the "
        "distance falls or rises in straight lines on a logarithmic axis. Steps grow with the "
        "condition number for gradient descent, and with its root with momentum. Markers of the "
        "backends lie on the exact lines.",
        _divergence,
    ),
)
