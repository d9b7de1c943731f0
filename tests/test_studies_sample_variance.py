"""The study sample-variance: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.studies import sample_variance

SMALL = {
    "depth": 30, "widths": "32,128", "samples": 24, "networks": 4, "training_depth": 6, "steps": 8,
}  # fmt: skip
KERNEL = "the {} over samples follows the arc-cosine kernel, layer by layer, at every width"
STEP = "width 32: batch norm, log growth of the mean over samples in one layer"
SHARE = "width 32: batch norm keeps at least half of the variance over samples"
GROWTH = "width 128: log growth of one sample's squared norm, of nets that are not dead"


def failed(backend, **parameters):
    """Return the claims that a backend fails."""
    result = studies.run("sample-variance", backend, seed=3, parameters=SMALL | parameters)
    return [check.claim for check in result.checks if not check.passed]


@pytest.fixture(scope="module")
def result():
    return studies.run("sample-variance", NumpyBackend(), seed=1, parameters=SMALL)


def test_numpy_keeps_every_claim(result):
    assert [check for check in result.checks if not check.passed] == []
    assert result.finding.endswith(".")
    assert len({check.claim for check in result.checks}) == len(result.checks) == 8
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    found = studies.find("sample-variance")
    assert found.question.endswith("?")
    assert all(parameter.help for parameter in found.parameters)


def test_the_deviation_decays_and_normalization_stops_it(result):
    plain, normalized = (
        result.quantities[f"share/{name}"].values for name in ("width 128", "width 128, batch norm")
    )
    assert plain[-1] < 0.15 < 0.6 < normalized.min()


def test_preserved_sample_variance_is_preserved(result):
    shares = {
        name: result.quantities[f"share/training/{name}"].values for name in ("total", "sample")
    }
    np.testing.assert_allclose(shares["sample"], 1.0, rtol=1e-10)
    assert shares["total"][-1] < 0.7
    loss = result.quantities["loss/total/rate 0.03"].values
    assert len(loss) == SMALL["steps"] + 1
    assert loss[-1] < loss[0]


class LeakyMask(NumpyBackend):
    """A ReLU that lets half of a negative value through."""

    def relu(self, x, /):
        return self.leaky_relu(x, slope=0.5)


class BatchNorm(NumpyBackend):
    def batch_norm(
        self, x, scale, shift, mean, variance, /, *, training, axis=1, eps=1e-5, momentum=0.9,
        momentum_weights="running", running_variance="biased",
    ):  # fmt: skip
        y, *running = super().batch_norm(x, scale, shift, mean, variance, training=training)
        return self.changed(x, y), *running


class NoBatchNorm(BatchNorm):
    """Batch normalization that does nothing."""

    def changed(self, x, y):
        return x


class BigNorm(BatchNorm):
    """Batch normalization that is a tenth too large."""

    def changed(self, x, y):
        return 1.1 * y


class WrongGain(NumpyBackend):
    """Draws every weight a fifth too small."""

    def stream(self, seed, /):
        stream = super().stream(seed)
        normal = stream.normal
        stream.normal = lambda *args, **options: 0.8 * normal(*args, **options)
        return stream


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (LeakyMask, KERNEL.format("mean")),
        (LeakyMask, KERNEL.format("variance")),
        (WrongGain, GROWTH),
        (NoBatchNorm, STEP),
        (BigNorm, STEP),
    ],
)
def test_it_catches(broken, claim):
    assert claim in failed(broken(), widths="32,128,256")


def test_the_share_under_batch_norm_can_fail():
    """Where weights are not symmetric: one sample far below the others in every unit."""
    z = np.random.default_rng(4).normal(size=(2, 9, 16, 32))
    z[..., 0, :] -= 400.0
    claims = {check.claim: check for check in sample_variance._normalized(z, 32)}
    assert not claims[SHARE].passed


def test_it_refuses():
    for parameters, words in (
        ({"depth": 0}, "depth must be between 3"),
        ({"widths": "32,0"}, "a width must be between 8"),
        ({"widths": "wide"}, "widths must be whole numbers"),
        ({"networks": 0}, "networks must be between 1"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            failed(NumpyBackend(), **parameters)
