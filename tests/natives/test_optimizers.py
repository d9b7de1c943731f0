"""The presets are the libraries' own optimizers, to rounding."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "check_optimizers.py"


@pytest.mark.parametrize("library", ["torch", "keras", "optax", "mxnet"])
def test_a_hundred_steps_end_where_the_library_ends(library):
    done = subprocess.run(
        [sys.executable, PROGRAM, library], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
