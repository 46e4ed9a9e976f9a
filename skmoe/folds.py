"""Rows that a network, or each of its members, leaves out, and is judged by.

Member m learns from all rows but those of fold m, so that for each row there is an answer of
a member that has not seen it. The mean loss of these answers is an honest one: the best
moment to stop is known although no row is lost to the prediction, the mean of all members.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from skmoe.batches import Rows
from skmoe.shared_work import once

# Different rows in a fold, at least.
MIN_ROWS = 2


def leave_out(
    rows: Rows, n_members: int, generator: torch.Generator
) -> tuple[Rows, Rows] | None:
    """Rows to learn from, and the same rows to judge by; weights are of shape ``(T, M)``.

    Rows with the same features share a fold: what is known of one must not tell of another,
    and a row of weight two counts like a row twice.

    Parameters
    ----------
    rows : Rows
        All rows, with weights of shape ``(T,)``.
    n_members : int
        Number of folds M.
    generator : torch.Generator
        Decides which rows share a fold.

    Returns
    -------
    learned, judged : Rows
        Each member's weights to learn by have mean 1, and so have all weights to judge by.
        None if there are too few different rows.
    """
    kind_T = rows.x.unique(dim=0, return_inverse=True)[1]
    n_kinds = int(kind_T.max()) + 1
    if n_kinds < MIN_ROWS * n_members:
        return None
    order = torch.randperm(n_kinds, generator=generator, device=rows.x.device)
    out_TM = order[kind_T, None] % n_members == torch.arange(n_members, device=order.device)
    learned_TM = rows.weight[:, None] * ~out_TM
    judged_TM = rows.weight[:, None] * out_TM * n_members
    return (
        replace(rows, weight=learned_TM / learned_TM.mean(0)),
        replace(rows, weight=judged_TM),
    )


def hold_out(
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    share: float,
    random: np.random.RandomState,
) -> Any:
    """Rows to learn from, ``X, y, weight``, and as many arrays of the rows held out."""
    state: Any = random.get_state()
    name, numbers, *more = state
    parts, after = once(_hold_out, X, y, weight, share, name, numbers.tobytes(), *more)
    random.set_state(after)
    return *parts[0::2], tuple(parts[1::2])


def _hold_out(
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    share: float,
    name: str,
    numbers: bytes,
    *more: Any,
) -> Any:
    """The parts, and the state of the generator after it has drawn them."""
    random = np.random.RandomState()
    random.set_state((name, np.frombuffer(numbers, np.uint32), *more))
    parts = train_test_split(X, y, weight, test_size=share, random_state=random)
    return parts, random.get_state()
