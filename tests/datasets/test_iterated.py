"""Targets composed step by step: recomputed from their parts, and held-out combinations."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skmoe.datasets import make_iterated_regression, make_multiplication_regression
from skmoe.datasets.iterated import Step

MAKERS = {
    "iterated": make_iterated_regression,
    "multiplication": make_multiplication_regression,
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize("n_regions", [1, 2, 5])
def test_each_piece_of_a_step_covers_the_interval_in_one_direction(n_regions):
    step = Step(n_regions, np.random.RandomState(0))
    z = np.linspace(0, 1, 1000 * n_regions, endpoint=False)
    for piece in range(n_regions):
        values = step(z[step.regions(z) == piece])
        steps = np.diff(values)
        assert (steps > 0).all() or (steps < 0).all()
        assert values.min() < 0.01
        assert values.max() > 0.99


def test_a_step_follows_its_formula():
    step = Step(3, np.random.RandomState(0))
    z = np.array([0.1, 0.4, 0.9])
    t = 3 * z - [0, 1, 2]
    rising = t + step.bends * np.sin(2 * np.pi * t) / (2 * np.pi)
    assert_allclose(step(z), np.where(step.falls, 1 - rising, rising))


def test_composition_is_recomputed_from_its_steps():
    data = make_iterated_regression(300, n_steps=4, n_features=3, return_X_y=False)
    z = data.data[:, 0]
    for number, step in enumerate(data.steps):
        assert np.array_equal(data.latent[:, number], z)
        assert np.array_equal(data.regions[:, number], step.regions(z))
        z = step(z)
    assert np.array_equal(z, data.target)
    assert data.data.shape == (300, 3)


def test_composition_has_as_many_pieces_as_there_are_cells():
    data = make_iterated_regression(20_000, n_steps=3, n_regions=3, return_X_y=False)
    order = np.argsort(data.data[:, 0])
    changes = (np.diff(data.regions[order], axis=0) != 0).any(1).sum()
    assert changes + 1 == len(np.unique(data.regions, axis=0)) == 27


@pytest.mark.parametrize(("n_digits", "base"), [(1, 10), (3, 10), (5, 2), (2, 16)])
def test_products_are_recomputed_from_digits(n_digits, base):
    data = make_multiplication_regression(
        300, n_digits=n_digits, base=base, return_X_y=False, random_state=0
    )
    digits = data.data.astype(int)
    numbers = [
        [int("".join(np.base_repr(d, base) for d in half), base) for half in row]
        for row in digits.reshape(300, 2, n_digits)
    ]
    assert np.array_equal(data.latent, numbers)
    assert_allclose(data.target, np.prod(numbers, axis=1) / (base**n_digits - 1) ** 2)
    assert np.array_equal(data.regions, digits[:, [0, n_digits]])
    assert digits.min() >= 0
    assert digits.max() == base - 1


@every_maker
def test_held_out_cells_are_in_the_bunch_only(make):
    settings = {"holdout_cells": 0.25, "random_state": 0}
    data = make(400, **settings, return_X_y=False)
    X, y = make(400, **settings)
    assert len(X) == 400
    assert np.array_equal(data.data[~data.holdout], X)
    assert np.array_equal(data.target[~data.holdout], y)
    held = set(map(tuple, data.holdout_cells.tolist()))
    cells = [tuple(row) for row in data.regions.tolist()]
    assert [cell in held for cell in cells] == data.holdout.tolist()
    assert 0.1 < data.holdout.mean() < 0.4
    for block in data.regions[~data.holdout].T:
        assert len(np.unique(block)) == data.regions.max() + 1


@every_maker
def test_task_seed_fixes_the_task_and_the_other_the_rows(make):
    def draw(task, rows):
        return make(
            200,
            holdout_cells=0.25,
            task_random_state=task,
            random_state=rows,
            return_X_y=False,
        )

    one, two, other = draw(0, 1), draw(0, 2), draw(3, 1)
    assert np.array_equal(one.holdout_cells, two.holdout_cells)
    assert not np.array_equal(one.data[:50], two.data[:50])
    assert not np.array_equal(one.holdout_cells, other.holdout_cells)


@every_maker
def test_noise_has_the_deviation_asked_for(make):
    data = make(20_000, noise=0.3, random_state=0, return_X_y=False)
    assert_allclose((data.target - data.noise_free_target).std(), 0.3, rtol=0.03)


@every_maker
def test_global_state_is_left_alone(make):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make(10)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (make_iterated_regression, {"n_steps": 0}, "n_steps must be an int of at least 1"),
        (make_iterated_regression, {"n_features": 0}, "n_features must be an int of at least"),
        (make_iterated_regression, {"holdout_cells": 1.0}, "holdout_cells must be at most"),
        (make_multiplication_regression, {"base": 1}, "base must be an int of at least 2"),
        (make_multiplication_regression, {"n_digits": 9}, "so that products are exact"),
    ],
)
def test_bad_settings_are_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(10, **settings)
