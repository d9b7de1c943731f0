"""Every recipe is executed, and what it makes is judged; a wrong one is refused."""

from pathlib import Path

import pytest

from isometry.common.recipes import SUBJECTS
from isometry.common.recipes.behaviours import LIBRARIES

PROGRAM = Path(__file__).parents[1] / "check_recipes.py"


@pytest.mark.parametrize(
    ("target", "engine"),
    [
        ("torch", "jax"),
        ("keras", "tensorflow"),
        ("keras", "jax"),
        ("flax", "torch"),
        ("gluon", "jax"),
    ],
)
def test_every_recipe_to(target, engine, run):
    lines = run([PROGRAM, target], engine).splitlines()
    assert [line for line in lines if line.startswith("FAILED")] == []
    judged = {tuple(line.split()[1:3]) for line in lines if line.startswith("ok ")}
    others = set(LIBRARIES) - {target}
    assert judged == {(subject, source) for subject in SUBJECTS for source in others}
    refused = {tuple(line.split()[1:3]) for line in lines if line.startswith("refused ")}
    assert refused == judged  # wrong behaviours of every one


@pytest.mark.parametrize("target", LIBRARIES)
def test_a_printed_recipe_runs_as_it_stands(target, run, tmp_path):
    source = "torch" if target == "flax" else "flax"
    asked = ["-m", "isometry", "recipe", "--from", source, "--to", target, "convolution"]
    (tmp_path / "recipe.py").write_text(run(asked, "jax"))
    assert run(["recipe.py"], "jax") == ""
