"""The closed form is the ridge regression on the explicit design matrix."""

import numpy as np
import pytest
import torch
from last_maps import OUT, N, build, design_matrix, draw, every_network
from torch.testing import assert_close

from skmoe.batches import Rows
from skmoe.linear_solve import TOLERANCE, solve_output
from skmoe.normal_equations import BIAS_SCALE


def naive_change(network, rows, alpha):
    """The same ridge regression by numpy's least squares."""
    A = design_matrix(network, rows.x)
    n_features = network.output_map().shape[1]
    scale = np.where(np.arange(A.shape[1]) % n_features == n_features - 1, BIAS_SCALE, 1.0)
    root = (rows.weight / rows.weight.sum()).sqrt().numpy()[:, None]
    with torch.no_grad():
        residual = (rows.y - network(rows.x)[0]).numpy()
    stacked = np.vstack([root * A * scale, np.sqrt(alpha) * np.eye(A.shape[1])])
    target = np.vstack([root * residual, np.zeros((A.shape[1], OUT))])
    return scale[:, None] * np.linalg.lstsq(stacked, target, rcond=None)[0]


@every_network
@pytest.mark.parametrize("block_values", [8_000_000, 500])
def test_solution_is_that_of_the_explicit_regression(name, block_values, monkeypatch):
    monkeypatch.setattr("skmoe.normal_equations.BLOCK_VALUES", block_values)
    monkeypatch.setattr("skmoe.normal_equations.GRAM_ROWS", 4)
    network, rows = build(name), draw()
    before = network.output_map()
    solution = solve_output(network, rows, draw(80, seed=2))
    assert solution.improved
    changed = network.output_map()
    network.set_output_map(before)
    expected = torch.from_numpy(naive_change(network, rows, solution.alpha))
    assert_close((changed - before).flatten(0, 1), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["soft", "sparse", "shared", "stack"])
@pytest.mark.parametrize("with_validation", [True, False])
def test_conjugate_gradients_solve_the_explicit_regression(name, with_validation, monkeypatch):
    monkeypatch.setattr("skmoe.linear_solve.CG_TOLERANCE", 1e-11)
    network, rows = build(name), draw()
    before = network.output_map()
    held_out = draw(80, seed=2) if with_validation else None
    solution = solve_output(network, rows, held_out, smallest_alpha=1e-6, max_direct=0)
    assert solution.residual < 1e-9
    change = (network.output_map() - before).flatten(0, 1)
    network.set_output_map(before)
    expected = torch.from_numpy(naive_change(network, rows, solution.alpha))
    assert_close(change, expected, rtol=1e-5, atol=1e-7)


@every_network
@pytest.mark.parametrize("with_validation", [True, False])
def test_weight_two_is_the_row_twice_and_weight_zero_no_row(name, with_validation):
    rows, held_out = draw(), draw(80, seed=2) if with_validation else None
    counts = torch.arange(N) % 3
    repeated = Rows(
        rows.x.repeat_interleave(counts, 0),
        rows.y.repeat_interleave(counts, 0),
        torch.ones(int(counts.sum()), dtype=torch.float64),
    )
    weighted = Rows(rows.x, rows.y, counts.double())
    maps = []
    for case in (weighted, repeated):
        network = build(name)
        solve_output(network, case, held_out, n_distinct=100, smallest_alpha=1e-6)
        maps.append(network.output_map())
    assert_close(*maps, rtol=1e-6, atol=1e-8)


@every_network
def test_validation_error_is_that_of_the_network_and_falls(name):
    network, held_out = build(name), draw(80, seed=2)
    solution = solve_output(network, draw(), held_out)
    with torch.no_grad():
        squares = (network(held_out.x)[0] - held_out.y).square().mean(1)
    error = (squares * held_out.weight).sum() / held_out.weight.sum()
    assert float(error) == pytest.approx(solution.score, rel=1e-6)
    assert solution.score < solution.score_before


def test_generalised_cross_validation_by_hand():
    network, rows = build("sparse"), draw()
    A = design_matrix(network, rows.x)
    n_features = network.output_map().shape[1]
    A[:, n_features - 1 :: n_features] *= BIAS_SCALE
    share = (rows.weight / rows.weight.sum()).numpy()
    with torch.no_grad():
        residual = (rows.y - network(rows.x)[0]).numpy()
    solution = solve_output(network, rows)
    root = np.sqrt(share)[:, None]
    gram = (root * A).T @ (root * A)
    hat = root * A @ np.linalg.solve(gram + solution.alpha * np.eye(len(gram)), (root * A).T)
    left = root * residual - hat @ (root * residual)
    expected = (left**2).sum() / OUT / (1 - 1.4 * np.trace(hat) / N) ** 2
    assert solution.score == pytest.approx(expected, rel=1e-6)


def test_maps_that_cannot_be_bettered_stay():
    network, rows, held_out = build("sparse"), draw(), draw(80, seed=2)
    with torch.no_grad():
        perfect = [Rows(r.x, network(r.x)[0], r.weight) for r in (rows, held_out)]
    before = network.output_map()
    solution = solve_output(network, *perfect)
    assert not solution.improved
    assert solution.alpha == np.inf
    assert torch.equal(network.output_map(), before)


def test_of_nearly_equal_scores_the_strongest_penalty_is_taken(monkeypatch):
    careful, rows, held_out = build("soft"), draw(), draw(80, seed=2)
    chosen = solve_output(careful, rows, held_out)
    monkeypatch.setattr("skmoe.linear_solve.TOLERANCE", 1.0)
    best = solve_output(build("soft"), rows, held_out)
    assert chosen.alpha >= best.alpha
    assert best.score <= chosen.score <= TOLERANCE * best.score
