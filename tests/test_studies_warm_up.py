"""The study warm-up: right on NumPy, and each of its checks can fail."""

from dataclasses import replace

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.networks import residual
from isometry.common.networks.training import digits_data
from isometry.common.networks.trials import Outcome
from isometry.common.optimizers.rules import Adam
from isometry.common.results import Quantity
from isometry.common.studies import warm_up

SMALL = {"depths": "4", "width": 48}


def run(backend=None, **parameters):
    return studies.run("warm-up", backend or NumpyBackend(), parameters=SMALL | parameters)


def failed(backend=None):
    return {check.claim for check in run(backend).checks if not check.passed}


@pytest.fixture(scope="module")
def result():
    told = []
    result = studies.run(
        "warm-up", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1]
    return result


def row(blocks, remedy, bare, warm):
    """Return a row whose nets trained at rates up to these powers of 2."""

    def outcomes(last):
        return {
            e: Outcome({}, 0, checked=[5], accuracies=[0.95 if e <= last else 0.1])
            for e in range(1, -13, -1)
        }

    return warm_up.Row(blocks, remedy, {"bare": outcomes(bare), "warm": outcomes(warm)})


@pytest.fixture
def untrained(monkeypatch):
    """Trials take no time: for faults that other checks must see."""
    last = {"none": (-9, -7), "fixup": (-1, 0), "batch": (0, 0)}
    monkeypatch.setattr(
        warm_up, "_train", lambda _, blocks, remedy: row(blocks, remedy, *last[remedy])
    )


def test_numpy_keeps_every_claim(result):
    assert [check for check in result.checks if not check.passed] == []
    assert len(result.checks) == 1 + 2 + 3 + 2 + 4
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    assert result.finding.endswith(".")
    assert studies.find("warm-up").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("warm-up").parameters)


def test_fixup_learns_faster_at_rates_that_he_s_net_does_not_stand(result):
    def best(name, what):
        return result.quantities[f"{what}/{name}"].values

    he, fixed = (best(f"{n}, 8 blocks/warm", "largest") for n in ("He", "Fixup"))
    assert fixed > 8 * he
    assert best("Fixup, 8 blocks/bare", "steps").min() < best("He, 8 blocks/warm", "steps").min()
    assert result.quantities["sharpness/He"].values[-1] > 1000
    assert result.quantities["sharpness/Fixup"].values.max() < 10


def test_without_trials_the_laws_hold(untrained):
    assert failed() == set()


def test_growth_sees_other_weights(untrained, monkeypatch):
    monkeypatch.setattr(residual, "HE", VarianceScaling(1.0))
    assert any(text.startswith("He: each block multiplies") for text in failed())


def adam(monkeypatch, name, factor):
    coefficients = Adam.coefficients
    monkeypatch.setattr(
        Adam,
        "coefficients",
        lambda self, step, rate: {
            k: v * (factor if k == name else 1) for k, v in coefficients(self, step, rate).items()
        },
    )


def test_adam_s_steps_see_a_scale_off_by_a_tenth(untrained, monkeypatch):
    adam(monkeypatch, "scale", 1.1)
    bad = failed()
    assert any("mean square of each step" in text for text in bad)
    assert not any("adaptive rate" in text for text in bad)


def test_adam_s_adaptive_rate_sees_squares_half_as_large(untrained, monkeypatch):
    move = Adam.move

    def halved(self, nx, path, w, g, state, c):
        return move(self, nx, path, w, g * 0.5**0.5, state, c)

    monkeypatch.setattr(Adam, "move", halved)
    bad = failed()
    assert any("adaptive rate" in text for text in bad)
    assert not any("mean square of each step" in text for text in bad)  # no scale is in it


def test_coupling_sees_fixup_without_its_factor(untrained, monkeypatch):
    monkeypatch.setattr(residual, "fixup", lambda *_: (residual.HE, Constant(0.0)))
    assert any("couple the classifier to" in text for text in failed())


def test_loss_sees_a_classifier_that_is_not_zero(untrained, monkeypatch):
    rules = residual.Residual._rules

    def wrong(self):
        found = rules(self)
        count, shape, _ = found["output/weight"]
        return found | {"output/weight": (count, shape, VarianceScaling(0.01))}

    monkeypatch.setattr(residual.Residual, "_rules", wrong)
    assert any(text.endswith("loss at the start") for text in failed())


class Bent(NumpyBackend):
    """Second derivatives come back a thousandth too large."""

    def hvp(self, f, x, vector, /):
        return 1.001 * super().hvp(f, x, vector)


class NoHessian(NumpyBackend):
    """Declares no Hessian-vector products."""

    capabilities = NumpyBackend.capabilities - {"hvp"}

    def hvp(self, f, x, vector, /):
        raise self.unsupported("hvp")


def test_hessian_sees_a_product_off_by_a_thousandth(untrained):
    assert {text for text in failed(Bent()) if "Hessian" in text}


def test_hessian_by_differences_of_gradients(untrained):
    result = run(NoHessian())
    assert [check for check in result.checks if not check.passed] == []
    claim = next(check for check in result.checks if "Hessian at the start" in check.claim)
    assert "central difference" in claim.source
    assert claim.bound < 0.1  # of about 0.5 or more


SHARP = {"sharpness/He": Quantity(np.array([500.0, 5000.0]))}


@pytest.mark.parametrize(
    ("he", "fixed", "bad"),
    [
        (((-6, -4), (-9, -7)), ((-1, 0), (-1, 0)), ""),
        (((-6, -6), (-9, -9)), ((-1, 0), (-1, 0)), "He: log2"),
        (((-6, -4), (-12, -12)), ((-1, 0), (-1, 0)), "He: largest rate"),
        (((-6, -4), (-9, -7)), ((-8, 0), (-8, 0)), "Fixup, 8 blocks: largest"),
        (((-6, -4), (-9, -7)), ((0, 0), (-2, 0)), "Fixup: largest rate"),
        (((-6, -4), (-99, -99)), ((-1, 0), (-1, 0)), "He: log2"),
        (((-6, -4), (-9, -7)), ((-99, 0), (-1, 0)), "Fixup: largest rate"),
    ],
)
def test_each_outcome_can_fail(he, fixed, bad):
    rows = [
        row(blocks, remedy, *last)
        for remedy, lasts in (("none", he), ("fixup", fixed))
        for blocks, last in zip((4, 8), lasts, strict=True)
    ]
    lost = [c.claim for c in warm_up._outcomes([4, 8], rows, SHARP) if not c.passed]
    assert any(text.startswith(bad) for text in lost) if bad else not lost


def test_a_warm_up_of_few_steps_gains_less():
    """The trials themselves."""
    found = {}
    for warm in (40, 2):
        data = replace(digits_data(0), trained=512)
        bench = warm_up.Bench(NumpyBackend(), 0, 48, 80, warm, data)
        found[warm] = warm_up._train(bench, 4, "none")
    assert found[2].largest("bare") == found[40].largest("bare") > 0
    assert found[2].largest("warm") < found[40].largest("warm")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depths": "2"}, "depths must be comma-separated rising integers between 2 and 10"),
        ({"depths": "8,4"}, "received '8,4'"),
        ({"depths": "4,12"}, "received '4,12'"),
        ({"depths": "deep"}, "received 'deep'"),
        ({"width": 16}, "width must be between 32 and 1024; received 16"),
        ({"images": 64}, "images must be between 128 and 1536; received 64"),
        ({"steps": 30}, "steps must be between 40 and 10000; received 30"),
        ({"warm": 50}, "warm must be between 5 and 40; received 50"),
    ],
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)
