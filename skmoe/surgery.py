"""On a fitted model: fewer weights by factorisation, and which experts to tune.

`compressed` makes a smaller model of the same function, as far as that is possible. Experts'
hidden maps are factorised; all else stays. `experts_to_tune` chooses the experts that new rows
ask, and `only_experts_learn` keeps the others as they are, to the bit; or `with_adapters` puts
adapters around all that there is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skmoe._registry import Part, part
from skmoe.batches import spread
from skmoe.model import Architecture, FittedModel
from skmoe.nn.adapters import NETWORKS, AdaptedNetwork, check_same_settings
from skmoe.nn.base import Network
from skmoe.nn.base_experts import Experts
from skmoe.nn.experts import MixedExperts
from skmoe.nn.factorized import three_factors
from skmoe.nn.layers import MoELayer
from skmoe.nn.mlp_experts import MLPExperts

# Eigenvalues of the inputs' second moments below this share of the largest are nothing.
NOTHING = 1e-12
# Rows that these are measured on, and routing is looked at.
MAX_ROWS = 20_000
# Scores that add up to this much less than was asked are rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Compression:
    """A smaller model, and what it lost."""

    model: FittedModel
    errors: NDArray[np.float64]
    """Squared error of the hidden maps over their squares, for each gate's experts."""
    singular_values: list[NDArray[np.float64]]
    """Of the hidden maps of each gate's experts together; of "mpo" those of both cuts."""


def compressed(
    model: FittedModel, method: str, rank: int, X: np.ndarray | None = None
) -> Compression:
    """The model with factorised hidden maps.

    Parameters
    ----------
    model : FittedModel
        With "mlp" experts.
    method : {"latent", "mpo"}
        Into what maps are factorised.
    rank : int
        Dimension of the common input of experts, or of the bonds.
    X : ndarray of shape (n, n_features), optional
        Rows by which errors of a map count, for "latent".
    """
    if isinstance(model.net, AdaptedNetwork):
        raise ValueError("A model with adapters cannot be compressed: compress it before.")
    for layer in model.net.moe_layers():
        _check_plain(layer.experts, method)
        _check_rank(rank, layer.experts, method)
    moments = None if X is None else _second_moments(model, X)
    make = _latent if method == "latent" else _mpo
    return make(model, rank, moments)


def _check_plain(experts: Experts, method: str) -> None:
    if type(experts) is not MLPExperts:
        raise ValueError(
            f"compress(method={method!r}) factorises the maps of expert='mlp'. "
            f"Got {type(experts).__name__}."
        )


def _check_rank(rank: int, experts: Experts, method: str) -> None:
    if method == "latent" and rank > experts.input_dim:
        raise ValueError(
            f"rank must be at most {experts.input_dim}, the dimension that experts see. "
            f"Got {rank}."
        )


# To a common latent input


def _latent(model: FittedModel, rank: int, moments: list[Tensor] | None) -> Compression:
    """Hidden maps ``W_e = B A_e`` with one B for all experts of a block.

    With the maps beside each other, ``M = [W_1, ..., W_E]``, B are the first left singular
    vectors, and the squared error is the sum of the squares of the other singular values
    (Eckart & Young, 1936; Liu et al., MoLAE, 2025). With second moments C of the inputs, it is
    those of ``C^(1/2) M``, which count an error by what it does to the inputs that there are.
    """
    settings = _settings(model)
    expert = part("latent", latent_dim=rank, **settings)
    small = model.rebuilt({"expert": expert, "gate_sees": "input"}, seed=0)
    weights = dict(model.net.state_dict())
    errors, values = [], []
    pairs = zip(_named_layers(model.net), small.net.moe_layers(), strict=True)
    for index, ((name, old), new) in enumerate(pairs):
        encoders, hidden = [], []
        for block, maps_MDH in enumerate(_maps_of_blocks(old)):
            root = None if moments is None else _root(moments[index][block])
            encoder_DR, hidden_MRH, s = _common_input(maps_MDH, rank, root)
            encoders.append(encoder_DR)
            hidden.append(hidden_MRH)
            values.append(s.cpu().numpy())
            errors.append(float(s[rank:].square().sum() / s.square().sum()))
        encoder_BDR = torch.stack(encoders)
        weights[f"{name}experts.encoder.weight"] = encoder_BDR
        weights[f"{name}experts.encoder.bias"] = encoder_BDR.new_zeros(len(encoders), 1, rank)
        n_routed = old.experts.n_experts
        routed, shared = zip(*(maps.tensor_split([n_routed]) for maps in hidden), strict=True)
        weights[f"{name}experts.hidden.weight"] = torch.cat(routed)
        if new.shared is not None:
            weights[f"{name}shared.hidden.weight"] = torch.cat(shared)
    small.net.load_state_dict(weights)
    small.net.eval()
    return Compression(small, np.array(errors), values)


