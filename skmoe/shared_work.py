"""Work that fits share which run side by side on the same rows.

Candidates of a search learn from the same folds, so each of them would scale the same rows,
find the same quantiles and so on. `once` does such work for the first of them, and the others
take what came of it: they must not change it. A fit that runs by itself shares with nobody.
"""

from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch

# By value; whatever else is the same only if it is the very same object.
PLAIN = str, bytes, int, float, bool, type(None), torch.dtype, torch.device


class SharedWork:
    """What fits have found out so far."""

    def __init__(self) -> None:
        self.arrays: dict[Hashable, list[np.ndarray]] = {}
        self.found: dict[Hashable, Any] = {}
        self.kept: list[Any] = []

    def same(self, array: np.ndarray) -> np.ndarray:
        """The first array with these values; of no other is a copy kept."""
        head = array[:1].tobytes()
        like = self.arrays.setdefault((array.shape, array.strides, array.dtype, head), [])
        for known in like:
            if known is array or np.array_equal(known, array):
                return known
        like.append(array)
        return array

    def once(self, compute: Callable[..., Any], *arguments: Any) -> Any:
        """What `compute` gives for these arguments, the first time that it is asked."""
        names = [a if isinstance(a, PLAIN) else id(a) for a in arguments]
        key = compute, *((type(a), name) for a, name in zip(arguments, names, strict=True))
        if key not in self.found:
            self.kept.append(arguments)  # an id is that of another object after its own is gone
            self.found[key] = compute(*arguments)
        return self.found[key]


# Of the fits that run side by side now.
SHARED: ContextVar[SharedWork | None] = ContextVar("SHARED", default=None)


def same(array: np.ndarray) -> np.ndarray:
    """An array with these values, the same one for all fits that run side by side."""
    shared = SHARED.get()
    return array if shared is None else shared.same(array)


def once(compute: Callable[..., Any], *arguments: Any) -> Any:
    """``compute(*arguments)``, computed once for all fits that run side by side.

    Arguments are the same if they are the same object, or plain equal values; see `same`.
    """
    shared = SHARED.get()
    return compute(*arguments) if shared is None else shared.once(compute, *arguments)
