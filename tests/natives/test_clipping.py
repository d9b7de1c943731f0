"""docs/clipping.md says what the libraries' clipping does, as it is measured."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_the_page_is_what_is_measured() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "clipping_page"],
        cwd=TESTS,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == (TESTS.parent / "docs" / "clipping.md").read_text(encoding="utf-8")
