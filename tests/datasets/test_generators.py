import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skmoe.datasets import (
    make_circle_regression,
    make_compositional_regression,
    make_cube_regression,
    make_manifold_regression,
)
from skmoe.datasets.manifolds import MANIFOLDS
from skmoe.datasets.targets import COMBINERS, TARGETS

GENERATORS = [
    make_circle_regression,
    make_cube_regression,
    make_manifold_regression,
    make_compositional_regression,
]
EMBEDDED = [make_circle_regression, make_manifold_regression, make_compositional_regression]
hold_out = functools.partial(make_compositional_regression, holdout_cells=0.25, n_features=8)


@pytest.mark.parametrize("make", [*GENERATORS, hold_out])
def test_same_seed_same_data(make):
    X, y = make(50, random_state=3, noise=0.1)
    assert len(X) == len(y) == 50
    for seed in (3, np.random.RandomState(3)):
        again = make(50, random_state=seed, noise=0.1)
        assert_array_equal(X, again[0])
        assert_array_equal(y, again[1])
    other, _ = make(50, random_state=4, noise=0.1)
    assert not np.allclose(X, other)


@pytest.mark.parametrize("make", [*GENERATORS, hold_out])
@pytest.mark.parametrize("seed", [None, 0])
def test_global_random_state_is_untouched(make, seed):
    before = np.random.get_state()  # noqa: NPY002
    X, _ = make(20, random_state=seed)
    X_again, _ = make(20, random_state=seed)
    after = np.random.get_state()  # noqa: NPY002
    assert_array_equal(before[1], after[1])
    assert before[2] == after[2]
    assert np.array_equal(X, X_again) == (seed is not None)


@pytest.mark.parametrize("make", [*GENERATORS, hold_out])
def test_bunch_holds_what_the_pair_holds_and_more(make):
    data = make(40, random_state=0, noise=0.5, return_X_y=False)
    X, y = make(40, random_state=0, noise=0.5)
    seen = ~data.holdout if "holdout" in data else slice(None)
    assert_array_equal(data.data[seen], X)
    assert_array_equal(data.target[seen], y)
    n = len(data.data)
    assert n == len(data.target) == len(data.latent) == len(data.regions)
    assert data.regions.ndim == data.latent.ndim == 2
    assert data.regions.dtype == np.int64
    assert data.noise_free_target.shape == data.target.shape
    assert not np.allclose(data.target, data.noise_free_target)
    assert isinstance(data.DESCR, str)


@pytest.mark.parametrize("make", GENERATORS)
def test_noise_is_in_units_of_y(make):
    data = make(4000, random_state=0, noise=0.3, return_X_y=False)
    noise = data.target - data.noise_free_target
    assert_allclose(noise.std(), 0.3, rtol=0.05)
    assert_allclose(noise.mean(), 0, atol=0.02)
    clean = make(4000, random_state=0, return_X_y=False)
    assert_array_equal(clean.target, clean.noise_free_target)
    assert_array_equal(clean.target, data.noise_free_target)


@pytest.mark.parametrize("manifold", sorted(MANIFOLDS))
def test_function_of_coordinates_is_the_target_without_noise(manifold):
    settings = {"manifold": manifold, "target": "pieces", "task_random_state": 0}
    data = make_manifold_regression(
        100, **settings, noise=0.5, random_state=1, return_X_y=False
    )
    assert_array_equal(data.function(data.coordinates), data.noise_free_target)
    other = make_manifold_regression(50, **settings, random_state=2, return_X_y=False)
    assert_array_equal(data.function(other.coordinates), other.target)


@pytest.mark.parametrize("make", EMBEDDED)
@pytest.mark.parametrize("embedding", ["zero_padding", "rotation", "nonlinear"])
def test_target_does_not_depend_on_the_embedding(make, embedding):
    _, y = make(60, random_state=5)
    for n_features in (16, 40):
        X, y_embedded = make(60, n_features=n_features, embedding=embedding, random_state=5)
        assert X.shape == (60, n_features)
        assert_array_equal(y_embedded, y)


