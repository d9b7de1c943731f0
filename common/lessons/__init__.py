"""Lessons: text written once, code in the words of each framework, made into notebooks.

A lesson is one Markdown file of this folder. A block opened by `python` is code of every framework;
`python torch` is code of PyTorch alone, and stands beside its four translations. Each translation
is the framework's own way of writing and imports nothing of this project (but for what MXNet needs
to be imported beside a NumPy newer than itself). What a lesson computes it keeps by name: in
`shown` what is the same numbers in every framework, to rounding, and in `drawn` what comes from the
framework's own random generator. It ends in assertions of what it taught.

Reading, running and writing notebooks is Jupyter's work (jupytext, nbclient, nbconvert).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isometry.common import checks, results
from isometry.common.errors import BackendNotInstalled, InvalidArgument
from isometry.common.registry import install_hint

if TYPE_CHECKING:
    from nbformat import NotebookNode

__all__ = ["FRAMEWORKS", "KINDS", "TOPICS", "build", "missing", "run", "script", "write"]

FRAMEWORKS = ("numpy", "torch", "tensorflow", "jax", "mxnet")
TOPICS = {
    "sigmoid": "The sigmoid and its gradient: saturation, and what autodiff loses",
    "products": "Products of random matrices: exploding, vanishing, and the exact rate",
    "symmetry": "Breaking symmetry: equal units stay equal",
    "symmetries": "Equal parts of other layers: channels, states, codes, heads, features",
    "constant": "Where a constant start is harmless: linear and softmax regression",
    "xavier": "Xavier's rule, derived and measured, and what the frameworks do by default",
    "normalization": "Normalization: training against inference, batches and layers",
    "bounds": "What two matrices tell of their product, and of a gradient",
    "clipping": "When terms diverge: clipping, layerwise rates, warm-up, shortcuts",
    "beyond": "Beyond: orthogonal weights, and a hundred layers without shortcuts",
}
"""Topic -> its title, in the order in which they are taught."""

KINDS = (".ipynb", ".html", ".py")
NEEDS = ("jupytext", "nbformat", "nbclient", "nbconvert", "ipykernel")
TIMEOUT = 300  # seconds for one cell
INLINE = "module://matplotlib_inline.backend_inline"

Tell = Callable[[int, int, str], None]

# the page of nbconvert without the scripts that it loads from elsewhere: a lesson needs none
OFFLINE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""


def missing() -> list[str]:
    """Return which packages of the extra `lessons` are not installed."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def write(topic: str, framework: str, output: Path, tell: Tell) -> None:
    """Make a lesson in one framework and write it, whole or not at all.

    Parameters
    ----------
    topic : str
        One of `TOPICS`.
    framework : str
        One of `FRAMEWORKS`.
    output : Path
        An executed notebook if it ends in ``.ipynb``, one page without requests if in ``.html``, a
        script in jupytext's percent format, which is not run, if in ``.py``.
    tell : callable
        Called with the cells done, their number, and what is at work.

    Raises
    ------
    InvalidArgument
        If a name is unknown, or the file cannot be written.
    BackendNotInstalled
        If the framework is not installed, and the lesson is to be run.
    RuntimeError
        If a cell of the lesson fails; nothing is written.
    """
    if output.suffix not in KINDS:
        raise InvalidArgument(f"a lesson ends in {', '.join(KINDS)}; received {output.name!r}")
    notebook = build(topic, framework)
    results.check_writable(output.parent)
    if output.suffix == ".py":
        text = script(notebook)
    else:
        _installed(framework)
        run(notebook, tell)
        text = _page(notebook) if output.suffix == ".html" else _json(notebook)
    results.write_atomically(output, text.encode())


def _installed(framework: str) -> None:
    if importlib.util.find_spec(framework) is None:
        raise BackendNotInstalled(
            f"the framework {framework!r} is not installed: {install_hint(framework)}"
        )


def build(topic: str, framework: str) -> NotebookNode:
    """Return the lesson as a notebook that has not run: its text, and this framework's code."""
    import jupytext

    checks.choice("topic", topic, tuple(TOPICS))
    checks.choice("framework", framework, FRAMEWORKS)
    source = (Path(__file__).parent / f"{topic}.md").read_text(encoding="utf-8")
    notebook = jupytext.reads(source, fmt="md")
    others = {*FRAMEWORKS} - {framework}
    notebook.cells = [cell for cell in notebook.cells if others.isdisjoint(cell.metadata)]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{topic}-{number}"  # the same bytes each time
        cell.metadata = {}
    notebook.cells[-1].metadata = {"jupyter": {"source_hidden": True}}  # it gives answers away
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "title": f"{TOPICS[topic]} ({framework})",
    }
    return notebook


def script(notebook: NotebookNode) -> str:
    """Return a notebook as a script, its text in comments."""
    import jupytext

    options = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "-all"}
    notebook.metadata = {"jupytext": options}
    return str(jupytext.writes(notebook, fmt="py:percent"))


def run(notebook: NotebookNode, tell: Tell) -> None:
    """Execute a notebook in place, in an empty folder, by the interpreter that runs this."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    total = len(notebook.cells)

    def started(cell: Any, cell_index: int) -> None:
        tell(cell_index, total, f"cell {cell_index + 1} of {total}")

    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_manager_class=_kernel(folder),
            timeout=TIMEOUT,
            record_timing=False,
            resources={"metadata": {"path": folder}},
            on_cell_start=started,
        )
        try:
            client.execute(env={**os.environ, "MPLBACKEND": INLINE}, stderr=subprocess.DEVNULL)
        except CellExecutionError as error:
            raise RuntimeError(
                f"the lesson stopped: {error.ename}: {error.evalue}; nothing was written"
            ) from error
        except (CellTimeoutError, DeadKernelError) as error:
            raise RuntimeError(f"the lesson stopped: {error}; nothing was written") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what a framework says about itself is no part of a lesson
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    tell(total, total, "written")


def _kernel(folder: str) -> Any:
    """Return the class of kernels that run in this interpreter, whatever `python3` names here."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            if os.name == "posix":
                self.transport, self.ip = "ipc", f"{folder}/kernel"  # no port is opened

        @property
        def kernel_spec(self) -> Any:
            launch = ["-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=[sys.executable, *launch], display_name="Python 3")

    return ThisInterpreter


def _json(notebook: NotebookNode) -> str:
    import nbformat

    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)) + "\n"


def _page(notebook: NotebookNode) -> str:
    from nbconvert import HTMLExporter

    text, _ = HTMLExporter(raw_template=OFFLINE).from_notebook_node(notebook)
    return str(text)
