"""The study hessian-spectrum and Hessian products: right on NumPy, and each check can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.networks import curvature
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.portable import PortableStream
from isometry.common.studies import hessian_spectrum

SMALL = {"examples": 32, "width": 8, "depths": "2,5", "lanczos": 16, "steps": 10}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Two initializers, few draws: tests/backends runs the study with all of them."""
    few = {name: hessian_spectrum.RULES[name] for name in ("xavier", "N(0, 0.01)")}
    monkeypatch.setattr(hessian_spectrum, "RULES", few)
    for name, count in (("QUADRATURES", 3), ("PROBES", 25), ("MATRICES", 4)):
        monkeypatch.setattr(hessian_spectrum, name, count)


class NoSecondDerivatives(NumpyBackend):
    """Declares none, as MXNet: products are differences of gradients."""

    capabilities = frozenset({"jvp"})

    def hvp(self, f, x, vector, /):
        raise self.unsupported("hvp")


def run(backend, **parameters):
    return studies.run("hessian-spectrum", backend, seed=3, parameters=SMALL | parameters)


def failed(backend, **parameters):
    return [check.claim for check in run(backend, **parameters).checks if not check.passed]


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        "hessian-spectrum",
        NumpyBackend(),
        parameters=SMALL,
        tell=lambda done, total, what: told.append((done, total)),
    )
    assert [check for check in result.checks if not check.passed] == []
    assert result.finding.endswith(".")
    assert "automatic differentiation" in result.finding
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert studies.find("hessian-spectrum").question.endswith("?")
    assert all(parameter.help for parameter in studies.find("hessian-spectrum").parameters)
    assert sum(check.false_alarm for check in result.checks) <= 1e-7


def test_differences_of_gradients_see_the_same():
    exact, difference = run(NumpyBackend()), run(NoSecondDerivatives())
    assert difference.passed
    assert "central difference of gradients" in difference.finding
    for name in ("net/largest", "net/smallest", "net/trace"):
        observed, expected = (r.quantities[name].values for r in (difference, exact))
        np.testing.assert_allclose(observed, expected, rtol=1e-4)


class WrongProduct(NumpyBackend):
    """Loses a thousandth of every product with a Hessian."""

    def hvp(self, f, x, vector, /):
        return 0.999 * super().hvp(f, x, vector)


class GaussNewton(NumpyBackend):
    """Adds four times what it should to every product."""

    def hvp(self, f, x, vector, /):
        return 40 * super().hvp(f, x, vector)


class Lopsided(NumpyBackend):
    """Its Hessians are not symmetric."""

    def hvp(self, f, x, vector, /):
        product = super().hvp(f, x, vector)
        return product + 0.5 * np.roll(vector, 1)


class TooWide(NumpyBackend):
    """Draws every weight with 1.4 times the standard deviation."""

    def initialize(self, rule, shape, stream, /, **options):
        return 1.4 * super().initialize(rule, shape, stream, **options)


class Deaf(PortableStream):
    def child(self, index, /):
        child = super().child(index)
        child.__class__ = Deaf
        return child

    def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
        return super().normal(shape, dtype=dtype) / 2


class OneScale(NumpyBackend):
    """Takes 1/2 for every standard deviation that it is asked for."""

    def portable_stream(self, seed, /):
        return Deaf(seed, convert=self.asarray, dtypes=self.dtypes)


@pytest.mark.parametrize(
    ("broken", "claims"),
    [
        (
            WrongProduct,
            [
                f"{model}: {what}"
                for model in ("least squares", "logistic", "softmax", "chain", "two layers")
                for what in (
                    "Hessian times vector, largest error relative to the vector",
                    "largest eigenvalue",
                    "the quadrature is exact for v^T H^4 v",
                )
                if (model, what[:5]) != ("two layers", "the q")
            ]
            + ["least squares: largest eigenvalue by power iteration"],
        ),
        (
            GaussNewton,
            [
                "least squares: Hutchinson's trace",
                "logistic: Hutchinson's trace",
                "softmax: Hutchinson's trace",
                "two layers: the quadrature is exact for v^T H^4 v",
            ],
        ),
        (
            TooWide,
            [
                "lecun_normal: eigenvalues of W W^T follow Marchenko and Pastur",
                "lecun_uniform: eigenvalues of W W^T follow Marchenko and Pastur",
                "lecun_normal: all singular values are between the edges",
                "lecun_normal: mean eigenvalue of W W^T",
            ],
        ),
        (OneScale, ["nets: the one of the smallest largest eigenvalue does not reach the goal"]),
    ],
)
def test_catches(broken, claims):
    steps = 80 if broken is OneScale else 1
    assert set(claims) <= set(failed(broken(), lanczos=8, steps=steps))


