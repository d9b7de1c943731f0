"""Lessons: how their sources are built, and the command that makes notebooks of them."""

import re
import sys
from importlib.resources import files
from pathlib import Path

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner

from isometry.cli import main
from isometry.common import lessons
from isometry.common.errors import BackendNotInstalled, InvalidArgument

sys.path.insert(0, str(Path(__file__).parent))
from judge_lessons import judge_drawn, judge_shown, log_norms, ran

SOURCES = {
    Path(str(path)).stem: path.read_text(encoding="utf-8")
    for path in files("isometry.common.lessons").iterdir()
    if path.name.endswith(".md")
}
FENCE = re.compile(r"^```python ?(\w*)$", re.MULTILINE)
FAILS = "print('before')\nraise ValueError('seven')"


def silent(done, total, what):
    """Tell nobody."""


def call(*args):
    return CliRunner().invoke(main, ["lesson", *map(str, args)])


# --- sources --------------------------------------------------------------------------------------


def test_every_topic_has_a_source_and_every_source_a_topic():
    assert SOURCES.keys() == lessons.TOPICS.keys()


@pytest.mark.parametrize("topic", lessons.TOPICS)
def test_each_piece_of_code_stands_in_every_framework_side_by_side(topic):
    words = FENCE.findall(SOURCES[topic])
    own = [word for word in words if word]
    assert own == list(lessons.FRAMEWORKS) * (len(own) // 5)
    assert own
    # text or common code never stands between two translations
    between = re.split(r"^```python \w+\n.*?^```\n", SOURCES[topic], flags=re.M | re.S)
    assert sum(not part.strip() for part in between) >= 4 * (len(own) // 5)


@pytest.mark.parametrize("topic", lessons.TOPICS)
def test_a_lesson_has_a_title_assertions_and_solved_exercises(topic):
    source = SOURCES[topic]
    assert source.startswith("# ")
    taught, exercises = source.split("## What this taught")[1].split("## Exercises")
    assert "assert " in taught
    questions, solutions = exercises.split("<details><summary>Solutions</summary>")
    numbered = re.findall(r"^(\d)\. ", questions, re.MULTILINE)
    assert numbered == re.findall(r"^(\d)\. ", solutions, re.MULTILINE) == ["1", "2", "3"]
    assert "</details>" in solutions
    assert "assert " in solutions.split("</details>")[1]
    assert "plt.show()" in source


def test_the_four_exercises_of_the_chapter_are_there():
    assert sum(source.count("(The chapter's.)") for source in SOURCES.values()) == 4


@pytest.mark.parametrize("topic", lessons.TOPICS)
@pytest.mark.parametrize("framework", lessons.FRAMEWORKS)
def test_a_notebook_is_in_one_framework_and_does_not_need_this_project(topic, framework):
    cells = lessons.build(topic, framework).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))
    allowed = {"numpy", "matplotlib", "scipy", "sklearn", "math", "functools"}
    allowed |= {"mxnet": {"isometry"}, "numpy": set()}.get(framework, {framework})
    assert imported <= allowed
    if framework == "mxnet":
        assert code.count("isometry") == code.count("isometry.backends.mxnet_compat") == 1
    compile(code, topic, "exec")
    nbformat.validate(lessons.build(topic, framework))


def test_the_same_notebook_each_time():
    first, second = (lessons.build("sigmoid", "torch") for _ in range(2))
    assert nbformat.writes(first) == nbformat.writes(second)
    assert first.cells[-1].metadata == {"jupyter": {"source_hidden": True}}


# --- the judge ------------------------------------------------------------------------------------


def changed(topic, old, new, folder):
    """Run NumPy's lesson, and one in which something is translated wrongly."""
    lessons.write(topic, "numpy", folder / "right.py", silent)
    text = (folder / "right.py").read_text()
    assert text.count(old) == 1
    (folder / "wrong.py").write_text(text.replace(old, new))
    return ran(folder / "right.py"), ran(folder / "wrong.py")


@pytest.mark.parametrize(
    ("topic", "old", "new"),
    [
        ("constant", "np.float32(fast / len", "np.float32(0.99 * fast / len"),
        ("symmetry", "np.float32(rate) * change", "np.float32(0.99 * rate) * change"),
        ("symmetries", "np.float32(rate) * found", "np.float32(0.99 * rate) * found"),
        ("symmetries", "ds @ k,", "ds @ k / 2,"),
        ("symmetries", "/ 8 * (1 - h**2)", "* (1 - h**2)"),
        ("normalization", "+ new * variance", "+ new * 32 / 31 * variance"),
        ("clipping", "np.linalg.norm(w) / np", "np.abs(w).max() / np"),
        ("bounds", "h = np.tanh(w @ h)", "h = np.tanh(np.float32(0.999) * w @ h)"),
        ("beyond", "np.float32(rate) * grad", "np.float32(0.99 * rate) * grad"),
    ],
)
def test_a_wrong_translation_is_noticed(topic, old, new, tmp_path):
    right, wrong = changed(topic, old, new, tmp_path)
    judge_shown(topic, right, right)
    with pytest.raises(AssertionError):
        judge_shown(topic, wrong, right)


