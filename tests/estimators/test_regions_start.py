"""Starting at regions: what is read off a rough fit, and what the new start takes over."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skmoe import DeepMoERegressor, part
from skmoe.batches import Rows
from skmoe.estimators import _blocks, _regions
from skmoe.estimators._combinations import product_of_factors, sum_of_factors
from skmoe.estimators._regions import start_at_regions, start_layer_at_regions
from skmoe.model import Architecture, FittedModel
from skmoe.scaling import Scaling
from skmoe.structure import Blocks

N_FACTORS, N_EXPERTS = 2, 4


def rough_model(sharpness: float) -> FittedModel:
    """Four blocks on two factors of two axes, whose gates jump at ``z_0 = 0.2``."""
    arguments = {
        "n_inputs": 5,
        "n_outputs": 1,
        "n_layers": 2 * N_FACTORS,
        "n_experts": N_EXPERTS,
        "model_dim": 8,
        "n_dense": 1,
        "block_outputs": 2,
        "trunk": False,
        "n_axes": 4,
        "gate": "linear",
        "expert": part("latent", latent_dim=2),
        "hidden_dim": 6,
    }
    architecture = Architecture("parallel", arguments)
    net = architecture.build(torch.Generator().manual_seed(0))
    axes = torch.eye(5)[:, :4]
    net.set_axes(axes, torch.zeros(4))
    factors = torch.eye(4).unflatten(1, (N_FACTORS, 2)).transpose(0, 1)
    net.blocks.experts.place_encoder(factors.repeat(2, 1, 1))
    with torch.no_grad():
        for gate in net.gates():
            gate.linear.weight.zero_()
            gate.linear.bias.zero_()
            gate.linear.weight[:, 0, : N_EXPERTS // 2] = sharpness
            gate.linear.bias[:, 0, : N_EXPERTS // 2] = -0.2 * sharpness
    scaling = Scaling(np.zeros(5), np.ones(5))
    directions = [axes[:, :2].numpy(), axes[:, 2:].numpy()]
    return FittedModel(
        architecture, net.eval(), scaling, Scaling(*np.eye(2)[:, :1]), directions
    )


@pytest.fixture
def rows():
    x = torch.rand(3000, 5, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Rows(x, torch.zeros(3000, 1), torch.ones(3000))


def test_factors_have_the_gradients_of_their_values(rows):
    model = rough_model(sharpness=1.0)
    step = torch.tensor([1e-4, -2e-4, 3e-4, 1e-4, 0.0])
    before = list(_regions._factors(model.net, rows.x, N_FACTORS))
    after = list(_regions._factors(model.net, rows.x + step, N_FACTORS))
    for (z, values, slopes), (z_after, values_after, _) in zip(before, after, strict=True):
        assert z.shape == (3000, 2)
        # Values are in a basis that moves with the rows: lengths of differences do not.
        told = np.einsum("nqd,nd->nq", slopes, z_after - z)
        found = np.abs(values_after) - np.abs(values)
        np.testing.assert_allclose(found, np.sign(values) * told, atol=2e-6)


def test_values_are_in_units_of_the_effect_on_the_prediction(rows):
    """Their squared length, summed over a change of answers, is its mean squared effect."""
    model = rough_model(sharpness=1.0)
    net = model.net.double()
    x = rows.x.double()
    g_BTO, _ = net.blocks(net.seen_by_blocks(x))
    g_BTO = g_BTO.detach().requires_grad_(True)
    y = net.head(net.state_after(g_BTO, x))
    (effect,) = torch.autograd.grad(y.sum(), g_BTO)
    for factor, (_, values, _) in enumerate(_regions._factors(net, rows.x, N_FACTORS)):
        answers = g_BTO[factor::N_FACTORS].transpose(0, 1).flatten(1)
        linear = answers.detach() @ effect[factor::N_FACTORS].transpose(0, 1).flatten(1).T
        expected = linear.square().mean(1).numpy()
        np.testing.assert_allclose((values**2).sum(1), expected, rtol=1e-3)


def test_gates_start_at_the_borders(rows):
    model = start_at_regions(rough_model(sharpness=300.0), rows, seed=0)
    scores = model.net.blocks.gate(
        model.net.blocks.experts.encode(model.net.seen_by_blocks(rows.x))[0]
    )
    for block, scores_TE in enumerate(scores):
        right = rows.x[:, 2 * (block % N_FACTORS)].numpy() > 0.2
        expert = scores_TE.argmax(1).numpy()
        share = np.array([right[expert == e].mean() for e in range(N_EXPERTS)])
        owners = share > 0.5
        assert 0 < owners.sum() < N_EXPERTS
        assert np.mean(owners[expert] == right) > 0.97


@pytest.mark.parametrize(
    ("n_experts", "given", "found"), [(4, {}, 4), (1, {}, 2), (1, {"n_experts": 1}, 0)]
)
def test_one_layer_starts_at_the_borders_on_its_axes(rows, n_experts, given, found):
    """The function jumps where a step of the gate is, or of a single expert."""
    arguments = {
        "n_inputs": 5,
        "n_outputs": 1,
        "n_axes": 2,
        "n_experts": n_experts,
        "gate": "linear",
        "expert": part("mlp", activation="tanh"),
        "hidden_dim": 1,
    }
    architecture = Architecture("shallow", arguments)
    net = architecture.build(torch.Generator().manual_seed(0)).eval()
    net.set_axes(torch.eye(5)[:, :2], torch.zeros(2))
    with torch.no_grad():
        net.layer.experts.hidden.weight[:] = torch.tensor([[300.0], [0.0]])
        net.layer.experts.hidden.bias[:] = -0.2 * 300
        net.layer.experts.output.weight[:] = 1.0
    scaling = Scaling(np.zeros(5), np.ones(5))
    rough = FittedModel(architecture, net, scaling, Scaling(*np.eye(2)[:, :1]))
    model = start_layer_at_regions(rough, rows, 0, 8, given)
    if not found:
        assert model is None
        return
    expert = model.net(rows.x)[1][0].routing.logits_BTE[0].argmax(1).numpy()
    right = rows.x[:, 0].numpy() > 0.2
    owners = np.array([right[expert == e].mean() for e in range(found)]) > 0.5
    assert 0 < owners.sum() < found == model.net.layer.experts.n_experts
    assert np.mean(owners[expert] == right) > 0.97


def test_a_smooth_function_gives_no_start(rows):
    assert start_at_regions(rough_model(sharpness=0.1), rows, seed=0) is None


def test_low_jumps_alone_give_no_start(rows, monkeypatch):
    """Cuts at 8 find regions here, and all that differs is that cuts at 30 find none."""
    find, model = _regions.find_regions, rough_model(sharpness=300.0)
    assert start_at_regions(model, rows, seed=0) is not None

    def only_low(*view):
        return None if view[-1] == _regions.CLEAR_CUT_FACTOR else find(*view)

    monkeypatch.setattr(_regions, "find_regions", only_low)
    assert start_at_regions(model, rows, seed=0) is None


@pytest.mark.parametrize("given", [{"n_layers": 2 * N_FACTORS}, {}])
def test_encoders_and_head_are_taken_over_and_nothing_else(rows, given):
    """There is one block for each factor, unless their number was given."""
    rough = rough_model(sharpness=300.0)
    model = start_at_regions(rough, rows, seed=1, given=given)
    old, new = rough.net.state_dict(), model.net.state_dict()
    n_blocks = 2 * N_FACTORS if given else N_FACTORS
    for name in ("axes.weight", "head.bias"):
        assert torch.equal(old[name], new[name])
    encoder = "blocks.experts.encoder.weight"
    assert torch.equal(old[encoder][:n_blocks], new[encoder])
    assert torch.equal(old["mix.weight"][:, : 2 * n_blocks], new["mix.weight"])
    hidden = "blocks.experts.hidden.weight"
    assert not torch.equal(old[hidden][: len(new[hidden])], new[hidden])


def test_a_sum_is_one(rows):
    """What one factor adds does not depend on the other one."""
    model = start_at_regions(rough_model(sharpness=300.0), rows, seed=0)
    y = over_a_grid(sum_of_factors(model, seed=0).net, rows)
    np.testing.assert_allclose(y[1:] - y[:1], (y[1:] - y[:1])[:, :1].expand(-1, 40), atol=1e-9)


def over_a_grid(network, rows):
    """Predictions for 50 rows of the first factor times 40 of the second."""
    first, second = rows.x[:50, :2].double(), rows.x[50:90, 2:].double()
    grid = torch.cat([first[:, None].expand(-1, 40, -1), second.expand(50, -1, -1)], -1)
    return network.double()(grid.flatten(0, 1))[0].detach().view(50, 40)


@pytest.mark.parametrize(("weight", "bias"), [(1.3, -0.4), (-0.6, 2.0)])
def test_the_main_effects_of_a_product_give_the_product(rows, weight, bias):
    model = start_at_regions(rough_model(sharpness=300.0), rows, seed=0)
    net = sum_of_factors(model, seed=0).net
    with torch.no_grad():
        net.mix.weight.mul_(4.0)  # effects of some size
        g_BTO, _ = net.blocks(net.seen_by_blocks(rows.x))
        terms_BT = net.terms(g_BTO)[..., 0]
        factors = torch.stack([terms_BT[factor::N_FACTORS].sum(0) for factor in (0, 1)])
        factors = 1 + factors - factors.mean(1, keepdim=True)
        y = bias + weight * factors.prod(0)[:, None]
    summed = replace(model, net=net, architecture=sum_of_factors(model, 0).architecture)
    product = product_of_factors(summed, Rows(rows.x, y, rows.weight), seed=0)
    found = product.net(rows.x)[0]
    assert float((found - y).detach().abs().max()) < 0.05 * float(y.std())
    grid = over_a_grid(product.net, rows) - product.net.head.bias.detach()
    singular_values = torch.linalg.svdvals(grid)
    assert singular_values[1] < 1e-9 * singular_values[0]


def test_a_sum_is_no_product(rows):
    model = start_at_regions(rough_model(sharpness=300.0), rows, seed=0)
    summed = sum_of_factors(model, seed=0)
    y = summed.net(rows.x)[0].detach()
    assert product_of_factors(summed, Rows(rows.x, y, rows.weight), seed=0) is None


@pytest.mark.parametrize(
    ("changes", "with_validation", "without"),
    [
        ({}, True, False),
        ({"init": "regions"}, True, True),
        ({"init": "blocks"}, False, False),
        ({"gate": "mlp"}, False, False),
        ({"router": "normalized_sigmoid"}, False, False),
    ],
)
def test_regions_are_looked_for_where_gates_are_ours_to_choose(
    rows, changes, with_validation, without
):
    moe = DeepMoERegressor(**changes)
    assert moe._may_have_regions(rows) == with_validation
    assert moe._may_have_regions(None) == without


@pytest.mark.parametrize(("n_experts", "briefly"), [(4, 4), (16, 8)])
def test_brief_fits_ask_all_of_few_experts(rows, monkeypatch, n_experts, briefly):
    """What is trained in the end has and asks as many as the user said."""
    in_brief = []

    def sizes(candidate):
        arguments = candidate.architecture.arguments
        return arguments["n_experts"], arguments["top_k"]

    def brief_fit(candidate, *_):
        in_brief.append(sizes(candidate))
        return 1.0

    blocks = Blocks(np.eye(5)[:, :4], np.zeros(4), [[0, 1], [2, 3]], np.eye(4))
    monkeypatch.setattr(_blocks, "brief_fit", brief_fit)
    monkeypatch.setattr(_blocks, "find_blocks", lambda *_: blocks)
    rough = rough_model(sharpness=300.0)
    model = rough.rebuilt({"n_experts": n_experts, "top_k": 1, "n_axes": None}, seed=0)
    given = {"top_k": 1}
    attempts = _blocks.attempts_at_blocks(model, rows, rows, None, 0, given, regions=False)
    assert [sizes(attempt.model) for attempt in attempts] == [(n_experts, 1)]
    # The scout, the blocks, and what the user asked for.
    assert in_brief == [(briefly, None), (briefly, None), (n_experts, 1)]


@pytest.mark.parametrize(
    ("given", "n_experts"), [({}, _blocks.EXPERTS_AT_REGIONS), ({"n_experts": 6}, 6)]
)
def test_blocks_have_many_experts_at_regions_unless_told(rows, monkeypatch, given, n_experts):
    """As two of them answer; where no regions are found the number is the usual one."""
    seen, losses = [], iter([1.0, 0.1])  # of the scout, and of its blocks at the factors
    blocks = Blocks(np.eye(5)[:, :4], np.zeros(4), [[0, 1], [2, 3]], np.eye(4))
    monkeypatch.setattr(_blocks, "brief_fit", lambda *_: next(losses))
    monkeypatch.setattr(_blocks, "find_blocks", lambda *_: blocks)
    monkeypatch.setattr(_blocks, "start_at_regions", lambda *args: seen.append(args[-1]))
    model = rough_model(sharpness=300.0).rebuilt({"n_experts": 5, "n_axes": None}, seed=0)
    attempts = _blocks.attempts_at_blocks(model, rows, rows, None, 0, given, regions=True)
    (attempt,) = attempts
    assert seen == [{"n_experts": n_experts}]
    assert attempt.model.net.blocks.experts.n_experts == 5


def test_a_start_has_as_many_experts_as_were_asked_for(rows):
    """The rough fit has fewer."""
    given = {"n_experts": 3 * N_EXPERTS}
    model = start_at_regions(rough_model(sharpness=300.0), rows, seed=0, given=given)
    assert model.net.blocks.experts.n_experts == 3 * N_EXPERTS


@pytest.mark.parametrize(
    ("given", "asked"), [({}, 2), ({"top_k": None}, None), ({"top_k": 1}, 1)]
)
def test_at_regions_two_experts_are_asked_unless_it_was_said(rows, given, asked):
    model = start_at_regions(rough_model(sharpness=300.0), rows, seed=0, given=given)
    assert model.architecture.arguments["top_k"] == asked
