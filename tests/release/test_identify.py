"""100 blind cases of every known law: the true law is in every set, and nothing else in 99."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import blind

COUNT, EXACT = 100, 99
CLASSES = [(fans, one) for fans in blind.FANS for one in blind.known(fans)]


@pytest.mark.parametrize(
    ("fans", "of"), CLASSES, ids=[f"{fans[0]}x{fans[1]} {one.law}" for fans, one in CLASSES]
)
def test_the_true_law_is_in_every_set_and_the_set_is_its_class(fans, of):
    found = blind.cases(of, fans, COUNT, seed=2)
    assert all(there for there, _ in found)
    assert sum(exact for _, exact in found) >= EXACT
