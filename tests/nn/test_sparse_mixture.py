"""The sum of asked experts, with a gradient by hand."""

import sys

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.base_experts import weighted_sum
from skmoe.nn.hidden_layer import GRADIENTS, NARROW
from skmoe.nn.sorting import Sorting
from skmoe.nn.sparse_mixture import sparse_mixture
from skmoe.nn.stacked import ACTIVATIONS

E, D, H = 5, 4, 6
# Of seven rows; nobody asks expert 4.
IDS = [[0, 1], [0, 2], [0, 3], [0, 1], [0, 1], [1, 0], [3, 0]]


@pytest.mark.parametrize("activation", list(GRADIENTS))
@pytest.mark.parametrize("n_outputs", [1, 3, NARROW])
@pytest.mark.parametrize("n_groups", [1, 3, E], ids=["one tier", "tiers", "one by one"])
def test_it_is_the_formula_and_so_are_its_gradients(
    activation, n_outputs, n_groups, randn, monkeypatch
):
    sorting = sys.modules["skmoe.nn.sorting"]
    for cost in ("TIER", "COPIED"):
        monkeypatch.setattr(sorting, cost, 10**9 if n_groups == 1 else 0)
    if n_groups == E:
        monkeypatch.setattr(sorting, "MUCH", 1)
    ids_BTK = torch.tensor([IDS])
    plan = Sorting(ids_BTK, E, per_row=1)
    assert len(plan.layout.rows(plan.rows_S.unsqueeze(1))) == n_groups
    x_TD, weights_BTK = randn(len(IDS), D), randn(1, len(IDS), 2).softmax(-1)
    maps = [randn(E, D, H), randn(E, 1, H), randn(E, H, n_outputs), randn(E, 1, n_outputs)]
    inputs = [tensor.requires_grad_() for tensor in (x_TD, weights_BTK, *maps)]
    y_BTO = sparse_mixture(
        x_TD[plan.rows_S], weights_BTK, plan.slots_N, plan.layout, tuple(maps), activation
    )
    w_hidden, b_hidden, w_output, b_output = (map_[ids_BTK.flatten()] for map_ in maps)
    x_N1D = x_TD.repeat_interleave(2, 0).unsqueeze(1)
    hidden = ACTIVATIONS[activation](x_N1D @ w_hidden + b_hidden)
    expected = weighted_sum(hidden @ w_output + b_output, weights_BTK)
    assert_close(y_BTO, expected)
    pull = randn(*y_BTO.shape)
    grads = [torch.autograd.grad(out, inputs, pull) for out in (y_BTO, expected)]
    for by_hand, by_autograd in zip(*grads, strict=True):
        assert_close(by_hand, by_autograd)
