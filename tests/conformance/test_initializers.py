"""Initializers: the resolved law without a draw, then native draws against it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import (
    TRUNCATED_STD,
    Constant,
    Distribution,
    Normal,
    TruncatedNormal,
    Uniform,
)
from isometry.common.laws.fans import LAYOUTS, MODES, fans
from isometry.common.laws.initializers import (
    DISTRIBUTIONS,
    INITIALIZERS,
    Orthogonal,
    VarianceScaling,
)
from isometry.common.portable import PortableStream
from isometry.common.statistics import rounding, verdicts
from isometry.conformance import asserts, connections
from isometry.conformance.examples import EXAMPLES
from isometry.conformance.recording import RecordingStream
from isometry.conformance.shapes import CONVOLUTION, DENSE, SQUARE, TALL

SCALED = [name for name, rule in INITIALIZERS.items() if isinstance(rule, VarianceScaling)]
SHAPES = {"dense": DENSE, "convolution": CONVOLUTION}


def _weights():
    return [
        pytest.param(name, SHAPES[kind], layout, id=f"{name}-{kind}-{layout}")
        for name in SCALED
        for kind in SHAPES
        for layout in LAYOUTS
    ]


@pytest.mark.clause("initializers.resolved")
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SCALED)
def test_resolved_law_is_the_papers(name, kind, layout):
    family, distribution = name.split("_")
    shape = SHAPES[kind]
    out, in_, *kernel = shape if layout == "out_in" else (shape[-1], shape[-2], *shape[:-2])
    field = math.prod(kernel)
    variance = {
        "lecun": 1 / (in_ * field),
        "xavier": 2 / ((in_ + out) * field),
        "he": 2 / (in_ * field),
    }[family]
    law = INITIALIZERS[name].resolve(shape, layout)
    cls = {"normal": Normal, "truncated": TruncatedNormal, "uniform": Uniform}[distribution]
    assert type(law) is cls
    asserts.within_ulp(np.array(law.moments[1]), np.array(variance), "float64", 4)
    assert law.moments[0] == 0


# --- without a draw: fans by counting, scales by what a stream is asked for ---------------------


@pytest.mark.clause("initializers.fans")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", connections.LAYERS)
def test_fans_are_the_connections_of_a_unit(kind, layout):
    layer = connections.LAYERS[kind]
    assert fans(layer.stored(layout), layout, **layer.arguments) == connections.count(layer)


@st.composite
def _convolutions(draw):
    channels, kernels = st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3)
    return connections.convolution(
        draw(channels),
        draw(channels),
        *draw(kernels),
        groups=draw(channels),
        transposed=draw(st.booleans()),
        dilation=draw(st.integers(1, 2)),
    )


@pytest.mark.clause("initializers.fans")
@EXAMPLES
@given(layer=_convolutions(), layout=st.sampled_from(LAYOUTS))
def test_fans_of_any_convolution_are_its_connections(layer, layout):
    assert fans(layer.stored(layout), layout, **layer.arguments) == connections.count(layer)


GAINS = (1.0, 2**0.5, 5 / 3, 1e-3)
RULES = {
    **{
        name: (INITIALIZERS[name], gain, mode, distribution)
        for distribution in DISTRIBUTIONS
        for name, gain, mode in (
            (f"lecun_{distribution}", 1.0, "fan_in"),
            (f"xavier_{distribution}", 1.0, "fan_avg"),
            (f"he_{distribution}", 2**0.5, "fan_in"),
        )
    },
    **{
        f"{distribution}, {mode}, gain {gain:g}": (
            VarianceScaling(gain, mode, distribution),
            gain,
            mode,
            distribution,
        )
        for gain, mode, distribution in itertools.product(GAINS, MODES, DISTRIBUTIONS)
    },
}
"""What to draw, and what it must come to."""


def _asked(distribution, std):
    """Return the draw of mean 0 and this std: its name and arguments."""
    if distribution == "uniform":
        return "uniform", -math.sqrt(3) * std, math.sqrt(3) * std
    if distribution == "normal":
        return "normal", 0.0, std
    return "truncated_normal", 0.0, std / TRUNCATED_STD


@pytest.mark.clause("initializers.scale")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", connections.LAYERS)
def test_a_stream_is_asked_for_exactly_the_scale(nx, dtype, kind, layout):
    layer = connections.LAYERS[kind]
    shape, counted = layer.stored(layout), connections.count(layer)
    stream = RecordingStream(nx)
    for name, (rule, gain, mode, distribution) in RULES.items():
        if layer.arguments:  # fans that the shape alone does not tell
            wanted = rule.law(fans(shape, layout, **layer.arguments))
        else:
            wanted = name if name in INITIALIZERS else rule
        weight = nx.initialize(wanted, shape, stream, layout=layout, dtype=dtype)
        assert nx.shape_of(weight) == shape, name
        assert nx.dtype_of(weight) == dtype, name
        fan = {
            "fan_in": counted.fan_in,
            "fan_out": counted.fan_out,
            "fan_avg": (counted.fan_in + counted.fan_out) / 2,
            "fan_geo_avg": (counted.fan_in * counted.fan_out) ** 0.5,
        }[mode]
        drawn = stream.draws.pop()
        law, *arguments = _asked(distribution, gain / math.sqrt(fan))
        assert not stream.draws, f"{name} drew more than once"
        assert (drawn.law, drawn.shape, drawn.dtype) == (law, shape, dtype), name
        asserts.within_ulp(np.array([drawn.a, drawn.b]), np.array(arguments), "float64", 4)


ELEMENTWISE = [
    name for name, rule in INITIALIZERS.items() if isinstance(rule, (Distribution, VarianceScaling))
]


@pytest.mark.clause("initializers.shapes")
@EXAMPLES
@given(
    name=st.sampled_from(ELEMENTWISE),
    sizes=st.lists(st.integers(-1, 3), max_size=4),
    layout=st.sampled_from(LAYOUTS),
)
def test_a_weight_has_its_shape_or_is_refused(nx, name, sizes, layout):
    stream, shape = RecordingStream(nx), tuple(sizes)
    if min(shape, default=1) >= 1 and (len(shape) >= 2 or name not in SCALED):
        assert nx.shape_of(nx.initialize(name, shape, stream, layout=layout)) == shape
    else:
        with pytest.raises(InvalidArgument):
            nx.initialize(name, shape, stream, layout=layout)
        assert not stream.draws


# --- native draws -------------------------------------------------------------------------------


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


@pytest.mark.clause("initializers.tail")
def test_a_large_truncated_weight_keeps_its_law(nx, seed, judge):
    law = TruncatedNormal(0.1, 0.3)
    sample = nx.to_numpy(nx.initialize(law, (1650, 2000), nx.stream(seed(8))))
    judge(verdicts.support(sample, law, detects=4.2e-6, dtype="float32"))
    judge(verdicts.mean(sample, law, detects=0.01, dtype="float32"))
    judge(verdicts.spread(sample, law, detects=0.01, dtype="float32"))


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
@pytest.mark.parametrize("sizes", [SQUARE, TALL, TALL[::-1], (20, 12, 2, 2)], ids=str)
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
    diagonal = np.full(size, size**-0.5)  # in every direction an entry has the same law
    for entry in (q[:, 0, 0], (diagonal @ q)[:, 0], (q @ diagonal)[:, 0]):
        judge(verdicts.distribution(entry**2, law, detects=0.25, dtype="float32"))


# --- portable -----------------------------------------------------------------------------------


@pytest.mark.clause("initializers.portable")
@pytest.mark.parametrize("name", SCALED)
def test_portable_weights_are_numpys_bits(nx, full_dtype, name):
    law = INITIALIZERS[name].resolve((40, 30), "out_in")
    stream = PortableStream(6, convert=np.asarray, dtypes=("float32", "float64"))
    expected = law.draw(nx, stream, (40, 30), dtype=full_dtype)  # draws and converts by NumPy
    observed = nx.initialize(name, (40, 30), nx.portable_stream(6), dtype=full_dtype)
    asserts.same_bits(nx.to_numpy(observed), expected)
