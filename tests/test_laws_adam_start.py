"""Adam's first steps on noise: closed forms, mpmath, and counting."""

import math

import mpmath
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import adam_start


@pytest.mark.parametrize("steps", [3, 7, 40])
def test_equal_shares_give_the_inverse_chi_square(steps):
    """With b2 near 1, t / chi2_t: mean t / (t - 2), and of its root a ratio of gammas."""
    decay = 1 - 1e-13
    assert adam_start.inverse_moment(decay, steps, 1.0) == pytest.approx(
        steps / (steps - 2), rel=1e-10
    )
    root = math.sqrt(steps / 2) * math.exp(math.lgamma((steps - 1) / 2) - math.lgamma(steps / 2))
    assert adam_start.inverse_moment(decay, steps, 0.5) == pytest.approx(root, rel=1e-10)


@pytest.mark.parametrize(("decay", "steps", "power"), [(0.7, 4, 0.5), (0.95, 6, 1.3), (0.5, 3, 1)])
def test_inverse_moments_are_mpmath_s(decay, steps, power):
    with mpmath.workdps(30):
        weights = [mpmath.mpf(w) for w in adam_start.shares(decay, steps)]

        def integrand(y):
            s = mpmath.exp(y)
            return s**power / mpmath.sqrt(mpmath.fprod(1 + 2 * w * s for w in weights))

        exact = mpmath.quad(integrand, range(-80, 181, 10)) / mpmath.gamma(power)
    assert adam_start.inverse_moment(decay, steps, power) == pytest.approx(float(exact), rel=1e-9)


def test_moments_that_do_not_exist_are_infinite():
    assert adam_start.inverse_moment(0.999, 1, 0.5) == math.inf
    assert adam_start.inverse_moment(0.999, 2, 1.0) == math.inf
    assert adam_start.inverse_moment(0.999, 3, 1.0) < math.inf
    assert adam_start.inverse_moment(0.0, 50, 0.5) == math.inf  # one step is remembered


def test_the_first_step_is_a_sign_and_later_ones_are_shorter():
    lengths = [adam_start.step_square(0.9, 0.999, k) for k in (1, 2, 5, 20, 120)]
    assert lengths[0] == pytest.approx(1.0, rel=1e-12)
    assert (np.diff(lengths) < 0).all()
    assert lengths[-1] == pytest.approx(0.1 / 1.9, rel=1e-3)


def test_step_of_two_in_closed_form():
    """Equal shares, t = 2: g / sqrt(v) is sqrt(2) cos and sin of a uniform angle."""
    b1 = 0.6
    a = adam_start.shares(b1, 2)
    found = adam_start.step_square(b1, 1 - 1e-13, 2)
    assert found == pytest.approx(float(np.square(a).sum()), rel=1e-10)
    assert adam_start.largest_square(b1, 1 - 1e-13, 2) == pytest.approx(2 * np.square(a).sum())


def test_no_memory_of_the_squares_of_what_is_remembered():
    assert adam_start.step_square(0.0, 0.0, 5) == pytest.approx(1.0, rel=1e-12)
    assert adam_start.step_square(0.5, 0.0, 5) == math.inf


def test_against_a_sample():
    draws = np.random.default_rng(3).normal(size=(9, 200_000))
    a, shares = adam_start.shares(0.8, 9), adam_start.shares(0.9, 9)
    square = np.square(a @ draws) / (shares @ np.square(draws))
    largest = adam_start.largest_square(0.8, 0.9, 9)
    assert square.max() <= largest
    t = largest * math.sqrt(math.log(2e12) / (2 * 200_000))  # Hoeffding, 1e-12
    assert abs(square.mean() - adam_start.step_square(0.8, 0.9, 9)) < t


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adam_start.shares(1.0, 3), "decay must be at least 0 and below 1; received 1"),
        (lambda: adam_start.shares(0.9, 0), "steps must be at least 1; received 0"),
        (lambda: adam_start.inverse_moment(0.9, 3, 0.0), "power must be"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
