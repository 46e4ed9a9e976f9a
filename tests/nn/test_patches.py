"""A gate with more regions than experts."""

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.patches import PatchGate


def test_an_expert_has_the_score_of_its_likeliest_patch(randn, generator):
    gate = PatchGate(1, 3, 4, n_regions=6, generator=generator).double()
    x, ids = randn(1, 50, 3), torch.tensor([[3, 0, 0, 1, 2, 3]])
    gate.set_regions(ids, (randn(1, 6, 3), randn(1, 6)))
    scores, logits = gate.regions(x)[0], gate(x)[0]
    for expert in range(4):
        assert_close(logits[:, expert], scores[:, ids[0] == expert].amax(1))
    weights = gate.experts_in_regions(x)[0, 0]
    assert_close(weights, torch.eye(4, dtype=weights.dtype)[ids[0]])
    assert not gate.best_in_regions(x).any()
    assert gate.best_in_regions(x).shape == gate.scores_of_regions(x).shape


def test_patches_may_be_curved(randn, generator):
    gate = PatchGate(1, 2, 2, n_regions=3, degree=2, generator=generator).double()
    slopes = torch.zeros(1, 3, 5).double()
    slopes[0, 1, [2, 4]] = -1.0  # x_1^2 and x_2^2
    gate.set_regions(torch.tensor([[0, 1, 0]]), (slopes, torch.tensor([[0.0, 0.5, -9.0]])))
    x = randn(1, 50, 2)
    inside = x.square().sum(-1) < 0.5
    assert 0 < inside.sum() < 50
    assert torch.equal(gate(x).argmax(-1), inside.long())


def test_patches_are_at_least_as_many_as_experts(generator):
    message = "n_regions must be at least n_experts. Got n_regions=3 and n_experts=4"
    with pytest.raises(ValueError, match=message):
        PatchGate(1, 3, 4, n_regions=3, generator=generator)
