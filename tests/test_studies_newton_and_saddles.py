"""The study newton-and-saddles: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws import saddles
from isometry.common.networks import curvature
from isometry.common.optimizers.rules import SGD
from isometry.common.studies import newton_and_saddles as study

SMALL = {"largest": 4, "starts": 1000, "size": 4, "matrices": 4000}
STEP = "each step from where it was, farthest off in units of its bound"


def run(backend=None, seed=0, **parameters):
    return studies.run(
        "newton-and-saddles", backend or NumpyBackend(), seed=seed, parameters=SMALL | parameters
    )


def failed(backend=None, **parameters):
    return {check.claim for check in run(backend, **parameters).checks if not check.passed}


@pytest.fixture(scope="module")
def result():
    return run()


def claims(result, *words):
    return {c.claim for c in result.checks if all(word in c.claim for word in words)}


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        "newton-and-saddles",
        NumpyBackend(),
        tell=lambda done, total, what: told.append((done, total)),
    )
    assert [check for check in result.checks if not check.passed] == []
    assert result.finding.endswith(".")
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert sum(check.false_alarm for check in result.checks) < 1e-7
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert studies.find("newton-and-saddles").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("newton-and-saddles").parameters)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_seed_will_do(seed):
    assert [check for check in run(seed=seed).checks if not check.passed] == []


def test_newton_finds_saddles_that_the_others_leave(result):
    value = {name: q.values for name, q in result.quantities.items()}
    assert (value["minima/gradient descent"] == 1).all()
    assert (value["minima/damped Newton"] == 1).all()
    assert (np.diff(value["minima/Newton"]) < -0.1).all()
    top = np.abs(value["start"]) < saddles.BASIN
    assert (top == (value["end/Newton"] == 0)).all()
    assert (np.sign(value["start"]) == value["end/gradient descent"]).all()


def test_bounds_see_a_millionth(result):
    """In units of the bound a millionth of the step is much: see the faults below."""
    for check in result.checks:
        if STEP in check.claim:
            assert check.observed < 0.2


# --- faults --------------------------------------------------------------------------------------


class LostSlope(NumpyBackend):
    """Gradients come back a millionth too small."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(w, *args):
            value, gradient = inner(w, *args)
            return value, {path: (1 - 1e-6) * g for path, g in gradient.items()}

        return value_and_gradient


def test_every_step_catches_a_wrong_gradient(result):
    expected = claims(result, STEP) | claims(result, "newton_step")
    grown = claims(result, "growth per step along")
    assert failed(LostSlope()) == expected | grown


class Bent(NumpyBackend):
    """Hessian-vector products come back a millionth too large."""

    def hvp(self, f, x, vector, /):
        return (1 + 1e-6) * super().hvp(f, x, vector)


def test_newtons_steps_catch_wrong_curvature(result):
    newtons = {c for c in claims(result, STEP) | claims(result, "newton_step") if "Newton" in c}
    assert failed(Bent()) == newtons


def test_descent_catches_a_wrong_rate(result, monkeypatch):
    move = SGD.move

    def moved(self, nx, path, w, g, state, c):
        return move(self, nx, path, w, g, state, dict(c) | {"rate": (1 + 1e-6) * c["rate"]})

    monkeypatch.setattr(SGD, "move", moved)
    expected = claims(result, STEP, "gradient descent") | claims(result, "growth per step along")
    assert failed() == expected


def test_ends_catch_newton_without_its_damping(result, monkeypatch):
    monkeypatch.setattr(study, "DAMPING", 0.0)
    assert claims(result, "damped Newton", "minimum of their own signs") <= failed()


def test_ends_catch_newton_with_damping(result, monkeypatch):
    follow = study.Wells.follow

    def damped(self, name):
        return follow(self, "damped Newton" if name == "Newton" else name)

    monkeypatch.setattr(study.Wells, "follow", damped)
    expected = claims(result, "Newton, ", "end on top") | claims(result, "in a minimum")
    assert expected | claims(result, "error over the square") <= failed()


def test_ends_catch_a_rate_that_passes_the_wells(monkeypatch):
    monkeypatch.setattr(study, "RATE", 0.95)
    claim = "starts that do not end in the minimum of their own signs"
    assert f"gradient descent, 2 dimensions: {claim}" in failed(largest=2)


def test_courses_that_end_too_early_are_caught(result, monkeypatch):
    monkeypatch.setattr(study, "MOST", 3)
    assert claims(result, "reach no critical point") <= failed()


def test_shares_catch_wrong_draws(result, monkeypatch):
    """Uniform draws a fifth too narrow, normal ones off by a half with twice the diagonal."""
    drawn = type(NumpyBackend().stream(0))
    uniform, normal = drawn.uniform, drawn.normal

    def narrow(self, shape, /, **options):
        return 0.8 * uniform(self, shape, **options)

    def shifted(self, shape, /, **options):
        return normal(self, shape, **options) * (1 + np.eye(shape[-1])) + 0.5

    monkeypatch.setattr(drawn, "uniform", narrow)
    monkeypatch.setattr(drawn, "normal", shifted)
    expected = claims(result, "share of directions") | claims(result, "share of starts")
    expected |= claims(result, "share that is positive definite")
    assert failed(starts=4000, matrices=20000) == expected


class NoHessian(NumpyBackend):
    """Declares no Hessian-vector products."""

    capabilities = frozenset({"jvp"})

    def hvp(self, f, x, vector, /):
        raise self.unsupported("hvp")


def test_by_differences_of_gradients():
    assert curvature.method(NoHessian()) == curvature.DIFFERENCE
    assert failed(NoHessian()) == set()


@pytest.mark.parametrize(
    "parameters",
    [{"largest": 2, "starts": 100, "size": 1, "matrices": 100}, {"largest": 3}, {"size": 8}],
)
def test_corners(parameters):
    assert failed(**parameters) == set()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"largest": 1}, "largest must be between 2 and 16; received 1"),
        ({"starts": 10}, "starts must be between 100 and 20000; received 10"),
        ({"size": 9}, "size must be between 1 and 8; received 9"),
        ({"matrices": 1}, "matrices must be between 100 and 100000; received 1"),
    ],
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)
