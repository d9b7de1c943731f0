"""Right samples fail as rarely as stated: a small part of what the release tier measures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import calibration

REPLICATIONS, SEEDS = 20_000, 3


def test_right_samples_are_rejected_at_no_more_than_the_rate():
    for measured in calibration.statistics(REPLICATIONS):
        assert measured.kept, measured


def test_fresh_seeds_give_p_values_and_no_failure():
    clauses = calibration.suite(range(1, SEEDS + 1))
    assert calibration.outside(clauses) == []
    for clause in clauses:
        assert {len(p) for p in clause.p_values.values()} <= {SEEDS}, clause.name
        assert all(0 < p <= 1 for values in clause.p_values.values() for p in values)
