"""Sorted rows: each at a slot of its expert, and few slots left over."""

import itertools
import math

import numpy as np
import pytest
import torch

from skmoe.nn.sorting import COPIED, MUCH, TIER, BlockSorting, Sorting, Tiers, best_cuts


def skewed(n_rows, n_experts, n_kept, power, seed):
    """Different experts for each row, some of them much more often than others."""
    random = np.random.default_rng(seed)
    shares = (1.0 + np.arange(n_experts)) ** -power
    keys = np.log(shares) + random.gumbel(size=(n_rows, n_experts))
    return torch.from_numpy(np.argsort(-keys, axis=1)[:, :n_kept].copy()).unsqueeze(0)


@pytest.mark.parametrize("per_row", [1, 1_000, 10_000_000])
@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("n_experts", [2, 16, 300])
def test_each_assignment_has_a_slot_of_its_expert_and_its_row(n_experts, power, per_row):
    ids_BTK = torch.cat([skewed(200, n_experts, 2, power, seed) for seed in (0, 1)])
    plan = Sorting(ids_BTK, n_experts, per_row)
    assert len(plan.slots_N.unique()) == ids_BTK.numel()
    rows = torch.arange(400).repeat_interleave(2)
    assert torch.equal(plan.rows_S[plan.slots_N], rows)
    expert_of_slot = torch.full((len(plan.rows_S),), -1)
    everyone = torch.arange(2 * n_experts)
    slots = torch.arange(len(plan.rows_S)).unsqueeze(1)
    for at, experts in zip(plan.layout.rows(slots), plan.layout.own(everyone), strict=True):
        expert_of_slot[at[..., 0]] = experts.unsqueeze(1).expand(at.shape[:2])
    groups = (ids_BTK + torch.tensor([0, n_experts])[:, None, None]).flatten()
    assert torch.equal(expert_of_slot[plan.slots_N], groups)


@pytest.mark.parametrize("n_rows", [None, 1, 8, 1000])
@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("n_experts", [2, 16, 300])
def test_each_assignment_has_a_slot_in_a_block_of_its_expert(n_experts, power, n_rows):
    ids_BTK = torch.cat([skewed(200, n_experts, 2, power, seed) for seed in (0, 1)])
    groups_BTK = ids_BTK + torch.tensor([0, n_experts])[:, None, None]
    plan = BlockSorting(groups_BTK, 2 * n_experts, n_rows)
    assert len(plan.slots_N.unique()) == ids_BTK.numel()
    assert torch.equal(plan.rows_S[plan.slots_N], torch.arange(400).repeat_interleave(2))
    tier = plan.tier
    assert len(plan.rows_S) == math.prod(tier.shape)
    experts = tier.experts.repeat_interleave(tier.shape[1])
    assert torch.equal(experts[plan.slots_N], groups_BTK.flatten())
    used = int(tier.ends_G1[-1])
    counts = tier.experts[:used].bincount(minlength=2 * n_experts)
    assert torch.equal(counts, tier.ends_G1.diff())


@pytest.mark.parametrize("n_experts", [2, 16, 300])
def test_the_number_of_blocks_depends_on_shapes_only(n_experts):
    plans = [
        BlockSorting(skewed(200, n_experts, 2, power, 0), n_experts) for power in (0.0, 4.0)
    ]
    assert plans[0].tier.shape == plans[1].tier.shape
    rows = plans[0].tier.shape[1]
    assert len(plans[0].rows_S) <= 400 + min(n_experts, 400) * (rows - 1)


@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_what_blocks_say_is_added_up_by_expert(shape):
    plan = BlockSorting(skewed(200, 16, 2, 1.0, 0), 16)
    tier = plan.tier
    own = torch.randn(tier.shape[0], *shape, dtype=torch.float64)
    into = torch.ones(16, *shape, dtype=torch.float64)
    tier.add_up(own, into)
    used = int(tier.ends_G1[-1])
    expected = torch.ones_like(into).index_add_(0, tier.experts[:used], own[:used])
    torch.testing.assert_close(into, expected)


