"""100 blind cases of every known law: the true law is in every set, and nothing else in 99."""

import sys
from pathlib import Path

import numpy as np
import pytest

import isometry as iso

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


@pytest.mark.parametrize("name", blind.LAWS)
@pytest.mark.parametrize("part", blind.PARTS)
def test_what_is_made_of_a_smaller_weight_is_of_its_law(part, name):
    found = blind.cases_of_parts(part, name, COUNT, seed=2)
    assert all(there for there, _ in found)
    assert sum(exact for _, exact in found) >= EXACT


@pytest.mark.parametrize("count", [3, 4])
def test_gates_that_are_orthogonal_each_by_itself(count):
    for k in range(COUNT):
        w = blind.gates(count, (128, 128), np.random.default_rng([3, k]))
        found = iso.identify(w.astype(np.float32))
        assert found.names == (f"orthogonal, in each of {count} gates",)


def test_the_bias_of_chrono_initialization():
    for k in range(COUNT):
        bias = blind.chrono(100.0, 512, np.random.default_rng([4, k]))
        (one,) = iso.identify(bias.astype(np.float32)).candidates
        low, high = map(float, one.names[0].split(" from ")[1].split(" to "))
        assert low <= 100 <= high
