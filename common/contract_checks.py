"""The argument checks of the contract's methods: what is wrong with a call, said once for all.

Each sees the backend and the bound arguments of the method of its name before any adapter's code
runs; :mod:`isometry.common.checks` has what they are made of.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["ACTIVATIONS", "CHECKS"]

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu")


def _array(nx: Backend, name: str, value: object) -> None:
    if not nx.is_array(value):
        raise InvalidArgument(
            f"{name} must be an array of backend {nx.name!r}; received "
            f"{type(value).__module__}.{type(value).__qualname__}; convert it with nx.asarray(...)"
        )
    dtype = nx.dtype_of(value)
    if dtype not in nx.dtypes:
        raise InvalidArgument(
            f"{name} must have one of the dtypes {', '.join(nx.dtypes)}; received {dtype}"
        )


def _x(nx: Backend, arguments: dict[str, Any]) -> None:
    _array(nx, "x", arguments["x"])


def _slope(nx: Backend, arguments: dict[str, Any]) -> None:
    _x(nx, arguments)
    checks.finite("slope", arguments["slope"])


def _asarray(nx: Backend, arguments: dict[str, Any]) -> None:
    if arguments["dtype"] is not None:
        checks.choice("dtype", arguments["dtype"], nx.dtypes)
    checks.numbers_only("value", arguments["value"])


def _native_gradient(nx: Backend, arguments: dict[str, Any]) -> None:
    checks.choice("activation", arguments["activation"], ACTIVATIONS)
    _x(nx, arguments)


def _chain_product(nx: Backend, arguments: dict[str, Any]) -> None:
    for name, rank in (("product", 3), ("factors", 4)):
        _array(nx, name, arguments[name])
        shape = nx.shape_of(arguments[name])
        if len(shape) != rank or shape[-1] != shape[-2]:
            wanted = "(batch, n, n)" if rank == 3 else "(steps, batch, n, n)"
            raise InvalidArgument(f"{name} must have shape {wanted}; received {shape}")
    product, factors = nx.shape_of(arguments["product"]), nx.shape_of(arguments["factors"])
    if product != factors[1:]:
        raise InvalidArgument(
            f"each factor must have the product's shape {product}; received factors of {factors}"
        )
    dtypes = nx.dtype_of(arguments["product"]), nx.dtype_of(arguments["factors"])
    if dtypes[0] != dtypes[1]:
        raise InvalidArgument(
            f"factors must have the dtype {dtypes[0]} of product; received {dtypes[1]}"
        )


# --- normalization ------------------------------------------------------------------------------


def _eps(eps: object) -> None:
    checks.finite("eps", eps, low=0.0, open_low=True)


def _sizes(nx: Backend, arguments: dict[str, Any], name: str, rank: int = 1) -> tuple[int, ...]:
    """Return the shape of an array of at least `rank` axes, none of them empty."""
    _array(nx, name, arguments[name])
    shape = checks.shape(name, nx.shape_of(arguments[name]), low=1)
    if len(shape) < rank:
        raise InvalidArgument(f"{name} must have at least {rank} dimensions; received {shape}")
    return shape


def _like(
    nx: Backend, shape: tuple[int, ...], arguments: dict[str, Any], *names: str, of: str = "x"
) -> None:
    whole = arguments[of]
    for name in names:
        _array(nx, name, arguments[name])
        received = nx.shape_of(arguments[name])
        if received != shape:
            which = "normalized axes" if of == "x" else "output axis"
            raise InvalidArgument(
                f"{name} must have the shape {shape} of the {which} of {of} "
                f"{nx.shape_of(whole)}; received {received}"
            )
        dtypes = nx.dtype_of(whole), nx.dtype_of(arguments[name])
        if dtypes[0] != dtypes[1]:
            raise InvalidArgument(
                f"{name} must have the dtype {dtypes[0]} of {of}; received {dtypes[1]}"
            )


def _batch_norm(nx: Backend, arguments: dict[str, Any]) -> None:
    _x(nx, arguments)
    shape = nx.shape_of(arguments["x"])
    axis = checks.axis("axis", arguments["axis"], len(shape))
    checks.shape("x", shape, low=1)
    _like(nx, (shape[axis],), arguments, "scale", "shift", "mean", "variance")
    _eps(arguments["eps"])
    momentum = checks.finite("momentum", arguments["momentum"], low=0.0)
    if momentum > 1:
        raise InvalidArgument(f"momentum must be between 0 and 1; received {momentum:g}")
    checks.choice("momentum_weights", arguments["momentum_weights"], ("running", "batch"))
    checks.choice("running_variance", arguments["running_variance"], ("biased", "unbiased"))
    if arguments["training"] and math.prod(shape) == shape[axis]:
        raise InvalidArgument(
            f"batch norm in training needs at least 2 values per channel; received x of shape "
            f"{shape} with channel axis {axis}, that is 1; use a larger batch, or training=False"
        )


def _layer_norm(nx: Backend, arguments: dict[str, Any]) -> None:
    _x(nx, arguments)
    shape = nx.shape_of(arguments["x"])
    axis = checks.axis("axis", arguments["axis"], len(shape))
    checks.shape("x", shape, low=1)
    _like(nx, shape[axis:], arguments, *(k for k in ("scale", "shift") if k in arguments))
    _eps(arguments["eps"])


def _channels(nx: Backend, arguments: dict[str, Any]) -> tuple[tuple[int, ...], int]:
    """Return the shape of x, (examples, ...), and its axis of channels."""
    shape = _sizes(nx, arguments, "x", rank=2)
    axis = checks.axis("axis", arguments["axis"], len(shape))
    if axis == 0:
        raise InvalidArgument(
            f"axis must not be 0, the axis of the examples; received {arguments['axis']} for x of "
            f"shape {shape}; give the axis of the channels"
        )
    _like(nx, (shape[axis],), arguments, "scale", "shift")
    _eps(arguments["eps"])
    return shape, axis


def _instance_norm(nx: Backend, arguments: dict[str, Any]) -> None:
    _channels(nx, arguments)


def _group_norm(nx: Backend, arguments: dict[str, Any]) -> None:
    shape, axis = _channels(nx, arguments)
    groups = checks.integer("groups", arguments["groups"], low=1)
    if shape[axis] % groups:
        divisors = ", ".join(str(k) for k in range(1, shape[axis] + 1) if shape[axis] % k == 0)
        raise InvalidArgument(
            f"groups must divide the {shape[axis]} channels of x {shape} on axis {axis}; "
            f"received {groups}; use one of {divisors}"
        )


def _outputs(nx: Backend, arguments: dict[str, Any], name: str) -> tuple[int]:
    """Return the number of outputs of a weight, as a shape."""
    shape = _sizes(nx, arguments, name, rank=2)
    return (shape[checks.axis("axis", arguments["axis"], len(shape))],)


def _weight_norm(nx: Backend, arguments: dict[str, Any]) -> None:
    _like(nx, _outputs(nx, arguments, "v"), arguments, "g", of="v")


def _weight_standardization(nx: Backend, arguments: dict[str, Any]) -> None:
    _outputs(nx, arguments, "weight")
    _eps(arguments["eps"])


def _spectral_norm(nx: Backend, arguments: dict[str, Any]) -> None:
    _like(nx, _outputs(nx, arguments, "weight"), arguments, "u", of="weight")
    checks.integer("iterations", arguments["iterations"], low=1)


def _network_deconvolution(nx: Backend, arguments: dict[str, Any]) -> None:
    _array(nx, "x", arguments["x"])
    shape = checks.shape("x", nx.shape_of(arguments["x"]), low=1, rank=2)
    checks.integer("iterations", arguments["iterations"], low=1)
    if checks.finite("eps", arguments["eps"], low=0.0) == 0 and shape[0] <= shape[1]:
        raise InvalidArgument(
            f"eps 0 needs more samples than features, as the covariance is singular; received x "
            f"of shape {shape}; use more samples, or eps > 0"
        )


# --- functions ----------------------------------------------------------------------------------


def _function(nx: Backend, arguments: dict[str, Any]) -> None:
    f = arguments["f"]
    if not callable(f):
        raise InvalidArgument(f"f must be a function; received {f!r} of type {type(f).__name__}")


CHECKS: dict[str, checks.Check] = {
    "asarray": _asarray,
    "adopt": _asarray,
    "sigmoid": _x,
    "sigmoid_gradient": _x,
    "tanh": _x,
    "tanh_gradient": _x,
    "relu": _x,
    "relu_gradient": _x,
    "leaky_relu": _slope,
    "leaky_relu_gradient": _slope,
    "native_gradient": _native_gradient,
    "chain_product": _chain_product,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "weight_norm": _weight_norm,
    "weight_standardization": _weight_standardization,
    "spectral_norm": _spectral_norm,
    "network_deconvolution": _network_deconvolution,
    "value_and_gradient": _function,
    "vjp": _function,
    "jvp": _function,
    "hvp": _function,
    "hessian": _function,
    "compile": _function,
}
"""Method -> its check."""
