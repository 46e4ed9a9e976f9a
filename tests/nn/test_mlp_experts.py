"""Nets that are merged."""

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.mlp_experts import MergedExperts, MLPExperts

B, E, D, H, OUT, T = 2, 3, 4, 5, 2, 6
depths = pytest.mark.parametrize("depth", [0, 2])


@pytest.fixture
def build(generator):
    def make(depth=0, n_experts=E, kind=MergedExperts):
        sizes = B, n_experts, D, OUT
        return kind(*sizes, hidden_dim=H, depth=depth, generator=generator).double()

    return make


@depths
def test_each_row_has_the_net_of_the_mean_weights(depth, build, randn):
    experts, x_BTD = build(depth), randn(B, T, D)
    weights_BTE = randn(B, T, E).softmax(-1)
    one = MLPExperts(1, 1, D, OUT, hidden_dim=H, depth=depth).double()
    for b in range(B):
        for t in range(T):
            share_E11 = weights_BTE[b, t, :, None, None]
            mean = {
                name: (share_E11 * stack.unflatten(0, (B, E))[b]).sum(0, keepdim=True)
                for name, stack in experts.state_dict().items()
            }
            one.load_state_dict(mean)
            merged_O = experts.mix_all(x_BTD, weights_BTE)[b, t]
            assert_close(merged_O, one(x_BTD[b : b + 1, t : t + 1])[0, 0])


@depths
def test_all_weight_on_one_expert_makes_its_net(depth, build, randn):
    experts, x_BTD = build(depth), randn(B, T, D)
    answers_BTEO = experts.answer_all(x_BTD)
    for e, weights_E in enumerate(torch.eye(E).double()):
        merged_BTO = experts.mix_all(x_BTD, weights_E.expand(B, T, E))
        assert_close(merged_BTO, answers_BTEO[:, :, e])


def test_equal_experts_make_themselves_whatever_the_weights(build, randn):
    experts, x_BTD = build(), randn(B, T, D)
    with torch.no_grad():
        for weight in experts.parameters():
            blocks = weight.unflatten(0, (B, E))
            blocks.copy_(blocks[:, :1].expand_as(blocks).clone())
    merged_BTO = experts.mix_all(x_BTD, randn(B, T, E).softmax(-1))
    assert_close(merged_BTO, experts.answer_all(x_BTD)[:, :, 0])


def test_a_merged_net_is_not_the_sum_of_the_answers(build, randn):
    experts, x_BTD = build(), randn(B, T, D)
    weights_BTE = torch.full((B, T, E), 1 / E).double()
    sums_BTO = experts.answer_all(x_BTD).mean(2)
    assert (experts.mix_all(x_BTD, weights_BTE) - sums_BTO).abs().max() > 1e-3
    assert experts.output_map() is None  # so nothing is solved for
