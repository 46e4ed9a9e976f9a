"""Fits side by side do once what they have in common, and nothing else."""

import numpy as np
import pytest
from small import make

from skmoe.scaling import Scaling
from skmoe.shared_work import SHARED, SharedWork, once, same
from skmoe.together import run_together


@pytest.fixture
def shared():
    token = SHARED.set(SharedWork())
    yield
    SHARED.reset(token)


def rows(seed=0):
    return np.random.RandomState(seed).normal(size=(30, 3))


def test_a_fit_by_itself_shares_nothing():
    X = rows()
    assert same(X) is X
    assert same(X.copy()) is not X
    assert once(list, (1, 2)) is not once(list, (1, 2))


def test_equal_arrays_become_one(shared):
    X = same(rows())
    assert same(X.copy()) is X
    assert same(rows(1)) is not X
    assert same(X.astype(np.float32)) is not X
    assert same(np.asfortranarray(X)) is not X  # sums over it round otherwise
    last = X.copy()
    last[-1, -1] += 1
    assert same(last) is last


def test_work_is_done_once_for_the_same_arguments(shared):
    calls = []

    def work(X, number, name=None):
        calls.append(number)
        return X.sum() + number

    X = rows()
    assert once(work, X, 1) == once(work, X, 1) == X.sum() + 1
    assert once(work, X, 2) == X.sum() + 2
    assert once(work, X, 1, "other") == X.sum() + 1
    once(work, X.copy(), 1)  # nobody has said that it is the same
    once(work, X, True)
    assert calls == [1, 2, 1, 1, True]


def test_arrays_that_are_gone_are_not_mistaken_for_new_ones(shared):
    for seed in range(50):
        X = rows(seed)
        assert once(np.sum, X) == X.sum()


def test_fits_side_by_side_scale_the_rows_of_a_fold_once(monkeypatch):
    X = np.random.RandomState(0).normal(size=(60, 3))
    y = np.sin(X[:, 0]) * X[:, 1]
    scaled = []

    def of_features(cls, X, weight):
        scaled.append(X)
        return original.__func__(cls, X, weight)

    original = Scaling.of_features
    monkeypatch.setattr(Scaling, "of_features", classmethod(of_features))
    fits = [
        make("shallow", max_epochs=3, learning_rate=rate, early_stopping=early)
        for rate in (0.01, 0.02)
        for early in (True, False)
    ]
    run_together([lambda m=m: m.fit(X.copy(), y.copy()) for m in fits])
    assert [len(part) for part in scaled] == [54, 60]
    alone = make("shallow", max_epochs=3, learning_rate=0.02, early_stopping=True).fit(X, y)
    np.testing.assert_allclose(fits[2].predict(X), alone.predict(X))
