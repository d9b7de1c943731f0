"""Explicit randomness: all of the seed counts, draws do not repeat, and no global state is met."""

from __future__ import annotations

import math
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from isometry.common.laws.distributions import Normal, TruncatedNormal, Uniform
from isometry.common.laws.formats import FORMATS
from isometry.common.portable import PortableStream
from isometry.common.statistics import verdicts
from isometry.common.streams import MAX_SEED
from isometry.conformance import asserts, generators, repeats
from isometry.conformance.shapes import FEW

KINDS = ("native", "portable")
DRAWS = ("uniform", "normal", "truncated_normal")
# each draw, law and dtype is compiled by JAX once a shape
SHAPE = (30, 40, 50)
COUNT = math.prod(SHAPE)
MANY = 2**20


def _stream(nx, kind, seed):
    return nx.stream(seed) if kind == "native" else nx.portable_stream(seed)


def _drawn(nx, stream, draw="normal", dtype="float32", shape=SHAPE):
    """Return the values of one draw, in order."""
    return nx.to_numpy(getattr(stream, draw)(shape, dtype=dtype)).ravel()


# --- what fixes a stream ------------------------------------------------------------------------


@pytest.mark.clause("streams.determinism")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", DRAWS)
def test_same_seed_same_bits(nx, dtype, kind, draw):
    first = _drawn(nx, _stream(nx, kind, 42), draw, dtype)
    asserts.same_bits(_drawn(nx, _stream(nx, kind, 42), draw, dtype), first)
    (child,) = _stream(nx, kind, 42).split(1)
    (again,) = _stream(nx, kind, 42).split(1)
    asserts.same_bits(_drawn(nx, child, draw, dtype), _drawn(nx, again, draw, dtype))


@pytest.mark.clause("streams.interleaving")
@pytest.mark.parametrize("kind", KINDS)
def test_streams_do_not_disturb_each_other(nx, kind):
    alone = _stream(nx, kind, 1)
    expected = [_drawn(nx, alone, shape=(FEW,)) for _ in range(2)]
    stream, other = _stream(nx, kind, 1), _stream(nx, kind, 2)
    first = _drawn(nx, stream, shape=(FEW,))
    _drawn(nx, other, shape=(33,))  # odd: normals made in pairs leave one over
    asserts.same_bits(first, expected[0])
    asserts.same_bits(_drawn(nx, stream, shape=(FEW,)), expected[1])


@pytest.mark.clause("streams.children")
@pytest.mark.parametrize("kind", KINDS)
def test_children_do_not_depend_on_what_was_drawn(nx, kind):
    fresh, used = _stream(nx, kind, 3), _stream(nx, kind, 3)
    _drawn(nx, used)
    for a, b in zip(fresh.split(3), used.split(3), strict=True):
        asserts.same_bits(_drawn(nx, a), _drawn(nx, b))


@pytest.mark.clause("streams.splits")
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_split_gives_the_next_children(nx, kind):
    at_once, twice = _stream(nx, kind, 4), _stream(nx, kind, 4)
    children = [*twice.split(1), *twice.split(2)]
    for a, b in zip(at_once.split(3), children, strict=True):
        asserts.same_bits(_drawn(nx, b, shape=(FEW,)), _drawn(nx, a, shape=(FEW,)))
    (grandchild,) = children[0].split(1)
    drawn = [_drawn(nx, s, shape=(FEW,)).tobytes() for s in (twice, *children, grandchild)]
    assert len(set(drawn)) == len(drawn)


def _drawn_by_turns(nx, stream, start):
    start.wait()
    return [_drawn(nx, stream, draw, shape=(FEW,)) for _ in range(10) for draw in DRAWS]


@pytest.mark.clause("streams.threads")
@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_disturb_each_other(nx, kind):
    alone, together = (threading.Barrier(n, timeout=60) for n in (1, 3))
    expected = [_drawn_by_turns(nx, _stream(nx, kind, k), alone) for k in range(3)]
    with ThreadPoolExecutor(3) as pool:
        streams = [_stream(nx, kind, k) for k in range(3)]
        observed = list(pool.map(lambda s: _drawn_by_turns(nx, s, together), streams))
    for a, b in zip(np.array(expected), np.array(observed), strict=True):
        asserts.same_bits(b, a)