@pytest.mark.parametrize("make", EMBEDDED)
def test_rotation_leads_back_to_the_points(make):
    plain = make(30, n_features=None if make is not make_circle_regression else 2,
                 random_state=1, return_X_y=False)  # fmt: skip
    rotated = make(30, n_features=20, embedding="rotation", random_state=1, return_X_y=False)
    assert_allclose(rotated.data @ rotated.rotation, plain.data, atol=1e-12)


def task_of(make, **seeds):
    """What a task fixes: the map from latent points to features and values."""
    return make(400, return_X_y=False, **seeds)


@pytest.mark.parametrize("make", [make_manifold_regression, make_compositional_regression])
def test_task_random_state_fixes_the_task_and_not_the_rows(make):
    make = functools.partial(make, n_features=16)
    first = task_of(make, task_random_state=0, random_state=1)
    second = task_of(make, task_random_state=0, random_state=2)
    other = task_of(make, task_random_state=9, random_state=1)
    assert_array_equal(first.rotation, second.rotation)
    assert not np.intersect1d(first.latent, second.latent).size
    assert not np.allclose(first.rotation, other.rotation)
    assert_array_equal(first.latent, other.latent)
    assert not np.allclose(first.target, other.target)


def test_rows_of_one_task_have_one_function():
    # On a dense one-dimensional task, the nearest training row predicts a fresh row.
    make = functools.partial(
        make_manifold_regression, manifold="circle", target="smooth", n_features=10
    )
    X, y = make(5000, task_random_state=0, random_state=1)
    X_test, y_test = make(100, task_random_state=0, random_state=2)
    nearest = ((X_test[:, None] - X) ** 2).sum(-1).argmin(axis=1)
    assert_allclose(y[nearest], y_test, atol=0.2)
    _, y_other = make(100, task_random_state=5, random_state=2)
    assert not np.allclose(y_other, y_test, atol=0.2)


def test_task_of_an_int_is_the_task_of_random_state():
    together = make_compositional_regression(30, random_state=7)
    apart = make_compositional_regression(30, random_state=7, task_random_state=7)
    assert_array_equal(together[1], apart[1])


# Manifolds


@pytest.mark.parametrize("manifold", sorted(MANIFOLDS))
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_manifold_targets_have_their_pieces(manifold, target):
    data = make_manifold_regression(
        1500, manifold=manifold, target=target, n_pieces=3, return_X_y=False, random_state=0
    )
    n_regions = 1 if target == "smooth" else 3
    assert data.regions.shape == (1500, 1)
    assert_array_equal(np.unique(data.regions), np.arange(n_regions))
    assert 0.2 < data.target.std() < 5


@pytest.mark.parametrize("manifold", sorted(MANIFOLDS))
def test_smooth_targets_are_lipschitz_on_the_manifold(manifold):
    settings = {"manifold": manifold, "target": "smooth", "random_state": 0}
    X, y = make_manifold_regression(1500, **settings)
    i, j = np.triu_indices(len(X), 1)
    close = np.linalg.norm(X[i] - X[j], axis=1)
    near = close < 0.05
    assert near.sum() > 50
    # Forty waves of frequency 6, amplitudes of variance 1/20: |a|_1 6 is near 50.
    assert (np.abs(y[i] - y[j])[near] / close[near]).max() < 60


# Compositions


def test_all_cells_occur_and_regions_are_ids():
    data = make_compositional_regression(20_000, return_X_y=False, random_state=0)
    assert data.data.shape == (20_000, 6)
    assert_array_equal(data.data, data.latent)
    assert data.regions.shape == (20_000, 3)
    assert len(np.unique(data.regions, axis=0)) == 4**3
    for column in data.regions.T:
        share = np.bincount(column, minlength=4) / len(column)
        assert share.min() > 0.04
    assert data.latent.min() >= 0
    assert data.latent.max() <= 1


