"""The study fix-after-the-fact: right on NumPy, and each of its checks can fail."""

import math
import re

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.networks import remedies
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.remedies import REMEDIES
from isometry.common.networks.trials import Outcome
from isometry.common.optimizers.layerwise import LAMB, LARS, NovoGrad
from isometry.common.optimizers.rules import Adam
from isometry.common.studies import fix_after_the_fact as study
from isometry.common.studies.fix_after_the_fact import MENDS, NETS

STUDY = "fix-after-the-fact"
QUICK = {"steps": 5, "remedies": "nothing"}


def run(backend=None, seed=0, tell=None, **parameters):
    return studies.run(
        STUDY, backend or NumpyBackend(), seed=seed, parameters=parameters, tell=tell
    )


def failed(backend=None, **parameters):
    return {check.claim for check in run(backend, **parameters).checks if not check.passed}


@pytest.fixture
def no_safe_rates(monkeypatch):
    """Trials of a single step: what comes of them is not looked at."""
    monkeypatch.setattr(remedies, "SAFE_STEPS", 1)


@pytest.fixture(scope="module")
def result():
    return run(remedies="LAMB,NovoGrad,Adam,residual,batch norm,initialization", seed=1)


def test_numpy_keeps_every_claim(result):
    assert [check for check in result.checks if not check.passed] == []
    assert len(result.checks) == 2 * 2 + 2 + 4 + (1 + 3) + (1 + 4)
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    assert result.finding.endswith(".")
    found = studies.find(STUDY)
    assert found.question.endswith("?")
    assert all(parameter.help for parameter in found.parameters)


def test_at_least_four_remedies_are_claimed_for_each_net():
    """The nets fail bare and train with each of at least four remedies."""
    assert all(len(names) >= 4 for names in MENDS.values())
    assert {name for names in MENDS.values() for name in names} <= set(REMEDIES)


def test_the_table(result):
    def number(what, net, name):
        return float(result.quantities[f"{what}/{net}/{name}"].values)

    assert math.isinf(number("steps", "dying", "nothing"))
    assert number("steps", "dying", "residual") < number("steps", "dying", "initialization") < 100
    # initialization takes the factor away: one net from both
    for what in ("accuracy", "steps", "safe rate"):
        values = [number(what, net, "initialization") for net in NETS]
        assert values[0] == values[1]
    assert number("memory", "dying", "Adam") == 2
    assert number("memory", "dying", "NovoGrad") - 1 == pytest.approx(8 / (7 * 64**2 + 640))
    # the exploding net stands only a small rate, the dying one any that is tried at first
    assert (
        number("safe rate", "exploding", "nothing") < 0.1 < number("safe rate", "dying", "nothing")
    )
    for net in NETS:
        assert number("steps", net, "best two") <= 100


def test_the_finding_names_the_best_two(result):
    pairs = re.findall("The best two, (.*?) \\+ (.*?):", result.finding)
    assert len(pairs) == 2
    for training, network in pairs:
        assert not REMEDIES[training].changes_network
        assert REMEDIES[network].changes_network


def test_layers_follow_theory(result):
    """Within a factor of 2 over nets that vary by some e**(5 layers / 4 n) in squared norm."""
    for net in NETS:
        for kind in study.KINDS:
            for what in ("signal", "gradient"):
                measured = result.quantities[f"{what}/{net}/{kind}"].values
                theory = result.quantities[f"{what}/{net}/{kind}/theory"].values
                assert measured.shape == theory.shape == (7,)
                assert (np.abs(np.log(measured / theory)) < math.log(2)).all(), (net, kind, what)


@pytest.mark.usefixtures("no_safe_rates")
def test_it_tells_how_far_it_is():
    told = []
    run(tell=lambda done, total, what: told.append((done, total)), **QUICK)
    counts = [done for done, _ in told]
    assert counts == sorted(counts)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


# --- checks that fail ----------------------------------------------------------------------------


class Linear(NumpyBackend):
    """ReLU lets everything pass."""

    def relu(self, x, /):
        return x * 1


@pytest.mark.usefixtures("no_safe_rates")
def test_growth_fails_without_relu():
    assert failed(Linear(), **QUICK) == {
        f"{net}: growth of ln ||{what}||**2 through all layers, mean of 4 nets"
        for net in NETS
        for what in ("signal", "gradient")
    }


@pytest.mark.usefixtures("no_safe_rates")
def test_identity_fails_with_a_shortcut_that_is_not_one(monkeypatch):
    def passed(self, nx, h, y, own):
        return h * (1 + 1e-6) + own["alpha"] * y if self.shortcut == "skipinit" else y

    monkeypatch.setattr(FullyConnected, "_passed", passed)
    assert failed(**QUICK) == {
        f"{net}: with SkipInit the gradient is the same in every layer, farthest off"
        for net in NETS
    }


