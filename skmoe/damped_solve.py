"""``(G + alpha) c = b`` for many alphas, from one reduction of the symmetric matrix G.

``G = Q T Q'`` with T diagonal or, which takes a quarter of the time of its eigenvectors, with
three diagonals; then all alphas together take little. LAPACK has the latter for the CPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Up to so many unknowns eigenvectors take no longer.
FEW = 128


class Reduced(ABC):
    """A symmetric matrix without negative eigenvalues, reduced."""

    values_P: Tensor
    """Its eigenvalues, in rising order."""

    @abstractmethod
    def solve(self, right_PO: Tensor, alphas: Sequence[float]) -> Tensor:
        """The solutions ``c_APO`` for all alphas."""

    def freedom(self, alphas: Sequence[float]) -> Tensor:
        """Of each alpha, the trace of ``(G + alpha)^-1 G``."""
        alphas_A1 = self.values_P.new_tensor(alphas)[:, None]
        return (self.values_P / (self.values_P + alphas_A1)).sum(1)


def reduced(upper_PP: Tensor) -> Reduced:
    """What `upper_PP` is reduced to, whose upper triangle counts; it may be written over."""
    many = len(upper_PP) > FEW and upper_PP.device.type == "cpu"
    return _ThreeDiagonals(upper_PP) if many else _Eigenvectors(upper_PP)


class _Eigenvectors(Reduced):
    """``G = Q T Q'`` with a diagonal T."""

    def __init__(self, upper_PP: Tensor):
        values_P, self.vectors = torch.linalg.eigh(upper_PP, UPLO="U")
        self.values_P = values_P.clamp_min(0)

    def solve(self, right_PO: Tensor, alphas: Sequence[float]) -> Tensor:
        turned_PO = self.vectors.T @ right_PO
        damped = (turned_PO / (self.values_P + alpha)[:, None] for alpha in alphas)
        return torch.stack([self.vectors @ coefs_PO for coefs_PO in damped])


class _ThreeDiagonals(Reduced):
    """``G = Q T Q'`` where T has three diagonals and Q is a product of reflections."""

    def __init__(self, upper_PP: Tensor):
        from scipy.linalg import lapack

        # LAPACK counts along columns: its lower triangle is the upper one of rows.
        lower = upper_PP.numpy().T
        size = int(lapack.dsytrd_lwork(len(lower), lower=1)[0])
        given = {"lower": 1, "lwork": size, "overwrite_a": 1}
        made, self.diagonal, self.beside, self.factors, _ = lapack.dsytrd(lower, **given)
        self.reflections = np.asfortranarray(made[1:, :-1])
        values, failed = lapack.dsterf(self.diagonal, self.beside)
        if failed:
            raise RuntimeError("Eigenvalues were not found.")
        self.values_P = torch.from_numpy(values).clamp_min_(0)

    def solve(self, right_PO: Tensor, alphas: Sequence[float]) -> Tensor:
        from scipy.linalg import lapack

        turned = self._turned(right_PO.numpy(), "T")
        beside = self.beside
        solutions = [
            lapack.dgtsv(beside, self.diagonal + alpha, beside, turned)[3] for alpha in alphas
        ]
        back = self._turned(np.concatenate(solutions, axis=1), "N")
        split = torch.from_numpy(back).unflatten(1, (len(alphas), -1))
        return split.transpose(0, 1).contiguous()

    def _turned(self, values: np.ndarray, how: str) -> np.ndarray:
        """``Q x``, or ``Q' x`` if `how` is "T"; the first row stays what it is."""
        from scipy.linalg import lapack

        size = 64 * values.shape[1]
        given = "L", how, self.reflections, self.factors, values[1:], size
        return np.concatenate([values[:1], lapack.dormqr(*given)[0]])
