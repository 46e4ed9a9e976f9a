import numpy as np
import pytest
from numpy.testing import assert_allclose

from skmoe import part
from skmoe.datasets import make_manifold_regression
from skmoe.datasets.manifolds import EMBEDDINGS, MANIFOLDS, SwissRoll, angle_at, arc_length


def pairwise(points):
    return np.linalg.norm(points[:, None] - points, axis=-1)


def points_of(name, n=500, **settings):
    """A manifold's own points, taken back out of a rotation into R^20."""
    data = make_manifold_regression(
        n, manifold=name, n_features=20, return_X_y=False, random_state=0, **settings
    )
    return data.data @ data.rotation, data.latent


def squared_deviation(name, points, latent):
    """How far points are from the equation of their manifold."""
    x = points.T
    if name in ("circle", "sphere"):
        return (x**2).sum(axis=0) - 1
    if name == "torus":
        return np.stack([x[0] ** 2 + x[1] ** 2 - 1, x[2] ** 2 + x[3] ** 2 - 1])
    if name == "swiss_roll":
        radius = np.hypot(x[0], x[2]) * SwissRoll().scale
        return np.stack([np.cos(radius) * radius, np.sin(radius) * radius]) - (
            np.stack([x[0], x[2]]) * SwissRoll().scale
        )
    if name == "moebius":
        u = latent[:, 0]
        from_core = np.hypot(x[0], x[1]) - 1
        return from_core * np.sin(u / 2) - x[2] * np.cos(u / 2)
    assert name == "surface"
    return (points[:, :2] - latent).T


@pytest.mark.parametrize("name", sorted(MANIFOLDS))
def test_points_satisfy_the_equation_of_the_manifold(name):
    points, latent = points_of(name)
    manifold = MANIFOLDS.build(name, generator=np.random.RandomState(0))
    assert latent.shape == (500, manifold.intrinsic_dim)
    assert_allclose(squared_deviation(name, points[:, : manifold.ambient_dim], latent), 0,
                    atol=1e-9)  # fmt: skip


@pytest.mark.parametrize("name", ["sphere", "torus", "surface"])
@pytest.mark.parametrize("dim", [1, 2, 4])
def test_intrinsic_dim_can_be_chosen(name, dim):
    manifold = MANIFOLDS.build(name, intrinsic_dim=dim, generator=np.random.RandomState(0))
    latent = manifold.sample(50, np.random.RandomState(1))
    assert latent.shape == (50, dim)
    assert manifold.embed(latent).shape == (50, manifold.ambient_dim)
    _, by_part = points_of(part(name, intrinsic_dim=dim), n=30)
    _, by_keyword = points_of(name, n=30, intrinsic_dim=dim)
    assert_allclose(by_part, by_keyword)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_sphere_is_uniform(dim):
    sphere = MANIFOLDS.build("sphere", intrinsic_dim=dim)
    points = sphere.embed(sphere.sample(40_000, np.random.RandomState(0)))
    assert_allclose(points.mean(axis=0), 0, atol=0.02)
    assert_allclose(points.T @ points / len(points), np.eye(dim + 1) / (dim + 1), atol=0.02)


def test_moebius_is_uniform_in_area():
    strip = MANIFOLDS.build("moebius")
    u, v = strip.sample(100_000, np.random.RandomState(0)).T
    counts, _, _ = np.histogram2d(u, v, bins=6, range=[[0, 2 * np.pi], [-0.5, 0.5]])
    grid_u, grid_v = np.meshgrid(
        (np.arange(60) + 0.5) * np.pi / 30, (np.arange(60) + 0.5) / 60 - 0.5, indexing="ij"
    )
    area = np.hypot(1 + grid_v * np.cos(grid_u / 2), grid_v / 2)
    expected = area.reshape(6, 10, 6, 10).sum(axis=(1, 3)) / area.sum()
    assert_allclose(counts / counts.sum(), expected, rtol=0.08)


def test_moebius_closes_with_a_twist():
    strip = MANIFOLDS.build("moebius")
    assert_allclose(strip.embed(np.array([[0.0, 0.3]])),
                    strip.embed(np.array([[2 * np.pi, -0.3]])), atol=1e-12)  # fmt: skip


def test_swiss_roll_is_rolled_without_stretching():
    roll = SwissRoll()
    latent = roll.sample(200, np.random.RandomState(0))
    eps = 1e-5
    for direction in np.eye(2):
        step = roll.embed(latent + eps * direction) - roll.embed(latent - eps * direction)
        assert_allclose(np.linalg.norm(step, axis=1) / (2 * eps), 1, rtol=1e-6)


def test_arc_length_is_inverted():
    t = np.linspace(SwissRoll.start, SwissRoll.end, 1001)
    assert_allclose(angle_at(arc_length(t)), t, rtol=1e-14)
    numeric = np.trapezoid(np.sqrt(1 + t**2), t)
    assert_allclose(arc_length(t[-1]) - arc_length(t[0]), numeric, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(MANIFOLDS))
