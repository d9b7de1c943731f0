"""Faults of the initializers."""

import math
from dataclasses import replace

import numpy as np

from isometry.common.laws.distributions import Constant, Normal, TruncatedNormal, Uniform
from isometry.common.laws.initializers import Orthogonal, VarianceScaling, initializer
from isometry.common.portable import PortableStream


class _Altered:
    """Draws the law that `altered` makes of the right rule, or `wrong` of the right law."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        law = self.altered(initializer(rule), shape, layout)
        return super().initialize(law, shape, stream, layout=layout, dtype=dtype)

    def altered(self, rule, shape, layout):
        law = rule.resolve(shape, layout)
        return self.wrong(law, math.sqrt(law.moments[1])) if hasattr(law, "moments") else law


class GainDropped(_Altered):
    """He's factor sqrt(2) is dropped."""

    def altered(self, rule, shape, layout):
        return replace(rule, gain=1.0)


class GainSquared(_Altered):
    """The gain, a factor of the standard deviation, is squared as if it were one of it."""

    def altered(self, rule, shape, layout):
        return replace(rule, gain=rule.gain**2)


class FanSwapped(_Altered):
    """fan_in and fan_out are exchanged."""

    def altered(self, rule, shape, layout):
        swapped = {"fan_in": "fan_out", "fan_out": "fan_in", "fan_avg": "fan_avg"}
        return replace(rule, mode=swapped[rule.mode])


class FanAverageForIn(_Altered):
    """He's initializer takes the average fan, as MXNet's default does."""

    def altered(self, rule, shape, layout):
        return replace(rule, mode="fan_avg")


class FanSummed(_Altered):
    """Xavier divides by the sum of the fans, not by their mean."""

    def altered(self, rule, shape, layout):
        return replace(rule, gain=rule.gain / math.sqrt(2)) if rule.mode == "fan_avg" else rule


class FieldForgotten(_Altered):
    """The fans of a convolution leave out its receptive field."""

    def altered(self, rule, shape, layout):
        return rule.resolve(shape[:2] if layout == "out_in" else shape[-2:], layout)


class LayoutIgnored(_Altered):
    """A weight stored (*kernel, in, out) is read as (out, in, *kernel)."""

    def altered(self, rule, shape, layout):
        return rule.resolve(shape, "out_in")


class VarianceForStd(_Altered):
    """The variance is taken for the standard deviation."""

    def wrong(self, law, std):
        return Normal(0.0, std**2) if isinstance(law, Normal) else law


class BoundForStd(_Altered):
    """A uniform law lies on +- its standard deviation."""

    def wrong(self, law, std):
        return Uniform(-std, std) if isinstance(law, Uniform) else law


class OneSided(_Altered):
    """A uniform law lies between 0 and its bound."""

    def wrong(self, law, std):
        return Uniform(0.0, law.high) if isinstance(law, Uniform) else law


class UniformLaw(_Altered):
    """A uniform law of the right variance stands for the normal one."""

    def wrong(self, law, std):
        return Uniform(-math.sqrt(3) * std, math.sqrt(3) * std) if isinstance(law, Normal) else law


class StdTwoPercentOff(_Altered):
    """The standard deviation is 2 % too large."""

    def wrong(self, law, std):
        return Normal(0.0, 1.02 * std) if isinstance(law, Normal) else law


class TailNotTruncated(_Altered):
    """A plain normal law of the right variance stands for the truncated one."""

    def wrong(self, law, std):
        return Normal(0.0, std) if isinstance(law, TruncatedNormal) else law


class ParentStd(_Altered):
    """The truncated normal's parent has the promised standard deviation, so it has less."""

    def wrong(self, law, std):
        return TruncatedNormal(0.0, std) if isinstance(law, TruncatedNormal) else law


class TailClamped:
    """Values beyond two standard deviations are set there instead of drawn again."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        law = initializer(rule).resolve(shape, layout)
        if not isinstance(law, TruncatedNormal):
            return super().initialize(rule, shape, stream, layout=layout, dtype=dtype)
        x = super().initialize(Normal(0.0, law.std), shape, stream, layout=layout, dtype=dtype)
        return self.ops.clip(x, *law.support)


class ZerosNoisy(_Altered):
    """Zeros are small random numbers."""

    def altered(self, rule, shape, layout):
        return Normal(0.0, 1e-3) if rule == Constant(0.0) else rule


class DtypeIgnored:
    """A weight is float32 whatever is asked for."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        return super().initialize(rule, shape, stream, layout=layout)


