"""Experts that hardly any row asks get half of the rows of the busiest expert.

As borders move, some regions grow at the cost of others, and an expert that is asked by no
row gets no gradient that could bring it back. Where a region gate decides, it is simply told to
share the busiest expert out among two: both say the same at first.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from skmoe.batches import Rows
from skmoe.nn.base import Network
from skmoe.nn.layers import MoELayer
from skmoe.nn.region_gates import RegionGate
from skmoe.plan import is_due

# Rows that usage is measured on; the share of an even one below which an expert is idle, and
# that of all rows if it has a region to itself that rows have told, as it may be small; and
# when that is looked at, as shares of the epochs.
MAX_ROWS = 10_000
IDLE, IDLE_IN_TOLD_REGION = 0.2, 0.002
LOOKS = (0.0, 0.125, 0.25, 0.5, 0.75)
# Rows that spread by less cannot be told apart.
SMALLEST_VARIANCE = 1e-12


def sharing_out(rows: Rows, told: bool = False) -> Callable[[Network, int, int], None]:
    """A function for `TrainingPlan.before_epoch`, for a network that learns from these rows.

    `told` is whether rows have told its regions.
    """
    x = rows.spread(MAX_ROWS).x

    def before_epoch(network: Network, done: int, in_all: int) -> None:
        if is_due(LOOKS, done, in_all):
            share_out_busiest(network, x, told)

    return before_epoch


@torch.no_grad()
def share_out_busiest(network: Network, x_TD: Tensor, told: bool = False) -> None:
    """Give idle experts behind region gates half of the rows of the busiest one each."""
    _, steps = network.look(x_TD)
    for step in steps:
        layer = step.layer
        if not isinstance(layer.gate, RegionGate):
            continue
        z_BTD, _ = layer.experts.encode(step.x_BTD)
        for block, weight_TE in enumerate(step.routing.dense_weights()):
            usage_E, ids_E = weight_TE.mean(0), layer.gate.region_ids_BE[block]
            for idle in _idle(usage_E, ids_E if told else None):
                # The busiest one may be one that has just been given rows.
                busiest = int(weight_TE.mean(0).argmax())
                kept_T = _split(
                    layer, block, busiest, idle, z_BTD[block], weight_TE[:, busiest]
                )
                weight_TE[:, idle] = weight_TE[:, busiest] * (1 - kept_T)
                weight_TE[:, busiest] *= kept_T


def _idle(usage_E: Tensor, told_ids_E: Tensor | None) -> list[int]:
    """Experts that hardly any row asks, in order."""
    idle_E = usage_E < IDLE / len(usage_E)
    if told_ids_E is not None:
        is_alone_E = told_ids_E.bincount()[told_ids_E] == 1
        idle_E &= ~is_alone_E | (usage_E < IDLE_IN_TOLD_REGION)
    return cast(list[int], idle_E.nonzero().flatten().tolist())


def _split(
    layer: MoELayer, block: int, busy: int, idle: int, z_TD: Tensor, weight_T: Tensor
) -> Tensor:
    """Put the expert `idle` beside `busy`, across the direction in which its rows spread.

    Returns the share of each row that `busy` keeps.
    """
    weight_T = weight_T / weight_T.sum()
    center_D = weight_T @ z_TD
    centred_TD = z_TD - center_D
    variances, axes = torch.linalg.eigh(centred_TD.T @ (weight_T[:, None] * centred_TD))
    if variances[-1] < SMALLEST_VARIANCE:
        return torch.ones_like(weight_T)
    first = block * layer.experts.n_experts
    for tensor in layer.experts.own():
        tensor[first + idle] = tensor[first + busy]
    # The log-densities of two normal distributions, whose centres are one deviation away
    # from the common one on both sides, differ by twice this.
    slope_D = axes[:, -1] * variances[-1].rsqrt()
    middle = slope_D @ center_D
    cast(RegionGate, layer.gate).split(block, busy, idle, slope_D, middle)
    return torch.sigmoid(2 * (z_TD @ slope_D - middle))