@pytest.mark.parametrize("combine", sorted(COMBINERS))
@pytest.mark.parametrize("pieces", ["jump", "smooth"])
def test_values_of_blocks_make_the_target(combine, pieces):
    settings = {"combine": combine, "pieces": pieces, "n_blocks": 2, "random_state": 0}
    data = make_compositional_regression(200, return_X_y=False, **settings)
    _, y = make_compositional_regression(200, **settings)
    assert y.shape == ((200, 2) if combine == "vector" else (200,))
    assert data.block_values.shape == (200, 2)
    assert_array_equal(data.function(data.latent), data.noise_free_target)
    for block in range(2):
        own = data.latent[:, 2 * block : 2 * block + 2]
        assert_array_equal(data.function.blocks[block](own), data.block_values[:, block])
    if combine == "vector":
        assert_allclose(y, data.block_values)
    if combine == "sum":
        assert_allclose(y, data.block_values.sum(axis=1))
    if combine == "product":
        assert_allclose(y, (1 + np.tanh(data.block_values) / 2).prod(axis=1))


@pytest.mark.parametrize(
    ("n_blocks", "n_regions", "block_dim"),
    [(1, 4, 2), (3, 1, 2), (3, 8, 2), (5, 4, 2), (2, 3, 1)],
)
def test_any_number_of_blocks_and_regions(n_blocks, n_regions, block_dim):
    data = make_compositional_regression(
        3000, n_blocks=n_blocks, n_regions=n_regions, block_dim=block_dim,
        return_X_y=False, random_state=1,
    )  # fmt: skip
    assert data.latent.shape == (3000, n_blocks * block_dim)
    assert data.regions.shape == (3000, n_blocks)
    for column in data.regions.T:
        assert_array_equal(np.unique(column), np.arange(n_regions))


@pytest.mark.parametrize("seed", range(3))
def test_held_out_cells_are_not_in_the_pair(seed):
    data = make_compositional_regression(
        5000, holdout_cells=0.25, return_X_y=False, random_state=seed
    )
    X, y = make_compositional_regression(5000, holdout_cells=0.25, random_state=seed)
    assert X.shape == (5000, 6)
    assert y.shape == (5000,)
    assert (~data.holdout).sum() == 5000
    assert not data.holdout[-1]
    assert_array_equal(data.data[~data.holdout], X)

    assert data.holdout_cells.shape == (16, 3)
    held = {tuple(cell) for cell in data.holdout_cells}
    assert len(held) == 16
    mask = np.array([tuple(row) in held for row in data.regions])
    assert_array_equal(mask, data.holdout)
    assert 0.1 < data.holdout.mean() < 0.4
    for column in data.regions[~data.holdout].T:
        assert len(np.unique(column)) == 4  # every region is seen, in other company


def test_largest_holdout_still_shows_every_region():
    data = make_compositional_regression(
        500, n_blocks=2, n_regions=3, holdout_cells=6 / 9, return_X_y=False, random_state=0
    )
    seen = np.unique(data.regions[~data.holdout], axis=0)
    assert len(seen) == 3
    assert_array_equal(np.sort(seen, axis=0), np.arange(3)[:, None] * [1, 1])


def test_held_out_cells_belong_to_the_task():
    cells = [
        hold_out(100, return_X_y=False, task_random_state=0, random_state=seed).holdout_cells
        for seed in (1, 2)
    ]
    assert_array_equal(*cells)


def test_without_holdout_all_rows_are_seen():
    data = make_compositional_regression(100, return_X_y=False, random_state=0)
    assert not data.holdout.any()
    assert data.holdout_cells.shape == (0, 3)
    # and the function is the same as with it
    held = make_compositional_regression(
        100, holdout_cells=0.25, return_X_y=False, random_state=0
    )
    assert_array_equal(held.target[:50], data.target[:50])


# The paper's experiments


