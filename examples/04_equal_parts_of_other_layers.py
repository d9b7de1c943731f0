"""Channels of a convolution that start equal stay equal, as units of a dense layer do.

    python examples/04_equal_parts_of_other_layers.py --backend torch

Exchanging the two channels, kernels and outgoing weights together, changes no output of the net.
So at weights that the exchange leaves alone it leaves the gradient alone too: equal channels get
equal steps. Nothing needs to be constant for that: here both have the same random weights. What
breaks the tie is what the exchange changes: other outgoing weights, dropout of single channels.
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

BATCH, STEPS, RATE = 64, 20, 0.25
images, labels = digits()
# A third of each pixel: no patch of nine pixels is longer than 1, which shortens the bound below.
x = nx.asarray(images[:BATCH].reshape(BATCH, 1, 8, 8) / 3, dtype="float64")
targets = nx.asarray(np.eye(10)[labels[:BATCH]], dtype="float64")


def loss(parameters, mask):
    """Return the cross-entropy of two channels, each pooled by its mean over all 36 places."""
    channels = nx.tanh(nx.ops.conv(x, parameters["kernel"]))
    pooled = nx.ops.mean(channels, axis=(2, 3)) * mask
    return cross_entropy(nx, nx.ops.matmul(pooled, parameters["output"]), targets)


def norms(a):
    """Return the norm of each channel's part."""
    return np.linalg.norm(nx.to_numpy(a).reshape(2, -1), axis=1)


def train(start, masks):
    """Return how far kernels went, how far they are apart, and what of that rounding explains."""
    gradient, w, kernel, output = nx.value_and_gradient(loss), start, 0.0, 0.0
    for mask in masks:
        kernel = max(kernel, *norms(w["kernel"]))
        output = max(output, *norms(w["output"]))
        _, change = gradient(w, mask)
        w = {name: a - RATE * change[name] for name, a in w.items()}
    apart = np.linalg.norm(nx.to_numpy(w["kernel"][0] - w["kernel"][1]))
    return norms(w["kernel"] - start["kernel"]).min(), apart, rounding(kernel, output)


def rounding(kernel, output):
    """Return how far rounding can drive equal channels apart, by their largest norms on the way.

    Both see the same residuals r = p - target of an image, |r|**2 <= 2. Their gradients, means of
    (r . v) tanh'(z) x and of r tanh(z), differ by at most `growth` of the distance of the weights,
    as |tanh''| <= 4 / sqrt(27), and by the roundings of sums over all places of all images.
    """
    growth = 2**0.5 * (1 + 4 / 27**0.5 * output)
    noise = 2 * gamma(36 * BATCH + 100, "float64") * 2**0.5 * (1 + kernel) * (1 + output)
    return noise * ((1 + RATE * growth) ** STEPS - 1) / (RATE * growth)


draws, found = nx.portable_stream(arguments.seed), {}
with nx.scope():  # operators on arrays stand outside of nx's own functions here
    kernels = draws.normal((1, 1, 3, 3), dtype="float64")
    outputs = draws.normal((2, 10), dtype="float64") / 3
    equal = {
        "kernel": nx.ops.concat([kernels, kernels]),
        "output": nx.ops.concat([outputs[:1], outputs[:1]]),
    }
    kept = draws.uniform((STEPS, BATCH, 2), dtype="float64") < 0.5
    whole, dropout = nx.ops.ones((BATCH, 2), dtype="float64"), 2 * nx.ops.astype(kept, "float64")
    found["equal channels"] = train(equal, [whole] * STEPS)
    found["other outgoing weights"] = train(equal | {"output": outputs}, [whole] * STEPS)
    found["equal, with dropout"] = train(equal, [dropout[k] for k in range(STEPS)])

# What this taught: equal channels learn and stay equal, to rounding. Otherwise they part, by far
# more than rounding.
for name, (went, apart, allowed) in found.items():
    print(f"{name:22}  kernels went {went:.3f}, are {apart:.1e} apart; rounding {allowed:.1e}")
    assert went > 1000 * allowed
    assert apart <= allowed if name == "equal channels" else apart > 1000 * allowed
