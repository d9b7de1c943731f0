"""Every lesson runs on the backend, in a process of its own, and its assertions hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from isometry.common.contract import Backend

LESSONS = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def test_there_are_lessons() -> None:
    assert LESSONS


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson(nx: Backend, lesson: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-P", str(lesson), "--backend", nx.name],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout
