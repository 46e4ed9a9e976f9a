"""A start in which each expert has a region of a factor to itself, where that can be told.

A rough fit with deep gates shows where the factors of the function jump (`skmoe.regions`). The
blocks then start again with region gates that have these borders, soft at first and sharper
with each step, and with fresh experts, which can be simple as they need not jump. Rows on few
axes may tell the borders by themselves (`_pieces`).
"""

import copy
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skmoe._registry import Part, part
from skmoe.batches import Rows
from skmoe.estimators._border_regression import as_array
from skmoe.model import FittedModel
from skmoe.nn.base_experts import with_one
from skmoe.nn.layers import MoELayer
from skmoe.nn.networks import MoENetwork, ParallelMoENetwork
from skmoe.nn.patches import PatchGate
from skmoe.nn.region_gates import RegionGate
from skmoe.region_borders import straight_borders
from skmoe.regions import (
    CUT_FACTOR,
    MAX_ROWS,
    find_regions,
    largest_regions,
    share_out,
    soft_cells,
)
from skmoe.structure import few_outputs
from skmoe.structure import slopes as slopes_of

# Gates, with their inverse sharpness at the start and at the end of training, in units in
# which the scores of two regions differ by one over one standard deviation.
GATE = part("region", temperature=(1 / 30, 1 / 2000))
# A row hardly ever lies within the reach of more than one border.
TOP_K = 2
# Residual layers of the experts, and their width: narrower, so that they and a linear gate
# cost no more than plain experts and a deep gate.
DEPTH, HIDDEN_DIM = 1, 24
# Cuts at these, in units of the usual miss: with the former ones low jumps are found as well,
# and where that gives more regions than there are experts, with the latter only high ones.
CLEAR_CUT_FACTOR = 30.0
CUT_FACTORS = (CUT_FACTOR, CLEAR_CUT_FACTOR)
CHUNK = 4096
NOTHING: Mapping[str, Any] = MappingProxyType({})


def start_at_regions(
    rough: FittedModel, rows: Rows, seed: int, given: Mapping[str, Any] = NOTHING
) -> FittedModel | None:
    """A model to train, the gates of its blocks at the borders that a rough fit has found.

    Parameters
    ----------
    rough : FittedModel
        Trained roughly, its blocks at the factors of the function.
    rows : Rows
        What it was trained on.
    seed : int
        Of the new weights.
    given : mapping
        Arguments of the network that the user chose, and that stay as they are.

    Returns
    -------
    FittedModel or None
        With encoders and head of the rough fit. None if no factor has clear jumps, or if one
        has more regions than there are experts.
    """
    old = cast(ParallelMoENetwork, rough.net)
    x = rows.spread(MAX_ROWS).x
    n_experts = given.get("n_experts", old.blocks.experts.n_experts)
    views = list(_factors(old, x, len(rough.block_directions or ())))
    if all(find_regions(*view, CLEAR_CUT_FACTOR) is None for view in views):
        return None
    labels = [_few_regions(view, n_experts) for view in views]
    if not 1 < max(map(_count, labels)) <= n_experts:
        return None
    spec: Part = rough.architecture.arguments["expert"]
    expert = part("latent", **{"depth": DEPTH, **spec.settings})
    sizes = {"n_layers": len(labels), "n_experts": n_experts, "hidden_dim": HIDDEN_DIM}
    changes = {"expert": expert, **_changes(given, **sizes)}
    model = rough.rebuilt(changes, seed)
    net = cast(ParallelMoENetwork, model.net)
    take_over(old, net)
    with torch.no_grad():
        z_BTD, _ = net.blocks.experts.encode(net.seen_by_blocks(x))
    _place(
        net.blocks, z_BTD, [labels[block % len(labels)] for block in range(len(z_BTD))], seed
    )
    return model


def start_layer_at_regions(
    rough: FittedModel,
    rows: Rows,
    seed: int,
    max_experts: int,
    given: Mapping[str, Any] = NOTHING,
) -> FittedModel | None:
    """A model of one layer to train, its gate at the borders that a rough fit has found.

    Parameters
    ----------
    rough : FittedModel
        Trained roughly, on axes and without an embedding.
    rows : Rows
        What it was trained on.
    seed : int
        Of the new weights.
    max_experts : int
        Most experts there may be, unless their number is given. At least as many as `rough`
        has, and as there are regions, are taken.
    given : mapping
        Arguments of the network that the user chose, and that stay as they are.

    Returns
    -------
    FittedModel or None
        None if the function has no regions, or too many of them.
    """
    old = cast(MoENetwork, rough.net)
    z_TA = on_axes(old, rows.spread(MAX_ROWS))
    most = given.get("n_experts", max_experts)
    labels = _few_regions(_function(old.layer, z_TA), most)
    return None if labels is None else layer_at(rough, z_TA, labels, seed, most, given)


