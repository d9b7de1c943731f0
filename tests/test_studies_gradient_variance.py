"""The study gradient-variance: right on NumPy, and each of its checks can fail."""

import math

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.studies import gradient_variance

SMALL = {"shapes": "12x6,4+12x5", "networks": 1500}


def failed(backend, **parameters):
    """Return the claims that a backend fails."""
    result = studies.run("gradient-variance", backend, seed=5, parameters=SMALL | parameters)
    return [check.claim for check in result.checks if not check.passed]


def test_numpy_keeps_every_claim():
    result = studies.run("gradient-variance", NumpyBackend(), seed=2)
    assert [check for check in result.checks if not check.passed] == []
    assert result.finding.endswith(".")
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    found = studies.find("gradient-variance")
    assert found.question.endswith("?")
    assert all(parameter.help for parameter in found.parameters)
    # the variance grows with beta, and the raw fourth moment hides what the logarithm shows
    beta = result.quantities["beta"].values
    spread = result.quantities["log_variance/backward"].values
    assert spread[beta > 1.5].min() > 1.5 * spread[beta <= 1].max()
    worst = int(np.argmax(result.quantities["fourth_moment/exact"].values))
    sample, exact, seen, needed = (
        result.quantities[f"fourth_moment/{name}"].values[worst]
        for name in ("sample", "exact", "seen", "needed")
    )
    assert sample < exact / 10
    assert seen < 0.05
    assert needed > 1e5


class LeakyMask(NumpyBackend):
    """A ReLU that lets a tenth of a negative value through."""

    def relu(self, x, /):
        return self.leaky_relu(x, slope=0.1)


class LostGradient(NumpyBackend):
    """Loses a third of every gradient."""

    def vjp(self, f, x, /):
        y, pullback = super().vjp(f, x)
        return y, lambda v: pullback(v) * 2 / 3


class Tails(NumpyBackend):
    """Weights of the right variance and heavy tails: the norms spread too much."""

    def stream(self, seed, /):
        stream = super().stream(seed)
        normal = stream.normal

        def draw(shape, /, *, std=1.0, dtype="float32"):
            size = np.sqrt(2 * (normal(shape[:1], dtype=dtype) > 0))
            return normal(shape, std=std, dtype=dtype) * size.reshape(-1, *[1] * (len(shape) - 1))

        stream.normal = draw
        return stream


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (LeakyMask, "4+12x5: share of dead nets"),
        (LostGradient, "12x6, backward: mean log-norm"),
        (LostGradient, "12x6, backward: distribution function of the log-norm"),
        (Tails, "12x6: share of dead nets"),
    ],
)
def test_it_catches(broken, claim):
    assert claim in failed(broken())


def test_spread_is_caught():
    """Half of the nets' logarithms moved up by a standard deviation, half down: same mean."""
    shape = gradient_variance._shape("12x6")
    laws = shape.laws("forward")
    rng = np.random.default_rng(6)
    spread = math.sqrt(sum(law.variance for law in laws))
    logs = sum(
        math.log(law.scale)
        + np.log(rng.chisquare(rng.choice(law.degrees, 1500, p=law.weights / law.weights.sum())))
        for law in laws
    )
    assert all(check.passed for check in gradient_variance._held("right", logs, laws))
    logs += rng.choice([-1, 1], 1500) * spread
    by_claim = {c.claim: c.passed for c in gradient_variance._held("wrong", logs, laws)}
    assert not by_claim["wrong: spread of the log-norm, mean of min(z**2, 9)"]
    assert by_claim["wrong: mean log-norm"]


def test_shapes_and_their_beta():
    shape = gradient_variance._shape("10+40x5")
    assert shape.widths == (10, 40, 10, 40, 10)
    assert shape.beta == pytest.approx(0.35)
    assert shape.variances == pytest.approx([0.2, 0.2, 0.05, 0.2, 0.05])


def test_it_refuses():
    for shapes, words in (
        ("16", "a shape is a width, an x and a number"),
        ("16x0", "the number of layers must be between 1"),
        ("0x4", "a width must be between 1"),
        ("4x64", "of which 98.4 % are; take fewer or wider"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            failed(NumpyBackend(), shapes=shapes)
    with pytest.raises(InvalidArgument, match="networks must be between 100"):
        failed(NumpyBackend(), networks=3)