@pytest.mark.parametrize("power", [0.0, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("n_experts", [8, 64, 512])
def test_slots_do_not_grow_with_the_number_of_experts(n_experts, power):
    """At most two for an assignment, and what the calls of a few tiers are worth."""
    ids_BTK = skewed(1000, n_experts, 2, power, 0)
    per_row = 2_000
    n_slots = len(Sorting(ids_BTK, n_experts, per_row).rows_S)
    most = 2 * 2000 + math.log2(2 * n_experts) * TIER / per_row + 2 * COPIED * n_experts
    assert 2000 <= n_slots <= most


def test_even_rows_are_not_padded():
    ids_BTK = torch.arange(12).view(1, 12, 1) % 4
    plan = Sorting(ids_BTK, 4, per_row=1)
    assert len(plan.rows_S) == 12
    (tier,) = plan.layout.tiers
    assert tier == (None, 0, (4, 3), None)


def test_one_busy_expert_has_a_tier_of_its_own():
    ids_BTK = torch.tensor([0] * 5000 + [1, 2, 3]).view(1, -1, 1)
    plan = Sorting(ids_BTK, 4, per_row=1000)
    assert [tier.shape for tier in plan.layout.tiers] == [(4, 1), (1, 4999)]
    assert plan.layout.tiers[1].experts.tolist() == [0]
    assert len(plan.rows_S) == 4 + 4999


def test_experts_with_much_to_do_are_asked_one_by_one():
    ids_BTK = torch.tensor([0] * 5 + [1, 3]).view(1, -1, 1)
    few = Sorting(ids_BTK, 4, per_row=4 * MUCH // 7)
    assert isinstance(few.layout, Tiers)
    plan = Sorting(ids_BTK, 4, per_row=4 * MUCH // 7 + 1)
    assert plan.layout.counts == [5, 1, 0, 1]
    assert plan.slots_N.tolist() == plan.rows_S.tolist() == list(range(7))


@pytest.mark.parametrize("per_row", [1, 10_000_000])
def test_what_groups_say_is_added_up_by_expert(per_row):
    layout = Sorting(skewed(200, 16, 2, 1.0, 0), 16, per_row).layout
    into = torch.full((16, 3), torch.nan)
    room = layout.room(into)
    for part, numbers in zip(room, layout.own(torch.arange(16)), strict=True):
        part.copy_(numbers.unsqueeze(1).expand_as(part))
    layout.add_up(room, into)
    n_groups = sum(
        (numbers.unsqueeze(1) == torch.arange(16)).sum(0)
        for numbers in layout.own(torch.arange(16))
    )
    assert torch.equal(into[:, 0], (torch.arange(16) * n_groups).float())


@pytest.mark.parametrize("worth", [0, 3, 10, 1000])
@pytest.mark.parametrize(
    "left", [[1], [8] * 20 + [4] * 9 + [1, 1], [9] * 9 + [5, 4, 4, 2, 2] + [1] * 40]
)
def test_no_other_cuts_at_halves_are_cheaper(left, worth):
    def cost(cuts):
        lengths = zip([0, *cuts], cuts, strict=False)
        tiers = [(left[start], stop - start) for start, stop in lengths]
        copied = COPIED * sum(n_experts for n_experts, _ in tiers[1:])
        return sum(map(math.prod, tiers)) + worth * len(tiers) + copied

    halves = {
        i
        for i in range(1, len(left))
        for h in (2, 4, 8)
        if left[i] <= left[0] // h < left[i - 1]
    }
    others = [
        [*some, len(left)]
        for n in range(len(halves) + 1)
        for some in itertools.combinations(sorted(halves), n)
    ]
    assert cost(best_cuts(left, worth)) == min(map(cost, others))
