"""Generators: ``make_*``, data sets with a known structure.

Contract. A generator returns ``(X, y)``, or with ``return_X_y=False`` a `Bunch` that also
knows the truth. Two things are random: the *task* (function, surface, rotation, held-out
cells) and the *rows* drawn from it. `random_state` decides both; with `task_random_state`
it decides the rows alone, so that two calls can draw fresh rows of one task. The function
does not depend on the embedding: same seed, same y, for every `n_features`.
"""

from typing import Any

import numpy as np

from skmoe._registry import Spec
from skmoe.datasets._cells import draw_cells, draw_rows
from skmoe.datasets._generation import Seed, check_integer, check_real, deliver, streams_of
from skmoe.datasets.manifolds import MANIFOLDS, Manifold, build_embedding
from skmoe.datasets.targets import COMBINERS, PIECES, TARGETS, Composition

BLOCK_FREQUENCY = 12.0  # waves of a block: at most two periods across it


def make_manifold_regression(
    n_samples: int,
    *,
    manifold: Spec = "torus",
    intrinsic_dim: int | None = None,
    n_features: int | None = None,
    embedding: Spec | None = None,
    target: Spec = "pieces",
    n_pieces: int = 4,
    noise: float = 0.0,
    off_manifold_noise: float = 0.0,
    return_X_y: bool = True,
    random_state: Seed = None,
    task_random_state: Seed = None,
) -> Any:
    """Regression on a manifold of low dimension d among D features.

    Parameters
    ----------
    n_samples : int
        Number of rows.
    manifold : {"circle", "sphere", "torus", "swiss_roll", "moebius", "surface"}, \
            part or class, default="torus"
        Where X lives. Rows are uniform on the manifold ("surface": over its base).
    intrinsic_dim : int, optional
        Dimension d of a sphere, flat torus or random surface; 2 by default. The others have
        their own.
    n_features : int, optional
        Number of features D. By default that of the manifold's own space: 2 for the circle,
        d + 1 for sphere and surface, 2 d for the torus, 3 for the others.
    embedding : {"zero_padding", "rotation", "nonlinear"}, part or class, optional
        How the manifold is placed among the features. "rotation" keeps all distances,
        "nonlinear" bends as well but stays injective. By default "rotation" if `n_features`
        is given, else the manifold stays in its own space.
    target : {"pieces", "smooth", "smooth_pieces"}, part or class, default="pieces"
        "smooth": a sum of 40 random waves up to frequency 6. "pieces": `n_pieces` Voronoi
        regions, each with a smooth function of its own (three such waves and an offset), and
        jumps between them. "smooth_pieces": the same pieces, joined smoothly.
    n_pieces : int, default=4
        Number of regions of a target with pieces.
    noise : float, default=0.0
        Standard deviation of the normal noise added to y, in units of y. The targets' own
        standard deviation is near 1.
    off_manifold_noise : float, default=0.0
        Standard deviation of the normal noise added to every feature.
    return_X_y : bool, default=True
        False for a `Bunch`.
    random_state : int, RandomState or None, default=None
        Decides the task and the rows. None draws afresh and leaves NumPy's global state
        alone.
    task_random_state : int, RandomState or None, default=None
        Decides the task alone. Give the same int, and different `random_state`, for training
        and test rows of one task. None: `random_state` decides the task too, as if its int
        had been given here.

    Returns
    -------
    X : ndarray of shape (n_samples, D)
    y : ndarray of shape (n_samples,)
        Instead, with ``return_X_y=False``, one `Bunch` with

        - data, target: X and y
        - latent: ndarray of shape (n_samples, d), the intrinsic coordinates
        - coordinates: ndarray of shape (n_samples, q), what the target is a function of:
          points of a sphere or a Moebius strip in its own space, else latent
        - function: callable, from coordinates to the target without noise
        - regions: int ndarray of shape (n_samples, 1), the id of the true piece
        - noise_free_target: ndarray of shape (n_samples,)
        - rotation: ndarray of shape (D, a) with orthonormal columns; without noise
          ``data = points @ rotation.T`` in a linear embedding, for the points in the
          manifold's own space of dimension a
        - DESCR: str

    Raises
    ------
    ValueError
        If a number is out of range, a name is unknown, or `n_features` is too small for the
        manifold.

    References
    ----------
    Wang & E (2025), "On the Expressive Power of Mixture-of-Experts for Structured Complex
    Tasks", arXiv 2505.24205, section 4.

    Examples
    --------
    >>> from skmoe.datasets import make_manifold_regression
    >>> settings = {"manifold": "torus", "n_features": 16, "task_random_state": 0}
    >>> X, y = make_manifold_regression(200, **settings, random_state=1)
    >>> X_test, y_test = make_manifold_regression(50, **settings, random_state=2)
    >>> X.shape, y.shape, X_test.shape
    ((200, 16), (200,), (50, 16))
    """
    check_integer("n_samples", n_samples, 1)
    check_integer("n_pieces", n_pieces, 1)
    check_real("off_manifold_noise", off_manifold_noise)
    streams = streams_of(random_state, task_random_state)
    surface = _build_manifold(manifold, intrinsic_dim, streams.shape)
    probe = surface.coordinates(surface.sample(_probe_size(n_pieces), streams.target))
    function = TARGETS.build(
        target, probe, surface.periods, n_pieces=n_pieces, generator=streams.target
    )
    embed = build_embedding(
        embedding, surface.ambient_dim, n_features, surface.title, streams.embedding
    )

    latent = surface.sample(n_samples, streams.rows)
    X = embed(surface.embed(latent))
    X += off_manifold_noise * streams.off_manifold.standard_normal(X.shape)
    u = surface.coordinates(latent)
    return deliver(
        X,
        function(u),
        noise,
        streams.noise,
        return_X_y,
        latent=latent,
        coordinates=u,
        function=function,
        regions=function.regions(u).reshape(-1, 1),
        rotation=embed.rotation,
        DESCR=f"A target {target!r} on {surface.title}, d = {surface.intrinsic_dim}, "
        f"in R^{X.shape[1]} ({type(embed).__name__}).",
    )


