"""Borders that are in the wrong place are put where rows say, and nothing else changes."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from skmoe._registry import part
from skmoe.batches import Rows
from skmoe.estimators import _border_regression, _borders
from skmoe.estimators._borders import (
    HeldBorders,
    borders_at_last,
    loss_away_from_borders,
    place_borders,
    placing_borders,
)
from skmoe.estimators._settling import settling
from skmoe.nn.losses import SquaredError
from skmoe.nn.networks import MoENetwork, ParallelMoENetwork
from skmoe.plan import TrainingPlan
from skmoe.region_borders import typical_difference
from skmoe.training import train

CENTERS = torch.tensor([[-0.5, -0.5], [0.6, -0.4], [-0.3, 0.6], [0.5, 0.5]])
DISPLACED = CENTERS + torch.tensor([[0.1, 0.0], [0.0, 0.15], [-0.1, 0.1], [0.1, 0.0]])
ANSWERS = torch.tensor([0.0, 1.0, -1.0, 2.0])


def network_of(centers, region_ids=None, sharpness=2000.0, answers=ANSWERS) -> MoENetwork:
    """A cell for each centre, with the answer of the nearest one."""
    n_experts = len(centers)
    net = MoENetwork(2, 1, n_experts=n_experts, gate="region", expert="constant")
    ids = torch.arange(n_experts) if region_ids is None else region_ids
    borders = 2 * centers[None], -centers.square().sum(1)[None]
    cells = torch.zeros(1, n_experts, 2), torch.zeros(1, n_experts)
    with torch.no_grad():
        net.layer.gate.set_regions(ids[None], borders, cells)
        net.layer.gate.log_temperature.fill_(-np.log(sharpness))
        net.layer.experts.set_output_map(answers[ids][:, None, None])
    return net


@pytest.fixture
def rows():
    x = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    nearest = torch.cdist(x, CENTERS).argmin(1)
    return Rows(x, ANSWERS[nearest][:, None], torch.ones(4000))


@pytest.fixture
def displaced():
    return network_of(DISPLACED)


def wrong(net, rows) -> float:
    return float(((net.look(rows.x)[0] - rows.y).abs() > 0.1).double().mean())


def squared_error(net, rows) -> float:
    return float((net.look(rows.x)[0] - rows.y).square().mean())


def place(net, rows):
    """As often as in a fit: where three regions meet, one step is not enough."""
    for _ in _borders.LOOKS:
        place_borders(net, rows)


def borders_of(net) -> tuple[torch.Tensor, torch.Tensor]:
    return net.layer.gate.regions.weight.clone(), net.layer.gate.regions.bias.clone()


def test_borders_get_where_rows_are_predicted_better(displaced, rows):
    slopes = displaced.layer.gate.regions.weight[0].detach().double().T.numpy()
    assert wrong(displaced, rows) > 0.05
    place(displaced, rows)
    assert wrong(displaced, rows) < 0.002
    new = displaced.layer.gate.regions.weight[0].detach().double().T.numpy()
    assert typical_difference(new) == pytest.approx(typical_difference(slopes), rel=1e-5)


def test_borders_may_be_curved(rows):
    """A disc in front of two halves: straight borders cannot be in their places."""
    far = rows.x.square().sum(1) > 0.4
    region = torch.where(far, 1 + (rows.x[:, 0] > 0.1), 0)
    rows = replace(rows, y=ANSWERS[region][:, None])
    left = {}
    for degree in (1, 2):
        gate = part("region", degree=degree)
        net = MoENetwork(2, 1, n_experts=3, gate=gate, expert="constant")
        maps = net.layer.gate.regions
        slopes, offsets = torch.zeros(1, 3, maps.weight.shape[1]), torch.zeros(1, 3)
        slopes[0, :, 0] = torch.tensor([0.0, -2.0, 2.0])
        offsets[0, 0] = 1.0
        cells = torch.zeros(1, 3, 2), torch.zeros(1, 3)
        with torch.no_grad():
            net.layer.gate.set_regions(torch.arange(3)[None], (slopes, offsets), cells)
            net.layer.gate.log_temperature.fill_(-np.log(2000.0))
            net.layer.experts.set_output_map(ANSWERS[:3][:, None, None])
        before = wrong(net, rows)
        place(net, rows)
        left[degree] = wrong(net, rows)
        assert left[degree] < before
    assert left[2] < 0.005
    assert left[1] > 0.1


def test_only_the_borders_change(displaced, rows):
    before = copy.deepcopy(displaced.state_dict())
    assert displaced.training
    place_borders(displaced, rows)
    assert displaced.training
    for name, weight in displaced.state_dict().items():
        assert torch.equal(weight, before[name]) is not name.startswith("layer.gate.regions.")


def test_rows_without_weight_do_not_count(displaced, rows):
    flipped = torch.arange(4000) % 3 == 0
    y = torch.where(flipped[:, None], 2 - rows.y, rows.y)
    place(displaced, Rows(rows.x, y, (~flipped).float() * 1.5))
    assert wrong(displaced, rows) < 0.003


def test_few_rows_near_to_borders_are_enough(displaced, rows, monkeypatch):
    monkeypatch.setattr(_border_regression, "MAX_ROWS", 1500)
    place(displaced, rows)
    assert wrong(displaced, rows) < 0.01


def test_one_border_is_left_to_descent(rows):
    net = network_of(CENTERS[:2])
    before = borders_of(net)
    place_borders(net, rows)
    assert all(map(torch.equal, borders_of(net), before))


def test_a_region_without_rows_does_not_keep_other_borders_from_their_places(rows):
    centers = torch.cat([DISPLACED, torch.tensor([[0.0, 0.1]])])
    net = network_of(centers, answers=torch.cat([ANSWERS, torch.tensor([9.0])]))
    assert wrong(net, rows) > 0.05
    place(net, rows)
    assert wrong(net, rows) < 0.002
    assert net.look(rows.x)[1][0].routing.dense_weights()[0, :, 4].max() == 0


def test_where_two_regions_have_rows_borders_stay(displaced, rows):
    left = rows.x[:, 0] < -0.7
    before = borders_of(displaced)
    place_borders(displaced, Rows(rows.x[left], rows.y[left], rows.weight[left]))
    assert all(map(torch.equal, borders_of(displaced), before))


def test_errors_by_region_are_those_of_a_gate_that_has_only_this_region(rows):
    """Three regions, the first of which two experts share."""
    ids = torch.tensor([0, 1, 2, 0])
    net = network_of(CENTERS, ids, sharpness=10.0)
    gate = net.layer.gate
    with torch.no_grad():
        gate.cells.weight.normal_(generator=torch.Generator().manual_seed(1))
        net.layer.experts.set_output_map(ANSWERS[:, None, None])
    errors_TR = _borders._errors_by_region(net, rows.x, rows.y).detach()
    for region in range(3):
        with torch.no_grad():
            gate.regions.bias[0, 0] = -100.0
            gate.regions.bias[0, 0, region] = 100.0
            expected_T = (net(rows.x)[0] - rows.y).square()[:, 0]
        torch.testing.assert_close(errors_TR[:, region], expected_T, rtol=1e-3, atol=1e-4)


def test_borders_of_patches_are_placed_as_well(rows):
    """The third expert has two of five patches, which do not touch."""
    ids = torch.tensor([0, 1, 2, 3, 2])
    centers = torch.cat([CENTERS, torch.tensor([[0.1, -0.9]])])
    nearest = torch.cdist(rows.x, centers).argmin(1)
    rows = replace(rows, y=ANSWERS[ids][nearest][:, None])
    net = MoENetwork(2, 1, n_experts=4, gate=part("patch", n_regions=5), expert="constant")
    moved = centers + 0.1 * torch.tensor([[1, 0], [0, 1], [-1, 1], [1, 0], [0, 1]])
    borders = 2 * moved[None], -moved.square().sum(1)[None]
    with torch.no_grad():
        net.layer.gate.set_regions(ids[None], borders)
        net.layer.gate.log_temperature.fill_(-np.log(2000.0))
        net.layer.experts.set_output_map(ANSWERS[:, None, None])
    assert wrong(net, rows) > 0.05
    place(net, rows)
    assert wrong(net, rows) < 0.005


@pytest.fixture
def placed(monkeypatch):
    """A list to which each placing of borders adds."""
    placed = []
    monkeypatch.setattr(_borders, "place_borders", lambda *given, **how: placed.append(how))
    return placed


def epochs_with_placing(hook_after, net, placed, in_all) -> list[int]:
    """Epochs, of which so many were done before, in which a hook of an epoch places borders."""
    called, found = [], []
    hook = hook_after(lambda net, done, in_all: called.append(done))
    for done in range(in_all):
        before = len(placed)
        hook(net, done, in_all)
        found += [done] * (len(placed) - before)
    assert called == list(range(in_all))
    return found


def test_borders_are_placed_a_few_times_in_a_fit(displaced, rows, placed):
    found = epochs_with_placing(partial(placing_borders, rows), displaced, placed, 20)
    assert found == [10, 15, 18]


def test_borders_are_placed_after_the_last_epochs(displaced, rows, placed):
    hook_after = partial(borders_at_last, rows)
    assert epochs_with_placing(hook_after, displaced, placed, 200) == [197, 198, 199]
    assert epochs_with_placing(hook_after, displaced, placed, 10) == [9]  # the last of few
    borders_at_last(rows)(displaced, 9, 10)
    assert len(placed) == 5


def test_borders_are_placed_again_at_last(displaced, rows):
    after_epoch = borders_at_last(rows)
    displaced_at_first = wrong(displaced, rows)
    after_epoch(displaced, 97, 100)
    assert wrong(displaced, rows) == displaced_at_first
    after_epoch(displaced, 98, 100)
    assert wrong(displaced, rows) < displaced_at_first / 4


def within_reach(net, x) -> int:
    """Rows that hear of more than one expert."""
    weights_TE = net.look(x)[1][0].routing.dense_weights()[0]
    return int((weights_TE.amax(1) < 1 / (1 + np.exp(-_borders.REACH))).sum())


@pytest.mark.parametrize("sharpness", [30.0, 100.0])
def test_borders_are_sharp_at_last(rows, sharpness):
    net = network_of(CENTERS, sharpness=sharpness)
    before, blurred = borders_of(net), squared_error(net, rows)
    assert within_reach(net, rows.x) > 50
    borders_at_last(rows)(net, 99, 100)
    # One row is at the edge; beyond two regions, a third one may be within reach.
    assert within_reach(net, rows.x) == pytest.approx(4 * _borders.ROWS_WITHIN_REACH, abs=3)
    assert squared_error(net, rows) < 0.6 * blurred
    assert all(map(torch.equal, borders_of(net), before))


def test_borders_that_experts_move_are_sharp_as_well(rows):
    """Logits of experts beside scores of regions count for more as gates are softer."""
    net, plain = network_of(CENTERS, sharpness=100.0), network_of(CENTERS, sharpness=100.0)
    with torch.no_grad():
        net.layer.gate.cells.bias.copy_(torch.tensor([[[8.0, -8.0, 0.0, 4.0]]]))
    n_within_reach = 4 * _borders.ROWS_WITHIN_REACH
    assert wrong(net, rows) > 4 * n_within_reach / len(rows)
    for each in (net, plain):
        _borders.sharpen_borders(each, rows)
    assert 0 < wrong(net, rows) <= n_within_reach / len(rows)
    assert net.layer.gate.log_temperature < plain.layer.gate.log_temperature


def test_sharp_borders_stay_as_they_are(rows):
    net = network_of(CENTERS, sharpness=1e5)
    before = copy.deepcopy(net.state_dict())
    _borders.sharpen_borders(net, rows)
    assert all(map(torch.equal, net.state_dict().values(), before.values()))


@pytest.mark.parametrize("few", [4 * _borders.ROWS_WITHIN_REACH - 1, 0])
def test_few_rows_do_not_tell_how_sharp_borders_are(rows, few):
    """Nor do rows without weight."""
    net = network_of(CENTERS, sharpness=30.0)
    weight = (torch.arange(len(rows)) < few).float()
    _borders.sharpen_borders(net, replace(rows, weight=weight))
    assert net.layer.gate.log_temperature.exp() == pytest.approx(1 / 30)
    if few:
        weight[few] = 1.0  # one row more
        beside = Rows(CENTERS[:2].mean(0).expand_as(rows.x), rows.y, weight)
        _borders.sharpen_borders(net, beside)
        assert net.layer.gate.log_temperature.exp() < 1 / 31


def test_rows_at_one_place_do_not_make_borders_too_sharp(rows):
    net = network_of(CENTERS, sharpness=30.0)
    between = CENTERS[:2].mean(0).expand(1000, -1)
    _borders.sharpen_borders(net, Rows(between, rows.y[:1000], rows.weight[:1000]))
    assert net.layer.gate.log_temperature.exp() == pytest.approx(1 / 3000)


def test_borders_that_are_right_stay_at_last(rows):
    net = network_of(CENTERS)
    before = borders_of(net)
    borders_at_last(rows)(net, 99, 100)
    assert all(map(torch.equal, borders_of(net), before))
    place_borders(net, rows)
    assert not all(map(torch.equal, borders_of(net), before))


def as_parallel(net) -> ParallelMoENetwork:
    """One block, whose answer is half of the prediction."""
    block = {"block_outputs": 1, "model_dim": 1, "n_dense": 0, "trunk": False}
    parts = {"n_experts": net.layer.experts.n_experts, "gate": "region", "expert": "constant"}
    other = ParallelMoENetwork(2, 1, n_layers=1, **block, **parts)
    other.blocks.load_state_dict(net.layer.state_dict())
    other.answer_by_mean()
    with torch.no_grad():
        other.head.weight.mul_(2)
    return other


def test_borders_of_a_block_are_placed_by_what_the_network_predicts(displaced, rows):
    block = as_parallel(displaced)
    for net, seen in ((displaced, rows), (block, replace(rows, y=2 * rows.y))):
        place_borders(net, seen)
    for found, expected in zip(
        block.blocks.gate.regions.parameters(), borders_of(displaced), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("as_block", [False, True])
def test_away_from_borders_nothing_is_wrong_if_these_are_nearly_right(rows, as_block):
    for centers, lost in ((CENTERS + 0.02 * (DISPLACED - CENTERS), 0.0), (DISPLACED, 0.7)):
        net = network_of(centers, sharpness=1e5)
        assert wrong(net, rows) > 0
        seen = replace(rows, y=2 * rows.y) if as_block else rows
        net = as_parallel(net) if as_block else net
        away = loss_away_from_borders(net, seen, SquaredError())
        assert away >= lost * squared_error(net, seen)
        assert (away == 0) is (lost == 0)


def test_of_few_rows_all_are_beside_a_border(rows):
    few = Rows(rows.x[:20], rows.y[:20], rows.weight[:20])
    assert np.isnan(loss_away_from_borders(network_of(CENTERS), few, SquaredError()))


@pytest.mark.parametrize(("done", "stay"), [(0, True), (4, True), (5, False)])
def test_borders_are_held_at_first(displaced, done, stay):
    held = HeldBorders(lambda net, done, in_all: None)
    before = borders_of(displaced)
    held.before_epoch(displaced, done, 20)
    with torch.no_grad():
        for weight in displaced.parameters():
            weight += 0.1
    held.after_epoch(displaced, done, 20)
    assert all(map(torch.equal, borders_of(displaced), before)) is stay
    assert displaced.layer.experts.output_map().sum() == pytest.approx(2.4)


def test_a_fit_at_told_borders_does_not_move_them_at_first(rows):
    """Constants are learned meanwhile, from wrong ones."""
    net = network_of(CENTERS)
    with torch.no_grad():
        net.layer.experts.set_output_map(torch.zeros(4, 1, 1))
    before = borders_of(net)
    plan = TrainingPlan(SquaredError(), 1e-1, 0.0, 500, max_epochs=20)
    plan = settling(plan, rows, 1.0, resistant=True, told=True)
    seen = []

    def after_epoch(net, done, in_all):
        plan.after_epoch(net, done, in_all)
        seen.append(all(map(torch.equal, borders_of(net), before)))

    train(net, rows, None, replace(plan, after_epoch=after_epoch), torch.Generator())
    assert seen[:6] == [True] * 5 + [False]
    assert wrong(net, rows) < 0.01
