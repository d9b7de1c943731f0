"""`identify`: the true law is in the set, nothing farther is, and an unknown law reads unknown."""

from __future__ import annotations

import json
import math
import sys
from contextlib import nullcontext
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binom

import isometry as iso
from isometry.cli import main
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import TRUNCATED_STD
from isometry.common.statistics import known
from isometry.common.statistics.apart import told_apart
from isometry.common.statistics.extremes import reach
from isometry.common.statistics.identify import FALSE_ALARM, TESTS, required_weights
from isometry.common.statistics.rows import independent_rows, largest_entry

sys.path.insert(0, str(Path(__file__).parent))
import blind

FAN_IN, FAN_OUT = 512, 128
SHAPE = (FAN_IN, FAN_OUT)
CLASSES = [(fans, one) for fans in blind.FANS for one in blind.known(fans)]
HE = math.sqrt(2 / FAN_IN)


def identified(weights, fan_in=FAN_IN, fan_out=FAN_OUT, **options):
    return iso.identify(weights, fan_in=fan_in, fan_out=fan_out, **options)


def normal(std, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(0, std, shape)


# --- the set ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fans", "of"), CLASSES, ids=[f"{fans[0]}x{fans[1]} {one.law}" for fans, one in CLASSES]
)
def test_the_set_is_the_computed_equivalence_class(fans, of):
    assert blind.cases(of, fans, 2, seed=1) == [(True, True)] * 2


def test_the_equivalence_classes_are_those_of_the_papers():
    square = {name: one.names for one in blind.known((256, 256)) for name in one.names}
    other = {name: one.names for one in blind.known((512, 128)) for name in one.names}
    for family in known.FAMILIES:
        assert f"xavier_{family}" in square[f"lecun_{family}"]
        assert f"xavier_{family}" not in other[f"lecun_{family}"]
    torch = "torch.nn: Linear, Conv, weights and biases"
    assert any("std taken for its bound" in name for name in other[torch])
    gaussian = "mxnet: Xavier(rnd_type='gaussian'), magnitude 3"
    assert any(name.startswith("xavier_uniform, its bound taken") for name in other[gaussian])


@pytest.mark.parametrize("count", [1024, 65536])
@pytest.mark.parametrize("family", tuple(known.FAMILIES))
def test_what_is_stated_to_be_detected_is_told_apart(count, family):
    found = iso.identify(normal(0.3, count))
    law = known.of_family(family, 1.0)
    rate = found.false_alarm / TESTS
    for factor in (1 + found.detects, 1 / (1 + found.detects), 1 - found.detects):
        for other in known.FAMILIES:
            truth = known.of_family(other, factor * 1.0001 if factor > 1 else factor * 0.9999)
            assert told_apart(law, truth, count, rate=rate), (factor, other)
    assert not told_apart(
        law, known.of_family(family, 1 + found.detects / 10_000), count, rate=rate
    )


def test_too_small_a_difference_keeps_both_laws():
    found = identified(normal(1 / math.sqrt(500), (500, 512)), 500, 512)
    assert {"lecun_normal", "xavier_normal"} <= set(found.names)
    assert len(found.candidates) == 2


@pytest.mark.parametrize("fans", [(FAN_IN, None), (None, FAN_OUT), (None, None)])
def test_laws_that_need_a_fan_that_is_not_given_are_left_out_and_named(fans):
    found = iso.identify(normal(HE), fan_in=fans[0], fan_out=fans[1])
    assert ("he_normal" in found.names) == (fans[0] is not None)
    assert "xavier_normal" in found.left_out
    assert not set(found.left_out) & {"zeros", "torch.nn.init.uniform_()"}


@pytest.mark.parametrize(
    ("value", "name"), [(0.0, "zeros"), (1.0, "ones"), (0.25, "constant 0.25")]
)
@pytest.mark.parametrize("count", [2, 65536])
def test_equal_values_are_a_constant(value, name, count):
    found = iso.identify(np.full(count, value, np.float32))
    assert found.names[0] == name
    assert len(found.candidates) == 1


