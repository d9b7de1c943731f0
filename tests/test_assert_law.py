"""`assert_law`: its rates hold, it catches what it says it catches, and it says what went wrong."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom

import isometry as iso
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import CUT, TRUNCATED_STD
from isometry.common.laws.orthogonal import DeltaOrthogonal
from isometry.common.statistics.verdicts import FALSE_ALARM, MISS, moment_resolution

STD = 0.05
LAWS = [
    iso.Normal(0.01, STD),
    iso.Uniform(-0.2, 0.4),
    iso.TruncatedNormal(0.0, STD),
    iso.Bernoulli(0.8, 1.25),
]
EFFECTS = {
    "mean": ("sd", 0.05),
    "std": ("relative", 0.04),
    "variance": ("relative", 0.08),
    "distribution": ("absolute", 0.03),
    "independence": ("absolute", 0.04),
    "support": ("absolute", 1e-3),
}


def _truncated(generator, shape):
    z = generator.standard_normal(shape)
    while np.any(outside := np.abs(z) > CUT):
        z[outside] = generator.standard_normal(np.count_nonzero(outside))
    return z


def _draw(law, generator, shape):
    if isinstance(law, iso.Normal):
        return generator.normal(law.mean, law.std, shape)
    if isinstance(law, iso.Uniform):
        return generator.uniform(law.low, law.high, shape)
    if isinstance(law, iso.Bernoulli):
        return (generator.random(shape) < law.keep) * law.scale
    return law.mean + law.std * _truncated(generator, shape)


def _haar(generator, count, m, n):
    q, r = np.linalg.qr(generator.standard_normal((count, max(m, n), min(m, n))))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return q if m >= n else q.transpose(0, 2, 1)


def _sparse(generator, rows, columns, zeros):
    w = generator.normal(0, STD, (rows, columns))
    for column in w.T:
        column[generator.permutation(rows)[:zeros]] = 0
    return w


def _known(law):
    if isinstance(law, iso.Bernoulli):
        return ("mean", "independence")
    return ("mean", "std", "distribution", "independence")


# --- calibration --------------------------------------------------------------------------------


def _rejections(replications, attempt):
    rejected = 0
    for _ in range(replications):
        try:
            attempt()
        except AssertionError:
            rejected += 1
    return rejected


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_false_alarms_keep_their_rate(law):
    """1,000 right samples at rate 1 %: 39 or more rejections have probability below 1e-11."""
    assert binom.sf(38, 1000, 0.01) < 1e-11
    generator = np.random.default_rng(1)
    detects = {name: (EFFECTS[name][0], 0.4, 1e-2) for name in _known(law)}
    count = iso.required_samples(law, detects, 1e-2, dtype="float64")

    def attempt():
        iso.assert_law(_draw(law, generator, count), law, false_alarm=1e-2, detects=detects)

    assert _rejections(1000, attempt) <= 38


@pytest.mark.parametrize(("m", "n"), [(3, 3), (2, 5), (5, 2), (1, 1)])
def test_false_alarms_of_orthogonal_matrices_keep_their_rate(m, n):
    """400 right samples at rate 2 %: more than 33 rejections have probability below 1e-10."""
    assert binom.sf(33, 400, 0.02) < 1e-10
    generator = np.random.default_rng(2)
    names = ("distribution", "independence", "determinant")[: 3 if m == n else 2]
    detects = dict.fromkeys(names, ("absolute", 0.4, 1e-2))
    count = iso.required_samples(iso.Orthogonal(2.0), detects, 2e-2, shape=(m, n))

    def attempt():
        w = 2 * _haar(generator, count, m, n)
        iso.assert_law(w, iso.Orthogonal(2.0), false_alarm=2e-2, detects=detects)

    assert _rejections(400, attempt) <= 33


# --- power: what is listed is caught at the required size ---------------------------------------


def _altered(law, name, generator, count):
    """Return samples that differ from the law by exactly the effect of EFFECTS."""
    _, size = EFFECTS[name]
    x = _draw(law, generator, count)
    center, variance, _ = law.moments
    if name == "mean":
        return x + size * math.sqrt(variance)
    if name in ("std", "variance"):
        return center + (x - center) * (1 - size if name == "std" else math.sqrt(1 - size))
    if name == "support":
        x[generator.random(count) < size] = np.nan
        return x
    if name == "distribution":  # the distribution function is `size` too high at the median
        return np.where((generator.random(count) < 2 * size) & (x > center), 2 * center - x, x)
    # of each pair's second value, move some to the side of the first
    moved = generator.random(count // 2) < 2 * size
    first, second = x[0 : 2 * (count // 2) : 2], x[1::2][: count // 2]
    same = (first > center) == (second > center)
    x[1::2][: count // 2] = np.where(moved & ~same, 2 * center - second, second)
    return x


@pytest.mark.parametrize("law", LAWS[:3], ids=repr)
@pytest.mark.parametrize("name", EFFECTS)
def test_each_effect_is_caught_at_the_required_size(law, name):
    detects = {name: EFFECTS[name]}
    count = iso.required_samples(law, detects, dtype="float64")
    generator = np.random.default_rng(3)
    verdicts = iso.assert_law(_draw(law, generator, count), law, detects=detects)
    assert sum(v.false_alarm for v in verdicts) <= FALSE_ALARM
    for _ in range(3):  # each missed with probability at most 1e-6
        with pytest.raises(AssertionError):
            iso.assert_law(_altered(law, name, generator, count), law, detects=detects)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.8])
def test_a_mask_with_another_probability_is_caught(keep):
    law, detects = iso.Bernoulli(keep, 1 / keep), {"mean": ("absolute", 0.02 * 1 / keep)}
    generator = np.random.default_rng(4)
    count = iso.required_samples(law, detects)
    iso.assert_law(_draw(law, generator, count), law, detects=detects)
    for other in {keep + 0.02, keep - 0.02} if keep > 0.02 else {keep + 0.02}:
        wrong = (generator.random(count) < other) / keep
        with pytest.raises(AssertionError, match="that is kept"):
            iso.assert_law(wrong, law, detects=detects)
    unscaled = _draw(iso.Bernoulli(keep), generator, count)
    with pytest.raises(AssertionError, match="outside the support"):
        iso.assert_law(unscaled, law, detects=detects)


def test_two_stacked_draws_that_share_their_bits_are_dependent():
    law, detects = iso.Normal(), {"independence": ("absolute", 0.05)}
    a, b = np.random.default_rng(5).standard_normal((2, 50_000))
    iso.assert_law(np.stack([a, b]), law, detects=detects)
    with pytest.raises(AssertionError, match="half a sample apart"):
        iso.assert_law(np.stack([a, np.abs(b) * np.sign(a)]), law, detects=detects)


@pytest.mark.parametrize("keep", [0.2, 0.9])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_backend_draws_masks(keep, dtype):
    nx, law = iso.load("numpy"), iso.Bernoulli(keep, 1 / keep)
    detects = {"mean": ("sd", 0.03), "independence": ("absolute", 0.02)}
    mask = law.draw(nx, nx.stream(20), (500, 500), dtype=dtype)
    iso.assert_law(nx.to_numpy(mask), law, detects=detects)


def test_independence_within_a_draw_between_draws_and_between_seeds():
    nx, law, detects = iso.load("numpy"), iso.Normal(), {"independence": ("absolute", 0.05)}

    def draw(stream):
        return nx.to_numpy(law.draw(nx, stream, (200, 200)))

    stream = nx.stream(21)
    first, second, other = draw(stream), draw(stream), draw(nx.stream(22))
    for right in (first, np.stack([first, second]), np.stack([first, other])):
        iso.assert_law(right, law, detects=detects)
    with pytest.raises(AssertionError, match="neighbours"):
        iso.assert_law(np.repeat(first, 2, axis=1), law, detects=detects)
    with pytest.raises(AssertionError, match="half a sample apart"):
        iso.assert_law(np.stack([first, draw(nx.stream(21))]), law, detects=detects)


# --- mutants of the samples ---------------------------------------------------------------------

SHAPE = (400, 800)
SYMMETRIC = iso.Uniform(-STD * math.sqrt(3), STD * math.sqrt(3))
CORRECTED = iso.TruncatedNormal.of_std(STD)
HARD = {"mean": ("sd", 0.03), "distribution": ("absolute", 0.02), **{"std": ("relative", 0.03)}}


def _leaky(g):
    x = CORRECTED.std * _truncated(g, SHAPE)
    x[7, 7] = 2.01 * CORRECTED.std
    return x


MUTANTS = {
    "gain dropped": (
        iso.Normal(0, STD),
        lambda g: g.normal(0, STD / 2**0.5, SHAPE),
        "gain of sqrt",
    ),
    "fans swapped": (iso.Normal(0, STD), lambda g: g.normal(0, STD * 2**0.5, SHAPE), "swapped"),
    "variance for std": (
        iso.Normal(0, STD),
        lambda g: g.normal(0, STD**2, SHAPE),
        "variance given for the standard",
    ),
    "std for bound": (
        SYMMETRIC,
        lambda g: g.uniform(-STD, STD, SHAPE),
        "standard deviation given for the bound",
    ),
    "bound for std": (
        iso.Normal(0, STD),
        lambda g: g.normal(0, STD * 3**0.5, SHAPE),
        "bound of a uniform law given",
    ),
    "truncation uncorrected": (
        CORRECTED,
        lambda g: STD * _truncated(g, SHAPE),
        "loss of variance is not corrected",
    ),
    "clamped": (
        CORRECTED,
        lambda g: np.clip(g.normal(0, CORRECTED.std, SHAPE), *CORRECTED.support),
        "clamped, not redrawn",
    ),
    "not truncated": (CORRECTED, lambda g: g.normal(0, STD, SHAPE), "outside the support"),
    "tail leak": (CORRECTED, _leaky, "outside the support .*: observed 1"),
    "one-sided": (SYMMETRIC, lambda g: g.uniform(0, SYMMETRIC.high, SHAPE), "upper half"),
    "mean off": (iso.Normal(0, STD), lambda g: g.normal(0.03 * STD, STD, SHAPE), "zed mean"),
    "std off": (iso.Normal(0, STD), lambda g: g.normal(0, 0.97 * STD, SHAPE), "second moment"),
    "uniform for normal": (
        iso.Normal(0, STD),
        lambda g: g.uniform(*SYMMETRIC.support, SHAPE),
        "Kolmogorov",
    ),
    "nan": (iso.Normal(0, STD), lambda g: np.full(SHAPE, np.nan), "observed nan"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught_and_explained(name):
    law, draw, message = MUTANTS[name]
    generator = np.random.default_rng(6)
    iso.assert_law(_draw(law, generator, SHAPE).astype(np.float32), law, detects=HARD)
    with pytest.raises(AssertionError, match=message):
        iso.assert_law(draw(generator).astype(np.float32), law, detects=HARD)


def test_qr_without_sign_fix_is_caught():
    generator = np.random.default_rng(7)
    for m, n in ((4, 4), (6, 3)):
        iso.assert_law(_haar(generator, 2000, m, n), iso.Orthogonal())
        q, _ = np.linalg.qr(generator.standard_normal((2000, m, n)))
        with pytest.raises(AssertionError, match="Kolmogorov"):
            iso.assert_law(q, iso.Orthogonal())


def test_rotations_alone_are_not_haars_orthogonal_matrices():
    q = _haar(np.random.default_rng(8), 2000, 4, 4)
    detects = {"determinant": ("absolute", 0.25)}
    iso.assert_law(q, iso.Orthogonal(), detects=detects)
    q[:, 0] *= np.linalg.det(q)[:, None]
    with pytest.raises(AssertionError, match="determinants: observed 1"):
        iso.assert_law(q, iso.Orthogonal(), detects=detects)


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
@pytest.mark.parametrize("kernel", [(3,), (3, 3), (4, 5)])
def test_delta_orthogonal_kernels(layout, kernel):
    nx, law = iso.load("numpy"), DeltaOrthogonal(2.0, layout)
    shape = (4, 3, *kernel) if layout == "out_in" else (*kernel, 3, 4)
    streams = nx.stream(17).split(iso.required_samples(law, shape=shape))
    kernels = np.stack([nx.to_numpy(law.draw(nx, s, shape)) for s in streams])
    detects = {"distribution": ("absolute", 0.25)}
    assert kernels.shape[1:] == shape
    assert np.count_nonzero(kernels[law.centre(shape)]) == 12 * len(kernels)
    found = iso.assert_law(kernels, law, detects=detects)
    assert 0 < sum(verdict.false_alarm for verdict in found) <= FALSE_ALARM
    beside = tuple(np.argwhere((kernels == 0).all(axis=0))[0])
    kernels[(7, *beside)] = 1e-30
    with pytest.raises(AssertionError, match="beside the centre tap: observed 1"):
        iso.assert_law(kernels, law, detects=detects)
    kernels[(7, *beside)] = 0
    with pytest.raises(AssertionError, match="largest entry"):
        iso.assert_law(1.01 * kernels, law, detects=detects)
    with pytest.raises(AssertionError, match="largest entry"):
        iso.assert_law(np.roll(kernels, 1, axis=3 if layout == "out_in" else 1), law)


def test_delta_orthogonal_kernels_keep_the_norm_of_a_signal():
    nx, shape = iso.load("numpy"), (6, 4, 3, 3)
    kernel = DeltaOrthogonal().draw(nx, nx.stream(18), shape, dtype="float64")
    x = np.random.default_rng(19).standard_normal((1, 4, 8, 8))
    y = nx.to_numpy(nx.ops.conv(nx.asarray(x), kernel, padding=1))
    assert np.linalg.norm(y) == pytest.approx(np.linalg.norm(x), rel=1e-13)


def test_a_kernel_with_more_inputs_than_outputs_is_no_isometry():
    for shape, layout in (((3, 4, 3), "out_in"), ((3, 4, 3), "in_out"), ((4, 3), "out_in")):
        with pytest.raises(InvalidArgument, match="no more inputs than outputs"):
            DeltaOrthogonal().resolve(shape, layout)
    assert DeltaOrthogonal().resolve((3, 3, 4), "in_out").layout == "in_out"


def test_a_gain_left_out_is_not_orthogonal():
    q = _haar(np.random.default_rng(9), 2000, 3, 5)
    with pytest.raises(AssertionError, match="largest entry"):
        iso.assert_law(q, iso.Orthogonal(1.414))


def test_sparse_weights_have_their_zeros():
    law = iso.Sparse(0.1, iso.Normal(0, STD))
    generator = np.random.default_rng(10)
    right = _sparse(generator, 1000, 300, 100)
    iso.assert_law(right, law)
    for zeros, message in ((99, "fewer than 100 zeros: observed 300"), (101, "zeros beyond 100")):
        with pytest.raises(AssertionError, match=message):
            iso.assert_law(_sparse(generator, 1000, 300, zeros), law)
    with pytest.raises(AssertionError, match="second moment"):
        iso.assert_law(0.97 * right, law)


def test_sparse_zeros_are_at_random_rows():
    law, generator = iso.Sparse(0.1, iso.Normal(0, STD)), np.random.default_rng(14)
    right = _sparse(generator, 100, 3000, 10)
    found = iso.assert_law(right, law)
    assert sum(verdict.false_alarm > 0 for verdict in found) == 4
    assert sum(verdict.false_alarm for verdict in found) <= FALSE_ALARM
    same_rows = _sparse(generator, 100, 3000, 0)
    same_rows[generator.permutation(100)[:10]] = 0
    first_rows = _sparse(generator, 100, 3000, 0)
    for column, start in zip(first_rows.T, generator.integers(0, 40, 3000), strict=True):
        column[start : start + 10] = 0
    for wrong in (same_rows, first_rows):
        with pytest.raises(AssertionError, match="fraction of zeros in row"):
            iso.assert_law(wrong, law)


def test_neighbouring_columns_have_their_own_zeros():
    law, generator = iso.Sparse(0.1, iso.Normal(0, STD)), np.random.default_rng(15)
    twins = _sparse(generator, 100, 3000, 0)
    twins[np.repeat(_sparse(generator, 100, 1500, 10) == 0, 2, axis=1)] = 0
    with pytest.raises(AssertionError, match="row of their neighbour's: observed 1"):
        iso.assert_law(twins, law)


def test_rounding_to_zero_is_no_finding_in_half_precision():
    """A quarter of these values are too small for a float16: zeros that no column counts."""
    law, generator = iso.Sparse(0.1, iso.Normal(0, 1e-7)), np.random.default_rng(16)
    sample = (_sparse(generator, 100, 3000, 10) / STD * 1e-7).astype(np.float16)
    assert np.mean(sample == 0) > 0.3
    iso.assert_law(sample, law, detects={"support": ("absolute", 1e-3)})


def test_constants_are_exact():
    iso.assert_law(np.full((3, 4), 0.5), iso.Constant(0.5))
    with pytest.raises(AssertionError, match="observed 1,"):
        iso.assert_law([0.5, 0.5, 0.5000001], iso.Constant(0.5))


# --- half precision -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("law", LAWS[:3], ids=repr)
def test_rounded_values_of_the_law_pass(law, dtype):
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    sample = _draw(law, np.random.default_rng(11), 800_000).astype(kind)
    detects = {"std": ("relative", 0.05), "distribution": ("absolute", 0.015)}
    iso.assert_law(sample, law, detects=detects)
    iso.assert_law(sample.astype(np.float32), law, detects=detects, dtype=dtype)
    with pytest.raises(AssertionError, match="second moment"):
        iso.assert_law((0.9 * sample.astype(np.float32)).astype(kind), law, detects=detects)


def test_a_normal_of_too_few_values_is_caught():
    law, detects = iso.Normal(0, STD), {"distinct": ("values", 256)}
    generator = np.random.default_rng(23)
    count = iso.required_samples(law, detects, dtype="bfloat16")
    right = generator.normal(0, STD, count).astype(np.float32).astype(ml_dtypes.bfloat16)
    iso.assert_law(right, law, detects=detects)
    values = law.std * ndtri((np.arange(256) + 0.5) / 256).astype(ml_dtypes.bfloat16)
    with pytest.raises(AssertionError, match="different values of Normal"):
        iso.assert_law(generator.choice(values, count).astype("bfloat16"), law, detects=detects)
    with pytest.raises(InvalidArgument, match="unknown statistic"):
        iso.assert_law(right.astype(np.float32), law, detects=detects)


def test_values_off_the_grid_of_the_dtype_said_are_refused():
    with pytest.raises(InvalidArgument, match="representable"):
        iso.assert_law(np.full(9, 2.0**16, np.float32), iso.Constant(2.0**16), dtype="float16")
    with pytest.raises(InvalidArgument, match="representable"):
        iso.assert_law(np.full(9, 0.1, np.float32), iso.Constant(0.1), dtype="bfloat16")


# --- refusals and messages ----------------------------------------------------------------------


def test_too_few_samples_are_refused_with_the_number_needed():
    law, detects = iso.Normal(0, STD), {"std": ("relative", 0.02)}
    needed = iso.required_samples(law, detects, dtype="float64")
    sample = np.random.default_rng(12).normal(0, STD, needed)
    with pytest.raises(InvalidArgument, match=rf"at least {needed} are needed"):
        iso.assert_law(sample[:-1], law, detects=detects)
    assert "detects a change of 2.00%" in str(iso.assert_law(sample, law, detects=detects)[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detects": {"sdt": ("relative", 0.1)}}, "did you mean 'std'"),
        ({"detects": {"determinant": ("absolute", 0.1)}}, "unknown statistic"),
        ({"detects": {"std": ("sd", 0.1)}}, "unknown unit of std"),
        ({"detects": {"std": 0.02}}, r"must be \(unit, size\)"),
        ({"detects": {"mean": ("sd", 0.0)}}, "greater than 0"),
        ({"detects": {"mean": ("sd", 0.1, 2.0)}}, "miss rate"),
        ({"detects": {"distribution": ("absolute", 1e-8)}, "dtype": "float32"}, "within the grid"),
        ({"false_alarm": 0.0}, "false_alarm"),
        ({"law": "normal"}, "exact"),
        ({"law": iso.VarianceScaling()}, "resolve"),
        ({"law": iso.Normal(0, 0)}, "use Constant"),
        ({"law": iso.Orthogonal()}, r"\(count, m, n\)"),
        ({"samples": ["a"]}, "real numbers"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    given = {"samples": np.zeros(10, np.float32), "law": iso.Normal(), **arguments}
    with pytest.raises(InvalidArgument, match=message):
        iso.assert_law(given.pop("samples"), given.pop("law"), **given)


def test_a_failure_states_all_that_its_reader_needs():
    sample = np.random.default_rng(13).normal(0, TRUNCATED_STD * STD, 200_000)
    with pytest.raises(AssertionError) as caught:
        iso.assert_law(sample, iso.Normal(0, STD))
    text = str(caught.value)
    smallest = moment_resolution(
        iso.Normal(0, STD), 2, 200_000, dtype="float64", false_alarm=1e-12, miss=MISS
    )
    assert 0.015 < smallest < 0.02
    for part in (
        "second moment of Normal(mean=0, std=0.05): observed 0.77",
        "allowed 0.97",
        "n = 200000",
        "false alarm at most 1e-12",
        f"miss rate {MISS:g}",
        f"smallest effect it detects is a change of {smallest:.2%}",
        "hint: the standard deviation is 0.88",
    ):
        assert part in text
    # a number that no listed mistake gives is not explained by one
    with pytest.raises(AssertionError) as caught:
        iso.assert_law(0.7 * sample, iso.Normal(0, STD))
    assert "as with" not in str(caught.value)
