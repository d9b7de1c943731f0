"""Faults of derivatives and of the compiler."""

import itertools

from isometry.common.streams import Stream

COMPILED = frozenset({"compiled"})
JVP = frozenset({"jvp"})
HVP = frozenset({"hvp"})


def _each(change, gradient):
    """Apply a function to a gradient: one array, or a dictionary of them."""
    if isinstance(gradient, dict):
        return {name: change(array) for name, array in gradient.items()}
    return change(gradient)


class _Gradient:
    """Calls `wrong` with the right function that evaluates value and gradient."""

    def value_and_gradient(self, f, /):
        right = super().value_and_gradient(f)

        def evaluate(parameters, *args):
            with self.scope():
                return self.wrong(right, parameters, *args)

        return evaluate


class GradientHalved(_Gradient):
    """The gradient is that of half the function."""

    def wrong(self, right, parameters, *args):
        value, gradient = right(parameters, *args)
        return value, _each(lambda g: g / 2, gradient)


class GradientWidened(_Gradient):
    """The gradient of float32 parameters is float64."""

    def wrong(self, right, parameters, *args):
        value, gradient = right(parameters, *args)
        return value, _each(lambda g: self.ops.astype(g, "float64"), gradient)


class GradientsShared(_Gradient):
    """Gradients of a dictionary that are equal are one array."""

    not_on = ("jax", "tensorflow")  # whose arrays never change

    def wrong(self, right, parameters, *args):
        value, gradient = right(parameters, *args)
        if not isinstance(gradient, dict):
            return value, gradient
        kept = {self.to_numpy(g).tobytes(): g for g in gradient.values()}
        return value, {name: kept[self.to_numpy(g).tobytes()] for name, g in gradient.items()}


class OtherArgument:
    """The function is differentiated in its last argument."""

    def value_and_gradient(self, f, /):
        right = super().value_and_gradient(lambda last, *others: f(*others, last))
        return lambda *args: right(args[-1], *args[:-1])


class GradientsAccumulate:
    """A second call adds to the gradient of the first."""

    def value_and_gradient(self, f, /):
        right = super().value_and_gradient(f)
        kept = []

        def evaluate(parameters, *args):
            value, gradient = right(parameters, *args)
            kept.append(gradient)
            with self.scope():
                if isinstance(gradient, dict):
                    return value, {k: sum(g[k] for g in kept) for k in gradient}
                return value, sum(kept)

        return evaluate


class DictionaryReordered(_Gradient):
    """Gradients come in the order of sorted names and are handed out in the order given."""

    def wrong(self, right, parameters, *args):
        value, gradient = right(parameters, *args)
        order = zip(parameters, sorted(parameters), strict=True)
        return value, {name: gradient[other] for name, other in order}


class UnusedIsNan(_Gradient):
    """The gradient of an unused parameter is NaN."""

    def wrong(self, right, parameters, *args):
        value, gradient = right(parameters, *args)
        unused = lambda g: not self.to_numpy(g).any()  # noqa: E731
        return value, _each(lambda g: g + float("nan") if unused(g) else g, gradient)


class _Pullback:
    """Calls `wrong` with the right function v -> v^T J, the vector, and the vectors before it."""

    def vjp(self, f, x, /):
        y, right = super().vjp(f, x)
        before = []

        def pullback(v):
            with self.scope():
                gradient = self.wrong(right, v, before)
            before.append(v)
            return gradient

        return y, pullback


class CotangentIgnored(_Pullback):
    """v^T J is taken with ones for v."""

    def wrong(self, right, v, before):
        return right(self.ops.ones_like(v))


class ScalarCotangent(_Pullback):
    """v^T J of a scalar function is its gradient, whatever v."""

    def wrong(self, right, v, before):
        return right(v if self.shape_of(v) else self.ops.ones_like(v))


class PullbackSpent(_Pullback):
    """v^T J is 0 from the second call on."""

    def wrong(self, right, v, before):
        return right(v) * (0.0 if before else 1.0)


class PullbacksAccumulate(_Pullback):
    """Each v^T J is added to those before."""

    def wrong(self, right, v, before):
        return sum(map(right, before), right(v))


class PullbackWidened(_Pullback):
    """v^T J of a float32 array is float64."""

    def wrong(self, right, v, before):
        return self.ops.astype(right(v), "float64")


