"""Every lesson in the backend's framework: as a script, beside NumPy's numbers, and as a notebook.

Ours have a translation of the lessons; a backend from elsewhere has none.
"""

import sys
from pathlib import Path

import nbformat
import pytest

from isometry.common import lessons
from isometry.common.contract import Backend

sys.path.insert(0, str(Path(__file__).parents[1]))
from judge_lessons import Arrays, judge_drawn, judge_shown, ran


def silent(done: int, total: int, what: str) -> None:
    """Tell nobody."""


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory):
    """Return topic -> what NumPy shows and draws, each run once."""
    folder, known = tmp_path_factory.mktemp("numpy"), {}

    def of(topic: str) -> Arrays:
        if topic not in known:
            lessons.write(topic, "numpy", folder / f"{topic}.py", silent)
            known[topic] = ran(folder / f"{topic}.py")
        return known[topic]

    return of


@pytest.mark.parametrize("topic", lessons.TOPICS)
def test_script(nx: Backend, topic: str, tmp_path: Path, reference) -> None:
    lessons.write(topic, nx.name, tmp_path / "lesson.py", silent)
    found = ran(tmp_path / "lesson.py")
    judge_shown(topic, found, reference(topic))
    judge_drawn(topic, nx.name, found)


@pytest.mark.parametrize("topic", lessons.TOPICS)
def test_notebook(nx: Backend, topic: str, tmp_path: Path) -> None:
    told = []
    lessons.write(topic, nx.name, tmp_path / "a.ipynb", lambda *step: told.append(step))
    notebook = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "".join(output.get("text", "") for output in outputs).strip()
    assert told[-1][0] == told[-1][1] == len(notebook.cells)
    assert [done for done, _, _ in told] == sorted({done for done, _, _ in told})
