"""Bounds of products of matrices, and gradients as products: against mpmath and by hand."""

import mpmath as mp
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import jacobians
from isometry.common.laws import matrix_bounds as laws
from isometry.common.statistics.running_error import bound

A = [[4, -1, 2], [0, 3, 1], [5, 2, -2]]
B = [[1, 7, 0], [-2, 1, 3], [2, 2, 6]]


def exact_singular(matrix):
    return np.array([float(v) for v in mp.svd_r(mp.matrix(matrix), compute_uv=False)])


def test_intervals_hold_the_singular_values_of_a_product_and_are_the_narrowest_of_their_kind():
    s, t, p = (exact_singular(m) for m in (A, B, np.array(A) @ np.array(B)))
    low, high = laws.singular_intervals(s, t)
    assert (low < p).all()
    assert (p < high).all()
    for k in range(3):
        assert high[k] == min(s[i] * t[j] for i in range(3) for j in range(3) if i + j == k)
        assert low[k] == max(s[i] * t[j] for i in range(3) for j in range(3) if i + j == k + 2)


def test_horn_is_the_determinant_at_the_end():
    s, t, p = (exact_singular(m) for m in (A, B, np.array(A) @ np.array(B)))
    horn, logs = laws.horn_logs(s, t), laws.log_products(p)
    assert (logs[:2] < horn[:2]).all()
    determinant = abs(mp.det(mp.matrix(A)) * mp.det(mp.matrix(B)))
    assert horn[2] == pytest.approx(float(mp.log(determinant)), rel=1e-14)
    assert logs[2] == pytest.approx(horn[2], rel=1e-14)
    assert laws.log_products(np.array([2.0, 0.0]))[1] == -np.inf


@pytest.mark.parametrize("high", [True, False])
def test_each_end_is_reached(high):
    for n in (1, 2, 5):
        for k in range(1, n + 1):
            a, b = laws.reaching(k, n, ratio=3.0, high=high)
            s, t = (np.sort(v)[::-1] for v in (a, b))
            assert np.sort(a * b)[::-1][k - 1] == 1.0
            assert laws.singular_intervals(s, t)[high][k - 1] == pytest.approx(1.0, rel=1e-15)
    assert laws.reaching(3, 3, ratio=3.0, high=True)[0].max() == 3.0


def test_condition_and_rank_intervals():
    low, high = laws.condition_interval(np.array([8.0, 2.0]), np.array([2.0, 8.0]))
    assert low.tolist() == [4, 4]
    assert high.tolist() == [16, 16]
    assert laws.rank_interval(3, 4, 5) == (2, 3)
    assert laws.rank_interval(1, 2, 5) == (0, 1)


def test_ostrowski_turns_with_the_sign():
    low, high = laws.ostrowski_interval(np.array([3.0, -2.0]), np.array([2.0, 0.5]))
    assert low.tolist() == [0.75, -8.0]
    assert high.tolist() == [12.0, -0.5]


@pytest.mark.parametrize("x", [1.0, 1.7, 30.0])
def test_the_condition_of_a_gaussian_matrix_by_integration(x):
    """c <= x where |u - v| / (u + v) >= 2x / (x**2 + 1), u and v exponential."""
    share = mp.mpf(2) * x / (mp.mpf(x) ** 2 + 1)
    ratio = (1 - share) / (1 + share)  # v / u, of density 1 / (1 + r)**2
    exact = 2 * mp.quad(lambda r: 1 / (1 + r) ** 2, [0, ratio])
    assert float(laws.gaussian_condition_cdf(np.array(x))) == pytest.approx(float(exact), abs=1e-14)


def test_its_mean_logarithm():
    def tail(x):
        return 1 - float(laws.gaussian_condition_cdf(np.array(float(x))))

    mean = mp.quad(lambda u: tail(mp.exp(u)), [0, 5, 40])
    assert float(mean) == pytest.approx(laws.GAUSSIAN_LOG_CONDITION, abs=1e-8)


def test_what_is_refused():
    with pytest.raises(InvalidArgument, match=r"received arrays of shapes \(2,\) and \(3,\)"):
        laws.singular_intervals(np.ones(2), np.ones(3))
    with pytest.raises(InvalidArgument, match=r"at least 1; received 0\.5"):
        laws.condition_interval(np.array([0.5]), np.array([2.0]))
    with pytest.raises(InvalidArgument, match="rank of B must be between 0 and 3"):
        laws.rank_interval(1, 4, 3)
    with pytest.raises(InvalidArgument, match="k must be between 1 and 3"):
        laws.reaching(0, 3, ratio=2.0, high=True)
    with pytest.raises(InvalidArgument, match="activation"):
        jacobians.gradients("relu", [np.ones((1, 1))], np.ones(1), "float64")


# --- gradients -----------------------------------------------------------------------------------

PHI = {"linear": lambda z: z, "tanh": mp.tanh, "sigmoid": lambda z: 1 / (1 + mp.exp(-z))}
WEIGHTS = [np.array([[0.5, -1.25], [2.0, 0.75]]), np.array([[1.5, 0.25], [-0.5, 1.0]])]
LAST = np.array([[0.75, -2.0]])
X = np.array([0.375, -1.5])


def output(activation, weights, x):
    h = mp.matrix(x.tolist())
    for W in weights:
        z = mp.matrix(W.tolist()) * h
        h = mp.matrix([PHI[activation](v) for v in z])
    return (mp.matrix(LAST.tolist()) * h)[0]


@pytest.mark.parametrize("activation", jacobians.ACTIVATIONS)
def test_gradients_against_numerical_differentiation(activation):
    v, to_weights = jacobians.gradients(activation, [*WEIGHTS, LAST], X, "float64")
    with mp.workdps(40):
        for k in range(2):

            def along(e, k=k):
                return output(
                    activation, WEIGHTS, X + np.array([mp.mpf(0)] * k + [e] + [0] * (1 - k))
                )

            exact = float(mp.diff(along, 0))
            assert v.value[0, k] == pytest.approx(exact, rel=1e-14, abs=1e-15)
        for place in np.ndindex(2, 2, 2):

            def along(e, place=place):
                moved = [W.astype(object) for W in WEIGHTS]
                moved[place[0]][place[1:]] += e
                return output(activation, moved, X)

            exact = float(mp.diff(along, 0))
            found = to_weights[place[0]].value[place[1:]]
            assert found == pytest.approx(exact, rel=1e-14, abs=1e-15)


def test_the_running_error_bounds_float32_and_is_not_idle():
    weights = [*WEIGHTS, LAST]
    v, _ = jacobians.gradients("tanh", weights, X, "float32")
    h, slopes = X.astype(np.float32), []
    for W in WEIGHTS:
        h = np.tanh(W.astype(np.float32) @ h)
        slopes.append(np.float32(1) - h * h)
    g = LAST.astype(np.float32)
    for W, slope in zip(WEIGHTS[::-1], slopes[::-1], strict=True):
        g = (g * slope) @ W.astype(np.float32)
    share = np.abs(g - v.value) / bound(v, "float32")
    assert 1e-4 < share.max() <= 1
