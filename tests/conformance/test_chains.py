"""Random matrix chains: products against exact ones, and their laws at every length."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.common import chains
from isometry.common.laws import chains as laws
from isometry.common.laws.distributions import Normal
from isometry.common.statistics import rounding, verdicts
from isometry.common.statistics.verdicts import FALSE_ALARM
from isometry.conformance import asserts
from isometry.conformance.examples import EXAMPLES

STEPS, BATCH, SIZE = 7, 3, 4


def _factors(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Deterministic matrices without structure, a start that is no identity."""
    values = np.sin(np.arange((STEPS + 1) * BATCH * SIZE * SIZE) ** 2 + 1.0)
    values = (2 * values).astype(dtype).reshape(STEPS + 1, BATCH, SIZE, SIZE)
    return values[0], values[1:]


def _exact_product(start: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the product in longdouble and the product of the norms, chain by chain."""
    product = start.astype(np.longdouble)
    norms = np.linalg.norm(start.astype(float), axis=(1, 2))
    for factor in factors.astype(np.longdouble):
        product = np.einsum("bij,bjk->bik", product, factor)
        norms = norms * np.linalg.norm(factor.astype(float), axis=(1, 2))
    return product, norms


@pytest.mark.clause("chains.order")
@pytest.mark.parametrize("rescale", [False, True])
def test_factors_multiply_from_the_right_in_order(nx, mode, dtype, prepare, rescale):
    start = np.array([[[1, 2], [3, 4]], [[0, 1], [2, 0]]], np.float32)
    factors = np.array([[[[0, 1], [1, 1]]] * 2, [[[2, 0], [1, -1]]] * 2], np.float32)
    f = prepare(lambda p, f: nx.chain_product(p, f, rescale=rescale))
    found = f(nx.asarray(start, dtype=dtype), nx.asarray(factors, dtype=dtype))
    assert [nx.dtype_of(x) for x in found] == [dtype, dtype]
    product, log_scale = (nx.to_numpy(x).astype(np.float64) for x in found)
    expected = start @ factors[0] @ factors[1]
    if not rescale:
        np.testing.assert_array_equal(product, expected)
        np.testing.assert_array_equal(log_scale, [0, 0])
    bound = rounding.product(2, 2, dtype) * np.abs(expected).max()
    bound += rounding.log_scale(2, np.log(6), dtype) * np.abs(expected).max()
    asserts.within(product * np.exp(log_scale)[:, None, None], expected, bound)


@pytest.mark.clause("chains.product")
def test_product_against_longdouble(nx, mode, full_dtype, prepare):
    start, factors = _factors(full_dtype)
    f = prepare(lambda p, f: nx.chain_product(p, f, rescale=False))
    product, log_scale = f(nx.asarray(start), nx.asarray(factors))
    assert nx.dtype_of(product) == nx.dtype_of(log_scale) == full_dtype
    exact, norms = _exact_product(start, factors)
    bound = rounding.product(STEPS, SIZE, full_dtype) * norms
    asserts.within(nx.to_numpy(product), exact, bound[:, None, None])
    np.testing.assert_array_equal(nx.to_numpy(log_scale), np.zeros(BATCH))


@pytest.mark.clause("chains.rescale")
def test_rescaled_product_against_longdouble(nx, mode, full_dtype, prepare):
    start, factors = _factors(full_dtype)
    f = prepare(lambda p, f: nx.chain_product(p, f, rescale=True))
    product, log_scale = map(nx.to_numpy, f(nx.asarray(start), nx.asarray(factors)))
    exact, norms = _exact_product(start, factors)
    largest = np.abs(exact).max(axis=(1, 2))
    # 1, or its neighbour where the framework divides by multiplying with the reciprocal
    asserts.within_ulp(np.abs(product).max(axis=(1, 2)), np.ones(BATCH), full_dtype, 1)
    relative = rounding.product(STEPS, SIZE, full_dtype) * norms / largest
    logs = rounding.log_scale(STEPS, np.abs(np.log(norms)).max(), full_dtype)
    asserts.within(product, exact / largest[:, None, None], 2 * relative[:, None, None])
    asserts.within(log_scale, np.log(largest), 2 * relative + logs)


@pytest.mark.clause("chains.gradient")
@pytest.mark.parametrize("rescale", [False, True])
def test_derivatives_in_start_and_factors(nx, mode, full_dtype, prepare, rescale):
    start, factors = _factors(full_dtype)
    weight = np.cos(np.arange(start.size) ** 2.0).astype(full_dtype).reshape(start.shape)

    def f(parameters, weight):
        arrays = parameters["start"], parameters["factors"]
        product, log_scale = nx.chain_product(*arrays, rescale=rescale)
        return nx.ops.sum(weight * product) + nx.ops.sum(log_scale)

    parameters = {"start": nx.asarray(start), "factors": nx.asarray(factors)}
    with nx.scope():
        _, gradient = nx.value_and_gradient(prepare(f))(parameters, nx.asarray(weight))

    matrices = [start, *factors]
    product, norms = _exact_product(start, factors)
    largest = np.abs(product).max(axis=(1, 2)) if rescale else np.ones(BATCH)
    relative = rounding.product(STEPS, SIZE, full_dtype)
    of_scale = 2 * relative * norms / largest if rescale else np.zeros(BATCH)
    observed = [nx.to_numpy(gradient["start"]), *nx.to_numpy(gradient["factors"])]
    for j, derivative in enumerate(observed):
        eye = np.broadcast_to(np.eye(SIZE), start.shape)
        left, _ = _exact_product(eye, np.array(matrices[:j]).reshape(-1, *start.shape))
        right, _ = _exact_product(eye, np.array(matrices[j + 1 :]).reshape(-1, *start.shape))
        exact = np.einsum("bki,bkl,bjl->bij", left, weight.astype(np.longdouble), right)
        exact = exact / largest[:, None, None]
        others = norms * np.linalg.norm(weight, axis=(1, 2))
        others = others / np.linalg.norm(matrices[j].astype(float), axis=(1, 2)) / largest
        bound = (relative * others)[:, None, None] + of_scale[:, None, None] * np.abs(exact)
        asserts.within(derivative, exact, bound)


@pytest.mark.clause("chains.zero")
def test_zero_product_stays_zero(nx, mode, full_dtype, prepare):
    start, factors = _factors(full_dtype)
    factors[2, 0] = 0
    f = prepare(lambda p, f: nx.chain_product(p, f, rescale=True))
    product, log_scale = map(nx.to_numpy, f(nx.asarray(start), nx.asarray(factors)))
    np.testing.assert_array_equal(product[0], np.zeros((SIZE, SIZE)))
    asserts.within_ulp(np.abs(product[1:]).max(axis=(1, 2)), np.ones(BATCH - 1), full_dtype, 1)
    alive = product[1:]
    before, norms = _exact_product(start, factors[:2])  # that of the zero chain stays as it was
    largest = np.abs(before[0]).max()
    bound = 2 * rounding.product(2, SIZE, full_dtype) * norms[0] / largest
    bound += rounding.log_scale(2, np.log(norms[0]), full_dtype)
    asserts.within(log_scale[0], np.log(largest), bound)
    for value in (np.inf, np.nan):
        factors[2, 0, 0, 0] = value  # the others are 0: what is not finite has its column
        product = nx.to_numpy(f(nx.asarray(start), nx.asarray(factors))[0])
        assert not np.any(np.isfinite(product[0]))
        asserts.same_bits(product[1:], alive)


@pytest.mark.clause("chains.no-overflow")
def test_rescaled_chain_outlives_every_exponent(nx, full_dtype):
    start = nx.asarray(np.broadcast_to(np.eye(2), (1, 2, 2)).astype(full_dtype))
    for exponent in (100, -100):
        factors = nx.asarray(np.full((50, 1, 2, 2), 2.0**exponent, full_dtype))
        product, log_scale = nx.chain_product(start, factors, rescale=True)
        asserts.within(nx.to_numpy(product), 1, 0)
        exact = 50 * exponent * math.log(2) + 49 * math.log(2)
        bound = rounding.log_scale(50, 101 * math.log(2), full_dtype)
        asserts.within(nx.to_numpy(log_scale), exact, bound)


@pytest.mark.clause("chains.overflow-step")
def test_plain_chain_overflows_when_the_law_says(nx, seed):
    chain = nx.matrix_chain(
        nx.stream(seed(54)), length=400, size=4, batch=10, law=Normal(), dtype="float32"
    )
    first, last = laws.overflow_interval("float32", 4, chains=10, false_alarm=FALSE_ALARM)
    assert 0 < first < last < 400
    assert np.all((chain.overflow >= first) & (chain.overflow <= last))


def _counted(stream, counts):
    """Return the stream, which from now on writes down how many entries each draw asks for."""

    class Counting(type(stream)):
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            counts.append(math.prod(shape))
            return super().normal(shape, mean=mean, std=std, dtype=dtype)

    stream.__class__ = Counting
    return stream


@pytest.mark.clause("chains.first-overflow")
def test_overflow_is_the_step_of_the_first_infinity(nx):
    def overflow(factor, length):
        stream, law = nx.stream(0), Normal(factor, 0.0)
        return nx.matrix_chain(stream, length=length, size=1, batch=2, law=law).overflow.tolist()

    assert overflow(2.0**60, 100) == [3, 3]  # 2**128 is the first that float32 lacks
    assert overflow(2.0, 300) == [128, 128]
    assert overflow(1.5, 300) == [219, 219]  # 219 log2(1.5) = 128.1, in the second block
    assert overflow(0.5, 300) == [0, 0]


# each steps with each chains, and with each size, which has both chains
SIZES = [(1, 1, 1), (3, 4, 1), (1, 4, 3), (3, 1, 3), (1, 1, 9), (3, 4, 9)]


@pytest.mark.clause("chains.sizes")
@given(st.data())
@EXAMPLES
def test_product_of_any_sizes(nx, data):
    steps, batch, size = data.draw(st.sampled_from(SIZES))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    entries = data.draw(st.integers(0, 2**16))
    values = np.sin(entries + np.arange((steps + 1) * batch * size**2))
    start, *factors = np.round(2 * values).astype(dtype).reshape(steps + 1, batch, size, size)
    arrays = nx.asarray(start), nx.asarray(np.array(factors))
    product, _ = nx.chain_product(*arrays)
    expected = start
    for factor in factors:
        expected = expected @ factor
    np.testing.assert_array_equal(nx.to_numpy(product), expected)
    scaled, log_scale = map(nx.to_numpy, nx.chain_product(*arrays, rescale=True))
    norm = np.prod([np.linalg.norm(m, axis=(1, 2)) for m in (start, *factors)], axis=0)
    bound = rounding.product(steps, size, dtype) * norm
    # the entries are integers: a factor changes the largest by no more than 4 size to the steps
    bound += rounding.log_scale(steps, steps * np.log(4 * size), dtype) * norm
    found = scaled * np.exp(log_scale.astype(float))[:, None, None]
    asserts.within(found, expected, bound[:, None, None])


@pytest.mark.clause("chains.memory")
@pytest.mark.parametrize("operation", ["matrix_chain", "lyapunov_spectrum"])
def test_no_draw_is_larger_than_a_block_however_long_the_chain(nx, monkeypatch, operation):
    size, batch, block = 3, 5, 1000
    monkeypatch.setattr(chains, "BLOCK", block)
    for length in (22, 220):
        counts: list[int] = []
        stream = _counted(nx.stream(3), counts)
        getattr(nx, operation)(stream, length=length, size=size, batch=batch)
        assert sum(counts) == length * batch * size**2
        assert max(counts) <= block


LENGTH, CHAINS = 100, 1000
# |log c| of one step: c < e**-12 needs four independent N(0, v), v >= 1/4, all below e**-12 in
# size, probability under 1e-20; over all steps and chains 1e-15, far below FALSE_ALARM
LARGEST = 12.0


@pytest.mark.clause("chains.log-norm")
def test_log_norm_of_a_row_has_its_exact_law(nx, seed, judge):
    chain = nx.matrix_chain(
        nx.stream(seed(101)),
        length=LENGTH,
        size=SIZE,
        batch=CHAINS,
        law=Normal(0.0, 0.5),
        rescale=True,
    )
    product = nx.to_numpy(chain.product).astype(np.float64)
    sample = chain.log_scale + np.log(np.linalg.norm(product[:, 0], axis=1))
    law = laws.log_norm_law(SIZE, LENGTH, 0.5)
    slack = rounding.log_scale(LENGTH, LARGEST, "float32") + rounding.product(
        LENGTH, SIZE, "float32"
    )
    judge(verdicts.log_norms(sample, law, detects=0.02, slack=slack))
    judge(verdicts.distribution(sample, law.cdf, detects=0.25, dtype="float32"))
    frobenius = chain.log_scale + np.log(np.linalg.norm(product, axis=(1, 2)))
    asserts.within(chain.log_norm, frobenius, rounding.log_scale(LENGTH, LARGEST, "float32"))


@pytest.mark.clause("chains.lyapunov")
def test_lyapunov_spectrum_has_its_exact_law(nx, seed, judge):
    size, length, batch = 3, 40, 400
    exponents = nx.lyapunov_spectrum(nx.stream(seed(86)), length=length, size=size, batch=batch)
    assert exponents.shape == (batch, size)
    slack = rounding.log_scale(length, 10.0, "float64")
    for index in range(size):
        law = laws.exponent_law(size, index + 1, length)
        sample = length * exponents[:, index]
        judge(verdicts.log_norms(sample, law, detects=0.15, slack=slack))
