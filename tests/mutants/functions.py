"""Faults of the activations and their derivatives."""

import numpy as np


class SaturatedDerivative:
    """The sigmoid's derivative is y (1 - y): 0 where the sigmoid rounds to 1."""

    def sigmoid_gradient(self, x, /):
        y = super().sigmoid(x)
        return y * (1 - y)


class NativeTanhDerivative:
    """The derivative of tanh is 1 - y**2: 0 where tanh rounds to 1."""

    def tanh_gradient(self, x, /):
        y = super().tanh(x)
        return 1 - y * y


class SquareOverflows:
    """The sigmoid's derivative is e / (1 + e)**2 with e = exp(-x): 0 where the square overflows."""

    @np.errstate(all="ignore")
    def sigmoid_gradient(self, x, /):
        e = self.ops.exp(-x)
        return e / ((1 + e) * (1 + e))


class TailFlushed:
    """Derivatives below 1e-30 are set to 0."""

    def sigmoid_gradient(self, x, /):
        y = super().sigmoid_gradient(x)
        return self.ops.where(y < 1e-30, self.ops.zeros_like(y), y)


class DerivativeKeptAlive:
    """1e-30 is added to the derivative, so that nobody divides by zero."""

    def tanh_gradient(self, x, /):
        return super().tanh_gradient(x) + 1e-30


class HalfInHalf:
    """The derivative of a half precision is computed in half precision."""

    def sigmoid_gradient(self, x, /):
        e = self.ops.exp(-self.ops.abs(x))
        return e / ((1 + e) * (1 + e))


class HalfWidened:
    """The sigmoid of a half precision comes back in float32."""

    def sigmoid(self, x, /):
        wide = "float64" if self.dtype_of(x) == "float64" else "float32"
        return self.ops.astype(super().sigmoid(x), wide)


class NarrowDtype:
    """The tanh of float64 arrays is computed in float32."""

    def tanh(self, x, /):
        return self.ops.astype(super().tanh(self.ops.astype(x, "float32")), self.dtype_of(x))


class ExponentialOverflows:
    """The sigmoid is E / (1 + E) with E = exp(x): NaN where E overflows."""

    @np.errstate(all="ignore")
    def sigmoid(self, x, /):
        E = self.ops.exp(x)
        return E / (1 + E)


class InputClipped:
    """The sigmoid's argument is clipped to +-30, "for stability"."""

    def sigmoid(self, x, /):
        return super().sigmoid(self.ops.clip(x, -30.0, 30.0))


class SigmoidByTanh:
    """The sigmoid is (1 + tanh(x / 2)) / 2: nothing is left of it for negative x."""

    def sigmoid(self, x, /):
        return (1 + super().tanh(x / 2)) / 2


class TanhBySigmoid:
    """Tanh is 2 sigmoid(2x) - 1, which cancels near 0."""

    def tanh(self, x, /):
        return 2 * super().sigmoid(2 * x) - 1


class TinyDropped:
    """tanh of numbers below 1e-20 is 0."""

    def tanh(self, x, /):
        y = super().tanh(x)
        return self.ops.where(self.ops.abs(x) < 1e-20, 0 * y, y)


class AxesOfOneDropped:
    """tanh drops axes of size 1."""

    def tanh(self, x, /):
        shape = tuple(size for size in self.shape_of(x) if size != 1)
        return self.ops.reshape(super().tanh(x), shape)


class OnePointWrong:
    """The derivative of tanh is wrong at a single number, 0."""

    def tanh_gradient(self, x, /):
        y = super().tanh_gradient(x)
        return self.ops.where(x == 0, 0.999 * y, y)


class ZeroSignLost:
    """tanh(-0) is +0."""

    def tanh(self, x, /):
        return super().tanh(x) + 0.0


class NanSwallowed:
    """ReLU makes 0 of NaN."""

    def relu(self, x, /):
        return self.ops.where(x > 0, x, self.ops.zeros_like(x))


class ReluSmoothed:
    """ReLU is (x + sqrt(x**2 + 1e-12)) / 2, without a corner."""

    @np.errstate(all="ignore")
    def relu(self, x, /):
        return (x + self.ops.sqrt(x * x + 1e-12)) / 2


class ReluSix:
    """ReLU stops at 6."""

    def relu(self, x, /):
        return self.ops.clip(super().relu(x), 0.0, 6.0)


class StepAtZero:
    """The derivative of ReLU at 0 is 1."""

    def relu_gradient(self, x, /):
        return super().relu_gradient(self.ops.where(x == 0, self.ops.ones_like(x), x))


class AveragedAtZero:
    """The automatic derivative of ReLU at 0 is 1/2, the mean of both sides."""

    def relu(self, x, /):
        return super().relu(x) + self.ops.where(x == 0, 0.5 * x, self.ops.zeros_like(x))


