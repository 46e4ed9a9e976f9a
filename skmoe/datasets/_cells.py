"""Cells, the combinations of regions of several blocks, and rows in those that are seen."""

from collections.abc import Callable

import numpy as np

from skmoe.datasets._generation import check_real

MAX_CELLS = 10_000_000  # of a held-out draw, which lists all cells


def draw_cells(
    share: float, n_blocks: int, n_regions: int, generator: np.random.RandomState
) -> np.ndarray:
    """The held-out cells, shape (n_held, n_blocks).

    E cells in which every region of every block occurs once are always seen.
    """
    check_real("holdout_cells", share)
    if share == 0:
        return np.empty((0, n_blocks), dtype=np.int64)
    n_cells = n_regions**n_blocks
    if n_cells > MAX_CELLS:
        raise ValueError(
            f"holdout_cells needs n_regions ** n_blocks to be at most {MAX_CELLS}. "
            f"Got n_regions={n_regions} and n_blocks={n_blocks}."
        )
    n_held = max(1, round(share * n_cells))
    if n_held > n_cells - n_regions:
        raise ValueError(
            f"holdout_cells must be at most {1 - n_regions / n_cells:.3g} for "
            f"n_regions={n_regions} and n_blocks={n_blocks}, so that every region is in a "
            f"seen cell. Got holdout_cells={share!r}."
        )
    shape = (n_regions,) * n_blocks
    seen = np.ravel_multi_index([generator.permutation(n_regions) for _ in shape], shape)
    others = np.setdiff1d(np.arange(n_cells), seen)
    held = generator.choice(others, n_held, replace=False)
    return np.column_stack(np.unravel_index(np.sort(held), shape))


def draw_rows(
    n_seen: int,
    draw: Callable[[int], np.ndarray],
    regions: Callable[[np.ndarray], np.ndarray],
    held_cells: np.ndarray,
    n_regions: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows until `n_seen` of them are in seen cells, and which are not."""
    latent = draw(n_seen)
    holdout = _is_in(regions(latent), held_cells, n_regions)
    while (~holdout).sum() < n_seen:
        more = draw(n_seen)
        latent = np.vstack([latent, more])
        holdout = np.append(holdout, _is_in(regions(more), held_cells, n_regions))
    end = np.flatnonzero(~holdout)[n_seen - 1] + 1
    return latent[:end], holdout[:end]


def _is_in(regions: np.ndarray, cells: np.ndarray, n_regions: int) -> np.ndarray:
    """Which rows of `regions` are among `cells`."""
    if len(cells) == 0:
        return np.zeros(len(regions), dtype=bool)
    shape = (n_regions,) * cells.shape[1]
    ids = [np.ravel_multi_index(list(table.T), shape) for table in (regions, cells)]
    return np.isin(*ids)
