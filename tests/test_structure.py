"""Axes and blocks of a function, read off its inputs and gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from skmoe import DeepMoERegressor
from skmoe.batches import Rows
from skmoe.datasets import make_compositional_regression
from skmoe.structure import coherence, find_blocks, gradients, group_axes, independent_axes


@pytest.fixture
def generator():
    return np.random.RandomState(0)


def rotated_cube(generator, n=4000, dim=4, n_features=7):
    """Rows of a cube, and what they look like after a random linear map."""
    U = generator.uniform(-1, 1, (n, dim))
    return U, U @ generator.standard_normal((dim, n_features))


class Composition(nn.Module):
    """``(2 + sin(3 u_0 + u_2^2)) (2 + cos(2 u_1 u_3 + u_1))``: two blocks of two."""

    def __init__(self, unmix):
        super().__init__()
        self.unmix = torch.from_numpy(unmix)

    def forward(self, x):
        u = (x @ self.unmix).T
        first = torch.sin(3 * u[0] + u[2] ** 2)
        return ((2 + first) * (2 + torch.cos(2 * u[1] * u[3] + u[1])))[:, None], []


def test_axes_of_a_rotated_cube_are_found(generator):
    U, X = rotated_cube(generator)
    axes = independent_axes(X, np.ones(len(X)), generator)
    assert axes.shape == (7, 4)  # the span of the rows, not all columns
    found = X @ axes
    np.testing.assert_allclose(found.std(0), 1.0, rtol=1e-6)
    match = np.abs(np.corrcoef(U.T, found.T)[:4, 4:])
    assert (match.max(axis=1) > 0.999).all()
    assert len(set(match.argmax(axis=1))) == 4


def test_rows_of_no_weight_do_not_count_for_axes(generator):
    _, X = rotated_cube(generator)
    more = np.vstack([X, 100 * generator.standard_normal(X.shape)])
    weight = np.repeat([1.0, 0.0], len(X))
    axes = independent_axes(more, weight, np.random.RandomState(1))
    assert axes.shape == (7, 4)


@pytest.mark.parametrize("X", [np.ones((50, 3)), np.random.RandomState(0).rand(200, 60)])
def test_no_axes_of_too_few_or_too_many_dimensions(generator, X):
    assert independent_axes(X, np.ones(len(X)), generator) is None


def test_gradients_are_those_of_the_function():
    network = Composition(np.eye(4))
    x = torch.rand(10, 4, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(network(x)[0].sum(), x)
    np.testing.assert_allclose(gradients(network, x)[:, 0], expected.numpy())


class Opposites(Composition):
    """The function and its negative: outputs that cancel each other."""

    def __init__(self, unmix, n_outputs):
        super().__init__(unmix)
        self.signs = (-1.0) ** torch.arange(n_outputs)

    def forward(self, x):
        y, steps = super().forward(x)
        return y * self.signs, steps


@pytest.mark.parametrize("n_outputs", [2, 12])
def test_outputs_that_cancel_each_other_have_the_same_coherence(n_outputs, generator):
    U, _ = rotated_cube(generator)
    expected, found = (
        coherence(U, gradients(network, torch.from_numpy(U)), np.ones(len(U)))
        for network in (Composition(np.eye(4)), Opposites(np.eye(4), n_outputs))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class Directions(nn.Module):
    """Two outputs, which see each of two factors in directions of their own."""

    def forward(self, x):
        a, b, c, d = x.T
        answers = [
            (torch.cos(3 * a + sign * b) + torch.cos(3 * c + sign * d)).exp()
            for sign in (-2, 2)
        ]
        return torch.stack(answers, -1), []


def test_directions_of_outputs_do_not_cancel(generator):
    U, _ = rotated_cube(generator)
    G = gradients(Directions(), torch.from_numpy(U))
    assert sorted(group_axes(coherence(U, G, np.ones(len(U))))) == [[0, 1], [2, 3]]


def test_coherence_tells_axes_of_one_factor_from_others(generator):
    """In one factor the gradient's direction follows from its coordinates; else it varies."""
    U, _ = rotated_cube(generator)
    network = Composition(np.eye(4))
    G = gradients(network, torch.from_numpy(U))
    c = coherence(U, G, np.ones(len(U)))
    np.testing.assert_array_equal(c, c.T)
    assert min(c[0, 2], c[1, 3]) > 0.95
    assert max(c[0, 1], c[0, 3], c[1, 2], c[2, 3]) < 0.7