def make_compositional_regression(
    n_samples: int,
    *,
    n_blocks: int = 3,
    n_regions: int = 4,
    block_dim: int = 2,
    pieces: Spec = "jump",
    combine: Spec = "product",
    n_features: int | None = None,
    embedding: Spec | None = None,
    noise: float = 0.0,
    holdout_cells: float = 0.0,
    return_X_y: bool = True,
    random_state: Seed = None,
    task_random_state: Seed = None,
) -> Any:
    """L blocks with E regions each: L E functions make a target of E^L pieces.

    The latent point is ``x = (x_1, ..., x_L)``, uniform in the unit cube. Block l has E
    Voronoi regions of its x_l and a function ``g_l``, which in each region is a sum of three
    random waves (up to frequency 12, two periods across the block) plus an offset. The
    target is ``y = combine(g_1(x_1), ..., g_L(x_L))``.

    Parameters
    ----------
    n_samples : int
        Number of rows.
    n_blocks : int, default=3
        Number of blocks L.
    n_regions : int, default=4
        Number of regions E of each block.
    block_dim : int, default=2
        Dimension of each x_l.
    pieces : {"jump", "smooth"}, part or class, default="jump"
        Whether the pieces of a block jump where they meet, or join smoothly.
    combine : {"vector", "sum", "product", "sine", "network"}, part or class, \
            default="product"
        "vector": y is g itself, one output per block. "sum": ``sum_l g_l``. "product":
        ``prod_l (1 + tanh(g_l) / 2)``. "sine": of the sum, over about two periods.
        "network": a small random tanh network of g.
    n_features : int, optional
        Number of features D, at least ``n_blocks * block_dim``. By default X is the latent
        point.
    embedding : {"zero_padding", "rotation", "nonlinear"}, part or class, optional
        How the latent point is placed among the features; by default "rotation" if
        `n_features` is given.
    noise : float, default=0.0
        Standard deviation of the normal noise added to y, in units of y.
    holdout_cells : float in [0, 1), default=0.0
        Share of the E^L cells (combinations of regions) that ``(X, y)`` has no rows of. Every
        region of every block still has some. Whether a model recombines what it knows of
        blocks shows on the held-out cells, which are in the `Bunch`.
    return_X_y : bool, default=True
        False for a `Bunch`.
    random_state : int, RandomState or None, default=None
        Decides the task and the rows. None draws afresh and leaves NumPy's global state
        alone.
    task_random_state : int, RandomState or None, default=None
        Decides the task alone, held-out cells included. Give the same int, and different
        `random_state`, for training and test rows of one task. None: `random_state` decides
        the task too, as if its int had been given here.

    Returns
    -------
    X : ndarray of shape (n_samples, D)
    y : ndarray of shape (n_samples,) or, for "vector", (n_samples, n_blocks)
        Instead, with ``return_X_y=False``, one `Bunch` of n rows with

        - data, target: X and y
        - latent: ndarray of shape (n, n_blocks * block_dim)
        - regions: int ndarray of shape (n, n_blocks), true region of each block
        - holdout: bool ndarray of shape (n,), which rows are in held-out cells
        - holdout_cells: int ndarray of shape (n_cells, n_blocks), the held-out cells
        - block_values: ndarray of shape (n, n_blocks), the g_l
        - function: callable, from latent to the target without noise; its `blocks` are the g_l,
          of columns of their own, and it combines them by its `combine`
        - noise_free_target: ndarray of the shape of target
        - rotation: ndarray of shape (D, n_blocks * block_dim)
        - DESCR: str

        Its n is `n_samples` rows of seen cells, those of ``(X, y)`` in the same order, and
        the held-out rows that uniform sampling drew among them: with a quarter of the cells
        held out, near ``n_samples / 3`` more. Without `holdout_cells`, n is `n_samples`.

    Raises
    ------
    ValueError
        If a number is out of range, a name is unknown, `n_features` is too small, or so many
        cells are held out that a region would be in none of the seen ones.

    References
    ----------
    Wang & E (2025), arXiv 2505.24205, section 5 (compositional sparsity).

    Examples
    --------
    >>> from skmoe.datasets import make_compositional_regression
    >>> data = make_compositional_regression(
    ...     600, n_features=16, holdout_cells=0.25, return_X_y=False, random_state=0
    ... )
    >>> data.data.shape[1], data.regions.shape[1], len(data.holdout_cells)
    (16, 3, 16)
    >>> X_seen, X_new = data.data[~data.holdout], data.data[data.holdout]
    >>> len(X_seen)
    600
    """
    check_integer("n_samples", n_samples, 1)
    check_integer("n_blocks", n_blocks, 1)
    check_integer("n_regions", n_regions, 1)
    check_integer("block_dim", block_dim, 1)
    streams = streams_of(random_state, task_random_state)
    held_cells = draw_cells(holdout_cells, n_blocks, n_regions, streams.holdout)
    function = _build_composition(
        n_blocks, n_regions, block_dim, pieces, combine, streams.target
    )
    dim = n_blocks * block_dim
    embed = build_embedding(
        embedding, dim, n_features, f"{n_blocks} blocks of dimension {block_dim}",
        streams.embedding,
    )  # fmt: skip

    latent, holdout = draw_rows(
        n_samples,
        lambda n: streams.rows.uniform(size=(n, dim)),
        function.regions,
        held_cells,
        n_regions,
    )
    return deliver(
        embed(latent),
        function(latent),
        noise,
        streams.noise,
        return_X_y,
        holdout=holdout,
        holdout_cells=held_cells,
        latent=latent,
        regions=function.regions(latent),
        block_values=function.block_values(latent),
        function=function,
        rotation=embed.rotation,
        DESCR=f"A composition of {n_blocks} blocks of {n_regions} regions each, "
        f"pieces {pieces!r}, combined by {combine!r}, in R^{len(embed.rotation)}.",
    )


