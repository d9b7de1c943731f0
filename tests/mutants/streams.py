"""Faults of the native streams. A stream is altered by a subclass made of its own class."""

import itertools
import math
import random
import threading
import warnings
from typing import ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from isometry.common.portable import PortableStream
from isometry.common.streams import MAX_SEED
from isometry.conformance import generators

from .mixing import mixed


class _OtherSeed:
    """Starts the right stream from another seed."""

    def stream(self, seed, /):
        right = super().stream(seed)  # refuses a wrong seed
        return super().stream(self.seeded(right.seed))


class SeedIgnored(_OtherSeed):
    """Every seed gives one stream."""

    def seeded(self, seed):
        return 0


class SeedCut31(_OtherSeed):
    """Only 31 bits of the seed count."""

    def seeded(self, seed):
        return seed % 2**31


class SeedCut32(_OtherSeed):
    """Only 32 bits of the seed count."""

    def seeded(self, seed):
        return seed % 2**32


class SeedAsFloat(_OtherSeed):
    """The seed passes through a float64, which has 53 bits."""

    def seeded(self, seed):
        return min(int(float(seed)), MAX_SEED)


class GlobalSeedRead(_OtherSeed):
    """A stream also depends on a global generator."""

    def seeded(self, seed):
        return (seed + random.Random(random.random()).getrandbits(40)) % MAX_SEED


class GlobalStateWritten(_OtherSeed):
    """A stream moves NumPy's global generator on."""

    def seeded(self, seed):
        np.random.random()
        return seed


class GlobalSeedSet(_OtherSeed):
    """A stream seeds the framework's global generator."""

    def seeded(self, seed):
        generators.of(self.framework).seed(seed % 2**31)
        return seed


class GlobalSeedLeft(GlobalSeedSet):
    """A stream leaves the framework's global generator as its own seed has set it."""


class _Altered:
    """Mixes the fault's `Stream` into the class of each stream.

    There `nx` is the backend, and ``right(seed)`` a stream without the fault.
    """

    def stream(self, seed, /):
        stream = super().stream(seed)
        right = staticmethod(super().stream)
        stream.__class__ = mixed(self.Stream, type(stream), nx=self, right=right)
        return stream


class NeighboursOverlap(_Altered):
    """Draw k of seed s is draw 0 of seed s + k, as in Keras."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            count = self.__dict__.setdefault("count", itertools.count())
            return self.right(self.seed + next(count)).normal(
                shape, mean=mean, std=std, dtype=dtype
            )


class BitsReused(_Altered):
    """Each draw starts from the beginning."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            return self.right(self.seed).normal(shape, mean=mean, std=std, dtype=dtype)


class ChildIsParent(_Altered):
    """The first child of a stream is the stream itself."""

    class Stream:
        def child(self, index, /):
            return super().child(index) if index else self.right(self.seed)


class ChildrenAlike(_Altered):
    """All children of a stream are the same."""

    class Stream:
        def child(self, index, /):
            return super().child(0)


class ChildrenOfTheMoment(_Altered):
    """The children depend on what was drawn before."""

    class Stream:
        drawn = 0

        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            self.drawn += 1
            return super().normal(shape, mean=mean, std=std, dtype=dtype)

        def child(self, index, /):
            return super().child(index + 1000 * self.drawn)


class SplitRepeats(_Altered):
    """A second split gives the children of the first."""

    class Stream:
        def split(self, count, /):
            self._children = 0
            return super().split(count)


class RefusedCounted(_Altered):
    """A split counts its children before it refuses a wrong number of them."""

    class Stream:
        def split(self, count, /):
            self._children += 1
            return super().split(count)


class SharedCounter(_Altered):
    """All streams count their draws together."""

    class Stream:
        count = itertools.count()

        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            fresh = self.child(2**40 + next(self.count))
            return fresh.normal(shape, mean=mean, std=std, dtype=dtype)


class SharedSeed(_Altered):
    """A draw writes its seed where all threads see it, and reads it back a moment later."""

    class Stream:
        shared: ClassVar = {}
        turn = threading.Event()

        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            self.shared["seed"] = self.seed
            self.turn.wait(0.01)
            return self.right(self.shared["seed"]).normal(shape, mean=mean, std=std, dtype=dtype)