class ForwardSlopeFixed:
    """Forward mode through leaky_relu takes the slope for 0.01."""

    needs = JVP
    forward = False

    def jvp(self, f, x, tangent, /):
        self.forward = True
        try:
            return super().jvp(f, x, tangent)
        finally:
            self.forward = False

    def leaky_relu(self, x, /, *, slope=0.01):
        return super().leaky_relu(x, slope=0.01 if self.forward else slope)


class TangentIgnored:
    """J v is taken with ones for v."""

    needs = JVP

    def jvp(self, f, x, tangent, /):
        return super().jvp(f, x, self.ops.ones_like(tangent))


class JacobianTransposed:
    """v^T J is taken for J v."""

    needs = JVP

    def jvp(self, f, x, tangent, /):
        y, pullback = super().vjp(f, x)
        return y, pullback(tangent)


class JvpByDifferences:
    """J v is a difference quotient."""

    needs = JVP

    def jvp(self, f, x, tangent, /):
        h = 1e-3
        return f(x), (f(x + h * tangent) - f(x - h * tangent)) / (2 * h)


class HessianHalved:
    """The factor 2 of a quadratic form's Hessian is forgotten."""

    needs = HVP

    def hvp(self, f, x, vector, /):
        return super().hvp(f, x, vector) / 2


class HessianSpent:
    """All products with one Hessian are the first."""

    needs = HVP

    def hessian(self, f, parameters, /):
        product, found = super().hessian(f, parameters), []

        def spent(vector):
            found.append(product(vector))
            return found[0]

        return spent


class HessianInBlocks:
    """Of the Hessian in a dictionary only each array's own block is multiplied."""

    needs = HVP

    def hessian(self, f, parameters, /):
        product = super().hessian(f, parameters)
        if not isinstance(parameters, dict):
            return product

        def blocks(vector):
            zero = {path: self.ops.zeros_like(v) for path, v in vector.items()}
            return {path: product({**zero, path: v})[path] for path, v in vector.items()}

        return blocks


class PullbackOvertaken:
    """Another gradient makes the earlier functions of vjp return 0."""

    taken = 0

    def value_and_gradient(self, f, /):
        self.taken += 1
        return super().value_and_gradient(f)

    def vjp(self, f, x, /):
        y, pullback = super().vjp(f, x)
        before = self.taken

        def overtaken(v):
            gradient = pullback(v)
            return gradient if self.taken == before else self.ops.zeros_like(gradient)

        return y, overtaken


class HessianDiagonal:
    """Only the Hessian's diagonal is multiplied."""

    needs = HVP

    def hvp(self, f, x, vector, /):
        size = self.shape_of(x)[0]
        eye = self.ops.eye(size, size, dtype=self.dtype_of(x))
        return sum(eye[k] * vector * super(HessianDiagonal, self).hvp(f, x, eye[k])
                   for k in range(size))  # fmt: skip


class CurvatureOnce:
    """Of a square's Hessian the part is lost that has the gradient twice, as in f'**2 + f f''."""

    needs = HVP

    def __init__(self, *, device=None):
        super().__init__(device=device)
        self.ops.square = self.square

    def square(self, x, /):
        fixed = self.ops.stop_gradient(x)
        return 2 * fixed * x - fixed * fixed


class FormulaDifferentiated:
    """The derivative of tanh is a formula in e**(2|x|), which in its derivative is inf / inf."""

    def tanh_gradient(self, x, /):
        e = self.ops.exp(2 * self.ops.abs(x))
        return 4 / (e + (2 + 1 / e))


class CompiledDiffers:
    """A compiled function is not the function: its array results are 0.1 % too large."""

    def compile(self, f, /):
        compiled = super().compile(f)

        def wrong(*args):
            y = compiled(*args)
            return y * 1.001 if self.is_array(y) else y

        return wrong


class CompiledInHalf:
    """A compiled function rounds its parameters to 11 bits."""

    def compile(self, f, /):
        compiled, cast = super().compile(f), self.ops.astype

        def rounded(parameters, *args):
            dtypes = {k: self.dtype_of(p) for k, p in parameters.items()}
            narrow = {k: cast(cast(p, "float16"), dtypes[k]) for k, p in parameters.items()}
            return compiled(narrow, *args)

        return rounded


class DerivativesForgotten:
    """A function that ran compiled has the framework's own derivatives from then on."""

    needs = COMPILED
    own = False

    def compile(self, f, /):
        def forgotten(*args):
            self.own = True
            try:
                return f(*args)
            finally:
                self.own = False

        first, later = super().compile(f), super().compile(forgotten)
        calls = itertools.count()
        return lambda *args: (later if next(calls) else first)(*args)

    def sigmoid(self, x, /):
        return (1 + self.ops.tanh(x / 2)) / 2 if self.own else super().sigmoid(x)


