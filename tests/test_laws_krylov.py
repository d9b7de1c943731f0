"""Lanczos, quadrature, traces, closed-form Hessians, Marchenko and Pastur: against exact values."""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import hessians, krylov
from isometry.common.laws import marchenko_pastur as law
from isometry.common.laws import quadratic_descent as descent


def symmetric(size, seed=0):
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return matrix + matrix.T


# --- Lanczos -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 9, 30])
def test_lanczos_of_a_diagonal_has_hahn_s_coefficients(n):
    """diag(1 .. n) from ones: alpha (n + 1)/2, beta_k = k/2 sqrt((n**2 - k**2)/(4 k**2 - 1))."""
    d = np.arange(1.0, n + 1)
    found = krylov.lanczos(lambda v: d * v, np.ones(n), n)
    k = np.arange(1, n)
    np.testing.assert_allclose(found.diagonal, (n + 1) / 2, rtol=1e-11)
    beta = k / 2 * np.sqrt((n**2 - k**2) / (4 * k**2 - 1))
    np.testing.assert_allclose(found.off, beta, rtol=1e-9)
    assert found.residual == 0


@pytest.mark.parametrize("m", [3, 12])
def test_quadrature_of_the_second_difference(m):
    """From e_1 of tridiag(-1, 2, -1): Chebyshev's nodes 2 - 2 cos(k pi/(m + 1)) and weights."""

    def apply(v):
        padded = np.concatenate([[0.0], v, [0.0]])
        return 2 * v - padded[:-2] - padded[2:]

    start = np.zeros(50)
    start[0] = -3.0
    nodes, weights, _ = krylov.lanczos(apply, start, m).quadrature()
    angle = np.arange(1, m + 1) * math.pi / (m + 1)
    np.testing.assert_allclose(nodes, 2 - 2 * np.cos(angle), rtol=1e-12)
    np.testing.assert_allclose(weights, 2 / (m + 1) * np.sin(angle) ** 2, rtol=1e-11)


def test_full_reorthogonalization_leaves_no_ghosts():
    """A large isolated eigenvalue converges at once and would come again without it."""
    d = np.concatenate([np.linspace(0, 1, 99), [1e6]])
    nodes, _, _ = krylov.lanczos(lambda v: d * v, np.ones(100), 60).quadrature()
    assert (nodes > 2).sum() == 1
    assert nodes[-1] == pytest.approx(1e6, rel=1e-14)


def test_the_residual_bounds_the_error_and_the_end_is_inside():
    A = symmetric(40)
    exact = np.linalg.eigvalsh(A)
    for steps in (2, 5, 10, 20):
        nodes, weights, errors = krylov.lanczos(lambda v: A @ v, np.ones(40), steps).quadrature()
        distance = np.abs(nodes[:, None] - exact).min(axis=1)
        assert (distance <= errors + 1e-12).all()
        assert exact[0] - 1e-12 <= nodes[0]
        assert nodes[-1] <= exact[-1] + 1e-12
        assert weights.sum() == pytest.approx(1, rel=1e-14)


def test_quadrature_is_exact_to_degree_2m_minus_1_and_not_beyond():
    A, probes = symmetric(7), np.random.default_rng(1).normal(size=(3, 7))
    seen = krylov.spectrum(lambda v: A @ v, probes, 3)
    for power in range(7):
        exact = [v @ np.linalg.matrix_power(A, power) @ v for v in probes]
        close = np.allclose(seen.power_sums(power), exact, rtol=1e-11)
        assert close is (power <= 5)


def test_a_spectrum_of_full_steps_is_the_exact_one():
    A = symmetric(6, seed=4)
    signs = np.array(list(itertools.product([-1, 1], repeat=6)))  # the mean over all is exact
    seen = krylov.spectrum(lambda v: A @ v, signs, 20)
    exact = np.linalg.eigvalsh(A)
    middles = (exact[1:] + exact[:-1]) / 2
    np.testing.assert_allclose(seen.below(middles), np.arange(1, 6) / 6, rtol=1e-10)
    assert seen.largest[0] == pytest.approx(exact[-1], rel=1e-13)
    assert seen.smallest[0] == pytest.approx(exact[0], rel=1e-13)
    x = np.linspace(-30, 30, 6001)
    density = seen.density(x, 0.2)
    assert density.sum() * 0.01 == pytest.approx(1, rel=1e-9)
    assert (x * density).sum() * 0.01 == pytest.approx(np.trace(A) / 6, rel=1e-9)


