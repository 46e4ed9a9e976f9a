"""Rows of several networks as their layers see them, once for those that see the same."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from skmoe.batches import Rows
from skmoe.kinds import describe
from skmoe.nn.base import Network

# Values that are kept throughout a training.
EMBEDDED = 2**27


def sight(network: Network) -> Hashable:
    """What decides what the layers of a network see of a row."""
    before_layers = nn.ModuleList(filter(None, (network.axes, network.embedding)))
    tensors = [*before_layers.parameters(), *before_layers.buffers()]
    if not tensors:
        return type(network.embedding)
    values = (tensor.detach().cpu().numpy().tobytes() for tensor in tensors)
    return str(describe(before_layers)), *values


def have_room(
    networks: Sequence[Network], sights: Sequence[Hashable], all_rows: Sequence[Rows]
) -> bool:
    """Whether what the layers see of all rows fits into memory."""
    different = set(_first_alike(sights, all_rows))
    values = (networks[m].embedding.output_dim * len(all_rows[m]) for m in different)
    return sum(values) <= EMBEDDED


@torch.no_grad()
def embedded(
    networks: Sequence[Network], sights: Sequence[Hashable], all_rows: Sequence[Rows]
) -> list[Rows]:
    """Rows as the layers of each network see them."""
    first, seen = _first_alike(sights, all_rows), dict[int, Tensor]()
    for m in set(first):
        network = networks[m]
        seen[m] = network.embedding(network.on_axes(all_rows[m].x))
    return [replace(rows, x=seen[m]) for rows, m in zip(all_rows, first, strict=True)]


def _first_alike(sights: Sequence[Hashable], all_rows: Sequence[Rows]) -> list[int]:
    """For each network, the place of the first one whose layers see the same rows."""
    firsts: dict[Hashable, int] = {}
    keys = ((id(rows.x), sight) for rows, sight in zip(all_rows, sights, strict=True))
    return [firsts.setdefault(key, m) for m, key in enumerate(keys)]
