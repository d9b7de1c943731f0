"""The Hessian of a net at the start that Fixup gives it: exact, and the same at any depth.

The net is :class:`isometry.common.networks.residual.Residual` with Fixup: W_2 = C = 0. Then h = h_0
= W x in every block, the output is 0, every class has the probability 1 / n_out, and of all second
derivatives of the mean cross-entropy those are left that pass through C. With ``e_i`` the
probabilities less the label of example i, ``S = (I - 1 1^T / n_out) / n_out`` and ``a_li`` what W_2
of block l multiplies, the product with a change (C', c', W_2', W') of the parameters is

- C: ``mean_i S (C' h_i + c') h_i^T + e_i h_i'^T``, ``h_i' = W' x_i + sum_l W_2l' a_li``;
- c: ``mean_i S (C' h_i + c')``;
- W_2l: ``C'^T mean_i e_i a_li^T``, W: ``C'^T mean_i e_i x_i^T``; all others 0.

So ``H = [[A, B], [B^T, 0]]`` with A that of softmax regression on h_0 and ``B B^T = K (x) I``,

``K = E_x E_x^T + sum_l E_l E_l^T``, ``E_l = mean_i e_i a_li^T``,

which commutes with S: the sharpness is the largest over K's eigenpairs of that of a matrix of
2 n + 1 rows (`sharpness`). With W_1 of variance ``2 / (n B)``, Fixup's,

``E K = E_x E_x^T + mean_ij e_i e_j^T |h_i| |h_j| K(rho_ij)`` (the arc-cosine kernel)

has no B in it. Without the factor ``B**(-1/2)`` of Fixup's the second term is B times that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isometry.common.laws.arc_cosine import correlation

__all__ = ["FixupStart"]


@dataclass(frozen=True, eq=False)
class FixupStart:
    """A net at its start, as far as its Hessian depends on it.

    Attributes
    ----------
    x : numpy.ndarray (N, n_in)
    signal : numpy.ndarray (N, n)
        h_0.
    hidden : numpy.ndarray (B, N, n)
        The a_li.
    targets : numpy.ndarray (N, n_out)
        One-hot labels.
    """

    x: np.ndarray
    signal: np.ndarray
    hidden: np.ndarray
    targets: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """The e_i (N, n_out)."""
        return np.asarray(1 / self.targets.shape[1] - self.targets)

    def product(self, v: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the Hessian times v, by the paths and shapes of the network's parameters."""
        count, classes = self.targets.shape
        e, outer = self.errors, v["output/weight"][0]
        logits = self.signal @ outer.T + v["output/bias"][0]
        pushed = (logits - logits.mean(axis=1, keepdims=True)) / classes
        moved = self.x @ v["input/weight"][0].T
        moved = moved + np.einsum("lij,lkj->ik", self.hidden, v["blocks/weight2"])
        found = {path: np.zeros_like(a) for path, a in v.items()}
        found["output/weight"] = (pushed.T @ self.signal + e.T @ moved)[None] / count
        found["output/bias"] = pushed.sum(axis=0)[None] / count
        found["input/weight"] = (outer.T @ (e.T @ self.x))[None] / count
        found["blocks/weight2"] = np.stack([outer.T @ (e.T @ a) for a in self.hidden]) / count
        return found

    @property
    def reach(self) -> float:
        """Bounds ``|C' h_i + c'|`` and ``||h_i'||`` for a change of norm 1."""
        squares = 1 + np.square(self.signal).sum(axis=1) + np.square(self.x).sum(axis=1)
        return math.sqrt((squares + np.square(self.hidden).sum(axis=(0, 2))).max())

    @property
    def coupling(self) -> float:
        """``sqrt(sum_l ||E_l||**2)``, what the branches couple the classifier to."""
        return math.sqrt(sum(np.square(self.errors.T @ a).sum() for a in self.hidden)) / len(self.x)

    @property
    def kernel(self) -> np.ndarray:
        """The second term of ``E K`` (n_out, n_out), over W_1 as Fixup draws it."""
        lengths = np.linalg.norm(self.signal, axis=1)
        cosines = np.clip(self.signal @ self.signal.T / np.outer(lengths, lengths), -1, 1)
        weighted = self.errors * lengths[:, None]
        return np.asarray(weighted.T @ correlation(cosines) @ weighted) / len(self.x) ** 2

    @property
    def lipschitz(self) -> float:
        """Bounds the change of `coupling` with W_1, all blocks', in Frobenius' norm.

        ``||E_l'|| <= ||W_1l'|| max over masks D of ||mean_i e_i D_i h_i^T||``, and a mask takes
        rows away: at most ``||e|| ||h|| / N`` in spectral norms.
        """
        return float(np.linalg.norm(self.errors, 2) * np.linalg.norm(self.signal, 2) / len(self.x))

    def departure_bound(self, false_alarm: float) -> float:
        """Return b with ``P(|coupling - sqrt(trace kernel)| >= b) <= false_alarm``.

        For a function of Lipschitz constant l of Gaussian entries of deviation s the deviation from
        its mean exceeds ``s l sqrt(2 ln(2 / p))`` with probability at most p, and its variance is
        at most ``(s l)**2`` (Boucheron, Lugosi and Massart 2013, theorems 5.6 and 3.20): its mean
        is below the root of its mean square by at most ``root - sqrt(root**2 - (s l)**2)``.
        """
        blocks, _, n = self.hidden.shape
        scale = math.sqrt(2 / (n * blocks)) * self.lipschitz
        root = math.sqrt(np.trace(self.kernel))
        gap = root - math.sqrt(max(root**2 - scale**2, 0.0))
        return scale * math.sqrt(2 * math.log(2 / false_alarm)) + gap

    def sharpness(self, branches: np.ndarray | None = None) -> float:
        """Return the largest eigenvalue of the Hessian.

        Parameters
        ----------
        branches : numpy.ndarray (n_out, n_out), optional
            To stand for ``sum_l E_l E_l^T``: `kernel` for the net of very many blocks, B times it
            for one without Fixup's factor.
        """
        count, classes = self.targets.shape
        if branches is None:
            parts = [self.errors.T @ a / count for a in self.hidden]
            branches = np.sum([part @ part.T for part in parts], axis=0)
        outer = self.errors.T @ self.x / count
        couplings = np.linalg.eigvalsh(outer @ outer.T + branches)
        n = self.signal.shape[1]
        features = np.concatenate([self.signal, np.ones((count, 1))], axis=1)
        hessian = np.zeros((2 * n + 1, 2 * n + 1))
        hessian[: n + 1, : n + 1] = features.T @ features / (count * classes)
        # the largest coupling alone decides: the largest eigenvalue grows with it
        hessian[:n, n + 1 :] = hessian[n + 1 :, :n] = math.sqrt(couplings[-1]) * np.eye(n)
        return float(np.linalg.eigvalsh(hessian)[-1])