def _common_input(
    maps_MDH: Tensor, rank: int, root_DD: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder ``(D, R)``, maps behind it ``(M, R, H)``, and all singular values."""
    beside_DF = maps_MDH.transpose(0, 1).flatten(1).cpu().double()
    seen = beside_DF if root_DD is None else root_DD @ beside_DF
    u, s, _ = torch.linalg.svd(seen, full_matrices=False)
    directions_DR = u[:, :rank]
    if len(s) < rank:  # fewer hidden units than inputs: nothing else is needed
        directions_DR = torch.nn.functional.pad(directions_DR, (0, rank - len(s)))
    behind_RF = directions_DR.T @ seen
    encoder_DR = directions_DR
    if root_DD is not None:
        encoder_DR = torch.linalg.pinv(root_DD, hermitian=True) @ directions_DR
    behind_MRH = behind_RF.unflatten(1, (len(maps_MDH), -1)).transpose(0, 1)
    return encoder_DR, behind_MRH, s


def _root(moments_DD: Tensor) -> Tensor:
    """Square root of second moments; directions without inputs keep a tiny weight."""
    values, vectors = torch.linalg.eigh(moments_DD)
    floor = NOTHING * values[-1]
    return vectors @ torch.diag(values.clamp_min(floor).sqrt()) @ vectors.T


@torch.no_grad()
def _second_moments(model: FittedModel, X: np.ndarray) -> list[Tensor]:
    """Mean of ``x x'`` over the inputs of each layer, ``(B, D, D)``, in float64."""
    some = spread(X, MAX_ROWS)
    _, steps = model.net(model.tensor(some))
    inputs = [step.x_BTD.cpu().double() for step in steps]
    return [x_BTD.mT @ x_BTD / x_BTD.shape[1] for x_BTD in inputs]


# To matrix product operators


def _mpo(model: FittedModel, rank: int, moments: list[Tensor] | None) -> Compression:
    """Hidden maps ``W_e = L_e C R`` with one core C for all experts of a block.

    Two singular value decompositions, one after the other, of the maps as tensors: first
    ``(e, i1, j1)`` against the rest, then what is left of it with ``(i3, j3)`` cut off. The
    squared error is the sum of the squares of what both leave out (Oseledets, 2011).
    """
    if moments is not None:
        raise ValueError("compress(method='mpo') counts all errors alike. Leave out X.")
    layer = model.net.moe_layers()[0]
    bond = _bonds(layer, rank)
    expert = part("mpo", bond=bond, **_settings(model))
    small = model.rebuilt({"expert": expert}, seed=0)
    weights = dict(model.net.state_dict())
    errors, values = [], []
    for name, old in _named_layers(model.net):
        for group, experts in (("experts", old.experts), ("shared", old.shared)):
            if experts is None:
                continue
            maps_BEDH = cast(MLPExperts, experts).hidden.weight.detach()
            maps_BEDH = maps_BEDH.unflatten(0, (experts.n_blocks, -1)).cpu().double()
            cut = [_operators(maps_EDH, bond) for maps_EDH in maps_BEDH]
            prefix = f"{name}{group}.hidden."
            del weights[f"{prefix}weight"]
            for key in ("left", "right"):
                weights[prefix + key] = torch.cat([parts[key] for parts, *_ in cut])
            weights[f"{prefix}core"] = torch.stack([parts["core"] for parts, *_ in cut])
            if group == "experts":
                for (_, s, lost), maps_EDH in zip(cut, maps_BEDH, strict=True):
                    values.append(s)
                    errors.append(lost / float(maps_EDH.square().sum()))
    small.net.load_state_dict(weights)
    small.net.eval()
    return Compression(small, np.array(errors), values)


def _bonds(layer: MoELayer, rank: int) -> tuple[int, int]:
    """Dimensions of both bonds: at most `rank`, and no more than can be used."""
    experts = cast(MLPExperts, layer.experts)
    n_inputs, n_outputs = experts.hidden.weight.shape[1:]
    (i1, i2, i3), (j1, j2, j3) = three_factors(n_inputs), three_factors(n_outputs)
    a = min(rank, experts.n_experts * i1 * j1, i2 * j2 * i3 * j3)
    return a, min(rank, a * i2 * j2, i3 * j3)


def _operators(
    maps_EDH: Tensor, bond: tuple[int, int]
) -> tuple[dict[str, Tensor], NDArray[np.float64], float]:
    """The factors, both cuts' singular values, and the squared error."""
    n_experts, n_inputs, n_outputs = maps_EDH.shape
    (i1, i2, i3), (j1, j2, j3) = three_factors(n_inputs), three_factors(n_outputs)
    a, b = bond
    tensor = maps_EDH.reshape(n_experts, i1, i2, i3, j1, j2, j3).permute(0, 1, 4, 2, 5, 3, 6)
    left, rest, first = _cut(tensor.reshape(n_experts * i1 * j1, -1), a)
    core, right, second = _cut(rest.reshape(a * i2 * j2, i3 * j3), b)
    parts = {
        "left": left.reshape(n_experts, i1, j1, a),
        "core": core.reshape(a, i2, j2, b),
        "right": right.reshape(b, i3, j3).expand(n_experts, -1, -1, -1),
    }
    lost = first[a:].square().sum() + second[b:].square().sum()
    return parts, torch.cat([first, second]).cpu().numpy(), float(lost)


def _cut(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """``U`` and ``S V'`` of the largest singular values, padded to `rank`; and all of these."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    kept = min(rank, len(s))
    missing = rank - kept
    u = torch.nn.functional.pad(u[:, :kept], (0, missing))
    sv = torch.nn.functional.pad(s[:kept, None] * vt[:kept], (0, 0, 0, missing))
    return u, sv, s


# Of both


def _settings(model: FittedModel) -> dict[str, Any]:
    """Settings of the experts that stay."""
    spec = model.architecture.arguments["expert"]
    given = spec.settings if isinstance(spec, Part) else {}
    settings = {"activation": "relu", "depth": 0, **given}
    return {name: settings[name] for name in ("activation", "depth")}


def _named_layers(network: Network) -> Iterator[tuple[str, MoELayer]]:
    """Layers with the prefix of their weights' names."""
    for name, module in network.named_modules():
        if isinstance(module, MoELayer):
            yield f"{name}.", module


def _maps_of_blocks(layer: MoELayer) -> Tensor:
    """Hidden maps of the experts of each block, routed then shared, ``(B, M, D, H)``."""
    groups = [layer.experts] if layer.shared is None else [layer.experts, layer.shared]
    maps = [
        cast(MLPExperts, experts).hidden.weight.detach().unflatten(0, (experts.n_blocks, -1))
        for experts in groups
    ]
    return torch.cat(maps, 1)


# Which experts to tune


def expert_scores(
    model: FittedModel, X: np.ndarray, weight: np.ndarray, score: str
) -> NDArray[np.float64]:
    """How much the rows ask each expert, ``(n_gates, E)``, with sum one for each gate.

    Wang et al., "Let the Expert Stick to His Last" (2024), eqs. 5 and 6: "gate" is the mean
    weight of an expert, "token" the share of the rows' choices that are this expert.
    """
    gates = np.stack(model.gates(X))
    if score == "token":
        gates = (gates > 0) / (gates > 0).sum(-1, keepdims=True).clip(1)
    scores = np.einsum("gne,n->ge", gates, weight / weight.sum())
    return scores / scores.sum(-1, keepdims=True).clip(np.finfo(float).tiny)


def experts_to_tune(scores: np.ndarray, threshold: float) -> list[NDArray[np.intp]]:
    """The fewest experts of each gate whose scores add up to `threshold`, the largest first."""
    chosen = []
    for scores_E in scores:
        order = np.argsort(-scores_E, kind="stable")[: np.count_nonzero(scores_E)]
        enough = scores_E[order].cumsum() >= threshold - ROUNDING
        chosen.append(order[: enough.argmax() + 1] if enough.any() else order)
    return chosen


@contextmanager
def only_experts_learn(network: Network, chosen: list[NDArray[np.intp]]) -> Iterator[int]:
    """Freeze everything but these experts of each gate; the number of weights that learn.

    The experts of a layer share tensors, so gradients of the others are set to zero. Without
    weight decay, Adam then leaves them as they are, to the bit.
    """
    hooks, n_weights, gates = [], 0, iter(chosen)
    with _restored(network):
        network.requires_grad_(False)
        for layer in network.moe_layers():
            experts = layer.experts
            if isinstance(experts, MixedExperts):
                raise ValueError(
                    "method='experts' needs experts of one kind. Use 'adapters' or 'all' for "
                    "a list of kinds."
                )
            ids = [
                block * experts.n_experts + expert
                for block in range(experts.n_blocks)
                for expert in next(gates)
            ]
            for tensor in experts.own():
                mask = torch.zeros_like(tensor)
                mask[ids] = 1.0
                tensor.requires_grad_(True)
                hooks.append(tensor.register_hook(mask.mul))
                n_weights += int(mask.sum())
        try:
            yield n_weights
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def all_learn(network: Network) -> Iterator[int]:
    """Let all weights learn, but not fixed coordinates; their number."""
    fixed = {
        id(weight)
        for module in network.modules()
        if isinstance(module, Network) and module.axes is not None
        for weight in module.axes.parameters()
    }
    with _restored(network):
        for weight in network.parameters():
            weight.requires_grad_(id(weight) not in fixed)
        yield sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


@contextmanager
def only_adapters_learn(network: AdaptedNetwork) -> Iterator[int]:
    """Freeze everything but adapters and what mixes them; the number of their weights."""
    with _restored(network):
        network.requires_grad_(False)
        for weight in network.adapters():
            weight.requires_grad_(True)
        yield sum(weight.numel() for weight in network.adapters())


@contextmanager
def _restored(network: Network) -> Iterator[None]:
    """Leave it as it was which weights learn."""
    learned = {name: weight.requires_grad for name, weight in network.named_parameters()}
    try:
        yield
    finally:
        for name, weight in network.named_parameters():
            weight.requires_grad_(learned[name])


def with_adapters(model: FittedModel, settings: dict[str, Any], seed: int) -> FittedModel:
    """The model with fresh adapters around its network, unless it has some."""
    spec = part("adapted", **settings)
    NETWORKS.resolve(spec)  # refuses unknown settings
    if taken := settings.keys() & {"base", "base_arguments"}:
        raise ValueError(f"adapters must not set {sorted(taken)}.")
    inside = model.architecture
    if isinstance(model.net, AdaptedNetwork):
        check_same_settings(settings, inside.arguments)
        return model
    arguments = {
        **{name: inside.arguments[name] for name in ("n_inputs", "n_outputs")},
        "base": inside.network,
        "base_arguments": inside.arguments,
        **settings,
    }
    architecture = Architecture("adapted", arguments)
    net = architecture.build(torch.Generator().manual_seed(seed))
    net = cast(AdaptedNetwork, net.to(model.device, model.dtype))
    net.base.load_state_dict(model.net.state_dict())
    return replace(model, architecture=architecture, net=net.eval())


def modules_at_rest(network: Network) -> list[torch.nn.Module]:
    """Gates and routers: without noise, and with the temperatures and counts of before."""
    return [piece for layer in network.moe_layers() for piece in (layer.gate, layer.router)]
