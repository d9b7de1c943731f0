"""Batch norm differs between training and inference; layer norm does not; and a batch of one.

    python examples/07_normalization.py --backend tensorflow

Batch norm takes each feature's mean and variance over the batch, so that an example's output
depends on its neighbours. At inference it takes running statistics instead, kept in training. Layer
norm takes those of one example over its features: it has nothing to keep, and uses no statistics of
the training, whatever some say.
"""

import argparse

import numpy as np

import isometry as iso
from isometry.common.laws.batch_statistics import pair
from isometry.common.laws.normalization import normalization_bound

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--backend", default="numpy")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
nx = iso.load(arguments.backend)
np.set_printoptions(precision=3, suppress=True)

BATCHES, KEEP, EPS = 30, 0.9, 1e-5
MEANS, STDS = np.array([0.0, 5.0, -2.0]), np.array([1.0, 10.0, 0.1])
numbers = nx.to_numpy(nx.portable_stream(arguments.seed).normal((BATCHES, 32, 3)))
batches = (MEANS + STDS * numbers).astype(np.float32)
one, zero = nx.ops.ones((3,)), nx.ops.zeros((3,))


def batch_norm(x, mean, variance, *, training):
    """Return the output, and the running statistics."""
    y, mean, variance = nx.batch_norm(
        nx.asarray(x), one, zero, mean, variance, training=training, momentum=KEEP, eps=EPS
    )
    return nx.to_numpy(y), mean, variance


def layer_norm(x):
    """Return the output; there is nothing else to give or to get."""
    return nx.to_numpy(nx.layer_norm(nx.asarray(x), one, zero, eps=EPS))


# Thirty batches of training; then the last batch, and its first example alone, at inference.
mean, variance = zero, one
for batch in batches:
    trained, mean, variance = batch_norm(batch, mean, variance, training=True)
first = batch[:1]
inferred, alone = (batch_norm(x, mean, variance, training=False)[0] for x in (batch, first))
layer, layer_alone = layer_norm(batch), layer_norm(first)
print("deviation of each feature, batch norm in training ", trained.std(axis=0))
print("                           batch norm at inference", inferred.std(axis=0))
print("                           layer norm             ", layer.std(axis=0))

# Small batches. Of one there is nothing to tell a deviation from; two become -1 and 1.
two = batch_norm(batch[:2], mean, variance, training=True)[0]
print(f"a batch of two in training: {two[0]} and {two[1]}")
try:
    batch_norm(first, mean, variance, training=True)
    refused = False
except iso.InvalidArgument as error:
    refused = True
    print(f"a batch of one in training: {error}")


def close(observed, expected, times=1.0):
    """Return whether float32 is as near as the contract of nx's norms promises, times a factor."""
    allowed = times * normalization_bound() * np.maximum(1, np.abs(expected))
    return bool(np.all(np.abs(observed - expected) <= allowed))


def normalized(x, mean, variance):
    """Return the formula of both norms, in float64."""
    return (x - mean) / np.sqrt(variance + EPS)


# What this taught. Batch norm trains by the statistics of the batch.
wide = batches.astype(np.float64)
assert close(trained, normalized(wide[-1], wide[-1].mean(axis=0), wide[-1].var(axis=0)))
assert close(two, pair(wide[-1, :2], EPS))
assert refused
# It keeps a tenth of each batch, and at last 0.9**30, or 4 %, of the variance 1 of the start: much
# for the third feature, of variance 0.01. Errors of each step are kept by 0.9: ten times one's.
shares = (1 - KEEP) * KEEP ** np.arange(BATCHES)[::-1, None]
kept_mean = (shares * wide.mean(axis=1)).sum(axis=0)
kept_variance = KEEP**BATCHES + (shares * wide.var(axis=1)).sum(axis=0)
assert close(nx.to_numpy(mean), kept_mean, 1 / (1 - KEEP))
assert close(nx.to_numpy(variance), kept_variance, 1 / (1 - KEEP))
# At inference it goes by these, so that an example gives alone what it gives among others.
running = nx.to_numpy(mean).astype(np.float64), nx.to_numpy(variance).astype(np.float64)
assert close(inferred, normalized(wide[-1], *running))
assert close(alone, normalized(wide[-1, :1], *running))
# Layer norm goes by the example alone, and so needs no other way at inference.
own = wide[-1].mean(axis=1, keepdims=True), wide[-1].var(axis=1, keepdims=True)
assert close(layer, normalized(wide[-1], *own))
assert close(layer_alone, normalized(wide[-1], *own)[:1])
