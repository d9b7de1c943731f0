"""Every study once on the backend, at its smallest honest size: all of its checks hold."""

from pathlib import Path
from typing import Any

import pytest

from isometry.common import results, studies
from isometry.common.contract import Backend

SMALLEST: dict[str, dict[str, Any]] = {
    "sigmoid-gradient": {},
    "matrix-chain": {"chains": 200, "paths": 4, "points": 20},
    "xavier": {"depth": 20, "width": 128, "networks": 2},
    "symmetry": {"steps": 30},
    "normalization": {"steps": 20},
}


def test_no_study_is_left_out() -> None:
    assert set(SMALLEST) == set(studies.NAMES)


@pytest.mark.parametrize("study", SMALLEST)
def test_checks_hold(nx: Backend, study: str, tmp_path: Path) -> None:
    result = studies.run(study, nx, parameters=SMALLEST[study])
    assert result.checks
    assert [c for c in result.checks if not c.passed] == []
    results.save(result, tmp_path / "result.json")
    assert results.load(tmp_path / "result.json").checks == result.checks
