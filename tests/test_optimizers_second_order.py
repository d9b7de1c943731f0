"""Newton and L-BFGS on problems with known minima and saddles."""

import itertools

import numpy as np
import pytest

import isometry as iso
from isometry.common.optimizers.second_order import hessian, lbfgs, newton_step

nx = iso.load("numpy")
A = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 10.0]])
B = np.array([1.0, -2.0, 0.5])
W = {"a": np.array([5.0, -3.0]), "b": np.array(2.0)}


def quadratic(p):
    x = nx.ops.concat([p["a"], nx.ops.reshape(p["b"], (1,))])
    return nx.ops.sum(x * nx.ops.reshape(nx.ops.matmul(A, nx.ops.reshape(x, (3, 1))), (3,))) / 2 - (
        nx.ops.sum(x * B)
    )


def saddle(p):
    x = p["x"]
    return nx.ops.sum(x * x * np.array([1.0, -1.0])) / 2 + nx.ops.sum(x * x * x * x) / 4


def test_the_hessian_is_whole():
    np.testing.assert_allclose(hessian(nx, quadratic, W), A, atol=1e-13)


def test_newton_reaches_the_minimum_of_a_quadratic_in_one_step():
    found = newton_step(nx, quadratic, W)
    expected = np.linalg.solve(A, B)
    np.testing.assert_allclose(np.append(found["a"], found["b"]), expected, atol=1e-12)


def test_newton_goes_to_a_saddle_and_damped_newton_does_not():
    plain = damped = {"x": np.array([0.3, 0.2])}
    for _ in range(20):
        plain = newton_step(nx, saddle, plain)
        damped = newton_step(nx, saddle, damped, damping=1.5)
    np.testing.assert_allclose(plain["x"], [0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(damped["x"], [0.0, 1.0], atol=1e-2)


def test_lbfgs_reaches_the_minimum_and_never_goes_up():
    found, losses = lbfgs(nx, quadratic, W, steps=50)
    np.testing.assert_allclose(np.append(found["a"], found["b"]), np.linalg.solve(A, B), atol=1e-7)
    assert losses[0] == pytest.approx(float(quadratic(W)))
    assert all(after <= before for before, after in itertools.pairwise(losses))


def test_what_is_refused():
    with pytest.raises(iso.InvalidArgument, match="float64; received 'x' in float32"):
        newton_step(nx, saddle, {"x": np.zeros(2, np.float32)})
    with pytest.raises(iso.InvalidArgument, match="damping must be at least 0"):
        newton_step(nx, saddle, {"x": np.zeros(2)}, damping=-1.0)
    with pytest.raises(iso.InvalidArgument, match=r"singular.*larger damping"):
        newton_step(nx, lambda p: nx.ops.sum(p["x"]), {"x": np.zeros(2)})
    with pytest.raises(iso.InvalidArgument, match="at most 2000 parameters; received 2001"):
        newton_step(nx, lambda p: nx.ops.sum(p["x"] * p["x"]), {"x": np.zeros(2001)})
    with pytest.raises(iso.InvalidArgument, match="no parameters"):
        lbfgs(nx, saddle, {})
    with pytest.raises(iso.InvalidArgument, match="steps must be at least 1"):
        lbfgs(nx, saddle, {"x": np.zeros(2)}, steps=0)
