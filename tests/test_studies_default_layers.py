"""The study default-layers: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal, TruncatedNormal, Uniform
from isometry.common.recipes.behaviours import BEHAVIOURS
from isometry.common.statistics.bounds import sub_gaussian_square
from isometry.common.studies import default_layers as study

SMALL = {"widths": "64", "depths": "4,10", "activations": "tanh,relu", "networks": 3}


def run(**parameters):
    return studies.run("default-layers", NumpyBackend(), parameters=SMALL | parameters)


@pytest.fixture(scope="module")
def default():
    told = []
    result = studies.run(
        "default-layers", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1]
    return result


def test_numpy_keeps_every_claim(default):
    assert [check for check in default.checks if not check.passed] == []
    assert len(default.checks) == len(BEHAVIOURS["dense"])
    assert sum(check.false_alarm for check in default.checks) < 1e-7
    assert all(np.isfinite(q.values).all() for q in default.quantities.values())
    assert default.finding.endswith(".")
    assert studies.find("default-layers").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("default-layers").parameters)


def test_theory_is_that_of_a_linear_net():
    result = run(activations="linear", depths="6")
    variance = {"torch": 1 / 3, "keras": 1.0, "flax": 1.0, "gluon": 64 * 0.07**2 / 3}
    for library, s in variance.items():
        bias = 1 / (3 * 64) if library == "torch" else 0.0
        signal, squares = 1.0, []
        for _ in range(6):
            signal = s * signal + bias
            squares.append(signal)
        key = f"{library}/linear/64/6"
        found = {w: result.quantities[f"{key}/{w}/theory"].values for w in ("signal", "gradient")}
        np.testing.assert_allclose(np.square(found["signal"]), squares, rtol=1e-10)
        np.testing.assert_allclose(np.square(found["gradient"]), s ** np.arange(5.0, -1, -1))


@pytest.mark.parametrize("library", BEHAVIOURS["dense"])
def test_another_law_is_noticed(library, monkeypatch):
    laws = study._laws
    calls = []

    def wrong(name, width):
        weight, bias = laws(name, width)
        calls.append(name)
        return (Normal(0.0, 1.5 * weight.moments[1] ** 0.5) if name == library else weight), bias

    network = study._network

    def drawn(activation, width, depth, name):
        monkeypatch.setattr(study, "_laws", wrong)
        made = network(activation, width, depth, name)
        monkeypatch.setattr(study, "_laws", laws)
        return made

    monkeypatch.setattr(study, "_network", drawn)
    failed = [check.claim for check in run(networks=6).checks if not check.passed]
    assert failed == [
        f"{library}: every layer's preactivations have the variance of its default law"
    ]
    assert library in calls


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"activations": "tan"}, "unknown activation 'tan'"),
        ({"widths": "0"}, "widths must be numbers from 1"),
        ({"depths": "3,x"}, "depths must be numbers from 1"),
        ({"networks": 0}, "networks"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)


# --- the bound ----------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [Normal(), Uniform(-(3**0.5), 3**0.5), TruncatedNormal.of_std(1.0)])
def test_these_laws_are_strictly_sub_gaussian(law):
    x = np.linspace(*(law.support if np.isfinite(law.support[0]) else (-40.0, 40.0)), 400001)
    mass = np.diff(law.cdf(x))
    middle = (x[1:] + x[:-1]) / 2
    for t in (0.1, 0.5, 1.0, 2.0, 5.0, 10.0):
        assert np.log(np.sum(mass * np.exp(t * middle))) <= t**2 / 2 * (1 + 1e-6)


def test_limits_hold_and_are_not_far_from_the_exact_ones():
    from scipy.stats import chi2

    for n in (10, 1000, 10**6):
        for rate in (1e-2, 1e-6, 1e-12):
            low, high = sub_gaussian_square(n, rate)
            assert chi2.cdf(n * low, n) <= rate / 2
            assert chi2.sf(n * high, n) <= rate / 2
    low, high = sub_gaussian_square(10**6, 1e-9)
    assert high - 1 < 1.1 * (chi2.isf(5e-10, 1e6) / 1e6 - 1)
    assert 1 - low < 1.9 * (1 - chi2.ppf(5e-10, 1e6) / 1e6)
