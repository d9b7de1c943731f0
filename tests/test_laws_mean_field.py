"""Mean-field theory against mpmath, closed forms and published values."""

import math

import mpmath as mp
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import mean_field as laws
from isometry.common.laws.activations import sigmoid_gradient

mp.mp.dps = 25
EXACT = {  # phi and phi' for mpmath
    "tanh": (mp.tanh, lambda u: mp.sech(u) ** 2),
    "erf": (mp.erf, lambda u: 2 / mp.sqrt(mp.pi) * mp.exp(-u * u)),
    "sigmoid": (
        lambda u: 1 / (1 + mp.exp(-u)),
        lambda u: mp.exp(-abs(u)) / (1 + mp.exp(-abs(u))) ** 2,
    ),
    "relu": (lambda u: max(u, 0), lambda u: mp.mpf(u > 0)),
    "leaky_relu": (
        lambda u: u if u > 0 else mp.mpf(0.01) * u,
        lambda u: mp.mpf(1) if u > 0 else mp.mpf(0.01),
    ),
    "linear": (lambda u: u, lambda u: mp.mpf(1)),
}
ELU = laws.Activation(
    lambda u: np.where(u > 0, u, np.expm1(np.minimum(u, 0))),
    lambda u: np.exp(np.minimum(u, 0)),
)


def expected(f, q):
    """E f(u), u ~ N(0, q), to 20 digits."""
    s = mp.sqrt(q)
    limits = [-mp.inf, -8, -2, -0.5, 0, 0.5, 2, 8, mp.inf]
    return mp.quad(lambda z: f(s * z) * mp.npdf(z), limits)


@pytest.mark.parametrize("activation", EXACT)
@pytest.mark.parametrize("q", [1e-6, 0.37, 2.9, 33.0])
def test_second_moments_against_mpmath(activation, q):
    found = laws.second_moments(activation, q)
    exact = [float(expected(lambda u, f=f: f(u) ** 2, q)) for f in EXACT[activation]]
    assert found == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("activation", [n for n, a in laws.ACTIVATIONS.items() if a.pair])
