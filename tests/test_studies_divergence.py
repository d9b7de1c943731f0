"""The study divergence: right on NumPy, and each of its checks can fail."""

import dataclasses

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.optimizers.rules import SGD, Momentum

SMALL = {"momenta": "0.4,0.8", "conditions": "5,30", "size": 6, "steps": 60}


def run(backend=None, **parameters):
    return studies.run("divergence", backend or NumpyBackend(), parameters=SMALL | parameters)


def failed(backend=None, **parameters):
    return {check.claim for check in run(backend, **parameters).checks if not check.passed}


@pytest.fixture(scope="module")
def result():
    return run()


@pytest.fixture(scope="module")
def claims(result):
    return {check.claim for check in result.checks}


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        "divergence", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert [check for check in result.checks if not check.passed] == []
    assert result.finding.endswith(".")
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert studies.find("divergence").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("divergence").parameters)


def test_the_edge_parts_falling_from_rising_distances(result):
    value = {name: q.values for name, q in result.quantities.items()}
    for name in ("gradient descent", "heavy ball, momentum 0.8", "Nesterov, momentum 0.8"):
        assert value[f"{name}/below"][-1] < 0.5
        assert value[f"{name}/above"][-1] > value[f"{name}/above"][30] > 0.5
    np.testing.assert_allclose(value["edges"], [2, 2.8, 3.6, 2.8 / 1.8, 3.6 / 2.6], rtol=1e-15)


def test_a_large_condition_number_is_bad(result):
    value = {name: q.values for name, q in result.quantities.items()}
    for name in ("gradient descent", "heavy ball", "Nesterov"):
        assert (np.diff(value[f"steps/{name}"]) > 0).all()
    assert value["steps/gradient descent"][1] > 2 * value["steps/heavy ball"][1]


def test_bounds_are_those_of_rounding(result):
    """Far below what a rate off by a millionth would do."""
    for check in result.checks:
        if "growth per step in the bowl" in check.claim:
            assert check.bound < 1e-6
        if "contraction" in check.claim:
            assert check.bound < 1e-7


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_bowl_will_do(seed):
    found = studies.run("divergence", NumpyBackend(), seed=seed, parameters=SMALL)
    assert [check for check in found.checks if not check.passed] == []


def other_rate(factor):
    def broken(rule):
        move = rule.move

        def moved(self, nx, path, w, g, state, c):
            return move(self, nx, path, w, g, state, dict(c) | {"rate": factor * c["rate"]})

        return moved

    return broken


def other_momentum(factor):
    def broken(rule):
        move = rule.move

        def moved(self, *args):
            if not hasattr(self, "momentum"):
                return move(self, *args)
            return move(dataclasses.replace(self, momentum=factor * self.momentum), *args)

        return moved

    return broken


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_every_claim_catches_wrong_rates_or_momenta(monkeypatch, claims, factor):
    caught = set()
    for fault in (other_rate(factor), other_momentum(factor)):
        with monkeypatch.context() as patch:
            for rule in (SGD, Momentum):
                patch.setattr(rule, "move", fault(rule))
            caught |= failed()
    assert caught == claims


def test_catches_methods_that_are_swapped(monkeypatch):
    move = Momentum.move

    def swapped(self, *args):
        return move(dataclasses.replace(self, nesterov=not self.nesterov), *args)

    monkeypatch.setattr(Momentum, "move", swapped)
    claims = failed()
    for name in ("heavy ball", "Nesterov"):
        assert any(claim.startswith(f"{name}, momentum 0.8: edge") for claim in claims)
        assert f"{name}: steps to a thousandth at condition number 30, best constants" in claims
    assert not any(claim.startswith("gradient descent") for claim in claims)


class LostSlope(NumpyBackend):
    """Gradients come back a ten-thousandth too small."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(w, *args):
            value, gradient = inner(w, *args)
            return value, {path: 0.9999 * g for path, g in gradient.items()}

        return value_and_gradient


def test_catches_a_slightly_wrong_gradient():
    claims = failed(LostSlope())
    assert "gradient descent: distance after one step at the rate 1 / curvature" in claims
    for method in ("gradient descent", "Nesterov, momentum 0.4", "heavy ball, momentum 0.8"):
        assert f"{method}: growth per step in the bowl 0.01 above its edge" in claims


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"momenta": "1"}, "momenta must be different numbers above 0 and below 1"),
        ({"momenta": "0.5,"}, "received '0.5,'"),
        ({"momenta": "0.5,0.5"}, "momenta must be different numbers"),
        ({"conditions": "1"}, "conditions must be different numbers above 1 and below 10001"),
        ({"size": 1}, "size must be between 2 and 200; received 1"),
        ({"steps": 5}, "steps must be between 20 and 300; received 5"),
        ({"margin": 0.1}, r"margin must be at most 0.05; received 0.1"),
        ({"margin": 0.0}, "margin must be greater than 0"),
    ],
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)


@pytest.mark.parametrize(
    "parameters", [{"size": 2, "steps": 20}, {"margin": 1e-6, "steps": 300}, {"momenta": "0.05"}]
)
def test_corners(parameters):
    assert failed(**parameters) == set()
