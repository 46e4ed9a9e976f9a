"""Sorted rows: each at a slot of its expert, and few slots left over."""

import numpy as np
import pytest
import torch

from skmoe.nn.sorting import TIER, Sorting


def skewed(n_rows, n_experts, n_kept, power, seed):
    """Different experts for each row, some of them much more often than others."""
    random = np.random.default_rng(seed)
    shares = (1.0 + np.arange(n_experts)) ** -power
    keys = np.log(shares) + random.gumbel(size=(n_rows, n_experts))
    return torch.from_numpy(np.argsort(-keys, axis=1)[:, :n_kept].copy()).unsqueeze(0)


@pytest.mark.parametrize("per_row", [1, 1_000, 100_000])
@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("n_experts", [2, 16, 300])
def test_each_assignment_has_a_slot_of_its_expert_and_its_row(n_experts, power, per_row):
    ids_BTK = torch.cat([skewed(200, n_experts, 2, power, seed) for seed in (0, 1)])
    plan = Sorting(ids_BTK, n_experts, per_row)
    assert len(plan.slots_N.unique()) == ids_BTK.numel()
    rows = torch.arange(400).repeat_interleave(2)
    assert torch.equal(plan.rows_S[plan.slots_N], rows)
    expert_of_slot = torch.full((len(plan.rows_S),), -1)
    for tier in plan.tiers:
        experts = torch.arange(2 * n_experts) if tier.experts is None else tier.experts
        expert_of_slot[tier.slots] = experts.repeat_interleave(tier.length)
    groups = (ids_BTK + torch.tensor([0, n_experts])[:, None, None]).flatten()
    assert torch.equal(expert_of_slot[plan.slots_N], groups)


@pytest.mark.parametrize("power", [0.0, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("n_experts", [8, 64, 512])
def test_slots_do_not_grow_with_the_number_of_experts(n_experts, power):
    """At most four for an assignment, and what the calls of a tier are worth."""
    ids_BTK = skewed(1000, n_experts, 2, power, 0)
    per_row = 2_000
    n_slots = len(Sorting(ids_BTK, n_experts, per_row).rows_S)
    assert 2000 <= n_slots <= 4 * 2000 + TIER / per_row


def test_even_rows_are_not_padded():
    ids_BTK = torch.arange(12).view(1, 12, 1) % 4
    plan = Sorting(ids_BTK, 4, per_row=1)
    assert len(plan.rows_S) == 12
    (tier,) = plan.tiers
    assert (tier.experts, tier.slots, tier.length) == (None, slice(0, 12), 3)


def test_one_busy_expert_has_a_tier_of_its_own():
    ids_BTK = torch.tensor([0] * 5000 + [1, 2, 3]).view(1, -1, 1)
    plan = Sorting(ids_BTK, 4, per_row=1000)
    assert [tier.length for tier in plan.tiers] == [1, 4999]
    assert plan.tiers[1].experts.tolist() == [0]
    assert len(plan.rows_S) == 4 + 4999