@pytest.mark.parametrize(
    ("topic", "old", "new"),
    [
        ("products", "log_norms(factors)\n", "log_norms(np.float32(1.01) * factors)\n"),
        ("xavier", "rng.uniform(-a, a, (fan", "rng.normal(0, a / math.sqrt(3), (fan"),
        ("xavier", "rng.standard_normal((fan_in", "0.9 * rng.standard_normal((fan_in"),
    ],
)
def test_a_wrong_law_is_noticed(topic, old, new, tmp_path):
    right, wrong = changed(topic, old, new, tmp_path)
    judge_drawn(topic, "numpy", right)
    with pytest.raises(AssertionError):
        judge_drawn(topic, "numpy", wrong)


def test_the_budget_of_a_product_holds_and_is_small(tmp_path):
    """NumPy's own float32 run is within half of it from float64."""
    lessons.write("products", "numpy", tmp_path / "lesson.py", silent)
    found = ran(tmp_path / "lesson.py")
    factors, budget = found["shown/factors"], log_norms(found["shown/factors"])
    v = np.eye(4)[:1].repeat(factors.shape[1], axis=0)
    logs = []
    for a in factors.astype(np.float64):
        v = np.einsum("cij,cj->ci", a, v)
        logs.append(np.log(np.linalg.norm(v, axis=1)))
    assert np.all(np.abs(found["shown/log_norms"] - logs) <= budget / 2)
    assert budget.max() < 0.01


# --- notebooks, pages, scripts --------------------------------------------------------------------


def test_a_page_asks_for_nothing(tmp_path):
    output = tmp_path / "lesson.html"
    assert call("sigmoid", "-o", output).exit_code == 0
    page = output.read_text()
    assert "data:image/png;base64," in page
    assert "What this taught" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import|\bimport\(|<script[^>]*src", page)


def test_a_failing_lesson_leaves_the_old_file(tmp_path, monkeypatch):
    output = tmp_path / "lesson.ipynb"
    output.write_text("old")

    def broken(topic, framework):
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FAILS)])

    monkeypatch.setattr(lessons, "build", broken)
    with pytest.raises(RuntimeError, match="ValueError: seven; nothing was written"):
        lessons.write("sigmoid", "numpy", output, silent)
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]
    result = call("sigmoid", "-o", output)
    assert result.exit_code == 3
    assert "seven" in result.stderr


def test_a_cell_runs_in_this_interpreter_and_away_from_here(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise ImportError('a file of the student')")
    monkeypatch.chdir(tmp_path)
    asked = "import sys, numpy; print(sys.executable)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(asked)])
    lessons.run(notebook, silent)
    assert notebook.cells[0].outputs[0].text.strip() == sys.executable


# --- the command ----------------------------------------------------------------------------------


def test_without_a_topic_the_lessons_are_listed():
    result = call()
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(lessons.TOPICS)


def test_a_script_is_written_in_percent_format(tmp_path):
    result = call("products", "--backend", "numpy", "-o", tmp_path / "deep" / "lesson.py")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "deep" / "lesson.py").read_text()
    assert text.startswith("# %% [markdown]\n# # Products of random matrices")
    assert "import numpy" in text


def test_the_file_has_a_name_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("sigmoid").output == "lesson  sigmoid-numpy.ipynb\n"
    assert (tmp_path / "sigmoid-numpy.ipynb").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sigmiod"], "did you mean 'sigmoid'?"),
        (["sigmoid", "--backend", "troch"], "did you mean 'torch'?"),
        (["sigmoid", "-o", "lesson.pdf"], "ends in .ipynb, .html, .py; received 'lesson.pdf'"),
        (["-o", "lesson.py"], "name the TOPIC"),
    ],
)
def test_usage(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "FRAMEWORKS", (*lessons.FRAMEWORKS, "no_framework"))
    with pytest.raises(BackendNotInstalled, match=r"isometry\[no_framework\]"):
        lessons.write("sigmoid", "no_framework", tmp_path / "lesson.ipynb", silent)
    assert not list(tmp_path.iterdir())
    lessons.write("sigmoid", "no_framework", tmp_path / "lesson.py", silent)  # runs nothing
    monkeypatch.setattr(lessons, "NEEDS", ("no_package",))
    result = call("sigmoid", "-o", tmp_path / "lesson.py")
    assert result.exit_code == 3
    assert 'a lesson needs no_package: pip install "isometry[lessons]"' in result.stderr


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="cannot write"):
        lessons.write("sigmoid", "numpy", tmp_path / "file" / "lesson.py", silent)
