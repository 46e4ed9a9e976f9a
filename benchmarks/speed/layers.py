"""A step of one layer: over the matrix products alone, and over the textbook's loop."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.speed.case import Case, Contestants, Goal
from skmoe.nn.layers import MoELayer

OURS, PRODUCTS, TEXTBOOK = "skmoe", "products alone", "textbook loop"
# Times that a contestant is run within a call, so that a call takes some milliseconds.
INNER = 5


def cases() -> Iterator[Case]:
    for n_inputs, width, n_outputs, most in ((16, 64, 1, 3.0), (64, 256, 64, 1.5)):
        yield _step(n_inputs, width, n_outputs, 16, [Goal(OURS, PRODUCTS, at_most=most)])
    yield _step(16, 64, 1, 16, [Goal(TEXTBOOK, OURS, at_least=2.5)], textbook=True)
    yield _step(16, 64, 1, 256, [Goal(TEXTBOOK, OURS, at_least=20)], textbook=True)
    yield _more_experts(n_rows=lambda n_experts: 256, most=3.0, name="256 rows")
    per_expert = "32 rows per expert, time per row"
    yield _more_experts(n_rows=lambda n_experts: 16 * n_experts, most=1.2, name=per_expert)


def _step(n_inputs, width, n_outputs, n_experts, goals, textbook=False, n_rows=1024) -> Case:
    """Forward and backward pass, top 2 of some experts."""

    def make(seed: int) -> Contestants:
        layer, x_BTD = _layer(n_inputs, width, n_outputs, n_experts, n_rows, seed)
        found: dict[str, Callable[[], object]] = {OURS: _often(lambda: _passes(layer, x_BTD))}
        if textbook:
            assert_close(layer(x_BTD)[0], _textbook(layer, x_BTD), rtol=1e-4, atol=1e-5)
            found[TEXTBOOK] = _often(lambda: _passes(layer, x_BTD, _textbook))
        else:
            found[PRODUCTS] = _often(_products(layer, x_BTD))
        return found

    sizes = f"D={n_inputs}, W={width}, O={n_outputs}, top 2 of {n_experts}, {n_rows} rows"
    return Case(f"step, {sizes}", make, goals, calls=20)


def _more_experts(n_rows: Callable[[int], int], most: float, name: str) -> Case:
    """A step with optimiser, for many experts and for few."""
    many, few = 256, 8

    def make(seed: int) -> Contestants:
        found = {}
        for n_experts in (many, few):
            layer, x_BTD = _layer(16, 64, 1, n_experts, n_rows(n_experts), seed)
            optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
            times = INNER * n_rows(many) // n_rows(n_experts)
            found[f"{n_experts} experts"] = _often(_with_step(layer, x_BTD, optimizer), times)
        return found

    goal = Goal(f"{many} experts", f"{few} experts", at_most=most)
    return Case(f"step with optimiser, top 2, W=64, {name}", make, [goal], calls=20)


def _layer(n_inputs, width, n_outputs, n_experts, n_rows, seed) -> tuple[MoELayer, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layer = MoELayer(
        1,
        n_inputs,
        n_outputs,
        n_experts=n_experts,
        top_k=2,
        hidden_dim=width,
        generator=generator,
    )
    return layer, torch.randn(1, n_rows, n_inputs, generator=generator)


def _often(call: Callable[[], object], times: int = INNER) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def _passes(layer: MoELayer, x_BTD: Tensor, forward=lambda layer, x: layer(x)[0]) -> None:
    layer.zero_grad(set_to_none=True)
    forward(layer, x_BTD).square().mean().backward()


def _with_step(layer: MoELayer, x_BTD: Tensor, optimizer) -> Callable[[], None]:
    def step() -> None:
        _passes(layer, x_BTD)
        optimizer.step()

    return step


def _textbook(layer: MoELayer, x_BTD: Tensor) -> Tensor:
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
