"""Stability of descent on quadratics, against eigenvalues found by LAPACK and plain recursions."""

import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import quadratic_stability as laws

MOMENTA = (0.0, 0.17, 0.5, 0.83, 0.96)
PLACES = np.array([1e-3, 0.07, 0.31, 0.62, 0.97, 1.13, 1.71, 2.2, 3.37, 5.0])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", MOMENTA)
def test_spectral_radius_is_that_of_lapack(momentum, nesterov):
    found = laws.spectral_radius(PLACES, momentum, nesterov=nesterov)
    values = np.linalg.eigvals(laws.transition(PLACES, momentum, nesterov=nesterov))
    np.testing.assert_allclose(found, np.abs(values).max(axis=1), rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", MOMENTA)
def test_roots_have_the_sum_and_product_of_the_companion_matrix(momentum, nesterov):
    meeting = [(1 - momentum**0.5) ** 2, ((1 - momentum) / (1 + momentum)) ** 2, 1.0]
    places = np.append(PLACES, meeting)
    matrix = laws.transition(places, momentum, nesterov=nesterov)
    first, second = laws.roots(places, momentum, nesterov=nesterov)
    size = 1 + np.abs(matrix).sum(axis=(1, 2))
    total, product = np.trace(matrix, axis1=1, axis2=2), np.linalg.det(matrix)
    assert (np.abs(first + second - total) <= 4e-16 * size).all()
    assert (np.abs(first * second - product) <= 1e-15 * size**2).all()
    assert (np.abs(first) >= (1 - 1e-15) * np.abs(second)).all()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", MOMENTA)
def test_edge_parts_contraction_from_divergence(momentum, nesterov):
    edge = laws.edge(momentum, nesterov=nesterov)
    places = edge * np.array([1e-6, 0.3, 0.7, 1 - 1e-9, 1 + 1e-9, 1.5, 10.0])
    radius = laws.spectral_radius(places, momentum, nesterov=nesterov)
    assert (radius[:4] < 1).all()
    assert (radius[4:] > 1).all()
    assert laws.spectral_radius(edge, momentum, nesterov=nesterov) == pytest.approx(1, abs=1e-12)
    assert laws.spectral_radius(-0.01, momentum, nesterov=nesterov) > 1  # a maximum is left


def test_edges_are_the_known_ones():
    assert laws.edge(0.0) == laws.edge(0.0, nesterov=True) == 2
    assert laws.edge(0.5) == 3
    assert laws.edge(0.5, nesterov=True) == 1.5
    assert laws.edge(0.9) == pytest.approx(3.8, rel=1e-15)
    assert laws.edge(0.9, nesterov=True) == pytest.approx(19 / 14, rel=1e-15)


@pytest.mark.parametrize("nesterov", [False, True])
def test_multipliers_are_the_recursion_written_out(nesterov):
    curvature, rate, m = 3.1, 0.23, 0.8
    w, velocity, course = 1.0, 0.0, [1.0]
    for _ in range(30):
        ahead = w - m * velocity if nesterov else w  # the classical form, at the point itself
        velocity = m * velocity + rate * curvature * ahead
        w -= velocity
        course.append(w - m * velocity if nesterov else w)
    course[0] = 1.0
    found = laws.multipliers(np.array(rate * curvature), m, 30, nesterov=nesterov)
    np.testing.assert_allclose(found, course, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", laws.METHODS)
@pytest.mark.parametrize("condition", [1.0, 1.5, 7.0, 300.0, 1e5])
def test_best_reaches_its_contraction_and_neighbours_do_not(method, condition):
    mu = 0.6
    found = laws.best(method, mu, condition * mu)
    curvatures = np.geomspace(mu, condition * mu, 50)

    def radius(rate, momentum):
        a = rate * curvatures
        return float(laws.spectral_radius(a, momentum, nesterov=found.nesterov).max())

    # a double root is off by the root of the rounding
    assert radius(found.rate, found.momentum) == pytest.approx(found.contraction, abs=1e-7)
    for factor in (0.9, 1.1):
        assert radius(factor * found.rate, found.momentum) > found.contraction
    if method != "gradient descent" and condition > 1:
        for factor in (0.9, 1.1):
            assert radius(found.rate, min(factor * found.momentum, 0.999999)) > found.contraction


def test_best_is_the_known_one():
    descent, ball, nesterov = (laws.best(method, 1.0, 100.0) for method in laws.METHODS)
    assert (descent.rate, descent.contraction) == pytest.approx((2 / 101, 99 / 101), rel=1e-15)
    assert ball.rate == pytest.approx(4 / 121, rel=1e-15)
    assert (ball.momentum, ball.contraction) == pytest.approx((81 / 121, 9 / 11), rel=1e-15)
    assert nesterov.contraction == pytest.approx(1 - 2 / 301**0.5, rel=1e-15)


@pytest.mark.parametrize("method", laws.METHODS)
def test_one_dimension_takes_one_step(method):
    found = laws.best(method, 4.0, 4.0)
    assert (found.rate, found.momentum, found.contraction) == (0.25, 0.0, 0.0)
    course = laws.multipliers(np.array(1.0), found.momentum, 3, nesterov=found.nesterov)
    assert course.tolist() == [1, 0, 0, 0]
    twice = laws.multipliers(np.array(2.0), 0.0, 3)
    assert twice.tolist() == [1, -1, 1, -1]  # the edge


def test_steps_to_is_the_first_step_within_the_share():
    a, offsets = np.array([0.02, 0.5, 1.4]), np.array([3.0, -1.0, 2.0])
    for momentum, nesterov in ((0.0, False), (0.7, False), (0.7, True)):
        if a.max() >= laws.edge(momentum, nesterov=nesterov):
            continue
        step = laws.steps_to(0.02, a, offsets, momentum, nesterov=nesterov)
        course = laws.multipliers(a, momentum, step, nesterov=nesterov) * offsets
        distance = np.linalg.norm(course, axis=1) / np.linalg.norm(offsets)
        assert distance[-1] <= 0.02 < distance[:-1].min()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.edge(1.0), "momentum must be at least 0 and below 1; received 1"),
        (lambda: laws.edge(-0.1), "momentum must be at least 0; received -0.1"),
        (lambda: laws.best("adam", 1.0, 2.0), "unknown method 'adam'"),
        (lambda: laws.best("heavy ball", 0.0, 2.0), "smallest must be greater than 0"),
        (lambda: laws.best("heavy ball", 3.0, 2.0), "largest must be at least 3; received 2"),
        (lambda: laws.steps_to(0.1, [2.0], [1.0], 0.0), "below 2, where the rule diverges"),
        (lambda: laws.steps_to(1.0, [1.0], [1.0], 0.0), "share must be between 0 and 1"),
        (lambda: laws.multipliers(np.ones(2), 0.5, -1), "steps must be at least 0; received -1"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
