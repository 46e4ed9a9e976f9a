"""Rows of several networks as their layers see them, once for those that see the same."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from skmoe.batches import Rows
from skmoe.kinds import describe
from skmoe.nn.base import Network

# Values that are kept throughout a training.
EMBEDDED = 2**27


def have_room(networks: Sequence[Network], all_rows: Sequence[Rows]) -> bool:
    """Whether what the layers see of all rows fits into memory."""
    different = set(_first_alike(networks, all_rows))
    values = (networks[m].embedding.output_dim * len(all_rows[m]) for m in different)
    return sum(values) <= EMBEDDED


@torch.no_grad()
def embedded(networks: Sequence[Network], all_rows: Sequence[Rows]) -> list[Rows]:
    """Rows as the layers of each network see them."""
    first, seen = _first_alike(networks, all_rows), dict[int, Tensor]()
    for m in set(first):
        network = networks[m]
        seen[m] = network.embedding(network.on_axes(all_rows[m].x))
    return [replace(rows, x=seen[m]) for rows, m in zip(all_rows, first, strict=True)]


def _first_alike(networks: Sequence[Network], all_rows: Sequence[Rows]) -> list[int]:
    """For each network, the place of the first one whose layers see the same rows."""
    different: dict[int, list[int]] = {}
    first = []
    for m, (network, rows) in enumerate(zip(networks, all_rows, strict=True)):
        of_these_rows = different.setdefault(id(rows.x), [])
        alike = (other for other in of_these_rows if _see_alike(networks[other], network))
        first.append(next(alike, m))
        if first[m] == m:
            of_these_rows.append(m)
    return first


def _see_alike(one: Network, other: Network) -> bool:
    """Whether the layers of two networks see the same of a row."""
    both = [torch.nn.ModuleList(filter(None, (n.axes, n.embedding))) for n in (one, other)]
    if describe(both[0]) != describe(both[1]):
        return False
    values = [(*modules.parameters(), *modules.buffers()) for modules in both]
    return all(torch.equal(*pair) for pair in zip(*values, strict=True))
