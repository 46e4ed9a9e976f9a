"""Sums over rows are those of the explicit matrix."""

import pytest
import torch
from last_maps import OUT, D, build, design_matrix, draw, every_network
from torch.testing import assert_close

from skmoe.nn.base_experts import Experts
from skmoe.nn.experts import EXPERTS
from skmoe.nn.networks import MoENetwork
from skmoe.normal_equations import BIAS_SCALE, Features


@every_network
def test_prediction_is_linear_in_the_output_map(name):
    network, x = build(name), draw().x
    by_hand = design_matrix(network, x) @ network.output_map().flatten(0, 1).numpy()
    with torch.no_grad():
        assert_close(torch.from_numpy(by_hand), network(x)[0])


@every_network
@pytest.mark.parametrize("block_values", [8_000_000, 500])
@torch.no_grad()
def test_sums_are_those_of_the_explicit_matrix(name, block_values, monkeypatch):
    monkeypatch.setattr("skmoe.normal_equations.BLOCK_VALUES", block_values)
    monkeypatch.setattr("skmoe.normal_equations.GRAM_ROWS", 4)
    network, rows = build(name), draw()
    A = torch.from_numpy(design_matrix(network, rows.x))
    share_T1 = (rows.weight / rows.weight.sum())[:, None]
    residual_TO = rows.y - network(rows.x)[0]
    expected = A.T @ (share_T1 * A)
    size = network.output_map().shape[1]
    scale_P = torch.ones(len(expected), dtype=torch.float64)
    scale_P[size - 1 :: size] = BIAS_SCALE

    features = Features(network, rows)
    gram, right = features.normal_equations()
    assert_close(gram.triu(), (scale_P[:, None] * expected * scale_P).triu())
    assert_close(right, scale_P[:, None] * (A.T @ (share_T1 * residual_TO)))
    diagonal = gram.new_zeros(features.n_maps, size, size)
    for block, _ in features.blocks():
        block.add_diagonal(diagonal)
    on_it = torch.block_diag(*torch.ones_like(diagonal))
    assert_close(torch.block_diag(*diagonal), on_it * expected)


@every_network
@torch.no_grad()
def test_errors_are_those_of_the_network_with_the_changed_maps(name):
    network, rows = build(name), draw()
    features = Features(network, rows)
    changes_APO = 0.1 * draw(3 * features.n_unknowns, seed=3).y.view(3, -1, OUT)

    def error():
        squares_T = (rows.y - network(rows.x)[0]).square().mean(1)
        return float((squares_T * rows.weight).sum() / rows.weight.sum())

    assert features.error() == pytest.approx(error())
    before, errors = network.output_map(), features.errors(changes_APO)
    for change_PO, found in zip(changes_APO, errors.tolist(), strict=True):
        features.add_to_map(change_PO)
        assert found == pytest.approx(error())
        network.set_output_map(before)


def test_a_network_without_a_last_map_is_refused():
    class Sines(Experts):
        def __init__(self, n_blocks, n_experts, n_inputs, n_outputs):
            super().__init__(n_blocks, n_experts, n_inputs, n_outputs)
            self.phase = torch.nn.Parameter(torch.zeros(n_blocks * n_experts, 1, n_outputs))

        def stacked(self):
            return (self.phase,)

        def evaluate(self, x_GCD, *stacked):
            return torch.sin(x_GCD.sum(-1, keepdim=True) + stacked[0])

    network = MoENetwork(D, OUT, n_experts=3, expert=Sines).double()
    assert network.output_map() is None
    with pytest.raises(ValueError, match="last step is a linear map"):
        Features(network, draw())


def test_all_kinds_of_experts_that_are_not_one_tensor_end_in_a_map():
    for kind in EXPERTS:
        if not EXPERTS[kind].asks_some:
            continue
        network = MoENetwork(D, OUT, n_experts=3, expert=kind)
        assert network.output_map() is not None
