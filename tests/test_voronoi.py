"""The Voronoi loss against its definition."""

import numpy as np
import pytest

from skmoe.inspection import voronoi_loss


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def truth(random):
    weights = random.random(3)
    groups = [10 * random.normal(size=(3, 2)), random.normal(size=(3, 1))]
    return weights / weights.sum(), groups


def test_the_voronoi_loss_is_zero_at_permutations_and_splits(truth, random):
    weights, groups = truth
    order = random.permutation(3)
    assert voronoi_loss(weights[order], [g[order] for g in groups], *truth) == 0
    split = np.array([0, 1, 1, 2, 2, 2])
    shares = np.array([1, 0.25, 0.75, 0.5, 0.25, 0.25])
    loss = voronoi_loss(weights[split] * shares, [g[split] for g in groups], *truth)
    assert loss == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("step", [0.1, 0.01])
def test_the_voronoi_loss_away_from_the_truth(truth, step):
    """Linear in the step of an expert alone, quadratic in that of one of several."""
    weights, groups = truth
    moved = [groups[0] + [[step, 0], [0, 0], [0, 0]], groups[1]]
    assert voronoi_loss(weights, moved, *truth) == pytest.approx(weights[0] * step)
    split = np.array([0, 0, 1, 2])
    halves = weights[split] * [0.5, 0.5, 1, 1]
    moved = [group[split] for group in groups]
    moved[1] = moved[1] + [[step], [0], [0], [0]]
    assert voronoi_loss(halves, moved, *truth) == pytest.approx(0.5 * weights[0] * step**2)
    heavier = weights + np.array([step, 0, 0])
    assert voronoi_loss(heavier, groups, *truth) == pytest.approx(step)


def test_exponents_of_each_group_and_of_crowded_cells(truth):
    """Experts alone are linear whatever the exponents are."""
    weights, groups = truth
    split = np.array([0, 0, 1, 2])
    halves = weights[split] * [0.5, 0.5, 1, 1]
    moved = [group[split] for group in groups]
    moved[0] = moved[0] + [[0.1, 0], [0, 0], [0, 0], [0, 0]]
    moved[1] = moved[1] + [[0.2], [0], [0], [0.3]]
    loss = voronoi_loss(halves, moved, *truth, exponents=[lambda counts: 2.0 * counts, 3])
    expected = 0.5 * weights[0] * (0.1**4 + 0.2**3) + weights[2] * 0.3
    assert loss == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"exponents must be one for all groups.*3 for 2"):
        voronoi_loss(halves, moved, *truth, exponents=[2, 2, 2])


def test_norms_of_groups_are_added_and_those_of_one_array_are_not():
    at, away = [[0.0, 0.0]], [[3.0, 4.0]]
    assert voronoi_loss([1.0], away, [1.0], at) == 5
    groups = [np.array([[3.0]]), np.array([[4.0]])], [np.zeros((1, 1))] * 2
    assert voronoi_loss([1.0], groups[0], [1.0], groups[1]) == 7


@pytest.mark.parametrize(
    ("weights", "parameters", "message"),
    [
        ([-0.5], [[1.0]], "weights must be non-negative"),
        ([1.0], [[1.0, 2.0]], "same numbers of columns"),
        ([1.0, 1.0], [[1.0]], "inconsistent numbers of samples"),
    ],
)
def test_experts_that_do_not_fit_together_are_refused(weights, parameters, message):
    with pytest.raises(ValueError, match=message):
        voronoi_loss(weights, parameters, [1.0], [[0.0]])
