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


def _judged() -> list[str]:
    """Return the clauses that the tests name, without importing them."""
    return [
        decorator.args[0].value
        for file in SUITE.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.clause"
    ]


def test_every_clause_is_judged_and_every_test_judges_one():
    assert set(_judged()) == specification.clauses().keys()


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