class CompiledAgain:
    """A function is compiled again at every call."""

    needs = COMPILED

    def compile(self, f, /):
        compiled = super().compile
        return lambda *args: compiled(lambda *again: f(*again))(*args)


class NestedSkipped:
    """A compiled function within another returns its argument."""

    needs = COMPILED
    running = False

    def compile(self, f, /):
        compiled = super().compile(f)

        def outermost(*args):
            if self.running:
                return args[0]
            self.running = True
            try:
                return compiled(*args)
            finally:
                self.running = False

        return outermost


class HessianInside:
    """Inside a compiled function a Hessian-vector product is 0."""

    needs = HVP
    compiling = False

    def compile(self, f, /):
        def inside(*args):
            self.compiling = True
            try:
                return f(*args)
            finally:
                self.compiling = False

        return super().compile(inside)

    def hvp(self, f, x, vector, /):
        product = super().hvp(f, x, vector)
        return self.ops.zeros_like(product) if self.compiling else product


class DtypeOfFirstCall:
    """A compiled function returns the dtype of its first call ever after."""

    needs = COMPILED

    def compile(self, f, /):
        compiled, dtypes = super().compile(f), []

        def narrowed(*args):
            y = compiled(*args)
            dtypes.append(self.dtype_of(y))
            return self.ops.astype(y, dtypes[0])

        return narrowed


class ResultRemembered:
    """A compiled function returns its first result for a shape ever after."""

    needs = COMPILED

    def compile(self, f, /):
        compiled, results = super().compile(f), {}

        def remembered(*args):
            shapes = tuple(map(self.shape_of, args))
            if shapes not in results:
                results[shapes] = compiled(*args)
            return results[shapes]

        return remembered


class OutputsSwapped:
    """A compiled function returns its results in the opposite order."""

    needs = COMPILED

    def compile(self, f, /):
        compiled = super().compile(f)
        return lambda *args: compiled(*args)[::-1]


class StreamFrozen:
    """A stream passed to a compiled function does not move on."""

    needs = COMPILED

    def compile(self, f, /):
        compiled = super().compile(f)
        fresh = lambda a: self.stream(a.seed) if isinstance(a, Stream) else a  # noqa: E731
        return lambda *args: compiled(*map(fresh, args))


class CompiledDetached:
    """No gradient flows through a compiled function."""

    needs = COMPILED

    def compile(self, f, /):
        compiled = super().compile(f)
        return lambda x: self.ops.stop_gradient(compiled(x))


FAULTS = {
    GradientHalved: "differentiation.array",
    GradientWidened: "differentiation.array",
    OtherArgument: "differentiation.array",
    GradientsAccumulate: "differentiation.repeated",
    DictionaryReordered: "differentiation.dictionary",
    GradientsShared: "differentiation.own",
    UnusedIsNan: "differentiation.unused",
    CotangentIgnored: "differentiation.vjp",
    ScalarCotangent: "differentiation.vjp-shapes",
    PullbackSpent: "differentiation.vjp",
    PullbacksAccumulate: "differentiation.vjp",
    PullbackWidened: "differentiation.dtypes",
    ForwardSlopeFixed: "differentiation.jvp-sigmoid[leaky_relu]",
    TangentIgnored: "differentiation.jvp",
    JacobianTransposed: "differentiation.jvp",
    JvpByDifferences: "differentiation.jvp-sigmoid[sigmoid]",
    HessianHalved: "differentiation.hvp",
    HessianDiagonal: "differentiation.hvp",
    HessianSpent: "differentiation.hvp-repeated",
    HessianInBlocks: "differentiation.hvp-named",
    CurvatureOnce: "differentiation.hvp-composed[tanh]",
    PullbackOvertaken: "differentiation.vjp-kept",
    FormulaDifferentiated: "differentiation.derivatives[tanh]",
    CompiledDiffers: "compiled.equals-eager[sigmoid]",
    CompiledInHalf: "compiled.loss",
    NestedSkipped: "compiled.nested",
    CompiledAgain: "compiled.once",
    DerivativesForgotten: "compiled.derivatives[sigmoid]",
    DtypeOfFirstCall: "compiled.signatures",
    ResultRemembered: "compiled.repeated",
    OutputsSwapped: "compiled.arguments",
    StreamFrozen: "compiled.stream",
    CompiledDetached: "compiled.differentiated",
    HessianInside: "compiled.hvp",
}