@pytest.mark.parametrize("shape", [(8, 8), (64, 3, 3, 64), (3, 3, 64, 64), (100, 7)])
def test_an_orthogonal_weight_is_orthogonal_in_either_layout(shape):
    matrix = (shape[0], math.prod(shape[1:])) if shape[0] != 3 else (math.prod(shape[:-1]), 64)
    w = blind.draw(iso.Orthogonal(), np.random.default_rng(3), matrix)
    assert "orthogonal" in iso.identify(w.reshape(shape).astype(np.float32)).names


@pytest.mark.parametrize("matrix", [np.eye(256)[::-1], np.kron(np.eye(64), [[0, 1], [-1, 0]])])
def test_a_permutation_is_not_haar_distributed(matrix):
    assert not identified(matrix).known


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
@pytest.mark.parametrize(
    ("name", "kernel"), [("identity", ()), ("dirac", (3, 3)), ("bilinear", (4, 4))]
)
def test_a_weight_without_chance_is_named(name, kernel, layout):
    shape = (12, 8, *kernel) if layout == "out_in" else (*kernel, 8, 12)
    w = iso.INITIALIZERS[name].resolve(shape, layout).values
    assert iso.identify(w.astype(np.float32)).names == (name,)
    w = w.copy()
    w[np.unravel_index(np.argmax(w), shape)] *= 1.001
    with pytest.raises(InvalidArgument, match="too few") if w.size < 300 else nullcontext():
        assert not iso.identify(w).known


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
def test_a_delta_orthogonal_kernel_is_named(layout):
    q = blind.draw(iso.Orthogonal(), np.random.default_rng(4), (64, 32))
    w = np.zeros((64, 32, 3, 3), np.float32)
    w[:, :, 1, 1] = q
    w = w if layout == "out_in" else w.transpose(2, 3, 1, 0)
    assert iso.identify(w).names == ("delta_orthogonal",)
    assert not iso.identify(1.01 * w).known


# --- weights made of parts ----------------------------------------------------------------------


@pytest.mark.parametrize("name", blind.LAWS[:2])
@pytest.mark.parametrize("part", blind.PARTS)
def test_what_is_made_of_a_smaller_weight_is_of_its_law(part, name):
    assert blind.cases_of_parts(part, name, 2, seed=1) == [(True, True)] * 2


def test_a_repeated_kernel_is_one_of_the_largest_scale_in_either_layout():
    generator = np.random.default_rng(13)
    kernel = generator.normal(0, math.sqrt(1 / 48), (64, 16, 3))
    for w in (np.repeat(kernel, 4, axis=0), np.repeat(kernel, 4, axis=0).transpose(2, 1, 0)):
        found = iso.identify(w.astype(np.float32), fan_in=48, fan_out=768)
        assert "ICNR, scale 4, CRD, of lecun_normal" in found.names
        layout = "out_in" if len(w) == 256 else "in_out"
        assert {(one.law.scale, one.law.layout) for one in found.candidates} == {(4, layout)}
    q = blind.draw(iso.Orthogonal(), generator, (64, 48)).reshape(64, 16, 3)
    assert iso.identify(np.concatenate([q, q])).names == ("ICNR, scale 2, DCR, of orthogonal",)


def test_a_repeated_or_sparse_weight_of_no_known_law_reads_unknown():
    kernel = np.random.default_rng(14).normal(0, 3.0, (64, 16, 3))
    found = iso.identify(np.repeat(kernel, 2, axis=0))
    assert str(found).startswith("unknown; closest: ICNR, scale 2, CRD, of embedding")
    w, fans, words, _ = blind.of_parts("sparse out_in", "he_normal", np.random.default_rng(15))
    found = iso.identify(1.05 * w, fan_in=fans[0], fan_out=fans[1])
    assert str(found).startswith(f"unknown; closest: {words}, of he_normal; standard deviation 1.0")
    with pytest.raises(InvalidArgument, match=r"128 weights, of which .*ICNR.* are too few"):
        iso.identify(np.repeat(kernel[:4, :, :2], 4, axis=0))


