"""The study saturation: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.studies import saturation as study

SMALL = {"depth": 4, "bias": -2.0, "networks": 2, "steps": 4}
LEARNS = "learns 90 % of the images within 100 steps"


def run(backend=None, seed=0, **parameters):
    return studies.run(
        "saturation", backend or NumpyBackend(), seed=seed, parameters=SMALL | parameters
    )


def failed(backend=None, **parameters):
    return {check.claim for check in run(backend, **parameters).checks if not check.passed}


@pytest.fixture(scope="module")
def result():
    return run()


@pytest.fixture(scope="module")
def default():
    told = []
    result = studies.run(
        "saturation", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1]
    return result


@pytest.fixture(autouse=True)
def few_images(request, monkeypatch):
    """Fewer images but for the default: the claims are the same."""
    if "default" not in request.fixturenames:
        monkeypatch.setattr(study, "IMAGES", 128)


def claims(result, *words):
    return {c.claim for c in result.checks if all(word in c.claim for word in words)}


def test_numpy_keeps_every_claim(default):
    assert [check for check in default.checks if not check.passed] == []
    assert default.finding.endswith(".")
    assert len({check.claim for check in default.checks}) == len(default.checks)
    assert sum(check.false_alarm for check in default.checks) < 1e-7
    assert all(np.isfinite(q.values).all() for q in default.quantities.values())
    assert studies.find("saturation").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("saturation").parameters)
    assert len(claims(default, LEARNS)) == 5
    assert len(claims(default, "less than 30 %")) == 1


def test_who_dies_of_what(default):
    value = {name: q.values for name, q in default.quantities.items()}
    assert value["gradient/sigmoid"][0] < 1e-4
    assert max(value["before/sigmoid"].max(), value["after/sigmoid"].max()) < 1e-3
    assert value["gradient/sigmoid, shortcuts"][0] > 0.1
    assert value["gradient/sigmoid, batch norm"][0] > 0.1
    assert (value["gradient/ReLU, low biases"] == 0).all()
    assert (value["before/ReLU, low biases"][-3:] == 1).all()
    assert 0 < value["gradient/leaky ReLU, low biases"][0] < 0.01
    for name in ("sigmoid", "tanh", "ReLU", "leaky ReLU"):
        np.testing.assert_allclose(
            value[f"gradient/{name}"], value[f"gradient/{name}/theory"], rtol=0.5
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_every_seed_will_do(seed):
    assert [check for check in run(seed=seed).checks if not check.passed] == []


# --- faults --------------------------------------------------------------------------------------


class Slipped(NumpyBackend):
    """Gradients come back 3 % too large."""

    def vjp(self, f, x, /):
        y, pullback = super().vjp(f, x)
        return y, lambda v: 1.03 * pullback(v)


def test_the_way_back_catches_wrong_gradients(result):
    lost = "ReLU, low biases: gradient in each layer, farthest off what the next one makes of it"
    assert failed(Slipped()) == claims(result, "what the next one makes") - {lost}


class Steep(NumpyBackend):
    """The slopes of all activations are three times what they are."""

    def _steep(self, y):
        return y + 2 * (y - self.ops.stop_gradient(y))

    def sigmoid(self, x, /):
        return self._steep(super().sigmoid(x))

    def tanh(self, x, /):
        return self._steep(super().tanh(x))

    def relu(self, x, /):
        return self._steep(super().relu(x))

    def leaky_relu(self, x, /, *, slope=0.01):
        return self._steep(super().leaky_relu(x, slope=slope))


def test_bounds_catch_slopes_that_are_too_steep(result):
    dead = claims(result, "ReLU, low biases") - claims(result, "leaky")  # 0, three times as much
    assert claims(result, "over its bound") - dead <= failed(Steep())


class Shut(NumpyBackend):
    """Leaky ReLU is not."""

    def leaky_relu(self, x, /, *, slope=0.01):
        return super().relu(x)


def test_leaky_units_that_die_are_caught(result):
    expected = claims(result, "leaky ReLU, low biases", "get no gradient")
    assert expected | claims(result, "leaky ReLU: gradient in each layer") <= failed(Shut())


class Leaking(NumpyBackend):
    """The gradient of ReLU is a thousandth where it should be 0; its value is right."""

    def relu(self, x, /):
        y = super().relu(x)
        leak = 1e-3 * super().relu(-x)
        return y - (leak - self.ops.stop_gradient(leak))


def test_gradients_of_dead_units_are_caught(result):
    low = claims(result, "ReLU, low biases") - claims(result, "leaky")
    expected = {c for c in low if "over its bound" not in c}
    assert len(expected) == 3
    assert expected <= failed(Leaking())


def test_laws_catch_wrong_draws(result, monkeypatch):
    """Normal draws three times as wide, or off by their standard deviation."""
    drawn = type(NumpyBackend().stream(0))
    normal = drawn.normal

    def wide(self, shape, /, **options):
        return 3 * normal(self, shape, **options)

    def shifted(self, shape, /, **options):
        return normal(self, shape, **options) - options.get("std", 1.0)

    caught = set()
    for fault in (wide, shifted):
        monkeypatch.setattr(drawn, "normal", fault)
        caught |= failed(networks=1, steps=1)
    expected = claims(result, "share of") | claims(result, "at right angles to its input")
    assert expected <= caught


def test_outcomes_catch_a_rate_of_zero(default, monkeypatch):
    monkeypatch.setattr(study, "IMAGES", 64)
    monkeypatch.setattr(study, "RATE", 0.0)
    assert failed(steps=100, depth=2, networks=1) == claims(default, LEARNS)


def test_outcomes_catch_a_sigmoid_that_learns(default, monkeypatch):
    kinds = study._kinds

    def other(depth, slope, bias):
        found = kinds(depth, slope, bias)
        well = study.replace(found["sigmoid, shortcuts"], learns=False)
        return {"sigmoid": well}

    monkeypatch.setattr(study, "IMAGES", 64)
    monkeypatch.setattr(study, "_kinds", other)
    assert failed(steps=100, depth=8, networks=1) == claims(default, "less than 30 %")


@pytest.mark.parametrize(
    "parameters",
    [{"depth": 2, "networks": 1, "steps": 0}, {"bias": 0.0}, {"slope": 1.0, "bias": -9.0}],
)
def test_corners(parameters):
    assert failed(**parameters) == set()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depth": 1}, "depth must be between 2 and 30; received 1"),
        ({"slope": 0.0}, "slope must be greater than 0"),
        ({"slope": 2.0}, "slope must be at most 1; received 2"),
        ({"bias": 0.5}, "bias must be at most 0; received 0.5"),
        ({"networks": 0}, "networks must be at least 1; received 0"),
        ({"steps": -1}, "steps must be at least 0; received -1"),
    ],
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)
