"""The study vanishing-curvature: right on NumPy, and each of its checks can fail."""

import math

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument

SMALL = {"depths": "5,20", "chains": 1000, "net_depths": "6", "nets": 150, "remedy_nets": 2}


def run(backend, seed=3, **parameters):
    return studies.run("vanishing-curvature", backend, seed=seed, parameters=SMALL | parameters)


def failed(backend):
    """Return the claims that a backend fails."""
    return [check.claim for check in run(backend).checks if not check.passed]


@pytest.fixture(scope="module")
def result():
    return run(NumpyBackend(), seed=1)


def test_numpy_keeps_every_claim(result):
    assert [check for check in result.checks if not check.passed] == []
    assert result.finding.endswith(".")
    assert "automatic differentiation" in result.finding
    assert len({check.claim for check in result.checks}) == len(result.checks)
    found = studies.find("vanishing-curvature")
    assert found.question.endswith("?")
    assert all(parameter.help for parameter in found.parameters)


def test_false_alarms_of_the_default_sum_up(result):
    """Chains: 3 depths, 6 laws; nets: 2 depths, 3 profiles, 2 activations; two derivatives."""
    rate = {check.false_alarm for check in result.checks} - {0.0}
    assert rate == {5e-10}
    assert (3 * 6 * 2 * 2 + 2 * 3 * 2 * 2) * 5e-10 <= 1e-7


def test_medians_vanish_where_second_moments_do_not(result):
    gradient = result.quantities["median/gradient/xavier, normal"].values
    assert gradient[1] < gradient[0] < -1
    assert abs(result.quantities["median/gradient/residual / sqrt(depth)"].values[1]) < 1


def test_the_whole_product_is_at_least_its_part(result):
    for name in ("linear, width 4", "relu, width = depth"):
        part = result.quantities[f"median/Hessian/{name}"].values
        assert (result.quantities[f"median/product/{name}"].values >= part).all()


def test_descent_takes_exponentially_long_and_rmsprop_does_not(result):
    descent, rmsprop = (result.quantities[f"escape/{n}"].values for n in ("descent", "rmsprop"))
    assert descent[-1] > 200 * descent[0]
    assert rmsprop.max() <= 20


class NoHessian(NumpyBackend):
    """Declares no Hessian-vector products."""

    capabilities = frozenset({"jvp"})

    def hvp(self, f, x, vector, /):
        raise self.unsupported("hvp")


def test_central_differences_take_over_where_there_is_no_hvp(result):
    other = run(NoHessian(), seed=1)
    assert [check for check in other.checks if not check.passed] == []
    assert "central differences of gradients in float64" in other.finding
    for name, quantity in result.quantities.items():
        if "Hessian" in name:
            np.testing.assert_allclose(other.quantities[name].values, quantity.values, rtol=1e-6)


class SmallNormals(NumpyBackend):
    """Draws every normal weight a fifth too small."""

    def stream(self, seed, /):
        stream = super().stream(seed)
        _shrink(stream)
        return stream


def _shrink(stream):
    normal, split = stream.normal, stream.split
    stream.normal = lambda *args, **options: 0.8 * normal(*args, **options)

    def parts(count):
        children = split(count)
        for child in children:
            _shrink(child)
        return children

    stream.split = parts


class LostCurvature(NumpyBackend):
    """Loses two thirds of every Hessian-vector product."""

    def hvp(self, f, x, vector, /):
        return super().hvp(f, x, vector) / 3


class LeakyMask(NumpyBackend):
    """A ReLU that lets half of a negative value through."""

    def relu(self, x, /):
        return self.leaky_relu(x, slope=0.5)


class SlowGradient(NumpyBackend):
    """Gradients of dictionaries come back a twentieth too small."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(parameters, *args):
            value, gradient = inner(parameters, *args)
            if isinstance(gradient, dict):
                gradient = {path: 0.95 * g for path, g in gradient.items()}
            return value, gradient

        return value_and_gradient


class NoRoot(NumpyBackend):
    """A square root that is none: what divides the gradient is not its size."""

    def __init__(self):
        super().__init__()
        self.ops.sqrt = lambda x: x**0.25


@pytest.mark.parametrize(
    ("broken", "claims"),
    [
        (
            SmallNormals,
            {
                "xavier, normal, depth 20: gradient: share below the exact median",
                "he, normal, depth 20: Hessian: distribution function",
                "linear, width = depth, depth 6: gradient, of nets that are not dead: "
                "share below the exact median",
            },
        ),
        (
            LostCurvature,
            {
                "xavier, uniform, depth 5: Hessian: share below the exact median",
                "residual / sqrt(depth), depth 20: Hessian: distribution function",
                "relu, width = depth, depth 6: Hessian, of nets that are not dead: "
                "share below the exact median",
            },
        ),
        (
            LeakyMask,
            {
                "relu, width 4, depth 6: gradient, of nets that are not dead: "
                "share below the exact median"
            },
        ),
        (
            SlowGradient,
            {
                "descent: steps off the plateau are those of one weight's recursion, at any depth",
                "descent, depth 8: steps x rate off the plateau is the flow's time",
            },
        ),
        (NoRoot, {"rmsprop: the most steps that any depth takes off the plateau"}),
    ],
)
def test_it_catches(broken, claims):
    assert claims <= set(failed(broken()))


def test_it_refuses():
    for parameters, words in (
        ({"depths": "5,2"}, "each of depths must be between 3"),
        ({"net_depths": "0"}, "each of net_depths must be between 4"),
        ({"depths": "deep"}, "depths must be whole numbers"),
        ({"nets": 0}, "nets must be between 20"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            run(NumpyBackend(), **parameters)


def test_geometric_rate_of_the_medians_is_that_of_the_logarithm(result):
    exact = result.quantities["median/gradient/he, uniform/exact"].values
    assert (exact[1] - exact[0]) / 15 == pytest.approx(math.log(math.sqrt(6) / math.e), rel=0.02)
