"""Dispatch: however the rows travel, the answer is sum_k w_k f_{e_k}(x)."""

import math
import sys
from functools import partial
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.dispatch import DISPATCHERS, dispatch
from skmoe.nn.experts import EXPERTS
from skmoe.nn.routers import ROUTERS

E, D, OUT = 4, 3, 2
every_dispatcher = pytest.mark.parametrize("how", DISPATCHERS)

# Rows T, and what is added to the logits of each row and expert.
PATTERNS = {
    "even": lambda T: 9.0 * torch.eye(E).repeat(math.ceil(T / E), 1)[:T],
    "two experts without rows": lambda T: torch.tensor([30.0, 20.0, 0.0, 0.0]).expand(T, -1),
    "one row for the last expert": lambda T: torch.cat(
        [torch.tensor([[0.0, 0, 0, 30]]), torch.tensor([[30.0, 20, 0, 0]]).expand(T - 1, -1)]
    ),
}
CASES = [(pattern, 9) for pattern in PATTERNS] + [("even", 1)]
# Costs that decide how sorted rows travel.
TIERS = {
    name: {"TIER": cost, "COPIED": cost}
    for name, cost in [("tiers", 0), ("one tier", math.inf)]
}
TOGETHER = {"one by one": {"MUCH": 0}, "together": {"MUCH": math.inf}}


def problem(generator, kind="mlp", n_blocks=1, top_k=2, pattern="even", n_rows=9):
    """Experts, rows and a routing, all with gradients."""
    experts = EXPERTS.build(
        kind, n_blocks, E, D, OUT, hidden_dim=6, generator=generator
    ).double()
    x_BTD = torch.randn(
        n_blocks, n_rows, experts.input_dim, generator=generator, dtype=torch.float64
    ).requires_grad_()
    logits = torch.randn(n_blocks, n_rows, E, generator=generator, dtype=torch.float64)
    logits = (logits + PATTERNS[pattern](n_rows)).requires_grad_()
    return experts, x_BTD, ROUTERS.build("softmax", top_k)(logits)


def by_hand(experts, x_BTD, routing):
    """The equation, row by row and expert by expert."""
    weights_BTE = routing.dense_weights()
    rows = []
    for b, block in enumerate(x_BTD):
        for t, x_D in enumerate(block):
            y_O = torch.zeros(OUT, dtype=torch.float64)
            asked = range(E) if routing.expert_ids_BTK is None else routing.expert_ids_BTK[b, t]
            for e in asked:
                one = [tensor[b * E + int(e)].unsqueeze(0) for tensor in experts.stacked()]
                y_O = (
                    y_O
                    + weights_BTE[b, t, e] * experts.evaluate(x_D.view(1, 1, -1), *one)[0, 0]
                )
            rows.append(y_O)
    return torch.stack(rows).view(len(x_BTD), -1, OUT)


def gradients(y_BTO, experts, x_BTD, routing):
    """Gradients of an uneven sum of squares, for weights, rows and logits."""
    slope = torch.linspace(-1, 2, y_BTO.numel(), dtype=torch.float64).view_as(y_BTO)
    return torch.autograd.grad(
        (slope * y_BTO.square()).sum(),
        [*experts.stacked(), x_BTD, routing.logits_BTE],
        allow_unused=True,
        materialize_grads=True,
        retain_graph=True,
    )


@pytest.mark.parametrize("kind", [kind for kind in EXPERTS if EXPERTS[kind].sums])
@pytest.mark.parametrize("n_blocks", [1, 3])
@pytest.mark.parametrize("top_k", [None, 1, 2])
@pytest.mark.parametrize(("pattern", "n_rows"), CASES)
def test_outputs_and_gradients_are_those_of_the_plain_loop(
    kind, n_blocks, top_k, pattern, n_rows, generator, monkeypatch
):
    given = problem(generator, kind, n_blocks, top_k, pattern, n_rows)
    expected = by_hand(*given)
    slopes = gradients(expected, *given)
    for way in product([*DISPATCHERS, "auto"], TIERS, TOGETHER):
        how, costs = way[0], TIERS[way[1]] | TOGETHER[way[2]]
        for name, cost in costs.items():
            monkeypatch.setattr(sys.modules["skmoe.nn.sorting"], name, cost)
        actual = dispatch(*given, how=how)
        told = partial("{}: {}".format, way)
        assert_close(actual, expected, rtol=1e-11, atol=1e-12, msg=told)
        found = gradients(actual, *given)
        assert_close(found, slopes, rtol=1e-10, atol=1e-11, msg=told)


