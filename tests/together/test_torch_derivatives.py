"""Derivatives of PyTorch's adapter beyond the contract: of any order."""

import pytest
import torch

from isometry.backends.torch_backend import TorchBackend

NX = TorchBackend()


@pytest.mark.parametrize("end", [0.4, 3.0], ids=["small", "large"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_four_derivatives_in_a_row(activation: str, end: float) -> None:
    x = torch.linspace(-end, end, 61, dtype=torch.float64, requires_grad=True)
    s = torch.sigmoid(x if activation == "sigmoid" else 2 * x).detach()
    d = s * (1 - s)  # of the sigmoid, whose next ones are
    rows = [d, d * (1 - 2 * s), d * (1 - 6 * d), d * (1 - 2 * s) * (1 - 12 * d)]
    y = getattr(NX, activation)(x)
    for order, row in enumerate(rows, 1):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        exact = row if activation == "sigmoid" else 2 ** (order + 1) * row
        torch.testing.assert_close(y, exact, rtol=1e-12, atol=1e-12)