def test_coherence_counts_a_weight_of_two_as_two_rows(generator):
    U = generator.uniform(size=(2000, 2))
    G = generator.standard_normal((2000, 1, 2))
    twice = np.repeat(U, 2, axis=0), np.repeat(G, 2, axis=0)
    np.testing.assert_allclose(
        coherence(U, G, np.full(2000, 2.0)), coherence(*twice, np.ones(4000)), atol=0.02
    )


def test_groups_are_cut_where_coherence_falls():
    c = np.full((5, 5), 0.2)
    c[:2, :2], c[2:4, 2:4] = 0.8, 0.7
    np.fill_diagonal(c, 1.0)
    assert sorted(group_axes(c)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("level", [0.1, 0.9])
def test_no_groups_where_all_axes_are_alike(level):
    c = np.full((4, 4), level)
    np.fill_diagonal(c, 1.0)
    assert group_axes(c) is None


def test_blocks_of_a_mixed_function_are_found(generator):
    U, X = rotated_cube(generator)
    unmix = np.linalg.pinv(X) @ U
    x = torch.from_numpy(X)
    rows = Rows(x, x[:, :1], torch.ones(len(x), dtype=x.dtype))
    blocks = find_blocks(Composition(unmix), rows, seed=0)
    encoders = blocks.encoders(n_blocks=3)
    assert encoders.shape == (3, 4, 2)
    np.testing.assert_array_equal(encoders[0], encoders[2])  # more than groups: in turn
    z = np.einsum("ta,bar->btr", X @ blocks.axes_DA - blocks.center_A, encoders[:2])
    np.testing.assert_allclose(z.mean(axis=1), 0, atol=1e-8)
    spans = [set(np.abs(np.corrcoef(U.T, block.T)[:4, 4:]).argmax(axis=0)) for block in z]
    assert {frozenset(span) for span in spans} == {frozenset({0, 2}), frozenset({1, 3})}


def test_noise_in_the_features_is_left_out_before(generator):
    U, X = rotated_cube(generator, n_features=16)
    network = Composition(np.linalg.pinv(X) @ U)
    y, _ = network(torch.from_numpy(X))
    noisy = torch.from_numpy(X + 0.05 * generator.standard_normal(X.shape))
    blocks = find_blocks(network, Rows(noisy, y, torch.ones(len(y)).double()), seed=0)
    assert blocks.axes_DA.shape == (16, 4)
    match = np.abs(np.corrcoef(U.T, (X @ blocks.axes_DA).T)[:4, 4:])
    assert (match.max(0) > 0.99).all()
    spans = {frozenset(match[:, group].argmax(0)) for group in blocks.groups}
    assert spans == {frozenset({0, 2}), frozenset({1, 3})}
    axes = independent_axes(noisy.numpy(), np.ones(len(y)), generator)
    assert axes.shape == (16, 16)  # of which noise makes up twelve


def test_estimator_starts_at_the_blocks_of_a_composition():
    settings = {"n_blocks": 2, "n_features": 6, "pieces": "smooth", "task_random_state": 3}
    data = make_compositional_regression(3000, random_state=0, return_X_y=False, **settings)
    small = {"n_experts": 4, "hidden_dim": 16, "model_dim": 32, "max_epochs": 20}
    moe = DeepMoERegressor(n_layers=3, init="blocks", random_state=0, **small)
    moe.fit(data.data, data.target)
    assert [axes.shape for axes in moe.block_directions_] == [(6, 2), (6, 2)]
    for axes in moe.block_directions_:
        match = np.abs(np.corrcoef(data.latent.T, (data.data @ axes).T)[:4, 4:])
        assert set(match.argmax(axis=0)) in ({0, 1}, {2, 3})
    assert len(moe.predict_gates(data.data[:5])) == 3  # as many blocks as asked for


def test_estimator_stays_as_it_was_without_blocks():
    X = np.random.RandomState(0).standard_normal((2100, 3))
    y = np.random.RandomState(1).standard_normal(2100)
    moe = DeepMoERegressor(n_layers=2, max_epochs=4, random_state=0).fit(X, y)
    assert moe.block_directions_ is None
    assert moe.net_.trunk is not None
