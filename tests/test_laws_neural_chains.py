"""Laws of neural chains against mpmath and closed forms, at points of their own."""

import math

import mpmath as mp
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import neural_chains
from isometry.common.laws.neural_chains import CRITICAL, SCALES, chain_law

mp.mp.dps = 30


def test_means_and_variances_in_closed_form():
    for rule, std in SCALES.items():
        normal, uniform = chain_law("normal", std, 7), chain_law("uniform", std, 7)
        assert normal.mean == pytest.approx(
            7 * (math.log(std) - (np.euler_gamma + math.log(2)) / 2), rel=1e-13
        ), rule
        assert normal.variance == pytest.approx(7 * math.pi**2 / 8, rel=1e-13)
        assert uniform.mean == pytest.approx(7 * (math.log(std * math.sqrt(3)) - 1), rel=1e-13)
        assert uniform.variance == 7


@pytest.mark.parametrize(
    ("kind", "std", "rate"),
    [
        ("normal", 1.0, 0.529839),
        ("normal", math.sqrt(2), 0.749306),
        ("uniform", 1.0, math.sqrt(3) / math.e),
        ("uniform", math.sqrt(2), math.sqrt(6) / math.e),
        ("normal", CRITICAL["normal"], 1.0),
        ("uniform", CRITICAL["uniform"], 1.0),
    ],
)
def test_geometric_rates(kind, std, rate):
    assert math.exp(chain_law(kind, std, 1).mean) == pytest.approx(rate, rel=1e-6)


def test_no_scale_keeps_both_median_and_second_moment():
    for kind, growth in (("normal", 3.562), ("uniform", 2.463)):
        law = chain_law(kind, CRITICAL[kind], 1)
        assert math.exp(law.log_second_moment) == pytest.approx(growth, rel=1e-3)


@pytest.mark.parametrize("factors", [1, 2, 13])
def test_uniform_medians_and_quantiles_by_mpmath(factors):
    law = chain_law("uniform", 0.8, factors)
    for probability in (0.02, 0.5, 0.97):
        x = law.quantile(probability)
        gap = factors * mp.log(mp.mpf("0.8") * mp.sqrt(3)) - mp.mpf(x)
        assert float(mp.gammainc(factors, gap, mp.inf, regularized=True)) == pytest.approx(
            probability, rel=1e-12
        )
        assert law.cdf(np.array(x)) == pytest.approx(probability, rel=1e-12)


def test_normal_chains_of_one_and_two_factors_by_mpmath():
    """|w| is half-normal; the product of two has the density (2/pi) K_0."""
    one, two = chain_law("normal", 1.3, 1), chain_law("normal", 1.0, 2)
    for x in (-4.0, -0.4, 0.9):
        half = mp.erf(mp.exp(x) / mp.mpf("1.3") / mp.sqrt(2))
        assert one.cdf(np.array(x)) == pytest.approx(float(half), abs=2e-11)
        product = 2 / mp.pi * mp.quad(lambda p: mp.besselk(0, p), [0, mp.exp(x) / 8, mp.exp(x)])
        assert two.cdf(np.array(x)) == pytest.approx(float(product), abs=2e-11)
    median = mp.sqrt(2) * mp.erfinv(mp.mpf("0.5")) * mp.mpf("1.3")
    assert one.median == pytest.approx(float(mp.log(median)), abs=1e-10)


@pytest.mark.parametrize("std", [1.0, 0.3, 0.05])
def test_residual_factor_by_mpmath(std):
    law = chain_law("residual", std, 1)
    s = mp.mpf(std)

    def density(w):
        return mp.npdf((w - 1) / s) / s

    points = sorted({-40 * s + 1, mp.mpf(-1), mp.mpf(0), mp.mpf(1), 1 + 3 * s, 1 + 40 * s})
    mean = mp.quad(lambda w: density(w) * mp.log(abs(w)) if w else 0, points)
    second = mp.quad(lambda w: density(w) * mp.log(abs(w)) ** 2 if w else 0, points)
    assert law.mean == pytest.approx(float(mean), rel=1e-9)
    assert law.variance == pytest.approx(float(second - mean**2), rel=1e-9)
    for x in (-1.0, 0.02):
        exact = mp.ncdf((mp.exp(x) - 1) / s) - mp.ncdf((-mp.exp(x) - 1) / s)
        assert law.cdf(np.array(x)) == pytest.approx(float(exact), abs=2e-11)


@pytest.mark.parametrize("kind", ["normal", "uniform", "residual"])
def test_quantiles_turn_the_distribution_round(kind):
    law = chain_law(kind, 0.7, 19)
    for probability in (0.01, 0.5, 0.9):
        assert law.cdf(np.array(law.quantile(probability))) == pytest.approx(probability, abs=1e-9)


def test_listed_values():
    law = chain_law("normal", math.sqrt(2), 99)
    assert law.mean == pytest.approx(-28.57218, rel=1e-6)
    assert math.sqrt(law.variance) == pytest.approx(11.0515, rel=1e-5)
    law = chain_law("uniform", 1.0, 19)
    assert law.median / math.log(10) == pytest.approx(-3.574639, abs=2e-6)


# --- the plateau ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "start", "end"), [(2, 0.2, 0.7), (3, 0.35, 0.95), (6, 0.25, 0.6), (9, 0.4, 0.99)]
)
def test_flow_time_is_the_integral(depth, start, end):
    exact = mp.quad(lambda w: 1 / (w ** (depth - 1) * (1 - w**depth)), mp.linspace(start, end, 5))
    assert neural_chains.flow_time(depth, start, end) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize(
    ("depth", "start", "time"), [(2, 0.1, 3.022565), (5, 0.1, 333.3866), (7, 0.5, 6.401901)]
)
def test_flow_time_at_known_points(depth, start, time):
    assert neural_chains.flow_time(depth, start, 0.9) == pytest.approx(time, rel=3e-7)


@pytest.mark.parametrize("depth", [2, 5, 8])
def test_small_steps_of_descent_follow_the_flow_within_their_bound(depth):
    start, end = 0.3, 0.5
    time = neural_chains.flow_time(depth, start, end)
    for rate in (time / 10, time / 300):
        steps = neural_chains.steps_to_escape(neural_chains.descent(rate), depth, start, end, 10**4)
        excess = steps * rate - time
        assert 0 <= excess <= neural_chains.descent_delay(depth, start, end, rate)


def test_adaptive_steps_do_not_depend_on_depth():
    for depth in (2, 4, 11):
        update = neural_chains.adaptive(0.01, 0.0, 0.9)
        steps = neural_chains.steps_to_escape(update, depth, 0.3, 0.5, 1000)
        low, high = neural_chains.adaptive_limits(depth, 0.3, 0.5, 0.01, 0.9)
        assert low <= steps <= high


def test_it_gives_up_after_the_most_steps():
    update = neural_chains.descent(1e-9)
    assert neural_chains.steps_to_escape(update, 3, 0.3, 0.5, 7) == 8


def test_it_refuses():
    for call in (
        lambda: chain_law("gauss", 1.0, 3),
        lambda: chain_law("normal", 0.0, 3),
        lambda: chain_law("normal", 1.0, 0),
        lambda: neural_chains.flow_time(1, 0.1, 0.5),
        lambda: neural_chains.flow_time(3, 0.5, 0.1),
        lambda: neural_chains.flow_time(3, 0.5, 1.0),
    ):
        with pytest.raises(InvalidArgument, match=r"must be|known are"):
            call()
