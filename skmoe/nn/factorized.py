"""Experts that share factors, so that there may be thousands of them.

`CPExperts` and `TensorRingExperts` are affine maps, all of them slices of one tensor that is
kept in factors (Oldfield et al., "Multilinear Mixture of Experts", 2024, arXiv:2402.12550): a
soft mixture of E experts then costs what E scores and one map of some rank cost. `MPOExperts`
are small nets whose hidden maps share a core (Gao et al., 2022, arXiv:2203.01104).

Contract. As of all experts (`experts`): `stacked` and `evaluate` give the function of each
expert by itself, from the tensor that the factors stand for. `mix_all` is what is trained, and
never makes that tensor.
"""

from abc import abstractmethod
from collections.abc import Sequence
from math import isqrt, prod
from typing import Any

import torch
from torch import Generator, Tensor, nn

from skmoe._settings import check_integer, check_number
from skmoe.nn.base_experts import Experts, with_one
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.stacked import ACTIVATIONS, StackedLinear, draw_normal, draw_uniform


class _Multilinear(Experts):
    """``f_e(x) = [h(x), 1] W_e``, with features h that all experts of a block share."""

    asks_some = False
    by_level: nn.ParameterList

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        rank: int,
        levels: tuple[int, ...] | None = None,
        affine: bool = False,
        hidden_dim: int = 32,
        activation: str = "gelu",
        generator: Generator | None = None,
    ):
        super().__init__(n_blocks, n_experts, n_inputs, n_outputs)
        self.rank = check_integer("rank", rank)
        self.levels = _levels(levels, n_experts)
        self.hidden: StackedLinear | None = None
        self.n_features = n_inputs + 1
        if not affine:
            hidden_dim = check_integer("hidden_dim", hidden_dim)
            self.hidden = StackedLinear(n_blocks, n_inputs, hidden_dim, generator=generator)
            self.n_features = hidden_dim + 1
        self.activation = ACTIVATIONS[activation]

    @abstractmethod
    def dense_weights(self) -> Tensor:
        """The tensor that the factors stand for, ``w_BEFO``."""

    def expert_weights(self, expert: int) -> Tensor:
        """Map ``w_BFO`` of one expert in each block, its bias in the last row."""
        return self.dense_weights()[:, expert]

    def stacked(self) -> tuple[Tensor, ...]:
        weight_GFO = self.dense_weights().flatten(0, 1)
        if self.hidden is None:
            return (weight_GFO,)
        return (
            *(self._for_each(t) for t in (self.hidden.weight, self.hidden.bias)),
            weight_GFO,
        )

    def evaluate(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        *hidden, weight_GFO = stacked
        if hidden:
            x_GCD = self.activation(torch.baddbmm(hidden[1], x_GCD, hidden[0]))
        return torch.bmm(with_one(x_GCD), weight_GFO)

    def own(self) -> tuple[Tensor, ...]:
        if len(self.levels) > 1:
            raise ValueError("Experts of several levels own no tensor each.")
        return (self.by_level[0],)

    def features_of(self, x_BTD: Tensor) -> Tensor:
        """What the maps read, ``f_BTF``."""
        return with_one(x_BTD if self.hidden is None else self.activation(self.hidden(x_BTD)))

    def _for_each(self, tensor: Tensor) -> Tensor:
        """A tensor of the blocks, for each of their experts."""
        return tensor.repeat_interleave(self.n_experts, 0)


class CPExperts(_Multilinear):
    """Affine maps whose tensor is a sum of R outer products.

    ``W_e[i, o] = sum_r a_er u_ir v_ro``, so that a mixture with weights w is
    ``sum_r (w a)_r ([h(x), 1] u)_r v_ro`` and costs ``R (E + F + O)`` with F features. Each map
    has rank R at most (Oldfield et al., 2024, section 3.1).

    Parameters
    ----------
    rank : int, default=32
        Number of terms R.
    levels : tuple of int, optional
        Factors of the number of experts: expert ``(i, j, ...)``, counted row by row, has
        ``a_er = b_ir c_jr ...``, so that numbers of experts multiply while weights add up.
    affine : bool, default=False
        Whether maps read x itself, as published, instead of a hidden layer h that all share.
    hidden_dim : int, default=32
        Width of that layer.
    activation : {"relu", "gelu", "silu", "tanh"}, default="gelu"
        Its nonlinearity.

    Examples
    --------
    >>> import torch
    >>> experts = CPExperts(1, 1000, 4, 2, rank=8, affine=True)
    >>> sum(weight.numel() for weight in experts.parameters())
    8056
    >>> experts.expert_weights(17).shape  # its bias in the last row
    torch.Size([1, 5, 2])
    """

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        rank: int = 32,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(
            n_blocks, n_experts, n_inputs, n_outputs, rank=rank, generator=generator, **shared
        )
        self.by_level = nn.ParameterList(
            1.0 + draw_normal((n_blocks * n, rank), 1.0, generator) for n in self.levels
        )
        shape = n_blocks, self.n_features, rank
        self.inputs_BFR = nn.Parameter(draw_uniform(shape, self.n_features**-0.5, generator))
        shape = n_blocks, rank, n_outputs
        self.outputs_BRO = nn.Parameter(draw_uniform(shape, rank**-0.5, generator))

    def mix_all(self, x_BTD: Tensor, weights_BTE: Tensor) -> Tensor:
        scale_BTR = torch.bmm(weights_BTE, self._by_expert())
        return torch.bmm(scale_BTR * self._terms(x_BTD), self.outputs_BRO)

    def answer_all(self, x_BTD: Tensor) -> Tensor:
        terms_BTER = self._terms(x_BTD).unsqueeze(2) * self._by_expert().unsqueeze(1)
        return torch.einsum("bter,bro->bteo", terms_BTER, self.outputs_BRO)

    def dense_weights(self) -> Tensor:
        factors = self._by_expert(), self.inputs_BFR, self.outputs_BRO
        return torch.einsum("ber,bfr,bro->befo", *factors)

    def _terms(self, x_BTD: Tensor) -> Tensor:
        return torch.bmm(self.features_of(x_BTD), self.inputs_BFR)

    def _by_expert(self) -> Tensor:
        """``a_BER``, from the factors of the levels."""
        a_BER, *others = (a.unflatten(0, (self.n_blocks, -1)) for a in self.by_level)
        for b_BNR in others:
            a_BER = (a_BER.unsqueeze(2) * b_BNR.unsqueeze(1)).flatten(1, 2)
        return a_BER


class TensorRingExperts(_Multilinear):
    """Affine maps whose tensor is a ring of three cores.

    ``W_e[i, o] = trace(A_e B_i C_o)`` with matrices of the sizes s x s, s x R and R x s; each
    map has rank ``R s`` at most (Oldfield et al., 2024, section 3.2).

    Parameters
    ----------
    rank : int, default=8
        Rank R between inputs and outputs.
    ring_rank : int, default=4
        Ranks s beside the experts' core.
    levels : tuple of int, optional
        Factors of the number of experts: expert ``(i, j, ...)``, counted row by row, has
        the product ``A_i A'_j ...`` for a core.
    affine : bool, default=False
        Whether maps read x itself, as published, instead of a hidden layer h that all share.
    hidden_dim : int, default=32
        Width of that layer.
    activation : {"relu", "gelu", "silu", "tanh"}, default="gelu"
        Its nonlinearity.

    Examples
    --------
    >>> import torch
    >>> experts = TensorRingExperts(1, 100, 4, 2, affine=True, levels=(10, 10))
    >>> experts.expert_weights(17).shape  # its bias in the last row
    torch.Size([1, 5, 2])
    """

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        rank: int = 8,
        ring_rank: int = 4,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(
            n_blocks, n_experts, n_inputs, n_outputs, rank=rank, generator=generator, **shared
        )
        size = check_integer("ring_rank", ring_rank)
        spread = [1.0] + [0.0] * (len(self.levels) - 1)  # levels after the first start as ones
        self.by_level = nn.ParameterList(
            torch.eye(size) * (1.0 + draw_normal((n_blocks * n, size, size), scale, generator))
            for n, scale in zip(self.levels, spread, strict=True)
        )
        shape = n_blocks, self.n_features, size, rank
        self.inputs_BFSR = nn.Parameter(draw_uniform(shape, self.n_features**-0.5, generator))
        shape = n_blocks, rank, n_outputs, size
        self.outputs_BROS = nn.Parameter(draw_uniform(shape, (rank * size) ** -0.5, generator))

    def mix_all(self, x_BTD: Tensor, weights_BTE: Tensor) -> Tensor:
        core_BTPS = torch.einsum("bte,beps->btps", weights_BTE, self._by_expert())
        ring_BTPR = torch.matmul(core_BTPS, self._input_cores(x_BTD))
        return torch.einsum("btpr,brop->bto", ring_BTPR, self.outputs_BROS)

    def answer_all(self, x_BTD: Tensor) -> Tensor:
        cores = self._by_expert(), self._input_cores(x_BTD), self.outputs_BROS
        return torch.einsum("beps,btsr,brop->bteo", *cores)

    def dense_weights(self) -> Tensor:
        cores = self._by_expert(), self.inputs_BFSR, self.outputs_BROS
        return torch.einsum("beps,bfsr,brop->befo", *cores)

    def _input_cores(self, x_BTD: Tensor) -> Tensor:
        return torch.einsum("btf,bfsr->btsr", self.features_of(x_BTD), self.inputs_BFSR)

    def _by_expert(self) -> Tensor:
        """``A_BEPS``, from the cores of the levels."""
        a_BEPS, *others = (a.unflatten(0, (self.n_blocks, -1)) for a in self.by_level)
        for b_BNPS in others:
            a_BEPS = (a_BEPS.unsqueeze(2) @ b_BNPS.unsqueeze(1)).flatten(1, 2)
        return a_BEPS


def _levels(levels: Sequence[int] | None, n_experts: int) -> tuple[int, ...]:
    if levels is None:
        return (n_experts,)
    levels = tuple(check_integer("levels", n) for n in levels)
    if prod(levels) != n_experts:
        raise ValueError(
            "The product of levels must be n_experts. "
            f"Got levels={levels} and n_experts={n_experts}."
        )
    return levels


class MPOExperts(MLPExperts):
    """Two-layer nets whose hidden maps are matrix product operators around a shared core.

    ``W_e = sum_ab L_e[i1, j1, a] C[a, i2, j2, b] R_e[b, i3, j3]``, with the rows of W counted
    by ``(i1, i2, i3)`` and its columns by ``(j1, j2, j3)``. All experts of a block share the
    core C, which has most of the weights, and own the small tensors L and R (Gao et al.,
    2022). Where the core has as many weights as W, W may be any matrix.

    Parameters
    ----------
    bond : int or (int, int), optional
        Largest dimension of the bonds a and b, or both of them. By default they are as large as
        they can be without being redundant.
    core_update_prob : float, default=1.0
        Probability with which the core takes part in a step of training: as every expert moves
        it, it learns faster than they do. 0 leaves it as it was drawn.
    hidden_dim : int, default=32
        Width H of one expert.
    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Nonlinearity of its hidden layer.
    depth : int, default=0
        Residual layers between the hidden layer and the output, which share nothing.

    Examples
    --------
    >>> from skmoe.nn.mlp_experts import MLPExperts
    >>> sizes = 1, 16, 64, 1
    >>> shared, own = MPOExperts(*sizes, bond=8), MLPExperts(*sizes)
    >>> [sum(weight.numel() for weight in e.parameters()) for e in (shared, own)]
    [5136, 33808]
    """

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        bond: int | tuple[int, int] | None = None,
        core_update_prob: float = 1.0,
        hidden_dim: int = 32,
        activation: str = "relu",
        depth: int = 0,
        generator: Generator | None = None,
    ):
        super().__init__(
            n_blocks,
            n_experts,
            n_inputs,
            n_outputs,
            hidden_dim=hidden_dim,
            activation=activation,
            depth=depth,
            generator=generator,
        )
        self.hidden: Any = MPOLinear(
            n_blocks, n_experts, n_inputs, hidden_dim, bond, core_update_prob, generator
        )

    def own(self) -> tuple[Tensor, ...]:
        _, *others = self.stacked()
        return self.hidden.left, self.hidden.right, *others

    @property
    def hidden_shape(self) -> None:
        return None  # any matrix would have to be factorised first


