"""The study momentum-paths: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.optimizers.quickprop import Quickprop
from isometry.common.optimizers.rules import SGD, Adagrad, Adam, Momentum, RMSprop

RULES = {
    SGD: ("gradient descent",),
    Momentum: ("heavy ball", "Nesterov"),
    Adam: ("Adam",),
    RMSprop: ("RMSprop",),
    Adagrad: ("Adagrad",),
    Quickprop: ("Quickprop",),
}
PATH = "distance from the exact path, farthest off in units of its bound"


def run(backend=None, **parameters):
    return studies.run("momentum-paths", backend or NumpyBackend(), parameters=parameters)


def failed(backend=None, **parameters):
    return {check.claim for check in run(backend, **parameters).checks if not check.passed}


@pytest.fixture(scope="module")
def result():
    return run()


def test_numpy_keeps_every_claim(result):
    told = []
    studies.run(
        "momentum-paths", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert [check for check in result.checks if not check.passed] == []
    assert len(result.checks) == 7 + 3 + 1
    assert result.finding.endswith(".")
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert studies.find("momentum-paths").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("momentum-paths").parameters)


def test_who_is_there_when(result):
    steps = {
        name.split("/")[1]: int(q.values)
        for name, q in result.quantities.items()
        if name.startswith("steps/")
    }
    assert steps.pop("Newton") == 1
    assert min(steps, key=steps.__getitem__) == "heavy ball"
    assert steps["gradient descent"] > 2 * steps["Nesterov"]


def test_paths_are_compared_until_they_have_arrived(result):
    """What is compared is no stub: rounding takes over after the path is within 1 %."""
    for name in (n for names in RULES.values() for n in names):
        within, told = (int(result.quantities[f"{q}/{name}"].values) for q in ("steps", "told"))
        assert within < told <= 80


def test_rotation_changes_nothing_for_the_linear_rules_and_much_for_others(result):
    along = run(angle=0.0)
    for name, same in {"heavy ball": True, "Nesterov": True, "Adam": False}.items():
        distances = [r.quantities[f"distance/{name}"].values for r in (result, along)]
        assert np.allclose(*distances, rtol=0, atol=1e-12) is same


def scaled(rule, number, factor):
    move = rule.move

    def moved(self, nx, path, w, g, state, c):
        return move(self, nx, path, w, g, state, dict(c) | {number: factor * c[number]})

    return moved


@pytest.mark.parametrize("rule", RULES)
def test_every_path_catches_a_rate_off_by_a_billionth(monkeypatch, rule):
    number = "scale" if rule is Adam else "rate"
    monkeypatch.setattr(rule, "move", scaled(rule, number, 1 + 1e-9))
    assert failed() == {f"{name}: {PATH}" for name in RULES[rule]}


@pytest.mark.parametrize("rule", [SGD, Momentum])
def test_steps_catch_a_rate_off_by_a_fifth(monkeypatch, rule):
    monkeypatch.setattr(rule, "move", scaled(rule, "rate", 0.8))
    assert {f"{name}: steps to come within 1 %" for name in RULES[rule]} <= failed()


class LostSlope(NumpyBackend):
    """Gradients come back a billionth too small."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(w, *args):
            value, gradient = inner(w, *args)
            return value, {path: (1 - 1e-9) * g for path, g in gradient.items()}

        return value_and_gradient


class NoHessian(NumpyBackend):
    """Declares no Hessian-vector products."""

    capabilities = frozenset({"jvp"})

    def hvp(self, f, x, vector, /):
        raise self.unsupported("hvp")


def test_newton_catches_a_wrong_gradient():
    assert "Newton: distance after one step, of the start's" in failed(LostSlope())


def test_newton_by_differences_of_gradients():
    result = run(NoHessian())
    assert [check for check in result.checks if not check.passed] == []
    assert 1e-15 < result.checks[-1].bound < 1e-5
    assert "central difference" in result.checks[-1].source


@pytest.mark.parametrize(
    "parameters",
    [{"condition": 1.0}, {"condition": 1e4, "steps": 400}, {"steps": 2}, {"angle": -123.0}],
)
def test_corners(parameters):
    assert failed(**parameters) == set()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"condition": 0.5}, "condition must be at least 1; received 0.5"),
        ({"condition": 1e6}, "condition must be at most 10000; received 1e\\+06"),
        ({"angle": np.inf}, "angle must be finite"),
        ({"steps": 1}, "steps must be between 2 and 400; received 1"),
    ],
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)
