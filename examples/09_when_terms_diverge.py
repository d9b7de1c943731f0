"""A step off a cliff, and three ways not to take it: clipping, LARS and a warm-up.

    python examples/09_when_terms_diverge.py --backend torch

Ten linear layers, each a rotation made 1.3 times too long, are to learn a rotation. The gradient is
a product of such factors, and one step along it is longer than all weights together. Clipping
(Pascanu et al. 2013) limits the length of a step, LARS (You et al. 2017) its share of each layer's
length, and a warm-up the rate, until the net has left the cliff.
"""

import argparse
import math

import numpy as np

import isometry as iso

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--backend", default="numpy")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
nx = iso.load(arguments.backend)
draws = nx.stream(arguments.seed)
depth, width, gain = 10, 8, 1.3
steps, rate, limit, trust = 100, 0.2, 1.0, 0.02

rule = iso.Orthogonal(gain=gain)
layers = [nx.initialize(rule, (width, width), draws) for _ in range(depth)]
start = {"layers": nx.ops.stack(layers)}
inputs = draws.normal((32, width))
outputs = nx.ops.matmul(inputs, nx.initialize("orthogonal", (width, width), draws))


@nx.compile
def loss(weights, x, y):
    """Return half the mean squared error of x W_0 W_1 ... W_9."""
    for k in range(depth):
        x = nx.ops.matmul(x, weights["layers"][k])
    return nx.ops.mean(nx.ops.square(x - y)) / 2


gradient = nx.value_and_gradient(loss)


def train(optimizer, schedule, clipping=False):
    """Return the loss before each step, and the length of the first one."""
    weights, state, losses = start, optimizer.start(start), []
    for step in range(steps):
        value, change = gradient(weights, inputs, outputs)
        losses.append(float(nx.to_numpy(value)))
        try:
            if clipping:
                change = iso.clip_by_global_norm(nx, change, limit)
            weights, state = optimizer.step(weights, change, state, rate=schedule(step))
        except iso.NonFinite as refusal:
            print(f"after {step} steps: {refusal}")
            break
        if step == 0:
            first = nx.to_numpy(weights["layers"]) - nx.to_numpy(start["layers"])
    return losses, np.linalg.norm(first)


size = np.linalg.norm(nx.to_numpy(start["layers"]))
steepness = np.linalg.norm(nx.to_numpy(gradient(start, inputs, outputs)[1]["layers"]))
print(f"weights of length {size:.1f}, a gradient of length {steepness:.0f}, rate {rate}")
descent = iso.Optimizer(nx, iso.optimizer_rule("sgd"))
lars = iso.optimizer_rule("lars", momentum=0.0, trust=trust, stacked=True)  # a norm for each layer
runs = {
    "plain": train(descent, lambda step: rate),
    "clipped": train(descent, lambda step: rate, clipping=True),
    "LARS": train(iso.Optimizer(nx, lars), lambda step: 1.0),
    "warm-up": train(descent, iso.WarmUp(rate=rate, steps=steps)),
}
for name, (losses, first) in runs.items():
    print(f"{name:7}  first step {first:6.3f}, loss {losses[0]:.3g}, {losses[1]:.3g}", end="")
    print(f" ... {losses[-1]:.2g} before step {len(losses)}")

# What this taught: a step is as long as each remedy says. Rounding of 640 weights below 2 changes
# that of 0.2 by sqrt(640) 2**-24 / 0.2 = 8e-6, a norm of 64 float32 entries by less; and rotations
# have length sqrt(8) to half of 30 n eps = 3e-5, LAPACK's own standard.
assert abs(size / (gain * math.sqrt(depth * width)) - 1) < 3e-5
expected = {"clipped": rate * limit, "LARS": trust * size, "warm-up": rate / steps * steepness}
for name, length in expected.items():
    losses, first = runs[name]
    assert abs(first / length - 1) < 3e-5
    assert losses[-1] < losses[0] / 100  # below 1 / 1000 was seen in 60 runs
# Plain descent moves by more than the length of the weights, three to four times, and is lost.
losses, first = runs["plain"]
assert first > size
assert len(losses) < steps
