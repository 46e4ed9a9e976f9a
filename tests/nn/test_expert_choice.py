"""The router by which experts choose rows."""

import pytest
import torch
from routing import E, build, route
from torch.testing import assert_close


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_experts_choose_exactly_the_same_number_of_rows_in_training(top_k, randn):
    n_rows = 20
    routing = route("expert_choice", randn(2, n_rows, E), top_k)
    chosen = routing.dense_weights() > 0
    assert (chosen.sum(1) == n_rows * top_k / E).all()


def test_experts_choose_the_rows_that_they_score_highest(randn):
    routing = route("expert_choice", randn(2, 20, E), 2)
    chosen = routing.dense_weights() > 0
    worst_chosen = routing.scores_BTE.where(chosen, torch.inf).amin(1)
    best_other = routing.scores_BTE.where(~chosen, -torch.inf).amax(1)
    assert (worst_chosen > best_other).all()


def test_expert_choice_predicts_each_row_whatever_the_others_are(randn):
    router, logits = build("expert_choice", 2), randn(2, 40, E)
    for _ in range(3):
        router(randn(2, 100, E))
    router.eval()
    alone = torch.cat([router(row).dense_weights() for row in logits.split(1, 1)], 1)
    assert_close(router(logits).dense_weights(), alone)


def test_expert_choice_asks_about_top_k_experts_in_prediction(randn):
    router = build("expert_choice", 2)
    for _ in range(200):
        router(randn(2, 100, E))
    asked_experts = (router.eval()(randn(2, 5000, E)).dense_weights() > 0).sum(-1)
    assert asked_experts.min() == 1
    assert abs(asked_experts.double().mean() - 2) < 0.15


def test_a_row_that_no_expert_chooses_goes_to_its_likeliest_one(randn):
    router, logits = build("expert_choice", 2).eval(), randn(2, 9, E)
    chosen = router(logits).dense_weights()  # no thresholds were counted yet
    assert_close(chosen, torch.nn.functional.one_hot(logits.argmax(-1), E).double())


def test_thresholds_of_expert_choice_rest_in_evaluation(randn):
    router = build("expert_choice", 2)
    router(randn(2, 20, E))
    before = router.threshold_BE.clone()
    router.eval()(randn(2, 20, E))
    assert torch.equal(router.threshold_BE, before)
