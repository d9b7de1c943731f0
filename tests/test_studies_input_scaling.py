"""The study input-scaling: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument

SMALL = {"examples": 120, "features": 4}


def run(backend, **parameters):
    return studies.run("input-scaling", backend, seed=3, parameters=SMALL | parameters)


def failed(backend, **parameters):
    return [check.claim for check in run(backend, **parameters).checks if not check.passed]


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        "input-scaling", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert [check for check in result.checks if not check.passed] == []
    assert result.finding.endswith(".")
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert studies.find("input-scaling").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("input-scaling").parameters)


def test_what_scaling_does():
    result = run(NumpyBackend(), spread=3.0)
    value = {name: q.values for name, q in result.quantities.items()}
    for data in ("made", "digits"):
        assert (np.diff(value[f"{data}/steps"]) <= 0).all()
        assert value[f"{data}/steps"][-1] == 1  # white: H = I
        assert value[f"{data}/condition"][-1] == pytest.approx(1, rel=1e-10)
        assert value[f"{data}/steps"][0] > 5 * value[f"{data}/steps"][2]
    assert value["made/condition"][1] == pytest.approx(9, rel=1e-12)  # spread**2
    assert value["made/condition"][2] == pytest.approx(1, rel=1e-10)


@pytest.mark.parametrize("parameters", [{"spread": 1.0}, {"offset": 0.0}, {"limit": 3}])
def test_corners(parameters):
    assert failed(NumpyBackend(), **parameters) == []


class HalfGradient(NumpyBackend):
    """Halves every gradient."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(w, *args):
            value, gradient = inner(w, *args)
            return value, gradient / 2

        return value_and_gradient


class WrongProduct(NumpyBackend):
    """Loses a thousandth of every product with a Hessian."""

    def hvp(self, f, x, vector, /):
        return 0.999 * super().hvp(f, x, vector)


def test_catches_a_wrong_gradient():
    claims = failed(HalfGradient())
    for data in ("made", "digits"):
        for scaling in ("raw", "centred", "standardized", "whitened"):
            assert f"{data}/{scaling}: steps of gradient descent to 90 %" in claims


def test_catches_a_wrong_hessian():
    claims = failed(WrongProduct())
    for scaling in ("raw", "centred", "standardized", "whitened"):
        claim = f"digits/{scaling}: largest eigenvalue of softmax regression at zero weights"
        assert f"{claim}, relative" in claims


def test_catches_a_wrong_decomposition_and_a_wrong_mean():
    nx = NumpyBackend()
    svd = nx.ops.svd

    def first_doubled(x):
        u, s, vh = svd(x)
        return u, np.concatenate([1.01 * s[:1], s[1:]]), vh

    nx.ops.svd = first_doubled
    assert "made/raw: condition number of the Hessian, relative to the exact one" in failed(
        nx, limit=50
    )
    nx = NumpyBackend()
    mean = nx.ops.mean
    nx.ops.mean = lambda x, **options: 0.9 * mean(x, **options)
    assert "made/centred: condition number of the Hessian, relative to the exact one" in failed(
        nx, limit=50
    )


def test_refuses():
    with pytest.raises(InvalidArgument, match="features must be between 2 and 50; received 0"):
        failed(NumpyBackend(), features=0)
    with pytest.raises(InvalidArgument, match=r"spread must be at least 1; received 0\.5"):
        failed(NumpyBackend(), spread=0.5)
