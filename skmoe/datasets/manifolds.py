"""Manifolds: where X lives, and how it is placed among D features.

Contract. A manifold of dimension d in its own space of dimension a has

- ``sample(n, generator)``: intrinsic coordinates ``latent`` of shape (n, d),
- ``embed(latent)``: points of shape (n, a),
- ``coordinates(latent)``: shape (n, q), what target functions are functions of. They are
  chosen so that a smooth function of them is smooth on the manifold, and so that a frequency
  counts waves around or across it; ``periods`` has their q periods (inf: not periodic).

An embedding is called with points (n, a) and gives features (n, D), D >= a; its ``rotation``
of shape (D, a) is its linear part.

To add one, copy the nearest class and name it in `MANIFOLDS` or `EMBEDDINGS` at the bottom.
Randomness, where a class needs it, comes as ``generator``, a `numpy.random.RandomState`.
"""

from abc import ABC, abstractmethod
from numbers import Integral
from typing import Any

import numpy as np

from skmoe._registry import Registry, Spec

TURN = 2 * np.pi


class Manifold(ABC):
    """A smooth manifold, given by intrinsic coordinates and an injective map out of them.

    Parameters
    ----------
    intrinsic_dim : int
        Dimension d of the manifold.
    ambient_dim : int
        Dimension a of the space in which `embed` places it.
    """

    title: str  # as error texts and descriptions call it

    def __init__(self, intrinsic_dim: int, ambient_dim: int) -> None:
        if intrinsic_dim < 1:
            raise ValueError(
                f"intrinsic_dim must be at least 1. Got intrinsic_dim={intrinsic_dim!r}."
            )
        self.intrinsic_dim = intrinsic_dim
        self.ambient_dim = ambient_dim

    @property
    def periods(self) -> np.ndarray:
        """Period of each of the `coordinates`; inf for those that are not periodic."""
        return np.full(self.intrinsic_dim, np.inf)

    @abstractmethod
    def sample(self, n: int, generator: np.random.RandomState) -> np.ndarray:
        """Intrinsic coordinates of n random points, shape (n, d)."""

    @abstractmethod
    def embed(self, latent: np.ndarray) -> np.ndarray:
        """Points in the manifold's own space, shape (n, a)."""

    def coordinates(self, latent: np.ndarray) -> np.ndarray:
        """What targets are functions of, shape (n, q)."""
        return latent


class Circle(Manifold):
    """The unit circle in R^2, uniform: ``(cos t, sin t)``.

    Experiment I of Wang & E (2025), section 6, lives on it.
    """

    title = "the circle"

    def __init__(self) -> None:
        super().__init__(intrinsic_dim=1, ambient_dim=2)

    @property
    def periods(self) -> np.ndarray:
        return np.array([TURN])

    def sample(self, n: int, generator: np.random.RandomState) -> np.ndarray:
        return generator.uniform(0, TURN, (n, 1))

    def embed(self, latent: np.ndarray) -> np.ndarray:
        return np.hstack([np.cos(latent), np.sin(latent)])


class FlatTorus(Manifold):
    """A product of d unit circles in R^2d, uniform: ``(cos t_1, sin t_1, cos t_2, ...)``.

    Locally it is isometric to R^d, so it has no curvature of its own.

    Parameters
    ----------
    intrinsic_dim : int, default=2
        Number of circles d.
    """

    title = "the flat torus"

    def __init__(self, *, intrinsic_dim: int = 2) -> None:
        super().__init__(intrinsic_dim, 2 * intrinsic_dim)

    @property
    def periods(self) -> np.ndarray:
        return np.full(self.intrinsic_dim, TURN)

    def sample(self, n: int, generator: np.random.RandomState) -> np.ndarray:
        return generator.uniform(0, TURN, (n, self.intrinsic_dim))

    def embed(self, latent: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(latent), np.sin(latent)], axis=-1).reshape(len(latent), -1)


