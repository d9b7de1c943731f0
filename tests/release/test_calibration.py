"""Right samples fail as rarely as stated: 100,000 of each statistic, the suite on 200 seeds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import calibration


@pytest.fixture(scope="module")
def measured():
    return calibration.statistics(calibration.REPLICATIONS)


@pytest.fixture(scope="module")
def clauses():
    return calibration.suite(range(1, calibration.SEEDS + 1))


def test_right_samples_are_rejected_at_no_more_than_the_rate(measured):
    for one in measured:
        assert one.kept, one


def test_fresh_seeds_give_uniform_p_values_and_no_failure(clauses):
    assert calibration.outside(clauses) == []


def test_the_record(measured, clauses):
    """Print what docs/calibration.md records."""
    print(
        calibration.page(
            measured,
            clauses,
            replications=calibration.REPLICATIONS,
            seeds=calibration.SEEDS,
        )
    )
