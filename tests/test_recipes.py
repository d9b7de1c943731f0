"""The recipes as texts: every pair, the command, the page. What they make: tests/natives."""

import ast
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from click.testing import CliRunner

import isometry as iso
from isometry.cli import main
from isometry.common.recipes import SUBJECTS, listing, recipe, write
from isometry.common.recipes.behaviours import BEHAVIOURS, DEFAULTS, LIBRARIES, Law

sys.path.insert(0, str(Path(__file__).parent))
import recipes_page

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
PAIRS = list(permutations(LIBRARIES, 2))
EVERY = [(*pair, subject) for subject in SUBJECTS for pair in PAIRS]


def call(*args):
    return CliRunner().invoke(main, ["recipe", *args])


def test_every_library_says_everything():
    assert len(EVERY) == 96
    assert DEFAULTS.keys() == LIBRARIES.keys()
    assert all(of.keys() == LIBRARIES.keys() for of in BEHAVIOURS.values())
    assert all(calls.keys() == BEHAVIOURS.keys() for calls in DEFAULTS.values())


@pytest.mark.parametrize(("source", "target", "subject"), EVERY)
def test_a_recipe_is_a_complete_program(source, target, subject):
    text = recipe(source, target, subject)
    first, second, *_ = text.splitlines()
    assert first == f"# {subject}: from {LIBRARIES[source]} to {LIBRARIES[target]}"
    assert second == f"# {DEFAULTS[source][subject]} by default:"
    words = [f"#   {k}: {v}" for k, v in BEHAVIOURS[subject][source].words().items()]
    assert text.splitlines()[2 : 2 + len(words)] == words
    assert max(map(len, text.splitlines())) <= 100
    tree = ast.parse(text)
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _stores(n)}
    assert ("optimizer" if subject == "adam" else "layer") in stored
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not _stores(n)}
    sizes = stored & {
        *("inputs", "outputs", "size", "stride", "groups", "rows", "features", "seed")
    }
    assert sizes <= read  # none that does nothing


def _stores(name):
    return isinstance(name.ctx, ast.Store)


@pytest.mark.parametrize("target", LIBRARIES)
def test_the_writer_writes_what_it_is_told(target):
    source = next(name for name in LIBRARIES if name != target)

    def written(subject, **changed):
        behaviour = replace(BEHAVIOURS[subject][source], **changed)
        return write(subject, behaviour, source=source, target=target)

    assert "0.00123" in written("layer_norm", eps=0.00123)
    assert "0.00123" in written("adam", rate=0.00123)
    old = written("batch_norm", old_weight=0.75)
    assert ("momentum=0.25" if target == "torch" else "momentum=0.75") in old
    assert written("adam", eps_place="before") != written("adam", eps_place="after")
    assert written("batch_norm", unbiased=True) != written("batch_norm", unbiased=False)


def test_laws_are_exact():
    sizes = {"fan_in": 4, "fan_out": 2}
    assert Law("uniform", "sqrt(6 / (fan_in + fan_out))").exact(sizes) == iso.Uniform(-1.0, 1.0)
    assert Law("normal", "1 / sqrt(fan_in)").exact(sizes) == iso.Normal(0.0, 0.5)
    truncated = Law("truncated normal", "1 / sqrt(fan_in)").exact(sizes)
    assert truncated.moments[1] == pytest.approx(0.25, rel=1e-15)
    assert Law("zeros").exact({}) == iso.Constant(0.0)
    with pytest.raises(iso.InvalidArgument, match="truncated normal"):
        Law("truncated")


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["batch_norm", "Batch-Norm"])
def test_the_command_prints_the_recipe(subject):
    found = call("--from", "torch", "--to", "keras", subject)
    assert (found.exit_code, found.stdout) == (0, recipe("torch", "keras", "batch_norm"))


def test_the_command_lists_all_names():
    found = call("--list")
    assert (found.exit_code, found.stdout) == (0, listing())
    assert all(f"  {name} " in found.stdout for name in (*LIBRARIES, *SUBJECTS))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "torch", "--to", "flux", "dense"], "did you mean 'flax'?"),
        (["--from", "troch", "--to", "flax", "dense"], "known are torch, keras, flax, gluon"),
        (["--from", "torch", "--to", "flax", "batchnorm"], "did you mean 'batch_norm'?"),
        (["--from", "torch", "--to", "torch", "dense"], "its own defaults need none"),
        (["--from", "torch", "dense"], "--list shows the names"),
        (["--from", "torch", "--to", "flax"], "--list shows the names"),
        (["--list", "dense"], "leave the other arguments out"),
    ],
)
def test_a_wrong_call_says_what_is_known(arguments, told):
    found = call(*arguments)
    assert found.exit_code == 2
    assert told in found.stderr
    assert found.stderr.startswith("isometry: ")
    assert found.stdout == ""


# --- the page -------------------------------------------------------------------------------------


def test_the_page_is_current():
    """Written by ``cd tests && python -m recipes_page > ../docs/recipes.md``."""
    assert PAGE.read_text(encoding="utf-8") == recipes_page.write()
