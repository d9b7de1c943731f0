"""Hessian times vector of any loss over a flat dictionary of parameters, on every backend.

Where the backend declares "hvp" it is exact: forward over reverse, or a double backward, of
`Backend.hessian`. Where it cannot, it is a central difference of gradients in float64,

``(g(w + h v) - g(w - h v)) / (2 h)``, ``h = eps**(1/3) (1 + ||w||) / ||v||``,

off by ``h**2 / 6`` times the third derivative of g along v and by the rounding of g over h, as
`product_error` says (steps of this form: Knoll and Keyes 2004, J. Comput. Phys. 193, section 2.1).
`method` tells which, and what is reported names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.composed import Shapes, shapes_of, unflatten
from isometry.common.errors import InvalidArgument
from isometry.common.statistics.rounding import gamma

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = [
    "DIFFERENCE",
    "EXACT",
    "HessianProduct",
    "Shapes",
    "flat_gradient",
    "flatten",
    "hessian_vector_product",
    "method",
    "product_error",
    "shapes_of",
    "unflatten",
]

Array = Any
Arrays = Mapping[str, Array]
EXACT = "automatic differentiation"
DIFFERENCE = "central difference of gradients"
STEP = float(np.cbrt(np.finfo(np.float64).eps))  # truncation and rounding are then of one size


def method(nx: Backend) -> str:
    """Return how this backend multiplies by a Hessian: `EXACT` or `DIFFERENCE`."""
    return EXACT if "hvp" in nx.capabilities else DIFFERENCE


def hessian_vector_product(
    nx: Backend, loss: Callable[..., Array], parameters: Arrays, vector: Arrays, *data: Array
) -> dict[str, Array]:
    """Return the Hessian of ``loss(parameters, *data)`` in its parameters, times a vector.

    For many products take `HessianProduct`, which compiles once.

    Parameters
    ----------
    loss : callable
        Returns a scalar array.
    parameters, vector : mapping of str to array
        Of the same paths and shapes; float64 where the method is `DIFFERENCE`.

    Raises
    ------
    InvalidArgument
        If the paths differ, or a difference would be taken in less than float64.
    """
    return HessianProduct(nx, loss)(parameters, vector, *data)


class HessianProduct:
    """``product(parameters, vector, *data) -> dict``, compiled once where the backend compiles.

    Parameters
    ----------
    loss : callable
        ``loss(parameters, *data)``, a scalar array.
    """

    def __init__(self, nx: Backend, loss: Callable[..., Array]) -> None:
        self.nx, self.loss = nx, loss
        self._multiply = _exact(nx, loss) if method(nx) == EXACT else _difference(nx, loss)

    def __call__(self, parameters: Arrays, vector: Arrays, *data: Array) -> dict[str, Array]:
        """Return H v; raises `InvalidArgument` where the vector has other paths."""
        checks.same_paths(parameters, vector)
        return self._multiply(parameters, vector, *data)

    def at(self, parameters: Arrays, *data: Array) -> Callable[[np.ndarray], np.ndarray]:
        """Return ``apply(v) -> H v`` over flat NumPy vectors, in float64 and `flatten`'s order.

        For many products at one point, as :mod:`isometry.common.laws.krylov` takes them: a backend
        that does not compile differentiates once, with `Backend.hessian`.
        """
        nx, shapes = self.nx, shapes_of(self.nx, parameters)
        if method(nx) == EXACT and "compiled" not in nx.capabilities:
            product = nx.hessian(lambda w: self.loss(w, *data), dict(parameters))
        else:

            def product(vector: Arrays) -> dict[str, Array]:
                return self(parameters, vector, *data)

        def apply(v: np.ndarray) -> np.ndarray:
            with nx.scope():
                vector = unflatten(nx, nx.asarray(np.asarray(v, dtype=np.float64)), shapes)
                return flatten(nx, product(vector))

        return apply


def product_error(nx: Backend, size: float, roundings: int, length: float) -> float:
    """Return a bound of ``||error of H v|| / ||v||`` in float64, to first order in eps.

    Parameters
    ----------
    size : float
        Bounds the derivatives of the loss of order 1 to 4 along unit vectors, each as the sum of
        the absolute values of its terms.
    roundings : int
        Of one term, at most: what is added up and multiplied on its way.
    length : float
        ``||w||`` of the parameters.
    """
    rounded = gamma(roundings, "float64") * size
    if method(nx) == EXACT:
        return rounded
    h = STEP * (1 + length)
    return h**2 / 6 * size + rounded / h


def flat_gradient(
    nx: Backend, loss: Callable[..., Array], shapes: Shapes
) -> Callable[..., tuple[Array, Array]]:
    """Return ``evaluate(flat, *data) -> (value, gradient)`` over one array of the backend.

    It is compiled as a whole where the backend differentiates inside of what it compiles, as those
    with second derivatives do; elsewhere the compiled loss is differentiated.
    """

    def flat_loss(flat: Array, *data: Array) -> Array:
        return loss(unflatten(nx, flat, shapes), *data)

    if method(nx) == EXACT:
        compiled: Callable[..., tuple[Array, Array]] = nx.compile(nx.value_and_gradient(flat_loss))
        return compiled
    return nx.value_and_gradient(nx.compile(flat_loss))


def flatten(nx: Backend, arrays: Arrays) -> np.ndarray:
    """Return all entries as one NumPy vector: paths in alphabetical order, each in C order."""
    return np.concatenate([nx.to_numpy(arrays[path]).ravel() for path, _ in shapes_of(nx, arrays)])


def _exact(nx: Backend, loss: Callable[..., Array]) -> Callable[..., dict[str, Array]]:
    """Multiply by `Backend.hessian`."""

    @nx.compile
    def product(parameters: Arrays, vector: Arrays, *data: Array) -> tuple[Array, ...]:
        found = nx.hessian(lambda w: loss(w, *data), parameters)(vector)
        return tuple(found[path] for path in sorted(found))

    def multiply(parameters: Arrays, vector: Arrays, *data: Array) -> dict[str, Array]:
        with nx.scope():
            found = product(dict(parameters), dict(vector), *data)
            return dict(zip(sorted(parameters), found, strict=True))

    return multiply


def _difference(nx: Backend, loss: Callable[..., Array]) -> Callable[..., dict[str, Array]]:
    evaluate = nx.value_and_gradient(nx.compile(loss))

    def multiply(parameters: Arrays, vector: Arrays, *data: Array) -> dict[str, Array]:
        for path, w in parameters.items():
            if nx.dtype_of(w) != "float64":
                raise InvalidArgument(
                    f"backend {nx.name!r} has no second derivatives, and a {DIFFERENCE} needs "
                    f"float64; received {path!r} in {nx.dtype_of(w)}"
                )
        with nx.scope():
            length, size = (_norm(nx, arrays) for arrays in (vector, parameters))
            if length == 0:
                return {path: nx.ops.zeros_like(v) for path, v in vector.items()}
            h = STEP * (1 + size) / length
            up, down = (
                evaluate({path: w + step * vector[path] for path, w in parameters.items()}, *data)[
                    1
                ]
                for step in (h, -h)
            )
            return {path: (up[path] - down[path]) / (2 * h) for path in parameters}

    return multiply


def _norm(nx: Backend, arrays: Arrays) -> float:
    return math.sqrt(sum(float(nx.to_numpy(nx.ops.sum(nx.ops.square(a)))) for a in arrays.values()))
