"""Arrays lie on the adapter's device, also where the framework would place them elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isometry.common.contract import Backend
from isometry.common.errors import InvalidArgument

CLAUSES = (
    "arrays.round-trip",
    "identity.device",
    "ops.meaning",
    "streams.shape",
    "streams.portable",
    "chains.product",
    "chains.log-norm",
    "initializers.constant",
    "initializers.orthogonal",
    "normalization.conventions",
    "differentiation.dictionary",
    "differentiation.vjp",
    "compiled.arguments",
    "compiled.stream",
)


def judged(backend: str, placed: str, clauses: tuple[str, ...]) -> tuple[int, str]:
    """Return the exit code and output of these clauses in a process of another default device."""
    script = str(Path(__file__).with_name("elsewhere.py"))
    options = ["-q", "-c", os.devnull, "-p", "no:cacheprovider", "--pyargs", "isometry.conformance"]
    done = subprocess.run(
        [sys.executable, script, backend, placed, *options, "--clause", ",".join(clauses)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_arrays_lie_on_the_device_of_the_adapter(nx: Backend) -> None:
    if nx.name == "numpy":  # has but one place
        assert nx.device == "cpu"
        return
    code, output = judged(nx.name, "right", CLAUSES)
    assert code == 0, output


def test_an_array_elsewhere_shows(nx: Backend) -> None:
    if nx.name == "numpy":
        with pytest.raises(InvalidArgument, match="does not exist"):
            type(nx)(device="cpu:1")
        return
    code, output = judged(nx.name, "wrong", ("arrays.round-trip",))
    assert code == 1
    assert "an array lies on" in output
