"""Initializers whose entries differ by their place: identities, blocks, zeros, biases, and LSUV."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from isometry.common.laws.distributions import (
    TRUNCATED_STD,
    Normal,
    Sparse,
    Uniform,
)
from isometry.common.laws.embeddings import Embedding, Tied
from isometry.common.laws.fans import LAYOUTS, Fans
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.identities import Bilinear, Dirac, Identity
from isometry.common.laws.mup import MuP
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.laws.recurrent import Chrono, ForgetGateBias, PerGate
from isometry.common.laws.residual import fixup
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.laws.upsampling import ICNR
from isometry.common.portable import PortableStream
from isometry.common.statistics import rounding, verdicts
from isometry.common.statistics.tolerances import TANH_ULP
from isometry.conformance import asserts
from isometry.conformance.recording import RecordingStream
from isometry.conformance.shapes import DENSE, TALL


def _stored(shape, layout):
    out, in_, *kernel = shape
    return shape if layout == "out_in" else (*kernel, in_, out)


def _out_in(array, layout):
    """Return a weight as (out, in, *kernel)."""
    return array if layout == "out_in" else np.moveaxis(array, (-1, -2), (0, 1))


def _weight(nx, rule, shape, layout, dtype, stream=None):
    """Return a weight, asked for in a layout, as (out, in, *kernel) in float64."""
    stored, stream = _stored(shape, layout), stream or nx.stream(3)
    weight = nx.initialize(rule, stored, stream, layout=layout, dtype=dtype)
    assert nx.dtype_of(weight) == dtype
    assert nx.shape_of(weight) == stored
    return _out_in(nx.to_numpy(weight).astype(np.float64), layout)


# --- without chance -----------------------------------------------------------------------------


@pytest.mark.clause("initializers.identity")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 1)], ids=str)
def test_identity_has_its_gain_on_the_diagonal(nx, dtype, shape, layout):
    weight = _weight(nx, Identity(0.5), shape, layout, dtype)
    for o, i in np.ndindex(*shape):
        assert weight[o, i] == (0.5 if o == i else 0.0)


CONVOLUTIONS = [
    ((4, 4, 3), 1),
    ((3, 5, 4), 1),
    ((6, 2, 3, 2), 2),
    ((6, 1, 4, 3), 3),
    ((4, 2, 3, 1, 2), 2),
]
"""(out, in / groups, *kernel), with odd and even sizes, and groups."""


@pytest.mark.clause("initializers.dirac")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "groups"), CONVOLUTIONS, ids=str)
def test_dirac_passes_each_channel_on(nx, dtype, shape, groups, layout):
    weight = _weight(nx, Dirac(groups), shape, layout, dtype)
    expected = np.zeros(shape)
    outputs = shape[0] // groups
    for group in range(groups):
        for channel in range(min(outputs, shape[1])):
            tap = tuple(size // 2 for size in shape[2:])
            expected[group * outputs + channel, channel, *tap] = 1
    np.testing.assert_array_equal(weight, expected)


@pytest.mark.clause("initializers.dirac")
def test_a_dirac_convolution_leaves_an_image_as_it_is(nx):
    image = np.arange(2.0 * 3 * 5 * 4, dtype=np.float32).reshape(2, 3, 5, 4)
    weight = nx.initialize("dirac", (3, 3, 3, 3), nx.stream(0))
    result = nx.ops.conv(nx.asarray(image), weight, padding=1)
    np.testing.assert_array_equal(nx.to_numpy(result), image)


@pytest.mark.clause("initializers.bilinear")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "groups"), CONVOLUTIONS, ids=str)
def test_bilinear_kernels_interpolate(nx, dtype, shape, groups, layout):
    weight = _weight(nx, Bilinear(groups), shape, layout, dtype)
    expected = np.zeros(shape)
    whole = shape[0] // groups
    for group, channel in itertools.product(range(groups), range(min(whole, shape[1]))):
        for place in np.ndindex(*shape[2:]):
            tents = (
                np.interp(abs(x - (size - 1) / 2), [0, (size + 1) // 2], [1, 0])
                for x, size in zip(place, shape[2:], strict=True)
            )
            expected[group * whole + channel, channel, *place] = math.prod(tents)
    asserts.within_ulp(weight, expected, dtype, 1)


@pytest.mark.clause("initializers.bilinear")
@pytest.mark.parametrize("size", range(1, 9))
def test_taps_that_meet_in_a_pixel_add_up_to_one(nx, size):
    """Of a transposed convolution with stride r, pixel p gets the taps p, p + r, p + 2 r, ..."""
    weight = _weight(nx, "bilinear", (1, 1, size), "out_in", "float64")[0, 0]
    stride = (size + 1) // 2
    np.testing.assert_array_equal(weight, weight[::-1])
    for pixel in range(stride):
        asserts.within_ulp(weight[pixel::stride].sum(), np.array(1.0), "float64", 2)


@pytest.mark.clause("initializers.forget-gate")
@pytest.mark.parametrize("order", ["ifgo", "igfo", "iofg"])
def test_the_forget_gate_has_its_bias_and_the_others_none(nx, dtype, order):
    bias = nx.initialize(ForgetGateBias(1.5, order), (12,), nx.stream(0), dtype=dtype)
    assert nx.dtype_of(bias) == dtype
    gates = nx.to_numpy(bias).reshape(4, 3)
    for gate, values in zip(order, gates, strict=True):
        np.testing.assert_array_equal(values, 1.5 if gate == "f" else 0)


# --- blocks of a known law ----------------------------------------------------------------------


@pytest.mark.clause("initializers.delta-orthogonal")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", [(4,), (3, 2), (1, 2, 3)], ids=str)
def test_delta_orthogonal_kernels_are_orthogonal_at_their_centre(nx, dtype, kernel, layout):
    gain = 2.0  # a power of two adds no rounding
    shape = (*TALL, *kernel)
    weight = _weight(nx, DeltaOrthogonal(gain), shape, layout, dtype) / gain
    centre = (..., *((size - 1) // 2 for size in shape[2:]))
    tap = weight[centre].copy()
    asserts.within(tap.T @ tap, np.eye(shape[1]), rounding.orthogonality(*shape[:2], dtype))
    weight[centre] = 0
    assert not weight.any()


@pytest.mark.clause("initializers.per-gate")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", [Orthogonal(), Identity(), VarianceScaling()], ids=repr)
def test_each_gate_is_a_layer_of_its_own(nx, full_dtype, rule, layout):
    along = 0 if layout == "out_in" else 1  # the gates' outputs
    shape = tuple(3 * size if k == along else size for k, size in enumerate(TALL))
    weight = nx.initialize(PerGate(rule, 3), shape, nx.stream(5), layout=layout, dtype=full_dtype)
    stream = nx.stream(5)
    parts = [
        nx.to_numpy(nx.initialize(rule, TALL, stream, layout=layout, dtype=full_dtype))
        for _ in range(3)
    ]
    expected = np.concatenate(parts, axis=along)
    asserts.same_bits(nx.to_numpy(weight), expected)


@pytest.mark.clause("initializers.icnr")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["CRD", "DCR"])
@pytest.mark.parametrize("kernel", [(3,), (3, 2), (1, 2, 3)], ids=str)
def test_sub_pixels_begin_alike(nx, kernel, order, layout):
    """The outputs that become one block of pixels have the weights of one output."""
    channels, scale = 2, 2
    repeats = scale ** len(kernel)
    rule = VarianceScaling(mode="fan_out")
    weight, small = (
        _weight(nx, r, (outputs, 3, *kernel), layout, "float32", nx.portable_stream(6))
        for r, outputs in ((ICNR(rule, scale, order), channels * repeats), (rule, channels))
    )
    for channel, pixel in itertools.product(range(channels), range(repeats)):
        output = channel * repeats + pixel if order == "CRD" else pixel * channels + channel
        np.testing.assert_array_equal(weight[output], small[channel])


@pytest.mark.clause("initializers.padding")
@pytest.mark.parametrize("padding", [None, 0, 2, -1])
def test_the_padding_word_has_no_features(nx, dtype, padding):
    table, expected = (
        nx.to_numpy(nx.initialize(rule, DENSE, nx.stream(7), dtype=dtype))
        for rule in (Embedding(Normal(0.0, 2.0), padding), Normal(0.0, 2.0))
    )
    if padding is not None:
        expected[padding] = 0
    asserts.same_bits(table, expected)


# --- scales that depend on use, depth and width ---------------------------------------------------


FIRST, _, ZERO = fixup(16, 3, VarianceScaling(2**0.5, "fan_out"))
DERIVED = {  # for a weight (out, in) = (20, 5): rule, distribution, variance
    "geometric": (VarianceScaling(1.5, "fan_geo_avg"), "normal", 1.5**2 / 10),
    "tied": (Tied(VarianceScaling()), "normal", 1 / 10),
    "tied-lookup": (Tied(VarianceScaling(), ("lookup", "dense")), "normal", 1 / 5**0.5),
    "fixup": (FIRST, "normal", 2 / 20 / 16 ** (1 / 2)),
    "mup-input": (MuP("input", Fans(5, 8)), "normal", 1 / 5),
    "mup-hidden": (MuP("hidden", Fans(2, 8), 2.0, "uniform"), "uniform", 4 / 5),
    "mup-output": (MuP("output", Fans(2, 20), 2.0, "truncated"), "truncated_normal", 4 * 2 / 25),
}


@pytest.mark.clause("initializers.derived")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DERIVED)
def test_a_stream_is_asked_for_the_derived_scale(nx, dtype, name, layout):
    rule, law, variance = DERIVED[name]
    stream, shape = RecordingStream(nx), _stored((20, 5), layout)
    nx.initialize(rule, shape, stream, layout=layout, dtype=dtype)
    (drawn,) = stream.draws
    assert (drawn.law, drawn.shape, drawn.dtype) == (law, shape, dtype)
    std = math.sqrt(variance)
    asked = {
        "normal": (0.0, std),
        "uniform": (-math.sqrt(3) * std, math.sqrt(3) * std),
        "truncated_normal": (0.0, std / TRUNCATED_STD),
    }[law]
    asserts.within_ulp(np.array([drawn.a, drawn.b]), np.array(asked), "float64", 4)


@pytest.mark.clause("initializers.derived")
@pytest.mark.parametrize("rule", [ZERO, *fixup(7, 1), "rezero", "skipinit"], ids=repr)
@pytest.mark.parametrize("shape", [(), (3, 2)], ids=str)
def test_residual_branches_end_in_zeros(nx, dtype, rule, shape):
    weight = nx.initialize(rule, shape, nx.stream(0), dtype=dtype)
    np.testing.assert_array_equal(nx.to_numpy(weight), np.zeros(shape))


# --- native draws -------------------------------------------------------------------------------


SPARSE = Sparse(0.4, Uniform(1.0, 2.0))  # values that are never 0
SUBSETS = list(itertools.combinations(range(5), 2))


@pytest.mark.clause("initializers.sparse")
def test_the_zeros_of_a_column_are_any_rows_alike(nx, seed, judge):
    weight = nx.to_numpy(nx.initialize(SPARSE, (5, 40_000), nx.stream(seed(9))))
    zero = weight == 0
    assert (np.count_nonzero(zero, axis=0) == 2).all()
    chosen = np.argsort(~zero, axis=0, kind="stable")[:2]
    share, slack = 1 / len(SUBSETS), 10 * verdicts.grid("float32")
    for subset in SUBSETS:
        judge(
            verdicts.fraction(
                (chosen == np.array(subset)[:, None]).all(axis=0),
                share,
                detects=0.02,
                claim=f"fraction of columns with zeros at rows {subset}",
                slack=slack,
            )
        )
    judge(
        verdicts.fraction(
            (chosen[:, ::2] == chosen[:, 1::2]).all(axis=0),
            share,
            detects=0.03,
            claim="fraction of neighbours with the same zeros",
            slack=slack,
        )
    )
    values = weight[~zero]
    judge(verdicts.spread(values, SPARSE.law, detects=0.02, dtype="float32"))
    judge(verdicts.distribution(values, SPARSE.law.cdf, detects=0.02, dtype="float32"))


@pytest.mark.clause("initializers.sparse")
def test_a_sparse_weight_is_the_transpose_in_the_other_layout(nx, full_dtype):
    rule, shape = Sparse(0.3, Normal()), (8, 6)  # a shape of the portable draws below
    weights = [
        _weight(nx, rule, shape, layout, full_dtype, nx.portable_stream(6)) for layout in LAYOUTS
    ]
    np.testing.assert_array_equal(*weights)
    assert (np.count_nonzero(weights[0] == 0, axis=0) >= 3).all()


@pytest.mark.clause("initializers.chrono")
def test_forget_gates_remember_for_any_time_alike(nx, seed, judge):
    """``exp(b_f)`` is uniform; the error of its logarithm is that of `ops.log`."""
    longest, hidden = 12, 20_000
    bias = nx.initialize(Chrono(longest), (4 * hidden,), nx.stream(seed(11)))
    in_, forget, cell, out = nx.to_numpy(bias).reshape(4, hidden)
    np.testing.assert_array_equal(in_, -forget)
    assert not cell.any()
    assert not out.any()
    law, dtype = Uniform(1.0, longest - 1.0), "float32"
    off = TANH_ULP[dtype] * float(FORMATS[dtype].ulp(np.log(law.high)))
    times = np.exp(forget.astype(np.float64))
    assert times.min() >= math.exp(-off)
    assert times.max() <= law.high * math.exp(off)
    slack = 2 * off * law.high / (law.high - law.low)
    judge(verdicts.distribution(times, law.cdf, detects=0.05, dtype=dtype, slack=slack))


@pytest.mark.clause("initializers.chrono")
def test_a_chrono_bias_keeps_its_blocks_in_every_dtype(nx, dtype):
    bias = nx.initialize(Chrono(9.0, "igfo"), (12,), nx.stream(12), dtype=dtype)
    assert nx.dtype_of(bias) == dtype
    in_, cell, forget, out = nx.to_numpy(bias).astype(np.float64).reshape(4, 3)
    np.testing.assert_array_equal(in_, -forget)
    assert not cell.any()
    assert not out.any()
    ulp = FORMATS[dtype].ulp(np.array(math.log(8.0)))
    assert ((forget >= 0) & (forget <= math.log(8.0) + TANH_ULP[dtype] * ulp)).all()


@pytest.mark.clause("initializers.portable")
@pytest.mark.parametrize(
    ("rule", "shape"),
    [
        (Sparse(0.3, Normal()), (8, 6)),
        (PerGate(VarianceScaling()), (8, 6)),
        (ICNR(VarianceScaling()), (8, 6, 3, 3)),
        (Embedding(padding=1), (8, 6)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_portable_structured_weights_are_numpys_bits(nx, full_dtype, rule, shape):
    """Their entries are among the portable draws, or 0."""
    observed = nx.to_numpy(nx.initialize(rule, shape, nx.portable_stream(6), dtype=full_dtype))
    stream = PortableStream(6, convert=np.asarray, dtypes=("float32", "float64"))
    law, drawn = Normal(0.0, 1.0), shape
    if isinstance(rule, ICNR):
        law, drawn = rule.rule.resolve((2, *shape[1:]), "out_in"), (2, *shape[1:])
    elif isinstance(rule, PerGate):
        law, drawn = rule.rule.resolve((2, 6), "out_in"), (2, 6)
    count = rule.gates if isinstance(rule, PerGate) else 1
    values = [stream.normal(drawn, std=law.std, dtype=full_dtype) for _ in range(count)]
    entries = np.concatenate(values)
    if isinstance(rule, ICNR):
        entries = np.repeat(entries, 4, axis=0)
    asserts.same_bits(observed, np.where(observed == 0, 0, entries).astype(full_dtype))
