"""The study layer-by-layer: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.studies import layer_by_layer as study

SMALL = {"depth": 8, "networks": 20, "examples": 8}


def run(**parameters):
    return studies.run("layer-by-layer", NumpyBackend(), parameters=SMALL | parameters)


def failed():
    return {check.claim.partition(":")[0] for check in run().checks if not check.passed}


@pytest.fixture(scope="module")
def default():
    told = []
    result = studies.run(
        "layer-by-layer", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1]
    return result


def test_numpy_keeps_every_claim(default):
    assert [check for check in default.checks if not check.passed] == []
    assert len(default.checks) == 5
    assert sum(check.false_alarm for check in default.checks) < 1e-7
    assert all(np.isfinite(q.values).all() for q in default.quantities.values())
    assert default.finding.endswith(".")
    assert studies.find("layer-by-layer").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("layer-by-layer").parameters)


def test_the_bare_net_dies_and_every_remedy_moves_the_picture(default):
    def ends(name):
        signal, gradient = (
            np.sqrt(np.mean(np.square(default.quantities[f"{what}/{name}"].values), axis=0))
            for what in ("signal", "gradient")
        )
        assert (signal.size, gradient.size) == (20, 19)
        return signal[-1] / signal[0], gradient[0] / gradient[-1]

    bare = ends("nothing")
    assert max(bare) < 1e-4
    for name in study.NETS.keys() - {"nothing"}:
        assert min(ends(name)) > 0.01, name
    assert ends("SkipInit")[1] == pytest.approx(1, abs=1e-12)


def test_another_gain_is_noticed(monkeypatch):
    scaling = study.VarianceScaling
    monkeypatch.setattr(study, "VarianceScaling", lambda gain: scaling(1.2 * gain))
    assert failed() == {"nothing", "initialization"}


def test_a_shortcut_that_is_not_the_identity_is_noticed(monkeypatch):
    passed = FullyConnected._passed

    def wrong(self, nx, h, y, own):
        found = passed(self, nx, h, y, own)
        return found * (1 + 1e-12) if self.shortcut == "skipinit" else found

    monkeypatch.setattr(FullyConnected, "_passed", wrong)
    assert failed() == {"SkipInit"}


@pytest.mark.parametrize(
    "parameters", [{"depth": 2}, {"gain": 0.0}, {"networks": 0}, {"examples": 1}]
)
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(InvalidArgument, match=next(iter(parameters))):
        run(**parameters)