def test_an_invariant_space_stops_early_and_is_padded():
    d = np.array([1.0, 1.0, 2.0, 5.0])
    probes = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    seen = krylov.spectrum(lambda v: d * v, probes, 4)
    assert seen.nodes.shape == (2, 3)
    np.testing.assert_allclose(seen.nodes[0], [1, 2, 5], rtol=1e-13)
    np.testing.assert_allclose(seen.weights[0], [0.5, 0.25, 0.25], rtol=1e-13)
    np.testing.assert_allclose(seen.weights[1], [1, 0, 0], atol=1e-15)


def test_power_iteration():
    A = symmetric(20, seed=2) @ np.diag(np.ones(20))
    A = A @ A
    exact = np.linalg.eigvalsh(A)[-1]
    value, error, steps = krylov.power_iteration(
        lambda v: A @ v, np.ones(20), tolerance=1e-6, steps=5000
    )
    assert abs(value - exact) <= error
    assert steps < 5000
    assert krylov.power_iteration(lambda v: 0 * v, np.ones(3), tolerance=0.1, steps=5) == (0, 0, 1)


def test_what_krylov_refuses():
    with pytest.raises(InvalidArgument, match="not zero; its norm is 0"):
        krylov.lanczos(lambda v: v, np.zeros(3), 2)
    with pytest.raises(InvalidArgument, match="product 1 with the matrix is not finite"):
        krylov.lanczos(lambda v: np.inf * v, np.ones(3), 2)
    with pytest.raises(InvalidArgument, match="steps must be at least 1"):
        krylov.lanczos(lambda v: v, np.ones(3), 0)
    with pytest.raises(InvalidArgument, match="probes"):
        krylov.hutchinson_variance(np.eye(2), "uniform")


# --- Hutchinson ----------------------------------------------------------------------------------


def test_variance_over_signs_by_counting_all_of_them():
    for size, seed in ((3, 0), (8, 1)):
        A = symmetric(size, seed)
        signs = np.array(list(itertools.product([-1, 1], repeat=size)))
        values = np.einsum("ki,ij,kj->k", signs, A, signs)
        assert values.mean() == pytest.approx(np.trace(A), rel=1e-12)
        assert krylov.hutchinson_variance(A, "rademacher") == pytest.approx(values.var(), rel=1e-12)


def test_variance_over_gaussian_probes_by_the_fourth_moments():
    """E (v^T A v)**2 = (trace A)**2 + 2 trace A**2, from E v**4 = 3."""
    A = symmetric(4, seed=3)
    moments = np.zeros((4,) * 4)
    for i, j, k, m in itertools.product(range(4), repeat=4):
        moments[i, j, k, m] = (i == j) * (k == m) + (i == k) * (j == m) + (i == m) * (j == k)
    variance = np.einsum("ij,km,ijkm->", A, A, moments) - np.trace(A) ** 2
    assert krylov.hutchinson_variance(A, "gaussian") == pytest.approx(variance, rel=1e-12)


def test_the_bound_of_the_trace_holds_as_often_as_it_says():
    rng = np.random.default_rng(5)
    eigenvalues = np.array([10.0, -4.0, 1.0, 0.1])
    sample = (rng.normal(size=(20000, 6, 4)) ** 2 @ eigenvalues).mean(axis=1)
    off = np.abs(sample - eigenvalues.sum())
    for rate in (0.3, 0.01):
        assert (off > krylov.hutchinson_bound(eigenvalues, 6, rate)).mean() <= rate
    assert (off > krylov.hutchinson_bound(eigenvalues, 6, 1e-3) / 4).mean() > 1e-3


# --- closed forms --------------------------------------------------------------------------------

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-2.0, 1.0, 0.5], [0.1, 0.2, 0.3]])
Y = np.array([1.0, 0.0, 1.0, 0.0])


def numerical(loss, parameters):
    """The Hessian by mpmath, to 12 digits or more."""
    size = len(parameters)
    found = np.zeros((size, size))
    with mp.workdps(40):
        for i, j in itertools.combinations_with_replacement(range(size), 2):

            def along(s, t, i=i, j=j):
                w = [mp.mpf(float(p)) for p in parameters]
                w[i] += s
                w[j] += t
                return loss(w)

            found[i, j] = found[j, i] = float(mp.diff(along, (0, 0), (1, 1)))
    return found


def mean(values):
    return mp.fsum(values) / len(values)


