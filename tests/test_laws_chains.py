"""The exact laws of Gaussian matrix chains, against closed forms, mpmath and brute force."""

import math

import mpmath
import numpy as np
import pytest
from scipy.special import chdtr, erf, k1

from isometry.common.errors import InvalidArgument
from isometry.common.laws.chains import (
    LogChiSum,
    entry_law,
    exponent_law,
    log_norm_law,
    overflow_interval,
    overflow_step,
)
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics.bounds import dkw

CDF_ERROR = 1e-11  # stated by LogChiSum.cdf
FALSE_ALARM = 1e-9


def test_top_exponents_in_closed_form():
    gamma = float(mpmath.euler)
    assert log_norm_law(1, 1).mean == pytest.approx(-(gamma + math.log(2)) / 2, rel=1e-15)
    assert log_norm_law(2, 1).mean == pytest.approx((math.log(2) - gamma) / 2, rel=1e-14)
    assert log_norm_law(4, 1).mean == pytest.approx((math.log(2) + 1 - gamma) / 2, rel=1e-15)
    assert log_norm_law(1, 1).variance == pytest.approx(math.pi**2 / 8, rel=1e-15)
    assert log_norm_law(2, 1).variance == pytest.approx(math.pi**2 / 24, rel=1e-15)


@pytest.mark.parametrize("degrees", [1, 3, 8, 64])
def test_mean_and_variance_are_those_of_the_chi_density(degrees):
    n, std = degrees, 0.7

    def density(x):
        half = mpmath.mpf(n) / 2
        return 2 * x ** (n - 1) * mpmath.exp(-x * x / 2) / (2**half * mpmath.gamma(half))

    # with x = e**u the integrand is smooth also at 0
    limits = [-60, -20, -6, -2, 0, 1, 2, 3, 4]

    def moment(power):
        def f(u):
            x = mpmath.exp(u)
            return (u + mpmath.log(std)) ** power * density(x) * x

        return mpmath.quad(f, limits)

    law = LogChiSum(((n, 1),), std)
    mean = moment(1)
    assert law.mean == pytest.approx(float(mean), rel=1e-12)
    assert law.variance == pytest.approx(float(moment(2) - mean**2), rel=1e-10)


def test_spectrum_ends_in_the_exponent_of_one_dimension_and_sums_to_the_determinant():
    spectrum = [exponent_law(8, i, 1).mean for i in range(1, 9)]
    assert spectrum[0] == log_norm_law(8, 1).mean
    assert spectrum[-1] == log_norm_law(1, 1).mean
    assert spectrum == sorted(spectrum, reverse=True)
    logdet = [np.linalg.slogdet(a)[1] for a in np.random.default_rng(3).normal(size=(40000, 8, 8))]
    law = LogChiSum(tuple((k, len(logdet)) for k in range(1, 9)))  # Bartlett: det is a product
    assert abs(np.sum(logdet) - law.mean) <= law.deviation(FALSE_ALARM)


def test_entry_of_the_chapters_product():
    law = entry_law(4, 101)
    decade = math.log(10)
    assert law.count == 101
    assert (law.mean / decade, math.sqrt(law.variance) / decade) == pytest.approx(
        (23.9563, 1.8093), abs=5e-5
    )


# --- distribution function --------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 16, 64, 1000])
def test_cdf_of_one_term_is_the_chi_distribution(degrees):
    law = LogChiSum(((degrees, 1),))
    x = law.mean + math.sqrt(law.variance) * np.linspace(-12, 8, 201)
    assert np.abs(law.cdf(x) - chdtr(degrees, np.exp(2 * x))).max() <= CDF_ERROR


def test_cdf_of_one_entry_is_half_normal():
    x = np.linspace(-30, 2, 65)
    assert np.abs(entry_law(4, 1).cdf(x) - erf(np.exp(x) / math.sqrt(2))).max() <= CDF_ERROR


def test_cdf_of_two_terms_with_two_degrees_is_a_bessel_function():
    # chi_2**2 / 2 is exponential, and P(X Y > z) = 2 sqrt(z) K_1(2 sqrt(z)) for two of those
    x = np.linspace(-12, 3, 121)
    root = np.exp(x) / 2
    assert np.abs(log_norm_law(2, 2).cdf(x) - (1 - 2 * root * k1(2 * root))).max() <= CDF_ERROR


