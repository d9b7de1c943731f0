"""The study coordinate-check: right on NumPy, tells parametrizations apart, and can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws.mup import MuP
from isometry.common.studies import coordinate_check

STUDY = "coordinate-check"
SMALL = {"widths": "64,128", "seeds": 6, "steps": 1}
BASE = "at the base width the three parametrizations are one net, at every step"
START = "at the start sizes follow their exact law at every width and layer: share of the bound"
GROWS = "standard: every hidden layer grows with the width: lowest limit of its slope"
STAYS = "mup: every hidden layer stays: slope less the margin of its interval"


def run(backend=None, **parameters):
    return studies.run(STUDY, backend or NumpyBackend(), seed=1, parameters=parameters)


def failed(backend=None, **parameters):
    return {check.claim for check in run(backend, **parameters).checks if not check.passed}


def test_every_claim_holds_by_default():
    told = []
    result = studies.run(
        STUDY, NumpyBackend(), tell=lambda done, total, _: told.append((done, total))
    )
    assert [check.claim for check in result.checks] == [BASE, START, GROWS, STAYS]
    assert [check for check in result.checks if not check.passed] == []
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    assert told[-1][0] == told[-1][1]
    assert result.finding.endswith(".")
    study = studies.find(STUDY)
    assert study.question.endswith("?")
    assert all(parameter.help for parameter in study.parameters)
    q = {name: quantity.values for name, quantity in result.quantities.items()}
    assert all(np.isfinite(values).all() for values in q.values())
    assert q["size"].shape == q["change"].shape == (3, 3, 10, 3, 4)
    assert (q["change"][:, :, :, 0] == 0).all()
    # the change of the last hidden layer in one step, by the theory of wide nets
    for j, exponent in enumerate(coordinate_check.EXPONENTS.values()):
        assert q["change slope"][j, 1, -2] == pytest.approx(exponent, abs=0.25)
    # the output of muP begins at the square root of the inverse width, hidden layers do not
    starts = np.log(q["size"][2, :, :, 0]).mean(axis=1)
    slopes = (starts[-1] - starts[0]) / np.log(4)
    np.testing.assert_allclose(slopes, [0, 0, 0, -0.5], atol=0.2)


def test_numbers_by_hand():
    """A step of Adam from nothing is the rate times the gradient's sign, each layer by its own."""
    nx = NumpyBackend()
    trainer = coordinate_check._Trainer(nx, [128, 128], 64, 0.01, 8)
    drawn = trainer.draw(nx.stream(0))
    for name, rates in (
        ("standard", (1, 1, 1)),
        ("ntk", (1, 0.5**0.5, 0.5**0.5)),
        ("mup", (1, 0.5, 0.5)),
    ):
        np.testing.assert_allclose(trainer._rates(name), rates)
        variances = trainer._variances(name)
        np.testing.assert_allclose(variances, (1, 1, 0.5 if name == "mup" else 1))
        weights = [
            drawn[f"stack{k}/weight"] * np.sqrt(variances[k]).astype(np.float32) for k in range(3)
        ]
        _, gradient = trainer.gradient(
            {f"stack{k}/weight": w for k, w in enumerate(weights)}, trainer.x, trainer.targets
        )
        moved = [
            w - 0.01 * rate * np.sign(gradient[f"stack{k}/weight"])
            for k, (w, rate) in enumerate(zip(weights, rates, strict=True))
        ]

        def sizes(weights, h=trainer.x):
            found = []
            for W in weights:
                z = h @ W[0].T
                found.append(z)
                h = np.maximum(z, 0)
            return found

        before, after = sizes(weights), sizes(moved)
        size, change = trainer.train(drawn, name, 1)
        np.testing.assert_allclose(size[1], [np.sqrt(np.mean(z * z)) for z in after], rtol=1e-2)
        np.testing.assert_allclose(
            change[1],
            [np.sqrt(np.mean((b - a) ** 2)) for a, b in zip(before, after, strict=True)],
            rtol=1e-2,
        )


# --- what must fail ------------------------------------------------------------------------------


class TooLarge(NumpyBackend):
    """Draws normal values by a tenth too large."""

    def stream(self, seed, /):
        return Loud(super().stream(seed))


class Loud:
    def __init__(self, stream):
        self.inner = stream

    def split(self, count):
        return [Loud(stream) for stream in self.inner.split(count)]

    def normal(self, shape, /, **options):
        return self.inner.normal(shape, **options) * np.float32(1.5)


class LostGradient(NumpyBackend):
    """Returns no gradient: nothing is trained, nothing grows."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(parameters, *args):
            value, gradient = inner(parameters, *args)
            return value, {path: 0 * a for path, a in gradient.items()}

        return value_and_gradient


def test_catches_wrong_draws():
    assert START in failed(TooLarge(), **SMALL)


def test_catches_what_does_not_train():
    assert failed(LostGradient(), **SMALL) == {GROWS}


def test_catches_mup_with_the_standard_rates(monkeypatch):
    monkeypatch.setattr(MuP, "learning_rate", lambda self, optimizer, fan: 1.0)
    assert failed() == {STAYS}


def test_catches_rates_that_are_not_relative_to_the_base(monkeypatch):
    monkeypatch.setattr(MuP, "learning_rate", lambda self, optimizer, fan: 1 / fan.fan_in)
    assert BASE in failed(**SMALL)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"widths": "64"}, "at least two integers, ascending from 64 or more.*received '64'"),
        ({"widths": "128,64"}, "ascending"),
        ({"widths": "0,64"}, "from 64 or more"),
        ({"widths": "64,a"}, "received '64,a'"),
        ({"layers": 2}, "layers must be between 3 and 1000; received 2"),
        ({"rate": 0.0}, "rate must be greater than 0"),
        ({"seeds": 1}, "seeds must be between 2"),
        ({"steps": 0}, "steps must be between 1"),
        ({"rate": 1e30}, r"preactivations overflow float32 at layer \d of 4"),
    ],
    ids=str,
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**SMALL | parameters)
