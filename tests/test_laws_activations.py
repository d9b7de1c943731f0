"""The laws of activations, the formats, and the ULP distance, against mpmath in 50 digits."""

from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import activations as laws
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics.tolerances import ACTIVATION_ULP, ulp_distance

DTYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
EDGE = {"sigmoid": 708.39, "tanh": 354.89}  # the derivative is normal in float64


@pytest.fixture(autouse=True)
def _fifty_digits():
    with mpmath.workdps(50):
        yield


def mp_sigmoid(x):
    return 1 / (1 + mpmath.exp(-mpmath.mpf(x)))


def mp_sigmoid_gradient(x):
    with mpmath.workdps(700):  # y (1 - y) itself, with digits enough for the cancellation
        y = mp_sigmoid(x)
        return +(y * (1 - y))


def mp_tanh_gradient(x):
    with mpmath.workdps(700):
        return 1 - mpmath.tanh(mpmath.mpf(x)) ** 2


ORACLES = {
    "sigmoid": (laws.sigmoid, laws.sigmoid_gradient, mp_sigmoid, mp_sigmoid_gradient),
    "tanh": (laws.tanh, laws.tanh_gradient, mpmath.tanh, mp_tanh_gradient),
}


def grid(activation):
    edge = EDGE[activation]
    rng = np.random.default_rng(5)
    near = np.ldexp(rng.uniform(1, 2, 60), rng.integers(-60, 4, 60)) * rng.choice([-1, 1], 60)
    return np.concatenate(
        [np.linspace(-edge, edge, 101), near, [0.0, 1e-5, 0.99e-5, -0.99e-5, 5e-324]]
    )


@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_references_and_the_decimal_oracle_agree_with_mpmath(activation):
    value, gradient, mp_value, mp_gradient = ORACLES[activation]
    x = grid(activation)
    for reference, oracle, right in (
        (value, laws.exact, mp_value),
        (gradient, laws.exact_gradient, mp_gradient),
    ):
        exact = np.array([right(mpmath.mpf(float(v))) for v in x], dtype=object)
        assert ulp_distance(reference(x), exact, "float64").max() <= ACTIVATION_ULP["float64"]
        for decimal, other in zip(oracle(activation, x), exact, strict=True):
            ours = mpmath.mpf(str(decimal))
            assert abs(ours - other) <= abs(other) * mpmath.mpf(10) ** -44


@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_the_decimal_oracle_is_continuous_where_tanh_changes_formula(activation):
    below, above = np.nextafter(1e-5, 0), 1e-5
    low, high = laws.exact(activation, np.array([below, above]))
    slope = laws.exact_gradient(activation, np.array([above]))[0]
    step = (Decimal(above) - Decimal(below)) * slope
    assert abs((high - low) / step - 1) < Decimal("1e-20")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_largest_normal_separates_normal_from_subnormal_derivatives(activation, dtype):
    gradient = ORACLES[activation][3]
    x = laws.largest_normal(activation, dtype)
    smallest = float(FORMATS[dtype].smallest_normal)
    assert gradient(x * (1 - 1e-14)) >= smallest > gradient(x * (1 + 1e-14))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_rounds_to_one_is_where_the_exact_value_rounds_to_one(activation, dtype):
    value = ORACLES[activation][2]
    x = mpmath.mpf(laws.rounds_to_one(activation, dtype))
    half_below_one = 1 - mpmath.ldexp(1, -FORMATS[dtype].precision - 1)
    assert value(x * (1 - mpmath.mpf("1e-14"))) < half_below_one
    assert value(x * (1 + mpmath.mpf("1e-14"))) > half_below_one


def test_the_thresholds_are_those_of_the_contract():
    assert laws.largest_normal("sigmoid", "float32") == pytest.approx(87.3365, abs=1e-4)
    assert laws.largest_normal("sigmoid", "float64") == pytest.approx(708.3964, abs=1e-4)
    assert laws.largest_normal("tanh", "float32") == pytest.approx(44.3614, abs=1e-4)
    assert laws.largest_normal("tanh", "float64") == pytest.approx(354.8914, abs=1e-4)
    assert laws.rounds_to_one("tanh", "float32") == pytest.approx(9.0109, abs=1e-4)


