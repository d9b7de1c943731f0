"""Faults of the normalizations of weights, and of whitening."""

from isometry.common.composed import as_rows

from .normalization import Forward


def _outputs(nx, weight, axis):
    """Return a weight as (outputs, inputs), and the way back."""
    axis %= len(nx.shape_of(weight))
    return as_rows(nx, weight, (axis,), nx.shape_of(weight)[axis : axis + 1])


class _WeightNorm:
    """Computes ``g v / d`` with the fault's `divisor` d."""

    def weight_norm(self, v, g, /, *, axis=0):
        rows, restored = _outputs(self, v, axis)
        return restored(rows / self.divisor(rows) * self.ops.reshape(g, (-1, 1)))

    def largest(self, rows):
        c = self.ops.max(self.ops.abs(rows), axis=-1, keepdims=True)
        return self.ops.where(c > 0, c, self.ops.ones_like(c))

    def norm(self, rows):
        return self.ops.sqrt(self.ops.sum(self.ops.square(rows), axis=-1, keepdims=True))


class WeightSquared(_WeightNorm):
    """Weight norm squares v as it is: infinite or 0 where v is large or small."""

    def divisor(self, rows):
        norm = self.norm(rows)
        return self.ops.where(norm > 0, norm, self.ops.ones_like(norm))


class WeightNormOfAll(_WeightNorm):
    """Weight norm takes one norm for all outputs."""

    def divisor(self, rows):
        return self.norm(self.ops.reshape(rows, (1, -1)))


class WeightNormConstant(_WeightNorm):
    """The norm of v is a constant for differentiation."""

    def divisor(self, rows):
        rows = self.ops.stop_gradient(rows)
        c = self.largest(rows)
        norm = self.norm(rows / c)
        return c * self.ops.where(norm > 0, norm, self.ops.ones_like(norm))


class _Standardized:
    """Computes ``(w - m) / d`` with the fault's `statistics` m and d."""

    def weight_standardization(self, weight, /, *, axis=0, eps=1e-5):
        rows, restored = _outputs(self, weight, axis)
        mean, deviation = self.statistics(rows, eps)
        return restored((rows - mean) / deviation)

    def moments(self, rows):
        mean = self.ops.mean(rows, axis=-1, keepdims=True)
        return mean, self.ops.mean(self.ops.square(rows - mean), axis=-1, keepdims=True)


class StandardizedUnbiased(_Standardized):
    """Weight standardization divides by n - 1, as its authors' code for PyTorch."""

    def statistics(self, rows, eps):
        mean, variance = self.moments(rows)
        count = self.shape_of(rows)[-1]
        return mean, self.ops.sqrt(variance * (count / (count - 1)) + eps)


class StandardizedEpsOutside(_Standardized):
    """Weight standardization adds eps outside the square root."""

    def statistics(self, rows, eps):
        mean, variance = self.moments(rows)
        return mean, self.ops.sqrt(variance) + eps


class StandardizedConstants(_Standardized):
    """Mean and variance of an output's weights are constants for differentiation."""

    def statistics(self, rows, eps):
        mean, variance = self.moments(self.ops.stop_gradient(rows))
        return mean, self.ops.sqrt(variance + eps)


class StandardizedByInput:
    """Weight standardization normalizes over the outputs of each input."""

    def weight_standardization(self, weight, /, *, axis=0, eps=1e-5):
        rows, restored = _outputs(self, weight, axis)
        return restored(super().weight_standardization(rows, axis=1, eps=eps))


class OneIteration:
    """Spectral norm iterates once, whatever is asked for."""

    def spectral_norm(self, weight, u, /, *, iterations, axis=0):
        return super().spectral_norm(weight, u, iterations=1, axis=axis)


class OneIterationMore:
    """Spectral norm iterates once more than asked for."""

    def spectral_norm(self, weight, u, /, *, iterations, axis=0):
        return super().spectral_norm(weight, u, iterations=iterations + 1, axis=axis)


class StartForgotten:
    """Spectral norm starts from a vector of ones, whatever is given."""

    def spectral_norm(self, weight, u, /, *, iterations, axis=0):
        one = self.ops.ones_like(u)
        return super().spectral_norm(weight, one, iterations=iterations, axis=axis)


class FrobeniusForSpectral:
    """The weight is divided by its Frobenius norm."""

    def spectral_norm(self, weight, u, /, *, iterations, axis=0):
        _, u, v, _ = super().spectral_norm(weight, u, iterations=iterations, axis=axis)
        norm = self.ops.sqrt(self.ops.sum(self.ops.square(weight)))
        return weight / norm, u, v, norm


class SigmaConstant:
    """Sigma is a constant for differentiation, as in Keras's SpectralNormalization."""

    def spectral_norm(self, weight, u, /, *, iterations, axis=0):
        _, u, v, sigma = super().spectral_norm(weight, u, iterations=iterations, axis=axis)
        return weight / self.ops.stop_gradient(sigma), u, v, sigma


