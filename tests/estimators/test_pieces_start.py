"""Starting at pieces that rows tell: which expert has which, and what else is tried."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skmoe import DeepMoERegressor, MoERegressor
from skmoe.batches import Rows
from skmoe.estimators import _blocks, _pieces
from skmoe.estimators._pieces import (
    start_at_curved_borders,
    start_block_at_pieces,
    start_layer_at_pieces,
)
from skmoe.model import Architecture, FittedModel
from skmoe.scaling import Scaling
from skmoe.structure import Blocks


@pytest.fixture
def rows():
    x = torch.rand(3000, 5, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Rows(x, torch.zeros(3000, 1), torch.ones(3000))


def layer_on_axes(n_experts, **given) -> FittedModel:
    """Untrained, on the first two of five features."""
    arguments = {"n_inputs": 5, "n_outputs": 1, "n_axes": 2, "n_experts": n_experts, **given}
    architecture = Architecture("shallow", arguments)
    net = architecture.build(torch.Generator().manual_seed(0)).eval()
    net.set_axes(torch.eye(5)[:, :2], torch.zeros(2))
    scaling = Scaling(np.zeros(5), np.ones(5))
    return FittedModel(architecture, net, scaling, Scaling(*np.eye(2)[:, :1]))


def in_quarters(rows) -> Rows:
    quarter = (rows.x[:, 0] > 0.1) + 2 * (rows.x[:, 1] > -0.2)
    return replace(rows, y=rows.x[:, :1].sin() + quarter[:, None])


@pytest.mark.parametrize(
    ("n_experts", "given", "gate", "used"),
    [
        (8, {}, "region", 8),
        (2, {}, "region", 4),
        (2, {"n_experts": 4}, "region", 4),
        (4, {"n_experts": 2}, "patch", 2),
    ],
)
def test_rows_alone_tell_where_one_layer_starts(rows, n_experts, given, gate, used):
    """Quarters that touch have other experts, whether there are enough for all or not."""
    rows = in_quarters(rows)
    model = start_layer_at_pieces(layer_on_axes(n_experts), rows, 0, 32, given)
    assert model.architecture.arguments["gate"].name == gate
    assert model.architecture.arguments["n_experts"] == used
    expert = model.net(rows.x)[1][0].routing.logits_BTE[0].argmax(1)
    quarter = (rows.y[:, 0] - rows.x[:, 0].sin()).round().long()
    shares = torch.zeros(4, used)
    shares.index_put_((quarter, expert), torch.ones(len(rows)), accumulate=True)
    owned = shares / shares.sum(1, keepdim=True)
    if gate == "patch":
        assert owned.max(1).values.min() > 0.95
        assert owned.argmax(1).tolist() in ([0, 1, 1, 0], [1, 0, 0, 1])
    else:
        assert (owned > 0.05).sum(0).max() == 1


def in_rings(x):
    """A disc, and two halves of what is around it."""
    return torch.where(x[:, :2].square().sum(1) < 0.4, 0, 1 + (x[:, 0] > 0.1))


def behind_a_wave(x):
    return (x[:, 1] > x[:, 0] ** 3 - x[:, 0] / 2).long()


def in_a_wave(x):
    """What is above and below is the same, and two pieces."""
    return ((x[:, 1] - x[:, 0] ** 3 + x[:, 0] / 2).abs() < 0.3).long()


def answers(model, rows):
    """Let each expert say what most of its rows do, for sure; share of the rows wrong then."""
    layer = model.net.layer
    layer.gate.anneal(1.0)
    with torch.no_grad():
        expert = model.net(rows.x)[1][0].routing.logits_BTE[0].argmax(1)
        values = [rows.y[expert == e].median() for e in range(layer.experts.n_experts)]
        layer.experts.set_output_map(torch.stack(values)[:, None, None])
    return wrong(model, rows)


def wrong(model, rows):
    return float((model.net.look(rows.x)[0] - rows.y).abs().gt(0.1).double().mean())


@pytest.mark.parametrize(
    ("region", "n_experts", "degree"),
    [(in_rings, 3, 2), (behind_a_wave, 2, 3), (in_a_wave, 2, 3)],
)
def test_borders_are_curved_once_experts_tell(rows, region, n_experts, degree):
    rows = replace(rows, y=region(rows.x)[:, None].float())
    given = {"n_experts": n_experts, "expert": "constant"}
    model = start_layer_at_pieces(layer_on_axes(**given), rows, 0, 32, {"n_experts": n_experts})
    before = answers(model, rows)
    start = {name: weight.clone() for name, weight in model.net.state_dict().items()}
    curved = start_at_curved_borders(model, rows)
    gate = curved.net.layer.gate
    assert gate.regions.degree == degree
    assert type(gate) is type(model.net.layer.gate)
    assert wrong(curved, rows) < min(0.03, before / 2)
    for name, weight in curved.net.state_dict().items():
        if ".gate.regions." not in name:
            assert torch.equal(weight, start[name])
        assert torch.equal(model.net.state_dict()[name], start[name])
    assert start_at_curved_borders(curved, rows) is None


def test_straight_borders_stay_straight(rows):
    rows = replace(in_quarters(rows), y=in_quarters(rows).y - rows.x[:, :1].sin())
    given = {"n_experts": 4, "expert": "constant"}
    model = start_layer_at_pieces(layer_on_axes(**given), rows, 0, 32, {"n_experts": 4})
    answers(model, rows)
    assert start_at_curved_borders(model, rows) is None


@pytest.mark.parametrize("n_experts", [1, 4])
def test_without_pieces_or_with_one_expert_rows_tell_no_start(rows, n_experts):
    smooth = replace(rows, y=rows.x[:, :1].sin())
    of_one_expert = in_quarters(rows) if n_experts == 1 else smooth
    given = {"n_experts": n_experts}
    assert start_layer_at_pieces(layer_on_axes(4), of_one_expert, 0, 32, given) is None


def test_what_the_rows_tell_is_tried_first_and_deep_gates_as_well(rows, monkeypatch):
    monkeypatch.setattr(_pieces, "start_at_curved_borders", lambda model, rows: None)
    moe = MoERegressor(random_state=0)
    model, rows = layer_on_axes(4), in_quarters(rows)
    plan = moe._plan(len(rows), model.net)
    attempts = list(moe._attempts(model, rows, rows, plan, np.random.RandomState(0)))
    gates = [attempt.model.architecture.arguments.get("gate") for attempt in attempts]
    assert [attempt.good_enough for attempt in attempts] == [0.0, float("inf")]
    assert gates[0].name == "region"
    assert attempts[1].model is model


def untrained_blocks(n_features=6) -> FittedModel:
    arguments = {"n_inputs": n_features, "n_outputs": 1, "n_layers": 8, "n_experts": 2}
    architecture = Architecture("parallel", {**arguments, "expert": "latent"})
    net = architecture.build(torch.Generator().manual_seed(0)).eval()
    scaling = Scaling(np.zeros(n_features), np.full(n_features, 2.0))
    return FittedModel(architecture, net, scaling, Scaling(*np.eye(2)[:, :1]))


@pytest.fixture
def quarter(rows):
    return (in_quarters(rows).y[:, 0] - rows.x[:, 0].sin()).round().long()


@pytest.fixture
def turned(rows):
    """Quarters of two axes, seen as six features."""
    rows = in_quarters(rows)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))[0]
    return replace(rows, x=rows.x[:, :2] @ turn[:2])


@pytest.mark.parametrize(
    ("given", "n_layers", "n_experts"),
    [({}, 1, 4), ({"n_layers": 2, "n_experts": 6}, 2, 6), ({"n_experts": 2}, 1, 2)],
)
def test_rows_tell_where_blocks_start_if_the_whole_function_is_one_factor(
    turned, quarter, given, n_layers, n_experts
):
    model = start_block_at_pieces(untrained_blocks(), turned, 0, 32, given)
    layer = model.net.blocks
    assert (layer.experts.n_blocks, layer.experts.n_experts) == (n_layers, n_experts)
    prediction, (step,) = model.net(turned.x)
    torch.testing.assert_close(prediction, step.state_BTM.mean(0))
    # Each expert has one quarter, or two that do not touch.
    allowed = [{0}, {1}, {2}, {3}] if n_experts >= 4 else [{0, 3}, {1, 2}]
    for first_T in step.routing.logits_BTE.argmax(-1):
        for expert in first_T.unique():
            shares = torch.bincount(quarter[first_T == expert], minlength=4)
            owned = set((shares > 0.05 * shares.sum()).nonzero().flatten().tolist())
            assert owned in allowed
    (directions,) = model.block_directions
    seen = 2.0 * turned.x.numpy() @ directions
    on_axes = model.net.on_axes(turned.x).detach().numpy()
    np.testing.assert_allclose(seen - seen.mean(0), on_axes - on_axes.mean(0), atol=1e-5)


def test_blocks_start_at_no_pieces_if_rows_fill_all_features_or_are_smooth(rows, turned):
    assert start_block_at_pieces(untrained_blocks(5), in_quarters(rows), 0, 32) is None
    smooth = replace(turned, y=turned.x[:, :1].sin())
    assert start_block_at_pieces(untrained_blocks(), smooth, 0, 32) is None
    assert start_block_at_pieces(untrained_blocks(), turned, 0, 32, {"n_experts": 1}) is None


@pytest.mark.parametrize(("settings", "n_tried"), [({}, 2), ({"model_dim": 16}, 1)])
def test_a_deep_mixture_without_factors_tries_what_the_rows_tell(
    turned, settings, n_tried, monkeypatch
):
    """But not where the user says what combines the blocks."""
    monkeypatch.setattr(_pieces, "start_at_curved_borders", lambda model, rows: None)
    moe = DeepMoERegressor(max_epochs=2, random_state=0, **settings)
    model = untrained_blocks()
    model.architecture.arguments.update({"top_k": None, "model_dim": 16, "embedding": None})
    plan = moe._plan(len(turned), model.net)
    attempts = list(moe._attempts(model, turned, turned, plan, np.random.RandomState(0)))
    assert len(attempts) == n_tried
    assert attempts[-1].model is model
    if n_tried == 2:
        assert attempts[0].model.architecture.arguments["gate"].name == "region"
        assert attempts[0].good_enough < 1


def test_factors_that_do_not_help_leave_what_the_rows_tell(turned, monkeypatch):
    """On a torus gradients may look as if its two angles were blocks."""
    blocks = Blocks(np.eye(6)[:, :2], np.zeros(2), [[0], [1]], np.eye(2))
    monkeypatch.setattr(_blocks, "find_blocks", lambda *_: blocks)
    monkeypatch.setattr(_blocks, "brief_fit", lambda *_: 1.0)
    monkeypatch.setattr(_pieces, "start_at_curved_borders", lambda model, rows: None)
    model = untrained_blocks()
    model.architecture.arguments.update({"model_dim": 16, "embedding": None})
    plan = DeepMoERegressor(max_epochs=2)._plan(len(turned), model.net)
    attempts = _blocks.attempts_at_blocks(model, turned, turned, plan, 0, {}, regions=True)
    told, usual = attempts
    assert told.model.architecture.arguments["gate"].name == "region"
    assert usual.model is model