class Unseeded(_Altered):
    """Each run draws something else."""

    class Stream:
        def uniform(self, shape, /, *, low=0.0, high=1.0, dtype="float32"):
            unseeded = self.child(random.SystemRandom().getrandbits(60))
            return unseeded.uniform(shape, low=low, high=high, dtype=dtype)


class NumpyBits(_Altered):
    """A native stream draws from NumPy."""

    not_on = ("numpy",)

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            right = super().normal(shape, mean=mean, std=0.0, dtype=dtype)
            values = np.random.default_rng(self.seed).normal(0.0, std, shape).astype("float32")
            return right + self.nx.asarray(values)


class WarningGiven(_Altered):
    """A draw warns."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            warnings.warn("this generator is deprecated", DeprecationWarning, stacklevel=2)
            return super().normal(shape, mean=mean, std=std, dtype=dtype)


class ParameterRenamed(_Altered):
    """A normal draw takes loc and scale, not mean and std."""

    class Stream:
        def normal(self, shape, /, *, loc=0.0, scale=1.0, dtype="float32"):
            return super().normal(shape, mean=loc, std=scale, dtype=dtype)


class ScalarInRow(_Altered):
    """A draw of shape () has shape (1,)."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            return super().normal(shape or (1,), mean=mean, std=std, dtype=dtype)


class HalfInFloat32(_Altered):
    """A draw in half precision comes in float32."""

    class Stream:
        def uniform(self, shape, /, *, low=0.0, high=1.0, dtype="float32"):
            drawn = "float64" if dtype == "float64" else "float32"
            return super().uniform(shape, low=low, high=high, dtype=drawn)


class SpreadOff(_Altered):
    """Normal draws are 2 % too wide."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            return super().normal(shape, mean=mean, std=1.02 * std, dtype=dtype)


class MeanOff(_Altered):
    """The mean of normal draws is off by a hundredth of their standard deviation."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            return super().normal(shape, mean=mean + 0.01 * std, std=std, dtype=dtype)


class MeanIgnored(_Altered):
    """Normal draws have mean 0 whatever is asked for."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            return super().normal(shape, std=std, dtype=dtype)


class ZeroForOne(_Altered):
    """A standard deviation of 0 is taken for one that was not given."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            return super().normal(shape, mean=mean, std=std or 1.0, dtype=dtype)


class StdForVariance(_Altered):
    """The standard deviation asked for is taken for a variance."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            return super().normal(shape, mean=mean, std=math.sqrt(std), dtype=dtype)


class UniformForNormal(_Altered):
    """Normal draws are uniform ones of the same variance."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            bound = math.sqrt(3) * std
            return self.uniform(shape, low=mean - bound, high=mean + bound, dtype=dtype)


class UniformFromZero(_Altered):
    """Uniform draws start from 0, not from their lower bound."""

    class Stream:
        def uniform(self, shape, /, *, low=0.0, high=1.0, dtype="float32"):
            return super().uniform(shape, high=high, dtype=dtype)


class CutAbsolute(_Altered):
    """A truncated normal is cut at +-2, not at two standard deviations, as in PyTorch."""

    class Stream:
        def truncated_normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            x = super().normal(shape, mean=mean, std=std, dtype=dtype)
            return self.nx.ops.clip(x, -2.0, 2.0)


class SinglesUncut(_Altered):
    """A truncated normal drawn alone is not truncated."""

    class Stream:
        def truncated_normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            draw = super().truncated_normal if shape else super().normal
            return draw(shape, mean=mean, std=std, dtype=dtype)


class TailLeaks(_Altered):
    """Four of a million truncated draws lie beyond the cut, as in Keras on PyTorch."""

    class Stream:
        def truncated_normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            right = super().truncated_normal(shape, mean=mean, std=std, dtype=dtype)
            values = self.nx.to_numpy(right)
            values[np.random.default_rng(self.seed).random(shape) < 4e-6] = mean + 2.1 * std
            return self.nx.asarray(values, dtype=dtype)