@pytest.mark.parametrize(
    ("cost", "chosen"), [(math.inf, "dense"), (-1, "by_sorting")], ids=["dense", "sorted"]
)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_auto_runs_what_the_costs_call_for(cost, chosen, pattern, generator, monkeypatch):
    module, called = sys.modules["skmoe.nn.dispatch"], []
    monkeypatch.setattr(module, "SORTING", cost)
    run = getattr(module, chosen)
    monkeypatch.setattr(module, chosen, lambda *given: called.append(chosen) or run(*given))
    given = problem(generator, pattern=pattern)
    y_BTO = dispatch(*given)
    assert called == [chosen]
    assert_close(y_BTO, by_hand(*given))


def test_auto_asks_all_experts_at_once_when_all_are_asked(generator, monkeypatch):
    module = sys.modules["skmoe.nn.dispatch"]
    monkeypatch.setattr(module, "SORTING", -1)
    monkeypatch.setattr(module, "by_sorting", None)  # nothing to sort
    given = problem(generator, top_k=None)
    assert_close(dispatch(*given), by_hand(*given))


@every_dispatcher
@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_permuted_rows_give_permuted_outputs(how, top_k, generator):
    experts, x_BTD, routing = problem(generator, n_blocks=3, top_k=top_k)
    order = torch.randperm(9, generator=generator)
    shuffled = ROUTERS.build("softmax", top_k)(routing.logits_BTE[:, order])
    y_BTO = dispatch(experts, x_BTD, routing, how)
    assert_close(
        dispatch(experts, x_BTD[:, order], shuffled, how), y_BTO[:, order], rtol=0, atol=1e-13
    )


@every_dispatcher
@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_a_row_gets_the_same_answer_alone_and_in_a_batch(how, top_k, generator):
    experts, x_BTD, routing = problem(generator, n_blocks=3, top_k=top_k)
    y_BTO, router = dispatch(experts, x_BTD, routing, how), ROUTERS.build("softmax", top_k)
    for t in range(9):
        here = slice(t, t + 1)
        alone = dispatch(experts, x_BTD[:, here], router(routing.logits_BTE[:, here]), how)
        assert_close(alone, y_BTO[:, here], rtol=0, atol=1e-12)


@every_dispatcher
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_no_asked_row_is_dropped_however_uneven(how, pattern, top_k, generator):
    experts, x_BTD, routing = problem(generator, "constant", 2, top_k, pattern, 40)
    with torch.no_grad():
        experts.value.fill_(1.0)
    total = routing.weights_BTK.sum(-1, keepdim=True).expand(-1, -1, OUT)
    assert_close(dispatch(experts, x_BTD, routing, how), total)


@every_dispatcher
def test_an_expert_that_nobody_asks_gets_no_gradient(how, generator):
    given = problem(generator, pattern="two experts without rows")
    *per_expert, _, _ = gradients(dispatch(*given, how=how), *given)
    for gradient in per_expert:
        assert not gradient[2:].any()
        assert gradient[:2].flatten(1).any(1).all()


@every_dispatcher
def test_an_expert_that_nobody_asks_cannot_be_heard(how, generator):
    experts, x_BTD, routing = problem(generator, pattern="two experts without rows")
    before = dispatch(experts, x_BTD, routing, how)
    with torch.no_grad():
        for tensor in experts.stacked():
            tensor[2:] = 1e3
    assert torch.equal(dispatch(experts, x_BTD, routing, how), before)


@every_dispatcher
def test_rows_shared_by_all_blocks_need_no_copies(how, generator):
    experts, x_BTD, routing = problem(generator, n_blocks=3)
    shared = x_BTD[:1].expand(3, -1, -1)
    assert_close(
        dispatch(experts, shared, routing, how),
        dispatch(experts, shared.contiguous(), routing, how),
    )


@pytest.mark.parametrize("kind", EXPERTS)
def test_all_outputs_are_the_experts_one_by_one(kind, generator):
    experts, x_BTD, _ = problem(generator, kind, n_blocks=3)
    y_BTEO = experts.answer_all(x_BTD)
    assert y_BTEO.shape == (3, 9, E, OUT)
    for b in range(3):
        for e in range(E):
            one = [tensor[b * E + e].unsqueeze(0) for tensor in experts.stacked()]
            assert_close(y_BTEO[b, :, e], experts.evaluate(x_BTD[b : b + 1], *one)[0])


def test_unknown_dispatcher_is_refused_with_the_valid_names(generator):
    with pytest.raises(ValueError, match="Did you mean 'sorted'") as error:
        dispatch(*problem(generator), how="sortd")
    assert all(name in str(error.value) for name in DISPATCHERS)
