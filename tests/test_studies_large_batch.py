"""The study large-batch: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.optimizers.layerwise import LARS, NovoGrad
from isometry.common.optimizers.rules import SGD, Momentum
from isometry.common.studies import large_batch

SMALL = {"batches": "32,1536", "epochs": 4, "width": 32}


def run(backend=None, **parameters):
    return studies.run("large-batch", backend or NumpyBackend(), parameters=SMALL | parameters)


def failed(backend=None):
    return {check.claim for check in run(backend).checks if not check.passed}


@pytest.fixture(scope="module")
def result():
    return run()


@pytest.fixture
def untrained(monkeypatch):
    """Trials take no time: for faults that other checks must see."""
    monkeypatch.setattr(large_batch, "_accuracy", lambda *_: 0.5)


def claim(result, start):
    return next(check.claim for check in result.checks if check.claim.startswith(start))


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        "large-batch", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert [check for check in result.checks if not check.passed] == []
    assert len(result.checks) == 2 + 1 + 2 + 2 + 3
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert result.finding.endswith(".")
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert studies.find("large-batch").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("large-batch").parameters)
    for name in large_batch.RULES:  # linear scaling is better than a rate that stays
        scaled, kept = (
            result.quantities[f"accuracy/{name}/{what}"].values for what in ("scaled", "kept")
        )
        assert scaled[0] == kept[0] > 0.95
        assert scaled[2] > kept[2] + 0.05


def test_the_gap_shrinks_with_the_rate(result):
    gaps = result.quantities["gap/share of the way"].values
    np.testing.assert_allclose(gaps[1:] / gaps[:-1], 0.1, rtol=0.2)


class Scaled(NumpyBackend):
    """Gradients of some batch sizes come back too large."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(w, x, *args):
            value, gradient = inner(w, x, *args)
            return value, {path: self.factor(x.shape[0]) * g for path, g in gradient.items()}

        return value_and_gradient


def test_sums_in_the_place_of_means_are_seen(result, untrained):
    bad = failed(Scaled(lambda batch: batch))
    assert {claim(result, "noise of all batches of 2"), claim(result, "least squares")} <= bad


def test_a_gradient_off_by_a_millionth_in_small_batches_is_seen(result, untrained):
    bad = failed(Scaled(lambda batch: 1 + 1e-6 * (batch == 2)))
    assert claim(result, "noise of all batches of 2") in bad
    assert claim(result, "noise of all batches of 4") not in bad


def broken(monkeypatch, rule, change):
    move = rule.move

    def moved(self, nx, path, w, g, state, c):
        return move(self, nx, path, *change(w, g), state, c)

    monkeypatch.setattr(rule, "move", moved)


def test_a_step_of_descent_off_by_a_fiftieth_is_seen(result, untrained, monkeypatch):
    broken(monkeypatch, SGD, lambda w, g: (w, g * (1 + 0.02 * np.sign(g))))
    assert claim(result, "least squares") in failed()


def test_a_law_without_its_leading_term_is_seen(result, untrained, monkeypatch):
    exact = large_batch.minibatch.scaling_gap

    def wrong(*args):
        gap = exact(*args)
        return type(gap)(0 * gap.leading, gap.remainder)

    monkeypatch.setattr(large_batch.minibatch, "scaling_gap", wrong)
    assert claim(result, "least squares") in failed()


@pytest.mark.parametrize(("rule", "name"), [(LARS, "LARS"), (NovoGrad, "NovoGrad")])
def test_a_step_with_a_floor_under_the_norm_is_seen(result, untrained, monkeypatch, rule, name):
    """An eps of 1e-10 is small beside gradients of 1 and not beside those of a millionth."""

    def floored(**constants):
        return rule(**constants | {"eps": 1e-10})

    monkeypatch.setattr(large_batch, name, floored)
    assert any(text.startswith(f"{name}: length of the first step") for text in failed())


def test_outcomes_can_fail(monkeypatch, result):
    """All rules as plain descent at its rate, and then at a tiny one."""
    bare = dict.fromkeys(large_batch.RULES, large_batch.RULES["SGD"])
    monkeypatch.setattr(large_batch, "RULES", bare)
    lost = {claim(result, f"{n}: accuracy") for n in ("momentum", "LARS", "NovoGrad")}
    assert failed() == lost
    slow = dict.fromkeys(bare, Momentum(rate=1e-5))
    monkeypatch.setattr(large_batch, "RULES", slow)
    assert claim(result, "SGD: rate scaled") in failed()


def test_descent_that_survives_is_seen(monkeypatch, result):
    rules = large_batch.RULES | {"SGD": large_batch.RULES["LARS"]}
    monkeypatch.setattr(large_batch, "RULES", rules)
    assert claim(result, "SGD: accuracy") in failed()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batches": "64,1536"}, "batches must be comma-separated rising integers from 32 to 1536"),
        ({"batches": "32,many"}, "received '32,many'"),
        ({"batches": "32,2000"}, "received '32,2000'"),
        ({"epochs": 1}, "epochs must be between 2 and 100; received 1"),
        ({"width": 8}, "width must be between 16 and 1024; received 8"),
    ],
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)
