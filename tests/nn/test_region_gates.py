"""Gates of two levels: borders between regions, and shares within them."""

import math

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.region_gates import RegionGate


def region_gate(randn, generator, temperature):
    """Experts 0, 1 and 2 in region 0, expert 3 in region 1."""
    gate = RegionGate(1, 2, 4, temperature=temperature, generator=generator).double()
    maps = ((randn(1, 4, 2), randn(1, 4)) for _ in range(2))
    gate.set_regions(torch.tensor([[0, 0, 0, 1]]), *maps)
    return gate


def test_temperature_of_a_region_gate_sharpens_regions_only(randn, generator):
    gate = region_gate(randn, generator, temperature=(1.0, 0.1))
    x = randn(1, 50, 2)
    soft = gate(x)
    gate.anneal(1.0)
    sharp = gate(x)
    within = torch.softmax(soft[..., :3], -1)
    assert_close(torch.softmax(sharp[..., :3], -1), within)
    difference = gate.regions(x)[..., 1] - gate.regions(x)[..., 0]
    assert_close((sharp - soft)[..., 3] - (sharp - soft)[..., 0], 9 * difference)


def test_the_best_expert_of_a_region_has_its_score_and_some_more(randn, generator):
    gate = region_gate(randn, generator, temperature=0.1)
    x = randn(1, 50, 2)
    logits = gate(x)
    best = torch.stack([logits[..., :3].amax(-1), logits[..., 3]], -1)
    scores = gate.scores_of_regions(x) / gate.log_temperature.exp()
    assert_close(scores + gate.best_in_regions(x), best)


@pytest.mark.parametrize("degree", [2, 3])
def test_borders_may_be_polynomials(randn, generator, degree):
    gate = RegionGate(2, 2, 4, degree=degree, temperature=0.5, generator=generator).double()
    n_products = gate.regions.weight.shape[1]
    borders, cells = (randn(2, 4, n_products), randn(2, 4)), (randn(2, 4, 2), randn(2, 4))
    ids = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 2]])
    gate.set_regions(ids, borders, cells)
    x = randn(2, 50, 2)
    slopes, offsets = borders
    scores = gate.regions.lift(x) @ slopes.mT + offsets[:, None]
    of_experts = torch.stack([scores[block][:, ids[block]] for block in range(2)])
    assert_close(gate(x), of_experts / 0.5 + x @ cells[0].mT + cells[1][:, None])
    assert_close(gate.scores_of_regions(x)[1], scores[1, :, :3])


def test_a_split_shares_rows_with_another_expert(randn, generator):
    gate = region_gate(randn, generator, temperature=0.1)
    x = randn(1, 50, 2)
    slope, middle = randn(2), randn(1)[0]
    before = gate(x)
    gate.split(0, 1, 3, slope, middle)
    after = gate(x)
    assert_close(after[..., [0, 2]], before[..., [0, 2]])
    assert_close(after[..., 1] - after[..., 3], 2 * (x @ slope - middle))
    assert_close((after[..., 1] + after[..., 3]) / 2 + math.log(2), before[..., 1])


def test_a_region_whose_experts_were_given_others_has_the_lowest_score(randn, generator):
    gate = region_gate(randn, generator, temperature=0.1)
    x = randn(1, 50, 2)
    assert_close(gate.scores_of_regions(x), gate.regions(x)[..., :2])
    gate.set_regions(torch.tensor([[0, 0, 2, 2]]), *(2 * [(randn(1, 4, 2), randn(1, 4))]))
    scores = gate.scores_of_regions(x)
    assert scores[..., 1].max() == -math.inf
    assert_close(scores[..., [0, 2]], gate.regions(x)[..., [0, 2]])
    assert gate.experts_in_regions(x)[..., 1, :].isnan().all()
