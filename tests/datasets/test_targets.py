import numpy as np
import pytest
from numpy.testing import assert_allclose

from skmoe.datasets.manifolds import MANIFOLDS
from skmoe.datasets.targets import (
    COMBINERS,
    PIECES,
    TARGETS,
    Composition,
    CubePieces,
    SmoothPieces,
    Voronoi,
    Waves,
)

NOT_PERIODIC = np.full(2, np.inf)


def uniform(n=2000, dim=2, seed=0):
    return np.random.RandomState(seed).uniform(size=(n, dim))


def build(registry, name, seed=0, **settings):
    return registry.build(
        name, uniform(), NOT_PERIODIC, generator=np.random.RandomState(seed), **settings
    )


def steps_across_borders(target, eps):
    """|f(a) - f(b)| for pairs of points within `eps` on two sides of a border."""
    ends = uniform(600, seed=1), uniform(600, seed=2)
    apart = target.regions(ends[0]) != target.regions(ends[1])
    a, b = ends[0][apart], ends[1][apart]
    for _ in range(60):  # bisection: a stays in its region, b outside it
        if np.linalg.norm(a - b, axis=1).max() < eps:
            break
        middle = (a + b) / 2
        same = (target.regions(middle) == target.regions(a))[:, None]
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    return np.abs(target(a) - target(b))


def test_jump_pieces_jump_at_borders():
    target = build(TARGETS, "pieces")
    for eps in (1e-3, 1e-9):
        assert np.median(steps_across_borders(target, eps)) > 0.1


@pytest.mark.parametrize("name", ["smooth", "smooth_pieces"])
def test_smooth_targets_do_not_jump(name):
    target = build(TARGETS, name)
    regions = build(TARGETS, "pieces").regions
    target.regions = regions  # cross the same borders
    coarse = steps_across_borders(target, 1e-3).max()
    fine = steps_across_borders(target, 1e-9).max()
    assert coarse < 0.1
    assert fine < 1e-6


def test_smooth_pieces_have_no_kinks():
    target = build(TARGETS, "smooth_pieces")
    start, direction = np.array([0.1, 0.05]), np.array([0.8, 0.9])
    second = []
    for n in (2001, 4001):
        values = target(start + np.linspace(0, 1, n)[:, None] * direction)
        second.append(np.abs(np.diff(values, 2)).max() * (n - 1) ** 2)
    assert_allclose(*second, rtol=0.01)  # a kink would double it


def test_partition_of_unity():
    target = build(PIECES, "smooth")
    u = uniform(500, seed=3)
    weights = target.partition(u)
    assert_allclose(weights.sum(axis=1), 1)
    assert (weights > 0).all()
    assert (weights.argmax(axis=1) == target.regions(u)).all()


def test_a_sharp_partition_is_the_jump():
    jump = build(PIECES, "jump")
    sharp = SmoothPieces(
        uniform(), NOT_PERIODIC, sharpness=1e6, generator=np.random.RandomState(0)
    )
    u = uniform(500, seed=3)
    d2 = np.sort(jump.regions.squared_distances(u), axis=1)
    inside = d2[:, 1] - d2[:, 0] > 1e-3
    assert inside.sum() > 400
    assert_allclose(sharp(u)[inside], jump(u)[inside], atol=1e-6)


@pytest.mark.parametrize("name", sorted(TARGETS))
@pytest.mark.parametrize("manifold", ["circle", "torus"])
def test_targets_are_periodic_where_the_manifold_is(name, manifold):
    manifold = MANIFOLDS.build(manifold)
    probe = manifold.sample(2000, np.random.RandomState(0))
    target = TARGETS.build(
        name, probe, manifold.periods, generator=np.random.RandomState(1), n_pieces=5
    )
    u = manifold.sample(300, np.random.RandomState(2))
    assert_allclose(target(u + manifold.periods), target(u), atol=1e-9)
    assert (target.regions(u + manifold.periods) == target.regions(u)).all()


@pytest.mark.parametrize("periods", [[np.inf, np.inf], [1.0, 1.0], [2 * np.pi, np.inf]])
def test_waves_have_the_frequencies_asked_for(periods):
    waves = Waves(uniform(), np.array(periods), generator=np.random.RandomState(0))
    assert waves.frequencies.any(axis=1).all()
    whole = waves.frequencies * periods / (2 * np.pi)
    finite = np.isfinite(periods)
    assert_allclose(whole[:, finite], np.rint(whole[:, finite]), atol=1e-12)
    if not finite.any():
        lengths = np.linalg.norm(waves.frequencies, axis=1)
        assert lengths.min() >= 1
        assert lengths.max() <= 6


