"""What two matrices tell of their product, and the layers of a net of its gradient.

    python examples/08_what_two_matrices_tell_of_their_product.py --backend jax

Singular values say what a matrix does to lengths, and those of a product are bounded by those of
its factors (Horn 1950). Eigenvalues are not: two matrices may have none but 0, and their product
100. The gradient of a deep net is such a product, of all layers' Jacobians and the last vector.
"""

import argparse

import numpy as np

import isometry as iso
from isometry.common.laws import jacobians
from isometry.common.laws.matrix_bounds import singular_intervals
from isometry.common.statistics import rounding
from isometry.common.statistics.running_error import bound

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--backend", default="numpy")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
nx = iso.load(arguments.backend)
draws = nx.stream(arguments.seed)
pairs, size, depth, width = 1000, 4, 5, 8

# A thousand pairs. s, t and p are the singular values of A, of B and of AB, largest first.
a, b = (draws.normal((pairs, size, size), dtype="float64") for _ in range(2))
ab = nx.ops.matmul(a, b)
s, t, p = (nx.to_numpy(nx.ops.svd(m)[1]) for m in (a, b, ab))
low, high = singular_intervals(s, t)
print(f"norm of AB: {np.median(p[:, 0] / high[:, 0]):.2f} of ||A|| ||B||, in the median")

# Eigenvalues of AB stay below its largest singular value (Weyl 1949); those of A and B say nothing.
radius = [np.abs(np.linalg.eigvals(nx.to_numpy(m))).max(axis=1) for m in (a, b, ab)]
beyond = np.mean(radius[2] > radius[0] * radius[1])
print(f"largest eigenvalue of AB is above those of A and B multiplied in {beyond:.0%} of pairs")
shift = nx.asarray([[0.0, 10.0], [0.0, 0.0]])
turned = nx.ops.matmul(shift, nx.ops.permute_dims(shift, (1, 0)))
of_shift, of_product = (np.linalg.eigvals(nx.to_numpy(m)) for m in (shift, turned))
print(f"eigenvalues {of_shift} of M and of its transpose, {of_product} of their product")


def loss(parameters):
    """Return r . h_L for the layers h = tanh(W h)."""
    h = parameters["x"]
    for layer in range(depth):
        h = nx.tanh(nx.ops.matmul(parameters[f"W{layer}"], h))
    return nx.ops.sum(parameters["r"] * h)


# The gradient by the framework, float32, and as the product of Jacobians diag(1 - h**2) W, float64.
ends, lengths, shares = [], [], []
for rule in ("lecun_normal", "orthogonal"):
    start = {f"W{k}": nx.initialize(rule, (width, width), draws) for k in range(depth)}
    start |= {"x": draws.normal((width, 1)), "r": draws.normal((width, 1))}
    gradient = nx.value_and_gradient(loss)(start)[1]["x"]
    *weights, x, r = (nx.to_numpy(value).astype(float) for value in start.values())
    h, layers = x, []
    for w in weights:
        h = np.tanh(w @ h)
        layers.append((1 - h**2) * w)
    product = np.linalg.multi_dot([r.T, *layers[::-1]]).T
    errors = bound(jacobians.gradients("tanh", [*weights, r.T], x[:, 0], "float32")[0], "float32")
    apart = np.abs(nx.to_numpy(gradient) - product)
    shares.append(np.max(apart / errors.T))
    values = np.linalg.svd(layers, compute_uv=False)
    ends.append(np.linalg.norm(r) * values[:, [-1, 0]].prod(axis=0))
    lengths.append(np.linalg.norm(product))
    off, allowed = (x.max() / np.abs(product).max() for x in (apart, errors))
    print(f"{rule}: the gradient is the product to {off:.0e}; rounding may do {allowed:.0e}")
    print(f"  its length {lengths[-1]:.2g} is between {ends[-1][0]:.1g} and {ends[-1][1]:.2g}")

# What this taught. Each of three decompositions is right to 30 n eps of its norm (LAPACK's own
# standard), and the product to less: no bound of singular values is exceeded by more.
error = 4 * rounding.factorization(size, size, "float64") * high[:, :1]
assert np.all(low - error <= p)
assert np.all(p <= high + error)
assert np.all(radius[2] <= p[:, 0] + error[:, 0])
assert beyond > 0.1  # 0.38 to 0.42 were seen
assert not of_shift.any()
assert of_product.max() == 100
# The framework's gradient is that product, to the running error of the formula in float32.
assert max(shares) <= 1
assert all(least <= length <= most for length, (least, most) in zip(lengths, ends, strict=True))
