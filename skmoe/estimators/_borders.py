"""Borders between regions, placed by logistic regression amid training.

Gradient descent moves a border by the rows within its reach. As gates get sharper these are
few, and where many regions meet, borders come to rest beside their places, with experts that
bend for rows of their neighbours. But which of two regions a row belongs to can be told: it
is the one that predicts it better. So a few times in training borders are put where a logistic
regression finds them from that, each row with what the better region spares it as its weight;
descent then goes on from there, and is the better one in fine adjustment. At last they are
placed for good and as sharp as rows allow, as what is within their reach is predicted wrongly.

Where borders are known from the start, as those of pieces that rows tell, descent does not move
them at first: experts have not learned their pieces yet, and small ones would be lost.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from skmoe.batches import Rows
from skmoe.estimators._block_borders import place_borders_of_blocks, turn_encoders
from skmoe.estimators._border_regression import (
    LARGEST_REGRET,
    answers_by_region,
    as_array,
    between_regions,
    borders_between,
    regions_between,
    set_borders,
    telling_rows,
)
from skmoe.nn.base import Network
from skmoe.nn.networks import MoENetwork, ParallelMoENetwork
from skmoe.nn.patches import PatchGate
from skmoe.nn.region_gates import RegionGate
from skmoe.plan import is_due, is_past
from skmoe.region_borders import most_curved

# When borders are placed, as shares of the epochs; and at last, but only if rows are predicted
# better by it, as descent has hardly any steps left to mend them.
LOOKS, AT_LAST = (0.5, 0.75, 0.9), 0.99
# So few rows of each region are within reach of a border at last, where scores of two regions
# differ by so many temperatures; which are lowered at most that far.
ROWS_WITHIN_REACH, REACH, SHARPEST = 4, 3.0, 100.0
# So many times as many rows are looked at, as some may be in reach that are farther away.
NEAR_REACH = 20
# Share of the epochs in which borders that rows have told stay where they are.
HELD = 0.25
# So many rows for each region count as beside a border, however many there are: the more rows
# are learned from, the nearer to its border is what is wrong.
ROWS_BESIDE = 5
CHUNK = 8192


def placing_borders(
    rows: Rows,
    first: Callable[[Network, int, int], None],
) -> Callable[[Network, int, int], None]:
    """`first`, then place borders a few times: for `TrainingPlan.before_epoch`."""

    def before_epoch(network: Network, done: int, in_all: int) -> None:
        first(network, done, in_all)
        if is_due(LOOKS, done, in_all):
            place_borders(cast(MoENetwork | ParallelMoENetwork, network), rows)

    return before_epoch


def borders_at_last(
    rows: Rows, first: Callable[[Network, int, int], None] | None = None
) -> Callable[[Network, int, int], None]:
    """`first`, then borders in place and sharp: for `TrainingPlan.after_epoch`.

    The next epoch, if there is one, goes on with gates as soft as its schedule says.
    """

    def after_epoch(network: Network, done: int, in_all: int) -> None:
        if first is not None:
            first(network, done, in_all)
        if not is_past(AT_LAST, done, in_all):
            return
        at_borders = cast(MoENetwork | ParallelMoENetwork, network)
        if at_borders.moe_layers()[0].experts.n_blocks > 1:
            settle_blocks(cast(ParallelMoENetwork, at_borders), rows)
        else:
            place_borders(at_borders, rows, only_if_better=True)
            sharpen_borders(at_borders, rows)

    return after_epoch


class HeldBorders:
    """Borders that the steps of the first epochs do not move.

    For `TrainingPlan.after_epoch`, and `before_epoch` after all else. What an epoch depends on
    is in the network as it ends: a fit can go on from there.
    """

    def __init__(self, first: Callable[[Network, int, int], None]):
        self.first = first
        self.borders: list[Tensor] = []

    def before_epoch(self, network: Network, done: int, in_all: int) -> None:
        """What comes first, then keep the borders in mind."""
        self.first(network, done, in_all)
        held = done < HELD * in_all
        self.borders = [part.detach().clone() for part in _borders_of(network)] if held else []

    @torch.no_grad()
    def after_epoch(self, network: Network, done: int, in_all: int) -> None:
        """Put them back."""
        for part, border in zip(_borders_of(network), self.borders, strict=False):
            part.copy_(border)


def _borders_of(network: Network) -> list[nn.Parameter]:
    (gate,) = network.gates()
    return list(cast(RegionGate | PatchGate, gate).regions.parameters())


@torch.no_grad()
def place_borders(
    network: MoENetwork | ParallelMoENetwork, rows: Rows, only_if_better: bool = False
) -> None:
    """Put the borders of region gates where rows are predicted better on either side.

    If `only_if_better`, or if there are several blocks, they stay where they are unless the
    error falls at once. With fewer than three regions nothing happens: descent finds a single
    straight border.
    """
    (layer,) = network.moe_layers()
    if layer.experts.n_blocks > 1:
        place_borders_of_blocks(cast(ParallelMoENetwork, network), rows)
        return
    gate = cast(RegionGate | PatchGate, layer.gate)
    if gate.n_regions < 3 and gate.regions.degree == 1:
        return
    told = _TellingRows.of(network, rows)
    found = told.borders(gate.n_regions, gate.regions.degree)
    if found is not None and not (only_if_better and told.are_better_now(*found)):
        set_borders(gate, 0, *found)


@torch.no_grad()
def settle_blocks(network: ParallelMoENetwork, rows: Rows) -> None:
    """Put borders of blocks in place and sharpen them; then again, with encoders turned.

    Of these, and what was before, that stays which predicts rows best: borders of blocks may
    not be exact enough to be sharp.
    """
    log_temperature = network.blocks.gate.log_temperature
    as_soft = log_temperature.clone()
    best, least = copy.deepcopy(network.state_dict()), _squared_error(network, rows)
    for turned in (False, True):
        if turned:
            turn_encoders(network, rows)
        log_temperature.copy_(as_soft)
        place_borders_of_blocks(network, rows)
        sharpen_borders(network, rows)
        error = _squared_error(network, rows)
        if error < least:
            best, least = copy.deepcopy(network.state_dict()), error
    network.load_state_dict(best)


def _squared_error(network: Network, rows: Rows) -> float:
    chunks = zip(rows.x.split(CHUNK), rows.y.split(CHUNK), strict=True)
    errors = [(network.look(x)[0] - y).square().mean(-1) for x, y in chunks]
    return float(rows.weight @ torch.cat(errors) / rows.weight.sum())


@torch.no_grad()
def sharpen_borders(network: MoENetwork | ParallelMoENetwork, rows: Rows) -> None:
    """Lower the temperature of each block until hardly any rows are within reach of a border.

    Experts on both sides are asked for these, and a mean of both is wrong on either. Several
    blocks share these rows, as one is wrong if any block is.
    """
    (layer,) = network.moe_layers()
    gate = cast(RegionGate | PatchGate, layer.gate)
    n_within_reach = max(1, ROWS_WITHIN_REACH * gate.n_regions // layer.experts.n_blocks)
    counted = rows.weight > 0
    if gate.n_regions == 1 or int(counted.sum()) < n_within_reach:
        return
    z_BTD, margin_BT, rivals_BT2 = between_regions(network, rows.x[counted])
    n_near = min(margin_BT.shape[1], NEAR_REACH * n_within_reach)
    margin_BN, near_BN = margin_BT.topk(n_near, largest=False)
    blocks_B1 = torch.arange(len(z_BTD), device=z_BTD.device)[:, None]
    # Logits of experts beside the scores of their regions move a border by some temperatures.
    best_BNR = gate.best_in_regions(z_BTD[blocks_B1, near_BN])
    best_BN2 = best_BNR.gather(2, rivals_BT2[blocks_B1, near_BN])
    moved_BN = (best_BN2[..., 0] - best_BN2[..., 1]).abs()
    reaching_BN = margin_BN / (REACH + moved_BN)
    reached_B11 = reaching_BN.kthvalue(n_within_reach).values[:, None, None]
    temperature_B11 = gate.log_temperature.exp()
    lowered_B11 = reached_B11.maximum(temperature_B11 / SHARPEST)
    gate.log_temperature.copy_(lowered_B11.minimum(temperature_B11).log())


@torch.no_grad()
def loss_away_from_borders(network: Network, rows: Rows, loss: nn.Module) -> float:
    """Mean loss but for the few rows nearest to a border of any block.

    Where borders are in place, hardly any other rows are wrong. Not a number if there are none.
    """
    at_borders = cast(MoENetwork | ParallelMoENetwork, network)
    (layer,) = at_borders.moe_layers()
    gate = cast(RegionGate | PatchGate, layer.gate)
    z_BTD, margin_BT, rivals_BT2 = between_regions(at_borders, rows.x)
    blocks_B11 = torch.arange(len(z_BTD), device=z_BTD.device)[:, None, None]
    slopes_BT2P = gate.regions.weight.mT[blocks_B11, rivals_BT2]
    slope_BT = (slopes_BT2P[..., 0, :] - slopes_BT2P[..., 1, :]).norm(dim=-1)
    distance_T = (margin_BT / slope_BT).amin(0)
    away_T = distance_T.argsort()[ROWS_BESIDE * gate.n_regions :]
    prediction_TO, _ = at_borders.look(rows.x[away_T])
    weight_T = rows.weight[away_T]
    return float(weight_T @ loss(prediction_TO, rows.y[away_T]) / weight_T.sum())


@torch.no_grad()
def curved_borders(
    network: MoENetwork | ParallelMoENetwork, rows: Rows
) -> tuple[np.ndarray, np.ndarray] | None:
    """Slopes and offsets of borders as curved as rows say; None if there are none to place."""
    (gate,) = network.gates()
    told = _TellingRows.of(network, rows)
    n_axes, n_regions = told.z_TD.shape[1], cast(RegionGate | PatchGate, gate).n_regions
    return told.borders(n_regions, most_curved(n_axes, n_regions))


@dataclass(frozen=True)
class _TellingRows:
    """Rows on either side of the nearest border, and how well each region predicts them."""

    z_TD: Tensor
    rivals_T2: Tensor  # the region of each row, and the next one
    errors_TR: Tensor
    weight_T: Tensor

    @classmethod
    def of(cls, network: MoENetwork | ParallelMoENetwork, rows: Rows) -> "_TellingRows":
        z_BTD, margin_BT, rivals_BT2 = between_regions(network, rows.x)
        z_TD, rivals_T2, telling = z_BTD[0], rivals_BT2[0], telling_rows(margin_BT[0])
        errors_TR = _errors_by_region(network, z_TD[telling], rows.y[telling])
        return cls(z_TD[telling], rivals_T2[telling], errors_TR, rows.weight[telling])

    @property
    def errors_T2(self) -> Tensor:
        return self.errors_TR.gather(1, self.rivals_T2)

    def borders(self, n_regions: int, most: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Borders with each row where it is predicted better, as far as that matters to it."""
        errors_T2 = self.errors_T2
        better_T = self.rivals_T2.gather(1, errors_T2.argmin(1, keepdim=True)).squeeze(1)
        regret_T = (errors_T2[:, 0] - errors_T2[:, 1]).abs().clamp(max=LARGEST_REGRET)
        weight = as_array(regret_T * self.weight_T)
        return borders_between(
            as_array(self.z_TD), better_T.cpu().numpy(), weight, n_regions, most
        )

    def are_better_now(self, slopes: np.ndarray, offsets: np.ndarray) -> bool:
        """Whether errors between these borders would be no smaller."""
        regions = regions_between(as_array(self.z_TD), slopes, offsets)
        regions_T = torch.from_numpy(regions).to(self.rivals_T2.device)
        errors_T = self.errors_TR.gather(1, regions_T[:, None]).squeeze(1)
        return bool(self.weight_T @ errors_T >= self.weight_T @ self.errors_T2[:, 0])


def _errors_by_region(
    network: MoENetwork | ParallelMoENetwork, z_TD: Tensor, y_TO: Tensor
) -> Tensor:
    """Squared error of each row in each region, ``(T, R)``."""
    layer: Any = network.moe_layers()[0]
    chunks = []
    for z, y in zip(z_TD.split(CHUNK), y_TO.split(CHUNK), strict=True):
        answers_TRO = answers_by_region(layer, z[None])[0]
        predicted_NO = network.predicted(answers_TRO.flatten(0, 1)[None])
        errors_TRO = predicted_NO.view(len(z), -1, y.shape[1]) - y.unsqueeze(1)
        chunks.append(errors_TRO.square().mean(-1))
    return torch.cat(chunks)
