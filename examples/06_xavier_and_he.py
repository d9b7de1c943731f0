"""Xavier's and He's rules, derived, drawn, and sent through twenty layers.

    python examples/06_xavier_and_he.py --backend jax --seed 1

A unit adds up fan_in inputs: E o**2 = fan_in Var(W) E x**2. Going back, an input adds up the
gradients of fan_out units: fan_out Var(W). Both factors are 1 only if the fans are equal. Xavier's
rule is between the two, Var(W) = 2 / (fan_in + fan_out). A ReLU leaves half of the mean square, and
He's rule gives it back: Var(W) = 2 / fan_in.
"""

import argparse
import math

import numpy as np

import isometry as iso
from isometry.common.laws.propagation import (
    forward_laws,
    mean_bound,
    second_moments,
    tanh_sum_bound,
)

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--backend", default="numpy")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
nx = iso.load(arguments.backend)
stream = nx.stream(arguments.seed)
RARE = 1e-9  # probability of failing, for each assertion, where nothing is wrong

# Is what is drawn what was derived? A uniform law on [-a, a) has the variance a**2 / 3.
fan_out, fan_in = 400, 1200
variance = 2 / (fan_in + fan_out)
a = math.sqrt(3 * variance)
for name, law in (
    ("xavier_normal", iso.Normal(0.0, math.sqrt(variance))),
    ("xavier_uniform", iso.Uniform(-a, a)),
    ("he_normal", iso.Normal(0.0, math.sqrt(2 / fan_in))),
):
    weight = nx.to_numpy(nx.initialize(name, (fan_out, fan_in), stream))
    forward, backward = fan_in * weight.var(), fan_out * weight.var()
    print(f"{name:14}  fan_in Var(W) = {forward:.3f}, fan_out Var(W) = {backward:.3f}")
    iso.assert_law(weight, law, false_alarm=RARE)

# Twenty layers of 128 units, 64 nets of each kind, an input of mean square 1.
NETS, WIDTH, DEPTH = 64, 128, 20
WIDTHS = [WIDTH] * (DEPTH + 1)


def travel(phi, std):
    """Return ||h||**2 of the input and of each layer's output, of shape (DEPTH + 1, NETS)."""
    h = nx.ops.ones((NETS, WIDTH, 1))
    squares = [np.full(NETS, float(WIDTH))]
    for _ in range(DEPTH):
        weight = nx.initialize(iso.Normal(0.0, std), (NETS, WIDTH, WIDTH), stream)
        h = phi(nx.ops.matmul(weight, h))
        squares.append(np.square(nx.to_numpy(h).astype(np.float64)).sum(axis=(1, 2)))
    return np.array(squares)


def exact(activation, std):
    """Return the exact mean of ln(||h_L||**2 / ||h_0||**2), and how far that of NETS may stray."""
    laws = forward_laws(activation, WIDTHS, [std**2] * DEPTH)
    return sum(law.mean for law in laws), mean_bound(laws, NETS, RARE)


xavier, he = math.sqrt(1 / WIDTH), math.sqrt(2 / WIDTH)
runs = {
    "N(0, 0.02^2), tanh": (nx.tanh, 0.02),
    "Xavier, tanh": (nx.tanh, xavier),
    "Xavier, ReLU": (nx.relu, xavier),
    "He, ReLU": (nx.relu, he),
}
seen, growth = {}, {}
for name, (phi, std) in runs.items():
    seen[name] = travel(phi, std)
    growth[name] = np.log(seen[name][-1] / WIDTH).mean()
    one, ten, twenty = np.sqrt(seen[name][[1, 10, 20]].mean(axis=1) / WIDTH)
    print(f"{name:18}  root mean square in layer 1, 10, 20: {one:.3f}, {ten:.1e}, {twenty:.1e}")

# What this taught. ReLU nets follow their law, exact at this width: Xavier's halves the mean square
# in each layer, He's keeps it, but for 5 / (2 * 128) nats a layer that its logarithm loses.
for name, std, left in (("Xavier, ReLU", xavier, 0.5**DEPTH), ("He, ReLU", he, 1.0)):
    assert math.isclose(second_moments("relu", WIDTHS, [std**2] * DEPTH)[0][-1], left)
    mean, allowed = exact("relu", std)
    print(f"{name:18}  ln of the mean square {growth[name]:.3f}, exact {mean:.3f} +- {allowed:.3f}")
    assert abs(growth[name] - mean) <= allowed
# As |tanh z| <= |z|, a tanh net is at most as large as a linear one: N(0, 0.02^2) dies.
mean, allowed = exact("linear", 0.02)
assert growth["N(0, 0.02^2), tanh"] <= mean + allowed
# Xavier's lives: given the layer before, each is as large as the exact law of tanh has it. (Here
# and above rounding, a part in 1e5 in each layer, is far below what chance may do.)
for before, after in zip(seen["Xavier, tanh"], seen["Xavier, tanh"][1:], strict=False):
    mean, allowed = tanh_sum_bound(xavier**2 * before, WIDTH, RARE)
    assert abs(after.sum() - mean) <= allowed