def test_circle_is_experiment_one():
    data = make_circle_regression(300, return_X_y=False, random_state=0)
    x1, x2 = data.data[:, :2].T
    assert data.data.shape == (300, 16)
    assert_allclose(x1**2 + x2**2, 1)
    assert (data.data[:, 2:] == 0).all()
    assert_allclose(data.target, np.sin(5 * x1) + np.cos(3 * x2))
    assert_allclose(np.cos(data.latent[:, 0]), x1)
    assert_array_equal(data.regions, 0)


def test_cube_is_experiment_two():
    data = make_cube_regression(3000, return_X_y=False, random_state=0)
    assert data.data.shape == (3000, 2)
    assert data.data.min() >= 0
    assert data.data.max() <= 3
    assert_array_equal(data.regions, np.floor(data.data))
    i, z = data.regions + 1, data.data
    values = i * (i - 1 - z) ** 2 * (z - i) ** 2
    assert_allclose(data.block_values, values)
    assert_allclose(data.target, values.sum(axis=1))
    assert len(np.unique(data.regions, axis=0)) == 9
    assert_allclose(np.bincount(data.regions[:, 0]) / 3000, 1 / 3, atol=0.05)


def test_cube_combines_as_told():
    data = make_cube_regression(100, combine="vector", n_blocks=3, return_X_y=False,
                                random_state=0)  # fmt: skip
    assert data.target.shape == (100, 3)
    _, product = make_cube_regression(100, combine="product", n_blocks=3, random_state=0)
    assert_allclose(product, data.target.prod(axis=1))
    _, total = make_cube_regression(100, n_blocks=3, random_state=0)
    assert_allclose(total, data.target.sum(axis=1))


# Errors


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("n_samples", [0, -1, 2.5, "10", True, None])
def test_n_samples_is_checked(make, n_samples):
    with pytest.raises(ValueError, match=r"n_samples must be an int of at least 1. Got n_sam"):
        make(n_samples)


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("noise", [-0.1, np.nan, np.inf, "much"])
def test_noise_is_checked(make, noise):
    with pytest.raises(ValueError, match=r"noise must be a finite number of at least 0. Got"):
        make(5, noise=noise)


@pytest.mark.parametrize("make", GENERATORS)
def test_only_n_samples_is_positional(make):
    with pytest.raises(TypeError, match="positional"):
        make(5, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"combine": "produkt"}, "combine must be one of .* Did you mean 'product'"),
        ({"pieces": "jumps"}, "pieces must be one of .* Did you mean 'jump'"),
        ({"n_blocks": 0}, "n_blocks must be an int of at least 1. Got n_blocks=0."),
        ({"n_regions": 1.5}, "n_regions must be an int of at least 1. Got n_regions=1.5."),
        (
            {"n_features": 5},
            "must be at least 6 for 3 blocks of dimension 2. Got n_features=5.",
        ),
        ({"holdout_cells": -0.1}, "holdout_cells must be a finite number of at least 0"),
        (
            {"holdout_cells": 1.0},
            "holdout_cells must be at most 0.938 .* Got holdout_cells=1.0",
        ),
        ({"holdout_cells": 0.5, "n_blocks": 1}, "holdout_cells must be at most 0 for n_regio"),
        ({"holdout_cells": 0.5, "n_blocks": 20}, "n_regions \\*\\* n_blocks to be at most"),
        ({"random_state": "seed"}, "cannot be used to seed"),
    ],
)
def test_errors_of_compositions(settings, message):
    with pytest.raises(ValueError, match=message):
        make_compositional_regression(10, **settings)


def test_errors_of_circle_and_target():
    with pytest.raises(ValueError, match="n_features must be at least 2 for the circle"):
        make_circle_regression(10, n_features=1)
    with pytest.raises(ValueError, match="n_features must be at least 2 for the circle"):
        make_circle_regression(10, n_features="many")
    with pytest.raises(ValueError, match="Did you mean 'pieces'"):
        make_manifold_regression(10, target="piece")
    with pytest.raises(ValueError, match="n_pieces must be an int of at least 1"):
        make_manifold_regression(10, n_pieces=0)