def dot(w, row):
    return mp.fsum(a * mp.mpf(float(b)) for a, b in zip(w, row, strict=True))


def test_least_squares_and_logistic_by_numerical_differentiation():
    w = [0.5, -0.25, 1.0]
    exact = numerical(
        lambda w: mean([(dot(w, x) - y) ** 2 / 2 for x, y in zip(X, Y, strict=True)]), w
    )
    np.testing.assert_allclose(hessians.least_squares(X), exact, rtol=1e-12, atol=1e-13)

    def cross_entropy(w):
        return mean(
            [mp.log(1 + mp.exp(dot(w, x))) - y * dot(w, x) for x, y in zip(X, Y, strict=True)]
        )

    exact = numerical(cross_entropy, w)
    np.testing.assert_allclose(hessians.logistic(X, np.array(w)), exact, rtol=1e-12, atol=1e-13)


def test_softmax_by_numerical_differentiation_and_its_zero_modes():
    W = np.array([[0.5, -0.25, 1.0], [0.1, 0.3, -0.2]])

    def cross_entropy(w):
        scores = [[dot(w[:3], x), dot(w[3:], x)] for x in X]
        return mean([mp.log(mp.exp(a) + mp.exp(b)) - a for a, b in scores])

    found = hessians.softmax(X, W)
    np.testing.assert_allclose(found, numerical(cross_entropy, W.ravel()), rtol=1e-12, atol=1e-13)
    wide = hessians.softmax(X, np.arange(15.0).reshape(5, 3) / 7)
    values = np.linalg.eigvalsh(wide)
    assert np.abs(values[:3]).max() < 1e-14
    assert values[3:].min() > 1e-9
    assert values[-1] <= np.linalg.eigvalsh(X.T @ X / 4)[-1] / 2


def test_chain_by_numerical_differentiation_and_at_equal_weights():
    w = [0.5, -1.5, 2.0, 0.75]
    exact = numerical(lambda w: (mp.mpf(1.25) * mp.fprod(w) - 2) ** 2 / 2, w)
    np.testing.assert_allclose(hessians.chain(np.array(w), 1.25, 2.0), exact, rtol=1e-12)
    for depth, weight in ((2, 0.3), (5, 1.2), (9, 0.7)):
        values = np.linalg.eigvalsh(hessians.chain(np.full(depth, weight), 0.8, 1.5))
        expected = hessians.equal_chain(weight, depth, 0.8, 1.5)
        rest = np.full(depth - 1, expected[1])
        np.testing.assert_allclose(values, np.sort([expected[0], *rest]), atol=1e-12)
    with pytest.raises(InvalidArgument, match="at least 2 weights; received 1"):
        hessians.equal_chain(0.5, 1, 1.0, 1.0)


def test_two_layers_by_numerical_differentiation():
    V, a = np.array([[0.5, -0.25, 1.0], [0.1, 0.3, -0.2]]), np.array([1.5, -0.5])

    def loss(w):
        def f(x):
            return w[6] * mp.tanh(dot(w[:3], x)) + w[7] * mp.tanh(dot(w[3:6], x))

        return mean([(f(x) - y) ** 2 / 2 for x, y in zip(X, Y, strict=True)])

    exact = numerical(loss, [*V.ravel(), *a])
    np.testing.assert_allclose(hessians.two_layers(X, Y, V, a), exact, rtol=1e-11, atol=1e-12)


# --- Marchenko and Pastur ------------------------------------------------------------------------


@pytest.mark.parametrize("g", [0.04, 0.3, 0.9, 2.5])
def test_marchenko_pastur_by_integration(g):
    a, b = law.edges(g)
    points = [a, (a + b) / 2, b]

    def density(x):
        return float(law.density(np.array(float(x)), g))

    for order in range(1, 6):
        exact = mp.quad(lambda x, k=order: x**k * density(x), points)
        assert law.moment(order, g) == pytest.approx(float(exact), rel=1e-7)
    for share in (0.1, 0.5, 0.8):
        x = a + share * (b - a)
        exact = max(0.0, 1 - 1 / g) + mp.quad(
            lambda t: mp.sqrt(max(0, (b - t) * (t - a))) / (2 * mp.pi * g * t), [a, (a + x) / 2, x]
        )
        assert float(law.below(np.array(x), g)) == pytest.approx(float(exact), abs=1e-10)
    ends = law.below(np.array([-1.0, b, b + 1]), g)
    np.testing.assert_allclose(ends, [0, 1, 1], atol=1e-12)
    assert law.moment(3, g) == pytest.approx(1 + 3 * g + g**2, rel=1e-14)


