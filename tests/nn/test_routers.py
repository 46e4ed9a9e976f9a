"""Routers: from logits to weights, and what is kept of them."""

import math
import sys

import pytest
import torch
from routing import E, build, route
from torch.testing import assert_close

from skmoe.nn.base_routers import Routing, largest
from skmoe.nn.routers import ROUTERS

HAVE_OWN_TESTS = ("expert_choice", "hash")
TOP_KS = [None, *range(1, E + 1)]
every_router = pytest.mark.parametrize("kind", ROUTERS)
# Routers by which each row chooses experts, and those of them that look at the logits' size.
row_chooses = pytest.mark.parametrize("kind", [k for k in ROUTERS if k != "expert_choice"])
weighing = pytest.mark.parametrize("kind", [k for k in ROUTERS if k not in HAVE_OWN_TESTS])
every_top_k = pytest.mark.parametrize("top_k", TOP_KS)
normalizing = pytest.mark.parametrize(
    "kind", [kind for kind in ROUTERS if ROUTERS[kind].sums_to_one and kind != "hash"]
)


def asked(routing: Routing) -> torch.Tensor:
    """Which experts answer, even if with weight zero."""
    nobody = torch.zeros(routing.logits_BTE.shape, dtype=torch.bool)
    return nobody.scatter(-1, routing.expert_ids_BTK, True)


# Rules for all routers


@every_router
@every_top_k
@pytest.mark.parametrize("scale", [1, 300])
def test_weights_are_finite_and_not_negative(kind, top_k, scale, randn):
    weights = route(kind, scale * randn(2, 9, E), top_k).weights_BTK
    assert weights.isfinite().all()
    assert weights.min() >= 0


@every_router
@every_top_k
def test_weights_sum_to_one_when_the_router_says_so(kind, top_k, randn):
    router = build(kind, top_k).eval()
    total = router(randn(2, 9, E)).dense_weights().sum(-1)
    says_so = router.weights_sum_to_one or (top_k == E and router.sums_to_one)
    assert says_so == torch.allclose(total, torch.ones_like(total))


@normalizing
@pytest.mark.parametrize("top_k", [None, 2, 3])
def test_weights_sum_to_one_by_default_for_all_but_one_expert(kind, top_k):
    assert build(kind, top_k).weights_sum_to_one


@row_chooses
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_exactly_top_k_experts_are_asked(kind, top_k, randn):
    routing = route(kind, randn(2, 9, E), top_k)
    assert (asked(routing).sum(-1) == top_k).all()
    if kind != "entmax":  # whose weights may be zero
        assert torch.equal(asked(routing), routing.dense_weights() > 0)


@row_chooses
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_the_asked_experts_are_those_with_the_largest_logits(kind, top_k, randn):
    logits = randn(2, 9, E)
    largest_logits = logits >= logits.sort(-1, descending=True)[0][..., top_k - 1, None]
    assert torch.equal(asked(route(kind, logits, top_k)), largest_logits)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_largest_are_found_where_experts_come_first_in_memory(k, randn):
    logits = randn(2, 9, E)
    ids = largest(logits.mT.contiguous().mT, k)
    if k == 3:  # in no particular order
        assert torch.equal(ids.sort(-1)[0], largest(logits, k).sort(-1)[0])
    else:
        assert torch.equal(ids, largest(logits, k))


@every_router
@pytest.mark.parametrize("top_k", [E, E + 3])
def test_top_k_of_all_experts_is_dense(kind, top_k, randn):
    logits = randn(2, 9, E)
    sparse, dense = route(kind, logits, top_k), route(kind, logits)
    assert torch.equal(sparse.dense_weights(), dense.dense_weights())
    assert sparse.expert_ids_BTK is None


@row_chooses
@pytest.mark.parametrize("top_k", [2, 3])
def test_kept_weights_keep_their_proportions(kind, top_k, randn):
    routing = route(kind, randn(2, 9, E), top_k)
    scores = routing.scores_BTE.gather(-1, routing.expert_ids_BTK)
    total = routing.weights_BTK.sum(-1, keepdim=True)
    assert_close(routing.weights_BTK * scores.sum(-1, keepdim=True), scores * total)


@row_chooses
@pytest.mark.parametrize("top_k", [2, 3])
def test_without_renormalization_weights_are_the_scores(kind, top_k, randn):
    routing = route(kind, randn(2, 9, E), top_k, renormalize=False)
    kept = routing.scores_BTE.gather(-1, routing.expert_ids_BTK)
    assert torch.equal(routing.weights_BTK, kept)


@every_router
@every_top_k
def test_renaming_the_experts_renames_the_weights(kind, top_k, randn):
    logits, order = randn(2, 9, E), torch.tensor([3, 0, 4, 1, 2])
    renamed = route(kind, logits[..., order], top_k).dense_weights()
    assert_close(renamed, route(kind, logits, top_k).dense_weights()[..., order])


@weighing
def test_a_larger_logit_has_a_larger_weight(kind, randn):
    logits = randn(2, 9, E)
    steps = route(kind, logits).weights_BTK.gather(-1, logits.argsort(-1)).diff(dim=-1)
    # Only entmax has weights of zero, and then several of them.
    assert steps.min() > 0 if kind != "entmax" else steps.min() == 0


@weighing
@pytest.mark.parametrize("settings", [{}, {"renormalize": True}, {"renormalize": False}])
@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_gate_can_learn_exactly_when_its_gradient_is_not_zero(kind, settings, top_k, randn):
    router = build(kind, top_k, **settings)
    logits = randn(2, 9, E).requires_grad_()
    (router(logits).dense_weights() * randn(2, 9, E)).sum().backward()
    if router.gate_can_learn:
        gradient = logits.grad.abs().amax(-1)
        # With entmax, a row that only one expert answers has none.
        assert (gradient.max() if kind == "entmax" else gradient.min()) > 1e-6
    else:
        assert logits.grad.abs().max() < 1e-15


@every_router
def test_router_reports_the_gates_logits(kind, randn):
    logits = randn(2, 9, E)
    routing = route(kind, logits, 2)
    assert torch.equal(routing.logits_BTE, logits)
    assert routing.n_experts == E


# One expert per sample


@weighing
def test_single_expert_has_its_score_among_all_as_weight(kind, randn):
    logits = randn(2, 9, E)
    assert_close(
        route(kind, logits, 1).weights_BTK, route(kind, logits).weights_BTK.amax(-1, True)
    )


def test_single_expert_of_softmax_is_the_switch_form(randn):
    logits = randn(2, 9, E)
    expected = logits.exp().amax(-1, keepdim=True) / logits.exp().sum(-1, keepdim=True)
    assert_close(route("softmax", logits, 1).weights_BTK, expected)


@row_chooses
def test_single_expert_renormalized_has_weight_one(kind, randn):
    routing = route(kind, randn(2, 9, E), 1, renormalize=True)
    assert (routing.weights_BTK == 1).all()


@weighing
def test_only_the_renormalized_single_expert_cannot_learn(kind):
    cannot = [
        (top_k, renormalize)
        for top_k in TOP_KS
        for renormalize in (None, False, True)
        if not build(kind, top_k, renormalize=renormalize).gate_can_learn
    ]
    assert cannot == [(1, True)]


# Formulas


def test_softmax_formula(randn):
    logits = randn(2, 9, E)
    assert_close(
        route("softmax", logits).weights_BTK, logits.exp() / logits.exp().sum(-1, keepdim=True)
    )


def test_normalized_sigmoid_formula(randn):
    logits = randn(2, 9, E)
    sigmoid = 1 / (1 + torch.exp(-logits))
    assert_close(
        route("normalized_sigmoid", logits).weights_BTK, sigmoid / sigmoid.sum(-1, keepdim=True)
    )


@every_top_k
def test_softmax_does_not_see_a_common_constant(top_k, randn):
    # Switch weights included: probabilities among all experts do not see it either.
    logits = randn(2, 9, E)
    assert_close(
        route("softmax", logits + 3.7, top_k).dense_weights(),
        route("softmax", logits, top_k).dense_weights(),
    )


def test_normalized_sigmoid_sees_a_common_constant(randn):
    logits = randn(2, 9, E)
    here, there = (route("normalized_sigmoid", logits + c).weights_BTK for c in (0, 3.7))
    assert (here - there).abs().max() > 0.05


def test_normalized_sigmoid_far_below_zero_is_softmax(randn):
    logits = randn(2, 9, E)
    softmax = route("softmax", logits).weights_BTK
    gaps = [
        (route("normalized_sigmoid", logits - shift).weights_BTK - softmax).abs().max().item()
        for shift in (2, 4, 8, 40)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-14


def test_normalized_sigmoid_far_above_zero_is_the_mean(randn):
    weights = route("normalized_sigmoid", randn(2, 9, E) + 40).weights_BTK
    assert_close(weights, torch.full_like(weights, 1 / E))


@row_chooses
@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_far_logits_neither_overflow_nor_divide_zero_by_zero(kind, shift, randn):
    logits = (randn(2, 9, E) + shift).float().requires_grad_()
    routing = build(kind, 2).float()(logits)
    if kind != "hash":
        routing.weights_BTK.square().sum().backward()
    if kind != "sigmoid":
        assert_close(routing.weights_BTK.sum(-1), torch.ones(2, 9))
    assert routing.weights_BTK.isfinite().all()
    if kind != "hash":
        assert logits.grad.isfinite().all()


def test_entmax_formula(randn):
    """The largest logits, less a threshold, to the power of ``1 / (alpha - 1)``."""
    logits = randn(2, 9, E)
    weights = route("entmax", logits).weights_BTK
    roots = weights.sqrt()
    # Half a logit less its square root is the threshold, the same for all with a weight.
    threshold = (logits / 2 - roots).where(weights > 0, -torch.inf).amax(-1, keepdim=True)
    assert_close((logits / 2 - threshold).clamp_min(0).square(), weights)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 1.3])
def test_entmax_has_weights_of_exactly_zero(alpha):
    weights = route("entmax", torch.tensor([[[9.0, 8.9, 0.0, -1.0]]]), alpha=alpha).weights_BTK
    assert (weights[0, 0, :2] > 0.3).all()
    assert (weights[0, 0, 2:] == 0).all()
    assert_close(weights.sum(), torch.tensor(1.0))


def test_entmax_of_alpha_two_is_the_nearest_point_of_the_simplex(randn):
    logits = randn(2, 9, E)
    weights = route("entmax", logits, alpha=2).weights_BTK
    # The condition of a projection: no other weights have a smaller angle to what is left.
    left = logits - weights
    assert_close(left.amax(-1), (left * weights).sum(-1))


def test_entmax_of_alpha_near_one_is_nearly_softmax(randn):
    logits = randn(2, 9, E)
    gaps = [
        (route("entmax", logits, alpha=alpha).weights_BTK - logits.softmax(-1)).abs().max()
        for alpha in (2.0, 1.5, 1.1, 1.001)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-3


@every_top_k
def test_entmax_does_not_see_a_common_constant(top_k, randn):
    logits = randn(2, 9, E)
    here, there = (route("entmax", logits + c, top_k).dense_weights() for c in (0, 3.7))
    assert_close(here, there)


@pytest.mark.parametrize("alpha", [1, 0.5, True, "1.5", math.nan])
def test_entmax_refuses_other_alphas(alpha):
    with pytest.raises(ValueError, match=r"alpha must be a number above 1\. Got"):
        route("entmax", torch.zeros(1, 1, E), alpha=alpha)


def test_without_entmax_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "entmax", None)
    with pytest.raises(ImportError, match=r"pip install skmoe\[parts\]"):
        ROUTERS.build("entmax", None)


# Limits


@normalizing
def test_logits_sharpened_without_end_choose_the_first_expert(kind, randn):
    logits = -randn(2, 9, E).abs()
    chosen = torch.nn.functional.one_hot(logits.argmax(-1), E).double()
    assert_close(route(kind, logits / 1e-5).weights_BTK, chosen)


@normalizing
def test_logits_flattened_without_end_give_the_mean(kind, randn):
    weights = route(kind, randn(2, 9, E) / 1e9).weights_BTK
    assert_close(weights, torch.full_like(weights, 1 / E), atol=1e-8, rtol=0)


def test_an_expert_split_in_two_halves_changes_no_softmax_mixture(randn):
    logits, answers = randn(1, 9, E), randn(9, E)
    mixture = (route("softmax", logits).weights_BTK[0] * answers).sum(-1)
    halved = logits[..., :1] - math.log(2)
    logits = torch.cat([halved, logits[..., 1:], halved], -1)
    answers = torch.cat([answers, answers[:, :1]], -1)
    assert_close((route("softmax", logits).weights_BTK[0] * answers).sum(-1), mixture)


# The choice


@pytest.mark.parametrize("k", [1, 2, 3, E])
def test_largest_agrees_with_topk_as_a_set(k, randn):
    values = randn(2, 50, E)
    assert torch.equal(largest(values, k).sort(-1)[0], values.topk(k).indices.sort(-1)[0])


@pytest.mark.parametrize("k", [1, 2])
def test_ties_go_to_the_first_expert(k):
    values = torch.tensor([[[0.0, 1.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0]]])
    assert largest(values, k).sort(-1)[0].tolist() == [[list(range(1, 1 + k)), list(range(k))]]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_tied_logits_still_choose_k_different_experts(k):
    chosen = largest(torch.zeros(1, 4, E), k)
    assert all(len(set(row)) == k for row in chosen[0].tolist())


@row_chooses
def test_choice_follows_the_logits_where_scores_round_to_one(kind):
    logits = torch.tensor([[[800.0, 900.0, 1000.0]]])
    assert route(kind, logits, 1).expert_ids_BTK.item() == 2
    assert sorted(route(kind, logits, 2).expert_ids_BTK[0, 0].tolist()) == [1, 2]


# Routing


@every_router
@every_top_k
def test_dense_weights_put_each_weight_at_its_expert(kind, top_k, randn):
    routing = route(kind, randn(2, 3, E), top_k)
    dense = torch.zeros(2, 3, E, dtype=torch.float64)
    for b in range(2):
        for t in range(3):
            for k, weight in enumerate(routing.weights_BTK[b, t]):
                ids = routing.expert_ids_BTK
                dense[b, t, k if ids is None else ids[b, t, k]] = weight
    assert torch.equal(routing.dense_weights(), dense)


@every_router
@every_top_k
def test_usage_is_the_share_of_the_weight(kind, top_k, randn):
    routing = route(kind, randn(2, 9, E), top_k)
    usage = routing.usage()
    assert_close(usage.sum(-1), torch.ones(2, dtype=torch.float64))
    total = routing.dense_weights().sum(1)
    assert_close(usage, total / total.sum(-1, keepdim=True))
    assert not usage.requires_grad


@row_chooses
@every_top_k
def test_usage_counts_a_row_of_weight_two_as_two_rows(kind, top_k, randn):
    logits, repeats = randn(2, 9, E), torch.tensor([2, 0, 1, 3, 1, 1, 0, 2, 1])
    weighted = route(kind, logits, top_k).usage(repeats.double())
    repeated = route(kind, logits.repeat_interleave(repeats, 1), top_k).usage()
    assert_close(weighted, repeated)
