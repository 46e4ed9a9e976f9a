"""The two simplest ways to combine factors: a sum of one number from each, and a product.

They hold for combinations of regions that have no rows, as a net does not. A sum trains
easily, a product does not: each factor's gradient is scaled by the others, which are wrong at
first. But a sum shows the product. If ``y = b + w prod_l a_l(x_l)`` for independent x_l, and
each a_l has mean one, the best sum is ``b + w + sum_l e_l(x_l)`` with the main effects

    e_l(x_l) = E[y | x_l] - E[y] = w (a_l(x_l) - 1),   so   a_l = 1 + e_l / w.

One number, w, is left to find.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from skmoe.batches import Rows
from skmoe.estimators._regions import take_over
from skmoe.model import FittedModel
from skmoe.nn.networks import ParallelMoENetwork
from skmoe.regions import MAX_ROWS

# A product that explains hardly more than the sum is none: largest share of its loss.
LARGEST_SHARE = 0.7
# Values of w tried, in units of the deviation of the sum, in both signs.
SCALES = torch.logspace(-0.5, 2, 61, dtype=torch.float64)
# The offset of a factor is divided out, so it may not vanish.
SMALLEST_OFFSET = 0.1


def sum_of_factors(model: FittedModel, seed: int) -> FittedModel:
    """The same start, but the prediction is a sum of one number from each block."""
    return _combined(model, 1, seed)


def product_of_factors(summed: FittedModel, rows: Rows, seed: int) -> FittedModel | None:
    """The product whose main effects a trained sum has found; None if there is none."""
    old = cast(ParallelMoENetwork, summed.net)
    n_factors = len(summed.block_directions or ())
    found = _find_product(old, rows.spread(MAX_ROWS), n_factors)
    if found is None:
        return None
    model = _combined(summed, n_factors, seed)
    net = cast(ParallelMoENetwork, model.net)
    n_outputs = net.mix.in_features // len(found.scale_B)
    with torch.no_grad():
        scale = found.scale_B.repeat_interleave(n_outputs).to(old.mix.weight)
        net.mix.weight.copy_(old.mix.weight * scale)
        net.mix.bias.zero_()
        net.head.weight.copy_(found.weight_O[:, None])
        net.head.bias.copy_(found.bias_O)
    return model


def _combined(model: FittedModel, n_factors: int, seed: int) -> FittedModel:
    """A network with a linear head on the product of `n_factors` numbers, same blocks."""
    changes = {"n_factors": n_factors, "model_dim": 1, "n_dense": 0}
    combined = model.rebuilt(changes, seed)
    old, new = cast(ParallelMoENetwork, model.net), cast(ParallelMoENetwork, combined.net)
    take_over(old, new)
    new.blocks.load_state_dict(old.blocks.state_dict())
    return combined


@dataclass(frozen=True)
class _Product:
    """``y = bias + weight prod_l (1 + sum_b scale_b t_b)``, t_b from the blocks of factor l."""

    scale_B: Tensor
    weight_O: Tensor
    bias_O: Tensor
    loss: float


@torch.no_grad()
def _find_product(network: ParallelMoENetwork, rows: Rows, n_factors: int) -> _Product | None:
    """The best product of the factors ``1 + e_l / w``, over w; None if the sum is as good."""
    g_BTO, _ = network.blocks(network.seen_by_blocks(rows.x))
    # On the CPU, as not every device has float64.
    terms_BT = network.terms(g_BTO)[..., 0].cpu().double()
    share_T = (rows.weight / rows.weight.sum()).cpu().double()
    y_TO = rows.y.cpu().double()
    terms_LT = torch.stack([terms_BT[factor::n_factors].sum(0) for factor in range(n_factors)])
    means_L = terms_LT @ share_T
    effects_LT = terms_LT - means_L[:, None]
    total_T = effects_LT.sum(0)
    _, _, sum_loss = _regress(total_T, y_TO, share_T)
    best = None
    for w in torch.cat([SCALES, -SCALES]) * float((share_T @ total_T.square()).sqrt()):
        offsets_L = 1 - means_L / w  # 1 + e / w = offset (1 + t / (w offset))
        if offsets_L.abs().min() < SMALLEST_OFFSET:
            continue
        weight_O, bias_O, loss = _regress((1 + effects_LT / w).prod(0), y_TO, share_T)
        if loss < (LARGEST_SHARE * sum_loss if best is None else best.loss):
            scale_L = 1 / (w * offsets_L)
            scale_B = scale_L[torch.arange(len(terms_BT)) % n_factors]
            best = _Product(scale_B, weight_O * offsets_L.prod(), bias_O, loss)
    return best


def _regress(f_T: Tensor, y_TO: Tensor, share_T: Tensor) -> tuple[Tensor, Tensor, float]:
    """Weight and bias of the regression of y on f, and its mean squared error."""
    f_mean, y_mean_O = share_T @ f_T, share_T @ y_TO
    f_T, y_TO = f_T - f_mean, y_TO - y_mean_O
    weight_O = (share_T * f_T) @ y_TO / (share_T @ f_T.square()).clamp_min(1e-300)
    errors_TO = (y_TO - f_T[:, None] * weight_O).square()
    return weight_O, y_mean_O - f_mean * weight_O, float((share_T @ errors_TO).mean())
