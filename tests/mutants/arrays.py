"""Faults of arrays and of what a backend declares about itself."""

import importlib
from typing import ClassVar

import numpy as np


class SourceShared:
    """An array shares the memory of the NumPy array it was made of."""

    only = ("numpy", "torch")  # the arrays of the others never change, or have memory of their own

    def asarray(self, value, /, *, dtype=None):
        if dtype is None and isinstance(value, np.ndarray):
            return importlib.import_module(self.framework).from_dlpack(value)
        return super().asarray(value, dtype=dtype)


class BufferReturned:
    """to_numpy hands out one buffer, not a copy each time."""

    def to_numpy(self, x, /):
        buffers = self.__dict__.setdefault("buffers", {})
        _, buffer = buffers.setdefault(id(x), (x, super().to_numpy(x)))
        return buffer


class Float64Narrowed:
    """A float64 array comes in as float32, as JAX has it by default."""

    def asarray(self, value, /, *, dtype=None):
        narrowed = dtype is None and getattr(value, "dtype", None) == np.float64
        return super().asarray(value, dtype="float32" if narrowed else dtype)


class ListsInFloat64:
    """Numbers and lists become float64, as in NumPy."""

    def asarray(self, value, /, *, dtype=None):
        return super().asarray(value if dtype else np.asarray(value), dtype=dtype)


class ScalarsInRows:
    """An array of shape () comes in with shape (1,), as MXNet had it."""

    def asarray(self, value, /, *, dtype=None):
        return super().asarray(np.atleast_1d(value), dtype=dtype)


class HalfTruncated:
    """Bits that a half precision has no room for are cut off, not rounded."""

    def asarray(self, value, /, *, dtype=None):
        lost = {"float16": 13, "bfloat16": 16}.get(dtype)
        if lost:
            bits = np.array(value, np.float32, ndmin=1).view(np.uint32) >> lost << lost
            value = bits.view(np.float32).reshape(np.shape(value))
        return super().asarray(value, dtype=dtype)


class NegativeZeroLost:
    """-0 comes back as +0."""

    def to_numpy(self, x, /):
        return super().to_numpy(x) + 0


class SubnormalsFlushed:
    """Subnormal numbers come back as 0."""

    def to_numpy(self, x, /):
        y = super().to_numpy(x)
        if y.dtype.kind == "f":
            y[np.abs(y) < np.finfo(y.dtype).smallest_normal] = 0
        return y


class ReturnedInFloat64:
    """to_numpy returns float64 whatever the dtype."""

    def to_numpy(self, x, /):
        return super().to_numpy(x).astype(np.float64)


class InputMutated:
    """ReLU works in place, in the caller's array."""

    not_on = ("jax", "tensorflow")  # whose arrays never change

    def relu(self, x, /):
        x[x < 0] = 0
        return x


class HalfChainWidened:
    """A chain of half precision matrices comes back in float32."""

    def chain_product(self, product, factors, /, *, rescale=False):
        chain = super().chain_product(product, factors, rescale=rescale)
        if self.dtype_of(product) in ("float32", "float64"):
            return chain
        return tuple(self.ops.astype(x, "float32") for x in chain)


class AnythingIsArray:
    """Lists and numbers pass for arrays."""

    def is_array(self, x, /):
        return True


class DtypeSpelled:
    """A dtype is named in the framework's spelling."""

    def dtype_of(self, x, /):
        return f"{self.name}.{super().dtype_of(x)}"


class CapabilityInvented:
    """A capability is declared that nobody knows."""

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.capabilities = cls.capabilities | {"fast"}


class CompilerMisdeclared:
    """A compiler is declared where there is none, or not declared where there is one."""

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.capabilities = cls.capabilities ^ {"compiled"}


class CapabilitiesInSet:
    """The capabilities are a set, which anyone may change."""

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.capabilities = set(cls.capabilities)


class DeviceUnnamed:
    """The device is not its name."""

    @property
    def device(self):
        return [super().device]


class ExcuseForNothing:
    """A failure is expected without a reason."""

    expected_failures: ClassVar = {"streams.global-state": ""}


class OtherSignature:
    """A parameter has a name of its own."""

    def leaky_relu(self, x, /, *, alpha=0.01):
        return super().leaky_relu(x, slope=alpha)


class Marked:
    """The argument of a derivative is marked as one whose derivatives are recorded."""

    only = ("torch",)

    def native_gradient(self, activation, x, /):
        return super().native_gradient(activation, x.requires_grad_())


FAULTS = {
    SourceShared: "arrays.copies",
    BufferReturned: "arrays.copies",
    Float64Narrowed: "arrays.default-dtype",
    ListsInFloat64: "arrays.default-dtype",
    ScalarsInRows: "arrays.round-trip",
    HalfTruncated: "arrays.rounding",
    NegativeZeroLost: "arrays.special-values",
    SubnormalsFlushed: "arrays.special-values",
    ReturnedInFloat64: "arrays.round-trip",
    InputMutated: "arrays.no-mutation",
    HalfChainWidened: "arrays.dtype[float16]",
    AnythingIsArray: "arrays.foreign",
    DtypeSpelled: "arrays.round-trip",
    CapabilityInvented: "identity.declarations",
    CapabilitiesInSet: "identity.declarations",
    DeviceUnnamed: "identity.device",
    CompilerMisdeclared: "identity.capabilities",
    ExcuseForNothing: "identity.expected-failures",
    OtherSignature: "identity.signatures[leaky_relu]",
    Marked: "arrays.plain",
}
