"""Pages of one file: no request, no script, light and dark, on a phone, in print and read aloud.

``base.html`` holds the frame and the styles, ``macros.html`` how a verdict is shown; the pages
extend them.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isometry._version import __version__
from isometry.common.results import write_atomically

__all__ = ["Cell", "write"]


@dataclass(frozen=True)
class Cell:
    """A verdict as it is shown: a word, a symbol beside it, and a colour that only repeats it."""

    word: str
    kind: str  # the style: pass, fail, differs or absent
    number: str = ""
    note: str = ""

    @property
    def symbol(self) -> str:
        """The sign before the word, hidden from screen readers."""
        return {"pass": "✓", "fail": "✗", "differs": "≠", "absent": "○"}[self.kind]


def write(path: Path, template: str, /, **values: Any) -> None:
    """Render a template that extends ``base.html`` and write it, whole or not at all.

    Parameters
    ----------
    path : Path
        The file to write; an existing one is replaced in one step.
    template : str
        Name of a file beside this module.
    **values
        What the template names; all of them, and for the frame `title` and `summary`, a `Cell`.

    Raises
    ------
    InvalidArgument
        If the file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template(template).render(
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        **values,
    )
    write_atomically(path, text.encode())
