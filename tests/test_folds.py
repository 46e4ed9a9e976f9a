"""Folds: each row is left out by one member, and repeated rows are left out together."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from torch.testing import assert_close

from skmoe.batches import Rows
from skmoe.folds import hold_out, leave_out
from skmoe.shared_work import SHARED, SharedWork

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


def test_rows_held_out_are_those_of_scikit_learn_and_the_same_for_all_that_share_them():
    X, y, weight = np.arange(40.0).reshape(20, 2), np.arange(20.0)[:, None], np.ones(20)
    randoms = [np.random.RandomState(3) for _ in range(3)]
    parts = train_test_split(X, y, weight, test_size=0.2, random_state=randoms[0])
    token = SHARED.set(SharedWork())
    found, again = (hold_out(X, y, weight, 0.2, random) for random in randoms[1:])
    SHARED.reset(token)
    for array, expected in zip(found[:3] + found[3], parts[0::2] + parts[1::2], strict=True):
        np.testing.assert_array_equal(array, expected)
    assert again[0] is found[0]
    assert len({random.randint(2**31 - 1) for random in randoms}) == 1  # all have gone on
