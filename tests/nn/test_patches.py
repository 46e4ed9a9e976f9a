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


def test_patches_are_at_least_as_many_as_experts(generator):
    message = "n_regions must be at least n_experts. Got n_regions=3 and n_experts=4"
    with pytest.raises(ValueError, match=message):
        PatchGate(1, 3, 4, n_regions=3, generator=generator)
