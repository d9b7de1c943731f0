"""Every native of the libraries beside the five frameworks, and of Keras on its other engines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "check_natives.py"


@pytest.mark.parametrize(
    ("library", "engine"),
    [
        ("flax_native:linen", ""),
        ("flax_native:nnx", ""),
        ("optax_native:library", ""),
        ("keras_native:library", "torch"),
        ("keras_native:library", "jax"),
    ],
)
def test_every_native_is_wired(library: str, engine: str) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, library],
        env={**os.environ, "KERAS_BACKEND": engine or "jax"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"on {engine}:" in done.stdout or not engine