class SlopeIgnored:
    """Leaky ReLU has its default slope whatever is asked for."""

    def leaky_relu(self, x, /, *, slope=0.01):
        return super().leaky_relu(x)


class LeakyAsMaximum:
    """Leaky ReLU is max(x, slope x): another function where the slope exceeds 1."""

    def leaky_relu(self, x, /, *, slope=0.01):
        return self.ops.maximum(x, slope * x)


class PlainAutodiff:
    """The sigmoid is differentiated as the framework does it, by a formula with 1 - y**2."""

    def sigmoid(self, x, /):
        return (1 + self.ops.tanh(x / 2)) / 2


class UsualUnlessSaturated:
    """Tanh is differentiated as 1 - tanh**2 where no |tanh| exceeds 0.99, which cancels before."""

    def tanh(self, x, /):
        ops, right = self.ops, super().tanh(x)
        y, z = ops.stop_gradient(right), ops.stop_gradient(x)
        usual = y + (1 - y * y) * (x - z)
        return ops.where(ops.max(ops.abs(y)) <= 0.99, usual, right)


class UsualUnlessPositive:
    """Tanh is differentiated as 1 - tanh**2 where no tanh exceeds 1/2, however large -tanh is."""

    def tanh(self, x, /):
        ops, right = self.ops, super().tanh(x)
        y, z = ops.stop_gradient(right), ops.stop_gradient(x)
        return ops.where(ops.max(y) <= 0.5, y + (1 - y * y) * (x - z), right)


class GradientDetached:
    """No gradient flows through tanh."""

    def tanh(self, x, /):
        return self.ops.stop_gradient(super().tanh(x)) + 0 * x


class GradientClipped:
    """What flows back is clipped to +-1."""

    def vjp(self, f, x, /):
        y, pullback = super().vjp(f, x)
        return y, lambda v: pullback(self.ops.clip(v, -1.0, 1.0))


class SecondDerivativeLost:
    """The sigmoid's derivative is right, and a constant for further differentiation."""

    needs = frozenset({"hvp"})

    def sigmoid(self, x, /):
        stop = self.ops.stop_gradient
        slope = stop(super().sigmoid_gradient(x))
        return stop(super().sigmoid(x)) + slope * (x - stop(x)) + 0 * x * x


class DerivativeDetached:
    """No gradient flows through the derivative of the sigmoid."""

    def sigmoid_gradient(self, x, /):
        return self.ops.stop_gradient(super().sigmoid_gradient(x)) + 0 * x


class NativeMixedUp:
    """The native derivative of tanh is that of the sigmoid."""

    def native_gradient(self, activation, x, /):
        return super().native_gradient("sigmoid" if activation == "tanh" else activation, x)


FAULTS = {
    SaturatedDerivative: "activations.exact[sigmoid_gradient]",
    NativeTanhDerivative: "activations.exact[tanh_gradient]",
    SquareOverflows: "activations.exact[sigmoid_gradient]",
    TailFlushed: "activations.exact[sigmoid_gradient]",
    DerivativeKeptAlive: "activations.beyond-normal[tanh]",
    HalfInHalf: "activations.exact[float16-sigmoid_gradient]",
    HalfWidened: "activations.hard-points[sigmoid]",
    NarrowDtype: "activations.exact[tanh]",
    ExponentialOverflows: "activations.hard-points[sigmoid]",
    InputClipped: "activations.exact[sigmoid]",
    SigmoidByTanh: "activations.exact[sigmoid]",
    TanhBySigmoid: "activations.exact[tanh]",
    TinyDropped: "activations.every-exponent[tanh]",
    AxesOfOneDropped: "activations.any-shape[tanh]",
    OnePointWrong: "activations.hard-points[tanh_gradient]",
    ZeroSignLost: "activations.signed-zero",
    NanSwallowed: "activations.hard-points[relu]",
    ReluSmoothed: "activations.subnormal[relu]",
    ReluSix: "activations.piecewise",
    StepAtZero: "activations.hard-points[relu_gradient]",
    AveragedAtZero: "activations.autodiff-hard-points[relu]",
    SlopeIgnored: "activations.slope",
    LeakyAsMaximum: "activations.slope",
    PlainAutodiff: "activations.autodiff[sigmoid]",
    UsualUnlessSaturated: "activations.autodiff-any-range[tanh]",
    UsualUnlessPositive: "activations.autodiff-any-range[tanh]",
    GradientDetached: "activations.autodiff[tanh]",
    GradientClipped: "activations.autodiff-every-exponent[tanh]",
    SecondDerivativeLost: "differentiation.hvp-activations[sigmoid]",
    DerivativeDetached: "differentiation.derivatives[sigmoid]",
    NativeMixedUp: "activations.native[tanh]",
}
