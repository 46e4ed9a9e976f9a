"""Batches cover all rows once; averages count rows, not batches."""

import math
from functools import partial

import pytest
import torch

from skmoe.batches import Batches, Rows, Tally, count_batches, gate_entropy
from skmoe.nn.routers import SoftmaxRouter


def rows(n):
    x = torch.arange(n, dtype=torch.float64)[:, None]
    return Rows(x, 2 * x, x[:, 0] + 1)


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 4), (5, 4), (103, 10), (1000, 64)])
def test_each_row_is_in_one_batch_and_sizes_are_nearly_equal(n, size):
    batches = Batches(rows(n), size, torch.Generator().manual_seed(0))
    parts = list(batches)
    assert len(parts) == len(batches) == count_batches(n, size) == math.ceil(n / size)
    seen = torch.cat([x[:, 0] for (x, _), _ in parts])
    assert sorted(seen.tolist()) == list(range(n))
    lengths = [len(y) for _, y in parts]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= size
    for (x, weight), y in parts:
        assert torch.equal(y, 2 * x)
        assert torch.equal(weight, x[:, 0] + 1)


def test_order_is_new_in_each_pass_and_the_same_for_the_same_seed():
    def passes(seed):
        batches = Batches(rows(50), 7, torch.Generator().manual_seed(seed))
        return [torch.cat([x[:, 0] for (x, _), _ in batches]).tolist() for _ in range(2)]

    first, second = passes(0)
    assert first != second
    assert [first, second] == passes(0)


def test_order_is_kept_without_a_generator():
    seen = torch.cat([x[:, 0] for (x, _), _ in Batches(rows(50), 7, None)])
    assert seen.tolist() == list(range(50))


def test_averages_weigh_batches_by_their_rows():
    tally = Tally()
    for (x, weight), y in Batches(rows(10), 4, None):
        tally.add({"loss": x.mean()}, list, ((x, weight), y))
    assert tally.averages()["loss"] == pytest.approx(4.5)


def test_routings_are_looked_at_in_one_batch_of_eight():
    """Losses are means over all rows, usage one over those of the batches looked at."""
    tally = Tally()
    for number, ((x, weight), y) in enumerate(Batches(rows(100), 10, None)):
        logits = torch.zeros(1, len(x), 10)
        logits[..., number] = 1e4
        routing = SoftmaxRouter()(logits)
        tally.add({"loss": x.mean()}, partial(list, [routing]), ((x, weight), y))
    averages = tally.averages()
    assert averages["loss"] == pytest.approx(49.5)
    assert averages["usage"] == [pytest.approx([0.5, *[0] * 7, 0.5, 0])]


def test_entropy_is_one_for_a_uniform_choice_and_zero_for_a_certain_one():
    uniform = SoftmaxRouter()(torch.zeros(2, 5, 4))
    certain = SoftmaxRouter()(torch.eye(4)[None] * 1e4)
    assert torch.allclose(gate_entropy(uniform), torch.ones(2))
    assert torch.allclose(gate_entropy(certain), torch.zeros(1))
