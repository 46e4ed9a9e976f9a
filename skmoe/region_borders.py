"""Borders between known regions, as scores for a gate: straight ones, and of what degree.

The rest of the training moves borders to where they belong: one that is straight, or as good as
a polynomial of low degree, has so few weights that all rows along it tell its place. That is
what an expert for each region has over a dense net.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from skmoe.cuts import NOWHERE

# Inverse penalty of the logistic regression: nearly none, as regions do not overlap.
CERTAINTY = 1e3
# Borders are curved if polynomials of a higher degree leave less than this share of what is on
# the wrong side of straight ones; and if that is more than so much of all rows.
CURVED, LEAST_WRONG = 0.5, 0.0005
# Largest degree, and number of coefficients: a regression takes the cube of that.
MAX_DEGREE, MAX_UNKNOWNS = 3, 300

Scores = TypeVar("Scores")


def straight_borders(
    coordinates: np.ndarray, labels: np.ndarray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear scores of the regions, the largest in each of them its own.

    Parameters
    ----------
    coordinates : ndarray of shape (n, d)
        What a gate sees.
    labels : ndarray of shape (n,)
        Region of each row, at least two of them, or -1.

    Returns
    -------
    slopes : ndarray of shape (n_regions, d)
        In such units that the scores of two regions typically differ by one over one standard
        deviation of the coordinates.
    offsets : ndarray of shape (n_regions,)
        Scores at the origin.
    """
    from sklearn.linear_model import LogisticRegression

    known = labels != NOWHERE
    fit = LogisticRegression(C=CERTAINTY, max_iter=1000).fit(coordinates[known], labels[known])
    slopes, offsets = of_each_region(fit)
    unit = typical_difference(slopes) * np.sqrt(coordinates.var(axis=0).mean())
    return slopes / unit, offsets / unit


def of_each_region(regression: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slopes and offsets of a logistic regression, of which two regions have but one."""
    slopes, offsets = regression.coef_, regression.intercept_
    if len(slopes) == 1:
        return np.vstack([-slopes, slopes]) / 2, np.r_[-offsets, offsets] / 2
    return slopes, offsets


def polynomials(coordinates: np.ndarray, degree: int) -> NDArray[np.float64]:
    """Products of up to so many coordinates, in which scores of curved borders are linear."""
    from sklearn.preprocessing import PolynomialFeatures

    if degree == 1:
        return coordinates
    return PolynomialFeatures(degree, include_bias=False).fit_transform(coordinates)


def degree_of(n_products: int, n_coordinates: int) -> int:
    """Of `polynomials` of so many coordinates, if there are so many products."""
    degrees = range(1, MAX_DEGREE + 1)
    return next(d for d in degrees if math.comb(n_coordinates + d, d) > n_products)


def most_curved(n_coordinates: int, n_regions: int) -> int:
    """Largest degree of borders whose scores have not too many coefficients."""
    sizes = {d: math.comb(n_coordinates + d, d) for d in range(2, MAX_DEGREE + 1)}
    return max([1, *(d for d, size in sizes.items() if n_regions * size <= MAX_UNKNOWNS)])


def least_curved(
    fit: Callable[[int], Scores], left: Callable[[Scores, int], float], most: int
) -> tuple[Scores, int]:
    """Scores of the smallest degree that no larger one clearly betters.

    Parameters
    ----------
    fit : callable
        degree -> scores.
    left : callable
        (scores, degree) -> share of the rows, or of their weight, on the wrong side.
    most : int
        Largest degree.

    Returns
    -------
    scores, degree
    """
    best, degree = fit(1), 1
    wrong = left(best, 1) if most > 1 else 0.0
    for curved in range(2, most + 1):
        if wrong <= LEAST_WRONG:
            break
        other = fit(curved)
        if (share := left(other, curved)) < CURVED * wrong:
            best, degree, wrong = other, curved, share
    return best, degree


def typical_difference(slopes: np.ndarray) -> float:
    """Median length of the difference between the slopes of two regions, ``(n_regions, d)``."""
    apart = np.linalg.norm(slopes[:, None] - slopes, axis=-1)
    return float(np.median(apart[np.triu_indices(len(apart), 1)]))
