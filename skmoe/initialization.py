"""Starting points that look at the data. They depend on the weighted distribution only."""

import numpy as np

from skmoe.scaling import weighted_quantiles

# Edges closer than this, in scaled units, would make a bin so steep that it is noise.
MIN_BIN_WIDTH = 1e-3


def quantile_bins(X, weight, n_bins: int) -> list[list[float]]:
    """Edges of up to `n_bins` bins for each column of the scaled features, at quantiles.

    Columns with few distinct values get fewer bins, constant ones none.
    """
    edges = weighted_quantiles(X, weight, np.linspace(0, 1, n_bins + 1))
    return [_distinct(column) for column in edges.T]


def _distinct(edges) -> list[float]:
    """Increasing values without near duplicates."""
    kept = [float(edges[0])]
    for edge in edges[1:]:
        if edge - kept[-1] > MIN_BIN_WIDTH:
            kept.append(float(edge))
    return kept
