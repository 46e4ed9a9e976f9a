"""Scaling of features and targets, in float64 and with sample weights.

Features are centred at the median and divided by a robust spread; targets by mean and
standard deviation. All statistics depend on the weighted distribution only: a row of
weight two counts as two rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Interquartile range of a normal distribution with standard deviation 1.
NORMAL_IQR = 1.3489795
# The same for the range from the 2 % to the 98 % quantile.
NORMAL_BULK = 4.1074978
# Beyond this many scaled units features grow like a logarithm: an outlier then cannot
# dominate, and within it nothing is bent, so linear structure is kept.
LINEAR_RANGE = 5.0
# A spread below this share of the values' size is rounding, not information.
ROUNDING = 1e-13
VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Scaling:
    """``scaled = (value - center) / scale``, one number for each column.

    A constant column has ``scale = 0``: it is mapped to 0, and 0 back to its value.
    """

    center: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of_features(cls, X: np.ndarray, weight: np.ndarray) -> "Scaling":
        """Median and interquartile range; of a nearly constant column, a wider range."""
        levels = [0.02, 0.25, 0.5, 0.75, 0.98]
        lowest, low, center, high, highest = _by_blocks(
            X, lambda columns: weighted_quantiles(columns, weight, levels)
        )
        core, bulk = (high - low) / NORMAL_IQR, (highest - lowest) / NORMAL_BULK
        # Dividing by a core far narrower than the bulk would make the bulk huge. Outliers
        # are in neither; only where all else is constant do they give the scale.
        scale = np.where(core > 0.05 * bulk, core, bulk)
        if (flat := scale == 0).any():
            scale[flat] = _mean_and_deviation(X[:, flat], weight)[1]
        return cls(center, _zero_if_rounding(scale, center))

    @classmethod
    def of_targets(cls, y: np.ndarray, weight: np.ndarray) -> "Scaling":
        """Mean and standard deviation."""
        mean, deviation = _mean_and_deviation(y, weight)
        return cls(mean, _zero_if_rounding(deviation, mean))

    def apply(self, values: np.ndarray) -> NDArray[np.float64]:
        """Values to scaled values."""
        # In C order whatever comes in: products of tensors then round the same way.
        scaled = np.subtract(values, self.center, dtype=np.float64, order="C")
        scaled /= np.where(self.scale > 0, self.scale, 1.0)
        scaled[:, self.scale == 0] = 0.0
        return scaled

    def apply_softly(self, values: np.ndarray) -> NDArray[np.float64]:
        """Values of columns that vary to scaled values, with far outliers drawn in."""
        scaled = self.apply(values)
        if 0 < (n_varying := np.count_nonzero(self.scale)) < scaled.shape[1]:
            scaled = scaled[:, self.scale > 0]
        elif n_varying == 0:
            scaled = scaled[:, :1]  # a network needs an input, be it always 0
        excess = np.abs(scaled) - LINEAR_RANGE
        far = excess > 0
        if far.any():
            scaled[far] = np.sign(scaled[far]) * (LINEAR_RANGE + np.log1p(excess[far]))
        return scaled

    def invert(self, scaled: np.ndarray) -> NDArray[np.float64]:
        """Scaled values to values."""
        values = self.scale * scaled
        values += self.center
        return values


def _by_blocks(X: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What is computed for each column, a few at a time, as it takes copies in float64."""
    # Not one by one: sums of a single column round otherwise.
    n_blocks = min(-(-X.size // VALUES_AT_ONCE), max(X.shape[1] // 2, 1))
    blocks = np.array_split(X, n_blocks, axis=1)
    return np.concatenate([compute(block) for block in blocks], axis=-1)


def weighted_quantiles(
    X: np.ndarray, weight: np.ndarray, quantiles: Any
) -> NDArray[np.float64]:
    """Quantiles of each column of X, ``(len(quantiles), D)``, values that occur in it."""
    # In units of the smallest weight: cumulative sums of equal weights are then exact.
    weights = (
        None if _all_equal(weight) and len(X) > 10_000 else weight / weight[weight > 0].min()
    )
    # In their own precision, which is faster, as quantiles are values that occur.
    values = X if X.dtype == np.float32 else np.asarray(X, dtype=np.float64)
    found = np.quantile(values, quantiles, axis=0, weights=weights, method="inverted_cdf")
    return found.astype(np.float64, copy=False)


def _mean_and_deviation(values: np.ndarray, weight: np.ndarray) -> Any:
    """Weighted mean and standard deviation of each column, safe from overflow."""
    values = np.asarray(values, dtype=np.float64)
    size = np.abs(values).max(axis=0)
    size[size == 0] = 1.0
    unit = values / size
    mean = np.average(unit, axis=0, weights=weight)
    deviation = np.sqrt(np.average((unit - mean) ** 2, axis=0, weights=weight))
    return mean * size, deviation * size


def _zero_if_rounding(scale: np.ndarray, center: np.ndarray) -> Any:
    return np.where(scale > ROUNDING * np.abs(center), scale, 0.0)


def _all_equal(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())
