"""The sum with a gradient by hand."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from skmoe.nn.hidden_layer import GRADIENTS, NARROW, Room
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.soft_mixture import Blocks, Mixed, soft_mixture
from skmoe.nn.stacked import ACTIVATIONS

E, H, T = 3, 5, 6
activations = pytest.mark.parametrize("activation", list(GRADIENTS))
# One block and several; few inputs and many; one output, several and many.
shapes = pytest.mark.parametrize(
    ("n_blocks", "n_inputs", "n_outputs"),
    [(1, 4, 1), (2, 4, 3), (2, 40, 1), (1, 40, 2), (1, 4, NARROW), (2, 4, NARROW)],
)


@pytest.fixture
def inputs(randn):
    def make(n_blocks, n_inputs, n_outputs):
        n_groups = n_blocks * E
        tensors = (
            randn(n_blocks, T, n_inputs),
            randn(n_blocks, T, E).softmax(-1),
            randn(n_groups, n_inputs, H),
            randn(n_groups, 1, H),
            randn(n_groups, H, n_outputs),
            randn(n_groups, 1, n_outputs),
        )
        return [tensor.requires_grad_() for tensor in tensors]

    return make


def mixed(x_BTD, weights_BTE, *maps_and_activation):
    *maps, activation = maps_and_activation
    return soft_mixture(x_BTD, weights_BTE, maps, activation)


def by_the_formula(x_BTD, weights_BTE, w_hidden, b_hidden, w_output, b_output, activation):
    """One expert after the other."""
    blocks = []
    for b, (x_TD, weights_TE) in enumerate(zip(x_BTD, weights_BTE, strict=True)):
        total = 0.0
        for e in range(E):
            g = b * E + e
            hidden = ACTIVATIONS[activation](x_TD @ w_hidden[g] + b_hidden[g])
            total = total + weights_TE[:, e, None] * (hidden @ w_output[g] + b_output[g])
        blocks.append(total)
    return torch.stack(blocks)


@activations
@shapes
def test_it_is_the_formula_and_so_are_its_gradients(
    activation, n_blocks, n_inputs, n_outputs, inputs, randn
):
    tensors = inputs(n_blocks, n_inputs, n_outputs)
    y_BTO = mixed(*tensors, activation)
    expected = by_the_formula(*tensors, activation)
    assert_close(y_BTO, expected)
    pull = randn(*y_BTO.shape)
    grads = [torch.autograd.grad(out, tensors, pull) for out in (y_BTO, expected)]
    for by_hand, by_autograd in zip(*grads, strict=True):
        assert_close(by_hand, by_autograd)


def test_gradients_are_those_of_finite_differences(inputs):
    assert gradcheck(lambda *t: mixed(*t, "silu"), inputs(2, 4, 2))


@activations
def test_models_side_by_side_are_models_one_by_one(activation, inputs):
    models = [inputs(2, 4, 2) for _ in range(3)]
    stacked = [torch.stack(tensors) for tensors in zip(*models, strict=True)]
    together = torch.vmap(lambda *t: mixed(*t, activation))(*stacked)
    alone = [mixed(*tensors, activation) for tensors in models]
    assert_close(together, torch.stack(alone))
    grads = torch.autograd.grad(together.square().sum(), models[1])
    expected = torch.autograd.grad(alone[1].square().sum(), models[1])
    for one, other in zip(grads, expected, strict=True):
        assert_close(one, other)


def test_rows_that_models_share_need_no_copies_of_the_user(inputs):
    x_BTD, *rest = inputs(1, 4, 1)
    shared = torch.vmap(lambda *t: mixed(x_BTD, *t, "relu"))(*(t[None] for t in rest))
    assert_close(shared[0], mixed(x_BTD, *rest, "relu"))


def test_gradients_may_stay_away_from_the_rows(inputs):
    x_BTD, *rest = inputs(2, 4, 1)
    mixed(x_BTD.detach(), *rest, "relu").sum().backward()
    assert x_BTD.grad is None
    assert all(tensor.grad is not None for tensor in rest)


@activations
def test_experts_use_it(activation, generator, randn):
    experts = MLPExperts(2, E, 4, 3, hidden_dim=H, activation=activation, generator=generator)
    experts, x_BTD = experts.double(), randn(2, T, 4)
    weights_BTE = randn(2, T, E).softmax(-1)
    expected = torch.einsum("bte,bteo->bto", weights_BTE, experts.answer_all(x_BTD))
    assert_close(experts.mix_all(x_BTD, weights_BTE), expected)


@pytest.mark.parametrize("n_inputs", [4, 40])
@pytest.mark.parametrize("counts", [(3,), (2, 2), (2, 1, 4)], ids=str)
def test_blocks_may_have_more_or_fewer_experts(counts, n_inputs, randn):
    blocks, n_groups = Blocks(counts, torch.device("cpu")), sum(counts)
    shapes = (n_inputs, H), (1, H), (H, 2), (1, 2)
    maps = tuple(randn(n_groups, *shape) for shape in shapes)
    x_BTD, weights_GT = randn(len(counts), T, n_inputs), randn(n_groups, T)
    together = Mixed.of(x_BTD, weights_GT, maps, "relu", Room(), blocks)
    gradients = tuple(map(torch.zeros_like, maps))
    dy_BTO = randn(len(counts), T, 2)
    dweights_GT = together.pull_back(dy_BTO, gradients, Room())
    starts = [sum(counts[:b]) for b in range(len(counts))]
    for b, (start, count) in enumerate(zip(starts, counts, strict=True)):
        own, part = slice(start, start + count), slice(b, b + 1)
        maps_of_block = tuple(map_[own] for map_ in maps)
        alone = Mixed.of(x_BTD[part], weights_GT[own], maps_of_block, "relu", Room())
        assert_close(together.y_BTO[part], alone.y_BTO)
        expected = tuple(map(torch.zeros_like, maps_of_block))
        assert_close(dweights_GT[own], alone.pull_back(dy_BTO[part], expected, Room()))
        assert_close(tuple(gradient[own] for gradient in gradients), expected)
    by_blocks = blocks.join(weights_GT)
    assert by_blocks.shape == (len(counts), max(counts), T)
    assert torch.equal(blocks.part(by_blocks), weights_GT)
    # Also the next time, in the same memory.
    again = blocks.join(2 * weights_GT)
    assert torch.equal(blocks.part(again), 2 * weights_GT)
    missing = torch.arange(max(counts)) >= torch.tensor(counts)[:, None]
    assert (again[missing] == 0).all()
