"""Faults of the initializers."""

import math
from dataclasses import replace

from isometry.common.laws.distributions import Normal, TruncatedNormal, Uniform
from isometry.common.laws.initializers import Orthogonal, initializer


class _Altered:
    """Draws the law that `altered` makes of the right one."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        law = self.altered(initializer(rule), shape, layout)
        return super().initialize(law, shape, stream, layout=layout, dtype=dtype)


class FanSwapped(_Altered):
    """fan_in and fan_out are exchanged."""

    def altered(self, rule, shape, layout):
        swapped = {"fan_in": "fan_out", "fan_out": "fan_in", "fan_avg": "fan_avg"}
        return replace(rule, mode=swapped[rule.mode])


class GainDropped(_Altered):
    """He without its factor sqrt(2)."""

    def altered(self, rule, shape, layout):
        return replace(rule, gain=1.0)


class BoundForStd(_Altered):
    """A uniform law on +- its standard deviation."""

    def altered(self, rule, shape, layout):
        law = rule.resolve(shape, layout)
        std = math.sqrt(law.moments[1])
        return Uniform(-std, std) if isinstance(law, Uniform) else law


class TailNotTruncated(_Altered):
    """A plain normal of the right variance for the truncated one."""

    def altered(self, rule, shape, layout):
        law = rule.resolve(shape, layout)
        std = math.sqrt(law.moments[1])
        return Normal(0.0, std) if isinstance(law, TruncatedNormal) else law


class ParentStd(_Altered):
    """The truncated normal's parent has the promised standard deviation, so it has less."""

    def altered(self, rule, shape, layout):
        law = rule.resolve(shape, layout)
        std = math.sqrt(law.moments[1])
        return TruncatedNormal(0.0, std) if isinstance(law, TruncatedNormal) else law


class TailClamped:
    """Values beyond two standard deviations are set there instead of drawn again."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        law = initializer(rule).resolve(shape, layout)
        if not isinstance(law, TruncatedNormal):
            return super().initialize(rule, shape, stream, layout=layout, dtype=dtype)
        x = super().initialize(Normal(0.0, law.std), shape, stream, layout=layout, dtype=dtype)
        return self.ops.clip(x, *law.support)


class _WrongOrthogonal:
    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        law = initializer(rule)
        if not isinstance(law, Orthogonal):
            return super().initialize(rule, shape, stream, layout=layout, dtype=dtype)
        with self.scope():
            return self.wrong(law, shape, stream, dtype)


class SignsLeft(_WrongOrthogonal):
    """Q of a QR as LAPACK gives it: its signs are not random."""

    def wrong(self, law, shape, stream, dtype):
        return self.ops.qr(stream.normal(shape, dtype=dtype))[0] * law.gain


class NearlyOrthogonal(_WrongOrthogonal):
    """A normal matrix of the right variance, orthogonal only on average."""

    def wrong(self, law, shape, stream, dtype):
        return stream.normal(shape, std=law.gain / math.sqrt(max(shape)), dtype=dtype)


FAULTS = {
    FanSwapped: "initializers.law",
    GainDropped: "initializers.law",
    BoundForStd: "initializers.law",
    TailNotTruncated: "initializers.law",
    ParentStd: "initializers.law",
    TailClamped: "initializers.law",
    SignsLeft: "initializers.haar",
    NearlyOrthogonal: "initializers.orthogonal",
}
