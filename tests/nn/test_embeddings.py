"""Numeric embeddings: x first, then functions of one feature each."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.embeddings import EMBEDDINGS, NoEmbedding, Periodic, PiecewiseLinear

every_embedding = pytest.mark.parametrize("kind", EMBEDDINGS)
BINS = [[-1.0, 0.0, 0.5, 2.0], [0.0], [0.0, 1.0], [-2.0, 1.5, 2.0], []]


# Rules for all embeddings


@every_embedding
def test_output_starts_with_x_and_has_the_dimension_announced(kind, randn, generator):
    embedding = EMBEDDINGS.build(kind, 3, generator=generator).double()
    x_TD = randn(7, 3)
    e_TF = embedding(x_TD)
    assert torch.equal(e_TF[:, :3], x_TD)
    assert e_TF.shape == (7, embedding.output_dim)
    assert embedding.output_dim > 3


@every_embedding
def test_each_output_depends_on_one_feature(kind, randn, generator):
    embedding = EMBEDDINGS.build(kind, 3, generator=generator).double()
    x_D = randn(3)
    jacobian_FD = torch.func.jacrev(lambda x: embedding(x[None])[0])(x_D)
    assert ((jacobian_FD != 0).sum(1) <= 1).all()
    assert ((jacobian_FD != 0).sum(0) >= 2).all()  # itself and what stands beside it


@every_embedding
def test_rows_are_embedded_one_by_one(kind, randn, generator):
    embedding = EMBEDDINGS.build(kind, 3, generator=generator).double()
    x_TD = randn(7, 3)
    assert_close(embedding(x_TD), torch.cat([embedding(row) for row in x_TD.split(1)]))


@every_embedding
def test_construction_leaves_torchs_global_generator_alone(kind, generator):
    before = torch.get_rng_state()
    EMBEDDINGS.build(kind, 3, generator=generator)
    assert torch.equal(before, torch.get_rng_state())


@every_embedding
def test_same_seed_gives_same_embedding(kind, randn):
    one, two = (
        EMBEDDINGS.build(kind, 3, generator=torch.Generator().manual_seed(5)).double()
        for _ in range(2)
    )
    x_TD = randn(7, 3)
    assert torch.equal(one(x_TD), two(x_TD))


@every_embedding
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embedding_keeps_the_dtype(kind, dtype, generator):
    embedding = EMBEDDINGS.build(kind, 3, generator=generator).to(dtype)
    assert embedding(torch.zeros(2, 3, dtype=dtype)).dtype == dtype


def test_no_embedding_is_the_identity(randn):
    x_TD = randn(7, 3)
    assert NoEmbedding(3)(x_TD) is x_TD
    assert NoEmbedding(3).output_dim == 3


# Piecewise linear


def progress_through_bins(x, edges):
    """Gorishniy et al. (2022), eq. 1, with linear continuation beyond the outer edges."""
    low, high = np.array(edges[:-1]), np.array(edges[1:])
    raw = (x[:, None] - low) / (high - low)
    lower = np.r_[-np.inf, np.zeros(len(low) - 1)]
    upper = np.r_[np.ones(len(low) - 1), np.inf]
    return np.clip(raw, lower, upper)


def test_piecewise_linear_formula():
    x = np.random.default_rng(0).uniform(-3, 3, (50, 5))
    encoded = [progress_through_bins(x[:, i], BINS[i]) for i in (0, 3)]
    actual = PiecewiseLinear(5, bins=BINS).double()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(actual, np.hstack([x, *encoded]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [BINS, [[-2.0, -1.0, 0.5, 2.0]] * 5], ids=["some", "even"])
def test_piecewise_linear_has_the_bits_of_the_package(bins, dtype, randn):
    embedding, x_TD = PiecewiseLinear(5, bins=bins).to(dtype), 2 * randn(50, 5).to(dtype)
    expected = torch.cat([x_TD, embedding.encoding(x_TD[:, embedding.columns])], -1)
    assert torch.equal(embedding(x_TD), expected)


def test_features_with_fewer_than_two_bins_add_nothing(randn):
    embedding, x_TD = PiecewiseLinear(3, bins=[[0.0], [0.0, 1.0], []]).double(), randn(7, 3)
    assert embedding.output_dim == 3
    assert torch.equal(embedding(x_TD), x_TD)


def test_output_dim_counts_the_bins_of_features_that_have_two():
    assert PiecewiseLinear(5, bins=BINS).output_dim == 5 + 3 + 2


@pytest.mark.parametrize("n_bins", [2, 8])
def test_default_bins_are_equal_on_minus_two_to_two(n_bins):
    x = np.linspace(-3, 3, 41)
    expected = progress_through_bins(x, np.linspace(-2, 2, n_bins + 1))
    actual = PiecewiseLinear(1, n_bins=n_bins).double()(torch.from_numpy(x)[:, None])
    np.testing.assert_allclose(actual[:, 1:].numpy(), expected, rtol=1e-6, atol=1e-6)


def test_piecewise_linear_has_no_weights():
    assert not list(PiecewiseLinear(5, bins=BINS).parameters())


def test_linear_maps_of_the_encoding_are_the_piecewise_linear_functions():
    edges = np.array([-1.0, 0.0, 0.5, 2.0])
    x = np.linspace(-1, 2, 200)
    encoded = PiecewiseLinear(1, bins=[list(edges)]).double()(torch.from_numpy(x)[:, None])
    target = np.interp(x, edges, [3.0, -1.0, 4.0, 0.5])
    design = np.c_[encoded.numpy(), np.ones(200)]
    solution = np.linalg.lstsq(design, target)[0]
    np.testing.assert_allclose(design @ solution, target, atol=1e-6)


# Periodic


def test_periodic_formula(randn, generator):
    embedding = Periodic(3, n_frequencies=4, n_outputs=5, generator=generator).double()
    x_TD = randn(7, 3)
    angles = 2 * torch.pi * x_TD[..., None] * embedding.embedding.periodic.weight
    waves = torch.cat([angles.cos(), angles.sin()], -1)
    linear = embedding.embedding.linear
    outputs = torch.relu(torch.einsum("tdw,dwo->tdo", waves, linear.weight) + linear.bias)
    assert_close(embedding(x_TD), torch.cat([x_TD, outputs.flatten(1)], -1))


def test_periodic_learns_its_frequencies(randn, generator):
    embedding = Periodic(3, generator=generator).double()
    embedding(randn(7, 3)).square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in embedding.parameters())


def test_frequency_scale_is_the_deviation_of_the_initial_frequencies(generator):
    embedding = Periodic(100, n_frequencies=100, frequency_scale=0.3, generator=generator)
    assert abs(embedding.embedding.periodic.weight.std() - 0.3) < 0.01
