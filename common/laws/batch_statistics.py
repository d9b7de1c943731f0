r"""What a batch's own mean and variance do to its values: exact laws, for any batch size.

**Standardized values.** For m independent values of one normal law, ``z_1 = (x_1 - mean) / s``
with the biased s: ``z_1**2 / (m - 1) ~ Beta(1/2, (m - 2)/2)`` (Thompson 1935). Whatever the values,
``|z| <= sqrt(m - 1)`` (Samuelson 1968): at m = 2 each becomes +1 or -1.

**Scale of the weights.** Batch norm of ``x (a W)^T`` with eps is that of ``x W^T`` with eps / a**2:
with eps = 0 the output does not depend on a, and the gradient in W goes as 1 / a. In a = 1 the
derivative says how far the gradient of a unit's weights is from orthogonal to them (Euler):
``w . dL/dw = eps / (v + eps) gamma dL/dgamma``, gamma being the unit's scale after it.
"""

from __future__ import annotations

import numpy as np

from isometry.common import checks

__all__ = ["pair", "standardized_cdf"]


def standardized_cdf(z: np.ndarray, batch: int) -> np.ndarray:
    """Return ``P(z_1 <= z)`` in a batch of m >= 3 normal values, eps being 0.

    ``1/2 + sign(z) I(z**2 / (m - 1); 1/2, (m - 2)/2) / 2``, I being the regularized incomplete
    beta function.
    """
    from scipy.special import betainc

    checks.integer("batch", batch, low=3)
    z = np.asarray(z, dtype=np.float64)
    inside = np.minimum(np.square(z) / (batch - 1), 1.0)
    return np.asarray(0.5 + np.sign(z) * betainc(0.5, (batch - 2) / 2, inside) / 2)


def pair(x: np.ndarray, eps: float) -> np.ndarray:
    """Return the standardized values of batches of two: ``+-d / sqrt(d**2 + eps)``, d half apart.

    Parameters
    ----------
    x : array (2, features)
    """
    x = np.asarray(x, dtype=np.float64)
    half = (x[0] - x[1]) / 2
    z = half / np.sqrt(np.square(half) + eps)
    return np.stack([z, -z])
