"""Checks see an adapter's arguments by the names of the contract."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument


class OtherNames(NumpyBackend):
    """An adapter whose methods do not have the contract's signatures."""

    def sigmoid(self, z, /):
        return super().sigmoid(z)

    def chain_product(self, *arrays, **options):
        return super().chain_product(*arrays, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda nx: nx.sigmoid(np.ones(2)), r"^OtherNames.sigmoid\(self, z, /\) lacks .* 'x' of"),
        (
            lambda nx: nx.chain_product(np.ones((1, 2, 2)), np.ones((3, 1, 2, 2))),
            r"^OtherNames.chain_product\(self, \*arrays, \*\*options\) lacks .* 'product' of",
        ),
    ],
)
def test_a_wrong_signature_gives_a_clear_error(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call(OtherNames())
