"""The mixture of one dimension, and its fit."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import logsumexp

from benchmarks.mixture_em import Experts, Gate, Mixture, fit
from benchmarks.rates import CASES

truths = pytest.mark.parametrize("truth", [c.truth for c in CASES], ids=[c.name for c in CASES])


@pytest.fixture
def random():
    return np.random.default_rng(0)


@truths
def test_the_density_integrates_to_one(truth):
    y = np.linspace(-200, 200, 400_001)
    for x in (-2.0, 0.3, 2.9):
        density = np.exp(logsumexp(truth.log_parts(np.full_like(y, x), y), axis=1))
        assert trapezoid(density, y) == pytest.approx(1)


@truths
def test_draws_have_the_moments_of_the_model(truth, random):
    x, y = truth.sample(40_000, random)
    weights = np.concatenate([np.ones((len(x), 1)), np.exp(truth.gate.log_weights(x))], axis=1)
    means = np.concatenate([truth.shared.mean(x), truth.routed.mean(x)], axis=1)
    variances = np.concatenate([truth.shared.variances, truth.routed.variances])
    expected = (weights * means).sum(1) / 2
    squares = (weights * (means**2 + variances)).sum(1) / 2
    error = np.sqrt((squares - expected**2).mean() / len(x))
    assert abs((y - expected).mean()) < 4 * error
    assert (y**2).mean() == pytest.approx(squares.mean(), rel=0.03)


@truths
def test_the_likelihood_never_falls(truth, random):
    x, y = truth.sample(500, random)
    start = truth.take(np.array([0, 0]), np.array([0, 1, 1])).jitter(0.3, random)
    _, likelihoods = fit(start, x, y, max_iter=60)
    assert len(likelihoods) > 3
    assert (np.diff(likelihoods) > -1e-9).all()


def test_an_expert_that_splits_does_not_change_the_density(random):
    truth = CASES[0].truth
    x, y = truth.sample(50, random)
    split = truth.take(np.array([0, 0]), np.array([0, 1, 1]))
    offsets = split.gate.offsets - np.log([1, 2, 2])
    split = replace(split, gate=replace(split.gate, offsets=offsets))
    before, after = (logsumexp(m.log_parts(x, y), axis=1) for m in (truth, split))
    np.testing.assert_allclose(before, after)


def test_a_fit_of_the_right_size_finds_the_truth(random):
    truth = Mixture(
        np.ones(1),
        Experts(np.array([[2.0, 0.0]]), np.array([0.2])),
        Gate("softmax", np.array([-0.5, 0.5]), np.array([5.0, 5.0])),
        Experts(np.array([[8.0, 2.0], [-6.0, 1.0]]), np.array([0.4, 0.4])),
    )
    found, _ = fit(truth.jitter(0.3, random), *truth.sample(20_000, random))
    np.testing.assert_allclose(found.shared.lines, truth.shared.lines, atol=0.03)
    np.testing.assert_allclose(found.routed.lines, truth.routed.lines, atol=0.06)
    np.testing.assert_allclose(found.routed.variances, 0.4, atol=0.03)
    np.testing.assert_allclose(
        found.gate.log_weights(np.zeros(1)), [[-1.3133, -0.3133]], atol=0.06
    )
