"""Mixtures of normal distributions: moments, densities, draws, calibration."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm

from skmoe.distribution import Distribution, calibrating_factor, draw, log_density, moments
from skmoe.nn.losses import GaussianNLL


@pytest.fixture
def mixture():
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(3), size=4)
    return Distribution(
        weights, random.normal(size=(4, 3, 2)), random.uniform(0.2, 1.0, size=(4, 3, 2))
    )


def of_row(mixture, row, output):
    """Density of one output of one row, from the definition."""
    weights, means, stds = (part[row] for part in mixture)
    return lambda y: weights @ norm.pdf(y, means[:, output], stds[:, output])


@pytest.mark.parametrize("output", [0, 1])
def test_moments_are_the_integrals(mixture, output):
    mean, std = moments(mixture)
    for row in range(4):
        density = of_row(mixture, row, output)
        first = quad(lambda y, p=density: y * p(y), -9, 9)[0]
        second = quad(lambda y, p=density: y**2 * p(y), -9, 9)[0]
        assert_allclose(mean[row, output], first, atol=1e-7)
        assert_allclose(std[row, output], np.sqrt(second - first**2), rtol=1e-6)


def test_log_density_is_that_of_the_definition(mixture):
    y = np.random.default_rng(1).normal(size=(4, 2))
    weights, means, stds = mixture
    for factor in (1.0, 1.7):
        parts = norm.pdf(y[:, None], means, factor * stds).prod(-1)
        expected = np.log((weights * parts).sum(1))
        assert_allclose(log_density(mixture, y, factor), expected)


def test_draws_have_the_moments_and_shapes(mixture):
    draws = draw(mixture, 40_000, np.random.RandomState(0))
    assert draws.shape == (4, 40_000, 2)
    mean, std = moments(mixture)
    assert_allclose(draws.mean(1), mean, atol=0.03)
    assert_allclose(draws.std(1), std, rtol=0.03)


def test_outputs_of_a_draw_come_from_one_component():
    means = np.array([[[-5.0, -5.0], [5.0, 5.0]]])
    two = Distribution(np.array([[0.3, 0.7]]), means, np.full((1, 2, 2), 0.1))
    draws = draw(two, 1000, np.random.RandomState(0))[0]
    assert np.array_equal(draws[:, 0] > 0, draws[:, 1] > 0)
    assert abs((draws[:, 0] > 0).mean() - 0.7) < 0.05


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_calibration_finds_the_factor_that_data_were_made_with(truth):
    random = np.random.RandomState(0)
    n = 20_000
    told = Distribution(np.ones((n, 1)), np.zeros((n, 1, 1)), random.uniform(0.5, 2, (n, 1, 1)))
    y = draw(told._replace(stds=truth * told.stds), 1, random)[:, 0]
    assert_allclose(calibrating_factor(told, y, np.ones(n)), truth, rtol=0.02)


def test_rows_of_weight_zero_do_not_calibrate():
    told = Distribution(np.ones((200, 1)), np.zeros((200, 1, 1)), np.ones((200, 1, 1)))
    y = np.random.RandomState(0).standard_normal((200, 1))
    y[100:] *= 100
    weight = np.repeat([1.0, 0.0], 100)
    first = Distribution(*(part[:100] for part in told))
    expected = calibrating_factor(first, y[:100], np.ones(100))
    assert_allclose(calibrating_factor(told, y, weight), expected, rtol=1e-3)


def test_loss_is_minus_the_log_density(mixture):
    weights, means, stds = (torch.from_numpy(part) for part in mixture)
    limit = 7.0
    raw = limit * torch.atanh(stds.log() / limit)
    y = np.random.default_rng(1).normal(size=(4, 2))
    loss = GaussianNLL()(weights[None], torch.cat([means, raw], -1)[None], torch.from_numpy(y))
    assert loss.shape == (1, 4)
    assert_allclose(loss[0], -log_density(mixture, y))


def test_loss_has_finite_gradients_where_experts_are_not_asked():
    weights = torch.tensor([[[1.0, 0.0, 0.0]] * 5], dtype=torch.float64, requires_grad=True)
    random = torch.Generator().manual_seed(0)
    outputs = 10 * torch.randn(1, 5, 3, 2, generator=random, dtype=torch.float64)
    outputs.requires_grad_()
    GaussianNLL()(weights, outputs, torch.zeros(5, 1).double()).sum().backward()
    assert weights.grad.isfinite().all()
    assert outputs.grad.isfinite().all()
