"""Faults of the vocabulary `nx.ops`."""

import contextlib
import functools

import numpy as np


class _Word:
    """Replaces one word of the vocabulary by `wrong`, whose first argument is the right one."""

    def __init__(self, *, device=None):
        super().__init__(device=device)
        right = getattr(self.ops, self.word)
        wrong = functools.wraps(right)(functools.partial(self.wrong, right))
        setattr(self.ops, self.word, wrong)

    def reversed(self, x, axis):
        """Return x in the opposite order along an axis."""
        axis %= len(self.shape_of(x))
        indices = np.arange(self.shape_of(x)[axis])[::-1].copy()
        return self.ops.take(x, self.asarray(indices), axis=axis)


class ExpRoughly(_Word):
    """The exponential is off by a millionth."""

    word = "exp"

    def wrong(self, right, x):
        return right(x) * (1 + 1e-6)


class Expm1Naive(_Word):
    """expm1 subtracts 1 from the exponential, which cancels near 0."""

    word = "expm1"

    def wrong(self, right, x):
        return self.ops.exp(x) - 1


class SeriesTooShort(_Word):
    """expm1(x) is x below 1e-4."""

    word = "expm1"

    def wrong(self, right, x):
        return self.ops.where(self.ops.abs(x) < 1e-4, x, right(x))


class Log1pNaive(_Word):
    """log1p is the logarithm of 1 + x, which is 1 for small x."""

    word = "log1p"

    def wrong(self, right, x):
        return self.ops.log(1 + x)


class LogOfMore(_Word):
    """The logarithm adds 1e-12 to its argument, so that log(0) is finite."""

    word = "log"

    def wrong(self, right, x):
        return right(x + 1e-12)


class RootOfZero(_Word):
    """The root of -0 is +0."""

    word = "sqrt"

    def wrong(self, right, x):
        return self.ops.abs(right(x))


class MaximumOfNumbers(_Word):
    """The maximum of a NaN and a number is the number."""

    word = "maximum"

    def wrong(self, right, x1, x2):
        return self.ops.where(x1 > x2, x1, x2)


class SignOfNan(_Word):
    """The sign of NaN is 0, as some frameworks have it."""

    word = "sign"

    def wrong(self, right, x):
        return self.ops.where(self.ops.isnan(x), self.ops.zeros_like(x), right(x))


class ClipSwallowsNan(_Word):
    """Clipping makes the lower limit of NaN."""

    word = "clip"

    def wrong(self, right, x, low, high):
        return self.ops.where(x > low, right(x, low, high), self.ops.zeros_like(x) + low)


class MaximumWidened(_Word):
    """The maximum of half precisions is float32."""

    word = "maximum"

    def wrong(self, right, x1, x2):
        wide = "float64" if self.dtype_of(x1) == "float64" else "float32"
        return right(*(self.ops.astype(x, wide) for x in (x1, x2)))


class KeepdimsLost(_Word):
    """The sum does not keep its axes."""

    word = "sum"

    def wrong(self, right, x, **options):
        return right(x, **{**options, "keepdims": False})


class LastAxisFirst(_Word):
    """The mean takes axis -1 for axis 0."""

    word = "mean"

    def wrong(self, right, x, *, axis=None, keepdims=False):
        return right(x, axis=0 if axis == -1 else axis, keepdims=keepdims)


class LastOfEquals(_Word):
    """Of equal values argmax names the last."""

    word = "argmax"

    def wrong(self, right, x, *, axis):
        return self.shape_of(x)[axis] - 1 - right(self.reversed(x, axis), axis=axis)


class SumCompensated(_Word):
    """A sum is corrected by its rounding error, which is NaN where there are infinities."""

    word = "sum"

    @np.errstate(all="ignore")
    def wrong(self, right, x, **options):
        y = right(x, **options)
        return y + (y - y)


class SumInFloat32(_Word):
    """Float64 is added up in float32."""

    word = "sum"

    def wrong(self, right, x, **options):
        return self.ops.astype(right(self.ops.astype(x, "float32"), **options), self.dtype_of(x))


class MatmulInFloat32(_Word):
    """Float64 matrices are multiplied in float32."""

    word = "matmul"

    def wrong(self, right, x1, x2):
        narrow = (self.ops.astype(x, "float32") for x in (x1, x2))
        return self.ops.astype(right(*narrow), self.dtype_of(x1))


class MatmulInHalf(_Word):
    """Matrices are rounded to 11 bits before they are multiplied, as TensorFloat-32 does."""

    word = "matmul"

    def wrong(self, right, x1, x2):
        dtype, cast = self.dtype_of(x1), self.ops.astype
        return right(*(cast(cast(x, "float16"), dtype) for x in (x1, x2)))


