"""A start at the pieces of a function that rows tell by themselves: no fit is needed.

Where rows lie on few axes and are dense there, their values alone show where the function jumps
(`skmoe.pieces`). Each expert then has a piece to itself, or pieces that do not touch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from skmoe._registry import Part, part
from skmoe.batches import Rows
from skmoe.common_factors import few_axes
from skmoe.estimators._attempts import Attempt
from skmoe.estimators._auto import OSCILLATING
from skmoe.estimators._border_regression import set_borders
from skmoe.estimators._borders import curved_borders
from skmoe.estimators._regions import NOTHING, layer_at, on_axes, place_at, sizes_at
from skmoe.estimators._settling import settling
from skmoe.model import FittedModel
from skmoe.nn.experts import EXPERTS, LatentExperts
from skmoe.nn.networks import MoENetwork, ParallelMoENetwork
from skmoe.nn.patches import PatchGate
from skmoe.nn.region_gates import RegionGate
from skmoe.pieces import MAX_COORDINATES, find_pieces
from skmoe.plan import TrainingPlan
from skmoe.region_borders import degree_of
from skmoe.scaling import Scaling

# Rows that tell pieces. Of fewer, pieces are found more often that are none.
MAX_ROWS = 160_000
# Width of the experts of a block that sees few axes, as in a layer there.
HIDDEN_DIM = 64
# Share of the epochs of a fit at straight borders for one that goes on at curved ones.
AGAIN = 0.5


def start_layer_at_pieces(
    model: FittedModel,
    rows: Rows,
    seed: int,
    max_experts: int,
    given: Mapping[str, Any] = NOTHING,
) -> FittedModel | None:
    """A model of one layer to train, its gate at the borders that rows tell by themselves.

    Parameters
    ----------
    model : FittedModel
        Untrained, on axes.
    rows, seed, max_experts, given
        As of `start_layer_at_regions`.

    Returns
    -------
    FittedModel or None
        None if rows do not tell any pieces, as with noise or where they are far apart.
    """
    seen = rows.spread(MAX_ROWS)
    z_TA = on_axes(cast(MoENetwork, model.net), seen)
    most = given.get("n_experts", max_experts)
    labels = find_pieces(z_TA.cpu().double().numpy(), _values(seen), most)
    return None if labels is None else layer_at(model, z_TA, labels, seed, max_experts, given)


def start_block_at_pieces(
    model: FittedModel,
    rows: Rows,
    seed: int,
    max_experts: int,
    given: Mapping[str, Any] = NOTHING,
) -> FittedModel | None:
    """A model of parallel blocks, each of which has the whole function as its factor.

    There is one block, unless their number is given; the prediction is the mean of theirs.

    Parameters
    ----------
    model : FittedModel
        Untrained, with a parallel arrangement of latent experts.
    rows, seed, max_experts, given
        As of `start_layer_at_regions`.

    Returns
    -------
    FittedModel or None
        None if rows do not lie on few axes, or do not tell any pieces.
    """
    seen = rows.spread(MAX_ROWS)
    axes, labels = _pieces_on_axes(seen, given.get("n_experts", max_experts))
    if labels is None:
        return None
    usual = model.architecture.arguments["n_experts"]
    sizes = sizes_at(labels, usual, max_experts, given)
    if sizes is None:
        return None
    placed = _on_these_axes(model, axes, {**given, **sizes}, seed)
    net = cast(ParallelMoENetwork, placed.net)
    place_at(net.blocks, net.on_axes(seen.x), labels, seed)
    return placed


def attempts_at_pieces(
    told: FittedModel,
    rows: Rows,
    plan: TrainingPlan,
    share: float,
    resistant: bool = True,
) -> Iterator[Attempt]:
    """A fit between straight borders; then between curved ones, if its experts tell of such.

    Parameters
    ----------
    told : FittedModel
        A start at pieces.
    rows, plan, share, resistant
        As for `settling`.
    """
    start: FittedModel | None = told
    of_all = share
    while start is not None:
        settled = settling(plan, rows, of_all, resistant=resistant, told=True)
        yield Attempt(start, settled)
        start, of_all = start_at_curved_borders(start, rows), AGAIN * share


@torch.no_grad()
def start_at_curved_borders(trained: FittedModel, rows: Rows) -> FittedModel | None:
    """A trained model with a gate of a higher degree, to be trained again.

    Only experts that have learned tell on which side of a border the rows beside it are. Were
    gates free to curve from the start, experts would learn to need it.

    Parameters
    ----------
    trained : FittedModel
        At borders of a lower degree.
    rows : Rows
        What it was trained on.

    Returns
    -------
    FittedModel or None
        With the weights of the trained one but for its borders. None if rows are as well off
        between these, or if there are several blocks.
    """
    net = cast(MoENetwork | ParallelMoENetwork, trained.net)
    (layer,) = net.moe_layers()
    if layer.experts.n_blocks > 1:
        return None
    before = cast(RegionGate | PatchGate, layer.gate)
    found = curved_borders(net, rows)
    n_more = 0 if found is None else found[0].shape[1] - before.regions.weight.shape[1]
    if found is None or n_more <= 0:
        return None
    spec: Part = trained.architecture.arguments["gate"]
    degree = degree_of(found[0].shape[1], before.shape[1])
    gate = part(spec.name, **{**spec.settings, "degree": degree})
    curved = trained.rebuilt({"gate": gate}, seed=0)
    weights = net.state_dict()
    (name,) = (name for name in weights if name.endswith("gate.regions.weight"))
    weights[name] = pad(weights[name], (0, 0, 0, n_more))
    curved.net.load_state_dict(weights)
    (after,) = curved.net.gates()
    set_borders(cast(RegionGate | PatchGate, after), 0, *found)
    return curved


def _pieces_on_axes(rows: Rows, most: int) -> tuple[Any, NDArray[np.intp] | None]:
    """Few axes of the rows, and the pieces that they tell there; None if there are none."""
    x, weight = rows.x.cpu().double().numpy(), rows.weight.cpu().double().numpy()
    y = _values(rows)
    axes = few_axes(x, y, weight, MAX_COORDINATES)
    if axes is None:
        return None, None
    return axes, find_pieces(x @ axes[0] + axes[1], y, most)


def _on_these_axes(
    model: FittedModel, axes: Any, wanted: Mapping[str, Any], seed: int
) -> FittedModel:
    """Fresh blocks that see these axes, whose mean is the prediction."""
    arguments = model.architecture.arguments
    (_, n_axes), n_outputs = axes[0].shape, arguments["n_outputs"]
    _, settings = EXPERTS.resolve(arguments["expert"])
    settings = {**OSCILLATING, **settings, "latent_dim": n_axes}
    head = {"trunk": False, "n_dense": 0, "model_dim": n_outputs, "block_outputs": n_outputs}
    sizes = {"n_layers": 1, "hidden_dim": HIDDEN_DIM, "n_axes": n_axes, "embedding": None}
    expert = part("latent", **settings)
    fresh = model.rebuilt({**head, **sizes, **wanted, "expert": expert}, seed)
    net = cast(ParallelMoENetwork, fresh.net)
    net.set_axes(*map(torch.from_numpy, axes))
    same = torch.eye(n_axes).expand(net.blocks.experts.n_blocks, -1, -1)
    cast(LatentExperts, net.blocks.experts).place_encoder(same)
    net.answer_by_mean()
    return replace(fresh, block_directions=[of_features(axes[0], model.x_scaling)])


def of_features(axes_DA: NDArray[np.float64], scaling: Scaling) -> NDArray[np.float64]:
    """Axes of scaled features as maps from the user's features."""
    varying = scaling.scale > 0
    axes = np.zeros(axes_DA.shape)
    axes[varying] = axes_DA[varying] / scaling.scale[varying, None]
    return axes


def _values(rows: Rows) -> NDArray[np.float64]:
    return cast(NDArray[np.float64], rows.y.cpu().double().numpy())