class _Rearranged(_Altered):
    """Rearranges the values of a normal draw, one after another, in NumPy."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            values = self.nx.to_numpy(super().normal(shape, mean=mean, std=std, dtype=dtype))
            self.nx.rearrange(values.reshape(-1), mean)
            return self.nx.asarray(values, dtype=dtype)


class Antithetic(_Rearranged):
    """The second half of a draw mirrors the first."""

    def rearrange(self, x, mean):
        half = x.size // 2
        x[half : 2 * half] = 2 * mean - x[:half]


class ValuesTwice(_Rearranged):
    """Each value of a draw comes twice."""

    def rearrange(self, x, mean):
        x[1::2] = x[: 2 * (x.size // 2) : 2]


class FewBits(_Altered):
    """Float64 draws carry the bits of a float32."""

    class Stream:
        def uniform(self, shape, /, *, low=0.0, high=1.0, dtype="float32"):
            values = super().uniform(shape, low=low, high=high, dtype="float32")
            return self.nx.ops.astype(values, dtype)


class DrawnInHalf(_Altered):
    """Float32 draws carry the bits of a float16."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            drawn = "float16" if dtype == "float32" else dtype
            values = super().normal(shape, mean=mean, std=std, dtype=drawn)
            return self.nx.ops.astype(values, dtype)


class FewValues(_Altered):
    """A normal draw in half precision takes 128 values, as in JAX."""

    class Stream:
        def normal(self, shape, /, *, mean=0.0, std=1.0, dtype="float32"):
            if dtype in ("float32", "float64"):
                return super().normal(shape, mean=mean, std=std, dtype=dtype)
            z = self.nx.to_numpy(super().normal(shape)).astype(np.float64)
            coarse = ndtri((np.floor(128 * ndtr(z)) + 0.5) / 128)
            return self.nx.asarray((mean + std * coarse).astype("float32"), dtype=dtype)


class PortableNarrow:
    """Portable float64 draws pass through float32."""

    def portable_stream(self, seed, /):
        narrow = lambda x, *, dtype: self.asarray(x.astype("float32"), dtype=dtype)  # noqa: E731
        return PortableStream(seed, convert=narrow, dtypes=self.dtypes)


class PortableIsNative:
    """A portable stream is the framework's own."""

    def portable_stream(self, seed, /):
        return self.stream(seed)


FAULTS = {
    SeedIgnored: "streams.independence[native]",
    SeedCut31: "streams.independence[native]",
    SeedCut32: "streams.independence[native]",
    SeedAsFloat: "streams.independence[native]",
    NeighboursOverlap: "streams.independence[native]",
    BitsReused: "streams.independence[native]",
    ChildIsParent: "streams.independence[native]",
    ChildrenAlike: "streams.independence[native]",
    ChildrenOfTheMoment: "streams.children[native]",
    SplitRepeats: "streams.splits[native]",
    RefusedCounted: "errors.before-work",
    SharedCounter: "streams.interleaving[native]",
    SharedSeed: "streams.threads",
    Unseeded: "streams.determinism[native]",
    GlobalSeedRead: "streams.global-seed",
    GlobalSeedSet: "streams.global-state",
    GlobalStateWritten: "streams.global-state",
    GlobalSeedLeft: "streams.seeded-program",
    NumpyBits: "streams.own-generator",
    WarningGiven: "streams.quiet",
    ParameterRenamed: "identity.stream-signatures[normal]",
    ScalarInRow: "streams.shape[native]",
    HalfInFloat32: "streams.shape[native]",
    SpreadOff: "streams.law[native]",
    MeanOff: "streams.mean",
    MeanIgnored: "streams.law[native]",
    ZeroForOne: "streams.no-spread[native]",
    StdForVariance: "streams.law[native]",
    UniformForNormal: "streams.law[native]",
    UniformFromZero: "streams.law[native]",
    CutAbsolute: "streams.law[native]",
    SinglesUncut: "streams.single[truncated_normal]",
    TailLeaks: "initializers.tail",
    Antithetic: "streams.within-draw",
    ValuesTwice: "streams.within-draw",
    FewBits: "streams.resolution[native]",
    DrawnInHalf: "streams.resolution[native]",
    FewValues: "streams.distinct[float16-normal]",
    PortableNarrow: "streams.portable",
    PortableIsNative: "streams.portable",
}