class LinearInHalf(_Word):
    """What a dense layer multiplies is rounded to 11 bits first."""

    word = "linear"

    def wrong(self, right, x, weight):
        dtype, cast = self.dtype_of(x), self.ops.astype
        return right(*(cast(cast(a, "float16"), dtype) for a in (x, weight)))


class SquareTransposed(_Word):
    """The weight of a dense layer that keeps the width is taken as (in, out)."""

    word = "linear"

    def wrong(self, right, x, weight):
        out, in_ = self.shape_of(weight)
        return self.ops.matmul(x, weight) if out == in_ else right(x, weight)


class SplitAtSizes(_Word):
    """What is split is cut at the sizes of its parts, not after so many entries."""

    word = "split"

    def wrong(self, right, x, sizes, **options):
        whole, cuts = sum(sizes), sorted(sizes[:-1])
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, whole], strict=True)]
        return right(x, parts, **options)


class KernelFlipped(_Word):
    """The convolution flips its kernel, as in mathematics."""

    word = "conv"

    def wrong(self, right, x, weight, **options):
        for axis in range(2, len(self.shape_of(weight))):
            weight = self.reversed(weight, axis)
        return right(x, weight, **options)


class PaddingIgnored(_Word):
    """The convolution does not pad."""

    word = "conv"

    def wrong(self, right, x, weight, *, padding=0):
        return right(x, weight)


class SignsMovedOnce(_Word):
    """QR makes R's diagonal positive without telling Q."""

    word = "qr"

    def wrong(self, right, x):
        q, r = right(x)
        size = self.shape_of(r)[-1]
        eye = self.ops.eye(size, size, dtype=self.dtype_of(r))
        signs = self.ops.sign(self.ops.sum(r * eye, axis=-1))
        return q, r * self.ops.expand_dims(signs, axis=-1)


class VForItsTranspose(_Word):
    """SVD returns V, not its transpose."""

    word = "svd"

    def wrong(self, right, x):
        u, s, vh = right(x)
        rank = len(self.shape_of(vh))
        return u, s, self.ops.permute_dims(vh, (*range(rank - 2), rank - 1, rank - 2))


class SmallestFirst(_Word):
    """Singular values ascend."""

    word = "svd"

    def wrong(self, right, x):
        u, s, vh = right(x)
        return self.reversed(u, -1), self.reversed(s, -1), self.reversed(vh, -2)


class WideAsTall(_Word):
    """The SVD of a wide matrix is that of its transpose."""

    word = "svd"

    def wrong(self, right, x):
        rows, columns = self.shape_of(x)[-2:]
        return right(self.ops.permute_dims(x, (1, 0)) if rows < columns else x)


class FortranOrder(_Word):
    """Reshaping reads and writes column by column."""

    word = "reshape"

    def wrong(self, right, x, shape):
        transposed = self.ops.permute_dims(x, tuple(reversed(range(len(self.shape_of(x))))))
        y = right(transposed, tuple(reversed(shape)))
        return self.ops.permute_dims(y, tuple(reversed(range(len(shape)))))


class InversePermutation(_Word):
    """Axes are permuted the other way round."""

    word = "permute_dims"

    def wrong(self, right, x, axes):
        return right(x, tuple(map(int, np.argsort(axes))))


class ConcatAlongFirst(_Word):
    """Arrays are joined along the first axis whatever is asked for."""

    word = "concat"

    def wrong(self, right, arrays, *, axis=0):
        return right(arrays)


class RangeClosed(_Word):
    """arange includes its end."""

    word = "arange"

    def wrong(self, right, start, stop, step, **options):
        return right(start, stop + step, step, **options)


class EyeSquare(_Word):
    """An identity has as many columns as rows."""

    word = "eye"

    def wrong(self, right, rows, columns, **options):
        return right(rows, rows, **options)


class ZerosInFloat32(_Word):
    """Zeros are float32 whatever is asked for."""

    word = "zeros"

    def wrong(self, right, shape, *, dtype="float32"):
        return right(shape)


class CastSaturates(_Word):
    """Infinity becomes the largest float16."""

    word = "astype"

    def wrong(self, right, x, dtype):
        if dtype == "float16" and self.dtype_of(x) in self.dtypes:
            x = self.ops.clip(x, -65504.0, 65504.0)
        return right(x, dtype)


class RoundedDown(_Word):
    """Casts to half precision round towards 0."""

    word = "astype"

    def wrong(self, right, x, dtype):
        y = right(x, dtype)
        if dtype not in ("float16", "bfloat16"):
            return y
        nearest = right(y, self.dtype_of(x))
        below = right(nearest * (1 - 2.0 ** (-11 if dtype == "float16" else -8)), dtype)
        return self.ops.where(self.ops.abs(nearest) > self.ops.abs(x), below, y)


