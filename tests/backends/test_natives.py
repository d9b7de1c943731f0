"""Every native of the backend's libraries is wired: it runs, repeats, and gives what it should."""

import os
import subprocess
import sys
from pathlib import Path

from isometry.common.contract import Backend

PROGRAM = Path(__file__).parents[1] / "check_natives.py"
LIBRARIES = {
    "numpy": (),  # ships none of these
    "torch": ("torch_native:library",),
    "tensorflow": ("tensorflow_native:library", "keras_native:library"),
    "jax": ("jax_native:library",),
    "mxnet": ("mxnet_native:library",),
}


def test_every_native_is_wired(nx: Backend) -> None:
    for library in LIBRARIES[nx.name]:
        done = subprocess.run(
            [sys.executable, PROGRAM, library],
            env={**os.environ, "KERAS_BACKEND": nx.name},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
