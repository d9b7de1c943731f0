"""The chapter's two studies: they hold on NumPy, and a broken backend fails the right check."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws import activations as laws
from isometry.common.laws.formats import FORMATS

SMALL = {"chains": 300, "points": 5, "paths": 3}


def run(name, backend=NumpyBackend, **parameters):
    return studies.run(name, backend(), seed=3, parameters=parameters)


def failed(result):
    return {check.claim for check in result.checks if not check.passed}


def value(result, name):
    return result.quantities[name].values


# --- sigmoid-gradient -------------------------------------------------------------------------


def test_sigmoid_gradient_holds_and_finds_where_numpys_own_is_lost():
    result = run("sigmoid-gradient")
    assert failed(result) == set()
    assert value(result, "x").shape == (161,)
    assert float(value(result, "sigmoid_gradient").max()) == 0.25
    # 1 / (1 + exp(-x)): exp overflows on the left and autograd makes NaN of it
    native = value(result, "tail_native_sigmoid_gradient_float32")
    lost = value(result, "tail_x_float32")[np.isnan(native)]
    assert lost.size
    assert lost.max() < -44
    assert f"NaN up to x = {lost.max():g}" in result.finding


class CorrectlyRounded(NumpyBackend):
    """The usual code after a correctly rounded activation."""

    def native_gradient(self, activation, x, /):
        y = {"sigmoid": laws.sigmoid, "tanh": laws.tanh}[activation](x).astype(x.dtype)
        return y * (1 - y) if activation == "sigmoid" else 1 - y * y


@pytest.mark.parametrize("activation", laws.SMOOTH)
def test_flush_point_is_the_first_zero_and_where_the_law_puts_it(activation):
    result = run("sigmoid-gradient", CorrectlyRounded)
    for dtype in ("float32", "float64"):
        first = value(result, f"flush_native_{activation}_gradient_{dtype}").astype(dtype)
        both = np.array([np.nextafter(first, first.dtype.type(0)), first])
        gradient = CorrectlyRounded().native_gradient(activation, both)
        assert gradient[0] > 0 == gradient[1]
    # laws.sigmoid is correctly rounded to float32, not to float64
    first = value(result, f"flush_native_{activation}_gradient_float32")
    law = laws.rounds_to_one(activation, "float32")
    assert abs(first - law) <= FORMATS["float32"].ulp(law)


def test_a_derivative_that_never_vanishes_has_no_flush_point():
    class Constant(NumpyBackend):
        def native_gradient(self, activation, x, /):
            return np.ones_like(x)

    result = run("sigmoid-gradient", Constant)
    assert np.isnan(value(result, "flush_native_tanh_gradient_float64"))
    assert "nowhere" in result.finding


class UsualSigmoid(NumpyBackend):
    def sigmoid_gradient(self, x, /):
        y = self.sigmoid(x)
        return y * (1 - y)


class InfinityLost(NumpyBackend):
    def tanh_gradient(self, x, /):
        with np.errstate(all="ignore"):
            return np.where(np.isinf(x), np.nan, super().tanh_gradient(x)).astype(x.dtype)


class NanLost(NumpyBackend):
    def relu(self, x, /):
        return np.where(x > 0, x, 0).astype(x.dtype)


class ReluAtZero(NumpyBackend):
    def relu_gradient(self, x, /):
        return np.where(x >= 0, 1, super().relu_gradient(x)).astype(x.dtype)


class FewUlp(NumpyBackend):
    def tanh_gradient(self, x, /):
        exact = super().tanh_gradient(x)
        return exact * (1 + 8 * np.finfo(x.dtype).eps).astype(x.dtype) if x.ndim else exact


@pytest.mark.parametrize(
    ("backend", "claims"),
    [
        (
            UsualSigmoid,
            {
                "the derivative of sigmoid is exact in float32 to |x| = 87.33",
                "the derivative of sigmoid is exact in float64 to |x| = 708.39",
            },
        ),
        (InfinityLost, {"the derivative of tanh is 0 at -inf and inf"}),
        (NanLost, {"NaN stays NaN in every activation and derivative"}),
        (ReluAtZero, {"the derivative of relu is right at every point, 0 included"}),
        (
            FewUlp,
            {
                "the derivative of tanh is 1 at 0",
                "the derivative of tanh is exact in float32 to |x| = 44.36",
                "the derivative of tanh is exact in float64 to |x| = 354.89",
            },
        ),
    ],
)
def test_a_broken_activation_fails_its_own_checks_and_no_other(backend, claims):
    assert failed(run("sigmoid-gradient", backend)) == claims


# --- matrix-chain -----------------------------------------------------------------------------


def test_matrix_chain_holds_at_its_defaults():
    result = run("matrix-chain")
    assert failed(result) == set()
    assert value(result, "chapter_product").shape == (4, 4)
    assert value(result, "chapter_overflow") == 0
    assert value(result, "log_norm").shape == (1000,)
    assert value(result, "path_log10_norm").shape == (60, 20)
    assert value(result, "path_step")[-1] > value(result, "overflow_expected_float64")
    assert sum(check.false_alarm for check in result.checks) <= 1e-8


def test_the_chapters_chain_is_portable_and_repeats():
    one, two = run("matrix-chain", **SMALL), run("matrix-chain", **SMALL)
    for name in one.quantities:
        np.testing.assert_array_equal(value(one, name), value(two, name))
    other = studies.run("matrix-chain", NumpyBackend(), seed=4, parameters=SMALL)
    assert np.all(value(other, "chapter_matrix") != value(one, "chapter_matrix"))


def test_the_chapters_float32_product_is_the_first_matrix_times_others():
    result = run("matrix-chain", length=1, **SMALL)
    nx = NumpyBackend()
    chain = nx.matrix_chain(nx.portable_stream(3), length=2, size=4)
    np.testing.assert_array_equal(value(result, "chapter_product"), chain.product[0])
    first = nx.matrix_chain(nx.portable_stream(3), length=1, size=4)
    np.testing.assert_array_equal(value(result, "chapter_matrix"), first.product[0])


def test_products_of_scalars_shrink():
    result = run("matrix-chain", size=1, **SMALL)
    assert failed(result) == set()
    assert "do not overflow" in result.finding
    assert "overflow_float32" not in result.quantities
    assert np.isinf(value(result, "overflow_expected_float32"))


class ScaledDraws(NumpyBackend):
    def chain_product(self, product, factors, /, *, rescale=False):
        return super().chain_product(product, 1.05 * factors, rescale=rescale)


class ForgottenScale(NumpyBackend):
    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors, rescale=rescale)
        return product, 0 * log_scale


class RepeatedFactor(NumpyBackend):
    def chain_product(self, product, factors, /, *, rescale=False):
        same = np.broadcast_to(factors[:1], factors.shape)
        return super().chain_product(product, same, rescale=rescale)


class ReversedSpectrum(NumpyBackend):
    def lyapunov_spectrum(self, stream, /, **options):
        return super().lyapunov_spectrum(stream, **options)[:, ::-1]


class LateOverflow(NumpyBackend):
    def matrix_chain(self, stream, /, **options):
        chain = super().matrix_chain(stream, **options)
        object.__setattr__(chain, "overflow", 2 * chain.overflow)
        return chain


MEAN = "the mean log-norm per factor is the Lyapunov exponent"
SPREAD = "the spread of the log-norm is the law's: mean of min(z**2, 9)"
LAW = "the log-norm has the exact distribution function"


@pytest.mark.parametrize(
    ("backend", "claims"),
    [
        (ScaledDraws, {MEAN, SPREAD, LAW}),
        (ForgottenScale, {MEAN, SPREAD, LAW}),
        (RepeatedFactor, {SPREAD, LAW}),
        (ReversedSpectrum, {f"Lyapunov exponent {i} is the exact one" for i in (1, 2, 3, 4)}),
    ],
)
def test_a_broken_chain_fails_its_own_checks(backend, claims):
    assert claims <= failed(run("matrix-chain", backend, **SMALL))


def test_a_wrong_overflow_step_fails_its_own_checks_and_no_other():
    claims = failed(run("matrix-chain", LateOverflow, **SMALL))
    assert len(claims) == 2
    assert all(claim.startswith("every chain overflows float") for claim in claims)


@pytest.mark.parametrize(
    ("study", "parameters", "message"),
    [
        ("sigmoid-gradient", {"points": 1}, "points must be between 2 and 1000000; received 1"),
        ("sigmoid-gradient", {"tail_points": -3}, "tail_points must be between 2"),
        ("matrix-chain", {"length": 0}, "length must be between 1 and 1000000; received 0"),
        ("matrix-chain", {"size": 0}, "size must be between 1 and 1000000; received 0"),
        ("matrix-chain", {"chains": -1}, "chains must be between 1 and 1000000; received -1"),
        ("matrix-chain", {"paths": 0}, "paths must be between 1 and 1000000; received 0"),
        ("matrix-chain", {"points": "many"}, "parameter 'points' must be int; received 'many'"),
    ],
)
def test_wrong_parameters_are_named(study, parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(study, **parameters)


@pytest.mark.parametrize("name", ["sigmoid-gradient", "matrix-chain"])
def test_question_and_help_are_documented(name):
    study = studies.find(name)
    assert study.question.endswith("?")
    assert all(parameter.help for parameter in study.parameters)
