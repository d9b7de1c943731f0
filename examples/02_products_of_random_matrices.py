"""Products of random matrices explode or vanish, at a rate that is known exactly.

    python examples/02_products_of_random_matrices.py --backend torch --seed 1

The chapter multiplies a 4x4 Gaussian matrix by 100 more and sees 1e23. That is no accident: the
logarithm of the norm grows by the Lyapunov exponent (ln 2 + psi(n / 2)) / 2 for each factor, 0.558
for n = 4. Dividing the entries by exp(0.558) keeps the product where it is.
"""

import argparse
import math

import numpy as np
from scipy.special import digamma

import isometry as iso
from isometry.common.laws.chains import log_norm_law

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--backend", default="numpy")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
nx = iso.load(arguments.backend)
size, length, chains = 4, 101, 1000
exponent = (math.log(2) + digamma(size / 2)) / 2

# One product, as the chapter does it.
once = nx.matrix_chain(nx.stream(arguments.seed), length=length, size=size)
print("after 100 more matrices:\n", nx.to_numpy(once.product)[0])

# Three times as long, it does not fit into float32 any more.
longer = nx.matrix_chain(nx.stream(arguments.seed), length=3 * length, size=size)
print(f"float32 overflows after {longer.overflow[0]} factors")

# In log scale nothing overflows, and a thousand chains show the law.
many = nx.matrix_chain(
    nx.stream(arguments.seed), length=length, size=size, batch=chains, rescale=True
)
rate = many.log_norm.mean() / length
print(f"growth for each factor {rate:.4f}, exact exponent {exponent:.4f}")

# Entries scaled by exp(-exponent): neither explodes nor vanishes.
steady = nx.matrix_chain(
    nx.stream(arguments.seed),
    length=length,
    size=size,
    batch=chains,
    law=iso.Normal(0.0, math.exp(-exponent)),
    rescale=True,
)
print(
    f"with entries N(0, {math.exp(-2 * exponent):.3f}) it is {steady.log_norm.mean() / length:.4f}"
)

# What this taught. The norm of the first column follows an exact law: its logarithm is a sum of
# independent ln chi_4, whose mean over all chains strays further than this once in 1e9 runs.
column = many.log_scale + np.log(np.linalg.norm(nx.to_numpy(many.product)[:, :, 0], axis=1))
allowed = log_norm_law(size, length).times(chains).deviation(1e-9) / chains
assert abs(column.mean() - length * exponent) <= allowed
# Four columns together are at least as long as one, and one is at least as long as in the law.
assert -allowed <= steady.log_norm.mean() <= length * 0.05