def test_catches_an_eigenvalue_that_has_not_converged():
    claim = "nets: largest error of the largest eigenvalue, relative"
    assert claim in failed(Lopsided(), lanczos=8, steps=1)


def test_refuses():
    with pytest.raises(InvalidArgument, match="a depth must be between 2 and 1000; received 0"):
        failed(NumpyBackend(), depths="0,6")
    with pytest.raises(InvalidArgument, match="a depth must be an integer; received 'deep'"):
        failed(NumpyBackend(), depths="2,deep")
    with pytest.raises(InvalidArgument, match="middle one of the depths must be at least 4"):
        failed(NumpyBackend(), depths="2,3")
    with pytest.raises(InvalidArgument, match="width must be between 2 and 10000; received 0"):
        failed(NumpyBackend(), width=0)


# --- products ------------------------------------------------------------------------------------


def small(nx, dtype="float64"):
    net = FullyConnected((3, 4, 4, 2), "tanh", normalization="layer")
    parameters = net.initialize(nx, nx.portable_stream(0), dtype=dtype)
    x = nx.portable_stream(1).normal((5, 3), dtype=dtype)
    return parameters, x, lambda w, x: nx.ops.mean(nx.ops.square(net.forward(nx, w, x)[0]))


@pytest.mark.parametrize(("backend", "error"), [(NumpyBackend, 1e-14), (NoSecondDerivatives, 1e-8)])
def test_products_over_dictionaries_are_symmetric_and_linear(backend, error):
    nx = backend()
    parameters, x, loss = small(nx)
    product = curvature.HessianProduct(nx, loss)
    apply = product.at(parameters, x)
    size = curvature.flatten(nx, parameters).size
    H = np.array([apply(e) for e in np.eye(size)])
    scale = np.abs(H).max()
    assert np.abs(H - H.T).max() <= error * scale
    v = np.random.default_rng(0).normal(size=size)
    assert np.abs(apply(v) - H @ v).max() <= 10 * error * scale
    vector = curvature.unflatten(nx, nx.asarray(v), curvature.shapes_of(nx, parameters))
    once = curvature.hessian_vector_product(nx, loss, parameters, vector, x)
    assert once.keys() == parameters.keys()
    np.testing.assert_array_equal(curvature.flatten(nx, once), apply(v))
    assert not curvature.flatten(
        nx, product(parameters, {k: 0 * p for k, p in vector.items()}, x)
    ).any()


def test_the_flat_gradient_is_the_gradient():
    for nx in (NumpyBackend(), NoSecondDerivatives()):
        parameters, x, loss = small(nx)
        evaluate = curvature.flat_gradient(nx, loss, curvature.shapes_of(nx, parameters))
        value, gradient = evaluate(nx.asarray(curvature.flatten(nx, parameters)), x)
        expected, named = nx.value_and_gradient(loss)(parameters, x)
        assert float(value) == float(expected)
        np.testing.assert_array_equal(gradient, curvature.flatten(nx, named))


def test_products_refuse():
    nx = NoSecondDerivatives()
    parameters, x, loss = small(nx, "float32")
    with pytest.raises(InvalidArgument, match="central difference of gradients needs float64"):
        curvature.hessian_vector_product(nx, loss, parameters, parameters, x)
    with pytest.raises(InvalidArgument, match="must have the parameters' paths"):
        curvature.hessian_vector_product(nx, loss, parameters, {"weight": x}, x)
    assert curvature.method(NumpyBackend()) == curvature.EXACT