def test_zeros_in_the_same_rows_or_by_chance_are_not_sparse():
    w = normal(0.01)
    w[::4] = 0
    found = identified(w)
    assert not found.known
    assert found.closest.mistake == "its zeros placed otherwise"
    w = normal(0.01, seed=1)
    w[np.random.default_rng(16).random(SHAPE) < 0.3] = 0
    assert not identified(w).known
    w = normal(0.01, seed=2).reshape(-1, 4)
    np.put_along_axis(w, np.argsort(np.abs(w), axis=1)[:, :2], 0, axis=1)  # two of each four
    assert not identified(w.reshape(SHAPE)).known


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("count", [3, 4])
def test_gates_that_are_orthogonal_each_by_itself(count, dtype):
    half = getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype
    generator = np.random.default_rng(17)
    for side in ((64, 64), (64, 32), (32, 64)):
        w = blind.gates(count, side, generator).astype(half)
        for stored, layout in ((w, "out_in"), (w.T, "in_out")):
            (one,) = iso.identify(stored).candidates
            assert one.names == (f"orthogonal, in each of {count} gates",)
            assert (one.law.gates, one.law.layout) == (count, layout)


def test_gates_of_one_block_or_one_that_is_not_orthogonal_read_unknown():
    generator = np.random.default_rng(18)
    q = blind.gates(1, (64, 64), generator)
    assert not iso.identify(np.concatenate([q] * 4)).known
    assert not iso.identify(np.concatenate([blind.gates(3, (64, 64), generator), 1.1 * q])).known
    assert not iso.identify(
        np.concatenate([np.eye(64)[::-1], blind.gates(3, (64, 64), generator)])
    ).known


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("order", ["ifgo", "igfo", "gofi"])
def test_the_bias_of_chrono_initialization(order, dtype):
    half = getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype
    bias = blind.chrono(784.0, 512, np.random.default_rng(19), order)
    (one,) = iso.identify(bias.astype(half)).candidates
    assert one.law.order == order
    low, high = map(float, one.names[0].split(" from ")[1].split(" to "))
    rounding = 784 * 8 * 2.0**-8 if dtype == "bfloat16" else 784 * 8 * 2.0**-11
    assert low - rounding <= 784 <= high + rounding
    assert high / low < 1.1


def test_other_biases_are_not_of_chrono_initialization():
    bias = blind.chrono(100.0, 512, np.random.default_rng(20))
    forget = bias[512:1024]
    others = [
        np.concatenate([-forget, forget, forget, 0 * forget]),
        np.concatenate([forget, forget, 0 * forget, 0 * forget]),
        np.concatenate([-(forget**2), forget**2, 0 * forget, 0 * forget]),
        np.concatenate([-forget, forget[::-1], 0 * forget, 0 * forget]),
    ]
    assert [iso.identify(b).known for b in others] == [False] * 4
    with pytest.raises(InvalidArgument, match="needs 121 units to be told; received 100"):
        iso.identify(blind.chrono(100.0, 100, np.random.default_rng(21)).astype(np.float32))


@pytest.mark.parametrize(
    "weights",
    [
        blind.of_parts("sparse out_in", "he_normal", np.random.default_rng(22))[0],
        blind.of_parts("ICNR CRD", "he_normal", np.random.default_rng(23))[0],
        blind.gates(4, (64, 64), np.random.default_rng(24)),
        blind.chrono(100.0, 512, np.random.default_rng(25)),
    ],
)
def test_the_false_alarm_of_weights_made_of_parts_is_that_of_all(weights):
    fan_in = 144 if weights.shape == blind.MATRIX else 512
    (one, *_) = iso.identify(weights.astype(np.float32), fan_in=fan_in).candidates
    assert 0 < sum(test.false_alarm for test in one.verdicts) <= FALSE_ALARM * (1 + 1e-12)


# --- unknown laws -------------------------------------------------------------------------------

UNIFORM = np.random.default_rng(5).uniform(-1, 1, SHAPE)