class SigmaConstantForward(Forward, SigmaConstant):
    """Sigma is a constant for forward mode."""

    def spectral_norm(self, weight, u, /, *, iterations, axis=0):
        options = {"iterations": iterations, "axis": axis}
        if self.forward:
            return super().spectral_norm(weight, u, **options)
        return super(SigmaConstant, self).spectral_norm(weight, u, **options)


class ZeroByZero:
    """Spectral norm divides a weight of zeros by its norm 0, as PyTorch does."""

    def spectral_norm(self, weight, u, /, *, iterations, axis=0):
        _, u, v, sigma = super().spectral_norm(weight, u, iterations=iterations, axis=axis)
        return weight / sigma, u, v, sigma


class _Deconvolution:
    """Calls `wrong` with x, the options, and the right network deconvolution."""

    def network_deconvolution(self, x, /, *, iterations, eps=1e-5):
        options = {"iterations": iterations, "eps": eps}
        return self.wrong(x, options, super().network_deconvolution)


class OneStepMore(_Deconvolution):
    """Newton-Schulz takes one step more than asked for."""

    def wrong(self, x, options, right):
        return right(x, **{**options, "iterations": options["iterations"] + 1})


class FullyWhitened(_Deconvolution):
    """Small directions are whitened after five iterations too."""

    def wrong(self, x, options, right):
        return right(x, **{**options, "iterations": 40})


class DeviationUnsaid(_Deconvolution):
    """The deviation is always 0."""

    def wrong(self, x, options, right):
        *found, deviation = right(x, **options)
        return (*found, deviation * 0)


class NotCentred(_Deconvolution):
    """The mean stays in the result, as where it is left to the bias."""

    def wrong(self, x, options, right):
        _, mean, d, deviation = right(x, **options)
        return self.ops.matmul(x, d), mean, d, deviation


class WhiteningConstant(_Deconvolution):
    """D is a constant for differentiation."""

    def wrong(self, x, options, right):
        _, mean, d, deviation = right(self.ops.stop_gradient(x), **options)
        y = self.ops.matmul(x - self.ops.mean(x, axis=0, keepdims=True), d)
        return y, mean, d, deviation


class WhiteningConstantForward(Forward, WhiteningConstant):
    """D is a constant for forward mode."""

    def wrong(self, x, options, right):
        return super().wrong(x, options, right) if self.forward else right(x, **options)


class DeconvolutionEpsFixed(_Deconvolution):
    """Network deconvolution has the default eps whatever is asked for."""

    def wrong(self, x, options, right):
        return right(x, **{**options, "eps": 1e-5})


class Unguarded(_Deconvolution):
    """Newton-Schulz goes on where its steps lead away, as in the authors' code."""

    def wrong(self, x, options, right):
        ops, (samples, features) = self.ops, self.shape_of(x)
        mean = ops.mean(x, axis=0, keepdims=True)
        identity = ops.eye(features, features, dtype=self.dtype_of(x))
        c = x - mean
        covariance = ops.matmul(ops.permute_dims(c, (1, 0)), c) / samples
        covariance = covariance + options["eps"] * identity
        norm = ops.sqrt(ops.sum(ops.square(covariance)))
        y, z = covariance / norm, identity
        for _ in range(options["iterations"]):
            t = 1.5 * identity - 0.5 * ops.matmul(z, y)
            y, z = ops.matmul(y, t), ops.matmul(t, z)
        d = z / ops.sqrt(norm)
        return ops.matmul(c, d), ops.reshape(mean, (-1,)), d, ops.sum(d) * 0


FAULTS = {
    WeightSquared: "normalization.weight",
    WeightNormOfAll: "normalization.weight",
    WeightNormConstant: "normalization.weight-gradient",
    StandardizedUnbiased: "normalization.standardization",
    StandardizedEpsOutside: "normalization.standardization",
    StandardizedByInput: "normalization.standardization",
    StandardizedConstants: "normalization.standardization-gradient",
    OneIteration: "normalization.spectral",
    StartForgotten: "normalization.spectral",
    FrobeniusForSpectral: "normalization.spectral-convergence",
    OneIterationMore: "normalization.spectral-convergence",
    SigmaConstant: "normalization.spectral-gradient",
    ZeroByZero: "normalization.zero-weight",
    OneStepMore: "normalization.deconvolution",
    DeviationUnsaid: "normalization.deconvolution",
    NotCentred: "normalization.deconvolution",
    WhiteningConstant: "normalization.deconvolution-gradient",
    FullyWhitened: "normalization.deconvolution-iterations",
    Unguarded: "normalization.deconvolution-rank",
    DeconvolutionEpsFixed: "normalization.deconvolution-one",
    SigmaConstantForward: "normalization.composed-jvp[spectral_norm]",
    WhiteningConstantForward: "normalization.composed-jvp[network_deconvolution]",
}
