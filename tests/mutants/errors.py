"""Faults of errors: swallowed, or raised in other words. CHECKS = {} leaves them unchecked."""

from typing import ClassVar

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.portable import PortableStream
from isometry.common.streams import MAX_SEED


class OtherError:
    """A wrong dtype is refused in the framework's own words."""

    CHECKS: ClassVar = {}

    def asarray(self, value, /, *, dtype=None):
        if dtype is not None and dtype not in self.dtypes:
            raise TypeError(f"data type {dtype!r} not understood")
        return super().asarray(value, dtype=dtype)


class RemedyMissing:
    """An error says neither what was received nor what is allowed."""

    CHECKS: ClassVar = {}

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        try:
            return super().layer_norm(x, scale, shift, axis=axis, eps=eps)
        except InvalidArgument:
            raise InvalidArgument("invalid argument") from None


class SeedMadeValid:
    """A negative seed is taken for another one, without a word."""

    def stream(self, seed, /):
        return super().stream(abs(seed) % MAX_SEED if isinstance(seed, int) else seed)


class OneRowAccepted:
    """Batch norm trains on a batch of one and returns the shift."""

    CHECKS: ClassVar = {}

    def batch_norm(self, x, scale, shift, mean, variance, /, *, training, **options):
        if training and self.shape_of(x)[0] == 1:
            return x * 0 + shift, mean, variance
        return super().batch_norm(x, scale, shift, mean, variance, training=training, **options)


class MomentumLimited:
    """A momentum that is no weight is taken for the nearest one."""

    CHECKS: ClassVar = {}

    def batch_norm(self, x, scale, shift, mean, variance, /, *, momentum=0.9, **options):
        if isinstance(momentum, (int, float)):
            momentum = min(max(0.0, momentum), 1.0)
        return super().batch_norm(x, scale, shift, mean, variance, momentum=momentum, **options)


class IntegersConverted:
    """An array of integers is converted to float32, without a word."""

    CHECKS: ClassVar = {}

    def sigmoid(self, x, /):
        return super().sigmoid(self.asarray(self.to_numpy(x), dtype="float32"))


class BiasHasFans:
    """A bias gets fans: its size is taken for fan_in."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        if len(shape) == 1:
            weight = super().initialize(rule, (1, *shape), stream, dtype=dtype)
            return self.ops.reshape(weight, shape)
        return super().initialize(rule, shape, stream, layout=layout, dtype=dtype)


class SplitWhileCompiling:
    """compile() wraps a function and runs it as it is, so that a split inside passes."""

    needs = frozenset({"compiled"})

    def compile(self, f, /):
        return lambda *args: f(*args)


class DetachedInside:
    """Inside a compiled function every gradient is 0."""

    inside = False

    def compile(self, f, /):
        def entered(*args):
            self.inside = True
            try:
                return f(*args)
            finally:
                self.inside = False

        return super().compile(entered)

    def value_and_gradient(self, f, /):
        def constant(x):
            return f(self.asarray(np.ones(self.shape_of(x), np.float32))), self.ops.zeros_like(x)

        return constant if self.inside else super().value_and_gradient(f)


class PortableMadeNative:
    """A compiled function takes a native stream of its seed for a portable one."""

    needs = frozenset({"compiled"})

    def compile(self, f, /):
        compiled = super().compile(f)
        return lambda *args: compiled(
            *(self.stream(a.seed) if isinstance(a, PortableStream) else a for a in args)
        )


class DeviceIgnored:
    """A device that does not exist is taken for the default one."""

    def __init__(self, *, device=None):
        super().__init__()


class OptionsByPosition:
    """Options are taken by position too."""

    def leaky_relu(self, x, slope=0.01, /):
        return super().leaky_relu(x, slope=slope)


FAULTS = {
    OtherError: "errors.same[dtype]",
    RemedyMissing: "errors.same[eps]",
    SeedMadeValid: "errors.same[negative seed]",
    OneRowAccepted: "errors.same[batch of one]",
    BiasHasFans: "errors.same[weight without fans]",
    MomentumLimited: "errors.any-wrong-value[momentum]",
    IntegersConverted: "errors.integer-array",
    SplitWhileCompiling: "errors.split-compiled",
    DetachedInside: "errors.inside-compiled[gradient]",
    PortableMadeNative: "errors.portable-compiled",
    DeviceIgnored: "errors.device",
    OptionsByPosition: "errors.options-by-name",
}