@torch.no_grad()
def on_axes(net: MoENetwork, rows: Rows) -> Tensor:
    return cast(nn.Linear, net.axes)(rows.x)


def fresh_layer(model: FittedModel, changes: Mapping[str, Any], seed: int) -> FittedModel:
    """The same model with these arguments and new weights, on the same axes."""
    axes = cast(nn.Linear, cast(MoENetwork, model.net).axes)
    fresh = model.rebuilt(dict(changes), seed)
    cast(MoENetwork, fresh.net).set_axes(axes.weight.T, axes.bias)
    return fresh


def layer_at(
    model: FittedModel,
    z_TA: Tensor,
    labels: NDArray[np.intp],
    seed: int,
    max_experts: int,
    given: Mapping[str, Any],
) -> FittedModel | None:
    """A fresh model of one layer, its gate at the borders of these regions."""
    usual = cast(MoENetwork, model.net).layer.experts.n_experts
    sizes = sizes_at(labels, usual, max_experts, given)
    if sizes is None:
        return None
    model = fresh_layer(model, sizes, seed)
    place_at(cast(MoENetwork, model.net).layer, z_TA, labels, seed)
    return model


def sizes_at(
    labels: NDArray[np.intp], usual: int, max_experts: int, given: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Arguments of a network with these regions; None if there is nothing to choose from."""
    n_regions = _count(labels)
    n_experts = given.get("n_experts", min(max(usual, n_regions), max_experts))
    if n_regions == 1 or n_experts == 1:
        return None
    changes = _changes(given, n_experts=n_experts)
    if n_regions > n_experts:
        changes["gate"] = part("patch", n_regions=n_regions, **GATE.settings)
    return changes


def place_at(layer: MoELayer, z_TA: Tensor, labels: NDArray[np.intp], seed: int) -> None:
    """Give the gates of all blocks, which see the same, the borders of these regions."""
    n_blocks, n_experts = layer.experts.n_blocks, layer.experts.n_experts
    if isinstance(layer.gate, PatchGate):
        _place_patches(layer.gate, z_TA, labels, n_experts)
    else:
        _place(layer, z_TA.expand(n_blocks, -1, -1), [labels] * n_blocks, seed)


def _place_patches(
    gate: PatchGate, z_TA: Tensor, labels: NDArray[np.intp], n_experts: int
) -> None:
    """Give a gate these borders, and neighbouring regions different experts."""
    z = as_array(z_TA)
    experts = torch.from_numpy(share_out(z, labels, n_experts))
    slopes, offsets = map(torch.from_numpy, straight_borders(z, labels))
    gate.set_regions(experts[None], (slopes[None], offsets[None]))


def _changes(given: Mapping[str, Any], **sizes: int) -> dict[str, Any]:
    """Arguments of a network that starts at regions; sizes are ours unless they were given."""
    ours = {"top_k": TOP_K, **sizes}
    return {"gate": GATE} | {name: given.get(name, size) for name, size in ours.items()}


def _few_regions(
    view: tuple[np.ndarray, np.ndarray, np.ndarray], most: int
) -> NDArray[np.intp] | None:
    """Regions of a function, of which small ones may be given up if they are too many."""
    labels = None
    for cut_factor in CUT_FACTORS:
        labels = find_regions(*view, cut_factor, most)
        if labels is not None:
            labels = largest_regions(labels, most)
        if _count(labels) <= most:
            break
    return labels


def _count(labels: NDArray[np.intp] | None) -> int:
    return 1 if labels is None else int(labels.max()) + 1


def _place(layer: MoELayer, z_BTD: Tensor, labels: list[np.ndarray | None], seed: int) -> None:
    """Give the gates of a layer these borders."""
    starts = [
        _gate_start(as_array(z), found, layer.experts.n_experts, seed)
        for z, found in zip(z_BTD, labels, strict=True)
    ]
    ids, *maps = (torch.from_numpy(np.stack(parts)) for parts in zip(*starts, strict=True))
    cast(RegionGate, layer.gate).set_regions(ids, maps[:2], maps[2:])


def _gate_start(z: np.ndarray, labels: np.ndarray | None, n_experts: int, seed: int) -> Any:
    """Region of each expert, and slopes and offsets of regions and of experts."""
    if labels is None:
        labels = np.zeros(len(z), dtype=np.intp)
    slopes, offsets = np.zeros((n_experts, z.shape[1])), np.zeros(n_experts)
    if (n_regions := _count(labels)) > 1:
        slopes[:n_regions], offsets[:n_regions] = straight_borders(z, labels)
    ids, *cells = soft_cells(z, labels, n_experts, seed)
    return ids, slopes, offsets, *cells


def take_over(old: ParallelMoENetwork, new: ParallelMoENetwork) -> None:
    """Give `new` the weights of `old` that it has too, but not those of gates and experts.

    It may have fewer blocks: the first ones.
    """
    weights = dict(old.state_dict())
    n_blocks = new.blocks.experts.n_blocks
    n_answers = n_blocks * new.blocks.experts.output_dim
    weights["mix.weight"] = weights["mix.weight"][:, :n_answers]
    encoder = [name for name in weights if name.startswith("blocks.experts.encoder.")]
    weights |= {name: weights[name][:n_blocks] for name in encoder}
    shapes = {name: weight.shape for name, weight in new.state_dict().items()}
    kept = {
        name: weight
        for name, weight in weights.items()
        if shapes.get(name) == weight.shape
        and (name in encoder or not name.startswith("blocks."))
    }
    new.load_state_dict(kept, strict=False)


def _factors(
    network: ParallelMoENetwork, x: Tensor, n_factors: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Coordinates, values and slopes of each factor of the function.

    Blocks ``l, l + n_factors, ...`` have factor l. Their encoders differ by little; here all of
    them see what the first one sees, so that their answers are a function of it alone. Values
    are the answers of all blocks of a factor, in units of the effect on the prediction.
    """
    # On the CPU, as not every device has float64.
    network = copy.deepcopy(network).cpu().double()
    x = x.cpu().double()
    with torch.no_grad():
        z_BTR, _ = network.blocks.experts.encode(network.seen_by_blocks(x))
    maps_BRR = []
    for block, z_TR in enumerate(z_BTR):
        first = with_one(z_BTR[block % n_factors])
        solution = torch.linalg.lstsq(first, z_TR).solution
        z_BTR[block] = first @ solution
        maps_BRR.append(solution[:-1])
    g_BTO, slopes_BTOR, effects_BTPO = _answers(network, z_BTR)
    for factor in range(n_factors):
        blocks = slice(factor, None, n_factors)
        # The effects on each of P predictions add up, whatever their signs.
        effect = effects_BTPO[blocks].permute(1, 2, 0, 3).flatten(0, 1).flatten(1)
        size, directions = torch.linalg.eigh(effect.T @ effect / len(x))
        scale = directions * size.clamp_min(0).sqrt()  # |g scale|^2 is the mean squared effect
        slopes = torch.cat(
            [s @ m.T for s, m in zip(slopes_BTOR[blocks], maps_BRR[blocks], strict=True)], 1
        )
        yield (
            z_BTR[factor].numpy(),
            (g_BTO[blocks].transpose(0, 1).flatten(1) @ scale).numpy(),
            (scale.T @ slopes).numpy(),
        )


def _function(layer: MoELayer, z_TA: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates, values and slopes of what one layer says."""
    layer, z_TA = copy.deepcopy(layer).cpu().double(), z_TA.cpu().double()
    values, slopes = [], []
    with torch.enable_grad():
        for z in z_TA.split(CHUNK):
            z = z.clone().requires_grad_(True)
            y_TO = layer(z[None])[0][0]
            slopes.append(slopes_of(y_TO, z))
            values.append(y_TO.detach())
    arrays = z_TA, torch.cat(values), torch.cat(slopes)
    return cast(tuple[np.ndarray, np.ndarray, np.ndarray], tuple(a.numpy() for a in arrays))


def _answers(network: ParallelMoENetwork, z_BTR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Answers of the blocks, their gradients, and those of the prediction by the answers."""
    parts = []
    with torch.enable_grad():
        for z in z_BTR.split(CHUNK, 1):
            z = z.detach().clone().requires_grad_(True)
            g, _ = network.blocks.answer(z)
            slopes = slopes_of(g, z)
            g = g.detach().requires_grad_(True)
            y = few_outputs(network.predicted(g))
            parts.append((g.detach(), slopes, slopes_of(y, g)))
    g_BTO, slopes_BTOR, effects_BTPO = (
        torch.cat(chunks, 1) for chunks in zip(*parts, strict=True)
    )
    return g_BTO, slopes_BTOR, effects_BTPO
