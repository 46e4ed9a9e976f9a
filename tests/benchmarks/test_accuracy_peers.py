"""Peers compute what they say."""

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge

from benchmarks.accuracy import peers

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((90, 3)), RNG.standard_normal(90)


def test_the_blockwise_ridge_is_nystroem_and_ridge(monkeypatch):
    monkeypatch.setattr(peers, "BLOCK", 20)
    ours = peers.NystroemRidge(gamma=0.2, alpha=0.1, n_components=30).fit(X, Y)
    features = Nystroem(gamma=0.2, n_components=30, random_state=0).fit(X)
    ridge = Ridge(alpha=0.1).fit(features.transform(X), Y)
    expected = ridge.predict(features.transform(X))
    np.testing.assert_allclose(ours.predict(X), expected, atol=1e-8)


def test_a_subset_has_the_size_that_was_asked_for():
    model = peers.OnSomeRows(Ridge(), n_rows=10).fit(X, Y)
    few = peers.OnSomeRows(Ridge(), n_rows=1000).fit(X, Y)
    np.testing.assert_allclose(few.predict(X), Ridge().fit(X, Y).predict(X))
    assert not np.allclose(model.predict(X), few.predict(X))