def test_piecewise_linear_activations_at_their_hard_points():
    x = np.array([-np.inf, -2.0, -0.0, 0.0, 5e-324, 3.0, np.inf, np.nan])
    np.testing.assert_array_equal(laws.relu(x), [0, 0, 0, 0, 5e-324, 3, np.inf, np.nan])
    np.testing.assert_array_equal(laws.relu_gradient(x), [0, 0, 0, 0, 1, 1, 1, np.nan])
    np.testing.assert_array_equal(
        laws.leaky_relu(x, slope=0.5), [-np.inf, -1, 0, 0, 5e-324, 3, np.inf, np.nan]
    )
    np.testing.assert_array_equal(
        laws.leaky_relu_gradient(x, slope=0.5), [0.5, 0.5, 0.5, 0.5, 1, 1, 1, np.nan]
    )


def test_infinities_and_nan():
    x = np.array([-np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(laws.sigmoid(x), [0, 1, np.nan])
    np.testing.assert_array_equal(laws.sigmoid_gradient(x), [0, 0, np.nan])
    np.testing.assert_array_equal(laws.tanh_gradient(x), [0, 0, np.nan])


@pytest.mark.parametrize("function", [laws.exact, laws.exact_gradient])
def test_unknown_activation(function):
    with pytest.raises(InvalidArgument, match=r"unknown activation 'relu': known are"):
        function("relu", np.zeros(1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_formats_are_those_of_numpy_and_ml_dtypes(dtype):
    info, fmt = ml_dtypes.finfo(DTYPES[dtype]), FORMATS[dtype]
    assert fmt.largest == float(info.max)
    assert fmt.smallest_normal == float(info.smallest_normal)
    assert fmt.eps == fmt.ulp(np.array(1.0)) == float(info.eps)
    assert fmt.ulp(np.array(0.0)) == float(info.smallest_subnormal)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_ulp_is_numpys_spacing(dtype):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**15 - 2**10 - 1, 500).astype(np.uint64)  # any finite float16 pattern
    itemsize = np.dtype(dtype).itemsize
    x = (bits << np.uint64(8 * itemsize - 16)).astype(f"uint{8 * itemsize}").view(dtype)
    np.testing.assert_array_equal(FORMATS[dtype].ulp(x), np.spacing(x).astype(np.float64))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_neighbours_are_one_ulp_apart(dtype):
    x = np.array([1.5, 3e-5, -700.0], dtype=dtype)
    neighbour = np.nextafter(x, np.array(np.inf, dtype=dtype))
    for exact in (x.astype(np.float64), np.array([Decimal(float(v)) for v in x])):
        np.testing.assert_array_equal(ulp_distance(neighbour, exact, dtype), [1, 1, 1])
        np.testing.assert_array_equal(ulp_distance(x, exact, dtype), [0, 0, 0])


def test_bfloat16_arrives_as_float32():
    x = np.array([1.0, 1.0 + 2**-7], np.float32)
    np.testing.assert_array_equal(ulp_distance(x, np.ones(2), "bfloat16"), [0, 1])


def test_a_third_of_a_ulp_is_seen_in_float64():
    third = 1 + Fraction(1, 3 * 2**52)
    assert ulp_distance(np.ones(1), np.array([third]), "float64") == 1 / 3


def test_distance_of_special_values():
    observed = np.array([np.nan, np.inf, np.nan, 1.0, np.inf, -np.inf])
    exact = np.array([np.nan, np.inf, 1.0, np.nan, 1.0, np.inf])
    expected = [0, 0, np.inf, np.inf, np.inf, np.inf]
    np.testing.assert_array_equal(ulp_distance(observed, exact, "float32"), expected)
    lost = ulp_distance(np.array([np.nan]), np.array([Decimal(1)]), "float64")
    np.testing.assert_array_equal(lost, [np.inf])


def test_unknown_dtype():
    with pytest.raises(InvalidArgument, match=r"did you mean 'float32'"):
        ulp_distance(np.ones(1), np.ones(1), "floot32")
