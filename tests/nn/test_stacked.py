"""Affine maps side by side are the same maps one by one."""

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.stacked import (
    ACTIVATIONS,
    LayerNorm,
    Linear,
    StackedLinear,
    StackedResidual,
    draw_normal,
    draw_uniform,
)


def test_stacked_linear_is_n_affine_maps(randn, generator):
    maps, x_NTD = StackedLinear(3, 4, 2, generator=generator).double(), randn(3, 5, 4)
    one_by_one = [x @ w + b for x, w, b in zip(x_NTD, maps.weight, maps.bias, strict=True)]
    assert_close(maps(x_NTD), torch.stack(one_by_one))


@pytest.mark.parametrize("n_rows", [1, 5])
def test_rows_shared_by_all_maps_give_what_copies_of_them_give(randn, generator, n_rows):
    maps, x_TD = StackedLinear(3, 4, 2, generator=generator).double(), randn(n_rows, 4)
    shared = x_TD.expand(3, -1, -1)
    assert shared.stride(0) == 0
    assert_close(maps(shared), maps(shared.contiguous()))


def test_rows_shared_by_all_maps_collect_the_gradients_of_all(randn, generator):
    maps = StackedLinear(3, 4, 2, generator=generator).double()
    x_TD = randn(5, 4).requires_grad_()
    (shared,) = torch.autograd.grad(maps(x_TD.expand(3, -1, -1)).square().sum(), x_TD)
    (copied,) = torch.autograd.grad(maps(x_TD.repeat(3, 1, 1)).square().sum(), x_TD)
    assert_close(shared, copied)


@pytest.mark.parametrize("make", [Linear, lambda *dims, **how: StackedLinear(1, *dims, **how)])
def test_initial_weights_fill_their_bound(make, generator):
    linear = make(25, 400, generator=generator, gain=2.0)
    for weight in linear.parameters():
        assert weight.abs().max() <= 2 / 5
        assert_close(weight.std().item(), 0.4 / 3**0.5, rtol=0.05, atol=0)


@pytest.mark.parametrize("make", [Linear, lambda *dims, **how: StackedLinear(2, *dims, **how)])
def test_gain_zero_starts_at_zero(make, generator):
    assert all(
        not weight.any() for weight in make(3, 4, generator=generator, gain=0).parameters()
    )


def test_linear_is_an_affine_map(randn, generator):
    linear, x_TD = Linear(4, 2, generator=generator).double(), randn(5, 4)
    assert_close(linear(x_TD), x_TD @ linear.weight.T + linear.bias)


@pytest.mark.parametrize("draw", [draw_uniform, draw_normal])
def test_draws_come_from_the_generator_alone(draw):
    before = torch.get_rng_state()
    first, again, other = (
        draw((3, 4), 1.0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_draw_normal_has_the_deviation_asked_for(generator):
    drawn = draw_normal((100_000,), 3.0, generator)
    assert abs(drawn.std() - 3) < 0.05
    assert abs(drawn.mean()) < 0.05


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_act_on_each_number_and_are_not_affine(name):
    activation, x = ACTIVATIONS[name], torch.linspace(-2, 2, 5, dtype=torch.float64)
    assert_close(activation(x), torch.stack([activation(number) for number in x]))
    assert activation(x).diff().diff().abs().max() > 0.1


def test_unknown_activation_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"activation must be one of .* Did you mean 'relu'"):
        ACTIVATIONS["rellu"]


def test_stacked_residual_is_n_layers_of_their_own(randn, generator):
    layers, h_NTW = StackedResidual(3, 4, generator=generator).double(), randn(3, 5, 4)
    for n, (h, found) in enumerate(zip(h_NTW, layers(h_NTW), strict=True)):
        normed = torch.nn.functional.layer_norm(h, (4,))
        inner = normed @ layers.hidden.weight[n] + layers.hidden.bias[n]
        change = torch.nn.functional.silu(inner) @ layers.output.weight[n]
        assert_close(found, h + change + layers.output.bias[n])


def test_norm_and_its_gradients_are_those_of_torch(randn):
    x, dy, norm = randn(7, 5).requires_grad_(), randn(7, 5), LayerNorm(5).double()
    norm.load_state_dict({"weight": randn(5), "bias": randn(5)})
    given = x, norm.weight, norm.bias
    expected = torch.nn.functional.layer_norm(x, (5,), norm.weight, norm.bias)
    assert_close(norm(x), expected)
    gradients = torch.autograd.grad(norm(x), given, dy)
    assert_close(gradients, torch.autograd.grad(expected, given, dy))
    with torch.no_grad():
        assert_close(norm(x), expected.detach())


def test_norms_side_by_side_are_those_one_by_one(randn):
    norm, x, weights = LayerNorm(4).double(), randn(3, 6, 4), randn(3, 4)

    def loss(weight, x):
        own = {"weight": weight, "bias": norm.bias}
        return torch.func.functional_call(norm, own, (x,)).square().sum()

    slope = torch.func.grad(loss)
    one_by_one = [slope(weight, own) for weight, own in zip(weights, x, strict=True)]
    assert_close(torch.vmap(slope)(weights, x), torch.stack(one_by_one))


def test_gradients_do_not_depend_on_the_number_of_threads():
    code = """
import torch
from skmoe.nn.base_routers import softmax_over_experts
from skmoe.nn.stacked import LayerNorm
generator, answers = torch.Generator().manual_seed(0), []
x = torch.randn(123, 128, generator=generator)
for n_threads in (1, 2, 3):
    torch.set_num_threads(n_threads)
    norm = LayerNorm(128)
    y = norm(x)
    logits = x.view(1, -1, 4).requires_grad_()
    weights = softmax_over_experts(logits)
    (weights.square().sum() + y.pow(3).sum()).backward()
    answers.append([y, norm.weight.grad, norm.bias.grad, weights, logits.grad])
same = [torch.equal(a, b) for more in answers[1:] for a, b in zip(answers[0], more)]
print(len(same), all(same))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["10", "True"], done.stderr
