"""Portable streams: the quantile against mpmath, the recorded bits, the laws, the support.

What every framework's stream must do (determinism, splitting, other seeds) is the conformance
suite's; here stands what only a transform of our own has to prove.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tracemalloc

import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import isometry as iso
from isometry.common import portable, quantile
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import TRUNCATED_STD, Normal, TruncatedNormal, Uniform
from isometry.common.portable import PortableStream

DTYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
}
DRAWS = ("uniform", "normal", "truncated_normal")
FALSE_ALARM = 1e-9  # of each statistical test here, over the choice of seeds
EPS = 2.0**-53  # unit roundoff of float64


def stream(seed: int) -> PortableStream:
    """Return a stream whose framework is NumPy, with ml_dtypes' bfloat16."""
    return PortableStream(
        seed,
        convert=lambda values, dtype: values.astype(DTYPES[dtype]),
        dtypes=tuple(DTYPES),
    )


def exact_quantile(p: mpmath.mpf, start: float) -> mpmath.mpf:
    """Return z with 1 - Phi(z) = p in mpmath's precision, by Newton from a float64 neighbour."""
    z = mpmath.mpf(float(start))
    for _ in range((mpmath.mp.prec // 48).bit_length()):  # each step doubles the right bits
        density = mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)
        z += (mpmath.erfc(z / mpmath.sqrt(2)) / 2 - p) / density
    return z


def worst_error(z: np.ndarray, probabilities: list[mpmath.mpf]) -> float:
    """Return the largest error of z, relative above 1 and absolute below."""
    with mpmath.workdps(45):
        exact = [exact_quantile(p, start) for p, start in zip(probabilities, z, strict=True)]
        errors = [abs(mpmath.mpf(float(a)) - b) for a, b in zip(z, exact, strict=True)]
        return max(float(e / max(1, abs(b))) for e, b in zip(errors, exact, strict=True))


def sample_words() -> np.ndarray:
    """Return words with every number of leading zeros, both signs, and the extremes."""
    rng = np.random.default_rng(0)
    k = [int(rng.integers(0, 2**62)) >> shift for shift in range(62) for _ in range(20)]
    magnitudes = np.array([*k, 0, 2**63 - 1], dtype=np.uint64)
    return np.concatenate([magnitudes, ~magnitudes])


def odd(words: np.ndarray) -> list[int]:
    """Return the words as odd two's complement integers, in Python's exact arithmetic."""
    return [(w | 1) - (2**64 if w >> 63 else 0) for w in words.tolist()]


# --- the quantile -------------------------------------------------------------------------------


def test_quantile_is_within_its_bound_in_every_cell_and_at_every_edge():
    rng = np.random.default_rng(1)
    cells = quantile.BINADES * quantile.CELLS
    within = (1 + (np.arange(cells) % quantile.CELLS + rng.random(cells)) / quantile.CELLS).clip(1)
    inside = np.ldexp(within, np.arange(cells) // quantile.CELLS)
    edges = np.ldexp(
        1 + np.arange(cells) % quantile.CELLS / quantile.CELLS, np.arange(cells) // quantile.CELLS
    )
    x = np.concatenate([inside, edges, np.nextafter(edges[1:], 0), [2.0**63]])
    assert worst_error(quantile.upper_quantile(x), [mpmath.mpf(v) / 2**64 for v in x]) <= 3e-16


def test_coefficients_are_the_taylor_coefficients():
    table = quantile._coefficients()
    assert table.shape == (quantile.DEGREE + 1, quantile.BINADES * quantile.CELLS + 1)
    with mpmath.workdps(60):
        for cell in (0, 31, 32, 700, 1300, 1984, 2015, 2016):
            binade, place = divmod(cell, quantile.CELLS)
            centre = 1 + mpmath.mpf(2 * place + 1) / (2 * quantile.CELLS)
            unit = mpmath.mpf(2) ** (binade - 64)
            start = table[-1, cell]
            exact = mpmath.taylor(
                lambda m, unit=unit, start=start: exact_quantile(m * unit, start), centre, 8
            )
            expected = np.array([float(c) for c in reversed(exact)])
            np.testing.assert_array_max_ulp(table[:, cell], expected, maxulp=1)


def test_normal_words_map_to_the_exact_quantile():
    # beside the quantile's 3e-16, |k| was rounded: EPS p in p, at most 1.26 EPS in z
    words = sample_words()
    z = portable.standard_normal(words)
    k = odd(words)
    assert np.array_equal(np.sign(z), np.sign(np.array(k, dtype=float)))
    assert worst_error(np.abs(z), [mpmath.mpf(abs(v)) / 2**64 for v in k]) <= 3e-16 + 1.26 * EPS


def test_truncated_words_map_to_the_exact_quantile():
    # five roundings in p (the constant, its complement, |k|, product, sum), each at most EPS p
    words = sample_words()
    z = portable.standard_truncated_normal(words)
    k = odd(words)
    assert np.array_equal(np.sign(z), np.sign(np.array(k, dtype=float)))
    with mpmath.workdps(45):
        below = mpmath.erfc(mpmath.sqrt(2)) / 2
        tails = [below + (1 - 2 * below) * mpmath.mpf(abs(v)) / 2**64 for v in k]
    assert worst_error(np.abs(z), tails) <= 3e-16 + 5 * 1.26 * EPS


@pytest.mark.parametrize(
    "transform", [portable.standard_normal, portable.standard_truncated_normal]
)
def test_complementing_a_word_negates_the_value(transform):
    words = np.random.Philox(key=3).random_raw(100_000)
    assert np.array_equal(transform(~words), -transform(words))


def test_largest_normals():
    words = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert portable.standard_normal(words) == pytest.approx([9.0801551, -9.0801551], abs=1e-7)


def test_truncated_quantile_never_exceeds_two():
    # z within its error, 3e-16 |z|, of 2 means p within 3.3e-17 of Phi(-2) = 0.0228, that is
    # ten float64 spacings; these words hold the first 64 or so, with both signs
    words = np.arange(4096, dtype=np.uint64)
    z = portable.standard_truncated_normal(np.concatenate([words, ~words]))
    assert (z.min(), z.max()) == (-2.0, 2.0)


# --- the bits -----------------------------------------------------------------------------------

# sha256, first 16 digits, of 100,000 little-endian values from seed 0
RECORDED = {
    "uniform float32": "0a2b159af5c1bb0e",
    "uniform scaled float32": "6f5abead2d23be96",
    "uniform float64": "34f0c0bb76a10f64",
    "uniform scaled float64": "46c897a5d950f553",
    "normal float32": "7bbc9608ab91486d",
    "normal scaled float32": "acaa9172d23f589f",
    "normal float64": "be47d6cc54b4cee6",
    "normal scaled float64": "3e54900ebb3d92c1",
    "truncated_normal float32": "28f0b237d053a3ff",
    "truncated_normal scaled float32": "b24086e8189cfbff",
    "truncated_normal float64": "74e711c8fb67e0aa",
    "truncated_normal scaled float64": "431c4b0919e6368b",
}


def fingerprints() -> dict[str, str]:
    """Return the hash of each kind of draw from a fresh stream of seed 0."""
    scaled = {"mean": 0.1, "std": 0.3}
    options = {"uniform": {"low": -0.1, "high": 0.7}, "normal": scaled, "truncated_normal": scaled}
    found = {}
    for draw in DRAWS:
        for dtype in ("float32", "float64"):
            for name, law in ((draw, {}), (f"{draw} scaled", options[draw])):
                values = getattr(stream(0), draw)((100_000,), dtype=dtype, **law)
                data = values.astype(values.dtype.newbyteorder("<")).tobytes()
                found[f"{name} {dtype}"] = hashlib.sha256(data).hexdigest()[:16]
    return found


def test_bits_are_those_recorded():
    assert fingerprints() == RECORDED


def test_bits_do_not_depend_on_the_instructions_of_the_processor():
    # NumPy picks its loops by what the processor has; without any of that it runs its baseline
    extensions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    program = (
        "import importlib.util, json; "
        f"spec = importlib.util.spec_from_file_location('portable_tests', {__file__!r}); "
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
        "print(json.dumps(module.fingerprints()))"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(extensions)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=120,
    )
    assert json.loads(found.stdout) == RECORDED


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_continue_one_sequence(draw, dtype):
    sizes = (1, 6, portable.BLOCK - 1, portable.BLOCK + 3, 2 * portable.BLOCK)
    parts = stream(5)
    drawn = [getattr(parts, draw)((size,), dtype=dtype) for size in sizes]
    at_once = getattr(stream(5), draw)((sum(sizes),), dtype=dtype)
    assert np.array_equal(np.concatenate(drawn), at_once)


def test_dtypes_and_laws_drawn_before_do_not_matter_only_how_many():
    expected = stream(6)
    expected.normal((30,), dtype="float64")
    later = expected.normal((5,), dtype="float64")
    for draw in DRAWS:
        for dtype in DTYPES:
            other = stream(6)
            getattr(other, draw)((2, 3, 5), dtype=dtype)
            assert np.array_equal(other.normal((5,), dtype="float64"), later)


@pytest.mark.parametrize("draw", ["normal", "truncated_normal"])
def test_float32_is_the_float64_draw_rounded_and_half_precisions_the_float32_one(draw):
    law = {"mean": -0.7, "std": 1.3}
    double, single, half, brain = (
        getattr(stream(8), draw)((50_000,), dtype=dtype, **law)
        for dtype in ("float64", "float32", "float16", "bfloat16")
    )
    assert np.array_equal(single, double.astype(np.float32))
    assert np.array_equal(half, single.astype(np.float16))
    assert np.array_equal(brain, single.astype(ml_dtypes.bfloat16))


def test_uniform_bits():
    words = np.random.Philox(key=9).random_raw(10_000)
    for bits in (24, 53):
        u = portable.uniform_between(words, 0.0, 1.0, bits)
        exact = [(w >> (64 - bits)) / 2**bits for w in words.tolist()]
        assert u.tolist() == exact


def test_numpy_global_generator_is_not_touched():
    before = np.random.get_state()
    for draw in DRAWS:
        getattr(stream(1), draw)((100,))
    after = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


# --- the laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("draw", "options", "law"),
    [
        ("uniform", {"low": -0.25, "high": 1.5}, Uniform(-0.25, 1.5)),
        ("normal", {"mean": 0.5, "std": 2.0}, Normal(0.5, 2.0)),
        ("truncated_normal", {"mean": 0.5, "std": 2.0}, TruncatedNormal(0.5, 2.0)),
    ],
)
def test_distribution_function(draw, options, law, dtype):
    """Compare with the law by the Dvoretzky-Kiefer-Wolfowitz inequality (Massart 1990).

    P(sup |F_n - F| > e) <= 2 exp(-2 n e**2) for any continuous law, at any n: e = 0.0016 here.
    Rounding to float32 moves the distribution function by at most sup |x| f(x) 2**-24 for each
    value, and the grid of the uniform by 2**-24: both are below 2**-23.
    """
    n = 2**22
    values = np.sort(getattr(stream(2**40 + 1), draw)((n,), dtype=dtype, **options))
    cdf = law.cdf(values)
    steps = np.arange(n + 1) / n
    distance = max(np.max(np.abs(cdf - steps[1:])), np.max(np.abs(cdf - steps[:-1])))
    assert distance <= math.sqrt(math.log(2 / FALSE_ALARM) / (2 * n)) + 2.0**-23


SEED = 1234567


@pytest.mark.parametrize(
    "other",
    [
        stream(SEED + 1),
        stream(SEED + 2**31),
        stream(SEED + 2**32),
        stream(SEED).split(2)[0],
        stream(SEED).split(2)[1],
        stream(SEED).split(1)[0].split(1)[0],
    ],
    ids=["s+1", "s+2**31", "s+2**32", "child 0", "child 1", "grandchild"],
)
def test_other_streams_are_uncorrelated(other):
    """Bound the correlation of U[-1, 1) draws, word by word, by Hoeffding's inequality.

    Products of independent draws lie in [-1, 1] with mean 0: P(|mean| > t) <= 2 exp(-n t**2 / 2).
    """
    n = 2**20
    x, y = (s.uniform((n,), low=-1.0, dtype="float64") for s in (stream(SEED), other))
    assert abs(np.mean(x * y)) <= math.sqrt(2 * math.log(2 / FALSE_ALARM) / n)


def test_no_two_streams_of_a_tree_are_equal():
    root = stream(SEED)
    children = root.split(50)
    streams = [root, *children, *(g for c in children for g in c.split(20)), *root.split(50)]
    streams += [stream(SEED + k) for k in (1, 2**31, 2**32, 2**62)]
    first = {s.uniform((2,), dtype="float64").tobytes() for s in streams}
    assert len(first) == len(streams)


def test_children_keep_backend_and_path():
    child = stream(4).split(3)[2]
    assert isinstance(child, PortableStream)
    assert (child.seed, child.path, child.dtypes) == (4, (2,), tuple(DTYPES))


# --- support ------------------------------------------------------------------------------------

EXTREMES = np.array([0, 1, 2, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1], dtype=np.uint64)
NUMBERS = st.floats(-1e30, 1e30)


@given(a=NUMBERS, b=NUMBERS, bits=st.sampled_from([24, 53]))
@example(a=0.1, b=0.1, bits=53)
@example(a=-1.0, b=2.0**-60, bits=53)
def test_uniform_stays_between_its_bounds(a, b, bits):
    low, high = min(a, b), max(a, b)
    values = portable.uniform_between(EXTREMES, low, high, bits)
    assert np.all((low <= values) & (values <= high))
    single = values.astype(np.float32)
    assert np.all((np.float32(low) <= single) & (single <= np.float32(high)))


def test_default_uniform_excludes_one_in_both_precisions():
    for bits, dtype in ((24, np.float32), (53, np.float64)):
        values = portable.uniform_between(EXTREMES, 0.0, 1.0, bits).astype(dtype)
        assert values[0] == 0
        assert values[-1] == 1 - 2.0**-bits


@given(mean=NUMBERS, std=st.floats(0, 1e30), dtype=st.sampled_from(["float32", "float64"]))
@example(mean=0.0, std=0.0, dtype="float32")
@example(mean=3.0, std=1e-30, dtype="float32")
def test_truncated_normal_stays_in_the_interval_rounded_outward(mean, std, dtype):
    values = stream(11).truncated_normal((2000,), mean=mean, std=std, dtype=dtype)
    scalar = DTYPES[dtype]
    low = np.nextafter(scalar(mean - 2 * std), scalar(-np.inf))
    high = np.nextafter(scalar(mean + 2 * std), scalar(np.inf))
    assert np.all((low <= values) & (values <= high))


@pytest.mark.parametrize("draw", ["normal", "truncated_normal"])
def test_std_zero_gives_the_mean(draw):
    assert np.all(getattr(stream(0), draw)((9,), mean=0.3, std=0.0) == np.float32(0.3))


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "shape", "options", "message"),
    [
        ("normal", (3,), {"dtype": "float23"}, "unknown dtype 'float23': known are bfloat16"),
        ("normal", (3, 0), {}, r"sizes of at least 1; received \(3, 0\)"),
        ("normal", 3, {}, "must be a tuple of integers; received 3"),
        ("normal", (3,), {"std": -1.0}, "std must be at least 0; received -1"),
        ("truncated_normal", (3,), {"mean": math.nan}, "mean must be finite; received nan"),
        ("uniform", (3,), {"low": 2.0}, "low must not exceed high; received low=2, high=1"),
        ("uniform", (3,), {"low": -1e308, "high": 1e308}, "low must be at most"),
        (
            "uniform",
            (3,),
            {"low": -1e308, "high": 1e308, "dtype": "float64"},
            "high - low must be at most",
        ),
    ],
)
def test_wrong_arguments(draw, shape, options, message):
    with pytest.raises(InvalidArgument, match=message):
        getattr(stream(0), draw)(shape, **options)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, True])
def test_wrong_seeds(seed):
    with pytest.raises(InvalidArgument, match="seed must be"):
        stream(seed)


def test_the_standard_deviation_of_a_truncated_normal_is_the_nearest_float():
    with mpmath.workdps(45):
        density = mpmath.exp(-2) / mpmath.sqrt(2 * mpmath.pi)
        exact = mpmath.sqrt(1 - 4 * density / mpmath.erf(mpmath.sqrt(2)))
        assert float(exact) == TRUNCATED_STD


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_exist_once(dtype):
    """A frame of 64 bytes, and the temporaries of a block of 8192 words, beside the result."""
    draws = iso.load("numpy").portable_stream(0)
    draws.normal((10,))
    tracemalloc.start()
    size = draws.normal((2_000_000,), dtype=dtype).nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= size + 16 * 8 * portable.BLOCK