def test_waves_have_variance_near_one():
    u = 100 * uniform(5000)
    variances = [
        Waves(u, NOT_PERIODIC, generator=np.random.RandomState(seed))(u).var()
        for seed in range(20)
    ]
    assert 0.8 < np.mean(variances) < 1.2


@pytest.mark.parametrize("n_regions", [1, 2, 4, 8, 16])
def test_no_region_is_negligible(n_regions):
    for seed in range(10):
        regions = Voronoi(uniform(), NOT_PERIODIC, n_regions, np.random.RandomState(seed))
        share = np.bincount(regions(uniform(20_000, seed=1)), minlength=n_regions) / 20_000
        assert share.min() > 0.15 / n_regions
        assert (regions(regions.centers) == np.arange(n_regions)).all()


def test_voronoi_region_is_the_nearest_centre():
    regions = Voronoi(uniform(), NOT_PERIODIC, 4, np.random.RandomState(0))
    u = uniform(200, seed=1)
    distances = np.linalg.norm(u[:, None] - regions.centers, axis=-1)
    assert_allclose(regions.squared_distances(u), distances**2)
    assert (regions(u) == distances.argmin(axis=1)).all()


def test_voronoi_on_a_torus_is_the_nearest_centre_in_space():
    torus = MANIFOLDS.build("torus")
    probe = torus.sample(2000, np.random.RandomState(0))
    regions = Voronoi(probe, torus.periods, 5, np.random.RandomState(0))
    u = torus.sample(200, np.random.RandomState(1))
    chords = np.linalg.norm(torus.embed(u)[:, None] - torus.embed(regions.centers), axis=-1)
    assert_allclose(regions.squared_distances(u), chords**2)


def test_cube_pieces_follow_the_formula():
    f = CubePieces(3)
    z = np.array([[0.5], [1.5], [2.5], [0.25], [2.25], [3.0], [0.0]])
    values = [1 / 16, 2 / 16, 3 / 16, 0.25**2 * 0.75**2, 3 * 0.25**2 * 0.75**2, 0, 0]
    assert_allclose(f(z), values)
    assert f.regions(z).tolist() == [0, 1, 2, 0, 2, 2, 0]


@pytest.mark.parametrize("knot", [1, 2])
def test_cube_pieces_are_once_differentiable_at_knots(knot):
    f, h = CubePieces(3), 1e-4
    left, here, right = (f(np.array([[knot + s * h]]))[0] for s in (-1, 0, 1))
    assert here == 0
    assert_allclose([(here - left) / h, (right - here) / h], 0, atol=1e-3)
    for side, expected in ((-1, 2 * knot), (1, 2 * (knot + 1))):
        at = [f(np.array([[knot + side * j * h]]))[0] for j in range(3)]
        assert_allclose((at[0] - 2 * at[1] + at[2]) / h**2, expected, rtol=1e-2)


def test_combiners_follow_their_formulas():
    g = np.random.RandomState(0).standard_normal((50, 3))
    made = {
        name: COMBINERS.build(name, n_blocks=3, generator=np.random.RandomState(1))
        for name in COMBINERS
    }
    a, b, c = g.T
    assert_allclose(made["vector"](g), g)
    assert_allclose(made["sum"](g), a + b + c)
    product = (1 + np.tanh(a) / 2) * (1 + np.tanh(b) / 2) * (1 + np.tanh(c) / 2)
    assert_allclose(made["product"](g), product)
    assert_allclose(made["sine"](g), np.sin(np.pi / np.sqrt(6) * (a + b + c)))
    network = made["network"]
    hidden = np.tanh(g @ network.inner + network.bias)
    assert_allclose(network(g), (hidden * network.outer).sum(axis=1))
    plain = COMBINERS.build("product", bounded=False)
    assert_allclose(plain(g), a * b * c)


def test_composition_gives_each_block_its_columns():
    composition = Composition([CubePieces(3)] * 2, COMBINERS.build("vector"))
    u = np.array([[0.5, 2.5], [1.5, 0.5]])
    assert composition.regions(u).tolist() == [[0, 2], [1, 0]]
    assert_allclose(composition(u), [[1 / 16, 3 / 16], [2 / 16, 1 / 16]])