@pytest.mark.parametrize("c", [-1.0, -0.7, 0.3, 0.99, 1 - 1e-9, 1.0])
def test_quadrature_of_pairs_is_the_closed_form(activation, c):
    """Each checks the other: kinks, unequal variances, correlations near +-1."""
    closed = laws.ACTIVATIONS[activation]
    plain = laws.Activation(closed.value, closed.slope, closed.kinks)
    exact = laws.pair_moments(closed, 0.7, 1.9, c)
    # at c near 1 the values are of size 1; at -1 ReLU's are exactly 0
    assert laws.pair_moments(plain, 0.7, 1.9, c) == pytest.approx(exact, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("q", [1e-3, 0.8, 20.0])
def test_quadrature_of_one_is_the_closed_form(q):
    for closed in (a for a in laws.ACTIVATIONS.values() if a.pair):
        plain = laws.Activation(closed.value, closed.slope, closed.kinks)
        assert laws.second_moments(plain, q) == pytest.approx(closed.pair(q, q, 1.0), rel=1e-12)


def hermite(k, z):
    """He_k(z) / sqrt(k!) by its recursion."""
    before, he = mp.mpf(0), mp.mpf(1)
    for j in range(k):
        before, he = he, (z * he - mp.sqrt(j) * before) / mp.sqrt(j + 1)
    return he


def test_pairs_of_tanh_against_a_series():
    """E f(u_1) f(u_2) = sum_k a_k(q_1) a_k(q_2) c^k, a_k(q) = E f(sqrt(q) z) He_k(z) / sqrt(k!)."""
    q_1, q_2, c = 0.6, 1.7, -0.2
    exact = [
        sum(
            c**k
            * expected(lambda z, k=k, f=f: f(math.sqrt(q_1) * z) * hermite(k, z), 1)
            * expected(lambda z, k=k, f=f: f(math.sqrt(q_2) * z) * hermite(k, z), 1)
            for k in range(odd, 16, 2)
        )
        for odd, f in zip((1, 0), EXACT["tanh"], strict=True)
    ]
    found = laws.pair_moments("tanh", q_1, q_2, c)
    assert found == pytest.approx([float(e) for e in exact], rel=1e-11)


def test_pairs_of_elu_against_a_series():
    """The same with coefficients by 1-D quadrature, for a kink in the second derivative."""
    q, c = 1.3, 0.35
    total, s = 0.0, math.sqrt(q)
    for k in range(30):
        he = np.polynomial.hermite_e.HermiteE.basis(k)
        a = laws.expectation(lambda u, he=he: ELU.value(u) * he(u / s), q)
        total += a * a * c**k / math.factorial(k)
    assert laws.pair_moments(ELU, q, q, c)[0] == pytest.approx(total, rel=1e-11)


def test_expectations_of_polynomials_and_exponentials():
    assert laws.expectation(lambda u: u**6, 1.7) == pytest.approx(15 * 1.7**3, rel=1e-13)
    assert laws.expectation(np.exp, 2.3) == pytest.approx(math.exp(1.15), rel=1e-13)
    assert laws.expectation(lambda u: np.cos(3 * u), 0.9) == pytest.approx(
        math.exp(-4.05), rel=1e-11
    )
    hard = lambda u: np.clip(u, -1, 1) ** 2  # noqa: E731
    exact = mp.quad(
        lambda u: min(abs(u), 1) ** 2 * mp.npdf(u, 0, mp.sqrt(mp.mpf("0.8"))),
        [-mp.inf, -4, -1, 1, 4, mp.inf],
    )
    assert laws.expectation(hard, 0.8, kinks=(-1, 1)) == pytest.approx(float(exact), rel=1e-12)


def fixed_point(activation, weight, bias, guess):
    """q* by mpmath's root finder."""
    phi = EXACT[activation][0]
    return mp.findroot(
        lambda q: weight * expected(lambda u: phi(u) ** 2, q) + bias - q, guess, tol=1e-18
    )


@pytest.mark.parametrize(
    ("activation", "weight", "bias", "guess"),
    [("tanh", "1.45", "0.021", 0.4), ("tanh", "6.3", "0.7", 5.0), ("sigmoid", "20", "0.4", 7.0)],
)
def test_fixed_point_and_chi_against_mpmath(activation, weight, bias, guess):
    q = fixed_point(activation, mp.mpf(weight), mp.mpf(bias), guess)
    slope = EXACT[activation][1]
    found = laws.mean_field(activation, float(weight), float(bias))
    chi = mp.mpf(weight) * expected(lambda u: slope(u) ** 2, q)
    assert found.q == pytest.approx(float(q), rel=1e-11)
    assert found.chi_1 == pytest.approx(float(chi), rel=1e-11)


def test_depth_scales_against_mpmath():
    """xi_q by the formula of Schoenholz et al. with the second derivative of tanh."""
    w, b = mp.mpf("1.2"), mp.mpf("0.3")
    q = fixed_point("tanh", w, b, 0.5)
    chi = w * expected(lambda u: mp.sech(u) ** 4, q)
    bent = w * expected(lambda u: -2 * mp.tanh(u) ** 2 * mp.sech(u) ** 2, q)
    found = laws.mean_field("tanh", 1.2, 0.3)
    assert found.c == 1
    assert found.xi_c == pytest.approx(float(-1 / mp.log(chi)), rel=1e-10)
    assert found.xi_q == pytest.approx(float(-1 / mp.log(chi + bent)), rel=1e-10)


def test_erf_by_its_closed_form():
    """q* of erf with no quadrature: q = w (2 / pi) asin(2 q / (1 + 2 q)) + b."""
    w, b = mp.mpf("2.6"), mp.mpf("0.17")
    q = mp.findroot(lambda q: w * 2 / mp.pi * mp.asin(2 * q / (1 + 2 * q)) + b - q, 1.5)
    root = lambda c: (  # noqa: E731
        (w * 2 / mp.pi * mp.asin(2 * q * c / (1 + 2 * q)) + b) / q - c
    )
    c = mp.findroot(root, 0.4)
    slope = w * 4 / mp.pi / mp.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2)
    found = laws.mean_field("erf", 2.6, 0.17)
    assert found.q == pytest.approx(float(q), rel=1e-12)
    assert found.chi_1 == pytest.approx(float(w * 4 / mp.pi / mp.sqrt(1 + 4 * q)), rel=1e-12)
    assert found.c == pytest.approx(float(c), rel=1e-11)
    assert found.xi_c == pytest.approx(float(-1 / mp.log(slope)), rel=1e-10)


def test_chaotic_tanh_is_a_fixed_point_of_its_own_map():
    found = laws.mean_field("tanh", 2.7, 0.11)
    assert 0 < found.c < 1 < found.chi_1
    assert found.correlation(found.c) == pytest.approx(found.c, abs=1e-13)
    assert found.correlation(1.0) == pytest.approx(1.0, abs=1e-11)
    near = (found.correlation(found.c + 1e-4) - found.correlation(found.c - 1e-4)) / 2e-4
    assert found.xi_c == pytest.approx(-1 / math.log(near), rel=1e-7)
    assert (1 - found.correlation(1 - 1e-6)) / 1e-6 == pytest.approx(found.chi_1, rel=1e-5)


def test_relu_in_closed_form():
    found = laws.mean_field("relu", 1.3, 0.21)
    assert found.q == pytest.approx(0.21 / (1 - 0.65), rel=1e-14)
    assert (found.chi_1, found.c) == (0.65, 1.0)
    assert found.xi_q == pytest.approx(-1 / math.log(0.65), rel=1e-12)
    critical = laws.mean_field("relu", 2.0, 0.0, start=0.77)
    assert (critical.q, critical.chi_1, critical.xi_c) == (0.77, 1.0, math.inf)


