"""Linear and softmax regression may start from a constant: it is hidden layers that may not.

    python examples/05_constant_starts_that_are_harmless.py --backend mxnet

The softmax does not change if every score gets the same number added. Weights W + c therefore have
the probabilities of W, its gradients, and all of its training: W_t(c) = W_t(0) + c at every step.
Least squares has one minimizer, and gradient descent goes there from anywhere.
"""

import argparse

import numpy as np

import isometry as iso
from isometry.common.digits import digits
from isometry.common.laws.perceptron import cross_entropy
from isometry.common.statistics.rounding import gamma

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--backend", default="numpy")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
nx = iso.load(arguments.backend)


def course(loss, start, rate, steps, x, y):
    """Return the weights after each step of gradient descent from a constant."""
    gradient = nx.value_and_gradient(loss)
    arrays = [nx.asarray(a, dtype="float64") for a in (x, y)]
    w, seen = nx.ops.full((x.shape[1], y.shape[1]), start, dtype="float64"), []
    with nx.scope():  # operators on arrays stand outside of nx's own functions here
        for _ in range(steps):
            w = w - rate * gradient(w, *arrays)[1]
            seen.append(nx.to_numpy(w))
    return np.array(seen)


def entropy(w, x, y):
    """Return the loss of softmax regression."""
    return cross_entropy(nx, nx.ops.matmul(x, w), y)


def squares(w, x, y):
    """Return the loss of linear regression."""
    return nx.ops.mean(nx.ops.square(nx.ops.matmul(x, w) - y)) / 2


def rounding(w, rate, x, y):
    """Return how far rounding can lead away in each step, w being the largest weights.

    Scores are right to gamma |x| |W|, the gradient's sum of residuals times x to gamma too.
    """
    rows, targets = (np.linalg.norm(a, axis=1) for a in (x, y))
    size = rate * np.mean(rows * (2 * rows * w + 3 * targets)) + w
    return gamma(sum(x.shape) + 100, "float64") * size


def norm(w):
    """Return the norm of the weights, of each step."""
    return np.linalg.norm(w, axis=(-2, -1))


# Softmax regression on the digits, with the rate 1 / L: its curvature L is at most half of that of
# least squares on the same inputs.
images, labels = digits()
pixels, classes = images[:256].astype(np.float64), np.eye(10)[labels[:256]]
rate = 2 / np.linalg.eigvalsh(pixels.T @ pixels / len(pixels)).max()
zero, one = (course(entropy, c, rate, 40, pixels, classes) for c in (0.0, 1.0))
shift, learned = norm(one - 1 - zero), norm(zero[-1])
print(f"softmax: from 0 the weights go {learned:.3f} far; W(1) - 1 is {shift.max():.1e} off W(0)")

# What this taught, first. A step of at most 2 / L brings no two courses of a convex loss further
# apart, so that the roundings of both only add up.
allowed = 2 * np.arange(1, 41) * rounding(norm(one).max(), rate, pixels, classes)
assert np.all(shift <= allowed)
assert learned > 1e6 * allowed[-1]

# Least squares on noisy data; then with an input that is half of another, where minimizers are many
# and the nearest to the start is reached: no gradient points to where the inputs have no component.
draws = nx.portable_stream(arguments.seed)
inputs = nx.to_numpy(draws.normal((100, 4), dtype="float64"))
y = inputs @ np.arange(4)[:, None] + nx.to_numpy(draws.normal((100, 1), dtype="float64"))
dependent = inputs * [1, 0, 1, 1] + inputs[:, :1] * [0, 0.5, 0, 0]
for x in (inputs, dependent):
    curvatures = np.linalg.eigvalsh(x.T @ x / len(x))
    slowest = curvatures[curvatures > 1e-9].min() / curvatures.max()
    inverse = np.linalg.pinv(x, rcond=1e-9)
    for c in (0.0, 1.0, 5.0):
        w = course(squares, c, 1 / curvatures.max(), 200, x, y)
        nearest = inverse @ y + (np.eye(4) - inverse @ x) @ np.full((4, 1), c)
        off = norm(w[-1] - nearest)
        print(f"least squares from {c:g}: {w[-1][:, 0].round(4)}, {off:.1e} off its minimizer")
        # What this taught, second: each step leaves at most 1 - slowest of the distance. (Rounding
        # counts twice, as the minimizer is rounded too.)
        noise = rounding(norm(w).max() + 2 * c, 1 / curvatures.max(), x, y)
        assert off <= (1 - slowest) ** 200 * norm(nearest - c) + 2 * 200 * noise
