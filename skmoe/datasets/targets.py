"""Targets: smooth, piecewise and compositional functions.

Contract. A target is called with coordinates ``u`` of shape (n, q) and gives n values;
``target.regions(u)`` gives the id of each row's true region, and ``n_regions`` their number.
Its random part is drawn once, when it is made, from ``generator``, with a ``probe`` at hand:
rows of the domain from which it learns the domain's extent. Coordinates may be periodic.

A combiner turns the values of L blocks, shape (n, L), into y. `Composition` is blocks and a
combiner together.

To add one, copy the nearest class and name it in a registry at the bottom.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skmoe._registry import Registry

TURN = 2 * np.pi


class Waves:
    """``sum_w a_w sin(k_w . u + b_w)``: smooth, of variance about 1, one region.

    Parameters
    ----------
    probe : ndarray of shape (m, q)
        Rows of the domain.
    periods : ndarray of shape (q,)
        Periods of the coordinates; inf where not periodic. Along a periodic coordinate only
        the frequencies that fit are used, so that the waves join.
    n_waves : int, default=40
        Number of waves.
    max_frequency : float, default=6.0
        Lengths of the k_w are uniform between 1 and this, their directions uniform.
    generator : numpy.random.RandomState
        Source of all constants.
    """

    n_regions = 1

    def __init__(
        self,
        probe: np.ndarray,
        periods: np.ndarray,
        *,
        n_waves: int = 40,
        max_frequency: float = 6.0,
        generator: np.random.RandomState,
    ) -> None:
        k = generator.standard_normal((n_waves, len(periods)))
        k *= generator.uniform(1, max_frequency, (n_waves, 1)) / np.linalg.norm(
            k, axis=1, keepdims=True
        )
        self.frequencies = _fit_to_periods(k, periods)
        self.phases = generator.uniform(0, TURN, n_waves)
        self.amplitudes = generator.standard_normal(n_waves) * np.sqrt(2 / n_waves)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return np.sin(u @ self.frequencies.T + self.phases) @ self.amplitudes

    def regions(self, u: np.ndarray) -> np.ndarray:
        return np.zeros(len(u), dtype=np.int64)


def _fit_to_periods(k: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """Round frequencies to whole waves per period; no wave may become a constant."""
    largest = np.abs(k).argmax(axis=1)
    smallest = TURN / periods  # 0 where not periodic
    periodic = smallest > 0
    k, rows = k.copy(), np.arange(len(k))
    k[:, periodic] = np.rint(k[:, periodic] / smallest[periodic]) * smallest[periodic]
    constant = ~k.any(axis=1)
    k[rows[constant], largest[constant]] = smallest[largest[constant]]
    return k


class Voronoi:
    """Regions of the nearest centre.

    Along a periodic coordinate the distance is the chord's, not the arc's: as smooth as the
    rest, and on a flat torus the distance in its own space.

    Centres are rows of the probe. They are drawn until the smallest region has a fifth of the
    mean share (5 % for four regions), at most `n_tries` times; then the best draw is used.

    Parameters
    ----------
    probe : ndarray of shape (m, q)
        Rows of the domain.
    periods : ndarray of shape (q,)
        Periods of the coordinates; inf where not periodic.
    n_regions : int
        Number of centres E.
    generator : numpy.random.RandomState
        Source of the centres.
    """

    n_tries = 200

    def __init__(
        self,
        probe: np.ndarray,
        periods: np.ndarray,
        n_regions: int,
        generator: np.random.RandomState,
    ) -> None:
        self.periods = periods
        self.n_regions = n_regions
        best = -1.0
        for _ in range(self.n_tries):
            centers = probe[generator.choice(len(probe), n_regions, replace=False)]
            share = self._smallest_share(probe, centers)
            if share > best:
                best, self.centers = share, centers
            if share >= 0.2 / n_regions:
                break

    def _smallest_share(self, probe: np.ndarray, centers: np.ndarray) -> float:
        ids = self._squared_distances(probe, centers).argmin(axis=1)
        return np.bincount(ids, minlength=len(centers)).min() / len(probe)

    def _squared_distances(self, u: np.ndarray, centers: np.ndarray) -> np.ndarray:
        steps = u[:, None, :] - centers
        periodic = np.isfinite(self.periods)
        factor = np.pi / self.periods[periodic]
        steps[..., periodic] = np.sin(factor * steps[..., periodic]) / factor
        return np.square(steps).sum(axis=-1)

    def squared_distances(self, u: np.ndarray) -> np.ndarray:
        """Squared distance to every centre, shape (n, E)."""
        return self._squared_distances(u, self.centers)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return self.squared_distances(u).argmin(axis=1)


class JumpPieces:
    """``f_i(u)`` in region i: each piece smooth, with jumps where regions meet.

    Regions are Voronoi cells of random centres. A piece is a sum of waves plus an offset.

    Parameters
    ----------
    probe : ndarray of shape (m, q)
        Rows of the domain.
    periods : ndarray of shape (q,)
        Periods of the coordinates; inf where not periodic.
    n_pieces : int, default=4
        Number of regions E.
    n_waves : int, default=3
        Waves per piece.
    max_frequency : float, default=6.0
        As for `Waves`.
    generator : numpy.random.RandomState
        Source of centres and pieces.
    """

    def __init__(
        self,
        probe: np.ndarray,
        periods: np.ndarray,
        *,
        n_pieces: int = 4,
        n_waves: int = 3,
        max_frequency: float = 6.0,
        generator: np.random.RandomState,
    ) -> None:
        self.regions = Voronoi(probe, periods, n_pieces, generator)
        self.n_regions = n_pieces
        settings: dict[str, Any] = {"n_waves": n_waves, "max_frequency": max_frequency}
        self.pieces = [
            Waves(probe, periods, **settings, generator=generator) for _ in range(n_pieces)
        ]
        self.offsets = generator.standard_normal(n_pieces)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.values(u), self.regions(u)[:, None], axis=1)[:, 0]

    def values(self, u: np.ndarray) -> np.ndarray:
        """What every piece says, whether it is its region or not, shape (n, E)."""
        return np.column_stack([piece(u) for piece in self.pieces]) + self.offsets


class SmoothPieces(JumpPieces):
    """``sum_i rho_i(u) f_i(u)``: pieces that join smoothly.

    The partition of unity is ``rho = softmax(-sharpness |u - c_i|^2 / s)`` for the centres
    c_i of the regions; s is the mean squared distance to the nearest centre. It stands for
    the rho of Wang & E (2025), section 4, and region i is where rho_i is the largest.

    Parameters
    ----------
    probe, periods, n_pieces, n_waves, max_frequency, generator
        As for `JumpPieces`.
    sharpness : float, default=1.0
        The larger, the more abrupt the change from piece to piece.
    """

    def __init__(
        self,
        probe: np.ndarray,
        periods: np.ndarray,
        *,
        sharpness: float = 1.0,
        generator: np.random.RandomState,
        **shared: Any,
    ) -> None:
        super().__init__(probe, periods, generator=generator, **shared)
        nearest = self.regions.squared_distances(probe).min(axis=1)
        self.sharpness = sharpness / nearest.mean()

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return (self.partition(u) * self.values(u)).sum(axis=1)

    def partition(self, u: np.ndarray) -> np.ndarray:
        """The weights rho, shape (n, E)."""
        logits = -self.sharpness * self.regions.squared_distances(u)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)


class CubePieces:
    """``f_i(z) = i (i - 1 - z)^2 (z - i)^2`` for z in [i - 1, i], i = 1, ..., E.

    Experiment II of Wang & E (2025), section 6. At the knots value and slope are 0 from both
    sides; the second derivative jumps there, from 2 i to 2 (i + 1).

    Parameters
    ----------
    n_regions : int
        Number of intervals E.
    """

    def __init__(self, n_regions: int) -> None:
        self.n_regions = n_regions

    def __call__(self, u: np.ndarray) -> np.ndarray:
        i = self.regions(u) + 1
        z = u[:, 0]
        return i * (i - 1 - z) ** 2 * (z - i) ** 2

    def regions(self, u: np.ndarray) -> np.ndarray:
        return np.clip(u[:, 0].astype(np.int64), 0, self.n_regions - 1)


class Vector:
    """``y = (g_1, ..., g_L)``, one output per block."""

    def __call__(self, g: np.ndarray) -> np.ndarray:
        return g.copy()


class Sum:
    """``y = sum_l g_l``."""

    def __call__(self, g: np.ndarray) -> np.ndarray:
        return g.sum(axis=1)


class Product:
    """``y = prod_l (1 + tanh(g_l) / 2)``, or the plain product.

    Parameters
    ----------
    bounded : bool, default=True
        False for ``prod_l g_l``. Bounded, the factors lie between 1/2 and 3/2, so that no
        block can hide the others.
    """

    def __init__(self, *, bounded: bool = True) -> None:
        self.bounded = bounded

    def __call__(self, g: np.ndarray) -> np.ndarray:
        return (1 + np.tanh(g) / 2 if self.bounded else g).prod(axis=1)


class Sine:
    """``y = sin(scale sum_l g_l)``: a change of one block may turn the effect of another.

    Parameters
    ----------
    n_blocks : int
        Number of blocks L.
    scale : float, optional
        By default ``pi / sqrt(2 L)``, about two periods over the range of the sum.
    """

    def __init__(self, *, n_blocks: int, scale: float | None = None) -> None:
        # The values of a block have a variance of about 2: waves 1, offset 1.
        self.scale = np.pi / np.sqrt(2 * n_blocks) if scale is None else scale

    def __call__(self, g: np.ndarray) -> np.ndarray:
        return np.sin(self.scale * g.sum(axis=1))


class Network:
    """``y = v . tanh(W g + b)``, a small random network.

    Parameters
    ----------
    n_blocks : int
        Number of blocks L.
    hidden_dim : int, default=16
        Width of the network.
    generator : numpy.random.RandomState
        Source of its weights.
    """

    def __init__(
        self, *, n_blocks: int, hidden_dim: int = 16, generator: np.random.RandomState
    ) -> None:
        self.inner = generator.standard_normal((n_blocks, hidden_dim)) / np.sqrt(n_blocks)
        self.bias = generator.standard_normal(hidden_dim)
        self.outer = generator.standard_normal(hidden_dim) / np.sqrt(hidden_dim)

    def __call__(self, g: np.ndarray) -> np.ndarray:
        return np.tanh(g @ self.inner + self.bias) @ self.outer


class Composition:
    """``y = combine(g_1(x_1), ..., g_L(x_L))`` for ``x = (x_1, ..., x_L)``.

    The class of Wang & E (2025), section 5: L E functions make E^L pieces.

    Parameters
    ----------
    blocks : list of L targets
        The g_l. Each sees columns of its own, equally many.
    combine : callable
        From block values (n, L) to y.
    """

    def __init__(
        self, blocks: Sequence[Any], combine: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.blocks = blocks
        self.combine = combine

    def _per_block(
        self, functions: Sequence[Callable[[np.ndarray], np.ndarray]], latent: np.ndarray
    ) -> np.ndarray:
        parts = np.split(latent, len(self.blocks), axis=1)
        return np.column_stack([f(part) for f, part in zip(functions, parts, strict=True)])

    def block_values(self, latent: np.ndarray) -> np.ndarray:
        """The values g_l(x_l), shape (n, L)."""
        return self._per_block(self.blocks, latent)

    def regions(self, latent: np.ndarray) -> np.ndarray:
        """The region of each block, shape (n, L)."""
        return self._per_block([block.regions for block in self.blocks], latent)

    def __call__(self, latent: np.ndarray) -> np.ndarray:
        return self.combine(self.block_values(latent))


TARGETS = Registry(
    "target", {"smooth": Waves, "pieces": JumpPieces, "smooth_pieces": SmoothPieces}
)

PIECES = Registry("pieces", {"jump": JumpPieces, "smooth": SmoothPieces})

COMBINERS = Registry(
    "combine",
    {"vector": Vector, "sum": Sum, "product": Product, "sine": Sine, "network": Network},
)
