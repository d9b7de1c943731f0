"""Faults of what optimizers are made of, and of what they are handed."""

import numpy as np

from .operations import _Word


class UpdateAdded:
    """axpy adds where it should subtract."""

    def axpy(self, x, a, y, /):
        return super().axpy(x, abs(a) if isinstance(a, float) else self.ops.abs(a), y)


class PlainOverwrites:
    """A plain update overwrites its first argument."""

    not_on = ("jax", "tensorflow")  # whose arrays never change

    def axpy(self, x, a, y, /):
        self.overwrites, before = True, self.overwrites
        try:
            return super().axpy(x, a, y)
        finally:
            self.overwrites = before


class OtherOverwritten:
    """An update that may overwrite x overwrites y."""

    not_on = ("jax", "tensorflow")

    def axpy(self, x, a, y, /):
        if not self.overwrites:
            return super().axpy(x, a, y)
        y *= a
        x += y
        return x


class DonationIgnored:
    """donating() returns the plain backend."""

    def donating(self):
        return self


class SumJudged:
    """An array is finite if the sum of its entries is."""

    def all_finite(self, x, /):
        with self.scope():
            return bool(np.isfinite(self.to_numpy(self.ops.sum(x)).astype(np.float64)))


class AlwaysFinite:
    """all_finite is always true."""

    def all_finite(self, x, /):
        return True


class VelocityKept:
    """scaled returns what it is given, so that a running sum forgets nothing."""

    def scaled(self, x, a, /):
        return x


class UpdateInFloat32:
    """axpy computes float64 in float32."""

    def axpy(self, x, a, y, /):
        cast, dtype = self.ops.astype, self.dtype_of(x)
        a = a if isinstance(a, float) else cast(a, "float32")
        return cast(super().axpy(cast(x, "float32"), a, cast(y, "float32")), dtype)


class QuotientTurned:
    """addcdiv multiplies by z."""

    def addcdiv(self, x, a, y, z, /):
        return super().addcmul(x, a, y, z)


class ScaledTwice:
    """scaled multiplies twice."""

    def scaled(self, x, a, /):
        return super().scaled(super().scaled(x, a), a)


class FactorForgotten:
    """addcmul adds y z, whatever the factor."""

    def addcmul(self, x, a, y, z, /):
        return super().addcmul(x, 1.0, y, z)


class ProductForSquare:
    """addcmul adds a y."""

    def addcmul(self, x, a, y, z, /):
        return self.axpy(x, a, y)


class SumAveraged(_Word):
    """A sum of all entries is their mean."""

    word = "sum"

    def wrong(self, right, x, **how):
        return right(x, **how) if how.get("axis") is not None else self.ops.mean(x)


class LargerOfTwo(_Word):
    """minimum is the larger one."""

    word = "minimum"

    def wrong(self, right, x1, x2):
        return self.ops.maximum(x1, x2)


class RootInFloat32(_Word):
    """A square root of float64 is taken in float32."""

    word = "sqrt"

    def wrong(self, right, x):
        return self.ops.astype(right(self.ops.astype(x, "float32")), self.dtype_of(x))


class RootRoughly(_Word):
    """A square root is off by a millionth."""

    word = "sqrt"

    def wrong(self, right, x):
        return right(x) * (1 + 1e-6)


class SquareOfSign(_Word):
    """A square has the sign of what is squared, and its size."""

    word = "square"

    def wrong(self, right, x):
        return x


class SignOfZero(_Word):
    """The sign of a number that is not positive is 0."""

    word = "sign"

    def wrong(self, right, x):
        return self.ops.maximum(right(x), self.ops.zeros_like(x))


class WhereByProducts(_Word):
    """where adds the products with 1 and 0, so that NaN is seen where it is not chosen."""

    word = "where"

    def wrong(self, right, condition, x1, x2):
        one = self.ops.ones_like(x1)
        chosen = right(condition, one, one - one)
        return chosen * x1 + (one - chosen) * x2


class EmptyForgotten:
    """An update of an array without entries returns its first axis alone."""

    def axpy(self, x, a, y, /):
        if 0 in self.shape_of(x):
            return self.ops.reshape(x, (0,))
        return super().axpy(x, a, y)


class ResultsSwapped:
    """Updates of several layers come back in the opposite order."""

    def compile(self, f, /):
        compiled = super().compile(f)
        return lambda *args: self._turned(compiled(*args))

    needs = frozenset({"compiled"})

    @staticmethod
    def _turned(found):
        return tuple(reversed(found)) if isinstance(found, tuple) else found


