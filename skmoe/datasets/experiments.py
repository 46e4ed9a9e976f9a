"""Generators of the two experiments of Wang & E (2025), section 6.

Contract. As in `generators`: ``(X, y)``, or a `Bunch` that also knows the truth.
"""

from typing import Any

import numpy as np

from skmoe._registry import Spec
from skmoe.datasets._generation import Seed, check_integer, deliver, streams_of
from skmoe.datasets.manifolds import Circle, build_embedding
from skmoe.datasets.targets import COMBINERS, Composition, CubePieces


def make_circle_regression(
    n_samples: int,
    *,
    n_features: int = 16,
    embedding: Spec | None = "zero_padding",
    noise: float = 0.0,
    return_X_y: bool = True,
    random_state: Seed = None,
    task_random_state: Seed = None,
) -> Any:
    """Experiment I of Wang & E (2025): ``y = sin(5 x_1) + cos(3 x_2)`` on the unit circle.

    The circle lies in the first two of D coordinates, the others are 0. The paper leaves open
    how points are drawn and how errors are counted. Here points are uniform on the circle;
    compare errors as mean squared error in units of y.

    Parameters
    ----------
    n_samples : int
        Number of rows.
    n_features : int, default=16
        Number of features D, at least 2. The paper has 16, 32, 64 and 128.
    embedding : {"zero_padding", "rotation", "nonlinear"}, part or class, \
            default="zero_padding"
        The paper's padding makes D invisible to any model; the others mix all features.
    noise : float, default=0.0
        Standard deviation of the normal noise added to y, in units of y.
    return_X_y : bool, default=True
        False for a `Bunch`.
    random_state : int, RandomState or None, default=None
        Decides the rows and the embedding. None draws afresh and leaves NumPy's global state
        alone.
    task_random_state : int, RandomState or None, default=None
        Decides the embedding alone, as in `make_manifold_regression`.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
        Instead, with ``return_X_y=False``, one `Bunch` with data, target, latent (the angle,
        shape (n_samples, 1)), regions (all 0, shape (n_samples, 1): the target is smooth),
        noise_free_target, rotation (shape (n_features, 2)) and DESCR.

    Raises
    ------
    ValueError
        If a number is out of range or a name is unknown.

    References
    ----------
    Wang & E (2025), arXiv 2505.24205, section 6, experiment I.

    Examples
    --------
    >>> import numpy as np
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(100, n_features=32, random_state=0)
    >>> X.shape, bool(np.allclose(y, np.sin(5 * X[:, 0]) + np.cos(3 * X[:, 1])))
    ((100, 32), True)
    """
    check_integer("n_samples", n_samples, 1)
    streams = streams_of(random_state, task_random_state)
    circle = Circle()
    embed = build_embedding(
        embedding, circle.ambient_dim, n_features, circle.title, streams.embedding
    )
    latent = circle.sample(n_samples, streams.rows)
    points = circle.embed(latent)
    return deliver(
        embed(points),
        np.sin(5 * points[:, 0]) + np.cos(3 * points[:, 1]),
        noise,
        streams.noise,
        return_X_y,
        latent=latent,
        regions=np.zeros((n_samples, 1), dtype=np.int64),
        rotation=embed.rotation,
        DESCR="sin(5 x_1) + cos(3 x_2) on the unit circle "
        f"in R^{n_features}; Wang & E (2025), arXiv 2505.24205, experiment I.",
    )


def make_cube_regression(
    n_samples: int,
    *,
    combine: Spec = "sum",
    n_blocks: int = 2,
    n_regions: int = 3,
    noise: float = 0.0,
    return_X_y: bool = True,
    random_state: Seed = None,
    task_random_state: Seed = None,
) -> Any:
    """Experiment II of Wang & E (2025): a piecewise polynomial on [0, E]^L.

    Each coordinate has E pieces, ``f_i(z) = i (i - 1 - z)^2 (z - i)^2`` on [i - 1, i], so
    that there are E^L cubes. The paper leaves open how the coordinates are combined, how
    points are drawn and how errors are counted. Here coordinates are summed unless told
    otherwise and points are uniform; compare errors as mean squared error in units of y.

    Parameters
    ----------
    n_samples : int
        Number of rows.
    combine : {"sum", "vector", "product", "sine", "network"}, part or class, default="sum"
        As in `make_compositional_regression`, but "product" is the plain ``prod_l f_l``.
    n_blocks : int, default=2
        Number of coordinates L.
    n_regions : int, default=3
        Number of pieces E per coordinate.
    noise : float, default=0.0
        Standard deviation of the normal noise added to y, in units of y.
    return_X_y : bool, default=True
        False for a `Bunch`.
    random_state : int, RandomState or None, default=None
        Decides the rows (and the network of ``combine="network"``). None draws afresh and
        leaves NumPy's global state alone.
    task_random_state : int, RandomState or None, default=None
        Decides that network alone, as in `make_compositional_regression`.

    Returns
    -------
    X : ndarray of shape (n_samples, n_blocks)
    y : ndarray of shape (n_samples,) or, for "vector", (n_samples, n_blocks)
        Instead, with ``return_X_y=False``, one `Bunch` with data, target, latent (X again),
        regions (int, shape (n_samples, n_blocks), from 0), block_values (the f_l, shape
        (n_samples, n_blocks)), noise_free_target and DESCR.

    Raises
    ------
    ValueError
        If a number is out of range or a name is unknown.

    References
    ----------
    Wang & E (2025), arXiv 2505.24205, section 6, experiment II.

    Examples
    --------
    >>> from skmoe.datasets import make_cube_regression
    >>> X, y = make_cube_regression(100, random_state=0)
    >>> X.shape, y.shape
    ((100, 2), (100,))
    """
    check_integer("n_samples", n_samples, 1)
    check_integer("n_blocks", n_blocks, 1)
    check_integer("n_regions", n_regions, 1)
    streams = streams_of(random_state, task_random_state)
    combiner = COMBINERS.build(
        combine, n_blocks=n_blocks, bounded=False, generator=streams.target
    )
    function = Composition([CubePieces(n_regions)] * n_blocks, combiner)
    latent = streams.rows.uniform(0, n_regions, (n_samples, n_blocks))
    return deliver(
        latent.copy(),
        function(latent),
        noise,
        streams.noise,
        return_X_y,
        latent=latent,
        regions=function.regions(latent),
        block_values=function.block_values(latent),
        DESCR=f"i (i - 1 - z)^2 (z - i)^2 on [i - 1, i], combined by {combine!r}, on "
        f"[0, {n_regions}]^{n_blocks}; Wang & E (2025), arXiv 2505.24205, experiment II.",
    )
