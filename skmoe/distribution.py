"""Mixtures of normal distributions, one for each row: moments and draws."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import norm

# Between which a factor of the standard deviations is looked for.
LOG_FACTORS = (-1.0, 2.0)


class Distribution(NamedTuple):
    """``p(y | x) = sum_k w_k(x) prod_o N(y_o; mean_ko(x), std_ko(x)^2)`` of each row."""

    weights: NDArray[np.float64]
    """``(n, K)``, with sum one."""
    means: NDArray[np.float64]
    """``(n, K, n_outputs)``."""
    stds: NDArray[np.float64]
    """``(n, K, n_outputs)``."""


def moments(distribution: Distribution) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation, ``(n, n_outputs)`` each.

    Examples
    --------
    >>> import numpy as np
    >>> weights, means = np.array([[0.5, 0.5]]), np.array([[[0.0], [2.0]]])
    >>> two = Distribution(weights, means, np.zeros((1, 2, 1)))
    >>> [moment.tolist() for moment in moments(two)]
    [[[1.0]], [[1.0]]]
    """
    weights, means, stds = distribution
    mean = np.einsum("nk,nko->no", weights, means)
    apart = means - mean[:, None]  # differences, as squares of means would cancel
    variance = np.einsum("nk,nko->no", weights, stds**2 + apart**2)
    return mean, np.sqrt(variance)


def log_density(
    distribution: Distribution, y: NDArray[np.float64], factor: float = 1.0
) -> NDArray[np.float64]:
    """``log p(y | x)`` of each row, ``(n,)``, with all standard deviations times `factor`."""
    weights, means, stds = distribution
    stds = factor * stds
    parts = norm.logpdf(y[:, None], means, stds).sum(-1)
    return logsumexp(parts, axis=1, b=weights)


def calibrating_factor(
    distribution: Distribution, y: NDArray[np.float64], weight: NDArray[np.float64]
) -> float:
    """What standard deviations are to be multiplied with, by the likelihood of these rows.

    Those of rows that were learned from are too small, the more so the fewer there were.
    """

    def loss(log_factor: float) -> float:
        return -float(weight @ log_density(distribution, y, np.exp(log_factor)))

    return float(np.exp(minimize_scalar(loss, bounds=LOG_FACTORS, method="bounded").x))


def draw(
    distribution: Distribution, n_draws: int, random: np.random.RandomState
) -> NDArray[np.float64]:
    """Draws ``(n, n_draws, n_outputs)``: of a component first, then of its normal numbers."""
    weights, means, stds = distribution
    levels = weights.cumsum(1)
    levels /= levels[:, -1:]
    uniform = random.uniform(size=(len(weights), n_draws))
    component = (uniform[..., None] > levels[:, None]).sum(-1)
    rows = np.arange(len(weights))[:, None]
    normal = random.standard_normal((*component.shape, means.shape[2]))
    return means[rows, component] + stds[rows, component] * normal