class HalfKept(_Word):
    """float16 is not widened to float32."""

    word = "astype"

    def wrong(self, right, x, dtype):
        narrow = self.dtype_of(x) == "float16" and dtype == "float32"
        return x if narrow else right(x, dtype)


class _Number:
    """Changes the number of an update."""

    def axpy(self, x, a, y, /):
        dtype = self.dtype_of(x)
        a = self.ops.astype(self.asarray(a), dtype) if isinstance(a, float) else a
        return super().axpy(x, self.changed(a, dtype), y)


class RateInHalf(_Number):
    """The rate is rounded to half precision."""

    def changed(self, a, dtype):
        return self.ops.astype(self.ops.astype(a, "float16"), dtype)


class RateNeverZero(_Number):
    """A rate of 0 is taken for none, and 1 for it."""

    def changed(self, a, dtype):
        return self.ops.where(self.ops.abs(a) > 0, a, -self.ops.ones_like(a))


class RateFloored(_Number):
    """A rate below 0.3 is taken for 0.3."""

    def changed(self, a, dtype):
        return -self.ops.maximum(-a, 0.3 * self.ops.ones_like(a))


class SmallRateLost(_Number):
    """A rate below 0.01 is taken for 0."""

    def changed(self, a, dtype):
        return self.ops.where(self.ops.abs(a) < 0.01, a - a, a)


class RateCapped(_Number):
    """A rate above 0.5 is taken for 0.5."""

    def changed(self, a, dtype):
        return -self.ops.minimum(-a, 0.5 * self.ops.ones_like(a))


class RateDoubledWhenSmall(_Number):
    """A rate below 0.2 is doubled."""

    def changed(self, a, dtype):
        return self.ops.where(self.ops.abs(a) < 0.2, 2 * a, a)


class RateInFloat32(_Number):
    """The rate is rounded to float32."""

    def changed(self, a, dtype):
        return self.ops.astype(self.ops.astype(a, "float32"), dtype)


class ClipOneSided(_Word):
    """clip has no lower limit."""

    word = "clip"

    def wrong(self, right, x, low, high):
        return right(x, -3e38, high)


class LargestIsOne(_Word):
    """The largest entry of anything is 1."""

    word = "max"

    def wrong(self, right, x, **how):
        return self.ops.ones_like(right(x, **how))


class LastNormForgotten(_Word):
    """stack gives the first array in each place."""

    word = "stack"

    def wrong(self, right, arrays, **how):
        return right([arrays[0] for _ in arrays], **how)


class SmallerOfTwo(_Word):
    """maximum is the smaller one."""

    word = "maximum"

    def wrong(self, right, x1, x2):
        return self.ops.minimum(x1, x2)


FAULTS = {
    UpdateAdded: "optimizers.sgd",
    PlainOverwrites: "optimizers.updates[axpy]",
    OtherOverwritten: "optimizers.updates[axpy]",
    DonationIgnored: "optimizers.updates",
    QuotientTurned: "optimizers.updates[addcdiv]",
    SumJudged: "optimizers.all-finite",
    AlwaysFinite: "optimizers.non-finite",
    VelocityKept: "optimizers.momentum[outside]",
    UpdateInFloat32: "optimizers.nesterov[outside]",
    RootInFloat32: "optimizers.adam[outside]",
    ScaledTwice: "optimizers.adamw[decoupled]",
    FactorForgotten: "optimizers.rmsprop[outside]",
    ProductForSquare: "optimizers.adagrad[outside]",
    SumAveraged: "optimizers.lars[together]",
    LargerOfTwo: "optimizers.larc",
    RootRoughly: "optimizers.lamb[coupled]",
    SquareOfSign: "optimizers.novograd[never]",
    SignOfZero: "optimizers.quickprop",
    WhereByProducts: "optimizers.zeros",
    EmptyForgotten: "optimizers.empty",
    ResultsSwapped: "optimizers.order",
    HalfKept: "optimizers.half",
    RateInHalf: "optimizers.step-decay",
    RateNeverZero: "optimizers.polynomial",
    RateFloored: "optimizers.cosine",
    SmallRateLost: "optimizers.cyclical",
    RateCapped: "optimizers.warm-restarts",
    RateDoubledWhenSmall: "optimizers.warm-up",
    RateInFloat32: "optimizers.divide-when-stuck",
    ClipOneSided: "optimizers.clip-by-value",
    LargestIsOne: "optimizers.clip-by-norm",
    LastNormForgotten: "optimizers.clip-by-global-norm",
    SmallerOfTwo: "optimizers.clip-adaptively",
}
