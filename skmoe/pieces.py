"""The pieces of a function between its jumps, told by its values alone, without a fit.

Where rows are dense and values hardly noisy, neighbours tell the gradients of a function: the
slopes of a plane through a row that fits most of its neighbours well, and those across a
border not at all. With these gradients `skmoe.regions` finds what lies in between the cuts.
Three steps make its regions exact:

1. Rows beside a border join the region that continues to them with the least miss.
2. Slopes are fitted anew, to neighbours of the same region, and regions found again.
3. Neighbouring regions are one piece unless many of the edges between them are cut.

A rough fit (`skmoe.regions.find_regions`) bears more noise, but blurs jumps over the distance
of a few rows, which is where borders are told.
"""

import numpy as np
from numpy.typing import NDArray

from skmoe.cuts import (
    NEIGHBOURS,
    between_cuts,
    grown,
    largest_miss,
    merged,
    misses,
    nearest,
    spread_of,
    with_islands,
)

# Neighbours that tell a gradient, for each coordinate. In more coordinates they are far away.
NEAR = 4
MAX_COORDINATES = 8
# Steps of the robust fit of the first slopes, which counts absolute errors; ridge penalties of
# it and of the others, in units of the mean square of a coordinate.
ROBUST_STEPS, ROBUST_RIDGE, RIDGE = 8, 1e-2, 1e-3
# Errors of the robust fit that count alike: in units of the spread of rises, and of the median.
SMALL, USUAL = 1e-3, 0.1
READINGS = 3
# Smallest piece, as a share of the rows: one that is missed spoils a fit. Of few rows it is
# so many, or that share.
SMALLEST_SHARE, ENOUGH, FEW_ROWS = 0.004, 40, 0.01
# An edge is cut if gradients miss its rise by this many times what they miss on most edges, and
# by that share of the spread of the values: lower jumps do no harm. If the former is a large
# part of the spread, there is noise, or rows are too few.
CUT_FACTOR = 3.0
SMALLEST_CUT, LARGEST_CUT = 0.02, 0.15
# If it is below this share, rows are so dense that borders of pieces are cut almost everywhere.
SHARP_CUT = 0.04


def find_pieces(
    coordinates: np.ndarray, values: np.ndarray, most: int | None = None
) -> NDArray[np.intp] | None:
    """The pieces of a function with jumps.

    Parameters
    ----------
    coordinates : ndarray of shape (n, d)
        Rows of the function's domain.
    values : ndarray of shape (n, q)
        Its values, in units in which all of them count the same.
    most : int, optional
        If there are more pieces than this, small ones are part of a neighbour unless the border
        is clear, as everywhere where rows are dense: where a function waves wildly, some
        are none.

    Returns
    -------
    ndarray of shape (n,) or None
        Piece of each row, from 0; -1 for rows that no piece reaches. None if the function
        has no jumps, or if noise or the distance of rows hide them.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.RandomState(0).rand(2000, 2)
    >>> step = z[:, 0] > 0.25
    >>> pieces = find_pieces(z, np.sin(z[:, 1:]) + step[:, None])
    >>> print(pieces.max(), np.mean((pieces == 0) == step).round(2))
    1 1.0
    """
    n, d = coordinates.shape
    if d > MAX_COORDINATES or n <= NEAR * d:
        return None
    near = nearest(coordinates, NEAR * d)
    steps, rises = coordinates[near] - coordinates[:, None], values[near] - values[:, None]
    slopes = _robust_slopes(steps, rises)
    neighbours = near[:, : NEIGHBOURS + 2 * d]
    spread = spread_of(values)
    smallest = max(SMALLEST_SHARE * n, min(ENOUGH, FEW_ROWS * n))
    best, n_found = None, 0
    for _ in range(READINGS):
        missed = misses(coordinates, values, slopes, neighbours)
        limit = max(largest_miss(missed, values, CUT_FACTOR), SMALLEST_CUT * spread)
        cut = missed > limit
        labels = between_cuts(coordinates, neighbours, cut, smallest)
        if labels is None:
            break
        labels = grown(with_islands(labels, neighbours, cut, smallest), neighbours, missed)
        if labels.max() >= n_found and limit <= LARGEST_CUT * spread:
            best, n_found = (labels, cut, limit <= SHARP_CUT * spread), labels.max()
        slopes = _slopes(labels[near] == labels[:, None], steps, rises, RIDGE)
    if best is None:
        return None
    labels, cut, is_dense = best
    pieces = merged(labels, neighbours, cut, clear=is_dense)
    if most is not None and pieces.max() >= most:
        pieces = merged(pieces, neighbours, cut, clear=True)
    return pieces if pieces.max() > 0 else None


def _slopes(
    weight: np.ndarray, steps: np.ndarray, rises: np.ndarray, ridge: float
) -> NDArray[np.float64]:
    """Slopes ``(n, q, d)`` of the planes through each row that fit its neighbours best."""
    squares = np.einsum("nk,nkd,nke->nde", weight, steps, steps)
    d = steps.shape[2]
    size = np.trace(squares, axis1=1, axis2=2) / d
    smallest = np.finfo(float).tiny ** 0.5  # for rows at one place, or without a neighbour
    squares += (ridge * size + smallest)[:, None, None] * np.eye(d)
    products = np.einsum("nk,nkd,nkq->ndq", weight, steps, rises)
    return np.linalg.solve(squares, products).transpose(0, 2, 1)


def _robust_slopes(steps: np.ndarray, rises: np.ndarray) -> NDArray[np.float64]:
    """Slopes with the least absolute errors, by weights that fall with the error."""
    slopes = []
    for rise in rises.transpose(2, 0, 1):
        weight = np.ones_like(rise)
        for _ in range(ROBUST_STEPS):
            slope = _slopes(weight, steps, rise[..., None], ROBUST_RIDGE)
            error = np.abs(rise - np.einsum("nqd,nkd->nk", slope, steps))
            small = SMALL * rise.std() + USUAL * np.median(error)
            weight = 1 / np.maximum(error + small, np.finfo(float).tiny)
        slopes.append(slope)
    return np.concatenate(slopes, axis=1)