@pytest.mark.parametrize(
    ("weights", "name", "ratio", "mistake"),
    [
        (normal(HE * math.sqrt(2) * 1.001), "he_normal", math.sqrt(2), "gain of sqrt(2) too many"),
        (UNIFORM * 0.0702, "mxnet: Uniform(), every Gluon layer", 1.003, ""),
        (normal(HE / TRUNCATED_STD), "he_normal", 1 / TRUNCATED_STD, "corrected for a cut"),
        (normal(3.0), "embedding", 3.0, ""),
    ],
)
def test_an_unknown_law_reads_unknown_with_the_nearest(weights, name, ratio, mistake):
    found = identified(weights, 512, 4096)
    assert not found.known
    assert (found.candidates, found.names) == ((), ())
    assert found.closest.name == name
    assert abs(found.closest.ratio / ratio - 1) < found.detects
    assert mistake in found.closest.mistake
    assert bool(mistake) == bool(found.closest.mistake)
    assert str(found).startswith("unknown; closest: ")


def test_a_law_of_no_family_says_so_and_a_shift_is_named():
    laplace = np.random.default_rng(6).laplace(0, HE / math.sqrt(2), SHAPE)
    assert "no family fits" in str(identified(laplace))
    shifted = identified(normal(HE) + HE / 2)
    assert not shifted.known
    assert abs(shifted.closest.shift - 0.5) < 0.03
    assert "no family fits" not in str(shifted)


def test_a_small_shift_is_told_by_the_mean():
    # 8.2 standard errors, of which the mean allows 5.2; Kolmogorov's distance is 0.0128, of
    # which 0.0111 are allowed and not every sample exceeds
    for seed in range(20):
        assert not identified(normal(HE, seed=seed) + 0.032 * HE).known


def test_dependent_rows_are_not_a_law_of_independent_entries():
    q = blind.draw(iso.Orthogonal(), np.random.default_rng(7), SHAPE)
    signs = np.sign(normal(1.0, FAN_OUT))
    assert identified(q * signs).names == ("orthogonal",)  # not lecun_normal beside it
    assert identified(1.1 * q).names == ()


# --- half precision -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("held", [np.float32, np.float64, None])
@pytest.mark.parametrize("name", ["he_normal", "he_uniform", "xavier_truncated", "orthogonal"])
def test_half_precision_is_judged_on_its_own_grid(dtype, held, name):
    (of,) = (one for one in blind.known(blind.FANS[0]) if name in one.names)
    half = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    w = blind.draw(of.law, np.random.default_rng(8), SHAPE).astype(np.float32).astype(half)
    found = identified(w if held is None else w.astype(held))
    assert found.dtype == dtype
    assert name in found.names
    assert len(found.candidates) == 1


def test_float32_values_held_as_float64_are_float32():
    w = np.random.default_rng(9).uniform(-0.07, 0.07, SHAPE).astype(np.float32)
    w[0, 0] = np.float32(0.07)  # which is more than 0.07
    found = identified(w.astype(np.float64))
    assert found.dtype == "float32"
    assert "mxnet: Uniform(), every Gluon layer" in found.names


# --- rates of the tests of its own --------------------------------------------------------------


def _rejected(verdicts, rate):
    """Assert that no more are rejected than an exact rate allows, but for one run in 10**12."""
    hits = sum(not verdict.passed for verdict in verdicts)
    assert hits <= binom.isf(1e-12, len(verdicts), rate)
    return hits


@pytest.mark.parametrize("family", tuple(known.FAMILIES))
def test_reach_and_rows_reject_right_samples_as_often_as_stated(family):
    law, generator, rate = known.of_family(family, 0.5), np.random.default_rng(10), 0.1
    samples = [blind.draw(law, generator, (20, 40)).astype(np.float32) for _ in range(2000)]
    far = [reach(w, law, dtype="float32", false_alarm=rate) for w in samples]
    hits = _rejected(far, rate)
    assert hits >= binom.ppf(1e-12, len(samples), rate * 0.95)  # exact: no less either
    _rejected([independent_rows(w, law, dtype="float32", false_alarm=rate) for w in samples], rate)


def test_the_largest_entry_rejects_haar_matrices_no_more_often_than_stated():
    generator = np.random.default_rng(11)
    found = [
        largest_entry(
            blind.draw(iso.Orthogonal(), generator, (6, 10)),
            gain=1.0,
            dtype="float64",
            false_alarm=0.1,
        )
        for _ in range(2000)
    ]
    _rejected(found, 0.1)


