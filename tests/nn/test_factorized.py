"""Experts in factors, against the tensors that the factors stand for."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skmoe._registry import part
from skmoe.nn.experts import EXPERTS
from skmoe.nn.factorized import MPOLinear, three_factors
from skmoe.nn.layers import MoELayer

B, E, D, OUT, H = 2, 6, 5, 3, 7
multilinear = pytest.mark.parametrize("kind", ["cp", "tensor_ring"])
affine_or_not = pytest.mark.parametrize("affine", [True, False])
every_level = pytest.mark.parametrize("levels", [None, (6,), (2, 3), (3, 1, 2)])


def build(kind, generator, n_experts=E, **settings):
    spec = part(kind, **settings)
    return EXPERTS.build(spec, B, n_experts, D, OUT, generator=generator, hidden_dim=H).double()


@multilinear
@affine_or_not
@every_level
def test_factorised_mixture_is_that_of_the_contracted_tensor(
    kind, affine, levels, randn, generator
):
    experts = build(kind, generator, affine=affine, levels=levels, rank=4)
    x_BTD, weights_BTE = randn(B, 9, D), randn(B, 9, E)
    each = torch.stack(
        [
            torch.stack([experts.features_of(x_BTD)[b] @ w for w in experts.dense_weights()[b]])
            for b in range(B)
        ]
    )
    expected = torch.einsum("bte,beto->bto", weights_BTE, each)
    assert_close(experts.mix_all(x_BTD, weights_BTE), expected)
    assert_close(experts.answer_all(x_BTD), each.transpose(1, 2))
    assert_close(experts(x_BTD.repeat_interleave(E, 0)), each.flatten(0, 1))


@multilinear
def test_expert_weights_are_the_map_of_one_expert(kind, randn, generator):
    experts, x_BTD = build(kind, generator, affine=True), randn(B, 9, D)
    weight_BFO = experts.expert_weights(4)
    assert weight_BFO.shape == (B, D + 1, OUT)
    expected = x_BTD @ weight_BFO[:, :-1] + weight_BFO[:, -1:]
    assert_close(experts.answer_all(x_BTD)[:, :, 4], expected)


def test_cp_tensor_is_a_sum_of_outer_products(generator):
    experts = build("cp", generator, affine=True, rank=4)
    a, u, v = experts.by_level[0].view(B, E, 4), experts.inputs_BFR, experts.outputs_BRO
    expected = sum(
        a[:, :, r, None, None] * u[:, None, :, r, None] * v[:, None, None, r] for r in range(4)
    )
    assert_close(experts.dense_weights(), expected)


def test_tensor_ring_is_a_trace_of_products(generator):
    experts = build("tensor_ring", generator, affine=True, rank=2, ring_rank=3)
    weights = experts.dense_weights()
    cores = experts.by_level[0].view(B, E, 3, 3)
    for e, f, o in [(0, 0, 0), (3, 5, 1), (5, 2, 2)]:
        ring = cores[1, e] @ experts.inputs_BFSR[1, f] @ experts.outputs_BROS[1, :, o]
        assert_close(weights[1, e, f, o], ring.trace())


@pytest.mark.parametrize(
    ("kind", "settings", "bound"),
    [
        ("cp", {"rank": 1}, 1),
        ("cp", {"rank": 2}, 2),
        ("tensor_ring", {"ring_rank": 1, "rank": 2}, 2),
    ],
)
def test_rank_of_an_expert_is_bounded(kind, settings, bound, generator):
    experts = build(kind, generator, affine=True, **settings)
    ranks = torch.linalg.matrix_rank(experts.dense_weights())
    assert (ranks == bound).all()


@multilinear
def test_a_single_expert_is_a_low_rank_linear_layer(kind, randn, generator):
    experts, x_BTD = build(kind, generator, n_experts=1, affine=True), randn(B, 9, D)
    ones_BTE = torch.ones(B, 9, 1, dtype=torch.float64)
    expected = torch.bmm(experts.features_of(x_BTD), experts.expert_weights(0))
    assert_close(experts.mix_all(x_BTD, ones_BTE), expected)


@multilinear
def test_number_of_weights_is_linear_in_experts_and_adds_up_over_levels(kind, generator):
    def count(n_experts, **settings):
        experts = build(kind, generator, n_experts=n_experts, **settings)
        return sum(weight.numel() for weight in experts.parameters())

    assert count(40) - count(30) == count(30) - count(20)
    assert count(1000, levels=(10, 10, 10)) == count(30)


@multilinear
def test_thousands_of_experts_are_never_spelled_out(kind, randn, generator):
    layer = MoELayer(1, D, OUT, n_experts=4096, expert=kind, generator=generator)
    expert_sized = 4096 * 33 * OUT  # what all maps would take, without rows
    largest = max(weight.numel() for weight in layer.parameters())
    assert largest < expert_sized / 2
    y_BTO, _ = layer(randn(1, 9, D).float())
    assert y_BTO.isfinite().all()


def test_linear_gate_of_gain_zero_is_uniform_at_first(randn, generator):
    gate = part("linear", gain=0.0)
    layer = MoELayer(1, D, OUT, n_experts=E, gate=gate, expert="cp", router="entmax")
    _, routing = layer(randn(1, 9, D).float())
    assert_close(routing.weights_BTK, torch.full((1, 9, E), 1 / E))


@multilinear
@pytest.mark.parametrize("levels", [(2, 2), (6, 2), (5,)])
def test_levels_that_do_not_make_up_the_experts_are_refused(kind, levels, generator):
    with pytest.raises(ValueError, match=r"The product of levels must be n_experts\. Got"):
        build(kind, generator, levels=levels)


# Matrix product operators


def full(linear):
    """Maps from the formula, entry by entry."""
    (i1, i2, i3), (j1, j2, j3) = linear.rows, linear.columns
    n_per_block = len(linear.left) // len(linear.core)
    maps = []
    for g, (left, right) in enumerate(zip(linear.left, linear.right, strict=True)):
        entries = np.einsum(
            "ija,akmb,bln->ikljmn",
            left.detach().numpy(),
            linear.core[g // n_per_block].detach().numpy(),
            right.detach().numpy(),
        )
        maps.append(entries.reshape(i1 * i2 * i3, j1 * j2 * j3))
    return torch.from_numpy(np.stack(maps))


@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(5, 7), (12, 8), (30, 64), (1, 4)])
@pytest.mark.parametrize("bond", [None, 1, 3])
def test_mpo_weight_is_its_contraction(n_inputs, n_outputs, bond, generator):
    linear = MPOLinear(B, E, n_inputs, n_outputs, bond, 1.0, generator).double()
    assert linear.weight.shape == (B * E, n_inputs, n_outputs)
    assert_close(linear.weight, full(linear))


@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(12, 8), (30, 64)])
def test_full_bonds_reach_any_matrix(n_inputs, n_outputs, generator):
    """As many free directions as a matrix has entries, by the derivative of the weights."""
    linear = MPOLinear(1, 1, n_inputs, n_outputs, None, 1.0, generator).double()
    assert linear.core.numel() == n_inputs * n_outputs
    core = linear.core.detach()

    def weight(core):
        left, right = linear.left.detach()[0], linear.right.detach()[0]
        return torch.einsum("ija,akmb,bln->ikljmn", left, core[0], right).flatten()

    jacobian = torch.autograd.functional.jacobian(weight, core).flatten(1)
    assert torch.linalg.matrix_rank(jacobian) == n_inputs * n_outputs


def test_experts_share_the_core_and_own_the_rest(generator):
    experts = build("mpo", generator)
    assert len(experts.hidden.core) == B
    assert all(len(tensor) == B * E for tensor in experts.own())
    own = sum(t[0].numel() for t in (experts.hidden.left, experts.hidden.right))
    assert own < D * H


def test_gradient_of_the_core_is_the_sum_over_its_experts(randn, generator):
    linear = MPOLinear(1, E, 12, 8, 4, 1.0, generator).double()
    pull = randn(E, 12, 8)
    (linear.weight * pull).sum().backward()
    together, linear.core.grad = linear.core.grad, None
    each = []
    for e in range(E):
        (linear.weight * pull)[e].sum().backward()
        each.append(linear.core.grad)
        linear.core.grad = None
    assert_close(together, sum(each))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_core_takes_part_with_the_probability_asked_for(probability, generator):
    linear = MPOLinear(1, E, 12, 8, 4, probability, generator).train()
    linear.generator = torch.Generator().manual_seed(0)
    steps = 0
    for _ in range(1000):
        linear.core.grad = None
        linear.weight.sum().backward()
        steps += linear.core.grad is not None
    assert abs(steps / 1000 - probability) < 0.05 * (0 < probability < 1) + 1e-9


@pytest.mark.parametrize("probability", [-0.1, 1.1, "often"])
def test_other_probabilities_are_refused(probability, generator):
    with pytest.raises(ValueError, match=r"core_update_prob must be .* Got"):
        build("mpo", generator, core_update_prob=probability)


@pytest.mark.parametrize(("n", "factors"), [(1, (1, 1, 1)), (7, (1, 7, 1)), (64, (4, 4, 4))])
def testthree_factors(n, factors):
    assert three_factors(n) == factors


def test_three_factors_multiply_to_the_number():
    assert all(np.prod(three_factors(n)) == n for n in range(1, 130))
