"""The sigmoid, its gradient, and where a framework's own gradient dies before the true one.

    python examples/01_sigmoid_and_its_gradient.py --backend jax

The derivative of 1 / (1 + exp(-x)) is y (1 - y). In floating point 1 - y is 0 as soon as y rounds
to 1: from x = 16.6 in float32, although the derivative there is 6e-8 and representable to x = 87.
The exact formula e / (1 + e)**2 with e = exp(-|x|) subtracts nothing and loses nothing.
"""

import argparse

import numpy as np

import isometry as iso

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--backend", default="numpy")
nx = iso.load(parser.parse_args().backend)

# The chapter's picture: largest at 0, a quarter, and nearly nothing beyond 8.
x = nx.asarray(np.arange(-8.0, 8.0, 0.1), dtype="float32")
gradient = nx.to_numpy(nx.sigmoid_gradient(x))
print(f"largest gradient {gradient.max():.6f}, at x = -8: {gradient[0]:.6f}")

# Ten layers can pass on at most a quarter each.
print(f"through ten layers at best {0.25**10:.2e}")

# The far tail: ours, and what automatic differentiation of the framework's own sigmoid gives.
far = nx.asarray([5.0, 10.0, 17.0, 20.0, 50.0, 87.0])
exact = nx.to_numpy(nx.sigmoid_gradient(far))
native = nx.to_numpy(nx.native_gradient("sigmoid", far))
for point, ours, theirs in zip(nx.to_numpy(far), exact, native, strict=True):
    print(f"x = {point:4.0f}   exact {ours:.4e}   {nx.name}'s own {theirs:.4e}")

# What this taught: the exact derivative is e^-x to first order in the tail, and never 0 there.
tail = nx.to_numpy(far).astype(np.float64)
e = np.exp(-tail)
assert np.all(np.abs(exact - e / (1 + e) ** 2) <= 4 * np.spacing(exact))
assert np.all(exact > 0)
