"""Batches that do not fit into memory, part by part."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from skmoe.batches import Batch

# Halvings of a batch, after which memory is too short for anything.
MAX_HALVINGS = 5


class Parts:
    """In how many parts batches are taken: one, and twice as many each time memory is short.

    Gradients of the parts add up to that of the batch, to rounding. What looks at a batch as a
    whole, as auxiliary losses do, looks at its parts then.
    """

    def __init__(self) -> None:
        self.n = 1

    def of(
        self, batch: Batch, work: Callable[[Batch, float], Any], begin: Callable[[], Any]
    ) -> list[Any]:
        """What `work` gives for each part of the batch and its share of the rows.

        It starts again, with `begin`, in smaller parts if memory does not suffice.
        """
        while True:
            begin()
            try:
                if self.n == 1:
                    return [work(batch, 1.0)]
                n_rows = len(batch[1])
                return [work(part, len(part[1]) / n_rows) for part in self._split(batch)]
            except torch.OutOfMemoryError:
                if self.n == 2**MAX_HALVINGS:
                    raise
            # Not in the handler: until it ends, there are still the tensors of what failed.
            self.n *= 2
            warnings.warn(
                f"Memory does not suffice for batches of {len(batch[1])} rows: they are now "
                f"computed in {self.n} parts.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _split(self, batch: Batch) -> list[Batch]:
        (x, weight), y = batch
        split = (rows.tensor_split(self.n) for rows in (x, weight, y))
        return [((x, w), y) for x, w, y in zip(*split, strict=True) if len(y)]
