"""Every study once on the backend, at its smallest honest size: all of its checks hold."""

from pathlib import Path
from typing import Any

import pytest

from isometry.common import results, studies
from isometry.common.contract import Backend
from isometry.common.networks.on_digits import FAMILIES

SMALLEST: dict[str, dict[str, Any]] = {
    "sigmoid-gradient": {},
    "matrix-chain": {"chains": 200, "paths": 4, "points": 20},
    "xavier": {"depth": 20, "width": 128, "networks": 2},
    "symmetry": {"steps": 30},
    "normalization": {"steps": 20},
    "signal-propagation": {"depth": 6, "width": 64, "networks": 2, "steps": 1, "examples": 16},
    "default-layers": {"activations": "relu", "widths": "32", "depths": "3,5", "networks": 1},
    "edge-of-chaos": {"depth": 16, "width": 128, "networks": 2, "grid": 4},
    "dynamical-isometry": {"depth": 4, "width": 64, "networks": 12, "convolutions": 10},
    "coordinate-check": {"widths": "128,512", "seeds": 6, "steps": 1},
    "batch-norm": {"steps": 4, "seeds": 1},
    "sample-variance": {
        "depth": 20,
        "widths": "64",
        "samples": 24,
        "networks": 4,
        "training_depth": 6,
        "steps": 8,
    },
    "gradient-variance": {"shapes": "12x6,4+12x5", "networks": 500},
    "vanishing-curvature": {
        "depths": "8",
        "chains": 500,
        "net_depths": "4",
        "nets": 100,
        "remedy_nets": 2,
    },
    "matrix-products": {"size": 4, "pairs": 20, "depth": 3},
    "hessian-spectrum": {
        "examples": 32,
        "width": 8,
        "depths": "5",
        "lanczos": 20,
        "steps": 20,
    },
    "input-scaling": {"examples": 200, "features": 3},
    "layer-by-layer": {"depth": 5, "networks": 2, "examples": 8},
    "divergence": {"momenta": "0.9", "conditions": "5,30", "size": 4, "steps": 40},
    "momentum-paths": {},
    "fix-after-the-fact": {
        "depth": 4,
        "steps": 10,
        "remedies": "clip by norm,NovoGrad,Adam,initialization",
    },
    "saturation": {"depth": 3, "networks": 2, "steps": 0},
    "newton-and-saddles": {"largest": 2, "starts": 300, "size": 3, "matrices": 2000},
    "warm-up": {"depths": "4"},
    "large-batch": {"batches": "32,1536"},
    "ten-thousand-layers": {"depth": 32, "contrasts": "bias", "rungs": 0, "convolutional": 2},
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


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_signals_propagate_in_every_family(nx: Backend, family: str, precision: str) -> None:
    chosen = {"family": family, "dtype": precision, "initializer": "xavier_normal", "depth": 4}
    small = SMALLEST["signal-propagation"] | {"examples": 4, "networks": 1} | chosen
    result = studies.run("signal-propagation", nx, parameters=small)
    assert [c for c in result.checks if not c.passed] == []
