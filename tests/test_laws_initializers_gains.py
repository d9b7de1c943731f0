"""The gains, against mpmath in 30 digits, and the two tables apart."""

import math

import mpmath as mp
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import gains
from isometry.common.laws.gains import exact_gain, pytorch_gain
from isometry.common.laws.mean_field import second_moments
from isometry.conformance import asserts

ALPHA = mp.mpf("1.6732632423543772848170429916717")  # Klambauer et al. 2017, eq. 14
SCALE = mp.mpf("1.0507009873554804934193349852946")
FUNCTIONS = {
    "linear": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "tanh": mp.tanh,
    "relu": lambda x: max(x, 0),
    "elu": lambda x: x if x > 0 else mp.expm1(x),
    "selu": lambda x: SCALE * (x if x > 0 else ALPHA * mp.expm1(x)),
    "gelu": lambda x: x * mp.ncdf(x),
    "silu": lambda x: x / (1 + mp.exp(-x)),
}
SLOPES = (0.0, 0.01, 0.25, 1.0, -0.5)


def _gain(f):
    with mp.workdps(30):
        limits = [-mp.inf, -8, -2, 0, 2, 8, mp.inf]
        return 1 / mp.sqrt(mp.quad(lambda x: mp.mpf(f(x)) ** 2 * mp.npdf(x), limits))


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_exact_gains_keep_the_second_moment(activation):
    exact = np.array(_gain(FUNCTIONS[activation]), dtype=object)
    asserts.within_ulp(np.array(exact_gain(activation)), exact, "float64", 4)


@pytest.mark.parametrize("slope", SLOPES)
def test_leaky_relu_has_one_gain_in_both_tables(slope):
    with mp.workdps(30):
        exact = np.array(mp.sqrt(2 / (1 + mp.mpf(slope) ** 2)), dtype=object)
    asserts.within_ulp(np.array(exact_gain("leaky_relu", slope=slope)), exact, "float64", 4)
    assert exact_gain("leaky_relu", slope=slope) == pytorch_gain("leaky_relu", slope=slope)


def test_the_tables_are_whole_and_differ_where_they_do():
    assert gains.EXACT.keys() == FUNCTIONS.keys()
    same = {name for name, gain in gains.PYTORCH.items() if abs(gain / exact_gain(name) - 1) < 1e-9}
    assert same == {"linear", "relu"}
    assert (pytorch_gain("tanh"), pytorch_gain("selu")) == (5 / 3, 0.75)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_gains_agree_with_the_propagation_of_signals(activation):
    second, _ = second_moments(activation, 1.0)
    assert exact_gain(activation) == pytest.approx(1 / math.sqrt(second), rel=1e-8)


def test_refusals():
    with pytest.raises(InvalidArgument, match="did you mean 'sigmoid'"):
        exact_gain("sigmoyd")
    with pytest.raises(InvalidArgument, match="unknown activation 'gelu'"):
        pytorch_gain("gelu")
    for slope in (math.nan, math.inf, "0.1"):
        with pytest.raises(InvalidArgument, match="slope"):
            exact_gain("leaky_relu", slope=slope)
