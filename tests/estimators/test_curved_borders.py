"""Fits that are killed between curved borders go on from there."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

import skmoe.checkpoint
from skmoe import MoERegressor
from skmoe.estimators import _pieces
from skmoe.estimators._pieces import start_at_curved_borders

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Killed(BaseException):
    """What no part of a fit handles."""


class Epochs(Callback):
    """Counts epochs over all trainings; the last one that it may see is `last`."""

    def __init__(self, last=-1):
        self.left = last  # under another name, so that callbacks are alike

    def on_epoch_end(self, net, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise Killed


def rings(random, n_rows):
    """Two coordinates seen by eight features; a disc, and two halves around it."""
    z = random.uniform(-1, 1, (n_rows, 2))
    inside = (z**2).sum(1) < 0.4
    piece = np.where(inside, 0, 1 + (z[:, 0] > 0.1))
    y = z[:, 1] + 2.0 * piece
    return z @ np.random.default_rng(0).normal(size=(2, 8)), y


def test_fits_at_curved_borders_that_were_killed_end_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(skmoe.checkpoint, "SECONDS", 0.0)
    tried = []

    def noted(trained, rows):
        tried.append(start_at_curved_borders(trained, rows))
        return tried[-1]

    monkeypatch.setattr(_pieces, "start_at_curved_borders", noted)
    X, y = rings(np.random.default_rng(1), 2500)
    given = {"max_epochs": 10, "hidden_dim": 8, "batch_size": 128, "random_state": 0}
    moe = MoERegressor(**given, callbacks=[Epochs()]).fit(X, y)
    assert tried[0] is not None
    n_tried = len(tried)
    place = tmp_path / "fit"
    with pytest.raises(Killed):
        MoERegressor(**given, checkpoint=place, callbacks=[Epochs(6)]).fit(X, y)
    assert len(tried) == n_tried + 1
    again = MoERegressor(**given, checkpoint=place, callbacks=[Epochs()]).fit(X, y)
    assert np.array_equal(again.predict(X), moe.predict(X))
    assert len(tried) == 2 * n_tried + 1
    first, killed, last = (tried[i].net.state_dict() for i in (0, n_tried, n_tried + 1))
    assert all(torch.equal(weight, last[name]) for name, weight in first.items())
    assert killed.keys() == last.keys()
