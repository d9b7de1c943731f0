"""Mean-field signals by layer: closed forms, series, and the other recursion of the project."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from isometry.common.errors import InvalidArgument
from isometry.common.laws import arc_cosine, propagation
from isometry.common.laws.mean_field import second_moments
from isometry.common.laws.signals import propagate, propagate_images, propagate_sequences

WIDTHS = (30, 50, 50, 50, 20)


def test_relu_is_the_arc_cosine_recursion():
    """He's rule keeps M; the cosine goes through K at each layer."""
    found = propagate("relu", WIDTHS, [2 / n for n in WIDTHS[:-1]], second=0.7, cosine=0.37)
    np.testing.assert_allclose(found.second, [0.7] * 4 + [1.4], rtol=1e-12)
    cosines = [0.37]
    for _ in range(3):
        cosines.append(float(arc_cosine.correlation(cosines[-1])))
    np.testing.assert_allclose(found.cosine, [*cosines, cosines[-1]], rtol=1e-12)
    # D_3 = 1/2 * 20 * 2/50, then each step n s**2 / 2 = 1
    np.testing.assert_allclose(found.gradient, [0.4, 0.4, 0.4, 1.0], rtol=1e-12)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_second_moments_are_those_of_the_other_recursion(activation):
    variances = [1.3 / n for n in WIDTHS[:-1]]
    found = propagate(activation, WIDTHS, variances)
    forward, _ = propagation.second_moments(activation, WIDTHS[:-1], variances[:-1])
    np.testing.assert_allclose(found.second[:-1], forward, rtol=1e-8)


def test_one_tanh_layer_with_bias_against_hermite_series():
    """Mehler: ``E phi(u) phi(u') = sum_k a_k**2 (p / q)**k``, a_k Hermite coefficients of phi."""
    found = propagate("tanh", (40, 40, 9), [1.7 / 40, 0.3 / 40], bias=0.21, second=0.9, cosine=0.6)
    q, p = 1.7 * 0.9 + 0.21, 1.7 * 0.54 + 0.21
    z = np.linspace(-13, 13, 4001)  # trapezoids converge exponentially on a Gaussian
    weights = norm.pdf(z) * (z[1] - z[0])
    phi = np.tanh(math.sqrt(q) * z)
    square = weights @ phi**2
    slope = weights @ (1 - phi**2) ** 2
    before, polynomial, product = np.zeros_like(z), np.ones_like(z), 0.0
    for k in range(80):  # orthonormal polynomials by their recurrence
        product += (weights @ (phi * polynomial)) ** 2 * (p / q) ** k
        following = (z * polynomial - math.sqrt(k) * before) / math.sqrt(k + 1)
        before, polynomial = polynomial, following
    assert found.second[1] == pytest.approx(square, rel=1e-10)
    assert found.cosine[1] == pytest.approx(product / square, rel=1e-9)
    assert found.second[2] == pytest.approx(0.3 * square + 0.21, rel=1e-10)
    assert found.gradient[0] == pytest.approx(slope * 9 * 0.3 / 40, rel=1e-10)


def test_residual_closed_forms():
    """Linear: M and G grow by 1 + n s**2 a layer. ReLU: E relu(u) = sqrt(q / (2 pi))."""
    widths = (50, 50, 50, 50)
    found = propagate("linear", widths, [0.5 / 50] * 3, cosine=0.2, residual=True)
    np.testing.assert_allclose(found.second, [1, 1.5, 2.25, 1.125], rtol=1e-12)
    np.testing.assert_allclose(found.cosine, [0.2] * 4, rtol=1e-12)
    np.testing.assert_allclose(found.gradient, [0.75, 0.5, 1.0], rtol=1e-12)
    relu = propagate("relu", widths, [2 / 50] * 3, mean=0.4, cosine=1.0, residual=True)
    level = math.sqrt(2 / (2 * math.pi))
    first = 1 + 2 * 0.4 * level + 1
    second = first + 2 * (0.4 + level) * math.sqrt(2 * first / (2 * math.pi)) + first
    np.testing.assert_allclose(relu.second, [1, first, second, 2 * second], rtol=1e-10)
    np.testing.assert_allclose(relu.cosine, 1.0, rtol=1e-12)
    # without layers of one width nothing is added
    plain = propagate("tanh", (3, 4, 5), [0.1, 0.1])
    skipping = propagate("tanh", (3, 4, 5), [0.1, 0.1], residual=True)
    np.testing.assert_array_equal(plain.second, skipping.second)


def test_residual_theory_is_that_of_a_wide_net():
    """One wide net of random weights: averages over n units are right to about 5 / sqrt(n)."""
    n, rng = 3000, np.random.default_rng(4)
    h = rng.normal(size=(2, n)) + 0.5
    start = np.mean(h * h)
    found = propagate(
        "relu",
        (n, n, n, n),
        [1 / n] * 3,
        bias=0.04,
        second=start,
        cosine=np.mean(h[0] * h[1]) / start,
        mean=h.mean(),
        residual=True,
    )
    for layer in (1, 2):
        z = h @ rng.normal(size=(n, n)).T / math.sqrt(n) + 0.2 * rng.normal(size=n)
        h = h + np.maximum(z, 0)
        assert np.mean(h * h) == pytest.approx(found.second[layer], rel=0.1)
        assert np.mean(h[0] * h[1]) / np.mean(h * h) == pytest.approx(found.cosine[layer], abs=0.05)


def test_nothing_arrives():
    found = propagate("relu", (3, 3, 3), [0.0, 0.0])
    np.testing.assert_array_equal(found.second, [1, 0, 0])
    np.testing.assert_array_equal(found.gradient, [0, 1])


