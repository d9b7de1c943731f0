"""Faults of the activations, of arrays and of the compiler."""


class SaturatedDerivative:
    """y (1 - y): 0 where the sigmoid rounds to 1."""

    def sigmoid_gradient(self, x, /):
        y = super().sigmoid(x)
        return y * (1 - y)


class NativeTanhDerivative:
    """1 - y**2: 0 where tanh rounds to 1."""

    def tanh_gradient(self, x, /):
        y = super().tanh(x)
        return 1 - y * y


class PlainAutodiff:
    """The framework's own derivative of the formula as people write it."""

    def sigmoid(self, x, /):
        return 1 / (1 + self.ops.exp(-x))


class StepAtZero:
    """The derivative of ReLU at 0 is 1."""

    def relu_gradient(self, x, /):
        return super().relu_gradient(self.ops.where(x == 0, self.ops.ones_like(x), x))


class CompiledDiffers:
    """A compiled function is not the function: its array results are 0.1 % too large."""

    def compile(self, f, /):
        compiled = super().compile(f)

        def wrong(*args):
            y = compiled(*args)
            return y * 1.001 if self.is_array(y) else y

        return wrong


class InputMutated:
    """ReLU in place, in the caller's array."""

    def relu(self, x, /):
        x[x < 0] = 0
        return x


class NarrowDtype:
    """Float64 arrays are computed in float32."""

    def tanh(self, x, /):
        return self.ops.astype(super().tanh(self.ops.astype(x, "float32")), self.dtype_of(x))


class OtherError:
    """A wrong dtype is refused in the framework's own words."""

    def asarray(self, value, /, *, dtype=None):
        if dtype is not None and dtype not in self.dtypes:
            raise TypeError(f"data type {dtype!r} not understood")
        return super().asarray(value, dtype=dtype)


class OtherSignature:
    """A parameter has a name of its own."""

    def leaky_relu(self, x, /, *, alpha=0.01):
        return super().leaky_relu(x, slope=alpha)


FAULTS = {
    SaturatedDerivative: "activations.exact",
    NativeTanhDerivative: "activations.exact",
    PlainAutodiff: "activations.autodiff",
    StepAtZero: "activations.hard-points",
    CompiledDiffers: "compiled.equals-eager",
    InputMutated: "arrays.no-mutation",
    NarrowDtype: "activations.exact",
    OtherError: "errors.same",
    OtherSignature: "identity.signatures",
}