class MPOLinear(nn.Module):
    """Affine maps of G experts whose weights are matrix product operators, ``weight_GDH``."""

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        bond: int | tuple[int, int] | None,
        core_update_prob: float,
        generator: Generator | None,
    ):
        super().__init__()
        self.rows, self.columns = three_factors(n_inputs), three_factors(n_outputs)
        (i1, i2, i3), (j1, j2, j3) = self.rows, self.columns
        if isinstance(bond, tuple):
            a, b = (check_integer("bond", one) for one in bond)
        else:
            most = n_inputs * n_outputs if bond is None else check_integer("bond", bond)
            a, b = min(i1 * j1, most), min(i3 * j3, most)
            a, b = min(a, i2 * j2 * b), min(b, i2 * j2 * a)
        n_maps = n_blocks * n_experts
        # Variances whose product is that of the weights of a plain map.
        self.left = nn.Parameter(draw_normal((n_maps, i1, j1, a), a**-0.5, generator))
        self.right = nn.Parameter(draw_normal((n_maps, b, i3, j3), b**-0.5, generator))
        scale = (3 * n_inputs) ** -0.5
        self.core = nn.Parameter(draw_normal((n_blocks, a, i2, j2, b), scale, generator))
        bound = n_inputs**-0.5
        self.bias = nn.Parameter(draw_uniform((n_maps, 1, n_outputs), bound, generator))
        self.core_update_prob = check_number("core_update_prob", core_update_prob, largest=1)
        self.core.requires_grad_(self.core_update_prob > 0)
        self.generator: Generator | None = None  # of the core's steps; set by the trainer

    @property
    def weight(self) -> Tensor:
        core = self.core if self._core_learns() else self.core.detach()
        left, right = (t.unflatten(0, (len(core), -1)) for t in (self.left, self.right))
        weight = torch.einsum("neija,naklb,nebmp->neikmjlp", left, core, right)
        return weight.flatten(5).flatten(2, 4).flatten(0, 1)

    def _core_learns(self) -> bool:
        if not self.training or self.core_update_prob in (0, 1):
            return True
        draw = torch.rand((), generator=self.generator, device=self.core.device)
        return bool(draw < self.core_update_prob)


def three_factors(n: int) -> tuple[int, int, int]:
    """Three factors of n, as even as can be, the largest in the middle."""
    first = max(f for f in range(1, round(n ** (1 / 3)) + 1) if n % f == 0)
    second = max(f for f in range(1, isqrt(n // first) + 1) if n // first % f == 0)
    return first, n // first // second, second
