"""Newton's method, and L-BFGS: for problems small enough to hold a Hessian, or past steps.

Both work on a loss over a flat dictionary of parameters in float64, on any backend: Newton's by
Hessian-vector products (`isometry.common.networks.curvature`), L-BFGS by SciPy's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.networks import curvature
from isometry.common.networks.gradients import compiled_gradient

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["hessian", "lbfgs", "newton_step"]

Array = Any
Arrays = Mapping[str, Array]
Loss = Callable[..., Array]
MOST = 2000  # parameters: a Hessian of 32 MB


def hessian(nx: Backend, loss: Loss, parameters: Arrays, *data: Array) -> np.ndarray:
    """Return the Hessian of ``loss(parameters, *data)``, (n, n) in float64, column by column.

    The order is that of `curvature.flatten`. Raises `InvalidArgument` for more than 2000
    parameters, or for dtypes below float64.
    """
    _float64(nx, parameters)
    size = curvature.flatten(nx, parameters).size
    if size > MOST:
        raise InvalidArgument(
            f"a whole Hessian is formed for at most {MOST} parameters; received {size}; use "
            "Hessian-vector products, or L-BFGS"
        )
    apply = _derivatives(nx, loss)[1].at(parameters, *data)
    found = np.stack([apply(unit) for unit in np.eye(size)], axis=1)
    return np.asarray((found + found.T) / 2)


def newton_step(
    nx: Backend, loss: Loss, parameters: Arrays, *data: Array, damping: float = 0.0
) -> dict[str, Array]:
    """Return the parameters after a damped step of Newton: ``w - (H + damping I)**-1 g``.

    Undamped it goes to where the gradient of the local quadratic is 0, be that a minimum, a maximum
    or a saddle. Levenberg 1944 and Marquardt 1963 for the damping; at ``damping > -lambda_min`` the
    step goes down.

    Parameters
    ----------
    loss : callable
        ``loss(parameters, *data)``, a scalar array. It is compiled once: give the same function at
        every step, and what changes as data.
    parameters : mapping of str to array
        In float64, at most 2000 entries.
    damping : float
        Added to each eigenvalue of the Hessian, at least 0.

    Raises
    ------
    InvalidArgument
        If the damped Hessian is singular, in float64, or there are too many parameters.
    """
    checks.finite("damping", damping, low=0.0)
    H = hessian(nx, loss, parameters, *data)
    with nx.scope():
        slopes = _derivatives(nx, loss)[0](dict(parameters), *data)[1]
        g = curvature.flatten(nx, slopes)
        H = H + damping * np.eye(g.size)
        if not np.isfinite(H).all() or 1 / np.linalg.cond(H) < np.finfo(np.float64).eps:
            raise InvalidArgument(
                f"the Hessian plus damping {damping:g} is singular: Newton's step is not defined; "
                "give a larger damping"
            )
        flat = curvature.flatten(nx, parameters) - np.linalg.solve(H, g)
        return curvature.unflatten(nx, nx.asarray(flat), curvature.shapes_of(nx, parameters))


def lbfgs(
    nx: Backend, loss: Loss, parameters: Arrays, *data: Array, steps: int = 100, memory: int = 10
) -> tuple[dict[str, Array], list[float]]:
    """Minimize by L-BFGS (Liu and Nocedal 1989), SciPy's implementation and line search.

    Parameters
    ----------
    parameters : mapping of str to array
        In float64.
    steps : int
        Iterations, at most.
    memory : int
        Pairs of steps and gradients that stand for the Hessian.

    Returns
    -------
    parameters : dict of str to array
    losses : list of float
        Before the first iteration and after each.
    """
    from scipy.optimize import minimize

    checks.integer("steps", steps, low=1)
    checks.integer("memory", memory, low=1)
    _float64(nx, parameters)
    shapes = curvature.shapes_of(nx, parameters)
    evaluate = nx.value_and_gradient(loss)

    def flat(x: np.ndarray) -> tuple[float, np.ndarray]:
        with nx.scope():
            value, slopes = evaluate(curvature.unflatten(nx, nx.asarray(x), shapes), *data)
            return float(nx.to_numpy(value)), curvature.flatten(nx, slopes)

    start = curvature.flatten(nx, parameters)
    losses = [flat(start)[0]]
    found = minimize(
        flat,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps, "maxcor": memory, "ftol": 0.0, "gtol": 0.0},
        callback=lambda intermediate_result: losses.append(float(intermediate_result.fun)),
    )
    with nx.scope():
        return curvature.unflatten(nx, nx.asarray(found.x), shapes), losses


@functools.lru_cache(maxsize=16)
def _derivatives(
    nx: Backend, loss: Loss
) -> tuple[Callable[..., tuple[Array, dict[str, Array]]], curvature.HessianProduct]:
    """Return gradient and Hessian product of a loss: compiled once, however many steps follow."""
    return compiled_gradient(nx, loss), curvature.HessianProduct(nx, loss)


def _float64(nx: Backend, parameters: Arrays) -> None:
    if not parameters:
        raise InvalidArgument("there are no parameters; give at least one")
    for path, w in parameters.items():
        if nx.dtype_of(w) != "float64":
            raise InvalidArgument(
                f"second-order steps are taken in float64; received {path!r} in {nx.dtype_of(w)}"
            )
