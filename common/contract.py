"""The contract: what a framework must be able to do, and nothing else.

An adapter subclasses `Backend`. It must bring

- the declarations `name`, `framework`, `dtypes` and `capabilities`;
- ``__init__``, which refuses a device that does not exist and sets `ops`, and `device`;
- `asarray`, `to_numpy`, `is_array`, `dtype_of`; `scope` where a dtype needs a context;
- `stream`, with a subclass of :class:`isometry.common.streams.Stream`;
- `value_and_gradient`; and of `jvp`, `hvp` and `compile` those that `capabilities` names.

Everything else is composed from these, once, within the bounds stated here
(`isometry.common.composed`, `isometry.common.chains`). An adapter overrides what the framework
does itself, faster or with more precision.

Arrays are positional-only, options keyword-only, and there is no global state: the backend is
always passed explicitly, by convention as ``nx``. Arguments are checked before an adapter's code
runs (`isometry.common.contract_checks`), so that the same wrong call gives the same
`InvalidArgument` on every backend; an adapter checks none.

Error bounds are in units in the last place (ULP) of the result's dtype, against the exact value
for the given input, wherever that value is a normal number of the dtype.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from isometry.common import chains, checks, composed, contract_checks
from isometry.common.contract_checks import ACTIVATIONS
from isometry.common.errors import Unsupported
from isometry.common.laws.distributions import Distribution, Normal
from isometry.common.laws.initializers import Initializer, initializer

if TYPE_CHECKING:
    import numpy as np

    from isometry.common.streams import Stream

__all__ = ["ACTIVATIONS", "CAPABILITIES", "Array", "Backend"]

Array = Any  # an array of the backend's own framework

CAPABILITIES: dict[str, str] = {
    "compiled": "compile() hands functions to the framework's own compiler",
    "jvp": "Jacobian-vector products",
    "hvp": "Hessian-vector products by automatic differentiation",
    "bfloat16": "bfloat16 arrays",
}


class Backend(checks.Checked, abc.ABC):
    """One framework behind the common interface.

    Parameters
    ----------
    device : str, optional
        Where arrays are placed: ``"cpu"`` (default), ``"cuda"``, ``"gpu:0"``, as the framework
        names it.

    Raises
    ------
    InvalidArgument
        If the device does not exist here; the error lists those that do.
    """

    name: ClassVar[str]
    """Backend name, equal to the pip extra, the tox factor and the report file."""
    framework: ClassVar[str]
    """The distribution, as pip knows it, that `version` is the version of."""
    dtypes: ClassVar[tuple[str, ...]]
    """Floating dtypes that every operation accepts, unless its docstring names others.

    float32 and float64 are among them, bfloat16 exactly if it is among `capabilities`.
    """
    capabilities: ClassVar[frozenset[str]]
    """Declared, never inferred; keys of `CAPABILITIES`."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Clause of the conformance suite -> why this framework cannot meet it, with a link.

    It must then fail in every case it is run in; ``"ops.precision[float64,compiled]"`` names only
    the cases whose pytest id has all of these words. What passes all the same is an error. A file
    for ``--expect`` says the same outside the adapter.
    """
    mutable: ClassVar[bool] = False
    """Whether ``x += y`` changes the array x outside compiled functions, as in NumPy."""
    overwrites: bool = False
    """Whether updates and compiled functions may overwrite their first argument: `donating`."""
    ops: SimpleNamespace
    """The vocabulary of :mod:`isometry.common.ops`, bound to this framework.

    `__init__` sets it: ``self.ops = ops.bind(table, self.scope)``.
    """

    CHECKS: ClassVar[Mapping[str, checks.Check]] = contract_checks.CHECKS

    # --- identity and arrays ------------------------------------------------------------------

    @abc.abstractmethod
    def __init__(self, *, device: str | None = None) -> None: ...

    @property
    def version(self) -> str:
        """Version of the framework; by default that of the installed distribution `framework`."""
        return metadata.version(self.framework)

    @property
    @abc.abstractmethod
    def device(self) -> str:
        """Device on which this backend places arrays, in the framework's spelling.

        As the argument of ``__init__`` it names the same device.
        """

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which every dtype computes at its own precision.

        Methods enter it by themselves. Code that applies Python operators to arrays outside
        them wraps itself in ``with nx.scope():``, and so does an adapter in the functions that
        `value_and_gradient`, `vjp` and `compile` return: they run later. Most frameworks need
        none; JAX keeps float64 by it, MLX runs on the CPU, and NumPy warns of no infinity.
        """
        return nullcontext()

    @abc.abstractmethod
    def asarray(self, value: Any, /, *, dtype: str | None = None) -> Array:
        """Return an array of this framework, on its device, as a copy.

        What `dtype` does not hold is rounded to nearest even, and to infinity beyond its range,
        without a warning; a float64 value may reach a half precision by way of float32.

        Parameters
        ----------
        value : numpy.ndarray, number, or nested list
        dtype : str, optional
            One of `dtypes`. By default a NumPy array keeps its own dtype, also if it is boolean
            or of integers (conditions and indices), and numbers and lists become float32.
        """

    def adopt(self, value: np.ndarray, /, *, dtype: str) -> Array:
        """Return `asarray` of an array that nobody else holds: in its own memory if it can be.

        Portable streams hand their draws over by it, so that these exist once. By default a copy.

        Parameters
        ----------
        value : numpy.ndarray
            float32 or float64, contiguous, its memory aligned to 64 bytes as JAX and TensorFlow
            ask; the caller forgets it.
        dtype : str
            One of `dtypes`. Where it is not the dtype of `value`, it is rounded as by `asarray`.
        """
        return self.asarray(value, dtype=dtype)

    @abc.abstractmethod
    def to_numpy(self, x: Array, /) -> np.ndarray:
        """Return a NumPy copy of the same dtype; bfloat16, which NumPy lacks, as exact float32."""

    @abc.abstractmethod
    def is_array(self, x: object, /) -> bool:
        """Return whether x is an array of this framework, or stands for one while compiling."""

    @abc.abstractmethod
    def dtype_of(self, x: Array, /) -> str:
        """Return the name of the dtype, such as ``"float32"``."""

    def shape_of(self, x: Array, /) -> tuple[int, ...]:
        """Return the shape as a tuple of Python integers."""
        return tuple(int(size) for size in x.shape)

    # --- randomness ---------------------------------------------------------------------------

    @abc.abstractmethod
    def stream(self, seed: int, /) -> Stream:
        """Return a native stream: the framework's own generator, started from all bits of `seed`.

        It neither reads nor writes any global generator of the framework, or of NumPy. An adapter
        subclasses :class:`isometry.common.streams.Stream`: `child` and three draws.
        """

    def portable_stream(self, seed: int, /) -> Stream:
        """Return a portable stream: the same bits in every framework and on every machine."""
        from isometry.common.portable import PortableStream

        stream: Stream = PortableStream(seed, convert=self.adopt, dtypes=self.dtypes)
        return stream

    # --- sigmoid gradients --------------------------------------------------------------------

    def sigmoid(self, x: Array, /) -> Array:
        """Logistic sigmoid, ``1 / (1 + exp(-x))``; any shape, dtype kept.

        Computed from ``e = exp(-|x|)`` as ``1/(1+e)`` for x >= 0 and ``e/(1+e)`` below, within 4
        ULP. Differentiating through it gives `sigmoid_gradient`, within the same bound, eager or
        compiled. +-inf gives 1 and 0, NaN stays NaN.
        """
        return composed.sigmoid(self, x)

    def sigmoid_gradient(self, x: Array, /) -> Array:
        """Exact derivative of the sigmoid, ``e / (1 + e)**2`` with ``e = exp(-|x|)``.

        Computed as ``e / (1 + e (2 + e))``, the same divided through by e, or ``y - y**2`` with
        ``y = sigmoid(-|x|)``, at most 1/2 so that nothing cancels: at most 4 ULP in float32 and 3
        in float64 wherever the result is normal (``|x|`` to 87.33 and 708.39), a faithful rounding
        in half precisions. At +-inf it is 0, NaN stays NaN. The usual ``y (1 - y)`` is 0 from
        x = 16.64 in float32.
        """
        return composed.sigmoid_gradient(self, x)

    def tanh(self, x: Array, /) -> Array:
        """Hyperbolic tangent, the framework's own: at most 8 ULP (TensorFlow and JAX reach 7).

        Differentiating through it gives 1 / cosh(x)**2 within the bounds of `tanh_gradient`, which
        ``1 - y**2`` of y = tanh(x) keeps where no |y| of an array exceeds 1/2: if y errs by k ULP,
        it errs by at most k/2 + 5/8. +-inf gives +-1, NaN stays NaN.
        """
        return composed.tanh(self, x)

    def tanh_gradient(self, x: Array, /) -> Array:
        """Exact derivative of tanh, ``1 / cosh(x)**2``.

        Computed as ``4 / (E + (2 + 1/E))`` with ``E = exp(2|x|)``, or as ``4 (y - y**2)`` with
        ``y = sigmoid(-2|x|)``: at most 4 ULP in float32 and 3 in float64 wherever the result is
        normal (``|x|`` to 44.36 and 354.88), a faithful rounding in half precisions. At +-inf it is
        0, NaN stays NaN. The usual ``1 - tanh(x)**2`` is 0 from x = 9.01 in float32.
        """
        return composed.tanh_gradient(self, x)

    def relu(self, x: Array, /) -> Array:
        """max(x, 0); exact; NaN stays NaN; differentiating through it gives `relu_gradient`."""
        return composed.relu(self, x)

    def relu_gradient(self, x: Array, /) -> Array:
        """1 for x > 0, 0 for x <= 0 (the subgradient at 0 is 0); NaN stays NaN."""
        return composed.relu_gradient(self, x)

    def leaky_relu(self, x: Array, /, *, slope: float = 0.01) -> Array:
        """x for x > 0, ``slope * x`` otherwise; differentiates to `leaky_relu_gradient`."""
        return composed.leaky_relu(self, x, slope)

    def leaky_relu_gradient(self, x: Array, /, *, slope: float = 0.01) -> Array:
        """1 for x > 0, `slope` for x <= 0; NaN stays NaN."""
        return composed.leaky_relu_gradient(self, x, slope)

    def native_gradient(self, activation: str, x: Array, /) -> Array:
        """Derivative of the framework's own activation by its own automatic differentiation.

        What a user of the framework gets who writes the activation and asks for its gradient, so
        that it can be compared with the exact one. No error bound: that is the point. By default
        the activation is its usual formula in `ops`; an adapter hands over the framework's own.

        Parameters
        ----------
        activation : {"sigmoid", "tanh", "relu", "leaky_relu"}
            The last with slope 0.01.
        """
        return composed.native_gradient(self, activation, x)

    # --- random matrix chains -----------------------------------------------------------------

    def chain_product(
        self, product: Array, factors: Array, /, *, rescale: bool = False
    ) -> tuple[Array, Array]:
        """Multiply each chain's product by its factors from the right, in order.

        ``P <- P F_1 F_2 ... F_k``, chain by chain. With `rescale`, after each factor P is divided
        by its largest absolute entry c and log(c) is added up: P exp(log_scale) is the product,
        and neither overflows nor vanishes. A zero product stays zero, with log_scale unchanged;
        infinity and NaN stay in their chain, and disturb no other.
        Differentiable in both arrays; no derivative flows through c, which cancels in the product.

        Parameters
        ----------
        product : array (batch, n, n)
        factors : array (k, batch, n, n)

        Returns
        -------
        product : array (batch, n, n)
        log_scale : array (batch,)
            Natural logarithm; zeros without `rescale`.

        Notes
        -----
        Relative error in norm at most ``k n eps ||P|| ||F_1|| ... ||F_k||`` (Higham 2002, Accuracy
        and Stability of Numerical Algorithms, section 3.5).
        """
        return composed.chain_product(self, product, factors, rescale=rescale)

    def matrix_chain(
        self,
        stream: Stream,
        /,
        *,
        length: int,
        size: int,
        batch: int = 1,
        law: Distribution = Normal(),  # noqa: B008 - frozen
        dtype: str = "float32",
        rescale: bool = False,
    ) -> chains.MatrixChain:
        """Multiply `length` random matrices, `batch` chains at once; memory independent of length.

        See :func:`isometry.common.chains.matrix_chain`.
        """
        with self.scope():
            return chains.matrix_chain(
                self,
                stream,
                length=length,
                size=size,
                batch=batch,
                law=law,
                dtype=dtype,
                rescale=rescale,
            )

    def lyapunov_spectrum(
        self,
        stream: Stream,
        /,
        *,
        length: int,
        size: int,
        batch: int = 1,
        law: Distribution = Normal(),  # noqa: B008 - frozen
        dtype: str = "float64",
    ) -> np.ndarray:
        """Finite-length Lyapunov exponents of a random matrix chain, by repeated QR.

        See :func:`isometry.common.chains.lyapunov_spectrum`.
        """
        with self.scope():
            return chains.lyapunov_spectrum(
                self, stream, length=length, size=size, batch=batch, law=law, dtype=dtype
            )

    # --- initializers -------------------------------------------------------------------------

    def initialize(
        self,
        rule: str | Initializer,
        shape: tuple[int, ...],
        stream: Stream,
        /,
        *,
        layout: str = "out_in",
        dtype: str = "float32",
    ) -> Array:
        """Draw a weight of an initializer's law.

        Parameters
        ----------
        rule : str or law
            A name in ``isometry.INITIALIZERS`` ("he_normal"), or a law: ``Normal(0.0, 0.01)``,
            ``VarianceScaling(gain=5/3, mode="fan_avg")``, ``Orthogonal(gain=2**0.5)``.
        shape : tuple of int
        stream : Stream
            Native or portable.
        layout : {"out_in", "in_out"}
            Where the weight keeps its output axis; see :func:`isometry.common.laws.fans.fans`.

        Raises
        ------
        InvalidArgument
            If the rule is unknown, a size is 0, or the rule needs fans and the shape has none.
        """
        checks.stream_like("stream", stream)
        checks.choice("dtype", dtype, self.dtypes)
        checks.choice("layout", layout, ("out_in", "in_out"))
        sizes = checks.shape("shape", shape, low=1)
        law = initializer(rule).resolve(sizes, layout)
        with self.scope():
            return law.draw(self, stream, sizes, dtype=dtype)

    # --- normalization ------------------------------------------------------------------------

    def batch_norm(
        self,
        x: Array,
        scale: Array,
        shift: Array,
        mean: Array,
        variance: Array,
        /,
        *,
        training: bool,
        axis: int = 1,
        eps: float = 1e-5,
        momentum: float = 0.9,
        momentum_weights: str = "running",
        running_variance: str = "biased",
    ) -> tuple[Array, Array, Array]:
        """Batch normalization (Ioffe and Szegedy 2015, algorithms 1 and 2).

        ``y = (x - m) / sqrt(v + eps) * scale + shift`` per channel, with m and v the mean and
        biased variance over all other axes in training, and `mean` and `variance` otherwise. What
        a library's own layer does by default is given by name, here and to the other norms:
        ``**conventions("torch", "batch_norm")`` (`isometry.common.laws.normalization`).

        Parameters
        ----------
        x : array
            Any rank of at least 1 with the channels on `axis`; float32 or float64.
        scale, shift, mean, variance : array (channels,)
        training : bool
        eps : float
            Added to the variance, inside the square root; greater than 0.
        momentum : float
            Between 0 and 1. ``running = momentum * running + (1 - momentum) * batch`` if
            `momentum_weights` is "running" (Keras, Flax, MXNet), and with the weights exchanged if
            it is "batch" (PyTorch).
        running_variance : {"biased", "unbiased"}
            Which batch variance enters the running one: sum/n (Keras, Flax, MXNet) or sum/(n-1)
            (PyTorch). The output always uses the biased one.

        Returns
        -------
        y : array of x's shape
        mean, variance : array (channels,)
            The new running statistics, through which no gradient flows; as given if not training.

        Notes
        -----
        Stable: a constant near the mean is subtracted first, which changes nothing in exact
        arithmetic, so that in float32 y is within 1e-5 of the exact result for the given x up to
        mean/std = 1e6 (in float64 as many ULP, 1.9e-14), where E[x**2] - E[x]**2 and the plain
        two-pass form fail. The batch mean that enters the running one is then, from mean/std = 1e3
        on, within 1 ULP. Differentiable in x, scale and shift:
        ``dx = scale / sqrt(v + eps) (dy - mean(dy) - z mean(dy z))`` in training, with z the
        normalized x.

        Raises
        ------
        InvalidArgument
            On mismatched shapes, or one value per channel in training.
        """
        return composed.batch_norm(
            self,
            x,
            scale,
            shift,
            mean,
            variance,
            training=training,
            axis=axis,
            eps=eps,
            momentum=momentum,
            momentum_weights=momentum_weights,
            running_variance=running_variance,
        )

    def layer_norm(
        self, x: Array, scale: Array, shift: Array, /, *, axis: int = -1, eps: float = 1e-5
    ) -> Array:
        """Layer normalization (Ba, Kiros and Hinton 2016, eq. 3 and 4).

        ``y = (x - m) / sqrt(v + eps) * scale + shift`` with m and v the mean and biased variance
        over the axes from `axis` to the last, example by example, in training and inference alike.

        Parameters
        ----------
        x : array, float32 or float64
        scale, shift : array of shape ``x.shape[axis:]``

        Notes
        -----
        Stable as `batch_norm`: within 1e-5 of the exact result up to mean/std = 1e6
        in float32. Differentiable in all three arrays.
        """
        return composed.layer_norm(self, x, scale, shift, axis=axis, eps=eps)

    def group_norm(
        self,
        x: Array,
        scale: Array,
        shift: Array,
        /,
        *,
        groups: int,
        axis: int = 1,
        eps: float = 1e-5,
    ) -> Array:
        """Group normalization (Wu and He 2018, eq. 1, 2 and 7).

        ``y = (x - m) / sqrt(v + eps) * scale + shift`` with m and v the mean and biased variance
        of each example over each group of ``channels / groups`` neighbouring channels and all
        other axes. One group is layer norm over all axes but the first, `channels` groups are
        instance norm; both with one scale and shift for each channel.

        Parameters
        ----------
        x : array
            (examples, channels, ...), or with the channels on another `axis` than the first;
            float32 or float64.
        scale, shift : array (channels,)
            MXNet 1.9's own layer has one for each group instead.
        groups : int
            Divides the channels.
        eps : float
            Inside the square root; greater than 0.

        Notes
        -----
        Stable as `batch_norm`: within 1e-5 of the exact result up to mean/std = 1e6 in float32. A
        group of one value, or of equal values, gives its shift. Differentiable in all three
        arrays: ``dx = (s - mean(s) - z mean(s z)) / sqrt(v + eps)`` with ``s = dy scale``.

        Raises
        ------
        InvalidArgument
            If `groups` does not divide the channels, or shapes do not match.
        """
        return composed.group_norm(self, x, scale, shift, groups=groups, axis=axis, eps=eps)

    def instance_norm(
        self, x: Array, scale: Array, shift: Array, /, *, axis: int = 1, eps: float = 1e-5
    ) -> Array:
        """Instance normalization (Ulyanov, Vedaldi and Lempitsky 2016).

        `group_norm` with a group for each channel: m and v over all axes but the first and the
        channels', example by example, in training and inference alike. An instance of one value,
        which PyTorch refuses, gives its shift.

        Parameters
        ----------
        x : array
            As in `group_norm`.
        scale, shift : array (channels,)
        """
        return composed.instance_norm(self, x, scale, shift, axis=axis, eps=eps)

    def rms_norm(self, x: Array, scale: Array, /, *, axis: int = -1, eps: float = 1e-6) -> Array:
        """Root mean square layer normalization (Zhang and Sennrich 2019, eq. 4).

        ``y = x / sqrt(mean(x**2) + eps) * scale`` over the axes from `axis` to the last. The paper
        has no eps and its authors' code adds it outside the root; PyTorch, Keras and Flax have it
        inside, as here.

        Parameters
        ----------
        x : array, float32 or float64
        scale : array of shape ``x.shape[axis:]``
        eps : float
            Greater than 0.

        Notes
        -----
        Nothing cancels: within 1e-5 of the exact result in float32 wherever x**2 does not
        overflow, 1.9e-14 in float64, for outputs of size 1. Zeros give zeros. Differentiable in
        both arrays: ``dx = (s - y' mean(s y')) / sqrt(mean(x**2) + eps)`` with ``s = dy scale``
        and y' the output before its scale.
        """
        return composed.rms_norm(self, x, scale, axis=axis, eps=eps)

    # --- normalization of weights -------------------------------------------------------------
    # `axis` is that of the outputs: 0 in the layout out_in, -1 in in_out

    def weight_norm(self, v: Array, g: Array, /, *, axis: int = 0) -> Array:
        """Weight normalization (Salimans and Kingma 2016, eq. 2).

        ``w = g v / ||v||``, output by output, with the Euclidean norm over all other axes.

        Parameters
        ----------
        v : array
            At least 2 dimensions; float32 or float64.
        g : array (outputs,)

        Notes
        -----
        Within ``(n + 8) eps |w|`` for n inputs of an output, whatever the size of v, whose squares
        neither overflow nor vanish. Where ||v|| = 0 it is taken for 1: w is 0, not NaN, and v can
        leave 0. Differentiable in both arrays (eq. 3): ``dg = sum(dw v) / ||v||``,
        ``dv = g / ||v|| (dw - dg v / ||v||)``.
        """
        return composed.weight_norm(self, v, g, axis=axis)

    def weight_standardization(
        self, weight: Array, /, *, axis: int = 0, eps: float = 1e-5
    ) -> Array:
        """Weight standardization (Qiao et al. 2019).

        ``(w - m) / sqrt(v + eps)`` with m and v the mean and biased variance over the inputs of
        each output. The authors' code for PyTorch takes the unbiased variance and adds eps outside
        the root; mind that a weight of fan_in inputs often varies by 1 / fan_in, not far from eps.

        Parameters
        ----------
        weight : array
            At least 2 dimensions; float32 or float64.
        eps : float
            Greater than 0.

        Notes
        -----
        Stable as `layer_norm`. An output of one input, or of equal ones, gives 0. Differentiable.
        """
        return composed.weight_standardization(self, weight, axis=axis, eps=eps)

    def spectral_norm(
        self, weight: Array, u: Array, /, *, iterations: int, axis: int = 0
    ) -> tuple[Array, Array, Array, Array]:
        """Spectral normalization (Miyato et al. 2018, algorithm 1).

        With W the weight as a matrix (outputs, inputs), `iterations` times ``v = W^T u / ||W^T u||,
        u = W v / ||W v||``, then ``sigma = u^T W v`` and the weight over sigma.

        Parameters
        ----------
        weight : array
            At least 2 dimensions; float32 or float64.
        u : array (outputs,)
            Start, such as ``stream.normal((outputs,))`` or the u of the last call; its length does
            not matter.
        iterations : int
            At least 1.

        Returns
        -------
        weight : array of the weight's shape
        u : array (outputs,)
        v : array (inputs,)
            The unit vectors, through which no gradient flows.
        sigma : array ()
            Estimate of the largest singular value.

        Notes
        -----
        sigma is ``||W v||`` of a unit vector, a lower bound of sigma_1: the normalized weight
        stretches by at least 1. After k iterations the tangent of the angle between u and the
        first singular vector u_1 is at most ``(sigma_2 / sigma_1)**(2 k)`` times its first value t,
        and ``1 - (sigma / sigma_1)**2 <= t**2 (sigma_2 / sigma_1)**(4 k - 2)`` (Golub and Van Loan
        2013, section 8.2.1): where sigma_2 is near sigma_1 one iteration is far from enough, and a
        u at right angles to u_1 stays so.

        Differentiable in the weight (section 2.3): ``dW = (G - sum(G W) / sigma u v^T) / sigma``
        for the gradient G of the normalized weight. An estimate of 0 is taken for 1: zeros stay
        zeros, v is then 0, and u is kept as given. Nothing overflows before sigma does. Errors are
        the running error of these products (`isometry.common.statistics.running_error`).
        """
        return composed.spectral_norm(self, weight, u, iterations=iterations, axis=axis)

    # --- whitening ----------------------------------------------------------------------------

    def network_deconvolution(
        self, x: Array, /, *, iterations: int, eps: float = 1e-5
    ) -> tuple[Array, Array, Array, Array]:
        """Whiten the inputs of a layer, as network deconvolution does (Ye et al. 2020).

        ``y = (x - m) D`` with m the mean over the samples, ``C = (x - m)^T (x - m) / samples + eps
        I`` and D near ``C**-1/2`` after `iterations` of the coupled Newton-Schulz iteration (Higham
        2008, Functions of Matrices, chapter 6): from ``Y = C / ||C||``, ``Z = I`` (Frobenius norm),
        ``T = (3 I - Z Y) / 2, Y <- Y T, Z <- T Z``, at last ``D = Z / sqrt(||C||)``.

        Parameters
        ----------
        x : array (samples, features)
            float32 or float64. Samples of a convolution are the patches that its kernel sees:
            ``nx.ops.conv`` with the rows of an identity matrix as kernels gathers them.
        iterations : int
            At least 1; each costs three products of (features, features).
        eps : float
            At least 0.

        Returns
        -------
        y : array of x's shape
        mean : array (features,)
        D : array (features, features)
            For inference, by ``(x - mean) D`` or folded into the layer, ``W D`` and
            ``b - W D mean``; averaged over batches as the user likes.
        deviation : array ()
            ``||D C D - I||``, Frobenius, through which no gradient flows: how far it is from white.

        Notes
        -----
        Five iterations do not whiten small directions. One of the eigenvalue ``a ||C||`` gets the
        variance ``a z**2`` instead of 1, with z <- z (3 - a z**2) / 2 from 1: after five 0.995 at
        a = 0.1, 0.43 at 0.01, 0.056 at 0.001, and 0.0057 at 0.0001. It takes about
        ``log(1 / a) / log(9 / 4)`` iterations, and a few. The deviation tells.

        Differentiable in x. Errors are the running error of the formula
        (`isometry.common.statistics.running_error`). Rank-deficient data are finite for any number
        of iterations, in value and gradient, with eps 0 too: a step that leads Z Y away from I is
        not taken, nor one after 19 in float32 and 44 in float64, when directions whose variance is
        rounding would be amplified. What D does with those is left open, y has almost none there,
        and each adds about 1 to ``deviation**2``. One sample gives y = 0.

        Raises
        ------
        InvalidArgument
            If eps is 0 and there are not more samples than features.
        """
        return composed.network_deconvolution(self, x, iterations=iterations, eps=eps)

    # --- differentiation ----------------------------------------------------------------------
    # "Parameters" are one array or a flat dictionary path -> array; gradients have the same form,
    # each in memory of its own, and every derivative has the dtype of x.

    @abc.abstractmethod
    def value_and_gradient(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Any]]:
        """Return ``g(parameters, *args) -> (value, gradient)`` of ``f(parameters, *args)``.

        f returns a scalar array; it is differentiated in its first argument by reverse mode. What
        f returns is checked by ``checks.scalar_valued(self, f)``, which raises `InvalidArgument`.
        """

    def vjp(self, f: Callable[[Array], Array], x: Array, /) -> tuple[Array, Callable[..., Array]]:
        """Return ``f(x)`` and the function v -> v^T J, with J the Jacobian of f at x.

        v has the shape of f(x); the function may be called any number of times. By default each
        call is the gradient of ``sum(f(x) v)``.
        """
        return composed.vjp(self, f, x)

    def jvp(self, f: Callable[[Array], Array], x: Array, tangent: Array, /) -> tuple[Array, Array]:
        """Return ``f(x)`` and J tangent. Needs the capability "jvp"."""
        raise self.unsupported("jvp")

    def hvp(self, f: Callable[[Array], Array], x: Array, vector: Array, /) -> Array:
        """Return the Hessian of the scalar function f at x times vector. Needs "hvp"."""
        raise self.unsupported("hvp")

    def hessian(self, f: Callable[[Any], Array], parameters: Any, /) -> Callable[[Any], Any]:
        """Return v -> H v, H being the Hessian of the scalar function f. Needs "hvp".

        v and H v have the form of the parameters, and no array of H v shares its memory with
        another. For many products at one point: a framework that keeps the gradient's graph runs f
        once. By default each call is `hvp`, of a dictionary's arrays joined, which must then be of
        one dtype. A v of other paths raises `InvalidArgument`.
        """
        return composed.hessian(self, f, parameters)

    def compile(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        """Return f compiled by the framework (`jax.jit`, `tf.function`, `hybridize`).

        f takes arrays, flat dictionaries of arrays, and at most one native stream, positionally,
        and returns an array or a tuple of arrays. It may use every deterministic operation of the
        contract, `nx.ops`, and draws from the stream passed in, which moves on: draws have the law
        of eager ones and depend on the seed alone, and in most frameworks have their bits (MXNet
        seeds a graph as a whole, so from its second draw on they are others). A portable stream
        draws in NumPy and therefore outside: ``checks.compilable(args)`` refuses it. Splitting a
        stream inside raises ``streams.cannot_split()``. Differentiate outside,
        ``nx.value_and_gradient(nx.compile(f))``; where the backend has the capability "hvp", f may
        also take gradients and Hessian-vector products itself. A backend without the capability
        "compiled" returns f itself.
        """
        return f

    # --- updates ------------------------------------------------------------------------------
    # What optimizers are made of: x, y and z of one shape and dtype, float32 or float64; a is a
    # number of Python's, or an array of that dtype and a shape that broadcasts to theirs. Names
    # are those of BLAS and PyTorch.

    def donating(self) -> Backend:
        """Return this backend with updates that may overwrite their first argument, x.

        Who calls them gives x up: large arrays then need no new memory, which takes longer to get
        than to fill. So may functions that it compiles, whose first argument is a dictionary:
        arrays that are not `mutable` are given up there alone (``donate_argnums`` of `jax.jit`).
        """
        other = copy.copy(self)
        other.overwrites = True
        return other

    def scaled(self, x: Array, a: Any, /) -> Array:
        """Return ``a x``."""
        if not self.overwrites:
            return x * a
        x *= a
        return x

    def axpy(self, x: Array, a: Any, y: Array, /) -> Array:
        """Return ``x + a y``, within 2 ULP of ``|x| + |a y|``."""
        return self._plus(x, y * a)

    def addcmul(self, x: Array, a: Any, y: Array, z: Array, /) -> Array:
        """Return ``x + a y z``, within 3 ULP of ``|x| + |a y z|``."""
        return self._plus(x, self.scaled(y * z, a))

    def addcdiv(self, x: Array, a: Any, y: Array, z: Array, /) -> Array:
        """Return ``x + a y / z``, within 3 ULP of ``|x| + |a y / z|``."""
        return self._plus(x, self.scaled(y / z, a))

    def all_finite(self, x: Array, /) -> bool:
        """Return whether no entry is infinite or NaN; of an array that the framework holds."""
        if 0 in self.shape_of(x):  # of which not every framework knows the sum
            return True
        with self.scope():
            # one sum where they are: it is finite unless an entry is not, or it overflows
            if abs(float(self.to_numpy(self.ops.sum(x)))) < math.inf:
                return True
            return bool(self.to_numpy(self.ops.all(self.ops.isfinite(x))))

    def _plus(self, x: Array, y: Array) -> Array:
        if not self.overwrites:
            return x + y
        x += y
        return x

    def unsupported(self, capability: str) -> Unsupported:
        """Return the error for a capability that this backend does not declare."""
        declared = ", ".join(sorted(self.capabilities)) or "none"
        return Unsupported(
            f"backend {self.name!r} does not support {capability!r} "
            f"({CAPABILITIES[capability]}); it declares: {declared}"
        )
