"""Fits that go on from a fitted model follow that model, and new fits leave nothing of it."""

import numpy as np
import pytest
from small import make

from skmoe import DeepMoERegressor
from skmoe.estimators import _auto

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).uniform(-1, 1, size=(300, 3))
y = np.sin(3 * X[:, 0]) * X[:, 1]


@pytest.fixture(scope="module")
def one_net():
    """A deep mixture of so many rows that it is one net, where few rows make an ensemble."""
    many = np.tile(X, (8, 1))
    sizes = {"n_experts": 2, "hidden_dim": 4, "model_dim": 8, "n_layers": 2, "max_epochs": 2}
    return DeepMoERegressor(**sizes, init="random", random_state=0).fit(many, np.tile(y, 8))


def rates(moe):
    return max(epoch["learning_rate"] for epoch in moe.history_)


def test_few_more_rows_are_learned_at_the_rate_of_the_net_that_there_is(one_net):
    one_net.fine_tune(X, y, max_epochs=40)
    assert 0 < rates(one_net) <= _auto.RATE
    one_net.partial_fit(X, y)
    assert rates(one_net) == pytest.approx(_auto.RATE)


@pytest.mark.parametrize("n_features", [1, 2, 4])
def test_a_warm_start_needs_the_same_features(n_features):
    moe = make("shallow", warm_start=True).fit(X, y)
    other = np.ones((300, n_features))
    with pytest.raises(
        ValueError, match=f"X has {n_features} features, but MoERegressor is exp"
    ):
        moe.fit(other, y)
    assert moe.n_features_in_ == 3


def test_a_new_fit_leaves_nothing_of_what_was_done_to_the_old_model(tmp_path):
    pytest.importorskip("safetensors")
    moe = make("shallow").fit(X, y).fine_tune(X, y, max_epochs=2)
    assert moe.expert_scores_.shape == (1, 4)
    moe.set_params(n_experts=6).fit(X, y)
    moe.save_model(tmp_path / "moe.skmoe")
    small = moe.compress(rank=2)
    assert len(small.compression_errors_) == 1
    for name in ("expert_scores_", "tuned_experts_", "n_tuned_weights_"):
        assert not hasattr(moe, name)
    for name in ("compression_errors_", "singular_values_"):
        assert not hasattr(small.fit(X, y), name)


def test_a_warm_start_keeps_what_was_told_of_the_model():
    moe = make("shallow", warm_start=True).fit(X, y).fine_tune(X, y, max_epochs=2)
    assert moe.fit(X, y).expert_scores_.shape == (1, 4)


def test_fine_tuning_keeps_the_precision_of_the_model():
    """Rounding would change frozen weights, and predictions of rows that only they answer."""
    moe = make("shallow", top_k=1, n_experts=8).fit(X, y)
    before, chosen = moe.predict(X), moe.apply(X)
    many = np.tile(X[chosen == chosen[0]], (40, 1))
    assert len(many) > _auto.MAX_ROWS_PREDICTED_IN_FLOAT64
    moe.fine_tune(many, np.ones(len(many)), threshold=0.5, max_epochs=2)
    others = ~np.isin(chosen, moe.tuned_experts_[0])
    assert others.any()
    np.testing.assert_array_equal(moe.predict(X)[others], before[others])


def test_usage_counts_weights_and_the_last_rows():
    rows = np.sort(np.random.default_rng(0).uniform(size=(15_000, 1)), axis=0)
    weight = np.where(rows[:, 0] > 0.5, 10.0, 0.1)
    moe = make("shallow", max_epochs=1, early_stopping=False, dtype="float64")
    moe.fit(rows, rows[:, 0], sample_weight=weight)
    gates = moe.predict_gates(rows)
    np.testing.assert_allclose(moe.expert_usage_, weight @ gates / weight.sum(), rtol=1e-3)


def test_patience_is_in_epochs_also_where_few_of_them_are_looked_at():
    moe = make("ensemble", n_layers=4, max_epochs=120, n_iter_no_change=10)
    moe.set_params(early_stopping="auto").fit(X, y)
    looked_at = [e["epoch"] for e in moe.history_ if "valid_seconds" in e]
    best = min(moe.history_, key=lambda e: e["valid_loss"])["epoch"]
    assert len(looked_at) > 2
    assert moe.n_iter_ in (120, next(e for e in [*looked_at, 120] if e >= best + 10))


@pytest.mark.parametrize("name", ["y_val", "sample_weight_val"])
def test_validation_rows_need_features(name):
    with pytest.raises(ValueError, match=f"X_val is required when {name} is given"):
        make("shallow").fit(X, y, **{name: y})


def test_one_layer_has_no_other(tmp_path):
    moe = make("shallow").fit(X, y)
    assert moe.predict_gates(X, layer=0).shape == (300, 4)
    with pytest.raises(ValueError, match="layer must be None or 0"):
        moe.predict_experts(X, layer=7)


def test_arrangements_are_named():
    from skmoe.nn.networks import StackMoENetwork

    with pytest.raises(ValueError, match="'arrangement' parameter"):
        make(StackMoENetwork).fit(X, y)
