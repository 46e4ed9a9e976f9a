"""The optimiser of networks side by side: the steps of `optimizer`, for all of them at once.

A step is a few operations, however many networks there are.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from skmoe.nn.base import Network
from skmoe.optimizer import BETAS, EPSILON, by_decay, clipping, pass_over

MOMENTS = "exp_avg", "exp_avg_sq"


class StackedAdamW:
    """`FlatAdamW` for M networks of one kind, each with a learning rate of its own.

    Weights of one name lie next to each other. They may differ in their first axis, as those
    of more or fewer experts; where they differ in another one, as logits of these experts,
    zeros that never change fill up the smaller ones.

    Parameters
    ----------
    networks : sequence of Network
        Their weights become views of `stacked`.
    weight_decays : sequence of float
        One for each network.

    Attributes
    ----------
    stacked : dict of str to Tensor
        By name, the weights of all networks, with M on the first axis, or joined along their
        own first axis where they differ there: leaves for autograd.
    """

    def __init__(self, networks: Sequence[Network], weight_decays: Sequence[float]):
        self.n_steps = 0
        self.decays = list(weight_decays)
        self._lay_out(networks)

    def _lay_out(self, networks: Sequence[Network]) -> None:
        """Weights that decay come first; those of one name lie next to each other."""
        named = [by_decay(network) for network in networks]
        self.n_decayed = len(named[0][0])
        weights = [{**decayed, **kept} for decayed, kept in named]
        self.piles = [_Pile.of([own[name] for own in weights]) for name in weights[0]]
        sizes = [math.prod(pile.shape) for pile in self.piles]
        vector = weights[0][next(iter(weights[0]))].new_zeros(sum(sizes))
        self.gradient = torch.zeros_like(vector)
        self.stacked = {}
        for name, pile, values, gradient in zip(
            weights[0], self.piles, vector.split(sizes), self.gradient.split(sizes), strict=True
        ):
            leaf = self.stacked[name] = values.detach().view(pile.shape).requires_grad_()
            leaf.grad = gradient.view(pile.shape)
            for own, part in zip(weights, pile.parts(leaf.detach()), strict=True):
                own[name].data = part.copy_(own[name].detach())
        self.sizes = sizes
        self.moments = torch.zeros_like(vector), torch.zeros_like(vector)
        self.runs: dict[tuple[int, int], list[tuple[Tensor, ...]]] = {}
        self.weights_RP, self.gradients_RP = self._rows(vector), self._rows(self.gradient)

    def _rows(self, vector: Tensor) -> list[Tensor]:
        """The part of each name, with a row for each network, or rows for each of them."""
        parts = zip(vector.split(self.sizes), self.piles, strict=True)
        return [part.view(pile.shape[0], -1) for part, pile in parts]

    def _parts(self, vector: Tensor) -> list[list[Tensor]]:
        """Of each name, what belongs to each network."""
        parts = zip(vector.split(self.sizes), self.piles, strict=True)
        return [pile.parts(part.view(pile.shape)) for part, pile in parts]

    def keep(self, kept: Sequence[int], networks: Sequence[Network]) -> None:
        """Go on with some of the networks: those at these places."""
        before = [self._parts(moment) for moment in self.moments]
        self.decays = [self.decays[m] for m in kept]
        self._lay_out(networks)
        for moment, olds in zip(self.moments, before, strict=True):
            for parts, old in zip(self._parts(moment), olds, strict=True):
                for part, m in zip(parts, kept, strict=True):
                    part.copy_(old[m])

    def maps(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By name, weights and gradients, with the first axes of all networks as one."""

        def joined(tensor: Tensor, pile: _Pile) -> Tensor:
            return tensor if pile.owners_R is not None else tensor.flatten(0, 1)

        return {
            name: (joined(leaf.detach(), pile), joined(cast(Tensor, leaf.grad), pile))
            for (name, leaf), pile in zip(self.stacked.items(), self.piles, strict=True)
        }

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.gradient.zero_()

    def step(self, learning_rates: Sequence[float]) -> None:
        """One step, with a learning rate for each network."""
        self.n_steps += 1
        if self.gradient.device.type == "cpu":
            self._step_by_runs(learning_rates)
            return
        line = self.line(learning_rates, self.n_steps)
        self.follow_line(torch.tensor(line, dtype=torch.float64).to(self.gradient))

    def line(self, learning_rates: Sequence[float], n_steps: int) -> list[float]:
        """All numbers that the step of this number needs, for `follow_line`."""
        settings = zip(learning_rates, self.decays, strict=True)
        return [*corrections(n_steps), *learning_rates, *(1 - r * d for r, d in settings)]

    @torch.no_grad()
    def follow_line(self, line: Tensor) -> None:
        """The step that these numbers say, in few operations and without a wait."""
        first, second = line[0], line[1]
        rates_M1, shrink_M1 = line[2:].view(2, -1, 1)
        factor_M1 = clipping(self._norms())[:, None]
        for pile, block in zip(self.piles, self.gradients_RP, strict=True):
            block.mul_(pile.spread(factor_M1))
        changes_RP = self._rows(direction(self.gradient, self.moments, (first, second)))
        decayed = zip(self.piles[: self.n_decayed], self.weights_RP, strict=False)
        for pile, weights in decayed:
            weights.mul_(pile.spread(shrink_M1))
        for pile, weights, change in zip(self.piles, self.weights_RP, changes_RP, strict=True):
            weights.sub_(change.mul_(pile.spread(rates_M1)))

    def _step_by_runs(self, learning_rates: Sequence[float]) -> None:
        """A step of few passes: one for neighbours with the same rate and decay."""
        factor_M = clipping(self._norms())
        if bool((factor_M < 1).any()):
            for pile, block in zip(self.piles, self.gradients_RP, strict=True):
                block.mul_(pile.spread(factor_M[:, None]))
        step, start = torch.tensor(float(self.n_steps)), 0
        settings = zip(learning_rates, self.decays, strict=True)
        for (rate, decay), run in groupby(settings):
            place = start, start + sum(1 for _ in run)
            if place not in self.runs:
                self.runs[place] = self._of_run(slice(*place))
            tensors, start = self.runs[place], place[1]
            parts = (tensors[: self.n_decayed], decay), (tensors[self.n_decayed :], 0.0)
            for part, own_decay in parts:
                if part:
                    pass_over(part, step, rate, own_decay)

    def _of_run(self, networks: slice) -> list[tuple[Tensor, ...]]:
        """Weights, gradients and moments of neighbours, by name."""
        means_RP, squares_RP = map(self._rows, self.moments)
        blocks = zip(self.weights_RP, self.gradients_RP, means_RP, squares_RP, strict=True)
        return [
            tuple(block[pile.rows(networks)] for block in of_name)
            for of_name, pile in zip(blocks, self.piles, strict=True)
        ]

    def _norms(self) -> Tensor:
        """Of each network, the norms of its gradient's parts, in the first axis."""
        norms = [torch.linalg.vector_norm(block, dim=1) for block in self.gradients_RP]
        return torch.stack([p.norms(rows) for p, rows in zip(self.piles, norms, strict=True)])

    def arrays(self) -> list[dict[str, Any]]:
        """State of each network's optimiser, as `optimizer_arrays` has it."""
        moments = [self._parts(moment.cpu()) for moment in self.moments]
        parts = slice(0, self.n_decayed), slice(self.n_decayed, None)
        return [
            {
                str(number): {
                    "step": np.float32(self.n_steps),
                    **{
                        name: _joined(of[part], m)
                        for name, of in zip(MOMENTS, moments, strict=True)
                    },
                }
                for number, part in enumerate(part for part in parts if self.piles[part])
            }
            for m in range(len(self.decays))
        ]