def _build_manifold(
    manifold: Spec, intrinsic_dim: int | None, generator: np.random.RandomState
) -> Manifold:
    offered: dict[str, Any] = {"generator": generator}
    if intrinsic_dim is not None:
        check_integer("intrinsic_dim", intrinsic_dim, 1)
        offered["intrinsic_dim"] = intrinsic_dim
    built = MANIFOLDS.build(manifold, **offered)
    if intrinsic_dim not in (None, built.intrinsic_dim):
        raise ValueError(
            f"intrinsic_dim must be {built.intrinsic_dim} for {built.title}. "
            f"Got intrinsic_dim={intrinsic_dim}."
        )
    return built


def _build_composition(
    n_blocks: int,
    n_regions: int,
    block_dim: int,
    pieces: Spec,
    combine: Spec,
    generator: np.random.RandomState,
) -> Composition:
    periods = np.full(block_dim, np.inf)
    blocks = [
        PIECES.build(
            pieces,
            generator.uniform(size=(_probe_size(n_regions), block_dim)),
            periods,
            n_pieces=n_regions,
            max_frequency=BLOCK_FREQUENCY,
            generator=generator,
        )
        for _ in range(n_blocks)
    ]
    combiner = COMBINERS.build(combine, n_blocks=n_blocks, generator=generator)
    return Composition(blocks, combiner)


def _probe_size(n_regions: int) -> int:
    return max(2000, 50 * n_regions)
