"""What tests of the libraries ask for."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def run(tmp_path):
    """Run Python in a process of its own and in `tmp_path`, with Keras on an engine."""

    def run(arguments, engine):
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
