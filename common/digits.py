"""The 8x8 handwritten digits that ship with scikit-learn: real data without a download."""

from __future__ import annotations

import numpy as np

__all__ = ["digits"]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 64), float32 in [0, 1], and labels (1797,), int64 in 0..9.

    Pixels are the data set's integers 0..16 divided by 16, exactly. Source: the test set of the
    UCI Optical Recognition of Handwritten Digits data (Alpaydin and Kaynak 1998).
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels.astype(np.int64)
