"""Solutions for many penalties are those of one penalty after the other."""

import pytest
import torch
from torch.testing import assert_close

from skmoe.damped_solve import _Eigenvectors, _ThreeDiagonals, reduced

ALPHAS = [1.0, 1e-3, 1e-9]


def problem(n_unknowns, rank=None, n_outputs=2):
    generator = torch.Generator().manual_seed(n_unknowns)
    shape = (rank or 2 * n_unknowns), n_unknowns
    A = torch.randn(shape, generator=generator, dtype=torch.float64)
    right = A.T @ torch.randn(len(A), n_outputs, generator=generator, dtype=torch.float64)
    return A.T @ A / len(A), right / len(A)


def reductions(gram):
    upper = gram.triu() + 7 * torch.ones_like(gram).tril(-1)  # which does not count
    return [kind(upper.clone()) for kind in (_Eigenvectors, _ThreeDiagonals)]


@pytest.mark.parametrize("n_unknowns", [2, 3, 10, 200])
def test_solutions_are_those_of_each_alpha(n_unknowns):
    gram, right = problem(n_unknowns)
    identity = torch.eye(n_unknowns, dtype=torch.float64)
    expected = torch.stack([torch.linalg.solve(gram + a * identity, right) for a in ALPHAS])
    traces = torch.stack(
        [torch.linalg.solve(gram + a * identity, gram).trace() for a in ALPHAS]
    )
    for made in reductions(gram):
        assert_close(made.solve(right, ALPHAS), expected)
        assert_close(made.freedom(ALPHAS), traces)
        assert_close(made.values_P, torch.linalg.eigvalsh(gram))


def test_fewer_rows_than_unknowns():
    gram, right = problem(50, rank=20)
    by_vectors, by_diagonals = reductions(gram)
    alphas = [1.0, 1e-6]
    assert_close(by_diagonals.solve(right, alphas), by_vectors.solve(right, alphas))
    assert_close(by_diagonals.freedom(alphas), by_vectors.freedom(alphas))
    assert by_diagonals.freedom([1e-6]).item() == pytest.approx(20, rel=1e-4)
    assert (by_diagonals.values_P >= 0).all()


def test_a_matrix_of_zeros():
    for made in reductions(torch.zeros(5, 5, dtype=torch.float64)):
        assert made.values_P.max() == 0
        assert made.solve(torch.ones(5, 1, dtype=torch.float64), [0.5]).tolist() == [
            [[2.0]] * 5
        ]


def test_many_unknowns_are_reduced_to_three_diagonals():
    assert isinstance(reduced(problem(20)[0]), _Eigenvectors)
    assert isinstance(reduced(problem(150)[0]), _ThreeDiagonals)


def test_what_is_not_a_number_is_not_hidden():
    gram, right = problem(150)
    gram[0, 1] = torch.nan
    try:
        made = reduced(gram)
    except RuntimeError:
        return
    assert not made.values_P[-1] > 0 or not made.solve(right, [1.0]).isfinite().all()