def test_reach_catches_a_range_that_is_not_filled():
    law = iso.Uniform(-1, 1)
    w = np.random.default_rng(12).uniform(-1, 1, 65536)
    assert reach(w, law, dtype="float64").passed
    assert not reach(w * 0.999, law, dtype="float64").passed
    assert not reach(np.abs(w), law, dtype="float64").passed


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], "at least two values; received an array of shape (0,)"),
        ([0.5], "at least two values"),
        ([1.0, math.nan, math.inf], "finite; received 2 of 3"),
        (np.array(["a", "b"]), "must be real numbers"),
        (np.ones(3, complex), "must be real numbers"),
        ([1e200, 3e200, 1e200], "finite in float64; received values from 1e"),
        (normal(1.0, 100), f"100 weights are too few .* at least {required_weights()} are needed"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    pattern = message if ".*" in message else message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InvalidArgument, match=pattern):
        iso.identify(weights)


@pytest.mark.parametrize(
    "options", [{"fan_in": 0}, {"fan_out": 1.5}, {"false_alarm": 0}, {"false_alarm": 1}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(InvalidArgument):
        iso.identify(normal(1.0, 1000), **options)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_as_many_weights_as_are_said_to_be_needed_are_enough(dtype):
    needed = required_weights(dtype=dtype)
    w = normal(1.0, needed).astype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    assert "torch.nn: Embedding; torch.nn.init.normal_()" in iso.identify(w).names
    with pytest.raises(InvalidArgument, match="too few"):
        iso.identify(w[: needed - 1])


def test_the_false_alarm_is_shared_by_all_tests():
    found = identified(normal(HE))
    (one,) = found.candidates
    assert found.false_alarm == FALSE_ALARM
    assert 0 < sum(test.false_alarm for test in one.verdicts) <= FALSE_ALARM * (1 + 1e-12)


# --- the command --------------------------------------------------------------------------------


def call(*args):
    return CliRunner().invoke(main, ["identify", *map(str, args)])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "w.npy"
    np.save(path, normal(HE).astype(np.float32))
    return path


def test_the_command_prints_the_set_and_both_rates(saved):
    done = call(saved, "--fan-in", FAN_IN, "--fan-out", FAN_OUT)
    assert done.exit_code == 0, done.output
    for words in ("he_normal", "false alarm", "detects", "2.79%", "65536 weights"):
        assert words in done.output


def test_the_command_prints_json(saved):
    done = call(saved, "--fan-in", FAN_IN, "--fan-out", FAN_OUT, "--json")
    found = json.loads(done.output)
    assert found["known"] is True
    assert found["candidates"][0]["names"] == ["he_normal"]
    assert found["closest"] is None
    assert {"false_alarm", "detects", "count", "left_out"} <= set(found)


def test_an_unknown_law_exits_1_and_missing_fans_are_said(saved):
    done = call(saved)
    assert done.exit_code == 1
    assert "unknown" in done.output
    assert "that need --fan-in or --fan-out" in " ".join(done.output.split())


def test_archives_and_bfloat16(tmp_path, saved):
    w = normal(HE)
    both = tmp_path / "both.npz"
    np.savez(both, first=w, second=np.zeros(300))
    fans = ("--fan-in", FAN_IN, "--fan-out", FAN_OUT)
    assert call(both, "--key", "second", *fans).output.count("zeros") == 1
    assert "he_normal" in call(both, "--key", "first", *fans).output
    assert "first, second: choose by --key" in call(both, *fans).output
    assert call(both, "--key", "third", *fans).exit_code == 2
    assert call(saved, "--key", "first", *fans).exit_code == 2
    single = tmp_path / "single.npz"
    np.savez(single, only=w.astype(ml_dtypes.bfloat16))
    done = call(single, *fans)
    assert "he_normal" in done.output
    assert "bfloat16" in done.output


def test_what_is_no_array_is_a_usage_error(tmp_path):
    text = tmp_path / "w.npy"
    text.write_text("1, 2, 3")
    pickled = tmp_path / "p.npy"
    np.save(pickled, np.array([{}, {}], dtype=object), allow_pickle=True)
    for path in (text, pickled, tmp_path / "absent.npy"):
        assert call(path).exit_code == 2