def test_refuses():
    with pytest.raises(InvalidArgument, match="a variance for each of 2 layers; received 1"):
        propagate("relu", (3, 3, 3), [1.0])
    with pytest.raises(InvalidArgument, match="did you mean 'tanh'"):
        propagate("tnah", (3, 3, 3), [1.0, 1.0])


# --- images and sequences ------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_an_even_image_is_an_input_of_nine_times_the_units(activation):
    """Every place of it sees the same: a fully connected net with fan_in c k k."""
    image = np.full((2, 3, 5, 5), 0.8)
    image[1, 0] = -0.8  # a cosine of 1/3
    variances = [0.05, 0.02, 0.011]
    found = propagate_images(activation, image, (3, 6, 8), variances, 4, bias=0.1)
    # the readout reads all 25 places of 8 channels
    there = propagate(activation, (27, 54, 200, 4), variances, bias=0.1, second=0.64, cosine=1 / 3)
    np.testing.assert_allclose(found.second, there.second, rtol=1e-11)
    np.testing.assert_allclose(found.cosine, there.cosine, rtol=1e-11)
    # back: 4 outputs of the readout, then 8 channels and 9 taps
    q = (27 * 0.05 * 0.64 + 0.1, 54 * 0.02 * there.second[1] + 0.1)
    slopes = [second_moments(activation, value)[1] for value in q]
    last = slopes[1] * 4 * 0.011
    expected = [slopes[0] * 8 * 9 * 0.02 * last, last, 1.0]
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-11)


def test_linear_images_by_hand():
    """One bright place: its square spreads over the taps, and over the edge or not.

    The other image is twice as bright there, and bright where the first is not.
    """
    image = np.zeros((1, 1, 4, 4))
    image[0, 0, 0, 0] = 4.0
    other = 2 * image
    other[0, 0, 0, 3] = 6.0
    for padding, seen in (("circular", (9, 81)), ("zero", (4, 25))):
        # after two layers each of the 9 (4) places that see it is seen by 9 (4, 6 or 9)
        found = propagate_images("linear", image, (1, 2, 2), [0.5, 0.25, 0.125], 3, padding=padding)
        first, second = 16 * 0.5 * seen[0] / 16, 16 * 0.5 * 2 * 0.25 * seen[1] / 16
        np.testing.assert_allclose(
            found.second, [1.0, first, second, 32 * 0.125 * second], rtol=1e-12
        )
        # an edge place is seen by fewer: 4 corners by 4, 8 edges by 6, 4 inside by 9
        pair = propagate_images(
            "linear",
            np.concatenate([image, other]),
            (1, 2, 2),
            [0.5, 0.25, 0.125],
            3,
            padding=padding,
        )
        np.testing.assert_allclose(pair.cosine, [0.8] * 4, rtol=1e-12)  # 8 of 10: all spread alike
        share = 9 if padding == "circular" else (4 * 4 + 8 * 6 + 4 * 9) / 16
        np.testing.assert_allclose(
            found.gradient, [3 * 0.125 * 2 * 0.25 * share, 3 * 0.125, 1.0], rtol=1e-12
        )


def test_linear_sequences_by_hand():
    x = np.array([[[1.0, 2.0], [0.0, 1.0]], [[0.0, 0.0], [3.0, 0.0]]])  # two steps of two examples
    found = propagate_sequences("linear", x, 4, (0.5, 0.125), bias=0.1)
    # q = s_W^2 ||x||^2 + 0.1, then 4 / 8 of it + s_W^2 ||x||^2 + 0.1
    first = [2.6, 0.6]
    second = [1.3 + 0.1, 0.3 + 4.5 + 0.1]
    np.testing.assert_allclose(found.second, [15 / 8, np.mean(first), np.mean(second)], rtol=1e-12)
    product = 0.5 * 2 + 0.1
    cosines = [2 / math.sqrt(5 * 10), product / math.sqrt(2.6 * 0.6)]
    cosines.append((product / 2 + 0.1) / math.sqrt(second[0] * second[1]))
    np.testing.assert_allclose(found.cosine, cosines, rtol=1e-12)
    np.testing.assert_allclose(found.gradient, [1.5, 1.0], rtol=1e-12)


def test_a_sequence_of_one_step_is_a_layer_with_bias():
    """Also where one of two signals has no variance: sigmoid of it is 1/2."""
    x = np.array([[[0.6, 0.8], [0.0, 0.0]]])
    found = propagate_sequences("sigmoid", x, 4, (1.3, 0.2))
    one = propagate("sigmoid", (2, 4, 1), [1.3, 1.0], second=0.5).second[1]
    assert found.second[1] == pytest.approx((one + 0.25) / 2, rel=1e-11)
    assert found.cosine[1] == pytest.approx(0.25 / math.sqrt(one * 0.25), rel=1e-11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: propagate_images("relu", np.ones((1, 1, 4, 4)), (1, 2), [1.0], 3),
            "a variance for each of 2 layers; received 1",
        ),
        (
            lambda: propagate_images("relu", np.ones((1, 1, 4, 4)), (1, 2), [1, 1], 3, kernel=2),
            "kernel must be odd",
        ),
        (
            lambda: propagate_images(
                "relu", np.ones((1, 1, 4, 4)), (1, 2), [1, 1], 3, padding="zeros"
            ),
            "did you mean 'zero'",
        ),
        (lambda: propagate_sequences("relu", np.ones((3, 1, 2)), 4, (1, 1)), "two examples"),
        (lambda: propagate_sequences("relu", np.ones((0, 2, 2)), 4, (1, 1)), "at least one step"),
    ],
)
def test_images_and_sequences_refuse(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