@pytest.mark.parametrize(
    ("weight", "bias", "q", "chi_1", "c", "xi_q", "xi_c"),
    [
        (1.69, 0.09, 0.6070467919, 0.9398074287, 1, 1.337668, 16.10817),
        (3, 0.05, 1.428008462, 1.208934424, 0.29931764, 1.041461, 9.051456),
        (2, 0, 0.6179647698, 1.10552882, 0, 1.685565, 21.72367),
    ],
)
def test_known_values_of_tanh(weight, bias, q, chi_1, c, xi_q, xi_c):
    found = laws.mean_field("tanh", weight, bias)
    assert (found.q, found.chi_1) == pytest.approx((q, chi_1), rel=1e-9)
    assert found.c == pytest.approx(c, abs=1e-8)
    assert (found.xi_q, found.xi_c) == pytest.approx((xi_q, xi_c), rel=1e-6)


@pytest.mark.parametrize("q", ["0.09", "0.83", "2.6"])
def test_critical_line_of_tanh_against_mpmath(q):
    """Any q* > 0 is critical for one pair of variances, both in closed form of it."""
    q = mp.mpf(q)
    weight = 1 / expected(lambda u: mp.sech(u) ** 4, q)
    bias = q - weight * expected(lambda u: mp.tanh(u) ** 2, q)
    assert laws.critical_bias("tanh", float(weight)) == pytest.approx(
        (float(q), float(bias)), rel=1e-10, abs=3e-15
    )
    assert laws.critical_weight("tanh", float(bias)) == pytest.approx(
        (float(q), float(weight)), rel=1e-10
    )
    found = laws.mean_field("tanh", float(weight), float(bias))
    assert found.chi_1 == pytest.approx(1, abs=1e-10)


def test_critical_line_of_erf_in_closed_form():
    q = 1.234
    weight = math.pi / 4 * math.sqrt(1 + 4 * q)
    bias = q - weight * 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    assert laws.critical_bias("erf", weight) == pytest.approx((q, bias), rel=1e-12)
    assert laws.critical_weight("erf", bias) == pytest.approx((q, weight), rel=1e-10)


def test_critical_line_of_known_activations():
    assert laws.critical_bias("tanh", 1.05)[1] == pytest.approx(2.01e-5, rel=1e-3)  # Xiao 2018
    assert laws.critical_bias("tanh", 2.25) == pytest.approx((1.11966150524, 0.186143746231))
    assert laws.critical_weight("tanh", 0.05) == pytest.approx((0.570047881641, 1.76095463961))
    assert laws.critical_bias("tanh", 1.0) == (0.0, 0.0)
    assert laws.critical_weight("tanh", 0.0) == (0.0, 1.0)
    assert laws.critical_bias("relu", 2.0)[1] == 0
    assert laws.critical_weight("relu", 0.0)[1] == 2
    assert laws.critical_weight("linear", 0.0)[1] == 1


def test_any_activation_may_be_given():
    """A sigmoid moved to be odd is tanh(u / 2) / 2: the same line, in other variances."""
    centred = laws.Activation(lambda u: np.tanh(u / 2) / 2, sigmoid_gradient)
    q, weight = laws.critical_weight("tanh", 0.2)
    found_q, found_weight = laws.critical_weight(centred, 0.8)
    assert found_q == pytest.approx(4 * q, rel=1e-10)
    assert found_weight == pytest.approx(16 * weight, rel=1e-10)


@pytest.mark.parametrize(
    ("activation", "weight", "bias", "message"),
    [
        ("relu", 2.0, 0.1, "no fixed point found: q grows.* the last iterate is q = 10"),
        ("relu", 2.5, 0.0, "no fixed point found: q grows"),
        ("linear", 1.0, 0.1, "no fixed point found: q grows"),
        (laws.Activation(np.exp, np.exp), 1.0, 0.1, "no fixed point found.*last iterate is q ="),
        (
            laws.Activation(np.log, lambda u: 1 / u),
            1.0,
            0.1,
            "no fixed point found: .* did not converge",
        ),
    ],
)
def test_no_fixed_point(activation, weight, bias, message):
    with pytest.raises(InvalidArgument, match=message):
        laws.mean_field(activation, weight, bias)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.mean_field("tahn", 1, 0), "did you mean 'tanh'"),
        (lambda: laws.mean_field("tanh", -1, 0), "weight must be at least 0"),
        (lambda: laws.mean_field("tanh", 1, math.nan), "bias must be finite"),
        (lambda: laws.mean_field("tanh", 1, 0, start=0), "start must be greater than 0"),
        (lambda: laws.pair_moments("tanh", 1, 1, 1.5), "c must be a correlation"),
        (lambda: laws.critical_bias("tanh", 0.9), "chi_1 is never 1"),
        (lambda: laws.critical_bias("relu", 1.9), "chi_1 is never 1"),
        (lambda: laws.critical_weight("relu", 0.1), "critical at sigma_b\\^2 = 0 alone"),
        (lambda: laws.critical_bias("sigmoid", 60), "below 0"),
        (lambda: laws.expectation(lambda u: np.clip(u, -1, 1) ** 2, 0.8), "did not converge"),
        (lambda: laws.expectation(lambda u: np.sin(400 * u) ** 2, 50.0), "did not converge"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
