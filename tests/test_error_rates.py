"""The error rates that the conformance suite and its statistical core state are true bounds."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom, chi2, kstwo

from isometry import conformance
from isometry.common.errors import InvalidArgument
from isometry.common.laws.chains import log_norm_law
from isometry.common.laws.distributions import CUT, Normal, TruncatedNormal, Uniform
from isometry.common.statistics import bounds, verdicts
from isometry.common.statistics.distinct import expected_distinct
from isometry.conformance import specification

LAWS = [Normal(0.5, 2.0), Uniform(-1.0, 3.0), TruncatedNormal(0.0, 0.5)]
SUITE = Path(conformance.__file__).parent


class Declared:
    """Adds up the false alarm that the clauses of a run declare."""

    total = 0.0

    def pytest_collection_finish(self, session):
        marks = [item.get_closest_marker("clause") for item in session.items]
        self.total = sum(specification.clauses()[mark.args[0]].false_alarm for mark in marks)


def test_false_alarms_of_a_run_add_up_to_less_than_one_in_a_million():
    declared = Declared()
    code = pytest.main(
        [
            *("-p", "isometry.conformance.plugin", "-p", "no:terminal", "-p", "no:cacheprovider"),
            *("--rootdir", str(SUITE), "-o", "addopts=--import-mode=importlib"),
            *("--collect-only", "--backend", "numpy", str(SUITE)),
        ],
        plugins=[declared],
    )
    assert code == pytest.ExitCode.OK
    # no backend has more than twice NumPy's dtypes and modes, and five of them are run
    assert 0 < 2 * 5 * declared.total <= 1e-6


# --- bounds -------------------------------------------------------------------------------------


def _sample(law, generator, shape):
    if isinstance(law, Normal):
        return generator.normal(law.mean, law.std, shape)
    if isinstance(law, Uniform):
        return generator.uniform(law.low, law.high, shape)
    z = generator.standard_normal(shape)
    while np.any(outside := np.abs(z) > CUT):
        z[outside] = generator.standard_normal(np.count_nonzero(outside))
    return law.mean + law.std * z


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("power", [1, 2])
def test_moment_limits_hold_at_their_rate(law, power):
    """4,000 right samples at rate 5 %: more than 300 failures have probability below 1e-11."""
    assert binom.sf(300, 4000, 0.05) < 1e-11
    count, rate = 200, 0.05
    sample = _sample(law, np.random.default_rng(7), (4000, count))
    mean, variance, _ = law.moments
    averages = (((sample - mean) / np.sqrt(variance)) ** power).mean(axis=1)
    low, high = bounds.moment(law, power, count, rate)
    failures = np.count_nonzero((averages < low) | (averages > high))
    assert failures <= 300
    if isinstance(law, Normal):  # exact: neither more nor much less
        assert failures >= 110


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_dkw_holds_at_its_rate(law):
    generator = np.random.default_rng(8)
    failures = 0
    for _ in range(2000):
        sample = _sample(law, generator, 200)
        verdict = verdicts.distribution(
            sample, law.cdf, detects=0.9, dtype="float64", false_alarm=0.05
        )
        failures += not verdict.passed
    assert failures <= 180
    assert binom.sf(180, 2000, 0.05) < 1e-11  # at rate 5 %


@pytest.mark.parametrize("count", [50, 1000])
def test_fair_coin_limits_are_the_widest_exact_ones(count):
    low, high = bounds.proportion((0.5, 0.5), count, 1e-3)
    k = round(low * count)
    assert binom.cdf(k - 1, count, 0.5) <= 0.5e-3 < binom.cdf(k, count, 0.5)
    assert high == (count - k) / count  # the same rounding as a fraction's: both ends may occur


def test_normal_limits_are_exact_quantiles_in_the_far_tail():
    low, high = bounds.moment(Normal(), 2, 10_000, 1e-12)
    assert chi2.cdf(low * 10_000, 10_000) == pytest.approx(0.5e-12, rel=1e-9)
    assert chi2.sf(high * 10_000, 10_000) == pytest.approx(0.5e-12, rel=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("power", [1, 2])
def test_p_values_of_moments_are_the_rate_at_its_limits(law, power):
    for rate in (1e-2, 1e-12):
        for limit in bounds.moment(law, power, 5000, rate):
            assert bounds.moment_p(law, power, 5000, limit, 0.0) == pytest.approx(rate, rel=1e-6)
    assert bounds.moment_p(law, power, 5000, np.nan, 0.0) == 0


def test_p_values_of_proportions_are_below_the_rate_exactly_outside_its_limits():
    interval, count, rate = (0.29, 0.31), 500, 1e-6
    low, high = (round(x * count) for x in bounds.proportion(interval, count, rate))
    for hits in range(count + 1):
        assert (bounds.proportion_p(interval, count, hits) >= rate) == (low <= hits <= high)


def test_p_values_of_distances_are_at_most_their_bound():
    for distance in (0.02, 0.05, 0.1):
        bound = 2 * np.exp(-2 * 1000 * distance**2)
        assert bounds.kolmogorov_p(1000, distance) <= min(1, bound)
    assert bounds.kolmogorov_p(1000, 0.05) == pytest.approx(kstwo.sf(0.05, 1000))


def _whole_generator():
    """Return every value of a generator of 23 bits, once: a sample without noise."""
    return np.arange(2**23, dtype=np.float32) / np.float32(2**23)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.07, 0.07), (-0.5, 2.0), (-1.0, 3e-3)])
def test_the_grid_allows_for_the_arithmetic_after_the_generator(low, high):
    """2**-23 alone does not: near 0 the sum rounds by more than a unit in its last place."""
    law = Uniform(low, high)
    low, high = np.float32(low), np.float32(high)
    sample = _whole_generator() * (high - low) + low
    verdict = verdicts.distribution(sample, law.cdf, detects=0.01, dtype="float32")
    assert verdict.observed <= verdicts.grid("float32")
    assert verdict.p_value == 1
    for moment in (verdicts.mean, verdicts.spread):
        assert moment(sample, law, detects=0.01, dtype="float32").p_value == 1


# --- what a verdict detects ---------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_effects_are_detected_at_the_required_size(law):
    generator = np.random.default_rng(9)
    mean, variance, _ = law.moments
    sample = _sample(law, generator, 300_000)
    std = np.sqrt(variance)
    assert verdicts.mean(sample, law, detects=0.03, dtype="float64").passed
    assert verdicts.spread(sample, law, detects=0.02, dtype="float64").passed
    assert not verdicts.mean(sample + 0.03 * std, law, detects=0.03, dtype="float64").passed
    for scale in (0.98, 1.02):
        altered = mean + scale * (sample - mean)
        assert not verdicts.spread(altered, law, detects=0.02, dtype="float64").passed


def test_the_required_size_is_refused_below_and_named():
    with pytest.raises(InvalidArgument, match=r"change of 2.00% .* at least 1[0-9]{5}"):
        verdicts.spread(np.zeros(1000), Normal(), detects=0.02, dtype="float32")


def test_values_outside_the_support_are_counted():
    law = Uniform(0.0, 1.0)
    sample = np.linspace(0, 1, 20_000, dtype=np.float32)
    assert verdicts.support(sample, law, detects=1e-3, dtype="float32").passed
    sample[3] = np.float32(1.0000003)
    assert verdicts.support(sample, law, detects=1e-3, dtype="float32").observed == 1
    sample[3] = np.nan
    assert not verdicts.support(sample, law, detects=1e-3, dtype="float32").passed


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_too_few_different_values_are_caught(law, dtype):
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    sample = _sample(law, np.random.default_rng(11), 256_000).astype(np.float32).astype(kind)
    verdict = verdicts.distinct(sample, law, detects=128, dtype=dtype)
    assert verdict.passed
    assert verdict.low > 0.75 * verdict.observed  # the bound is not idle
    # one bit fewer: as many values as a format of half the precision keeps
    bits = np.uint16(0xFFFE if dtype == "bfloat16" else 0xFFFC)
    coarse = (sample.view(np.uint16) & bits).view(kind)
    assert not verdicts.distinct(coarse, law, detects=128, dtype=dtype).passed


def test_a_generator_that_draws_in_bfloat16_is_caught():
    """128 uniforms, as JAX's generator gives in bfloat16, and a normal made of them."""
    law, uniform = Normal(0.0, 0.05), np.random.default_rng(12).integers(0, 128, 256_000) / 128
    sample = (0.05 * ndtri(uniform + 1 / 256)).astype(ml_dtypes.bfloat16)
    verdict = verdicts.distinct(sample, law, detects=128, dtype="bfloat16")
    assert not verdict.passed
    assert verdict.observed <= 128
    assert verdict.p_value < 1e-12


