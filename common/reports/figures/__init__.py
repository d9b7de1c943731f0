"""Figures for print and page, drawn from results alone.

Each figure is 6.5 inches wide with text of at least 8 points, written as SVG (text as paths) and
as PNG at 300 dpi. Figures are built without pyplot: no global state, no window, no backend of
Matplotlib is touched. Each study's figures are in a file of its own.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from isometry.common import studies
from isometry.common.reports.agreement import distinct
from isometry.common.reports.figures.style import DPI, STYLE, WIDTH, Drawing
from isometry.common.results import Result, write_atomically

__all__ = ["DPI", "DRAWINGS", "STYLE", "WIDTH", "Drawing", "draw"]

DRAWINGS: dict[str, tuple[Drawing, ...]] = {
    name: importlib.import_module(f"{__name__}.{name.replace('-', '_')}").DRAWINGS
    for name in studies.NAMES
}


def draw(results: Mapping[str, Sequence[Result]], folder: Path) -> list[Path]:
    """Draw every figure of every study and return the files written; remove older figures.

    Parameters
    ----------
    results : mapping of str to sequence of Result
        Study -> results of the backends side by side. A study without a figure draws nothing, and
        a result asked with other parameters than the first is not drawn beside it.
    folder : Path
        Made if it does not exist.

    Raises
    ------
    InvalidArgument
        If a file cannot be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for study, row in results.items():
        alike = {
            name: result
            for name, result in zip(distinct(row), row, strict=True)
            if result.parameters == row[0].parameters
        }
        for drawing in DRAWINGS.get(study, ()) if row else ():
            with style.context(["default", STYLE]):  # not the user's matplotlibrc; restored after
                layout = ConstrainedLayoutEngine()
                figure = Figure(figsize=(WIDTH, drawing.height), layout=layout)
                drawing.paint(figure, alike)
                layout.execute(figure)  # once, not once per file
                figure.set_layout_engine("none")
                for kind, metadata in (("svg", {"Date": None}), ("png", {})):
                    picture = io.BytesIO()
                    figure.savefig(picture, format=kind, dpi=DPI, metadata=metadata)
                    path = folder / f"{drawing.name}.{kind}"
                    write_atomically(path, picture.getvalue())
                    written.append(path)
    for drawing in (d for drawings in DRAWINGS.values() for d in drawings):
        for kind in ("svg", "png"):
            if (path := folder / f"{drawing.name}.{kind}") not in written:
                path.unlink(missing_ok=True)
    return written
