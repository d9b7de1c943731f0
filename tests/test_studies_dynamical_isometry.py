"""The study dynamical-isometry: right on NumPy, and its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws import isometry as laws

SMALL = {"depth": 4, "width": 64, "networks": 24, "convolutions": 8}


def run(backend, **parameters):
    return studies.run("dynamical-isometry", backend, seed=5, parameters=SMALL | parameters)


def failed(backend, **parameters):
    """Return the claims that a backend fails."""
    return [check.claim for check in run(backend, **parameters).checks if not check.passed]


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        "dynamical-isometry",
        NumpyBackend(),
        tell=lambda done, total, what: told.append((done, total)),
    )
    assert [check for check in result.checks if not check.passed] == []
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    assert result.finding.endswith(".")
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    asked = studies.find("dynamical-isometry")
    assert asked.question.endswith("?")
    assert all(parameter.help for parameter in asked.parameters)


def test_the_answer_on_the_sigmoid():
    found = run(NumpyBackend()).quantities
    assert found["sigmoid/critical"].values == pytest.approx([45.6242778, 103.0075539, 0])
    for name, orthogonal in (("sigmoid", 13.0), ("tanh, q = 1/depth", 2.0)):
        exact = {w: found[f"{name}/{w}/variance"].values[1] for w in laws.WEIGHTS}
        assert exact["gaussian"] - exact["orthogonal"] == pytest.approx(4)
        assert (exact["orthogonal"] > 10) == (name == "sigmoid")
        assert exact["orthogonal"] < orthogonal + 1
    centred = found["sigmoid - 1/2/orthogonal/variance"].values[1]
    assert centred == pytest.approx(found["tanh, q = 1/depth/orthogonal/variance"].values[1])
    assert 0.5 < found["lost"].values < 0.7


class Longer(NumpyBackend):
    """Its Q of a QR is a tenth of a percent too long."""

    def __init__(self, **options):
        super().__init__(**options)
        qr = self.ops.qr
        self.ops.qr = lambda x: (1.001 * qr(x)[0], qr(x)[1])


class Louder(NumpyBackend):
    """Its matrix products are a tenth too large."""

    def __init__(self, **options):
        super().__init__(**options)
        matmul = self.ops.matmul
        self.ops.matmul = lambda a, b: 1.1 * matmul(a, b)


class Paired(NumpyBackend):
    """Every second unit of a layer does what the one before does."""

    def __init__(self, **options):
        super().__init__(**options)
        matmul = self.ops.matmul

        def paired(a, b):
            y = matmul(a, b)
            if y.ndim == 3:  # of all nets at once, none of which is being differentiated
                y[:, 1::2] = y[:, ::2]
            return y

        self.ops.matmul = paired


class WrongSlope(NumpyBackend):
    """Gives 1 - y for the derivative of tanh, where its automatic differentiation is right."""

    def tanh_gradient(self, x, /):
        return 1 - np.tanh(np.abs(x))


class Leaky(NumpyBackend):
    """A ReLU that lets half of a negative value through, with the derivative of that."""

    def relu(self, x, /):
        return self.leaky_relu(x, slope=0.5)

    def relu_gradient(self, x, /):
        return self.leaky_relu_gradient(x, slope=0.5)


class LostGradient(NumpyBackend):
    """Loses a millionth of every gradient."""

    def vjp(self, f, x, /):
        y, pullback = super().vjp(f, x)
        return y, lambda v: (1 - 1e-6) * pullback(v)


class ShortConvolution(NumpyBackend):
    """Its convolutions lose a millionth."""

    def __init__(self, **options):
        super().__init__(**options)
        conv = self.ops.conv
        self.ops.conv = lambda x, weight, *, padding=0: (
            (1 - 1e-6) * conv(x, weight, padding=padding)
        )


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (Longer, "linear, orthogonal: largest deviation of a squared singular value from 1"),
        (Longer, "convolutions, delta-orthogonal: norm of the image, largest change at a layer"),
        (Louder, "linear, gaussian: logarithm of the squared determinant"),
        (Paired, "linear, gaussian: mean of the fourth powers of singular values"),
        (Leaky, "relu, orthogonal: mean of the fourth powers of singular values"),
        (
            Paired,
            "tanh, q = 1/depth, orthogonal: mean of the fourth powers over what the slopes make "
            "of it",
        ),
        (
            Paired,
            "sigmoid - 1/2, orthogonal: variance of squared singular values, widths extrapolated",
        ),
        (WrongSlope, "the product of the layers' Jacobians is the Jacobian of the net"),
        (LostGradient, "the product of the layers' Jacobians is the Jacobian of the net"),
        (LostGradient, "convolutions, delta-orthogonal: norm of the gradient, change at the input"),
        (Leaky, "relu, gaussian: mean of the fourth powers of singular values"),
        (Leaky, "relu, gaussian: log squared length of the image of one direction"),
        (ShortConvolution, "convolutions, delta-orthogonal: norm of the image, largest change at "
         "a layer"),
    ],
)  # fmt: skip
def test_catches(broken, claim):
    assert claim in failed(broken())


def test_a_wrong_theory_is_caught(monkeypatch):
    """Without s_1 Gaussian nets would have the variance of orthogonal ones."""
    monkeypatch.setitem(laws.WEIGHTS, "gaussian", 0.0)
    claims = failed(NumpyBackend())
    assert (
        "tanh, q = 1/depth, gaussian: variance of squared singular values, widths extrapolated"
        in claims
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depth": 0}, "depth must be between 2"),
        ({"width": 0}, "width must be between 64"),
        ({"networks": 1}, "networks must be between 8"),
        ({"convolutions": 0}, "convolutions must be between 1"),
    ],
)
def test_refusals(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        failed(NumpyBackend(), **parameters)
