"""Borders of several blocks are put where all of them together predict rows."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from skmoe._registry import part
from skmoe.batches import Rows
from skmoe.estimators import _block_borders
from skmoe.estimators._block_borders import _Sides, place_borders_of_blocks, turn_encoders
from skmoe.estimators._borders import LOOKS, borders_at_last, placing_borders, settle_blocks
from skmoe.nn.networks import ParallelMoENetwork

CENTERS = torch.tensor([[-0.5, -0.5], [0.6, -0.4], [-0.3, 0.6], [0.5, 0.5]])
MOVES = 0.07 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [1.0, 0.0]])
ANSWERS = torch.tensor([[0.5, 1.0, -1.0, 2.0], [-0.5, 1.5, 0.6, -2.0]])


def network_of(centers, how: str, n_regions: int = 4) -> ParallelMoENetwork:
    """Block b sees coordinates 2 b and 2 b + 1, and answers as the nearest centre does."""
    head = {"block_outputs": 1, "model_dim": 1, "n_dense": 0, "trunk": False}
    sizes = {"n_layers": 2, "n_experts": 4, "n_factors": 2 if how == "product" else None}
    net = ParallelMoENetwork(4, 1, **head, **sizes, gate="region", expert="constant")
    slopes = torch.zeros(2, 4, 4)
    for block in range(2):
        slopes[block, :, 2 * block : 2 * block + 2] = 2 * centers
    borders = slopes, -centers.square().sum(1).expand(2, -1)
    ids = torch.arange(4).expand(2, -1).clone()
    ids[1] %= n_regions
    with torch.no_grad():
        net.blocks.gate.set_regions(ids, borders, (torch.zeros(2, 4, 4), torch.zeros(2, 4)))
        net.blocks.gate.log_temperature.fill_(-np.log(2e4))
        net.blocks.experts.set_output_map(ANSWERS.reshape(8, 1, 1))
        net.answer_by_mean()
        net.head.weight.mul_(2)
    return net


@pytest.fixture(params=["sum", "product"])
def how(request):
    return request.param


@pytest.fixture
def rows(how):
    x = torch.rand(8000, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        y = network_of(CENTERS, how)(x)[0]
    little = 0.01 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return Rows(x, y + little, torch.ones(len(x)))


@pytest.fixture
def displaced(how):
    return network_of(CENTERS + MOVES, how)


def wrong(net, rows) -> float:
    return float(((net.look(rows.x)[0] - rows.y).abs() > 0.1).double().mean())


def place(net, rows):
    """As often as in a fit: where several borders meet, one step is not enough."""
    for _ in LOOKS:
        place_borders_of_blocks(net, rows)


def borders_of(net) -> list[torch.Tensor]:
    return [border.detach().clone() for border in net.blocks.gate.regions.parameters()]


def test_borders_of_all_blocks_get_where_they_belong(displaced, rows):
    assert wrong(displaced, rows) > 0.05
    place(displaced, rows)
    assert wrong(displaced, rows) < 0.005


def test_noise_does_not_keep_borders_from_their_places(displaced, rows):
    noise = torch.randn(8000, 1, generator=torch.Generator().manual_seed(2))
    noisy = replace(rows, y=rows.y + 0.1 * noise)
    place(displaced, noisy)
    assert wrong(displaced, rows) < 0.01


def test_only_borders_change_and_right_ones_stay(displaced, rows, how):
    before = copy.deepcopy(displaced.state_dict())
    place_borders_of_blocks(displaced, rows)
    for name, weight in displaced.state_dict().items():
        assert torch.equal(weight, before[name]) is not name.startswith("blocks.gate.regions.")
    right = network_of(CENTERS, how)
    before = borders_of(right)
    place_borders_of_blocks(right, rows)
    assert all(map(torch.equal, borders_of(right), before))


def test_rows_without_weight_have_no_say(displaced, rows):
    flipped = torch.arange(8000) % 3 != 0
    y = torch.where(flipped[:, None], 1 - rows.y, rows.y)
    weighted = replace(rows, y=y, weight=(~flipped).float())
    place(displaced, weighted)
    assert wrong(displaced, rows) < 0.01


@pytest.mark.parametrize("n_regions", [1, 2])
def test_a_block_of_few_regions_stays_as_it_is(how, rows, n_regions):
    net, truth = (network_of(c, how, n_regions) for c in (CENTERS + MOVES, CENTERS))
    with torch.no_grad():
        rows = replace(rows, y=truth(rows.x)[0])
    before, wrong_at_first = borders_of(net), wrong(net, rows)
    place_borders_of_blocks(net, rows)
    for new, old in zip(borders_of(net), before, strict=True):
        assert torch.equal(new[1], old[1])
        assert not torch.equal(new[0], old[0])
    assert wrong(net, rows) < wrong_at_first


def test_a_fit_places_borders_of_blocks(displaced, rows):
    before_epoch = placing_borders(rows, lambda net, done, in_all: None)
    before = wrong(displaced, rows)
    before_epoch(displaced, 9, 20)
    assert wrong(displaced, rows) == before
    before_epoch(displaced, 10, 20)
    assert wrong(displaced, rows) < before / 2


def test_chunks_do_not_matter(displaced, rows, monkeypatch):
    other = copy.deepcopy(displaced)
    place_borders_of_blocks(displaced, rows)
    monkeypatch.setattr(_block_borders, "CHUNK", 100)
    place_borders_of_blocks(other, rows)
    for new, expected in zip(borders_of(other), borders_of(displaced), strict=True):
        torch.testing.assert_close(new, expected)


def encoded(net, off: float, seed: int = 0) -> ParallelMoENetwork:
    """The same function by blocks that see two dimensions each, their encoders a little off."""
    expert = part("latent", latent_dim=2, depth=0)
    sizes = {"n_layers": 2, "n_experts": 4, "n_factors": 2 if net.n_factors else None}
    head = {"block_outputs": 1, "model_dim": 1, "n_dense": 0, "trunk": False}
    seen = ParallelMoENetwork(4, 1, **head, **sizes, gate="region", expert=expert)
    own, experts = seen.blocks, seen.blocks.experts
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in experts.parameters():
            weight.zero_()
        experts.encoder.weight.copy_(torch.eye(4).view(4, 2, 2).transpose(0, 1))
        experts.encoder.weight += off * torch.randn(2, 4, 2, generator=generator)
        experts.output.bias.copy_(ANSWERS.view(8, 1, 1))
        weight = net.blocks.gate.regions.weight
        slopes = torch.stack([weight[0, :2], weight[1, 2:]]).mT
        ids = net.blocks.gate.region_ids_BE
        borders = slopes, net.blocks.gate.regions.bias[:, 0]
        own.gate.set_regions(ids, borders, (torch.zeros(2, 4, 2), torch.zeros(2, 4)))
        own.gate.log_temperature.copy_(net.blocks.gate.log_temperature)
    seen.mix.load_state_dict(net.mix.state_dict())
    seen.head.load_state_dict(net.head.state_dict())
    return seen


def off_the_plane(net) -> float:
    """The largest share of what a block sees that is not its own two coordinates."""
    weight_BDR = net.blocks.experts.encoder.weight.detach()
    foreign = torch.stack([weight_BDR[0, 2:], weight_BDR[1, :2]])
    return float((foreign.norm(dim=(1, 2)) / weight_BDR.norm(dim=(1, 2))).max())


def test_encoders_turn_to_the_normals_of_borders(how, rows):
    net = encoded(network_of(CENTERS, how), 0.01)
    before = copy.deepcopy(net.state_dict())
    off, wrong_at_first = off_the_plane(net), wrong(net, rows)
    assert off > 0.005
    turn_encoders(net, rows)
    assert off_the_plane(net) < off / 4
    assert wrong(net, rows) < wrong_at_first
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, before[name]) is not name.endswith("encoder.weight")


@pytest.mark.parametrize("n_regions", [1, 2])
def test_what_borders_do_not_tell_is_seen_as_before(how, rows, n_regions):
    """Two regions have one border, with one normal; and where all is seen nothing is new."""
    net = encoded(network_of(CENTERS, how, n_regions), 0.01)
    before = net.blocks.experts.encoder.weight.detach().clone()
    turn_encoders(net, rows)
    after = net.blocks.experts.encoder.weight
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0], before[0])
    expert = part("latent", latent_dim=4)
    sizes = {"n_layers": 2, "n_experts": 4, "trunk": False}
    sees_all = ParallelMoENetwork(4, 1, **sizes, gate="region", expert=expert)
    before = copy.deepcopy(sees_all.state_dict())
    turn_encoders(sees_all, rows)
    assert all(map(torch.equal, sees_all.state_dict().values(), before.values()))


def test_blocks_are_in_place_turned_and_sharp_at_last(how, rows):
    net = encoded(network_of(CENTERS + MOVES / 4, how), 0.002)
    with torch.no_grad():
        net.blocks.gate.log_temperature.fill_(-np.log(100.0))
    before, wrong_at_first = copy.deepcopy(net.state_dict()), wrong(net, rows)
    borders_at_last(rows)(net, 97, 100)
    assert all(map(torch.equal, net.state_dict().values(), before.values()))
    off = off_the_plane(net)
    borders_at_last(rows)(net, 98, 100)
    assert wrong(net, rows) < wrong_at_first / 4
    assert off_the_plane(net) < off / 2
    assert (net.blocks.gate.log_temperature < -np.log(101.0)).all()


def test_blocks_stay_as_they_are_where_sharp_borders_are_worse(how, rows):
    """As where what a block sees does not tell its regions: a mean is right there."""
    net = encoded(network_of(CENTERS, how), 0.01)
    with torch.no_grad():
        net.blocks.gate.log_temperature.fill_(-np.log(100.0))
        blurred = replace(rows, y=net(rows.x)[0])
    before = copy.deepcopy(net.state_dict())
    settle_blocks(net, blurred)
    assert all(map(torch.equal, net.state_dict().values(), before.values()))


def sides_of(y, margin_BT, others) -> _Sides:
    """A sum of two blocks that answer by so much more on the other side, and usual rows."""
    n_usual, n_rows = 20, 20 + len(y)
    there_BT = torch.tensor(others)[:, None].expand(2, n_rows)
    answers_BT2O = torch.stack([torch.zeros(2, n_rows), there_BT], 2).unsqueeze(3)
    y_TO = torch.cat([torch.tensor(y), torch.full((n_usual,), 0.01)])[:, None]
    margin_BT = torch.cat([torch.tensor(margin_BT), torch.full((2, n_usual), 0.02)], 1)
    return _Sides(network_of(CENTERS, "sum"), y_TO, answers_BT2O, margin_BT)


def test_rows_cross_the_nearest_border_that_explains_them():
    near, far = 0.02, 1.0
    margin_BT = [[near] * 5 + [far, near], [near] * 4 + [far, near, near]]
    sides = sides_of([0.0, 1.0, 2.0, 3.0, 3.0, 1.0, 0.5], margin_BT, (1.0, 2.0))
    crossed_BT, explained_T = sides.explanation()
    assert explained_T[:7].tolist() == [True] * 4 + [False] * 3
    assert crossed_BT[0, :7].tolist() == [False, True, False, True, False, False, False]
    assert crossed_BT[1, :7].tolist() == [False, False, True, True, False, False, False]
    assert explained_T[7:].all()
    assert not crossed_BT[:, 7:].any()


def test_of_two_explanations_the_nearer_one_counts():
    sides = sides_of([1.0, 1.0], [[0.04, 0.01], [0.01, 0.04]], (1.0, 1.0))
    crossed_BT, _ = sides.explanation()
    assert crossed_BT[:, :2].tolist() == [[False, True], [True, False]]