@pytest.mark.clause("streams.independence")
@pytest.mark.parametrize("kind", KINDS)
def test_other_seeds_children_and_draws_are_independent(nx, full_dtype, kind, seed, judge):
    first_seed = seed(7)
    base = _stream(nx, kind, first_seed)
    left, right = base.split(2)
    (grandchild,) = left.split(1)
    seen = first = _drawn(nx, base, dtype=full_dtype)
    others = [base, left, right, grandchild]
    others += [_stream(nx, kind, first_seed + step) for step in (1, 2**31, 2**32)]
    # the last two are one number in float64
    others += [_stream(nx, kind, number) for number in (2**53, 2**53 + 1, MAX_SEED - 1, MAX_SEED)]
    for stream in others:
        drawn = _drawn(nx, stream, dtype=full_dtype)
        judge(verdicts.signs((drawn > 0) == (first > 0), detects=0.03))
        judge(repeats.between(drawn, seen, detects=0.25, dtype=full_dtype))
        seen = np.concatenate([seen, drawn])


@pytest.mark.clause("streams.shape")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_are_arrays_of_the_dtype_and_shape(nx, dtype, kind, draw):
    for shape in ((), SHAPE):  # other clauses draw rows
        x = getattr(_stream(nx, kind, 0), draw)(shape, dtype=dtype)
        assert nx.is_array(x)
        assert nx.shape_of(x) == shape
        assert nx.dtype_of(x) == dtype


@pytest.mark.clause("streams.no-spread")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", ["normal", "truncated_normal"])
def test_draws_of_standard_deviation_0_are_the_mean(nx, dtype, kind, draw):
    x = getattr(_stream(nx, kind, 0), draw)(SHAPE, mean=1.5, std=0.0, dtype=dtype)
    np.testing.assert_array_equal(nx.to_numpy(x), np.full(SHAPE, 1.5))


# --- the laws -----------------------------------------------------------------------------------

STANDARD = {
    "uniform": Uniform(),
    "normal": Normal(),
    "truncated_normal": TruncatedNormal(),
}
LAWS = {
    "uniform": Uniform(-0.5, 2.0),
    "normal": Normal(1.5, 0.5),
    "truncated_normal": TruncatedNormal(0.25, 0.1),
}


@pytest.mark.clause("streams.law")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_have_their_law(nx, full_dtype, kind, draw, seed, judge):
    law = LAWS[draw]
    array = law.draw(nx, _stream(nx, kind, seed(11)), (MANY,), dtype=full_dtype)
    sample = nx.to_numpy(array)[:260_000]
    judge(verdicts.mean(sample, law, detects=0.03, dtype=full_dtype))
    judge(verdicts.spread(sample, law, detects=0.02, dtype=full_dtype))
    judge(verdicts.distribution(sample, law.cdf, detects=0.015, dtype=full_dtype))
    judge(verdicts.support(sample, law, detects=1e-4, dtype=full_dtype))


@pytest.mark.clause("streams.single")
@pytest.mark.parametrize("draw", ["uniform", "truncated_normal"])
def test_single_values_lie_in_the_support(nx, draw, seed, judge):
    law, stream = LAWS[draw], nx.stream(seed(16))
    sample = np.array([float(nx.to_numpy(law.draw(nx, stream, ()))) for _ in range(300)])
    judge(verdicts.support(sample, law, detects=0.0455, dtype="float32"))


SOURCES = {"float32": 2**21, "float64": 2**32}  # too few values for a float of this format
BITS = {"float32": 11, "float64": 24}  # the precision of the next narrower format


@pytest.mark.clause("streams.resolution")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_are_not_rounded_from_a_narrower_format(nx, full_dtype, kind, draw):
    values = _drawn(nx, _stream(nx, kind, 12), draw, full_dtype)[:1000]
    fraction, _ = np.frexp(values)
    scaled = np.ldexp(fraction, BITS[full_dtype])
    assert np.count_nonzero(scaled == np.rint(scaled)) < 30


@pytest.mark.clause("streams.mean")
@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_moments_of_a_large_draw(nx, draw, seed, judge):
    law = LAWS[draw]
    sample = nx.to_numpy(law.draw(nx, nx.stream(seed(13)), (3_300_000,)))
    judge(verdicts.mean(sample, law, detects=0.01, dtype="float32"))
    judge(verdicts.spread(sample, law, detects=0.01, dtype="float32"))


@pytest.mark.clause("streams.within-draw")
@pytest.mark.parametrize("draw", DRAWS)
def test_values_of_one_draw_are_independent(nx, draw, seed, judge):
    law = STANDARD[draw]
    u = law.cdf(_drawn(nx, nx.stream(seed(14)), draw))
    half = COUNT // 2
    pairs = {"neighbours": (u[1:], u[:-1]), "halves": (u[half:], u[:half])}
    for later, earlier in pairs.values():
        for above in (lambda u: u > 0.5, lambda u: abs(u - 0.5) > 0.25):  # the sign and the size
            judge(verdicts.signs(above(later) == above(earlier), detects=0.04))