def test_target_coordinates_are_periodic_as_told(name):
    manifold = MANIFOLDS.build(name, generator=np.random.RandomState(0))
    latent = manifold.sample(5, np.random.RandomState(1))
    assert manifold.periods.shape == (manifold.coordinates(latent).shape[1],)
    if np.isfinite(manifold.periods).all():
        assert_allclose(manifold.embed(latent + manifold.periods), manifold.embed(latent))


@pytest.mark.parametrize("embedding", ["zero_padding", "rotation"])
def test_linear_embeddings_keep_distances(embedding):
    points = np.random.RandomState(0).standard_normal((60, 5))
    embed = EMBEDDINGS.build(embedding, 5, 30, generator=np.random.RandomState(1))
    assert_allclose(embed.rotation.T @ embed.rotation, np.eye(5), atol=1e-12)
    assert_allclose(pairwise(embed(points)), pairwise(points), atol=1e-12)


def test_rotation_mixes_all_features_and_padding_none():
    settings = {"manifold": "circle", "n_features": 12, "random_state": 0}
    X, _ = make_manifold_regression(100, embedding="rotation", **settings)
    assert (X.std(axis=0) > 1e-3).all()
    X, _ = make_manifold_regression(100, embedding="zero_padding", **settings)
    assert (X[:, 2:] == 0).all()


@pytest.mark.parametrize("n_features", [5, 30, 200])
@pytest.mark.parametrize("bend", [0.2, 0.9])
def test_nonlinear_embedding_is_injective_and_bent(n_features, bend):
    embedding = part("nonlinear", bend=bend)
    embed = EMBEDDINGS.build(embedding, 5, n_features, generator=np.random.RandomState(1))
    points = 2 * np.random.RandomState(0).standard_normal((300, 5))
    points[150:] = points[:150] + 1e-4 * points[150:]  # far pairs and near pairs
    before = pairwise(points)
    rows, columns = np.triu_indices(300, 1)
    ratio = (pairwise(embed(points))[rows, columns]) / before[rows, columns]
    assert ratio.min() >= 1 - bend - 1e-6
    assert ratio.max() <= 1 + bend + 1e-6
    line = np.linspace(0, 1, 3)[:, None] * points[0]
    a, b, c = embed(line)
    # The middle of a straight line does not stay its middle, in any D.
    assert np.linalg.norm(a - 2 * b + c) > 0.05 * bend * np.linalg.norm(a - c)


def test_no_embedding_by_default():
    data = make_manifold_regression(20, manifold="sphere", return_X_y=False, random_state=0)
    assert data.data.shape == (20, 3)
    assert_allclose(data.rotation, np.eye(3))
    assert_allclose(data.data[:, 0], np.cos(data.latent[:, 0]))


def test_noise_off_the_manifold():
    settings = {"manifold": "circle", "n_features": 50, "return_X_y": False, "random_state": 0}
    clean = make_manifold_regression(2000, **settings)
    noisy = make_manifold_regression(2000, off_manifold_noise=0.1, **settings)
    assert_allclose((noisy.data - clean.data).std(), 0.1, rtol=0.02)
    assert_allclose(noisy.target, clean.target)


def test_a_class_of_ones_own_needs_no_registration():
    class Line:
        title, intrinsic_dim, ambient_dim = "the line", 1, 1
        periods = np.array([np.inf])

        def sample(self, n, generator):
            return generator.uniform(size=(n, 1))

        def embed(self, latent):
            return 2 * latent

        def coordinates(self, latent):
            return latent

    X, _ = make_manifold_regression(10, manifold=Line, n_features=3, random_state=0)
    assert X.shape == (10, 3)
    assert_allclose(np.linalg.matrix_rank(X), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"manifold": "tours"}, "manifold must be one of .*'torus'.* Did you mean 'torus'"),
        ({"n_features": 3}, "must be at least 4 for the flat torus. Got n_features=3."),
        ({"embedding": "rotated", "n_features": 4}, "Did you mean 'rotation'"),
        ({"manifold": "circle", "intrinsic_dim": 3}, "must be 1 for the circle. Got intrinsic"),
        ({"intrinsic_dim": 0}, "intrinsic_dim must be an int of at least 1"),
        ({"manifold": part("torus", intrinsic_dim=0)}, "intrinsic_dim must be at least 1"),
        ({"manifold": part("torus", dims=3)}, "takes the settings .* Got 'dims'"),
        (
            {"embedding": part("nonlinear", bend=1.0), "n_features": 9},
            r"bend must be in \[0, 1",
        ),
        ({"off_manifold_noise": -1}, "off_manifold_noise must be a finite number"),
    ],
)
def test_errors_say_the_rule_and_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        make_manifold_regression(10, **settings)