class Sphere(Manifold):
    """The unit sphere in R^(d+1), uniform.

    Intrinsic coordinates are spherical angles: d - 1 polar ones in [0, pi], then one in
    [0, 2 pi). Targets are functions of the point itself, as angles are singular at the poles.

    Parameters
    ----------
    intrinsic_dim : int, default=2
        Dimension d of the sphere.
    """

    title = "the sphere"

    def __init__(self, *, intrinsic_dim: int = 2) -> None:
        super().__init__(intrinsic_dim, intrinsic_dim + 1)

    @property
    def periods(self) -> np.ndarray:
        return np.full(self.ambient_dim, np.inf)

    def sample(self, n: int, generator: np.random.RandomState) -> np.ndarray:
        # The direction of a normal vector is uniform.
        points = generator.standard_normal((n, self.ambient_dim))
        rest = np.sqrt(np.cumsum(points[:, ::-1] ** 2, axis=1))[:, ::-1]
        polar = np.arctan2(rest[:, 1:-1], points[:, :-2])
        last = np.arctan2(points[:, -1:], points[:, -2:-1]) % TURN
        return np.hstack([polar, last])

    def embed(self, latent: np.ndarray) -> np.ndarray:
        ones = np.ones((len(latent), 1))
        sines = np.cumprod(np.hstack([ones, np.sin(latent)]), axis=1)
        return sines * np.hstack([np.cos(latent), ones])

    def coordinates(self, latent: np.ndarray) -> np.ndarray:
        return self.embed(latent)


class SwissRoll(Manifold):
    """A sheet rolled up in R^3 without stretching, uniform.

    Intrinsic coordinates are lengths on the sheet: along the spiral in [0, 2 pi], across in
    [0, pi / 2]. The spiral is ``t (cos t, sin t)`` for t from 1.5 pi to 4.5 pi, scaled.
    """

    title = "the Swiss roll"
    start, end = 1.5 * np.pi, 4.5 * np.pi

    def __init__(self) -> None:
        super().__init__(intrinsic_dim=2, ambient_dim=3)
        self.scale = (arc_length(self.end) - arc_length(self.start)) / TURN

    def sample(self, n: int, generator: np.random.RandomState) -> np.ndarray:
        return generator.uniform(0, [TURN, TURN / 4], (n, 2))

    def embed(self, latent: np.ndarray) -> np.ndarray:
        along, across = latent.T
        t = angle_at(arc_length(self.start) + self.scale * along)
        radius = t / self.scale
        return np.column_stack([radius * np.cos(t), across, radius * np.sin(t)])


def arc_length(t: Any) -> Any:
    """Length of the spiral ``t (cos t, sin t)`` from 0 to t."""
    return (t * np.sqrt(1 + t**2) + np.arcsinh(t)) / 2


def angle_at(length: np.ndarray) -> np.ndarray:
    """The inverse of `arc_length`, by Newton's method."""
    t = np.sqrt(2 * length)
    for _ in range(6):  # from 5 on, the steps are below rounding
        t = t - (arc_length(t) - length) / np.sqrt(1 + t**2)
    return t


class MoebiusStrip(Manifold):
    """The Moebius strip in R^3, uniform in area.

    ``((1 + v cos(u/2)) cos u, (1 + v cos(u/2)) sin u, v sin(u/2))`` with u in [0, 2 pi) and
    v in [-1/2, 1/2]. As (u, v) and (u + 2 pi, -v) are one point, targets are functions of the
    point itself.
    """

    title = "the Moebius strip"
    half_width = 0.5

    def __init__(self) -> None:
        super().__init__(intrinsic_dim=2, ambient_dim=3)

    @property
    def periods(self) -> np.ndarray:
        return np.full(3, np.inf)

    def sample(self, n: int, generator: np.random.RandomState) -> np.ndarray:
        half = self.half_width
        largest = np.hypot(1 + half, half / 2)  # of the area element
        accepted = np.empty((0, 2))
        while len(accepted) < n:
            u, v = generator.uniform([0, -half], [TURN, half], (2 * n, 2)).T
            area = np.hypot(1 + v * np.cos(u / 2), v / 2)
            kept = generator.uniform(0, largest, 2 * n) < area
            accepted = np.vstack([accepted, np.column_stack([u, v])[kept]])
        return accepted[:n]

    def embed(self, latent: np.ndarray) -> np.ndarray:
        u, v = latent.T
        radius = 1 + v * np.cos(u / 2)
        return np.column_stack([radius * np.cos(u), radius * np.sin(u), v * np.sin(u / 2)])

    def coordinates(self, latent: np.ndarray) -> np.ndarray:
        return self.embed(latent)


