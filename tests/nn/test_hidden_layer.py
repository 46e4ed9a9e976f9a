"""Hidden layers of stacked experts: memory, nonlinearities and gradients by hand."""

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.hidden_layer import (
    GRADIENTS,
    NARROW,
    Hidden,
    Room,
    answers_of,
    make_hidden,
    pull_back_answers,
    pull_back_hidden,
    pull_back_maps,
)
from skmoe.nn.stacked import ACTIVATIONS

G, T, D, H = 3, 7, 4, 5


def test_a_room_gives_the_same_memory_again(randn):
    room, like = Room(), randn(1)
    large = room.take("a", (4, 3), like)
    assert large.dtype == like.dtype
    assert room.take("a", (4, 3), like) is large
    assert room.take("a", (2, 3), like).data_ptr() == large.data_ptr()
    assert room.take("b", (4, 3), like).data_ptr() != large.data_ptr()


@pytest.mark.parametrize("name", list(GRADIENTS))
def test_slopes_are_derivatives(name, randn):
    activation = GRADIENTS[name]
    x = randn(6).requires_grad_()
    ACTIVATIONS[name](x).sum().backward()
    went_in = x.detach().clone()
    came_out = activation.apply(went_in)
    assert_close(came_out, ACTIVATIONS[name](x.detach()))
    assert_close(activation.slopes(came_out if activation.by_output else went_in), x.grad)


@pytest.mark.parametrize("name", list(GRADIENTS))
@pytest.mark.parametrize("n_outputs", [1, 3, NARROW])
def test_answers_and_gradients_are_those_of_autograd(name, n_outputs, randn):
    x, room = randn(G, T, D), Room()
    shapes = (G, D, H), (G, 1, H), (G, H, n_outputs), (G, 1, n_outputs)
    maps = tuple(randn(*shape).requires_grad_() for shape in shapes)
    w_hidden, b_hidden, w_output, b_output = maps
    expected = ACTIVATIONS[name](x @ w_hidden + b_hidden) @ w_output + b_output
    pull = randn(*expected.shape)
    gradients = torch.autograd.grad(expected, maps, pull)
    with torch.no_grad():
        hidden = Hidden.empty((G, T, H), name, x, room)
        make_hidden(x, maps, name, hidden)
        into = torch.empty_like(expected)
        assert answers_of(hidden.features, maps, into) is into
        assert_close(into, expected)
        assert_close(answers_of(hidden.features, maps), expected)
        found = tuple(map(torch.empty_like, maps))
        dhidden = torch.empty_like(hidden.known)
        pull_back_answers(pull, hidden.features, found)
        pull_back_hidden(pull, w_output, hidden.known, name, dhidden)
        pull_back_maps(x, dhidden, *found[:2])
    assert_close(found, gradients)
