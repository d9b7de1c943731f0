"""The conventions of the libraries, as data, are what their layers do: measured on each."""

import importlib

import numpy as np
import pytest

from isometry.common.laws.normalization import BATCH_NORM, EPS
from isometry.common.natives.normalization import CLOSE, fit_eps

# of MXNet 1.9, which asks SciPy for a module that moved
pytestmark = pytest.mark.filterwarnings("ignore:Please import `csr_matrix`:DeprecationWarning")

LIBRARIES = {
    "torch": ("torch_native", "library"),
    "keras": ("keras_native", "library"),
    "flax": ("flax_native", "nnx"),
    "mxnet": ("mxnet_native", "library"),
}


@pytest.fixture(params=LIBRARIES)
def measured(request):
    """The library's name, and its normalizations by the name of the method they claim to be."""
    module, name = LIBRARIES[request.param]
    found = getattr(importlib.import_module(f"isometry.backends.{module}"), name)()
    kinds = ("batch_norm", "norm")
    return request.param, {n.claims: n for n in found.natives if n.kind in kinds}


def test_eps_is_inside_the_root_and_as_stated(measured):
    library, natives = measured
    stated = {norm: of[library] for norm, of in EPS.items() if library in of}
    stated["batch_norm"] = BATCH_NORM[library].eps
    assert {"batch_norm", "layer_norm"} <= natives.keys() <= stated.keys()
    for norm, native in natives.items():
        eps, place = fit_eps(native)
        assert place == "inside", norm
        assert eps == pytest.approx(stated[norm], rel=CLOSE), norm


def test_running_statistics_are_as_stated(measured):
    library, natives = measured
    convention = BATCH_NORM[library]
    x = (3 + 2 * np.random.default_rng(0).normal(size=(8, 4))).astype(np.float32)
    step = natives["batch_norm"].run(x, 1)
    variance = x.var(axis=0, ddof=convention.running_variance == "unbiased")
    old = convention.old_weight  # of a running mean of 0 and a running variance of 1
    np.testing.assert_allclose(step.running_mean, (1 - old) * x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(step.running_variance, old + (1 - old) * variance, rtol=1e-4)