def test_the_expected_number_of_different_values_is_that_of_the_rounding_cells():
    """Against 400 samples of 2,000: their mean is off by 6 deviations with probability < 1e-8."""
    law, generator = Normal(), np.random.default_rng(13)
    drawn = generator.standard_normal((400, 2000)).astype(ml_dtypes.bfloat16)
    counts = np.array([np.unique(row.view(np.uint16)).size for row in drawn])
    expected, variance = expected_distinct(law, 2000, "bfloat16")
    # less the grid: nothing to speak of where 2,000 draws see a cell at all
    assert expected == pytest.approx(counts.mean(), rel=1e-3, abs=6 * np.sqrt(variance / 400))
    assert counts.var() <= variance  # negative association


def test_different_values_are_counted_in_half_precision_alone():
    with pytest.raises(InvalidArgument, match="dtype"):
        verdicts.distinct(np.zeros(1000), Normal(), detects=128, dtype="float32")


def test_rounding_in_several_steps_needs_its_slack():
    law = Uniform()
    sample = np.arange(1000) / 1000 - 0.01
    arguments = {"detects": 0.9, "dtype": "float64"}
    off = verdicts.distribution(sample, law.cdf, **arguments).observed
    allowed = verdicts.distribution(sample, law.cdf, slack=0.01, **arguments).observed
    assert off == pytest.approx(0.011)
    assert allowed == pytest.approx(0.001)


def test_log_norms_catch_a_factor_too_many():
    law = log_norm_law(4, 100)
    generator = np.random.default_rng(10)
    logs = np.log(generator.chisquare(4, (1000, 101))) / 2
    right, wrong = logs[:, :100].sum(axis=1), logs.sum(axis=1)
    assert verdicts.log_norms(right, law, detects=0.02, slack=0.0).passed
    assert not verdicts.log_norms(wrong + 2.0, law, detects=0.02, slack=0.0).passed


def test_a_nan_never_passes():
    sample = np.full(200_000, np.nan)
    assert not verdicts.spread(sample, Normal(), detects=0.02, dtype="float32").passed
    assert not verdicts.mean(sample, Normal(), detects=0.05, dtype="float32").passed
    assert not verdicts.distribution(sample, Normal().cdf, detects=0.02, dtype="float32").passed
