"""Initializers: the resolved law without a draw, then native draws against it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta

from isometry.common.laws.distributions import Constant, Normal, TruncatedNormal, Uniform
from isometry.common.laws.fans import LAYOUTS
from isometry.common.laws.initializers import INITIALIZERS, Orthogonal, VarianceScaling
from isometry.common.portable import PortableStream
from isometry.common.statistics import rounding, verdicts
from isometry.conformance import asserts

SCALED = [name for name in INITIALIZERS if "_" in name]
# out_in (out, in, *kernel); in and out differ, so that swapped fans show
DENSE, CONVOLUTION = (400, 640), (64, 448, 3, 3)


def _shape(kind, layout):
    out, in_, *kernel = DENSE if kind == "dense" else CONVOLUTION
    return (out, in_, *kernel) if layout == "out_in" else (*kernel, in_, out)


def _weights():
    return [
        pytest.param(name, _shape(kind, layout), layout, id=f"{name}-{kind}-{layout}")
        for name in SCALED
        for kind in ("dense", "convolution")
        for layout in LAYOUTS
    ]


@pytest.mark.clause("initializers.resolved")
@pytest.mark.parametrize("kind", ["dense", "convolution"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SCALED)
def test_resolved_law_is_the_papers(name, kind, layout):
    family, distribution = name.split("_")
    out, in_, *kernel = DENSE if kind == "dense" else CONVOLUTION
    field = math.prod(kernel)
    variance = {
        "lecun": 1 / (in_ * field),
        "xavier": 2 / ((in_ + out) * field),
        "he": 2 / (in_ * field),
    }[family]
    law = INITIALIZERS[name].resolve(_shape(kind, layout), layout)
    cls = {"normal": Normal, "truncated": TruncatedNormal, "uniform": Uniform}[distribution]
    assert type(law) is cls
    asserts.within_ulp(np.array(law.moments[1]), np.array(variance), "float64", 4)
    assert law.moments[0] == 0


@pytest.mark.clause("initializers.law")
@pytest.mark.parametrize(("name", "shape", "layout"), _weights())
def test_native_weight_has_its_law(nx, name, shape, layout, seed, judge):
    weight = nx.initialize(name, shape, nx.stream(seed(1)), layout=layout)
    assert nx.dtype_of(weight) == "float32"
    sample = nx.to_numpy(weight)
    assert sample.shape == shape
    law = INITIALIZERS[name].resolve(shape, layout)
    judge(verdicts.spread(sample, law, detects=0.02, dtype="float32"))
    judge(verdicts.mean(sample, law, detects=0.03, dtype="float32"))
    judge(verdicts.distribution(sample, law.cdf, detects=0.015, dtype="float32"))
    judge(verdicts.support(sample, law, detects=1e-4, dtype="float32"))


GIVEN = {
    "normal": Normal(0.0, 0.01),
    "uniform": Uniform(-0.07, 0.07),
    "truncated": TruncatedNormal(0.0, 0.02),
    "tanh-gain": VarianceScaling(5 / 3, "fan_out", "uniform"),
}


@pytest.mark.clause("initializers.given-law")
@pytest.mark.parametrize("name", GIVEN)
def test_native_weight_has_a_given_law(nx, dtype, name, seed, judge):
    weight = nx.initialize(GIVEN[name], DENSE, nx.stream(seed(2)), dtype=dtype)
    assert nx.dtype_of(weight) == dtype
    sample, law = nx.to_numpy(weight), GIVEN[name].resolve(DENSE, "out_in")
    judge(verdicts.spread(sample, law, detects=0.04, dtype=dtype))
    judge(verdicts.distribution(sample, law.cdf, detects=0.015, dtype=dtype))
    judge(verdicts.support(sample, law, detects=1e-4, dtype=dtype))


@pytest.mark.clause("initializers.constant")
@pytest.mark.parametrize(
    ("rule", "value"), [("zeros", 0), ("ones", 1), (Constant(0.5), 0.5)], ids=repr
)
def test_constants(nx, dtype, rule, value):
    weight = nx.initialize(rule, (3, 4), nx.stream(0), dtype=dtype)
    assert nx.dtype_of(weight) == dtype
    np.testing.assert_array_equal(nx.to_numpy(weight), np.full((3, 4), value))


# --- orthogonal ---------------------------------------------------------------------------------


@pytest.mark.clause("initializers.orthogonal")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", [(32, 32), (48, 20), (20, 48), (16, 4, 3, 3)], ids=str)
def test_rows_or_columns_are_orthonormal(nx, dtype, layout, sizes):
    out, in_, *kernel = sizes
    shape = sizes if layout == "out_in" else (*kernel, in_, out)
    gain = 2.0  # a power of two adds no rounding
    weight = nx.initialize(Orthogonal(gain), shape, nx.stream(3), layout=layout, dtype=dtype)
    assert nx.dtype_of(weight) == dtype
    w = nx.to_numpy(weight).astype(np.float64) / gain
    w = w.reshape(out, -1) if layout == "out_in" else w.reshape(-1, out).T
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    asserts.within(gram, np.eye(len(gram)), rounding.orthogonality(*w.shape, dtype))


@pytest.mark.clause("initializers.haar")
def test_orthogonal_weights_have_haars_measure(nx, seed, judge):
    size, count = 3, 700
    streams = nx.stream(seed(4)).split(count)
    q = np.stack([nx.to_numpy(nx.initialize("orthogonal", (size, size), s)) for s in streams])
    for index in ((0, 0), (2, 2)):
        judge(verdicts.signs(q[:, *index] > 0, detects=0.25))
    judge(verdicts.signs(np.linalg.det(q) > 0, detects=0.25))
    law = beta(0.5, (size - 1) / 2).cdf
    judge(verdicts.distribution(q[:, 0, 0] ** 2, law, detects=0.25, dtype="float32"))


# --- portable -----------------------------------------------------------------------------------


@pytest.mark.clause("initializers.portable")
@pytest.mark.parametrize("name", SCALED)
def test_portable_weights_are_numpys_bits(nx, full_dtype, name):
    law = INITIALIZERS[name].resolve((40, 30), "out_in")
    stream = PortableStream(6, convert=np.asarray, dtypes=("float32", "float64"))
    expected = law.draw(nx, stream, (40, 30), dtype=full_dtype)  # draws and converts by NumPy
    observed = nx.initialize(name, (40, 30), nx.portable_stream(6), dtype=full_dtype)
    asserts.same_bits(nx.to_numpy(observed), expected)
