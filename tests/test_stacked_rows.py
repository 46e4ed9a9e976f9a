"""Batches of several models at once are those that each would have alone."""

import pytest
import torch
from torch.testing import assert_close

from skmoe.batches import Batches, Rows
from skmoe.stacked_rows import StackedRows


def rows(n_rows, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y, weight = (torch.rand(n_rows, n, generator=generator) for n in (3, 1, 1))
    return Rows(x, y, weight[:, 0])


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def assert_batches_are_own(stacked, all_rows, size, seeds):
    own = [
        Batches(part, size, generator)
        for part, generator in zip(all_rows, generators(seeds), strict=True)
    ]
    batches = list(stacked.batches(generators(seeds)))
    assert len(batches) == len(own[0])
    for batch, alone in zip(batches, zip(*own, strict=True), strict=True):
        for m, ((x, weight), y) in enumerate(alone):
            n = len(x)
            assert batch.sizes_M[m] == n
            assert torch.equal(batch.x_MTD[m, :n], x)
            assert torch.equal(batch.y_MTO[m, :n], y)
            # Whatever fills up a batch counts for nothing in a mean.
            assert_close(batch.weight_MT[m].mean(), weight.mean())
            assert (batch.weight_MT[m, n:] == 0).all()
            if batch.share_MT is not None:
                assert_close(batch.share_MT[m].sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    "lengths", [(20, 20, 20), (20, 19, 21), (24, 17, 18), (5, 4, 6)], ids=str
)
def test_each_has_batches_of_its_own(lengths):
    all_rows = [rows(n, seed) for seed, n in enumerate(lengths)]
    n_batches = len(Batches(all_rows[0], 8, None))
    stacked = StackedRows(all_rows, n_batches)
    assert_batches_are_own(stacked, all_rows, 8, (5, 6, 7))
    stacked.keep([0, 2])
    assert_batches_are_own(stacked, [all_rows[0], all_rows[2]], 8, (5, 7))


def test_without_generators_rows_keep_their_order():
    all_rows = [rows(9, 0), rows(11, 1)]
    batches = list(StackedRows(all_rows, 2).batches())
    for m, part in enumerate(all_rows):
        seen = [batch.x_MTD[m, : int(batch.sizes_M[m])] for batch in batches]
        assert torch.equal(torch.cat(seen), part.x)


def test_batches_of_the_same_size_are_not_filled_up():
    (first, second) = StackedRows([rows(9, 0), rows(9, 1)], 2).batches()
    assert first.share_MT is None
    assert second.share_MT is None
    assert (first.x_MTD.shape[1], second.x_MTD.shape[1]) == (5, 4)


def test_a_model_may_have_nothing_left():
    batches = list(StackedRows([rows(1, 0), rows(4, 1)], 2).batches())
    assert [batch.sizes_M.tolist() for batch in batches] == [[1, 2], [0, 2]]
    assert (batches[1].weight_MT[0] == 0).all()
