"""How every figure looks: the columns' colours, axes of powers of ten, one legend outside the data.

A backend has one colour (Okabe and Ito 2008, distinguishable with any colour vision), one marker
and one line style in every figure, so that grey print tells them apart too. Exact curves are black
or grey. Quantities that span hundreds of decades are drawn as their log10 on a linear axis, because
a logarithmic axis ends where float64 does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from isometry.common.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DPI",
    "MARKERS",
    "STYLE",
    "WIDTH",
    "Drawing",
    "Results",
    "decades",
    "every",
    "first",
    "legend",
    "log10",
    "name_ends",
    "styles",
    "values",
]

WIDTH = 6.5  # inches
DPI = 300
MARKERS = 16  # per curve: more of them hide the line

Results = Mapping[str, Result]  # column heading -> result

_BUILT_IN = {
    "numpy": ("#000000", "o", "-"),
    "torch": ("#D55E00", "s", "--"),
    "tensorflow": ("#E69F00", "^", "-."),
    "jax": ("#0072B2", "D", ":"),
    "mxnet": ("#009E73", "v", (0, (5, 1, 1, 1, 1, 1))),
}
_OTHERS = (("#CC79A7", "P", (0, (1, 1))), ("#56B4E9", "X", (0, (8, 2))), ("#999999", "*", "-"))
STYLE = {
    "font.family": "DejaVu Sans",  # Matplotlib carries it
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "path",
    "svg.hashsalt": "isometry",  # the same results give the same file
}


@dataclass(frozen=True)
class Drawing:
    """One figure of a study.

    Attributes
    ----------
    name : str
        Name of its files, without the suffix.
    height : float
        In inches.
    caption : str
        What is drawn and how to read it.
    alt : str
        The text alternative: what somebody sees who sees the figure.
    paint : callable
        ``paint(figure, results)`` draws the results, by column heading, into an empty figure.
    """

    name: str
    height: float
    caption: str
    alt: str
    paint: Callable[[Figure, Results], None]


def styles(results: Results) -> dict[str, dict[str, Any]]:
    """Return colour, marker and line style of each column."""
    looks: dict[str, dict[str, Any]] = {}
    others = iter(_OTHERS * len(results))
    taken: set[str] = set()
    for name, result in results.items():
        built_in = result.backend in _BUILT_IN and result.backend not in taken
        taken.add(result.backend)
        color, marker, line = _BUILT_IN[result.backend] if built_in else next(others)
        looks[name] = {
            "color": color,
            "marker": marker,
            "markerfacecolor": "none",
            "linestyle": line,
        }
    return looks


def values(result: Result, name: str) -> np.ndarray:
    """Return the array of a quantity, with NaN, which is not drawn, for what is not finite."""
    found = result.quantities[name].values
    return found if found.dtype.kind != "f" else np.where(np.isfinite(found), found, np.nan)


def first(results: Results) -> Result:
    """Return the first column's result, for what is the same in all: theory, parameters."""
    return next(iter(results.values()))


def every(size: int, k: int, count: int) -> tuple[int, int]:
    """Return (start, step) of the markers of curve k of count, so that curves do not cover it."""
    step = max(size // MARKERS, 1)
    return (k * step // max(count, 1), step)


def decades(ax: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Label a linear axis of log10 values as the powers of ten they are."""
    ax.locator_params(axis=axis, integer=True)
    getattr(ax, f"{axis}axis").set_major_formatter(lambda v, _: rf"$10^{{{v:g}}}$")


def log10(values: np.ndarray) -> np.ndarray:
    """Return log10 of positive values and NaN, which is not drawn, of all others."""
    values = np.asarray(values, dtype=np.float64)
    return np.log10(np.where(values > 0, values, np.nan))


def name_ends(ax: Axes, ends: Mapping[str, float]) -> None:
    """Name curves at their right ends, top to bottom; ends too close for two labels share one."""
    low, high = ax.get_ylim()
    groups: list[list[tuple[float, str]]] = []
    for end in sorted((height, name) for name, height in ends.items() if math.isfinite(height)):
        if groups and end[0] - groups[-1][-1][0] < (high - low) / 10:
            groups[-1].append(end)
        else:
            groups.append([end])
    for group in groups:
        ax.annotate(
            "\n".join(name for _, name in reversed(group)),
            (1, sum(height for height, _ in group) / len(group)),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )


def legend(figure: Figure, *axes: Axes) -> None:
    """Put one legend of everything labelled below the panels, outside the data."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    rows = math.ceil(len(entries) / 4)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=math.ceil(len(entries) / rows),
    )