def test_cdf_of_a_long_chain_against_quadrature_in_30_digits():
    law = LogChiSum(((4, 101),), std=0.5)
    x = law.mean + math.sqrt(law.variance) * np.array([-6.0, -2.5, -0.3, 0.0, 1.0, 4.0])

    def exact(point):
        def integrand(t):
            log_phi = mpmath.loggamma(2 + 1j * t / 2) - mpmath.loggamma(2)
            log_phi += 1j * t * (mpmath.log(mpmath.mpf("0.5")) + mpmath.log(2) / 2)
            return mpmath.im(mpmath.exp(101 * log_phi - 1j * t * mpmath.mpf(float(point)))) / t

        edges = [mpmath.mpf(k) / 4 for k in range(13)]
        return mpmath.mpf(1) / 2 - mpmath.quad(integrand, edges) / mpmath.pi

    with mpmath.workdps(30):
        right = np.array([float(exact(point)) for point in x])
    assert np.abs(law.cdf(x) - right).max() <= CDF_ERROR


@pytest.mark.parametrize(("size", "length"), [(1, 3), (4, 101), (16, 1000)])
def test_cdf_is_a_distribution_function(size, length):
    law = log_norm_law(size, length)
    x = law.mean + math.sqrt(law.variance) * np.linspace(-60, 60, 2001)
    values = law.cdf(x)
    assert np.diff(values).min() >= -CDF_ERROR
    assert values[0] <= CDF_ERROR
    assert values[-1] >= 1 - CDF_ERROR


@pytest.mark.parametrize("law", [log_norm_law(1, 2), log_norm_law(4, 101), entry_law(3, 5)])
def test_clipped_square_against_the_integral_over_the_distribution(law):
    deviation = math.sqrt(law.variance)
    edges = np.linspace(-3, 3, 40001)
    mass = np.diff(law.cdf(law.mean + deviation * edges))
    centre = (edges[1:] + edges[:-1]) / 2
    outside = 1 - mass.sum()
    mean, variance = law.clipped_square(3.0)
    assert mean == pytest.approx((mass * centre**2).sum() + 9 * outside, rel=1e-6)
    second = (mass * centre**4).sum() + 81 * outside
    assert variance == pytest.approx(second - mean**2, rel=1e-5)


# --- tails ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 1e-3, 1e-6])
@pytest.mark.parametrize("law", [log_norm_law(1, 1), log_norm_law(4, 101), entry_law(4, 10)])
def test_limits_hold_and_are_not_loose(law, rate):
    low, high = law.limits(rate)
    tails = np.array([law.cdf(np.array(low)), 1 - law.cdf(np.array(high))])
    assert np.all(tails <= rate / 2)
    assert np.all(tails >= rate / 2 / 50)  # Chernoff loses a factor like the density's width
    assert law.deviation(rate) == max(law.mean - low, high - law.mean)


@pytest.mark.parametrize("sigmas", [-5.0, -1.0, -0.01, 0.01, 1.0, 5.0])
def test_log_tail_bound_is_a_bound_and_agrees_with_limits(sigmas):
    law = log_norm_law(4, 50)
    x = law.mean + sigmas * math.sqrt(law.variance)
    lower = float(law.cdf(np.array(x)))
    assert law.log_tail_bound(x, upper=False) >= math.log(lower)
    assert law.log_tail_bound(x, upper=True) >= math.log(1 - lower)
    assert law.log_tail_bound(x, upper=sigmas < 0) == 0.0
    for end, upper in zip(law.limits(1e-9), (False, True), strict=True):
        assert law.log_tail_bound(end, upper=upper) == pytest.approx(math.log(5e-10), rel=1e-9)


def test_tail_bound_far_outside_is_finite_and_tiny():
    assert log_norm_law(4, 1).log_tail_bound(700.0, upper=True) < -1e6
    assert log_norm_law(4, 1).log_tail_bound(-700.0, upper=False) < -1000


