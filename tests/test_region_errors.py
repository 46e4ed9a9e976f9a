"""Errors of regions against their definition."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from small import make

from skmoe.inspection import error_by_region

N = 60
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n_outputs", [0, 2])
def test_errors_of_regions_are_those_of_their_rows(n_outputs, random):
    X = random.normal(size=(N, 3))
    y = np.column_stack([X[:, 0], X[:, 1]]) if n_outputs else X[:, 0]
    linear = LinearRegression().fit(X, y + random.normal(size=y.shape))
    weight = random.random(N)
    labels = random.choice(["a", "b", "c"], N)
    errors = error_by_region(linear, X, y, labels, sample_weight=weight)
    assert errors.names.tolist() == ["a", "b", "c"]
    off = linear.predict(X) - y
    for name, rmse, bias, share in zip(*errors[:4], strict=True):
        some = labels == name
        mean_square = np.average(off[some] ** 2, axis=0, weights=weight[some])
        np.testing.assert_allclose(rmse, np.sqrt(mean_square))
        np.testing.assert_allclose(bias, np.average(off[some], axis=0, weights=weight[some]))
        assert share == pytest.approx(weight[some].sum() / weight.sum())
    total = np.sqrt(np.average(off**2, axis=0, weights=weight))
    np.testing.assert_allclose(errors.total_rmse, total)


@pytest.mark.parametrize(("kind", "layer"), [("shallow", 0), ("parallel", 1)])
def test_errors_of_experts_are_those_of_the_rows_that_they_answer(kind, layer, random):
    X = random.normal(size=(N, 3))
    moe = make(kind, max_epochs=5).fit(X, X[:, 0])
    top = moe.apply(X).reshape(N, -1)[:, layer]
    errors = error_by_region(moe, X, X[:, 0], layer=layer)
    assert errors.names.tolist() == sorted(set(top))
    for name, share in zip(errors.names, errors.share, strict=True):
        assert share == pytest.approx((top == name).mean())
    with pytest.raises(ValueError, match=r"layer must be in \[0, .\]. Got 9"):
        error_by_region(moe, X, X[:, 0], layer=9)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        error_by_region(moe, X, X[:, 0], np.zeros(N - 1))


def test_targets_of_another_shape_are_refused(random):
    X = random.normal(size=(40, 2))
    moe = make("shallow").fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"y must be of the shape \(40,\) of the predictions"):
        error_by_region(moe, X, X)
