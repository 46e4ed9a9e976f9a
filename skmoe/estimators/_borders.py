"""Borders between regions, placed by logistic regression amid training.

Gradient descent moves a border by the rows within its reach. As gates get sharper these are
few, and where many regions meet, borders come to rest beside their places, with experts that
bend for rows of their neighbours. But which of two regions a row belongs to can be told: it
is the one that predicts it better. So a few times in training borders are put where a logistic
regression finds them from that, each row with what the better region spares it as its weight;
descent then goes on from there, and is the better one in fine adjustment.
"""

import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from skmoe.batches import Rows
from skmoe.nn.base import Network
from skmoe.nn.networks import MoENetwork
from skmoe.nn.patches import PatchGate
from skmoe.nn.region_gates import RegionGate
from skmoe.plan import is_due
from skmoe.regions import typical_difference

# When borders are placed, as shares of the epochs.
LOOKS = (0.5, 0.75, 0.9)
# Rows that take part: half of them nearest to a border, the others wherever they are.
MAX_ROWS = 40_000
# Inverse penalty of the regression, nearly none as regions do not overlap, and its steps.
CERTAINTY, MAX_STEPS = 1e7, 50
# A regret, in units of the variance of y, beyond which a row weighs no more.
LARGEST_REGRET = 1.0
CHUNK = 8192


def placing_borders(
    rows: Rows, first: Callable[[Network, int, int], None]
) -> Callable[[Network, int, int], None]:
    """`first`, then `place_borders` a few times: for `TrainingPlan.before_epoch`."""

    def before_epoch(network: Network, done: int, in_all: int) -> None:
        first(network, done, in_all)
        if is_due(LOOKS, done, in_all):
            place_borders(cast(MoENetwork, network), rows)

    return before_epoch


@torch.no_grad()
def place_borders(network: MoENetwork, rows: Rows) -> None:
    """Put the borders of a region gate where rows are predicted better on either side.

    With fewer than three regions, or if one of them has no row, nothing happens: descent finds
    a single border by itself.
    """
    gate = cast(RegionGate | PatchGate, network.layer.gate)
    n_regions = gate.n_regions
    if n_regions < 3:
        return
    # Not by a look at the network: that would hold the answers of all rows at once.
    seen_TD = network.embedding(network.on_axes(rows.x))
    z_TD = network.layer.experts.encode(seen_TD[None])[0][0]
    scores_TR = gate.regions(z_TD[None])[0, :, :n_regions]
    best_T2, rivals_T2 = scores_TR.topk(2)
    telling = _telling(best_T2[:, 0] - best_T2[:, 1])
    z_TD, rivals_T2 = z_TD[telling], rivals_T2[telling]
    errors_TR = _errors_by_region(network.layer, z_TD, rows.y[telling])
    errors_T2 = errors_TR.gather(1, rivals_T2)
    better_T = rivals_T2.gather(1, errors_T2.argmin(1, keepdim=True)).squeeze(1)
    regret_T = (errors_T2[:, 0] - errors_T2[:, 1]).abs().clamp(max=LARGEST_REGRET)
    weight_T = regret_T * rows.weight[telling]
    found = _borders(_array(z_TD), better_T.cpu().numpy(), _array(weight_T), n_regions)
    if found is not None:
        _set(gate, *found)


def _telling(margin_T: Tensor) -> Tensor:
    """Rows that tell where borders are, by their distance to the nearest one."""
    order = margin_T.argsort()
    if len(order) <= MAX_ROWS:
        return order
    half = MAX_ROWS // 2
    others = order[half:]
    return torch.cat([order[:half], others[:: -(-len(others) // half)]])


def _errors_by_region(layer: Any, z_TD: Tensor, y_TO: Tensor) -> Tensor:
    """Squared error of each row in each region, ``(T, R)``."""
    chunks = []
    for z, y in zip(z_TD.split(CHUNK), y_TO.split(CHUNK), strict=True):
        shares_TRE = layer.gate.experts_in_regions(z[None])[0]
        answers_TRO = shares_TRE @ layer.experts.answer_all(z[None])[0]
        if layer.shared is not None:
            answers_TRO = answers_TRO + layer.shared.answer_all(z[None])[0].sum(1, keepdim=True)
        chunks.append((answers_TRO - y.unsqueeze(1)).square().mean(-1))
    return torch.cat(chunks)


def _borders(
    z: np.ndarray, labels: np.ndarray, weight: np.ndarray, n_regions: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Slopes ``(R, D)`` and offsets of linear scores; None if a region has no row."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels[weight > 0])) < n_regions:
        return None
    # Newton steps: there are few unknowns, and first-order solvers stop far from the end.
    regression = LogisticRegression(C=CERTAINTY, solver="newton-cholesky", max_iter=MAX_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # regions can be separated: no end
        regression.fit(z, labels, sample_weight=weight)
    return regression.coef_, regression.intercept_


def _set(gate: RegionGate | PatchGate, slopes: np.ndarray, offsets: np.ndarray) -> None:
    """Give the gate these borders, as sharp as its own."""
    weight_DR = gate.regions.weight[0, :, : len(slopes)]
    bias_R = gate.regions.bias[0, 0, : len(slopes)]
    size = typical_difference(_array(weight_DR.T)) / typical_difference(slopes)
    weight_DR.copy_(torch.from_numpy(size * slopes.T))
    bias_R.copy_(torch.from_numpy(size * offsets))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().double().numpy()
