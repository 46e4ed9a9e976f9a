"""Few linear coordinates that hold all that the rows tell, where there are such.

Features that are linear maps of a few coordinates, as those of a manifold in a small subspace
are, lie in the span of as few principal axes. Nothing is lost by looking at the rows in these,
and then it does not matter how many features there are.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from skmoe.scaling import LINEAR_RANGE, Scaling

# Axes with less than this share of the largest variance are rounding of features in float32.
FLAT = 1e-9
BLOCK_ROWS = 10_000
# Of very many rows, so many are different.
MAX_COUNTED = 20_000
# Beyond this many scaled units a row is an outlier, that must not set the scale of the others.
FARTHEST = 3 * LINEAR_RANGE


class Spectrum(NamedTuple):
    """Mean and covariance of features, and the variances along the principal axes."""

    mean: np.ndarray  # (n_features,)
    covariance: np.ndarray  # (n_features, n_features)
    variances: np.ndarray  # (n_features,), rising
    directions: np.ndarray  # (n_features, n_features), a column for each variance


def principal_axes(
    X: np.ndarray, weight: np.ndarray, most: int, scaling: Scaling | None = None
) -> Any:
    """Linear coordinates that hold all that the rows tell, if few of them do.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Scaled features, or with `scaling` features to be scaled.
    weight : ndarray of shape (n_samples,)
        Weights of the rows.
    most : int
        Largest number of axes that counts as few.
    scaling : Scaling, optional
        Of the features, softly. Takes no copy of all rows.

    Returns
    -------
    axes, offset : ndarray of shape (n_features, n_axes) and (n_axes,)
        The coordinates ``X @ axes + offset``, of mean 0 and mean variance 1. None unless
        there are at most `most`, and half as many as features and as different rows.
    """
    return axes_of(spectrum(X, weight, scaling), X, weight, most)


def axes_of(found: Spectrum, X: np.ndarray, weight: np.ndarray, most: int) -> Any:
    """The same, from the spectrum of these rows."""
    variances = found.variances
    kept = variances > FLAT * max(variances[-1], 0.0)
    n_axes = np.count_nonzero(kept)
    largest = min(most, len(variances) // 2)
    if not 0 < n_axes <= largest or 2 * n_axes > _count_distinct(X, weight):
        return None
    axes = found.directions[:, kept] / np.sqrt(variances[kept].mean())
    return axes, -found.mean @ axes


def spectrum(X: np.ndarray, weight: np.ndarray, scaling: Scaling | None = None) -> Spectrum:
    """Of features, as for `principal_axes`."""
    share = weight / weight.sum()
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(X), BLOCK_ROWS)]

    def rows(block: slice) -> np.ndarray:
        return X[block] if scaling is None else scaling.apply_softly(X[block])

    mean = np.sum([share[block] @ rows(block) for block in blocks], axis=0)
    covariance = np.zeros((len(mean), len(mean)))
    for block in blocks:
        centred = rows(block) - mean
        covariance += (centred * share[block, None]).T @ centred
    return Spectrum(mean, covariance, *np.linalg.eigh(covariance))


def _count_distinct(X: np.ndarray, weight: np.ndarray) -> int:
    """Number of different rows; of very many rows, simply their number."""
    return len(X) if len(X) > MAX_COUNTED else len(np.unique(X[weight > 0], axis=0))


def keep_straight(scaling: Scaling, X: np.ndarray, weight: np.ndarray, most: int) -> Scaling:
    """A scaling that draws no row in, if few axes hold the rows as long as none is.

    What is drawn in leaves the span of the axes. The more features there are, the more likely
    it is that some row is far out in one of them.

    Parameters
    ----------
    scaling : Scaling
        Of the features.
    X, weight, most
        As for `principal_axes`, X before scaling.

    Returns
    -------
    Scaling
        With wider scales where rows are beyond the linear range, or the very same: if none is,
        if one is so far out that it is an outlier, or if the rows do not lie on few axes.
    """
    present = X if (weight > 0).all() else X[weight > 0]
    span = np.maximum(present.max(0) - scaling.center, scaling.center - present.min(0))
    reach = np.divide(span, scaling.scale, out=np.zeros_like(span), where=scaling.scale > 0)
    if not LINEAR_RANGE < reach.max() <= FARTHEST:
        return scaling
    wide = replace(scaling, scale=scaling.scale * np.maximum(reach / LINEAR_RANGE, 1.0))
    return scaling if principal_axes(X, weight, most, wide) is None else wide
