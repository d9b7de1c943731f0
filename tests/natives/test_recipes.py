"""Every recipe is executed, and what it makes is judged; a wrong one is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isometry.common.recipes import SUBJECTS
from isometry.common.recipes.behaviours import LIBRARIES

PROGRAM = Path(__file__).parents[1] / "check_recipes.py"


def run(arguments, engine, folder):
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
def test_every_recipe_to(target, engine, tmp_path):
    lines = run([PROGRAM, target], engine, tmp_path).splitlines()
    assert [line for line in lines if line.startswith("FAILED")] == []
    judged = {tuple(line.split()[1:3]) for line in lines if line.startswith("ok ")}
    others = set(LIBRARIES) - {target}
    assert judged == {(subject, source) for subject in SUBJECTS for source in others}
    refused = {tuple(line.split()[1:3]) for line in lines if line.startswith("refused ")}
    assert refused == judged  # wrong behaviours of every one


@pytest.mark.parametrize("target", LIBRARIES)
def test_a_printed_recipe_runs_as_it_stands(target, tmp_path):
    source = "torch" if target == "flax" else "flax"
    asked = ["-m", "isometry", "recipe", "--from", source, "--to", target, "convolution"]
    (tmp_path / "recipe.py").write_text(run(asked, "jax", tmp_path))
    assert run(["recipe.py"], "jax", tmp_path) == ""
