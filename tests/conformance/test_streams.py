"""Explicit randomness: all of the seed counts, draws do not repeat, and no global state is met."""

from __future__ import annotations

import sys
import types
import warnings

import numpy as np
import pytest

from isometry.common.laws.distributions import Normal, TruncatedNormal, Uniform
from isometry.common.portable import PortableStream
from isometry.common.statistics import verdicts
from isometry.common.streams import MAX_SEED
from isometry.conformance import asserts, generators

KINDS = ("native", "portable")
DRAWS = ("uniform", "normal", "truncated_normal")
COUNT = 60_000


def _stream(nx, kind, seed):
    return nx.stream(seed) if kind == "native" else nx.portable_stream(seed)


def _drawn(nx, stream, draw="normal", dtype="float32", count=COUNT):
    return nx.to_numpy(getattr(stream, draw)((count,), dtype=dtype))


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
    expected = [_drawn(nx, alone, count=100) for _ in range(2)]
    stream, other = _stream(nx, kind, 1), _stream(nx, kind, 2)
    first = _drawn(nx, stream, count=100)
    _drawn(nx, other, count=33)
    asserts.same_bits(first, expected[0])
    asserts.same_bits(_drawn(nx, stream, count=100), expected[1])


@pytest.mark.clause("streams.children")
@pytest.mark.parametrize("kind", KINDS)
def test_children_do_not_depend_on_what_was_drawn(nx, kind):
    fresh, used = _stream(nx, kind, 3), _stream(nx, kind, 3)
    _drawn(nx, used)
    for a, b in zip(fresh.split(3), used.split(3), strict=True):
        asserts.same_bits(_drawn(nx, a), _drawn(nx, b))


@pytest.mark.clause("streams.independence")
@pytest.mark.parametrize("kind", KINDS)
def test_other_seeds_children_and_draws_are_independent(nx, kind, seed, judge):
    first_seed = seed(7)
    base = _stream(nx, kind, first_seed)
    left, right = base.split(2)
    (grandchild,) = left.split(1)
    first = _drawn(nx, base)
    others = {
        "the next draw": base,
        "seed + 1": _stream(nx, kind, first_seed + 1),
        "seed + 2**31": _stream(nx, kind, first_seed + 2**31),
        "seed + 2**32": _stream(nx, kind, first_seed + 2**32),
        "the largest seed": _stream(nx, kind, MAX_SEED),
        "the first child": left,
        "the second child": right,
        "a grandchild": grandchild,
    }
    seen = {"the stream": first}
    for name, stream in others.items():
        drawn = _drawn(nx, stream)
        for other, values in seen.items():
            # two draws share a float32 value with probability below 2**-20: 100 never happens
            shared = np.count_nonzero(drawn == values)
            assert shared < 100, f"{name} repeats {shared} of {COUNT} values of {other}"
        judge(verdicts.signs((drawn > 0) == (first > 0), detects=0.03))
        seen[name] = drawn


@pytest.mark.clause("streams.shape")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_are_arrays_of_the_dtype_and_shape(nx, dtype, kind, draw):
    for shape in ((), (5,), (2, 3, 4)):
        x = getattr(_stream(nx, kind, 0), draw)(shape, dtype=dtype)
        assert nx.is_array(x)
        assert nx.shape_of(x) == shape
        assert nx.dtype_of(x) == dtype


# --- the laws -----------------------------------------------------------------------------------

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
    array = law.draw(nx, _stream(nx, kind, seed(11)), (260_000,), dtype=full_dtype)
    sample = nx.to_numpy(array)
    judge(verdicts.mean(sample, law, detects=0.03, dtype=full_dtype))
    judge(verdicts.spread(sample, law, detects=0.02, dtype=full_dtype))
    judge(verdicts.distribution(sample, law.cdf, detects=0.015, dtype=full_dtype))
    judge(verdicts.support(sample, law, detects=1e-4, dtype=full_dtype))


@pytest.mark.clause("streams.resolution")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", DRAWS)
def test_float64_draws_are_no_rounded_float32(nx, kind, draw):
    values = _drawn(nx, _stream(nx, kind, 12), draw, "float64", 1000)
    assert np.count_nonzero(values == values.astype(np.float32)) < 10


# --- nothing global -----------------------------------------------------------------------------


def _every_draw(nx):
    stream = nx.stream(2026)
    (child,) = stream.split(1)
    drawn = [_drawn(nx, s, draw, count=50) for s in (stream, child) for draw in DRAWS]
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
        asserts.same_bits(_drawn(nx, observed, draw, full_dtype, 1000), expected)
