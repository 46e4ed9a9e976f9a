"""Auxiliary losses lower what they measure, and a weak one balances few rows."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from small import make

from skmoe import part
from skmoe.nn.losses import AUXILIARY_LOSSES, GroupSparsity
from skmoe.nn.routers import SoftmaxRouter

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("name", AUXILIARY_LOSSES)
def test_an_auxiliary_loss_of_weight_zero_changes_no_bit(kind, name, problem):
    X, _ = problem
    without = make(kind, auxiliary_losses=None).fit(*problem)
    with_it = make(kind, auxiliary_losses={name: 0.0}).fit(*problem)
    assert np.array_equal(with_it.predict(X), without.predict(X))


def test_auxiliary_losses_have_settings_and_may_be_functions(kind, problem):
    seen = []

    class Watch:
        def anneal(self, progress):
            seen.append(progress)

        def __call__(self, routing, sample_weight_T):
            return routing.scores_BTE.square().mean()

    def narrow(routing, sample_weight_T):
        return routing.logits_BTE.square().mean()

    losses = {part("group_sparsity", shape=(1, 4)): 0.1, narrow: 0.2, Watch: 0.3}
    moe = clone(make(kind, auxiliary_losses=losses)).fit(*problem)
    assert {"group_sparsity_loss", "narrow_loss", "Watch_loss"} < moe.history_[0].keys()
    assert seen[-1] == 1.0
    assert seen[1:] == sorted(seen[1:])


def test_few_rows_that_ask_all_experts_balance_them(problem):
    X, _ = problem
    by_default = make("shallow").fit(*problem)
    balanced = make("shallow", auxiliary_losses={"switch": 0.03}).fit(*problem)
    assert np.array_equal(by_default.predict(X), balanced.predict(X))
    assert "switch_loss" in by_default.history_[0]


@pytest.mark.parametrize(
    "given",
    [
        {"top_k": 2},
        {"n_experts": 1},
        {"router": "sigmoid"},
        {"loss": "gaussian_nll"},
        {"auxiliary_losses": None},
    ],
    ids=str,
)
def test_other_fits_balance_nothing(given, problem):
    moe = make("shallow", max_epochs=2, **given).fit(*problem)
    assert "switch_loss" not in moe.history_[0]


def test_nor_do_many_rows_or_rows_that_come_later(problem):
    X, y = (np.repeat(rows, 2000 // len(rows) + 1, axis=0) for rows in problem)
    moe = make("shallow", max_epochs=1, early_stopping=False).fit(X, y)
    assert "switch_loss" not in moe.history_[0]
    moe = make("shallow").partial_fit(*problem)
    assert "switch_loss" not in moe.history_[0]
    assert "switch_loss" not in moe.fine_tune(*problem).history_[-1]


def test_group_sparsity_is_what_it_lowers(problem):
    X, _ = problem

    def cost(weight):
        loss = {part("group_sparsity", shape=(2, 4)): weight}
        moe = make("shallow", n_experts=8, auxiliary_losses=loss, max_epochs=100).fit(*problem)
        logits = torch.from_numpy(moe.predict_gates(X)).log()[None]  # softmax has no constant
        judge = GroupSparsity(shape=(2, 4))
        judge.anneal(1.0)
        return judge(SoftmaxRouter()(logits), torch.ones(len(X)).double()).item()

    assert cost(3.0) < 0.9 * cost(0.0)
