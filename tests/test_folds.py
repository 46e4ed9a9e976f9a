"""Folds: each row is left out by one member, and repeated rows are left out together."""

import pytest
import torch
from torch.testing import assert_close

from skmoe.batches import Rows
from skmoe.folds import leave_out

M = 4


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(30, generator=generator, dtype=torch.float64) + 0.5
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    return Rows(x, x[:, :1].sin(), weight / weight.mean())


def split(rows):
    return leave_out(rows, M, torch.Generator().manual_seed(1))


def test_a_row_is_judged_by_the_one_member_that_has_not_seen_it(rows):
    learned, judged = split(rows)
    assert torch.equal(learned.weight > 0, judged.weight == 0)
    assert torch.equal((judged.weight > 0).sum(1), torch.ones(30, dtype=torch.int64))


def test_folds_are_of_nearly_equal_size(rows):
    sizes = (split(rows)[1].weight > 0).sum(0)
    assert sizes.max() - sizes.min() <= 1


def test_the_mean_over_members_and_rows_is_the_weighted_mean_over_rows(rows):
    error_T = rows.y.square().squeeze(1)
    judged = (error_T[:, None] * split(rows)[1].weight).mean()
    assert_close(judged, (error_T * rows.weight).mean())


def test_weights_of_the_rows_that_a_member_learns_from_have_mean_one(rows):
    assert_close(split(rows)[0].weight.mean(0), torch.ones(M, dtype=torch.float64))


def test_a_weight_of_two_is_a_row_twice(rows):
    weight = torch.ones(30, dtype=torch.float64)
    weight[:10] = 2
    index = torch.cat([torch.arange(30), torch.arange(10)])
    weighted = Rows(rows.x, rows.y, weight / weight.mean())
    repeated = Rows(rows.x[index], rows.y[index], torch.ones(40, dtype=torch.float64))
    for one, other in zip(split(weighted), split(repeated), strict=True):
        shares = other.weight.new_zeros(30, M).index_add(0, index, other.weight) / 40
        assert_close(one.weight / 30, shares)


def test_too_few_different_rows_are_not_split(rows):
    index = torch.arange(30) % (2 * M - 1)
    assert split(Rows(rows.x[index], rows.y[index], rows.weight[index])) is None
