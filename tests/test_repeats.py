"""The verdicts on repeated values: right samples pass, few states and shared orbits do not."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.conformance import repeats

N = 2**20
RNG = np.random.Generator(np.random.PCG64(2026))


@pytest.mark.parametrize(
    ("dtype", "states", "right"), [("float32", 2**21, 2**23), ("float64", 2**32, 2**53)]
)
def test_a_source_of_few_states_repeats(dtype, states, right):
    def verdict(count):
        return repeats.within(RNG.integers(0, count, N) / count, detects=states, dtype=dtype)

    assert verdict(right).passed  # the coarsest grid that a stream may have
    assert not verdict(states).passed


def test_the_bound_is_not_far_above_what_is_right():
    """Of float32 values with the promised grid of 2**-23, half as many repeats are expected."""
    verdict = repeats.within(RNG.integers(0, 2**23, N) / 2**23, detects=2**21, dtype="float32")
    assert verdict.high / 2.5 < verdict.observed < verdict.high / 1.9
    assert verdict.p_value == 1


def test_an_orbit_entered_elsewhere_is_shared():
    orbit = RNG.random(70_000)
    first, later, other = orbit[:60_000], orbit[8_000:68_000], RNG.random(60_000)
    shared = repeats.between(later, first, detects=0.25, dtype="float64")
    assert shared.observed == 52_000
    assert not shared.passed
    assert repeats.between(other, first, detects=0.25, dtype="float64").passed


def test_a_sample_too_small_for_its_claim_is_refused():
    with pytest.raises(InvalidArgument, match="cannot detect a source of 4294967296 values"):
        repeats.within(RNG.random(1000), detects=2**32, dtype="float64")
    with pytest.raises(InvalidArgument, match="cannot detect 25% of the values in common"):
        repeats.between(RNG.random(50), RNG.random(50), detects=0.25, dtype="float64")
