"""The specification and the suite say the same, and the page in docs is what they say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from isometry import conformance
from isometry.common.conformity import PROFILES
from isometry.conformance import specification

SUITE = Path(conformance.__file__).parent
DOCS = Path(__file__).parents[1] / "docs"


def _judged() -> set[str]:
    """Return the clauses that the tests name, without importing them.

    In a decorator, or as the keys of a table whose entries are marked with them.
    """
    named: set[str] = set()
    for file in SUITE.glob("test_*.py"):
        tree, group = ast.parse(file.read_text()), file.stem.removeprefix("test_")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                named |= {
                    d.args[0].value
                    for d in node.decorator_list
                    if isinstance(d, ast.Call) and ast.unparse(d.func) == "pytest.mark.clause"
                }
        for node in tree.body:
            table = getattr(node, "value", None)
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(table, ast.Dict):
                keys = {key.value for key in table.keys if isinstance(key, ast.Constant)}
                named |= {key for key in keys if str(key).startswith(f"{group}.")}
    return named


def test_every_clause_is_judged_and_every_test_judges_one():
    assert _judged() == specification.clauses().keys()


def test_groups_are_the_files():
    assert {file.stem for file in SUITE.glob("*.toml")} == set(specification.GROUPS)


@pytest.mark.parametrize("clause", specification.clauses().values(), ids=lambda c: c.id)
def test_a_clause_is_complete(clause):
    assert clause.profile in PROFILES
    assert clause.requires.endswith(".")
    assert clause.source
    assert clause.oracle
    assert clause.detects or not clause.false_alarm
    assert clause.since in specification.CHANGES
    assert next(iter(specification.CHANGES)) == specification.VERSION


def test_the_page_is_current():
    """Written by ``isometry spec -o docs/specification.md``."""
    assert (DOCS / "specification.md").read_text() == specification.page()
