"""The best epoch is one of the last where losses are few rows' chance, and is what is left."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from skorch.callbacks import Callback
from torch.nn import Linear

from skmoe.batches import Rows
from skmoe.monitors import BestEpoch
from skmoe.nn.losses import SquaredError
from skmoe.nn.networks import MoENetwork
from skmoe.plan import TrainingPlan
from skmoe.training import train

# What the network predicts in each of ten epochs, where zero is right.
PREDICTIONS = [0.5, 0.1, 0.6, 0.4, 0.7, 0.6, 0.25, 0.4, 0.2, 0.3]


def fit(best_from: float, validation: bool = True, **more):
    """The result of a fit whose network says what it is told to, and what it says at last."""
    net = MoENetwork(1, 1, n_experts=1, gate="linear", expert="constant")
    rows = Rows(torch.zeros(4, 1), torch.zeros(4, 1), torch.ones(4))

    def before_epoch(network, done, in_all):
        with torch.no_grad():
            network.layer.experts.value.fill_(PREDICTIONS[done])

    plan = TrainingPlan(SquaredError(), 1e-12, 0.0, 4, len(PREDICTIONS))
    plan = replace(plan, best_from=best_from, before_epoch=before_epoch, **more)
    result = train(net, rows, rows if validation else None, plan, torch.Generator())
    return result, float(net(rows.x)[0][0].detach())


@pytest.mark.parametrize(
    ("best_from", "best"),
    [(0.0, 0.1), (0.2, 0.1), (0.3, 0.2), (0.9, 0.2), (0.95, 0.3), (1, 0.3)],
)
def test_the_best_epoch_is_one_of_the_last(best_from, best):
    result, left = fit(best_from)
    assert left == pytest.approx(best)
    assert result.best_loss == pytest.approx(best**2)
    assert len(result.history) == 10


class Stop(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 5:
            raise KeyboardInterrupt


def test_a_fit_that_ends_before_has_the_best_of_all():
    result, left = fit(0.9, callbacks=[Stop()])
    assert left == pytest.approx(0.1)
    assert result.best_loss == pytest.approx(0.1**2)


def test_only_epochs_in_which_one_looked_count():
    """Every third one: the last loss before the eighth epoch is smaller."""
    result, left = fit(0.8, looks=3)
    assert left == pytest.approx(0.3)
    assert result.best_loss == pytest.approx(0.3**2)


def test_patience_begins_again_with_the_last_epochs():
    result, left = fit(0.95, patience=7)
    assert len(result.history) == 9
    assert left == pytest.approx(0.1)
    result, left = fit(0.9, patience=7)
    assert len(result.history) == 10
    assert left == pytest.approx(0.2)


def test_without_validation_rows_the_last_epoch_stays():
    result, left = fit(0.5, validation=False)
    assert left == pytest.approx(0.3)
    assert result.best_loss == pytest.approx(0.2**2)


def test_a_loss_that_is_no_number_does_not_become_the_best():
    callback, net = BestEpoch(2, threshold=0.0, load_best=True), Linear(1, 1)
    loop = SimpleNamespace(history=[], module_=net, is_measured=lambda epoch: True)
    callback.on_train_begin(loop)
    for epoch, loss in enumerate([0.1, math.nan, 0.3, 0.2], 1):
        loop.history.append({"epoch": epoch, "valid_loss": loss})
        callback.on_epoch_end(loop)
        assert callback.best_epoch_ == [1, 1, 3, 4][epoch - 1]