class RandomSurface(Manifold):
    """The graph of random smooth functions over a cube of dimension d.

    ``(t, h_1(t), ..., h_k(t))`` with t in [-pi, pi]^d, each height h a sum of ten random
    waves. Rows are uniform in t, not in area: steep parts hold fewer of them.

    Parameters
    ----------
    intrinsic_dim : int, default=2
        Dimension d of the cube.
    n_heights : int, default=1
        Number of functions k.
    max_frequency : float, default=2.0
        Largest frequency of a wave, in radians per unit of t.
    generator : numpy.random.RandomState
        Source of the waves.
    """

    title = "the random surface"
    n_waves = 10

    def __init__(
        self,
        *,
        intrinsic_dim: int = 2,
        n_heights: int = 1,
        max_frequency: float = 2.0,
        generator: np.random.RandomState,
    ) -> None:
        super().__init__(intrinsic_dim, intrinsic_dim + n_heights)
        shape = (n_heights, self.n_waves)
        directions = generator.standard_normal((*shape, intrinsic_dim))
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        lengths = generator.uniform(0, max_frequency, (*shape, 1))
        self.frequencies = lengths * directions
        self.phases = generator.uniform(0, TURN, shape)

    def sample(self, n: int, generator: np.random.RandomState) -> np.ndarray:
        return generator.uniform(-np.pi, np.pi, (n, self.intrinsic_dim))

    def embed(self, latent: np.ndarray) -> np.ndarray:
        angles = np.einsum("nd,kwd->nkw", latent, self.frequencies) + self.phases
        return np.hstack([latent, np.sin(angles).sum(-1) * np.sqrt(2 / self.n_waves)])


class ZeroPadding:
    """The points as they are; all further features are 0.

    Parameters
    ----------
    ambient_dim : int
        Dimension a of the points.
    n_features : int
        Number of features D >= a.
    """

    def __init__(self, ambient_dim: int, n_features: int) -> None:
        self.rotation = np.eye(n_features, ambient_dim)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return points @ self.rotation.T


class Rotation:
    """``X = points Q^T`` with random orthonormal columns Q: distances stay as they are.

    Parameters
    ----------
    ambient_dim, n_features : int
        Dimension a of the points, number of features D >= a.
    generator : numpy.random.RandomState
        Source of Q, uniform among all rotations.
    """

    def __init__(
        self, ambient_dim: int, n_features: int, *, generator: np.random.RandomState
    ) -> None:
        normal = generator.standard_normal((n_features, ambient_dim))
        Q, R = np.linalg.qr(normal)
        self.rotation = Q * np.sign(np.diag(R))  # without the signs Q would not be uniform

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return points @ self.rotation.T


class Nonlinear:
    """``X = points Q^T + c sin(f points W^T + b)``, a rotation that is bent, but injective.

    With ``c = bend / (f |W|)`` for the spectral norm |W|, the second term is Lipschitz with
    constant `bend`. So distances change by factors in ``[1 - bend, 1 + bend]`` only, and
    different points stay different. The bend does not fade as D grows.

    Parameters
    ----------
    ambient_dim, n_features : int
        Dimension a of the points, number of features D >= a.
    bend : float in [0, 1), default=0.5
        How far the map is from linear.
    frequency : float, default=3.0
        Frequency f of the bends.
    generator : numpy.random.RandomState
        Source of Q, of the unit rows of W and of b.
    """

    def __init__(
        self,
        ambient_dim: int,
        n_features: int,
        *,
        bend: float = 0.5,
        frequency: float = 3.0,
        generator: np.random.RandomState,
    ) -> None:
        if not 0 <= bend < 1:
            raise ValueError(f"bend must be in [0, 1). Got bend={bend!r}.")
        self.linear = Rotation(ambient_dim, n_features, generator=generator)
        self.rotation = self.linear.rotation
        W = generator.standard_normal((n_features, ambient_dim))
        W /= np.linalg.norm(W, axis=1, keepdims=True)
        self.inner = frequency * W
        self.phases = generator.uniform(0, TURN, n_features)
        self.height = bend / (frequency * np.linalg.norm(W, 2))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        bends = np.sin(points @ self.inner.T + self.phases)
        return self.linear(points) + self.height * bends


def build_embedding(
    embedding: Spec | None,
    ambient_dim: int,
    n_features: int | None,
    title: str,
    generator: np.random.RandomState,
) -> Any:
    """The embedding that a generator's parameters ask for; `title` says of what."""
    if embedding is None:
        embedding = "zero_padding" if n_features is None else "rotation"
    if n_features is None:
        n_features = ambient_dim
    if not isinstance(n_features, Integral) or n_features < ambient_dim:
        raise ValueError(
            f"n_features must be at least {ambient_dim} for {title}. "
            f"Got n_features={n_features!r}."
        )
    return EMBEDDINGS.build(embedding, ambient_dim, n_features, generator=generator)


MANIFOLDS = Registry(
    "manifold",
    {
        "circle": Circle,
        "sphere": Sphere,
        "torus": FlatTorus,
        "swiss_roll": SwissRoll,
        "moebius": MoebiusStrip,
        "surface": RandomSurface,
    },
)

EMBEDDINGS = Registry(
    "embedding",
    {"zero_padding": ZeroPadding, "rotation": Rotation, "nonlinear": Nonlinear},
)