def test_at_ratio_1_it_is_the_quarter_circle():
    """sqrt(x) has density sqrt(4 - s**2) / pi: F = (s sqrt(4 - s**2) / 2 + 2 asin(s / 2)) / pi."""
    for x in (0.01, 1.3, 3.9):
        s = math.sqrt(x)
        exact = (s * math.sqrt(4 - x) / 2 + 2 * math.asin(s / 2)) / math.pi
        assert float(law.below(np.array(x), 1.0)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("p", "n"), [(1, 3), (2, 2), (3, 1)])
def test_finite_moments_by_wick_s_theorem(p, n):
    """The moments of a Wishart matrix: sums over pairings of the entries' indices."""

    def pairings(items):
        if not items:
            yield []
            return
        for k in range(1, len(items)):
            for rest in pairings(items[1:k] + items[k + 1 :]):
                yield [(items[0], items[k]), *rest]

    for order in (1, 2, 3):
        total = 0
        for rows in itertools.product(range(p), repeat=order):
            for columns in itertools.product(range(n), repeat=order):
                entries = []
                for k in range(order):
                    entries += [(rows[k], columns[k]), (rows[(k + 1) % order], columns[k])]
                total += sum(
                    all(entries[i] == entries[j] for i, j in pairing)
                    for pairing in pairings(list(range(2 * order)))
                )
        assert law.finite_moment(order, p, n) == pytest.approx(total / n**order / p, rel=1e-13)


def test_gaussian_weights_are_within_the_bounds_of_finite_size():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(200, 10, 30))
    values = np.linalg.svd(W, compute_uv=False)
    low, high = law.edge_bound(10, 30, 0.1)
    assert (values.min(axis=1) < low).mean() <= 0.05
    assert (values.max(axis=1) > high).mean() <= 0.05
    shares = (values[..., None] ** 2 / 30 <= law.edges(1 / 3)[0] + np.arange(5) / 2).mean(axis=1)
    off = np.abs(shares - shares.mean(axis=0)).max(axis=1)
    assert (off > law.count_bound(10, 1, 5, 0.1)).mean() <= 0.1


# --- descent -------------------------------------------------------------------------------------


def test_steps_of_descent_by_doing_them():
    values, c = np.array([4.0, 1.0, 0.05]), np.array([1.0, -2.0, 3.0])
    for rate in (0.25, 0.4, 0.45):
        for share in (0.5, 0.1, 0.01):
            w, steps = c.copy(), 0
            start = (values * c**2).sum() / 2
            while (values * w**2).sum() / 2 > share * start:
                w, steps = w - rate * values * w, steps + 1
            assert descent.steps_to(share, values, c, rate) == steps
            left = (values * w**2).sum() / 2
            assert descent.excess(values, c, rate, steps) == pytest.approx(left, rel=1e-12)


def test_scaled_hessian():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(np.concatenate([np.ones((40, 1)), rng.normal(size=(40, 3))], axis=1))[0][:, 1:]
    means, stds = np.array([3.0, -1.0, 0.5]), np.array([2.0, 0.1, 1.0])
    x = np.concatenate([means + math.sqrt(40) * q * stds, np.ones((40, 1))], axis=1)
    exact = x.T @ x / 40
    found = descent.scaled_hessian(means, stds)
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-13)
    assert np.linalg.det(found) == pytest.approx(0.04, rel=1e-12)
    np.testing.assert_array_equal(descent.scaled_hessian(np.zeros(2), np.ones(2)), np.eye(3))


def test_what_descent_refuses():
    with pytest.raises(InvalidArgument, match=r"below 2 / the largest eigenvalue 4, 0\.5"):
        descent.steps_to(0.1, np.array([4.0]), np.ones(1), 0.5)
    with pytest.raises(InvalidArgument, match="share must be between 0 and 1; received 1"):
        descent.steps_to(1.0, np.array([4.0]), np.ones(1), 0.1)
    with pytest.raises(InvalidArgument, match="vectors of one length"):
        descent.scaled_hessian(np.ones(2), np.ones(3))
    with pytest.raises(InvalidArgument, match=r"within 2\*\*60 steps"):
        descent.steps_to(0.1, np.array([1.0, 1e-25]), np.array([0.0, 1.0]), 0.5)
