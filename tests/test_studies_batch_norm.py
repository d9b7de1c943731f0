"""The study batch-norm: right on NumPy, and its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.studies.batch_norm import BATCHES, KINDS, SCALES

STUDY = "batch-norm"
SMALL = {"width": 8, "steps": 2, "seeds": 1}
OUTPUT = "weights scaled by a give the output of eps / a**2: largest difference"
GRADIENT = "weights scaled by a have 1 / a of the gradient of eps / a**2: largest difference"
EULER = (
    "each unit's gradient is orthogonal to its weights up to eps: departure from Euler's "
    "identity, of their lengths"
)
TWO = "two examples become +1 and -1 in every feature, up to eps: largest error"
LAW = "one of 3 normal values, standardized, has its exact law"


def run(backend=None, **parameters):
    return studies.run(STUDY, backend or NumpyBackend(), seed=1, parameters=SMALL | parameters)


def failed(backend):
    return {check.claim for check in run(backend).checks if not check.passed}


@pytest.fixture(scope="module")
def result():
    told = []
    found = studies.run(
        STUDY, NumpyBackend(), tell=lambda done, total, _: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1]
    return found


def test_every_claim_holds_by_default(result):
    assert [check for check in result.checks if not check.passed] == []
    assert len({check.claim for check in result.checks}) == len(result.checks) == 8
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert result.finding.endswith(".")
    study = studies.find(STUDY)
    assert study.question.endswith("?")
    assert all(parameter.help for parameter in study.parameters)


def test_measures_what_they_say(result):
    q = {name: quantity.values for name, quantity in result.quantities.items()}
    for kind in KINDS:
        assert q[f"loss/scale/{kind}"].shape == (len(SCALES), 2)
        assert q[f"loss/batch/{kind}"].shape == (len(BATCHES), 2)
        assert q[f"drift/{kind}"][0] == 0
        assert q[f"drift/{kind}"].shape == (31,)
        # the loss moves along the step no further than its Lipschitz constant allows
        assert (q[f"lipschitz/loss/{kind}"] > 0).all()
        assert (q[f"lipschitz/gradient/{kind}"] > 0).all()
        assert (q[f"range/{kind}"] > 0).all()
    # scales of 100 to 1 matter less with batch norm; batches of two are worse than of 32
    spread = {kind: np.ptp(np.log(q[f"loss/scale/{kind}"].mean(axis=1))) for kind in KINDS}
    assert spread["batch norm"] < spread["plain"]
    sizes = q["loss/batch/batch norm"].mean(axis=1)
    assert sizes[0] > 1.5 * sizes[-1]
    assert np.mean(np.abs(q["standardized/2"]) > 0.999) > 0.9


class Wrong(NumpyBackend):
    """Normalizes by `normalize`, which subclasses get wrong."""

    def batch_norm(
        self,
        x,
        scale,
        shift,
        mean,
        variance,
        /,
        *,
        training,
        axis=1,
        eps=1e-5,
        momentum=0.9,
        momentum_weights="running",
        running_variance="biased",
    ):
        return self.normalize(x, eps) * scale + shift, mean, variance

    def moments(self, x):
        mean = self.ops.mean(x, axis=0, keepdims=True)
        return mean, self.ops.mean(self.ops.square(x - mean), axis=0, keepdims=True)


class Unbiased(Wrong):
    """Divides by the unbiased standard deviation."""

    def normalize(self, x, eps):
        mean, variance = self.moments(x)
        return (x - mean) / self.ops.sqrt(variance * (len(x) / (len(x) - 1)) + eps)


class OutsideTheRoot(Wrong):
    """Adds eps to the standard deviation."""

    def normalize(self, x, eps):
        mean, variance = self.moments(x)
        return (x - mean) / (self.ops.sqrt(variance) + eps)


class ConstantStatistics(Wrong):
    """Does not differentiate through the batch's mean and variance."""

    def normalize(self, x, eps):
        mean, variance = self.moments(self.ops.stop_gradient(x))
        return (x - mean) / self.ops.sqrt(variance + eps)


class RunningStatistics(Wrong):
    """Normalizes in training by running statistics."""

    def normalize(self, x, eps):
        return x / float(np.sqrt(1 + eps))


@pytest.mark.parametrize(
    ("broken", "claims"),
    [
        (Unbiased, {TWO, LAW}),
        (OutsideTheRoot, {OUTPUT, GRADIENT, EULER, TWO}),
        (ConstantStatistics, {EULER}),
        (RunningStatistics, {TWO, LAW, EULER}),
    ],
)
def test_catches(broken, claims):
    assert claims <= failed(broken())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"width": 0}, "width must be between 1 and 100000; received 0"),
        ({"steps": 1}, "steps must be between 2"),
        ({"rate": -1.0}, "rate must be greater than 0"),
        ({"seeds": 0}, "seeds must be between 1"),
    ],
    ids=str,
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)