class RowsAlike:
    """All rows of a weight are the same."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        row = (1, *shape[1:])
        scale = VarianceScaling.resolve(initializer(rule), shape, layout)
        return self.ops.broadcast_to(super().initialize(scale, row, stream, dtype=dtype), shape)


class SizesMadeValid:
    """A size below 1 is taken for 1, without a word."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        sizes = tuple(max(size, 1) for size in shape)
        return super().initialize(rule, sizes, stream, layout=layout, dtype=dtype)


class DrawnTwice:
    """A first draw is thrown away."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        super().initialize(rule, shape, stream, layout=layout, dtype=dtype)
        return super().initialize(rule, shape, stream, layout=layout, dtype=dtype)


class PortableIgnored:
    """A weight is drawn from the framework's own generator though a portable stream is given."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        if isinstance(stream, PortableStream):
            stream = self.stream(stream.seed)
        return super().initialize(rule, shape, stream, layout=layout, dtype=dtype)


class _WrongOrthogonal:
    """Draws orthogonal weights by `wrong`."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        law = initializer(rule)
        if not isinstance(law, Orthogonal):
            return super().initialize(rule, shape, stream, layout=layout, dtype=dtype)
        right = super().initialize
        with self.scope():
            return self.wrong(
                lambda rule, shape: right(rule, shape, stream, layout=layout, dtype=dtype),
                law, shape, stream, dtype,
            )  # fmt: skip


class OrthogonalGainDropped(_WrongOrthogonal):
    """An orthogonal weight has no gain."""

    def wrong(self, right, law, shape, stream, dtype):
        return right(Orthogonal(), shape)


class RowsForColumns(_WrongOrthogonal):
    """A wide orthogonal matrix is a tall one read row by row, not its transpose."""

    def wrong(self, right, law, shape, stream, dtype):
        return self.ops.reshape(right(law, tuple(reversed(shape))), shape)


class NearlyOrthogonal(_WrongOrthogonal):
    """An orthogonal matrix is a normal one of the right variance, orthogonal only on average."""

    def wrong(self, right, law, shape, stream, dtype):
        return stream.normal(shape, std=law.gain / math.sqrt(max(shape)), dtype=dtype)


class SignsLeft(_WrongOrthogonal):
    """Q of a QR is taken as LAPACK gives it: its signs are not random."""

    def wrong(self, right, law, shape, stream, dtype):
        return self.ops.qr(stream.normal(shape, dtype=dtype))[0] * law.gain


class SvdOfUniforms(_WrongOrthogonal):
    """An orthogonal matrix is the U of an SVD of uniform noise."""

    def wrong(self, right, law, shape, stream, dtype):
        return self.ops.svd(stream.uniform(shape, dtype=dtype))[0] * law.gain


class RotationsOnly(_WrongOrthogonal):
    """Orthogonal matrices are rotations: reflections never occur."""

    def wrong(self, right, law, shape, stream, dtype):
        q = right(law, shape)
        if np.linalg.det(self.to_numpy(q)) > 0:
            return q
        return -q  # of odd size, so that the determinant changes its sign


FAULTS = {
    GainDropped: "initializers.law[he_normal-dense-out_in]",
    GainSquared: "initializers.law[he_uniform-dense-out_in]",
    FanSwapped: "initializers.law[lecun_normal-dense-out_in]",
    FanAverageForIn: "initializers.law[he_normal-dense-out_in]",
    FanSummed: "initializers.law[xavier_uniform-dense-out_in]",
    FieldForgotten: "initializers.law[he_normal-convolution-out_in]",
    LayoutIgnored: "initializers.law[he_normal-convolution-in_out]",
    VarianceForStd: "initializers.law[xavier_normal-dense-out_in]",
    BoundForStd: "initializers.law[he_uniform-dense-out_in]",
    OneSided: "initializers.law[lecun_uniform-dense-out_in]",
    UniformLaw: "initializers.law[xavier_normal-dense-out_in]",
    StdTwoPercentOff: "initializers.law[he_normal-dense-out_in]",
    TailNotTruncated: "initializers.law[xavier_truncated-dense-out_in]",
    ParentStd: "initializers.law[lecun_truncated-dense-out_in]",
    TailClamped: "initializers.law[he_truncated-dense-out_in]",
    RowsAlike: "initializers.law[he_normal-dense-out_in]",
    SizesMadeValid: "initializers.shapes",
    DrawnTwice: "initializers.scale",
    ZerosNoisy: "initializers.constant",
    DtypeIgnored: "initializers.given-law[normal]",
    PortableIgnored: "initializers.portable[he_normal]",
    OrthogonalGainDropped: "initializers.orthogonal",
    RowsForColumns: "initializers.orthogonal",
    NearlyOrthogonal: "initializers.orthogonal",
    SignsLeft: "initializers.haar",
    SvdOfUniforms: "initializers.haar",
    RotationsOnly: "initializers.haar",
}
