"""Where the gradient of the sigmoid goes, and where each framework's own one stops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from isometry.common.laws.formats import FORMATS
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

HEADROOM = 0.4  # above the curve, in units of its height: room for labels


def _chapter(figure: Figure, results: Results) -> None:
    ax = figure.subplots()
    x = np.linspace(-8, 8, 641)
    exact = 1 / (1 + np.exp(-x))
    ax.plot(x, exact, color="black", label="sigmoid, exact")
    ax.plot(x, exact * (1 - exact), color="black", linestyle="--", label="derivative, exact")
    for k, (name, style) in enumerate(styles(results).items()):
        at = values(results[name], "x")
        for quantity, label in (("sigmoid", name), ("sigmoid_gradient", None)):
            ax.plot(
                at,
                values(results[name], quantity),
                **{**style, "linestyle": "none"},
                markevery=every(at.size, k, len(results)),
                label=label,
            )
    ax.set(xlabel="x", ylabel="value", xlim=(-8, 8))
    legend(figure, ax)


def _tails(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 1)
    for ax, dtype in zip(axes, ("float32", "float64"), strict=True):
        x = values(first(results), f"tail_x_{dtype}").astype(np.float64)
        exact = (-np.abs(x) - 2 * np.log1p(np.exp(-np.abs(x)))) / math.log(10)
        ax.plot(x, exact, color="#bbbbbb", linewidth=4, label="exact derivative")
        for k, (name, style) in enumerate(styles(results).items()):
            native = values(results[name], f"tail_native_sigmoid_gradient_{dtype}")
            ax.plot(
                x,
                log10(native),
                **style,
                markevery=every(x.size, k, len(results)),
                label=f"{name}, native",
            )
        ax.set(xlabel="x", ylabel="derivative of the sigmoid", title=dtype)
        ax.set(xlim=(x[0], x[-1]), ylim=(exact.min(), -HEADROOM * exact.min()))
        decades(ax)
        ax.set_yticks([tick for tick in ax.get_yticks() if exact.min() <= tick <= 0])
        _smallest_normal(ax, dtype)
        _mark_flush(ax, results, dtype)
    legend(figure, *axes)


def _smallest_normal(ax: Axes, dtype: str) -> None:
    level = math.log10(FORMATS[dtype].smallest_normal)
    ax.axhline(level, color="#555555", linewidth=0.8, linestyle=(0, (1, 2)))
    ax.annotate(
        f"smallest normal {dtype}",
        (0.0, level),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
    )


def _mark_flush(ax: Axes, results: Results, dtype: str) -> None:
    """Mark where each native derivative becomes exactly 0, points that read equal under one tick.

    Labels stand to the left of their ticks, in the headroom, higher from tick to tick, and each
    tick ends at its own label: no tick crosses a label, and no label the curve.
    """
    points: dict[str, list[str]] = {}
    for name, result in results.items():
        flush = float(values(result, f"flush_native_sigmoid_gradient_{dtype}"))
        if math.isfinite(flush):
            points.setdefault(f"{flush:.5g}", []).append(name)
    low, high = ax.get_ylim()
    for k, (x, names) in enumerate(sorted(points.items(), key=lambda point: -float(point[0]))):
        top = high * (1 - k / (len(points) + 0.5))
        color = styles(results)[names[0]]["color"] if len(names) == 1 else "black"
        ax.vlines(float(x), low, top, color=color, linewidth=1.5)
        ax.annotate(
            f"{', '.join(names)}: 0 from x = {x}",
            (float(x), top),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="top",
            color=color,
        )


DRAWINGS = (
    Drawing(
        "sigmoid-gradient",
        3.2,
        "The sigmoid and its derivative from -8 to 8: exact curves, and each backend's values as "
        "markers.",
        "Line chart. The sigmoid rises from 0 to 1; its derivative is a bump of height one quarter "
        "at 0, close to 0 beyond 6 on either side. The markers of the backends show where each "
        "one's values lie.",
        _chapter,
    ),
    Drawing(
        "sigmoid-gradient-tails",
        6.6,
        "The derivative of the sigmoid over the far tails, on a logarithmic axis. Grey: the exact "
        "value, beyond what the dtype can hold. Lines: each framework's own gradient; a vertical "
        "tick marks the x from which it is exactly 0. A line that ends without a tick gives NaN.",
        "Two line charts on a logarithmic axis, float32 above float64. The exact derivative falls "
        "off in a straight line on both sides of 0. Each framework's own gradient follows it and "
        "ends, on the right, at a tick labelled with the framework's name and the x from which its "
        "gradient is exactly 0; the finding gives these numbers.",
        _tails,
    ),
)
