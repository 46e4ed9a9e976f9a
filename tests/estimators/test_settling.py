"""Errors far above the usual one count linearly while borders move, and only then."""

import copy

import pytest
import torch

from skmoe.batches import Rows
from skmoe.estimators import _settling
from skmoe.estimators._borders import AT_LAST
from skmoe.estimators._settling import FAR_OFF, ResistantError, settling, usual_error
from skmoe.nn.losses import AbsoluteError, SquaredError
from skmoe.nn.networks import MoENetwork
from skmoe.plan import TrainingPlan, is_past
from skmoe.training import train

LIMIT = 0.5


def plan(loss):
    return TrainingPlan(loss, 1e-2, 0.0, 500, max_epochs=100)


@pytest.fixture
def rows():
    """A line, but one row in twenty is one too high."""
    x = torch.rand(2000, 1, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    y = 0.3 * x + (torch.arange(2000) % 20 == 0).double()[:, None]
    return Rows(x, y, torch.ones(2000).double())


@pytest.fixture
def network():
    generator = torch.Generator().manual_seed(0)
    sizes = {"n_experts": 1, "hidden_dim": 4}
    return MoENetwork(1, 1, gate="region", **sizes, generator=generator).double()


def test_it_is_the_squared_error_up_to_the_limit_and_then_goes_on_linearly():
    loss = ResistantError()
    loss.limit.fill_(LIMIT)
    errors = torch.linspace(-2, 2, 41).double()[:, None].requires_grad_(True)
    values = loss(errors, torch.zeros_like(errors))
    (slopes,) = torch.autograd.grad(values.sum(), errors)
    near = errors.detach().abs() <= LIMIT
    torch.testing.assert_close(values.detach()[near[:, 0]], errors.detach()[near] ** 2)
    torch.testing.assert_close(slopes[near], 2 * errors.detach()[near])
    torch.testing.assert_close(slopes[~near], 2 * LIMIT * errors.detach()[~near].sign())


@pytest.mark.parametrize(("training", "limit"), [(False, LIMIT), (True, float("inf"))])
def test_it_is_the_squared_error_in_evaluation_and_without_a_limit(training, limit):
    loss = ResistantError().train(training)
    loss.limit.fill_(limit)
    y, f = torch.randn(2, 10, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loss(f, y), SquaredError()(f, y))


def test_the_usual_error_of_normal_errors_is_their_deviation(network):
    x = torch.zeros(20_000, 1).double()
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)).double()
    network.train()
    y = network.eval()(x)[0].detach() + 0.2 * noise
    assert usual_error(network, x, y) == pytest.approx(0.2, rel=0.03)


def test_rows_without_weight_are_not_looked_at(network, rows):
    y = torch.cat([rows.y + 1000, rows.y])
    both = Rows(rows.x.repeat(2, 1), y, torch.arange(4000).ge(2000).double())
    found = settling(plan(SquaredError()), both, resistant=True)
    found.before_epoch(network, 0, 1)
    expected = FAR_OFF * usual_error(network, rows.x, rows.y)
    assert float(found.fit_loss.limit) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("loss", "wanted", "resistant"),
    [(SquaredError, True, True), (SquaredError, False, False), (AbsoluteError, True, False)],
)
def test_only_a_squared_error_changes_and_only_if_it_is_to(loss, wanted, resistant, rows):
    settled = settling(plan(loss()), rows, resistant=wanted)
    assert type(settled.fit_loss) is (ResistantError if resistant else loss)


def test_rows_far_off_do_not_bend_what_is_learned(network, rows):
    truth = Rows(rows.x, 0.3 * rows.x, rows.weight)
    losses = {}
    for settled in (plan(SquaredError()), settling(plan(SquaredError()), rows, 1.0, True)):
        net = copy.deepcopy(network)
        result = train(net, rows, truth, settled, torch.Generator().manual_seed(0))
        losses[type(settled.fit_loss)] = result.best_loss
        squared = (net(rows.x)[0].detach() - truth.y).square().mean()
        assert result.best_loss == pytest.approx(float(squared), rel=1e-6)
    assert losses[ResistantError] < 0.3 * losses[SquaredError]


def test_the_best_epoch_is_one_of_the_last(rows):
    """An early one may have no row on the wrong side by chance, and large steps still."""
    settled = settling(plan(SquaredError()), rows, share=0.4)
    assert (settled.max_epochs, settled.first_best) == (40, 40)
    assert is_past(AT_LAST, settled.first_best - 1, settled.max_epochs)
    assert not is_past(AT_LAST, settled.first_best - 2, settled.max_epochs)


def test_the_limit_is_never_zero(network):
    x = torch.zeros(10, 1).double()
    assert usual_error(network, x, network(x)[0]) == _settling.SMALLEST_LIMIT