def test_deviation_of_a_mean_shrinks_like_the_square_root():
    law = log_norm_law(4, 101)
    one, many = law.deviation(1e-9), law.times(10000).deviation(1e-9) / 10000
    assert one / many == pytest.approx(100, rel=0.1)


# --- brute force: real matrices ----------------------------------------------------------------


@pytest.mark.parametrize("std", [1.0, 0.5])
def test_norms_entries_and_exponents_of_real_products(std):
    chains, length, size = 20000, 7, 3
    factors = np.random.default_rng(11).normal(scale=std, size=(length, chains, size, size))
    product = factors[0]
    for factor in factors[1:]:
        product = product @ factor
    q = np.broadcast_to(np.eye(size), (chains, size, size))
    logs = np.zeros((chains, size))
    for factor in factors:
        q, r = np.linalg.qr(np.swapaxes(factor, 1, 2) @ q)
        logs += np.log(np.abs(np.diagonal(r, axis1=1, axis2=2)))
    samples = {
        "column": (np.log(np.linalg.norm(product[:, :, 0], axis=1)), log_norm_law(3, 7, std)),
        "row": (np.log(np.linalg.norm(product[:, 1, :], axis=1)), log_norm_law(3, 7, std)),
        "entry": (np.log(np.abs(product[:, 2, 1])), entry_law(3, 7, std)),
        **{f"exponent {i}": (logs[:, i - 1], exponent_law(3, i, 7, std)) for i in (1, 2, 3)},
    }
    steps = np.arange(chains + 1) / chains
    for name, (values, law) in samples.items():
        exact = law.cdf(np.sort(values))
        distance = max((exact - steps[:-1]).max(), (steps[1:] - exact).max())
        assert distance <= dkw(chains, FALSE_ALARM), name
        assert abs(values.sum() - chains * law.mean) <= law.times(chains).deviation(FALSE_ALARM)


def test_expected_overflow_steps():
    steps = {d: overflow_step(d, 4) for d in ("float16", "bfloat16", "float32", "float64")}
    assert steps == pytest.approx(
        {"float16": 19.876, "bfloat16": 159.004, "float32": 159.011, "float64": 1272.09}, abs=5e-3
    )
    assert overflow_step("float32", 1) == math.inf  # products of scalars shrink
    assert overflow_step("float32", 4, std=0.5) == math.inf


def test_overflow_interval_holds_real_products():
    chains, largest = 20000, float(np.finfo(np.float16).max)
    rng = np.random.default_rng(7)
    product = np.broadcast_to(np.eye(4), (chains, 4, 4))
    overflow = np.zeros(chains, dtype=int)
    for step in range(1, 200):
        product = product @ rng.normal(size=(chains, 4, 4))
        beyond = np.abs(product).max(axis=(1, 2)) > largest
        overflow[(overflow == 0) & beyond] = step
        if overflow.all():
            break
    first, last = overflow_interval("float16", 4, chains=chains, false_alarm=FALSE_ALARM)
    assert first <= overflow.min() <= overflow.max() <= last


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_overflow_interval_is_not_loose(dtype):
    rate = 1e-3
    level = math.log(FORMATS[dtype].largest)
    first, last = overflow_interval(dtype, 4, chains=1, false_alarm=rate)
    not_yet = [log_norm_law(4, k).cdf(np.array(level + math.log(4))) for k in (last, last - 1)]
    assert not_yet[0] <= rate / 2 <= 50 * not_yet[1]
    already = 1 - log_norm_law(4, first).cdf(np.array(level - math.log(2)))
    assert rate / 2 <= 50 * 16 * first * already


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_norm_law(0, 5), "degrees of freedom must be at least 1; received 0"),
        (lambda: log_norm_law(4, 0), "number of terms must be at least 1; received 0"),
        (lambda: log_norm_law(4, 5, 0.0), "std must be greater than 0; received 0"),
        (lambda: exponent_law(4, 5, 10), "index must be between 1 and 4; received 5"),
        (lambda: log_norm_law(4, 5).limits(0.0), "false_alarm must be a probability above 0"),
        (lambda: overflow_step("float8", 4), "unknown dtype 'float8'"),
        (
            lambda: overflow_interval("float32", 1, chains=10, false_alarm=1e-9),
            "do not overflow: their Lyapunov exponent is -0.635",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