def _joined(parts: list[list[Tensor]], m: int) -> np.ndarray:
    """What belongs to a network, as one vector."""
    return torch.cat([of_name[m].flatten() for of_name in parts]).numpy()


class _Pile(NamedTuple):
    """How the weights of one name lie on each other."""

    shape: tuple[int, ...]
    """Of all of them."""
    own: list[torch.Size]
    """Of each network's."""
    owners_R: Tensor | None
    """Whose a row is; None if there is one for each network."""

    @classmethod
    def of(cls, weights: Sequence[Tensor]) -> "_Pile":
        """One row for each network; or all rows of all of them, if nothing else differs."""
        own = [weight.shape for weight in weights]
        if len(set(own)) > 1 and len({shape[1:] for shape in own}) == 1:
            counts = torch.tensor([shape[0] for shape in own])
            owners = torch.arange(len(own)).repeat_interleave(counts).to(weights[0].device)
            return cls((len(owners), *own[0][1:]), own, owners)
        return cls((len(own), *map(max, zip(*own, strict=True))), own, None)

    def parts(self, of_all: Tensor) -> list[Tensor]:
        """What belongs to each network."""
        if self.owners_R is not None:
            return list(of_all.split([shape[0] for shape in self.own]))
        return [
            row[tuple(map(slice, shape))] for row, shape in zip(of_all, self.own, strict=True)
        ]

    def rows(self, networks: slice) -> slice:
        """Rows of some networks."""
        if self.owners_R is None:
            return networks
        counts = [shape[0] for shape in self.own]
        return slice(sum(counts[: networks.start]), sum(counts[: networks.stop]))

    def spread(self, values_M1: Tensor) -> Tensor:
        """Of numbers for each network, those for each row."""
        return values_M1 if self.owners_R is None else values_M1.index_select(0, self.owners_R)

    def norms(self, of_rows_R: Tensor) -> Tensor:
        """Of norms of rows, those of networks."""
        if self.owners_R is None:
            return of_rows_R
        squares_M = of_rows_R.new_zeros(len(self.own))
        return squares_M.index_add_(0, self.owners_R, of_rows_R.square()).sqrt_()


def direction(
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    corrections: tuple[Tensor | float, Tensor | float],
) -> Tensor:
    """Where AdamW steps: ``m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps)``.

    Parameters
    ----------
    gradient : Tensor
        Of a vector of weights.
    moments : (Tensor, Tensor)
        Running means m of the gradient and s of its square, which are updated.
    corrections : (float, float)
        ``1 - b1^t`` and ``1 - b2^t`` of this step.
    """
    mean, square = moments
    first, second = corrections
    mean.lerp_(gradient, 1 - BETAS[0])
    square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    size = (square / second).sqrt_().add_(EPSILON)
    return torch.div(mean, size, out=size).div_(first)


def corrections(n_steps: int) -> tuple[float, float]:
    """``1 - b^t`` of both betas, for step t, from 1."""
    first, second = (1 - beta**n_steps for beta in BETAS)
    return first, second