@pytest.mark.usefixtures("no_safe_rates")
@pytest.mark.parametrize("rule", [LARS, LAMB, NovoGrad, Adam])
def test_memory_fails_with_an_array_more(rule, monkeypatch):
    start = rule.start

    def more(self, nx, w, /):
        return start(self, nx, w) | {"spare": nx.ops.zeros_like(w)}

    def move(self, nx, path, w, g, state, c):
        return w, dict(state)

    monkeypatch.setattr(rule, "slots", (*rule.slots, "spare"))
    monkeypatch.setattr(rule, "start", more)
    monkeypatch.setattr(rule, "move", move)
    claim = f"{rule.__name__}: numbers that the optimizer remembers"
    assert failed(steps=1, remedies=rule.__name__) == {claim}


@pytest.mark.usefixtures("no_safe_rates")
def test_outcomes_fail_with_a_remedy_that_is_none(monkeypatch):
    monkeypatch.setitem(REMEDIES, "initialization", REMEDIES["nothing"])
    monkeypatch.setitem(REMEDIES, "nothing", remedies.Remedy(why="He's weights", he=True))
    claims = failed(remedies="initialization")
    for net in NETS:
        assert f"{net}: with nothing done it learns less than 30 % of the images" in claims
        assert f"{net}: with initialization it learns at least 80 % of the images" in claims
    assert len(claims) == 4


@pytest.mark.usefixtures("no_safe_rates")
@pytest.mark.parametrize("changed", [{"depth": 7}, {"steps": 99}, {"dying": 0.3}])
def test_outcomes_are_claimed_at_the_default_size_alone(changed):
    claims = run(**{"remedies": "nothing", "steps": 100, **changed}).checks
    assert not any("learns" in check.claim for check in claims)


# --- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "found"),
    [(0.3, 0.1), (0.4, 0.4), (5.0, 1.6), (0.05, 0.025), (1e-4, 0.1 / 4**5), (math.inf, 6553.6)],
)
def test_the_largest_safe_rate(limit, found):
    assert remedies.safe_rate(lambda rate: rate <= limit, 0.1) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize(
    ("losses", "unharmed"),
    [
        ([2.5, 2.4, 2.3, 2.2], True),
        ([2.5, 2.4, 2.4, 2.8], False),  # ends higher
        ([2.5, 9.0, 2.51, 2.5, 2.5], True),
        ([300.0, 40.0, math.log(10), math.log(10)], False),  # dead
        ([300.0, 40.0, 3.0, 2.31], True),
        ([math.log(10)] * 4, True),  # began there
    ],
)
def test_what_is_harm(losses, unharmed):
    assert remedies.unharmed(losses) is unharmed


def test_no_rate_is_safe():
    tried = []
    assert math.isnan(remedies.safe_rate(lambda rate: bool(tried.append(rate)), 0.1))
    assert min(tried) >= 1e-6
    assert min(tried) / 4 < 1e-6


def test_the_best_two_are_the_fastest_of_each_side():
    def row(steps, accuracy):
        outcome = Outcome({}, 0, checked=[steps], accuracies=[accuracy])
        return remedies.Row(outcome, 0.1, 1)

    rows = {"nothing": row(5, 0.99), "LARS": row(40, 0.91), "Adam": row(30, 0.9)}
    assert study._best_two(rows) is None  # no net was changed
    rows |= {"dense": row(20, 0.89), "residual": row(20, 0.7)}
    assert study._best_two(rows) == ("Adam", "dense")
    assert study._best_two(rows | {"highway": row(90, 0.9)}) == ("Adam", "highway")
    pair = remedies.together("Adam", "dense")
    assert (pair.rule, pair.options, pair.he) == (
        REMEDIES["Adam"].rule,
        {"shortcut": "dense"},
        False,
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depth": 2}, "depth must be between 3 and 50; received 2"),
        ({"depth": 51}, "depth must be between 3 and 50; received 51"),
        ({"dying": 1.0}, "dying must be below 1, or nothing vanishes; received 1"),
        ({"dying": 0.0}, "dying must be greater than 0"),
        ({"exploding": 1.0}, "exploding must be greater than 1"),
        ({"exploding": 11.0}, "exploding must be at most 10; received 11"),
        ({"steps": 0}, "steps must be between 1 and 100000; received 0"),
        ({"remedies": "adam"}, "did you mean 'Adam'"),
    ],
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)
