"""A step of one layer: over the matrix products alone, and over the textbook's loop.

A step is what a fit of one layer takes for each batch: loss and gradients of all weights. Parts
that have no gradient by hand go through autograd; that is measured as well.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.speed.case import Case, Contestants, Goal
from skmoe.nn.hidden_layer import Room
from skmoe.nn.layers import MoELayer
from skmoe.nn.losses import SquaredError
from skmoe.nn.networks import MoENetwork
from skmoe.optimizer import FlatAdamW
from skmoe.shallow_gradient import ShallowGradient, gradient_by_hand

OURS, AUTOGRAD = "skmoe", "skmoe, by autograd"
PRODUCTS, TEXTBOOK = "products alone", "textbook loop"
# Times that a contestant is run within a call, so that a call takes some milliseconds.
INNER = 5


def cases() -> Iterator[Case]:
    for n_inputs, width, n_outputs, most in ((16, 64, 1, 3.0), (64, 256, 64, 1.5)):
        goals = [Goal(OURS, PRODUCTS, at_most=most), Goal(AUTOGRAD, PRODUCTS)]
        yield _step(n_inputs, width, n_outputs, 16, goals)
    yield _step(16, 64, 1, 16, [Goal(TEXTBOOK, OURS, at_least=2.5)], textbook=True)
    yield _step(16, 64, 1, 256, [Goal(TEXTBOOK, OURS, at_least=20)], textbook=True)
    yield _more_experts(n_rows=lambda n_experts: 256, most=3.0, name="256 rows")
    per_expert = "32 rows per expert, time per row"
    yield _more_experts(n_rows=lambda n_experts: 16 * n_experts, most=1.2, name=per_expert)


def _step(n_inputs, width, n_outputs, n_experts, goals, textbook=False, n_rows=1024) -> Case:
    """Forward and backward pass, top 2 of some experts."""

    def make(seed: int) -> Contestants:
        step = random_step(n_inputs, width, n_outputs, n_experts, n_rows, seed)
        found = {OURS: _often(step.by_hand)}
        if textbook:
            assert_close(
                step.answers(textbook_layer), step.answers(_layer), rtol=1e-4, atol=1e-5
            )
            found[TEXTBOOK] = _often(lambda: step.by_autograd(textbook_layer))
        else:
            found[AUTOGRAD] = _often(lambda: step.by_autograd(_layer))
            found[PRODUCTS] = _often(_products(step.layer, step.x_BTD))
        return found

    sizes = f"D={n_inputs}, W={width}, O={n_outputs}, top 2 of {n_experts}, {n_rows} rows"
    return Case(f"step, {sizes}", make, goals, calls=20)


def _more_experts(n_rows: Callable[[int], int], most: float, name: str) -> Case:
    """A step with optimiser, for many experts and for few."""
    many, few = 256, 8

    def make(seed: int) -> Contestants:
        found = {}
        for n_experts in (many, few):
            step = random_step(16, 64, 1, n_experts, n_rows(n_experts), seed)
            times = INNER * n_rows(many) // n_rows(n_experts)
            found[f"{n_experts} experts"] = _often(step.with_optimizer, times)
        return found

    goal = Goal(f"{many} experts", f"{few} experts", at_most=most)
    return Case(f"step with optimiser, top 2, W=64, {name}", make, [goal], calls=20)


class Step:
    """A batch and a network of one layer, and ways to find its gradients."""

    def __init__(self, network: MoENetwork, x: Tensor, y: Tensor):
        self.network, self.layer = network, network.layer
        self.x, self.y = x, y
        self.weight = torch.ones(len(x), device=x.device)
        self.x_BTD = self.x.unsqueeze(0)
        self.optimizer = FlatAdamW(self.network, 1e-4, 1e-2)
        by_hand = gradient_by_hand(self.network, SquaredError(), (), Room())
        assert isinstance(by_hand, ShallowGradient)
        self.gradient = by_hand
        self._check()

    def _check(self) -> None:
        self.by_autograd(_layer)
        expected = self.optimizer.gradient.clone()
        self.by_hand()
        assert_close(self.optimizer.gradient, expected, rtol=1e-3, atol=1e-5)

    def by_hand(self) -> None:
        self.gradient(self.x_BTD, self.y.unsqueeze(0), self.weight.unsqueeze(0))

    def with_optimizer(self) -> None:
        self.by_hand()
        self.optimizer.step()

    def by_autograd(self, forward: Callable[[MoELayer, Tensor], Tensor]) -> None:
        self.optimizer.zero_grad()
        (forward(self.layer, self.x_BTD)[0] - self.y).square().mean().backward()

    @torch.no_grad()
    def answers(self, forward: Callable[[MoELayer, Tensor], Tensor]) -> Tensor:
        return forward(self.layer, self.x_BTD)


def random_step(
    n_inputs, width, n_outputs, n_experts, n_rows, seed, top_k=2, device="cpu"
) -> Step:
    """Of a network as it starts, whose experts are asked by about as many rows each."""
    generator = torch.Generator().manual_seed(seed)
    network = MoENetwork(
        n_inputs,
        n_outputs,
        n_experts=n_experts,
        top_k=top_k,
        hidden_dim=width,
        generator=generator,
    )
    x = torch.randn(n_rows, n_inputs, generator=generator)
    y = torch.randn(n_rows, n_outputs, generator=generator)
    return Step(network.to(device), x.to(device), y.to(device))


def _layer(layer: MoELayer, x_BTD: Tensor) -> Tensor:
    return layer(x_BTD)[0]


def _often(call: Callable[[], object], times: int = INNER) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def textbook_layer(layer: MoELayer, x_BTD: Tensor) -> Tensor:
    """Expert by expert: rows that ask it, its answers, added to the sum."""
    weights_BTK, ids_BTK, *_ = layer.router(layer.gate(x_BTD))
    w_hidden, b_hidden, w_output, b_output = layer.experts.stacked()
    x_TD, (weights_TK, ids_TK) = x_BTD[0], (weights_BTK[0], ids_BTK[0])
    y_TO = x_TD.new_zeros(len(x_TD), w_output.shape[2])
    for expert in range(len(w_hidden)):
        rows, places = torch.where(ids_TK == expert)
        hidden = torch.relu(x_TD[rows] @ w_hidden[expert] + b_hidden[expert])
        answer = hidden @ w_output[expert] + b_output[expert]
        y_TO = y_TO.index_add(0, rows, answer * weights_TK[rows, places, None])
    return y_TO.unsqueeze(0)


def _products(layer: MoELayer, x_BTD: Tensor) -> Callable[[], None]:
    """The products of the asked experts, forward and backward, were rows even by nature."""
    w_hidden, _, w_output, _ = (tensor.detach() for tensor in layer.experts.stacked())
    n_experts, n_inputs, width = w_hidden.shape
    per_expert = 2 * x_BTD.shape[1] // n_experts
    x = torch.randn(n_experts, per_expert, n_inputs)
    hidden = torch.randn(n_experts, per_expert, width)
    answer = torch.randn(n_experts, per_expert, w_output.shape[2])

    def products() -> None:
        torch.bmm(x, w_hidden)
        torch.bmm(hidden, w_output)
        torch.bmm(hidden.mT, answer)
        torch.bmm(answer, w_output.mT)
        torch.bmm(x.mT, hidden)

    return products
