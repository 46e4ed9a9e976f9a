"""Starting points that look at the data. They depend on the weighted distribution only.

Contract. A start is a function of (network, rows, seed) that changes the weights of a fresh
network in place. It must not depend on the order of the rows, nor on whether a row of weight
two comes as two rows, as long as there are at most `MAX_CLUSTERED` of them.

To add a start, write the function and name it in `INITS` at the bottom.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skmoe._registry import Part, Registry, part
from skmoe._settings import check_integer
from skmoe.batches import Rows
from skmoe.nn.base import Network
from skmoe.nn.base_experts import Experts
from skmoe.nn.embeddings import N_BINS
from skmoe.scaling import weighted_quantiles
from skmoe.shared_work import once, same

# Edges closer than this, in scaled units, would make a bin so steep that it is noise.
MIN_BIN_WIDTH = 1e-3
# Rows that centres are looked for in; more make them hardly better.
MAX_CLUSTERED = 20_000
# Weight of a neighbour's expert at a centre, ``exp(-SHARPNESS)`` times that of its own.
SHARPNESS = 2.5
# Slope of hidden units, in units of the inverse radius of the expert's region.
SLOPE = 1.0


def quantile_bins(X: np.ndarray, weight: np.ndarray, n_bins: int) -> list[list[float]]:
    """Edges of up to `n_bins` bins for each column of the scaled features, at quantiles.

    Columns with few distinct values get fewer bins, constant ones none.
    """
    edges = weighted_quantiles(X, weight, np.linspace(0, 1, n_bins + 1))
    return [_distinct(column) for column in edges.T]


def with_bins(embedding: Any, X: np.ndarray, weight: np.ndarray) -> Any:
    """The embedding, with bins at the quantiles of X if it has bins."""
    spec = part(embedding) if isinstance(embedding, str) else embedding
    if not isinstance(spec, Part) or spec.name != "piecewise_linear" or "bins" in spec.settings:
        return spec
    n_bins = check_integer("n_bins", spec.settings.get("n_bins", N_BINS))
    return part(spec.name, bins=once(quantile_bins, X, weight, n_bins))


def _distinct(edges: np.ndarray) -> list[float]:
    """Increasing values without near duplicates."""
    kept = [float(edges[0])]
    for edge in edges[1:]:
        if edge - kept[-1] > MIN_BIN_WIDTH:
            kept.append(float(edge))
    return kept


def random(network: Network, rows: Rows, seed: int) -> None:
    """Leave the weights as they were drawn."""


@torch.no_grad()
def kmeans(network: Network, rows: Rows, seed: int) -> None:
    """Regions around k-means centres, and experts that are at home in them.

    Each gate starts as ``logit_e = b (2 c_e.x - |c_e|^2)`` with the centres c that k-means
    finds in what the gate sees; the sharpness b follows from the distances between centres.
    Linear and prototype gates have such a start, others keep their random one. The hidden
    units of each expert act on local coordinates: centred on its rows, scaled by their
    spread, with their biases such that units bend inside the region. Shared experts are at
    home in the whole.
    """
    generator = np.random.RandomState(seed)
    x, weight = _distinct_rows(rows, generator)
    for index, layer in enumerate(network.moe_layers()):
        step = network(x)[1][index]  # layers above see what the layers below now do
        z_BTD, _ = layer.experts.encode(step.x_BTD)
        z = z_BTD.cpu().double().numpy()
        centers, labels = _cluster_blocks(z, weight, layer.experts.n_experts, generator)
        sharpness = [SHARPNESS / _neighbour_distance(block) ** 2 for block in centers]
        if layer.gate.place(_like(layer.experts, centers), _like(layer.experts, sharpness)):
            _place_hidden(layer.experts, z, weight, labels, generator)
        if layer.shared is not None:
            shape = len(z), layer.shared.n_experts, z.shape[1]
            _place_hidden(layer.shared, z, weight, np.broadcast_to(True, shape), generator)


def _place_hidden(
    experts: Experts,
    z: np.ndarray,
    weight: np.ndarray,
    members: np.ndarray,
    generator: np.random.RandomState,
) -> None:
    """Start the hidden units of each expert in its region; `members` is of shape (B, E, T)."""
    shape = experts.hidden_shape
    if shape is None:
        return
    maps = [
        _chart(block[rows], weight[rows], shape, generator)
        for block, regions in zip(z, members, strict=True)
        for rows in regions
    ]
    slopes, biases = zip(*maps, strict=True)
    experts.set_hidden_map(_like(experts, slopes), _like(experts, biases))


def _distinct_rows(rows: Rows, generator: np.random.RandomState) -> tuple[Tensor, np.ndarray]:
    """Different rows in a fixed order, with summed weights; of many rows, a sample."""
    x = rows.x
    if len(x) > MAX_CLUSTERED:
        chosen = np.sort(generator.choice(len(x), MAX_CLUSTERED, replace=False))
        weight = rows.weight.cpu().double().numpy()[chosen]
        return x[torch.from_numpy(chosen).to(x.device)], weight
    return once(_sums_of_equal_rows, x, rows.weight)


def _sums_of_equal_rows(x: Tensor, weight: Tensor) -> tuple[Tensor, np.ndarray]:
    values, inverse = np.unique(x.cpu().numpy(), axis=0, return_inverse=True)
    total = np.bincount(inverse.ravel(), weights=weight.cpu().double().numpy())
    return torch.from_numpy(values).to(x), total / total.sum()


def _cluster_blocks(
    z: np.ndarray, weight: np.ndarray, n_clusters: int, generator: np.random.RandomState
) -> Any:
    """Centres ``(B, E, D)``, and which rows are nearest to each, ``(B, E, T)``."""
    found = [_cluster(block, weight, n_clusters, generator) for block in z]
    members = [labels == np.arange(n_clusters)[:, None] for _, labels in found]
    return np.stack([centers for centers, _ in found]), np.stack(members)


def _cluster(
    z: np.ndarray, weight: np.ndarray, n_clusters: int, generator: np.random.RandomState
) -> Any:
    """Centres and the cluster of each row. With too few rows, centres repeat."""
    seed = int(generator.randint(2**31 - 1))
    return once(_found_clusters, same(z), same(weight), n_clusters, seed)


def _found_clusters(z: np.ndarray, weight: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    distinct = np.unique(z, axis=0)
    if len(distinct) <= n_clusters:
        centers = distinct[np.arange(n_clusters) % len(distinct)]
        return centers, ((z[:, None] - distinct) ** 2).sum(-1).argmin(1)
    # Relative to the smallest weight, so that repeated rows give the very same numbers.
    kmeans = KMeans(n_clusters, n_init=1, max_iter=100, random_state=seed)
    kmeans.fit(z, sample_weight=weight / weight.min())
    return kmeans.cluster_centers_, kmeans.labels_


def _neighbour_distance(centers: np.ndarray) -> float:
    """Median distance of a centre to the nearest other one; 1 if there is no other."""
    squares = ((centers[:, None] - centers) ** 2).sum(-1)
    squares[squares == 0] = np.inf
    nearest = np.sqrt(squares.min(1))
    nearest = nearest[np.isfinite(nearest)]
    return float(np.median(nearest)) if len(nearest) else 1.0


def _chart(
    z: np.ndarray, weight: np.ndarray, shape: tuple[int, int], generator: np.random.RandomState
) -> Any:
    """Slopes ``(D, H)`` and biases ``(H,)`` of hidden units at home among the rows z."""
    directions = generator.standard_normal(shape)
    bends = generator.standard_normal(shape)
    if len(z) == 0:
        return directions / shape[0] ** 0.5, bends[0]
    center = np.average(z, axis=0, weights=weight)
    centred = (z - center) * np.sqrt(weight / weight.sum())[:, None]
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    radius = np.sqrt((spread**2).sum())
    slopes = SLOPE / (radius if radius > 0 else 1.0) * directions
    # Unit j bends at a point drawn from the normal distribution of the region's rows.
    bend = axes.T @ (spread[:, None] * bends[: len(spread)])
    return slopes, -((center[:, None] + bend) * slopes).sum(0)


def _like(module: torch.nn.Module, values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values)).to(next(module.parameters()))


INITS = Registry("init", {"random": random, "kmeans": kmeans})
