"""Who needs a warm-up: steps by rate, sharpness at the start, and Adam's first steps."""

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

NETS = ("He", "Fixup", "batch norm")
TICKS = (-12, -8, -4, 0)  # log2 of rates
NEVER = 1.1  # where rates that do not reach the goal are drawn, in steps tried


def _log2(x: np.ndarray) -> np.ndarray:
    return np.asarray(log10(x) / np.log10(2))


def _warm_up(figure: Figure, results: Results) -> None:
    grid = figure.add_gridspec(2, 6)
    top = [figure.add_subplot(grid[0, 2 * k : 2 * k + 2]) for k in range(3)]
    depth = str(first(results).parameters["depths"]).rpartition(",")[2]
    limit = int(first(results).parameters["steps"])
    for ax, name in zip(top, NETS, strict=True):
        for column, style in styles(results).items():
            for schedule, fill in (("bare", "none"), ("warm", style["color"])):
                key = f"{name}, {depth} blocks/{schedule}"
                rate = _log2(values(results[column], f"rate/{key}"))
                steps = np.nan_to_num(values(results[column], f"steps/{key}"), nan=NEVER * limit)
                look = {**style, "markerfacecolor": fill, "linewidth": 0.8}
                ax.plot(rate, steps, **look, label=column if schedule == "bare" else None)
        for label, fill in (("without warm-up", "none"), ("with warm-up", "#888888")):
            look = {"color": "#888888", "marker": "o", "linestyle": "none"}
            ax.plot([], [], **look, markerfacecolor=fill, label=label)
        ax.set_title(f"{name}, {depth} blocks")
        ax.set(xlabel="rate", ylim=(0, 1.18 * limit), xlim=(-13, 2))
        ax.set_xticks(TICKS, [rf"$2^{{{k}}}$" for k in TICKS])
        ax.axhline(limit, color="black", linewidth=0.7, linestyle=":")
    top[0].set_ylabel("steps to 90 %")
    top[1].annotate("not reached", (-12.7, NEVER * limit), va="center")
    _sharpness(figure.add_subplot(grid[1, :3]), results)
    _adam(figure.add_subplot(grid[1, 3:]), results)
    legend(figure, top[0], *figure.axes[3:])


def _sharpness(ax: Axes, results: Results) -> None:
    one = first(results)
    depths = _log2(values(one, "sharpness/depth"))
    for column, style in styles(results).items():
        result = results[column]
        dots = {**style, "linestyle": "none"}
        ax.plot(depths, log10(values(result, "sharpness/Fixup")), **dots)
        measured = log10(values(result, "sharpness/He"))
        ax.plot(_log2(values(result, "depth")), measured, **dots)
    for name, look, label in (
        ("Fixup/limit", "-", "Fixup, exact mean"),
        ("Fixup without its factor", "--", "without its factor"),
    ):
        curve = log10(values(one, f"sharpness/{name}"))
        ax.plot(depths, curve, color="#888888", linestyle=look, label=label)
    end = log10(values(one, "sharpness/He"))[-1]
    ax.annotate("He", (_log2(values(one, "depth"))[-1] + 0.15, end), va="center")
    ax.annotate("Fixup", (depths[-1], 0.25), ha="right", va="center")
    ax.set(xlabel="blocks", ylabel="sharpness at the start", ylim=(0, None))
    ax.set_xticks(depths, [f"{2**d:g}" for d in depths])
    decades(ax)


def _adam(ax: Axes, results: Results) -> None:
    for column, style in styles(results).items():
        length = values(results[column], "adam/step")
        ax.plot(np.arange(1, len(length) + 1), length, **{**style, "linestyle": "none"})
    exact = values(first(results), "adam/step/theory")
    ax.plot(np.arange(1, len(exact) + 1), exact, color="black", linewidth=0.8, label="Adam, exact")
    ax.set(xlabel="step", ylabel="Adam's step on noise / rate", ylim=(0, 1.05))


DRAWINGS = (
    Drawing(
        "warm-up",
        5.2,
        "Above: steps until residual nets know 90 % of the digits, at each rate, without a "
        "warm-up (hollow) and with one (filled). Below: largest eigenvalue of the Hessian at the "
        "start against the number of blocks, and the root mean square of Adam's steps on "
        "gradients that are noise.",
        "Three panels above: He's net trains at rates of a few thousandths only, with a warm-up "
        "at a few times more; nets with Fixup or batch normalization train at rates near 1 with "
        "and without it, in fewer steps. Below left: the sharpness of He's nets grows by orders "
        "of magnitude with depth, that of nets with Fixup stays near 3. Below right: Adam's steps "
        "fall from the whole rate at the first step to a quarter of it.",
        _warm_up,
    ),
)
