"""Borders between regions, by logistic regression: fit, and given to a gate.

What placing borders of one layer and of several blocks shares.
"""

import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from skmoe.cuts import nearest
from skmoe.nn.layers import MoELayer
from skmoe.nn.networks import MoENetwork, ParallelMoENetwork
from skmoe.nn.patches import PatchGate
from skmoe.nn.region_gates import RegionGate
from skmoe.region_borders import (
    degree_of,
    least_curved,
    of_each_region,
    polynomials,
    typical_difference,
)

# Rows that take part: half of them nearest to a border, the others wherever they are.
MAX_ROWS = 40_000
# A regret, in units of the variance of y, beyond which a row weighs no more.
LARGEST_REGRET = 1.0
# Inverse penalties of the regression, nearly none as regions do not overlap: for straight
# borders and for curved ones, whose products of inputs leave less room for rounding. Its steps.
CERTAINTY, CERTAINTY_IF_CURVED, MAX_STEPS = 1e9, 1e7, 50
# Rows among which one looks for the nearest one of another region, and for any of a third one.
N_NEIGHBOURS, N_NEARBY = 8, 32


def telling_rows(margin_T: Tensor) -> Tensor:
    """Rows that tell where borders are, by their distance to the nearest one."""
    order = margin_T.argsort()
    if len(order) <= MAX_ROWS:
        return order
    half = MAX_ROWS // 2
    others = order[half:]
    return torch.cat([order[:half], others[:: -(-len(others) // half)]])


def borders_between(
    z: np.ndarray, labels: np.ndarray, weight: np.ndarray, n_regions: int, most: int = 1
) -> tuple[np.ndarray, np.ndarray] | None:
    """Slopes ``(R, P)`` and offsets of scores; None if straight ones part only two regions.

    Scores are linear in P `polynomials`, of a degree of at most `most`. A region without rows,
    as one that is none may be, has a score below all others.
    """
    asked, told = _asked(z, labels, weight)
    if len(asked) < (3 if most == 1 else 2):
        return None

    def left(scores: Any, degree: int) -> float:
        wrong = scores.predict(polynomials(told[0], degree)) != told[1]
        return float(told[2] @ wrong / told[2].sum())

    scores, degree = least_curved(partial(_regression, told), left, most)
    if len(asked) > 2:
        between = _given_to_third_ones(*told, scores, degree)
        if len(between[0]):
            scores = _regression(map(np.concatenate, zip(told, between, strict=True)), degree)
    found = of_each_region(scores)
    slopes, offsets = np.zeros((n_regions, found[0].shape[1])), np.empty(n_regions)
    offsets.fill((polynomials(z, degree) @ found[0].T + found[1]).min() - 1)
    slopes[asked], offsets[asked] = found
    return slopes, offsets


def normals_of_borders(z: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Orthonormal directions ``(N, P)`` of all normals of straight borders, widest first.

    One fewer than there are regions, or none if borders between all of them cannot be told.
    """
    asked, told = _asked(z, labels, weight)
    if len(asked) < 2:
        return np.empty((0, z.shape[1]))
    slopes, _ = of_each_region(_regression(told, 1))
    return np.linalg.svd(slopes - slopes.mean(0), full_matrices=False)[2][: len(asked) - 1]


def _asked(
    z: np.ndarray, labels: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Regions with rows that have a say, and all rows of these."""
    asked = np.unique(labels[weight > 0])
    counted = np.isin(labels, asked)
    return asked, (z[counted], labels[counted], weight[counted])


def _regression(told: Iterable[np.ndarray], degree: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    z, labels, weight = told
    certainty = CERTAINTY if degree == 1 else CERTAINTY_IF_CURVED
    # Newton steps: there are few unknowns, and first-order solvers stop far from the end.
    regression = LogisticRegression(C=certainty, solver="newton-cholesky", max_iter=MAX_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # regions can be separated: no end
        warnings.simplefilter("ignore", LinAlgWarning)  # scikit-learn then goes on without
        return regression.fit(polynomials(z, degree), labels, sample_weight=weight)


def _given_to_third_ones(
    z: np.ndarray, labels: np.ndarray, weight: np.ndarray, scores: Any, degree: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles between neighbours of two regions that lie in a third one, and whose they are.

    Where two borders pass a third one by, a sliver is left between two regions that meet,
    too thin for a row of training. What falls in there is answered by an expert that has
    learned nothing near: few rows, and most of the error. Where a third region has rows nearby,
    as where three of them meet, the middle may well be its own.
    """
    nearby = nearest(z, N_NEARBY)
    near = nearby[:, :N_NEIGHBOURS]
    foreign = labels[near] != labels[:, None]
    one = np.flatnonzero(foreign.any(1))
    if not len(one):
        return z[:0], labels[:0], weight[:0]
    pairs = np.column_stack([one, near[one, foreign[one].argmax(1)]])
    middles, least = z[pairs].mean(1), weight[pairs].min(1)
    both = np.searchsorted(scores.classes_, labels[pairs])
    told = scores.decision_function(polynomials(middles, degree))
    first = told.argmax(1)
    has_rows = (labels[nearby[one]] == scores.classes_[first][:, None]).any(1)
    third = (first[:, None] != both).all(1) & ~has_rows & (least > 0)
    better = np.take_along_axis(told, both, 1).argmax(1)
    owners = np.take_along_axis(labels[pairs], better[:, None], 1)[:, 0]
    return middles[third], owners[third], least[third]


def regions_between(z: np.ndarray, slopes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The region of each row between these borders, of whatever degree."""
    products = polynomials(z, degree_of(slopes.shape[1], z.shape[1]))
    return (products @ slopes.T + offsets).argmax(1)


def between_regions(
    network: MoENetwork | ParallelMoENetwork, x_TD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each block sees of rows, and the two regions with the highest scores there.

    Between these is how much their scores differ.
    """
    (layer,) = network.moe_layers()
    # Not by a look at the network: that would hold the answers of all rows at once.
    z_BTD = layer.experts.encode(network.seen_by_blocks(x_TD))[0]
    gate = cast(RegionGate | PatchGate, layer.gate)
    best_BT2, rivals_BT2 = gate.scores_of_regions(z_BTD).topk(2)
    return z_BTD, best_BT2[..., 0] - best_BT2[..., 1], rivals_BT2


def answers_by_region(layer: MoELayer, z_BTD: Tensor) -> Tensor:
    """What each block would answer in each region, with shared experts, ``(B, T, R, O)``."""
    gate = cast(RegionGate | PatchGate, layer.gate)
    answers_BTRO = gate.experts_in_regions(z_BTD) @ layer.experts.answer_all(z_BTD)
    if layer.shared is not None:
        answers_BTRO = answers_BTRO + layer.shared.answer_all(z_BTD).sum(2, keepdim=True)
    return answers_BTRO


@torch.no_grad()
def set_borders(
    gate: RegionGate | PatchGate, block: int, slopes: np.ndarray, offsets: np.ndarray
) -> None:
    """Give a block of the gate these borders, as sharp as its own."""
    n_regions, n_products = slopes.shape
    weight_PR = gate.regions.weight[block, :, :n_regions]
    bias_R = gate.regions.bias[block, 0, :n_regions]
    size = typical_difference(as_array(weight_PR.T)) / typical_difference(slopes)
    weight_PR[:n_products].copy_(torch.from_numpy(size * slopes.T))
    weight_PR[n_products:] = 0.0
    bias_R.copy_(torch.from_numpy(size * offsets))


def as_array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().double().numpy()
