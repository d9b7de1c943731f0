"""The study matrix-products: right on NumPy, and each of its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument

SMALL = {"size": 4, "pairs": 40, "depth": 4}


def failed(backend, **parameters):
    result = studies.run("matrix-products", backend, seed=3, parameters=SMALL | parameters)
    return [check.claim for check in result.checks if not check.passed]


def with_ops(**replaced):
    """Return a NumPy backend some of whose operations are replaced: name -> f(original)."""
    nx = NumpyBackend()
    for name, wrap in replaced.items():
        setattr(nx.ops, name, wrap(getattr(nx.ops, name)))
    return nx


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        "matrix-products", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert [check for check in result.checks if not check.passed] == []
    assert result.finding.endswith(".")
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert studies.find("matrix-products").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("matrix-products").parameters)
    assert sum(check.false_alarm for check in result.checks) <= 1e-7


@pytest.mark.parametrize("size", [2, 3])
def test_the_smallest_sizes(size):
    assert failed(NumpyBackend(), size=size, depth=2) == []


def test_what_the_bounds_give_away():
    result = studies.run("matrix-products", NumpyBackend(), parameters=SMALL)
    value = {name: q.values for name, q in result.quantities.items()}
    assert 0.5 < np.median(value["gaussian/norm"]) < 1
    assert (value["gaussian/condition"] <= 1 + 1e-9).all()
    assert (value["gaussian/low"] <= value["gaussian/singular"]).all()
    assert (value["gaussian/singular"] <= value["gaussian/high"]).all()
    assert value["depth/gaussian/condition"][-1] < value["depth/gaussian/bound"][-1]
    assert value["depth/orthogonal/condition"][-1] == pytest.approx(0, abs=1e-12)
    # psi(2) - psi(1/2) = 1 + 2 ln 2, half of it in decades
    assert value["lyapunov"] == pytest.approx((1 + 2 * np.log(2)) / 2 / np.log(10), rel=1e-14)
    assert ((value["ostrowski/place"] > -1e-6) & (value["ostrowski/place"] < 1 + 1e-6)).all()


def half_precision(matmul):
    def product(a, b):
        return matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)

    return product


def too_large(matmul):
    return lambda a, b: 2 * matmul(a, b)


def too_small(matmul):
    return lambda a, b: matmul(a, b) / 8


def first_doubled(svd):
    def decompose(x):
        u, s, vh = svd(x)
        return u, np.concatenate([2 * s[..., :1], s[..., 1:]], axis=-1), vh

    return decompose


def forgetful(matmul):
    def product(a, b):
        c = matmul(a, b)
        return 0 * c + np.eye(c.shape[-1]) if c.shape[-1] == c.shape[-2] else c

    return product


def transposed(matmul):
    def product(a, b):
        square = np.shape(a)[-2:] == np.shape(b)[-2:]
        return matmul(a, np.swapaxes(b, -1, -2) if square else b)

    return product


@pytest.mark.parametrize(
    ("operation", "broken", "claim"),
    [
        ("matmul", too_large, "gaussian pairs: |det AB| = |det A| |det B|"),
        ("matmul", too_large, "graded pairs: products of the largest"),
        ("matmul", half_precision, "and the bound of the condition number"),
        ("matmul", too_large, "gaussian pairs: sigma_(i+j-1)(AB) <= s_i t_j"),
        ("matmul", too_small, "gaussian pairs: sigma_(i+j-n)(AB) >= s_i t_j"),
        ("matmul", half_precision, "each sigma_k(AB) reaches its upper bound"),
        ("matmul", half_precision, "orthogonal nets: all singular values are 1"),
        ("matmul", half_precision, "twice an orthogonal S: eigenvalues of S H S^T"),
        ("matmul", half_precision, "each sigma_k(AB) reaches its lower bound"),
        (
            "matmul",
            half_precision,
            "number of pairs whose ranks of nested projections miss the smaller rank",
        ),
        (
            "matmul",
            transposed,
            "a matrix and its inverse reach the lower bound of the condition number, 1",
        ),
        (
            "matmul",
            transposed,
            "the largest |eigenvalue| of a product has no bound by those of its factors",
        ),
        ("svd", first_doubled, "A A^T reaches Weyl's bounds for every k"),
        ("matmul", forgetful, "gaussian pairs: c(AB) between its bounds"),
        ("svd", first_doubled, "a diagonal S: eigenvalues of S H S^T"),
        (
            "svd",
            first_doubled,
            "the condition number of a 2 x 2 Gaussian matrix has its exact distribution",
        ),
        (
            "svd",
            first_doubled,
            "the mean log singular value of a Gaussian net, which no rotation changes",
        ),
    ],
)
def test_catches(operation, broken, claim):
    assert claim in failed(with_ops(**{operation: broken}), size=6, pairs=200)


class LostGradient(NumpyBackend):
    """Loses a millionth of every gradient."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(parameters, *args):
            value, gradient = inner(parameters, *args)
            return value, {k: g * g.dtype.type(1 - 1e-6) for k, g in gradient.items()}

        return value_and_gradient


def test_catches_a_wrong_gradient():
    claims = failed(LostGradient())
    for activation in ("linear", "tanh", "sigmoid"):
        assert any(c.startswith(f"{activation} net in float64: autodiff's") for c in claims)


def test_refuses():
    with pytest.raises(InvalidArgument, match="depth must be between 2 and 1000; received 0"):
        failed(NumpyBackend(), depth=0)
    with pytest.raises(InvalidArgument, match="size must be between 2 and 64; received 0"):
        failed(NumpyBackend(), size=0)
