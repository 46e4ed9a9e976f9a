"""What holds for any rows: finite or refused, the same in other units and another order."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small import make

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore::sklearn.exceptions.DataConversionWarning",
)

few = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
shapes = st.tuples(st.integers(0, 6), st.integers(0, 3))


def rows_of(elements):
    return shapes.flatmap(
        lambda shape: st.tuples(
            arrays(np.float64, shape, elements=elements),
            arrays(np.float64, shape[0], elements=elements),
        )
    )


@few
@given(rows=rows_of(st.floats(width=64)), kind=st.sampled_from(["shallow", "ensemble"]))
def test_any_rows_are_learned_or_refused(rows, kind):
    X, y = rows
    before = X.copy(), y.copy()
    moe = make(kind, max_epochs=2)
    try:
        prediction = moe.fit(X, y).predict(X)
    except ValueError:
        assert not hasattr(moe, "n_features_in_")
    else:
        assert np.isfinite(prediction).all()
        assert np.isfinite(moe.history_[-1]["train_loss"])
    assert np.array_equal(X, before[0], equal_nan=True)
    assert np.array_equal(y, before[1], equal_nan=True)


@few
@given(
    seen=arrays(np.float64, (4, 2), elements=st.floats(-1e308, 1e308)),
)
def test_predictions_for_any_rows_are_finite(seen, problem):
    X, y = problem
    moe = make("shallow", max_epochs=2).fit(X[:, :2], y)
    assert np.isfinite(moe.predict(seen)).all()


@few
@given(
    factor=st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12),
    offset=st.floats(-1e3, 1e3),
    kind=st.sampled_from(["shallow", "ensemble"]),
)
def test_predictions_follow_the_units_of_y(factor, offset, kind, problem):
    X, y = problem
    plain = make(kind, max_epochs=5).fit(X, y).predict(X)
    offset *= abs(factor)
    other = make(kind, max_epochs=5).fit(X, factor * y + offset).predict(X)
    if factor > 0:  # else the nets start with the wrong sign: another fit
        np.testing.assert_allclose(other, factor * plain + offset, rtol=1e-6)
    assert np.isfinite(other).all()


@few
@given(seed=st.integers(0, 100), top_k=st.sampled_from([None, 1, 2]))
def test_predictions_do_not_depend_on_the_order_or_number_of_rows(seed, top_k, problem):
    X, y = problem
    moe = make("shallow", top_k=top_k, max_epochs=3).fit(X, y)
    expected = moe.predict(X)
    order = np.random.default_rng(seed).permutation(len(X))
    np.testing.assert_allclose(moe.predict(X[order]), expected[order], rtol=1e-12)
    some = order[: 1 + seed % 7]
    np.testing.assert_allclose(moe.predict(X[some]), expected[some], rtol=1e-12)


@pytest.mark.parametrize("top_k", [None, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_experts_does_not_matter(top_k, seed, problem):
    X, y = problem
    moe = make("shallow", top_k=top_k, gate="linear").fit(X, y)
    before, gates = moe.predict(X), moe.predict_gates(X)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(4))
    layer = moe.net_.layer
    with torch.no_grad():
        for tensor in layer.experts.own():
            tensor.copy_(tensor[order].clone())
        for weight in layer.gate.linear.parameters():
            weight.copy_(weight[..., order].clone())
    np.testing.assert_allclose(moe.predict(X), before, rtol=1e-10)
    np.testing.assert_allclose(moe.predict_gates(X), gates[:, order.numpy()], rtol=1e-10)


def test_rows_that_occur_often_are_no_trouble(kind, problem):
    X, y = problem
    moe = make(kind, embedding="piecewise_linear")
    assert np.isfinite(moe.fit(X[[0] * 100], y[[0] * 100]).predict(X)).all()
    many = np.repeat(np.arange(5), 40)
    assert np.isfinite(moe.fit(X[many], y[many]).predict(X)).all()
