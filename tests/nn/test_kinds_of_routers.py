"""Routers that do more than weigh: groups, thresholds, balance, hashes."""

import pytest
import torch
from routing import E, build, route
from torch.testing import assert_close

from skmoe.nn.base_routers import Router

every_top_k = pytest.mark.parametrize("top_k", [None, *range(1, E + 1)])

# Groups of experts


@pytest.mark.parametrize(("n_experts", "n_scores"), [(1, 1), (4, 6), (5, 5), (8, 10), (36, 42)])
def test_default_number_of_groups_divides_the_experts(n_experts, n_scores):
    router = build("hierarchical", n_experts=n_experts)
    assert router.n_scores(n_experts) == n_scores


def test_hierarchical_weights_are_a_product_of_two_softmaxes(randn):
    said = randn(2, 9, 6 + 3)
    router = build("hierarchical", n_experts=6, n_groups=3)
    weights = router(said).weights_BTK
    groups = said[..., 6:].softmax(-1)
    within = [said[..., 2 * g : 2 * g + 2].softmax(-1) for g in range(3)]
    assert_close(weights, torch.cat([groups[..., g, None] * within[g] for g in range(3)], -1))
    assert_close(weights.unflatten(-1, (3, 2)).sum(-1), groups)


def test_one_group_is_the_softmax_to_the_bit(randn):
    logits = randn(2, 9, E)
    hierarchical = route("hierarchical", logits, 2, n_groups=1)
    assert torch.equal(
        hierarchical.dense_weights(), route("softmax", logits, 2).dense_weights()
    )


def test_constants_added_within_a_group_or_to_all_groups_change_nothing(randn):
    router, said = build("hierarchical", n_experts=6, n_groups=3), randn(2, 9, 9)
    shifts = torch.tensor([1.0, 1, -2, -2, 5, 5, 7, 7, 7], dtype=torch.float64)
    assert_close(router(said + shifts).weights_BTK, router(said).weights_BTK)


def test_the_experts_asked_are_the_likeliest_of_all_groups(randn):
    router, said = build("hierarchical", 2, n_experts=6, n_groups=3), randn(2, 9, 9)
    routing = router(said)
    likeliest = routing.scores_BTE.topk(2).indices.sort(-1)[0]
    assert torch.equal(routing.expert_ids_BTK.sort(-1)[0], likeliest)


def test_groups_that_do_not_divide_the_experts_are_refused():
    with pytest.raises(ValueError, match="n_groups must divide n_experts"):
        build("hierarchical", n_experts=6, n_groups=4)


# Noise


@pytest.mark.parametrize(("settings", "noise"), [({}, 0.2), ({"noise": 0.7}, 0.7)])
def test_noisy_router_asks_the_gate_for_noise(settings, noise):
    assert build("noisy_top_k", **settings).gate_settings(E) == {"noise": noise}


# Each expert for itself


@every_top_k
def test_sigmoid_formula(top_k, randn):
    logits = randn(2, 9, E)
    routing = route("sigmoid", logits, top_k, threshold=0.3)
    expected = (logits.sigmoid() - 0.3).clamp_min(0)
    chosen = routing.dense_weights() > 0
    assert_close(routing.dense_weights(), expected * chosen)
    assert (chosen.sum(-1) <= (top_k or E)).all()


def test_sigmoid_without_threshold_is_soft(randn):
    logits = randn(2, 9, E)
    assert_close(route("sigmoid", logits).weights_BTK, logits.sigmoid())


def test_learned_threshold_is_the_last_score(randn):
    said, router = randn(2, 9, E + 1), build("sigmoid", threshold="learn", max_threshold=0.4)
    assert router.n_scores(E) == E + 1
    threshold = 0.4 * said[..., -1:].sigmoid()
    assert_close(router(said).weights_BTK, (said[..., :-1].sigmoid() - threshold).clamp_min(0))
    assert torch.equal(router(said).logits_BTE, said[..., :-1])


def test_learned_threshold_has_a_gradient(randn):
    said = randn(2, 9, E + 1).requires_grad_()
    build("sigmoid", threshold="learn")(said).weights_BTK.sum().backward()
    assert (said.grad[..., -1] < 0).all()  # asks fewer experts as it rises


def test_a_row_may_ask_any_number_of_experts():
    logits = torch.tensor([[[-9.0, -9, -9], [9, -9, -9], [9, 9, -9], [9, 9, 9]]])
    routing = route("sigmoid", logits, threshold=0.5)
    assert (routing.weights_BTK > 0).sum(-1).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("threshold", [-0.1, 1.0, "lern", None])
def test_sigmoid_refuses_other_thresholds(threshold):
    with pytest.raises(ValueError, match="threshold must be a number of at least 0 and below"):
        build("sigmoid", threshold=threshold)


@every_top_k
def test_sigmoids_sum_to_one_where_they_are_to_however_many_are_asked(top_k, randn):
    router = build("sigmoid", top_k, renormalize=True)
    total = router(randn(2, 9, E)).dense_weights().sum(-1)
    assert router.weights_sum_to_one
    assert_close(total, torch.ones_like(total))


def test_routers_of_ones_own_are_scaled_only_if_asked(randn):
    class Own(Router):
        sums_to_one = False

        def scores(self, said_BTS):
            return said_BTS.sigmoid()

    said = randn(2, 9, E)
    assert_close(Own()(said).weights_BTK, said.sigmoid())
    total = Own(renormalize=True)(said).weights_BTK.sum(-1)
    assert_close(total, torch.ones_like(total))


# Balance by a bias


def test_selection_bias_steers_the_choice_and_enters_no_weight(randn):
    router, logits = build("normalized_sigmoid", 2, balance_rate=0.1), randn(2, 9, E)
    router.bias_B1E[..., 3] = 2.0  # more than a sigmoid can be
    routing = router.eval()(logits)
    assert (routing.expert_ids_BTK == 3).any(-1).all()
    sigmoid = logits.sigmoid().gather(-1, routing.expert_ids_BTK)
    assert_close(routing.weights_BTK, sigmoid / sigmoid.sum(-1, keepdim=True))


def test_selection_bias_rises_for_experts_asked_too_seldom():
    router = build("normalized_sigmoid", 1, balance_rate=0.1)
    logits = torch.tensor([[1.0, 0, 0, 0, 0]]).double().expand(2, 9, E)
    router(logits)
    assert_close(router.bias_B1E[0, 0], torch.tensor([-0.1, 0.1, 0.1, 0.1, 0.1]).double())
    for _ in range(50):
        router(logits)
    load = torch.stack([router(logits).usage() for _ in range(200)]).mean(0)
    assert (load > 0.1).all()  # at first: 1, 0, 0, 0, 0


def test_selection_bias_rests_in_evaluation(randn):
    router = build("normalized_sigmoid", 2, balance_rate=0.1).eval()
    router(randn(2, 9, E))
    assert not router.bias_B1E.any()


def test_selection_bias_needs_top_k():
    with pytest.raises(ValueError, match="balance_rate steers which experts are asked"):
        build("normalized_sigmoid", balance_rate=0.1)


# A hash


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_hashed_rows_ask_experts_with_equal_weights(top_k, randn):
    weights = route("hash", randn(2, 9, E), top_k).weights_BTK
    assert_close(weights, torch.full_like(weights, 1 / top_k))