@pytest.mark.clause("streams.distinct")
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_have_as_many_values_as_their_dtype_leaves(nx, dtype, draw, seed, judge):
    stream = nx.stream(seed(15))
    if dtype in SOURCES:
        sample = _drawn(nx, stream, draw, dtype, (MANY,))
        judge(repeats.within(sample, detects=SOURCES[dtype], dtype=dtype))
    else:
        sample, few = _drawn(nx, stream, draw, dtype), 2 ** (FORMATS[dtype].precision - 1)
        judge(verdicts.distinct(sample, STANDARD[draw], detects=few, dtype=dtype))


# --- nothing global -----------------------------------------------------------------------------


def _every_draw(nx):
    stream = nx.stream(2026)
    (child,) = stream.split(1)
    drawn = [_drawn(nx, s, draw, shape=(FEW,)) for s in (stream, child) for draw in DRAWS]
    return [*drawn, nx.to_numpy(nx.initialize("orthogonal", (6, 4), stream))]


@pytest.mark.clause("streams.global-seed")
def test_global_seeds_are_not_read(nx):
    globals_ = generators.of(nx.framework)
    globals_.seed(1)
    first = _every_draw(nx)
    globals_.seed(2)
    for a, b in zip(first, _every_draw(nx), strict=True):
        asserts.same_bits(b, a)


@pytest.mark.clause("streams.global-state")
def test_global_generators_are_not_written(nx):
    globals_ = generators.of(nx.framework)
    globals_.seed(1)
    expected = [globals_.draw() for _ in range(2)]
    globals_.seed(1)
    observed = [globals_.draw()]
    _every_draw(nx)
    observed.append(globals_.draw())
    assert observed == expected


@pytest.mark.clause("streams.seeded-program")
def test_a_seeded_program_stays_reproducible(nx):
    """One that uses streams and, beside them, a generator that it has seeded."""

    def program(seed):
        globals_ = generators.of(nx.framework)
        globals_.seed(seed)
        _every_draw(nx)
        return globals_.draw()

    first, other, again = program(1), program(2), program(1)
    assert first == again
    for a, b in zip(first, other, strict=True):
        assert a is None or a != b, "the stream set the generator"


@pytest.mark.clause("streams.quiet")
def test_draws_give_no_warning(nx):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _every_draw(nx)


def _forbid_numpy_random(monkeypatch, modules):
    """Make every generator of NumPy raise, wherever `modules` keep a name of one."""

    def forbidden(*args, **kwargs):
        raise AssertionError("a native stream drew from NumPy")

    banned = {
        id(value)
        for name in ("numpy.random", "numpy.random.mtrand")
        for key, value in vars(sys.modules[name]).items()
        if not key.startswith("__") and callable(value)
    }
    for module in (np.random, np.random.mtrand, *modules):
        for key, value in list(vars(module).items()):
            if id(value) in banned:
                monkeypatch.setattr(module, key, forbidden)
            elif value is np.random:
                monkeypatch.setattr(module, key, types.ModuleType("nothing"))


@pytest.mark.clause("streams.own-generator")
def test_native_streams_draw_without_numpy(nx, monkeypatch):
    expected = _every_draw(nx)
    if nx.framework == "numpy":
        return  # its own generator is the one that the others may not reach
    adapter = [m for m in map(sys.modules.get, (c.__module__ for c in type(nx).__mro__)) if m]
    _forbid_numpy_random(monkeypatch, adapter)
    with pytest.raises(AssertionError, match="drew from NumPy"):
        np.random.default_rng(0)
    for a, b in zip(expected, _every_draw(nx), strict=True):
        asserts.same_bits(b, a)


# --- portable -----------------------------------------------------------------------------------


@pytest.mark.clause("streams.portable")
@pytest.mark.parametrize("draw", DRAWS)
def test_portable_draws_are_numpys_bits(nx, full_dtype, draw):
    reference = PortableStream(5, convert=np.asarray, dtypes=("float32", "float64"))
    observed = nx.portable_stream(5)
    for _ in range(2):
        expected = getattr(reference, draw)((1000,), dtype=full_dtype)
        asserts.same_bits(_drawn(nx, observed, draw, full_dtype, (1000,)), expected)