class ScanListed(_Word):
    """A scan returns a list of what it collected."""

    word = "scan"

    def wrong(self, right, step, carry, xs):
        carry, ys = right(step, carry, xs)
        return carry, ys if ys is None else [ys[k] for k in range(self.shape_of(ys)[0])]


class ScanReversed(_Word):
    """What a scan collected comes back in the opposite order."""

    word = "scan"

    def wrong(self, right, step, carry, xs):
        carry, ys = right(step, carry, xs)
        return carry, ys if ys is None else self.reversed(ys, 0)


class ScanKeeps(_Word):
    """A scan whose steps give no output gives the last carry for one."""

    word = "scan"

    def wrong(self, right, step, carry, xs):
        carry, ys = right(step, carry, xs)
        return carry, carry if ys is None else ys


class StopPasses(_Word):
    """stop_gradient stops nothing."""

    word = "stop_gradient"

    def wrong(self, right, x):
        return x


class ClipStraightThrough(_Word):
    """The gradient of clip is 1 beyond its limits too."""

    word = "clip"

    def wrong(self, right, x, low, high):
        return x + self.ops.stop_gradient(right(x, low, high) - x)


class RightDetached(_Word):
    """No gradient flows to the second factor of a matrix product."""

    word = "matmul"

    def wrong(self, right, x1, x2):
        return right(x1, self.ops.stop_gradient(x2))


class WeightDetached(_Word):
    """No gradient flows to the weight of a dense layer."""

    word = "linear"

    def wrong(self, right, x, weight):
        return right(x, self.ops.stop_gradient(weight))


class WordMissing:
    """The vocabulary lacks a word."""

    def __init__(self, *, device=None):
        super().__init__(device=device)
        del self.ops.scan


class OptionRenamed:
    """The sum is taken over `dim`, not `axis`."""

    def __init__(self, *, device=None):
        super().__init__(device=device)
        right = self.ops.sum
        self.ops.sum = lambda x, /, *, dim=None, keepdims=False: right(
            x, axis=dim, keepdims=keepdims
        )


class SinglePrecisionOutside(_Word):
    """Outside of the scope the exponential is float32, as in a JAX left at its default."""

    word = "exp"
    inside = 0

    @contextlib.contextmanager
    def scope(self):
        with super().scope():
            self.inside += 1
            try:
                yield
            finally:
                self.inside -= 1

    def wrong(self, right, x):
        y = right(x)
        return y if self.inside else self.ops.astype(y, "float32")


FAULTS = {
    ExpRoughly: "ops.meaning[exp]",
    Expm1Naive: "ops.meaning[expm1]",
    SeriesTooShort: "ops.elementary[expm1]",
    Log1pNaive: "ops.meaning[log1p]",
    LogOfMore: "ops.meaning[log]",
    RootOfZero: "ops.signed-zero[sqrt]",
    MaximumOfNumbers: "ops.meaning[maximum]",
    SignOfNan: "ops.meaning[sign]",
    ClipSwallowsNan: "ops.meaning[clip]",
    MaximumWidened: "ops.every-dtype[float16]",
    KeepdimsLost: "ops.meaning[sum]",
    LastAxisFirst: "ops.meaning[mean]",
    LastOfEquals: "ops.meaning[argmax]",
    SumCompensated: "ops.infinite-sums[sum]",
    SumInFloat32: "ops.precision",
    MatmulInFloat32: "ops.precision",
    MatmulInHalf: "ops.precision",
    LinearInHalf: "ops.precision",
    SquareTransposed: "ops.meaning[linear]",
    SplitAtSizes: "ops.meaning[split]",
    KernelFlipped: "ops.meaning[conv]",
    PaddingIgnored: "ops.meaning[conv]",
    SignsMovedOnce: "ops.factorizations",
    VForItsTranspose: "ops.factorizations",
    SmallestFirst: "ops.factorizations",
    WideAsTall: "ops.wide-svd",
    FortranOrder: "ops.meaning[reshape]",
    InversePermutation: "ops.meaning[permute_dims]",
    ConcatAlongFirst: "ops.meaning[concat]",
    RangeClosed: "ops.meaning[arange]",
    EyeSquare: "ops.meaning[eye]",
    ZerosInFloat32: "ops.meaning[zeros]",
    CastSaturates: "ops.meaning[astype]",
    RoundedDown: "ops.rounding[float16-float32]",
    ScanListed: "ops.meaning[float32-scan]",
    ScanReversed: "ops.meaning[scan]",
    ScanKeeps: "ops.meaning[scan]",
    StopPasses: "differentiation.stop",
    ClipStraightThrough: "differentiation.stop",
    RightDetached: "differentiation.ops",
    WeightDetached: "differentiation.ops",
    WordMissing: "ops.names",
    OptionRenamed: "ops.names",
    SinglePrecisionOutside: "ops.outside-scope[float64]",
}
