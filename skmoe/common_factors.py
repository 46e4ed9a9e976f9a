"""Few linear coordinates behind features that each have a noise of their own.

Measured features lie on no few axes exactly. If they tell of a few coordinates, and what else
there is in each of them is noise, factor analysis tells the coordinates best of all linear
maps: a feature counts for more, the less noise it has, whatever its units (Bartholomew, Knott
and Moustaki, 2011). Without noise the coordinates are the principal axes (`skmoe.axes`).
"""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skmoe.axes import Spectrum, axes_of, spectrum

# Factors stand out if the variance falls so much behind one of them. Weaker ones behind that.
STANDING_OUT, MAX_WEAK = 5.0, 3
# Features for each factor at least: fewer are hardly ever told from noise of their own.
FEATURES_PER_FACTOR = 4
# Largest variance along one axis of what factors leave, in units of that of noise alone.
MAX_LEFT = 1.5
# Largest share of what neighbours on the axes differ by in y that noise may tell.
MAX_TOLD = 0.1
# Rows to tell that by; with fewer than these, also for each feature, there are no factors.
MAX_ROWS, MIN_ROWS, ROWS_PER_FEATURE = 20_000, 1000, 10
# Differences in y are drawn in to this quantile: beside a jump they are large anyway.
CLIPPED = 0.95
# Variance that is nothing, not noise, in units of that of the largest axis.
LEAST_NOISE = 1e-12
MAX_STEPS = 100


def few_axes(X: np.ndarray, y: np.ndarray, weight: np.ndarray, most: int) -> Any:
    """Few coordinates that hold all that the rows tell; or all but noise.

    Parameters
    ----------
    X, weight, most
        As for `skmoe.axes.principal_axes`: scaled features, weights, largest number of axes.
    y : ndarray of shape (n_samples, n_outputs)
        Targets. What tells something of them is no noise.

    Returns
    -------
    axes, offset : ndarray of shape (n_features, n_axes) and (n_axes,)
        As of `skmoe.axes.principal_axes`; None without any.
    """
    features = spectrum(X, weight)
    exact = axes_of(features, X, weight, most)
    return common_factors(X, y, weight, most, features) if exact is None else exact


def common_factors(
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    most: int,
    features: Spectrum | None = None,
) -> Any:
    """Coordinates that features have in common, if all else in them is noise.

    Parameters and results are those of `few_axes`; `features` is the spectrum of the rows, if
    known. Distances are those between rows without their noise, up to one factor.
    """
    counted = np.flatnonzero(weight)
    n_rows, n_features = len(counted), X.shape[1]
    largest = min(most, n_features // FEATURES_PER_FACTOR)
    if largest < 1 or n_rows < max(MIN_ROWS, ROWS_PER_FEATURE * n_features):
        return None
    features = features or spectrum(X, weight)
    found = _loadings_and_noise(features, n_rows, largest)
    if found is None:
        return None
    axes = _coordinates(*found)
    some = counted[np.linspace(0, n_rows - 1, min(n_rows, MAX_ROWS)).astype(int)]
    if _noise_tells(X[some], y[some], axes):
        return None
    axes /= np.sqrt(np.trace(axes.T @ features.covariance @ axes) / axes.shape[1])
    return axes, -features.mean @ axes


def _loadings_and_noise(
    features: Spectrum, n_rows: int, largest: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Of as many factors as leave nothing but noise; None if none stand out, or others do."""
    _, covariance, variances, directions = features
    falling = np.maximum(variances[::-1], LEAST_NOISE * variances[-1])
    strong = np.flatnonzero(falling[:largest] >= STANDING_OUT * falling[1 : largest + 1]) + 1
    if not len(strong) or falling[strong[-1]] <= LEAST_NOISE * falling[0]:
        return None
    # Of noise alone the largest variance is at this edge (Marchenko and Pastur, 1967).
    edge = (1 + np.sqrt(len(covariance) / n_rows)) ** 2
    for n_factors in range(strong[-1], min(strong[-1] + MAX_WEAK, largest) + 1):
        loadings, noise = _factor_analysis(variances, directions, n_factors)
        left = (covariance - loadings.T @ loadings) / np.sqrt(np.outer(noise, noise))
        if np.linalg.eigvalsh(left)[-1] <= MAX_LEFT * edge:
            return loadings, noise
    return None


def _factor_analysis(
    variances: np.ndarray, directions: np.ndarray, n_factors: int
) -> tuple[np.ndarray, np.ndarray]:
    """Loadings ``(K, D)``, and the variance of the noise in each feature."""
    from sklearn.decomposition import FactorAnalysis

    # Nothing but the covariance counts, so a few rows with the same one do for all.
    root = np.sqrt(np.maximum(variances, 0.0))[:, None] * directions.T * len(variances) ** 0.5
    analysis = FactorAnalysis(n_factors, max_iter=MAX_STEPS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # noise may be nearly none: no end
        analysis.fit(np.vstack([root, -root]))
    noise = np.maximum(analysis.noise_variance_, LEAST_NOISE * variances[-1])
    return analysis.components_, noise


def _coordinates(loadings: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Principal axes of the rows as they are expected to be without their noise."""
    n_factors = len(loadings)
    precision = loadings / noise
    expected = precision.T @ np.linalg.inv(np.eye(n_factors) + precision @ loadings.T)
    _, _, principal = np.linalg.svd(loadings, full_matrices=False)
    return expected @ loadings @ principal[::-1].T  # in the order of `principal_axes`


def _noise_tells(X: np.ndarray, y: np.ndarray, axes: np.ndarray) -> bool:
    """Whether neighbours on the axes differ in y by what they differ by in their noise."""
    from sklearn.neighbors import NearestNeighbors

    X, first = np.unique(X, axis=0, return_index=True)
    y, seen = y[first], X @ axes
    near = NearestNeighbors(n_neighbors=2).fit(seen).kneighbors(seen)[1]
    one, other = np.unique(np.sort(near, axis=1), axis=0).T
    known = seen[one] - seen[other]
    differences = np.column_stack([known, X[one] - X[other]])
    gaps = y[one] - y[other]
    limit = np.quantile(np.abs(gaps), CLIPPED, axis=0)
    gaps = np.clip(gaps, -limit, limit)
    left, left_by_axes = _unexplained(differences, gaps), _unexplained(known, gaps)
    return bool((left < (1 - MAX_TOLD) * left_by_axes).any())


def _unexplained(differences: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Variance of gaps that no linear map of the differences tells, for each output."""
    solution, _, rank, _ = np.linalg.lstsq(differences, gaps, rcond=1e-9)
    degrees = max(len(gaps) - rank, 1)
    return np.square(gaps - differences @ solution).sum(0) / degrees
