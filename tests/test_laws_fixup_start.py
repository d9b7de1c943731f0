"""The Hessian at Fixup's start: differences of gradients by hand, all eigenvalues, and draws."""

import math

import numpy as np
import pytest

from isometry.common.laws.fixup_start import FixupStart


def drawn(blocks=3, n=6, count=5, classes=4, seed=0):
    draws = np.random.default_rng(seed)
    x = draws.normal(size=(count, 3))
    signal = x @ draws.normal(size=(n, 3)).T
    first = draws.normal(0, math.sqrt(2 / (n * blocks)), (blocks, n, n))
    hidden = np.maximum(np.einsum("lij,kj->lki", first, signal), 0)
    targets = np.eye(classes)[draws.integers(classes, size=count)]
    return FixupStart(x, signal, hidden, targets)


def shapes(start):
    (blocks, _, n), classes = start.hidden.shape, start.targets.shape[1]
    return {
        "blocks/weight2": (blocks, n, n),
        "input/weight": (1, n, start.x.shape[1]),
        "output/bias": (1, classes),
        "output/weight": (1, classes, n),
    }


def dense(start):
    """Return the whole matrix from products with unit vectors."""
    sizes = shapes(start)
    total = sum(math.prod(shape) for shape in sizes.values())
    columns = []
    for unit in np.eye(total):
        v, begin = {}, 0
        for path, shape in sizes.items():
            v[path] = unit[begin : begin + math.prod(shape)].reshape(shape)
            begin += math.prod(shape)
        found = start.product(v)
        columns.append(np.concatenate([found[path].ravel() for path in sizes]))
    return np.array(columns).T


@pytest.mark.parametrize("seed", range(3))
def test_sharpness_is_the_largest_eigenvalue(seed):
    start = drawn(seed=seed)
    hessian = dense(start)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-15)
    assert start.sharpness() == pytest.approx(float(np.linalg.eigvalsh(hessian)[-1]), rel=1e-12)


def test_product_is_the_second_derivative_of_the_loss():
    """By central differences of the loss written out, along random changes."""
    start, draws = drawn(), np.random.default_rng(9)
    v = {path: draws.normal(size=shape) for path, shape in shapes(start).items()}

    def loss(t):
        # all that passes C to second order; changes of the hidden units go through W_2 = 0
        moved = t * (start.x @ v["input/weight"][0].T)
        moved = moved + t * np.einsum("lij,lkj->ik", start.hidden, v["blocks/weight2"]).T.T
        logits = t * ((start.signal + moved) @ v["output/weight"][0].T + v["output/bias"])
        top = np.log(np.exp(logits).sum(axis=1))
        return float((top - (logits * start.targets).sum(axis=1)).mean())

    h = 1e-3
    second = (loss(h) - 2 * loss(0) + loss(-h)) / h**2
    exact = sum(float((v[path] * a).sum()) for path, a in start.product(v).items())
    assert second == pytest.approx(exact, rel=1e-4)


def test_the_kernel_is_the_mean_over_weights_at_any_depth():
    for blocks in (1, 2, 16):
        start = drawn(blocks=blocks, n=64)
        squares = []
        for seed in range(60):
            first = np.random.default_rng(seed).normal(
                0, math.sqrt(2 / (64 * blocks)), (blocks, 64, 64)
            )
            hidden = np.maximum(np.einsum("lij,kj->lki", first, start.signal), 0)
            again = FixupStart(start.x, start.signal, hidden, start.targets)
            assert again.kernel == pytest.approx(start.kernel, rel=1e-15)
            squares.append(again.coupling**2)
            off = abs(again.coupling - math.sqrt(np.trace(start.kernel)))
            assert off < start.departure_bound(1e-12)
        mean, error = np.mean(squares), np.std(squares) / math.sqrt(len(squares))
        assert abs(mean - np.trace(start.kernel)) < 6 * error


def test_without_the_factor_sharpness_grows_with_the_root_of_depth():
    start, blocks = drawn(blocks=4, n=32), 10**8
    largest = float(np.linalg.eigvalsh(start.kernel)[-1])
    found = start.sharpness(blocks * start.kernel)
    assert found == pytest.approx(math.sqrt(blocks * largest), rel=1e-3)
    assert start.sharpness(start.kernel) < start.sharpness(4 * start.kernel) < found


def test_reach_bounds_what_it_says():
    start, draws = drawn(), np.random.default_rng(2)
    for _ in range(20):
        v = {path: draws.normal(size=shape) for path, shape in shapes(start).items()}
        size = math.sqrt(sum(float(np.square(a).sum()) for a in v.values()))
        logits = (start.signal @ v["output/weight"][0].T + v["output/bias"]) / size
        moved = start.x @ v["input/weight"][0].T
        moved = (moved + np.einsum("lij,lkj->ik", start.hidden, v["blocks/weight2"])) / size
        assert np.linalg.norm(logits, axis=1).max() <= start.reach
        assert np.linalg.norm(moved, axis=1).max() <= start.reach
