"""The contract's defaults keep its bounds on every framework's own functions, compiled too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from isometry.common.contract import Backend

CLAUSES = (
    "activations.exact",
    "activations.beyond-normal",
    "activations.autodiff",
    "activations.autodiff-hard-points",
    "differentiation.hvp-activations",
    "chains.rescale",
    "chains.gradient",
    "normalization.conditioning",
    "normalization.batch-gradient",
    "normalization.layer-gradient",
)


def test_defaults_on_the_framework(nx: Backend, tmp_path: Path) -> None:
    suite = ["-p", "isometry.conformance.plugin", "--pyargs", "isometry.conformance"]
    chosen = ["--backend", f"composed:{nx.name}", "--clause", ",".join(CLAUSES)]
    run = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", *suite, *chosen],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr
