"""Losses: formulas, what they are minimised by, and weights as repeated rows."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skmoe._registry import part
from skmoe.nn.losses import (
    AUXILIARY_LOSSES,
    LOSSES,
    GroupSparsity,
    build_auxiliary,
    importance,
    mutual_information,
    pull_back_switch,
    switch,
    z,
)
from skmoe.nn.routers import ROUTERS

E = 4
every_loss = pytest.mark.parametrize("kind", [k for k in LOSSES if k != "gaussian_nll"])
every_auxiliary = pytest.mark.parametrize("kind", AUXILIARY_LOSSES)

# Fit losses


@every_loss
def test_fit_loss_is_one_number_per_sample(kind, randn):
    loss, prediction, target = LOSSES.build(kind), randn(7, 3), randn(7, 3)
    loss_T = loss(prediction, target)
    assert loss_T.shape == (7,)
    alone = [loss(p[None], t[None])[0] for p, t in zip(prediction, target, strict=True)]
    assert_close(loss_T, torch.stack(alone))


@every_loss
def test_fit_loss_is_averaged_over_outputs(kind, randn):
    loss, prediction, target = LOSSES.build(kind), randn(7, 3), randn(7, 3)
    each = [loss(prediction[:, [o]], target[:, [o]]) for o in range(3)]
    assert_close(loss(prediction, target), torch.stack(each).mean(0))


@every_loss
def test_fit_loss_is_zero_on_target_and_positive_off_it(kind, randn):
    loss, target = LOSSES.build(kind), randn(7, 3)
    assert not loss(target, target).any()
    for step in (-2.0, -0.1, 0.1, 2.0):
        assert (loss(target + step, target) > 0).all()


@every_loss
def test_fit_loss_is_convex_in_the_prediction(kind, randn):
    loss, a, b, target = LOSSES.build(kind), randn(99, 1), randn(99, 1), randn(99, 1)
    assert (loss((a + b) / 2, target) <= (loss(a, target) + loss(b, target)) / 2 + 1e-15).all()


FORMULAS = {
    "squared_error": ({}, lambda r: r**2),
    "absolute_error": ({}, np.abs),
    "huber": (
        {"delta": 0.7},
        lambda r: np.where(np.abs(r) <= 0.7, r**2 / 2, 0.7 * (np.abs(r) - 0.35)),
    ),
    "quantile": ({"quantile": 0.8}, lambda r: np.where(r > 0, 0.8 * r, -0.2 * r)),
}


@every_loss
def test_fit_loss_formula(kind, randn):
    settings, formula = FORMULAS[kind]
    prediction, target = randn(50, 2), randn(50, 2)
    actual = LOSSES.build(part(kind, **settings))(prediction, target).numpy()
    expected = formula(target.numpy() - prediction.numpy()).mean(1)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "statistic"),
    [
        (part("squared_error"), np.mean),
        (part("absolute_error"), np.median),
        (part("quantile", quantile=0.5), np.median),
        (part("quantile", quantile=0.9), lambda y: np.quantile(y, 0.9, method="inverted_cdf")),
        (part("quantile", quantile=0.1), lambda y: np.quantile(y, 0.1, method="inverted_cdf")),
    ],
)
def test_best_constant_is_the_statistic_of_the_loss(loss, statistic):
    y = np.random.default_rng(0).gamma(2.0, size=101)
    best = statistic(y)
    candidates = torch.from_numpy(
        np.r_[best, best + 1e-3, best - 1e-3, np.linspace(0, 10, 500)]
    )
    target = torch.from_numpy(y)[:, None]
    losses = [LOSSES.build(loss)(c.expand(101, 1), target).mean() for c in candidates]
    assert np.argmin(losses) == 0


def test_quantile_one_half_is_half_the_absolute_error(randn):
    prediction, target = randn(7, 3), randn(7, 3)
    pinball = LOSSES.build(part("quantile", quantile=0.5))(prediction, target)
    assert_close(pinball, LOSSES.build("absolute_error")(prediction, target) / 2)


def test_huber_meets_at_delta_with_equal_slopes():
    loss, zero = LOSSES.build(part("huber", delta=1.5)), torch.zeros(2, 1, dtype=torch.float64)
    around = torch.tensor([[1.5 - 1e-9], [1.5 + 1e-9]], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(loss(around, zero).sum(), around)
    assert_close(slopes, torch.full_like(slopes, 1.5), rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    ("kind", "settings", "rule"),
    [
        ("huber", {"delta": 0.0}, "delta must be a number above 0"),
        ("huber", {"delta": -1.0}, "delta must be a number above 0"),
        ("quantile", {"quantile": 0.0}, "quantile must be a number above 0 and below 1"),
        ("quantile", {"quantile": 1.0}, "quantile must be a number above 0 and below 1"),
        ("quantile", {"quantile": 1.5}, "quantile must be a number above 0 and below 1"),
    ],
)
def test_bad_settings_are_refused_with_rule_and_value(kind, settings, rule):
    value = next(iter(settings.values()))
    with pytest.raises(ValueError, match=f"{rule}. Got {value!r}"):
        LOSSES.build(part(kind, **settings))


# Auxiliary losses


def route(logits_BTE, router="softmax", top_k=None):
    built = ROUTERS.build(router, top_k)
    built.prepare(len(logits_BTE), logits_BTE.shape[-1])
    return built(logits_BTE)


def ones(n_rows=9):
    return torch.ones(n_rows, dtype=torch.float64)


@every_auxiliary
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_a_sample_of_weight_two_counts_as_two_samples(kind, router, top_k, randn):
    loss, logits = build_auxiliary(kind), randn(2, 9, E)
    repeats = torch.tensor([2, 0, 1, 3, 1, 1, 0, 2, 1])
    weighted = loss(route(logits, router, top_k), repeats.double())
    repeated = route(logits.repeat_interleave(repeats, 1), router, top_k)
    assert_close(weighted, loss(repeated, ones(len(repeated.logits_BTE[0]))))


@every_auxiliary
def test_only_relative_weights_matter(kind, randn):
    loss, routing, weight = build_auxiliary(kind), route(randn(2, 9, E)), randn(9).square()
    assert_close(loss(routing, 1e3 * weight), loss(routing, weight))


@every_auxiliary
def test_blocks_are_averaged(kind, randn):
    loss, logits = build_auxiliary(kind), randn(3, 9, E)
    each = [loss(route(block[None]), ones()) for block in logits]
    assert_close(loss(route(logits), ones()), torch.stack(each).mean())


@every_auxiliary
def test_order_of_samples_and_experts_does_not_matter(kind, randn):
    # Of a map of experts, this turns it over.
    loss, logits = build_auxiliary(kind), randn(2, 9, E)
    assert_close(loss(route(logits.flip(1, 2)), ones()), loss(route(logits), ones()))


@every_auxiliary
def test_auxiliary_loss_is_a_number_with_a_finite_gradient(kind, randn):
    logits = (30 * randn(2, 9, E)).requires_grad_()
    value = build_auxiliary(kind)(route(logits), ones())
    value.backward()
    assert value.shape == ()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


@every_auxiliary
@pytest.mark.parametrize("top_k", [1, 2])
def test_a_small_step_against_the_gradient_lowers_the_loss(kind, top_k, randn):
    loss, logits = build_auxiliary(kind), randn(2, 9, E).requires_grad_()
    before = loss(route(logits, top_k=top_k), ones())
    (gradient,) = torch.autograd.grad(before, logits)
    assert loss(route(logits - 1e-3 * gradient, top_k=top_k), ones()) < before


def balanced(sharpness=40.0):
    """Each expert is sure of a quarter of the samples."""
    return sharpness * torch.eye(E, dtype=torch.float64).repeat(3, 1)[None]


def collapsed(sharpness=40.0):
    """The first expert is sure of all samples."""
    logits = torch.zeros(1, 12, E, dtype=torch.float64)
    logits[..., 0] = sharpness
    return logits


def test_switch_is_one_when_balanced():
    assert_close(switch(route(balanced()), ones(12)).item(), 1.0)


def test_switch_is_one_for_uniform_scores():
    # Ties all go to the first expert, but every expert has mean score 1/E.
    assert_close(switch(route(torch.zeros(1, 12, E).double()), ones(12)).item(), 1.0)


def test_switch_is_n_experts_at_collapse():
    assert_close(switch(route(collapsed()), ones(12)).item(), float(E))


def test_switch_formula(randn):
    logits = randn(1, 9, E)
    probability = logits[0].softmax(-1).numpy()
    share = np.bincount(logits[0].argmax(-1), minlength=E) / 9
    expected = E * (share * probability.mean(0)).sum()
    assert_close(switch(route(logits), ones()).item(), expected)


def test_switch_pushes_samples_away_from_a_crowded_expert():
    logits = collapsed(1.0).requires_grad_()
    switch(route(logits), ones(12)).backward()
    assert (logits.grad[..., 0] > 0).all()
    assert (logits.grad[..., 1:] < 0).all()


def test_switch_does_not_push_when_balanced():
    logits = balanced(1.0).requires_grad_()
    switch(route(logits), ones(12)).backward()
    assert logits.grad.abs().max() < 1e-15


def test_gradient_of_switch_by_hand_is_that_of_each_block(randn):
    logits_BTE, weight_BT = randn(2, 9, E), randn(2, 9).exp()
    dscores_BTE = pull_back_switch(logits_BTE, weight_BT, E)
    for logits_TE, weight_T, dscores_TE in zip(logits_BTE, weight_BT, dscores_BTE, strict=True):
        routing = route(logits_TE[None].requires_grad_())
        loss = switch(routing, weight_T)
        (expected,) = torch.autograd.grad(loss, routing.scores_BTE)
        assert_close(dscores_TE, expected[0])
        assert_close((dscores_TE * routing.scores_BTE[0]).sum(), loss)


def test_importance_is_zero_when_equal():
    assert importance(route(balanced()), ones(12)).item() < 1e-25


def test_importance_of_nothing_is_a_number_with_a_finite_gradient():
    logits = torch.zeros(1, 5, 4, requires_grad=True)
    loss = importance(
        ROUTERS.build(part("sigmoid", threshold=0.9), None)(logits), torch.ones(5)
    )
    loss.backward()
    assert loss == 0
    assert logits.grad.isfinite().all()


def test_importance_at_collapse_is_n_experts_minus_one():
    assert_close(importance(route(collapsed()), ones(12)).item(), E - 1.0)


def test_importance_is_the_squared_coefficient_of_variation(randn):
    routing = route(randn(1, 9, E), "normalized_sigmoid")
    total = routing.scores_BTE[0].sum(0).numpy()
    expected = total.var() / total.mean() ** 2
    assert_close(importance(routing, ones()).item(), expected)


def test_z_at_zero_logits_is_the_squared_log_of_n_experts():
    logits = torch.zeros(2, 9, E, dtype=torch.float64)
    assert_close(z(route(logits), ones()).item(), math.log(E) ** 2)


def test_z_formula(randn):
    logits = randn(2, 9, E)
    expected = (np.log(np.exp(logits.numpy()).sum(-1)) ** 2).mean()
    assert_close(z(route(logits), ones()).item(), expected)


def test_z_draws_the_log_partition_to_zero(randn):
    logits = (randn(1, 9, E) + 5).requires_grad_()
    z(route(logits), ones()).backward()
    assert (logits.grad > 0).all()


# Mutual information


def test_mutual_information_is_zero_where_all_rows_are_routed_alike(randn):
    for logits in (
        torch.zeros(1, 12, E).double(),
        collapsed(),
        randn(1, 1, E).expand(1, 12, E),
    ):
        assert abs(mutual_information(route(logits), ones(12)).item()) < 1e-14


def test_mutual_information_of_a_balanced_sure_choice_is_the_log_of_the_experts():
    assert_close(mutual_information(route(balanced()), ones(12)).item(), -math.log(E))


def test_mutual_information_is_that_of_the_joint_table(randn):
    """``sum p(t, e) log (p(t, e) / p(t) p(e))``, of any router's scores."""
    routing, weight = route(randn(1, 9, E), "sigmoid"), randn(9).square()
    scores = routing.scores_BTE[0]
    joint = (weight / weight.sum())[:, None] * scores / scores.sum(-1, keepdim=True)
    independent = joint.sum(1, keepdim=True) * joint.sum(0)
    expected = -(joint * (joint / independent).log()).sum()
    assert_close(mutual_information(routing, weight), expected)


# Groups of neighbours on a map


def naive_group_sparsity(logits_TE, shape, size, width):
    """The formula, place by place."""
    rows, columns = shape
    a, b = min(size, rows), min(size, columns)
    weights = [
        [
            math.exp(-(((i - (a - 1) / 2) ** 2 + (j - (b - 1) / 2) ** 2) / (2 * width**2)))
            for j in range(b)
        ]
        for i in range(a)
    ]
    total = sum(map(sum, weights))
    places = [(p, q) for p in range(rows - a + 1) for q in range(columns - b + 1)]
    costs = []
    for logits in logits_TE:
        z = logits.softmax(0).reshape(shape).tolist()
        roots = [
            math.sqrt(
                sum(
                    weights[i][j] / total * z[p + i][q + j] ** 2
                    for i in range(a)
                    for j in range(b)
                )
                + 1e-8
            )
            for p, q in places
        ]
        costs.append(sum(roots) / (a * b * len(places)))
    return sum(costs) / len(costs)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("n_experts", "shape", "size"),
    [(16, (4, 4), 3), (8, (2, 4), 3), (7, (1, 7), 3), (12, (3, 4), 2), (1, (1, 1), 3)],
)
def test_group_sparsity_equals_a_naive_loop(n_experts, shape, size, progress, randn):
    loss, logits = GroupSparsity(filter_size=size), randn(1, 9, n_experts)
    loss.anneal(progress)
    expected = naive_group_sparsity(logits[0], shape, size, 10 - 9 * progress**0.2)
    assert_close(loss(route(logits), ones()).item(), expected)


def test_group_sparsity_does_not_see_the_size_of_a_batch(randn):
    loss, logits = GroupSparsity(), randn(1, 9, 16)
    twice = loss(route(logits.repeat(1, 2, 1)), ones(18))
    assert_close(twice, loss(route(logits), ones()))


def test_neighbours_cost_less_than_experts_far_apart():
    loss = GroupSparsity()
    loss.anneal(1.0)
    costs = []
    # Of a map of 8 x 8: four in the middle, and four as far from the edges as a filter reaches.
    for experts in ([27, 28, 35, 36], [18, 21, 42, 45]):
        logits = torch.full((1, 1, 64), -30.0, dtype=torch.float64)
        logits[..., experts] = 0.0
        costs.append(loss(route(logits), ones(1)).item())
    assert costs[0] < 0.8 * costs[1]


def test_a_map_without_a_place_for_each_expert_is_refused(randn):
    with pytest.raises(ValueError, match=r"a place for each expert\. Got shape=\(2, 3\) and"):
        GroupSparsity(shape=(2, 3))(route(randn(1, 9, E)), ones())
