"""Faults of the native streams. A stream is altered by a subclass made of its own class."""

import random

import numpy as np

from isometry.common.streams import MAX_SEED


class _OtherSeed:
    """Starts the right stream from another seed."""

    def stream(self, seed, /):
        right = super().stream(seed)  # refuses a wrong seed
        return super().stream(self.seeded(right.seed))


class SeedIgnored(_OtherSeed):
    """Every seed gives one stream."""

    def seeded(self, seed):
        return 0


class SeedCut(_OtherSeed):
    """Only 31 bits of the seed count."""

    def seeded(self, seed):
        return seed % 2**31


class GlobalSeedRead(_OtherSeed):
    """The stream also depends on a global generator."""

    def seeded(self, seed):
        return (seed + random.Random(random.random()).getrandbits(40)) % MAX_SEED


class GlobalStateWritten(_OtherSeed):
    """A stream moves NumPy's global generator on."""

    def seeded(self, seed):
        np.random.random()
        return seed


class _Altered:
    """Mixes `fault` into the class of each stream."""

    def stream(self, seed, /):
        stream = super().stream(seed)
        right = type(stream)
        stream.__class__ = type(right.__name__, (self.fault, right), {})
        return stream


class _FromNumpy:
    def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
        right = super().normal(shape, mean=mean, std=0.0, dtype=dtype)
        values = np.random.default_rng(self.seed).normal(0.0, std, shape).astype("float32")
        return right + type(self).convert(values)


class NumpyBits(_Altered):
    """A native stream that draws from NumPy."""

    def stream(self, seed, /):
        convert = staticmethod(self.asarray)
        self.fault = type("FromNumpy", (_FromNumpy,), {"convert": convert})
        return super().stream(seed)


class _Repeated:
    def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
        fresh = self.child(2**40)  # the same one at each draw
        return fresh.normal(shape, mean=mean, std=std, dtype=dtype)


class BitsReused(_Altered):
    """Each draw starts from the beginning."""

    fault = _Repeated


class _Clock:
    def uniform(self, shape, /, *, low=0.0, high=1.0, dtype="float32"):
        unseeded = self.child(random.SystemRandom().getrandbits(60))
        return unseeded.uniform(shape, low=low, high=high, dtype=dtype)


class Unseeded(_Altered):
    """Each run draws something else."""

    fault = _Clock


class _Shifted:
    def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
        return super().normal(shape, mean=mean, std=1.03 * std, dtype=dtype)


class SpreadOff(_Altered):
    """Normal draws are 3 % too wide."""

    fault = _Shifted


class _Narrow:
    def uniform(self, shape, /, *, low=0.0, high=1.0, dtype="float32"):
        values = super().uniform(shape, low=low, high=high, dtype="float32")
        return type(self).cast(values, dtype)


class FewBits(_Altered):
    """Float64 draws carry the bits of a float32."""

    def stream(self, seed, /):
        cast = staticmethod(self.ops.astype)
        self.fault = type("Narrow", (_Narrow,), {"cast": cast})
        return super().stream(seed)


FAULTS = {
    SeedIgnored: "streams.independence",
    SeedCut: "streams.independence",
    GlobalSeedRead: "streams.global-seed",
    GlobalStateWritten: "streams.global-state",
    NumpyBits: "streams.own-generator",
    BitsReused: "streams.independence",
    Unseeded: "streams.determinism",
    SpreadOff: "streams.law",
    FewBits: "streams.resolution",
}
