"""docs/initializers.md is what the code says, and every rule is in it."""

import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

from isometry.common import laws
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.rules import Initializer

sys.path.insert(0, str(Path(__file__).parent))
import initializers_page

PAGE = Path(__file__).parents[1] / "docs" / "initializers.md"


def _rules(cls=Initializer):
    """Return every rule of the laws that is no elementary law."""
    for module in pkgutil.iter_modules(laws.__path__):
        importlib.import_module(f"isometry.common.laws.{module.name}")
    below = [c for c in cls.__subclasses__() if c is not Distribution]
    return {c for c in below if c.__module__.startswith("isometry.common.laws.")}


def test_the_page_is_current():
    """Written by ``cd tests && python -m initializers_page > ../docs/initializers.md``."""
    assert PAGE.read_text(encoding="utf-8") == initializers_page.write()


def test_every_rule_is_in_the_catalogue():
    listed = {c for c in initializers_page.CATALOGUE if isinstance(c, type)}
    assert listed == _rules()
    elementary = {
        c for c in Distribution.__subclasses__() if c.__module__ == Distribution.__module__
    }
    assert set(initializers_page.ELEMENTARY) == elementary


@pytest.mark.parametrize("rule", initializers_page.CATALOGUE, ids=lambda c: c.__name__)
def test_a_docstring_says_what_the_catalogue_shows(rule):
    found = initializers_page.sections(rule)
    assert tuple(found) == initializers_page.COLUMNS
    assert all(text.strip().endswith(".") for text in found.values())
    assert "\nRaises\n" in (rule.__doc__ or "").replace("    ", "")
