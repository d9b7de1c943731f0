"""Units that start equal stay equal: only something that tells them apart makes them different.

    python examples/03_breaking_symmetry.py --backend tensorflow

One hidden layer of two units learns the 8x8 digits from constant weights. Both units see the same
input and get the same gradient, so the layer of two is a layer of one, however long it trains.
Dropout, which switches them off at different times, breaks the tie.
"""

import argparse

import numpy as np

import isometry as iso
from isometry.common.digits import digits
from isometry.common.laws import perceptron

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--backend", default="numpy")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
nx = iso.load(arguments.backend)

images, labels = digits()
x, targets = images[:256], np.eye(10)[labels[:256]]
START = 0.01  # of every incoming weight


def train(dropout: bool, steps: int = 60, rate: float = 0.5) -> np.ndarray:
    """Return the incoming weights of the two units after some steps of gradient descent."""
    draws = nx.portable_stream(arguments.seed)
    parameters = {
        "hidden/weight": nx.ops.full((2, 64), START),
        "hidden/bias": nx.ops.zeros((2,)),
        "output/weight": nx.ops.full((10, 2), 0.1),
        "output/bias": nx.ops.zeros((10,)),
    }
    batch = [nx.asarray(a, dtype="float32") for a in (x, targets)]
    gradient = nx.value_and_gradient(perceptron.loss(nx))
    for _ in range(steps):
        kept = nx.ops.astype(draws.uniform((len(x), 2)) < 0.5, "float32")
        mask = [2.0 * kept] if dropout else []
        _, change = gradient(parameters, *batch, *mask)
        parameters = {k: p - rate * change[k] for k, p in parameters.items()}
    return nx.to_numpy(parameters["hidden/weight"])


with nx.scope():  # operators on arrays stand outside of nx's own functions here
    plain, dropped = train(dropout=False), train(dropout=True)

for name, w in (("plain", plain), ("dropout", dropped)):
    moved, apart = np.abs(w - START).max(), np.ptp(w, axis=0).max()
    print(f"{name:8} moved by {moved:.3f}, units differ by {apart:.3e}")

# What this taught: both learned something, but only dropout made two units out of one. Rounding may
# tell units apart in the last digits where a framework computes the two columns differently.
assert np.abs(plain - START).max() > 0.01
assert np.ptp(plain, axis=0).max() <= 1e-5 * np.abs(plain).max()
assert np.ptp(dropped, axis=0).max() > 0.01
