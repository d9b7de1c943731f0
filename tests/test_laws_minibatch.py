"""Noise of mini-batches by counting them all; the gap of linear scaling by taking the steps."""

import itertools

import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import minibatch


@pytest.mark.parametrize("examples", [2, 5, 9])
def test_noise_is_that_of_all_batches(examples):
    draws = np.random.default_rng(examples).normal(size=(examples, 3))
    single = np.square(draws - draws.mean(axis=0)).sum(axis=1).mean()
    for batch in range(1, examples + 1):
        means = [
            draws[list(c)].mean(axis=0) for c in itertools.combinations(range(examples), batch)
        ]
        spread = np.square(np.array(means) - draws.mean(axis=0)).sum(axis=1).mean()
        assert spread / single == pytest.approx(minibatch.noise(batch, examples), abs=1e-14)
    assert minibatch.noise(1, examples) == 1
    assert minibatch.noise(examples, examples) == 0


@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.3])
def test_gap_is_that_of_the_steps(rate):
    draws = np.random.default_rng(1)
    roots = draws.normal(size=(5, 4, 4))
    hessians = roots @ roots.transpose(0, 2, 1) / 4
    w, goals = draws.normal(size=4), draws.normal(size=(5, 4))
    slopes = np.einsum("kij,kj->ki", hessians, w - goals)
    small = w
    for hessian, goal in zip(hessians, goals, strict=True):
        small = small - rate * hessian @ (small - goal)
    large = w - rate * slopes.sum(axis=0)
    gap = minibatch.scaling_gap(hessians, slopes, rate)
    off = np.linalg.norm(small - large - gap.leading)
    assert off <= gap.remainder + 1e-14
    assert off > 0.01 * gap.remainder  # the bound is no giant
    assert gap.remainder < 100 * rate * np.linalg.norm(gap.leading)


def test_two_batches_have_the_leading_term_alone():
    hessians, slopes = np.array([[[2.0]], [[3.0]]]), np.array([[5.0], [7.0]])
    gap = minibatch.scaling_gap(hessians, slopes, 0.1)
    assert gap.leading == pytest.approx([0.01 * 3 * 5])
    assert gap.remainder == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minibatch.noise(0, 5), "batch must be between 1 and 5; received 0"),
        (lambda: minibatch.noise(6, 5), "batch must be between 1 and 5; received 6"),
        (lambda: minibatch.noise(1, 1), "examples must be at least 2; received 1"),
        (
            lambda: minibatch.scaling_gap(np.ones((2, 3, 3)), np.ones((2, 4)), 0.1),
            r"one Hessian \(n, n\) for each gradient \(n,\); received shapes \(2, 3, 3\) and",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
