"""Fits that go on from a fitted model follow that model, and new fits leave nothing of it."""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from small import make

from skmoe import DeepMoERegressor, part
from skmoe.estimators import _auto
from skmoe.inspection import expert_usage, explain, routing_change_rate

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
    assert rates(one_net) == pytest.approx(0.1 * _auto.RATE)


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
    weight = np.where(rows[:, 0] > 0.5, 10.0, 0.1) * np.tile([1e-6, 1.0], 7500)
    moe = make("shallow", max_epochs=1, early_stopping=False, dtype="float64")
    moe.fit(rows, rows[:, 0], sample_weight=weight)
    gates = moe.predict_gates(rows)
    np.testing.assert_allclose(moe.expert_usage_, weight @ gates / weight.sum(), atol=0.02)


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


def as_arrays(moe):
    return pickle.loads(pickle.dumps(moe))


@pytest.mark.parametrize("kind", ["shallow", "parallel"])
def test_parameters_that_are_set_later_do_not_reach_the_model(kind):
    gate = part("mlp", hidden_dim=6)
    moe = make(kind, gate=gate, expert=part("mlp", activation="relu")).fit(X, y)
    before = moe.predict(X)
    gate.set_params(hidden_dim=3)
    moe.set_params(expert__activation="tanh")
    for copied in (moe, copy.deepcopy(moe), as_arrays(moe)):
        np.testing.assert_array_equal(copied.predict(X), before)
    moe.compress(rank=2)


@pytest.mark.parametrize(
    "moe",
    [
        make("shallow", max_epochs=200, solver="adam"),
        make("shallow", solver="ridge", hidden_dim=32),
        make("ensemble", max_epochs=100),
    ],
)
def test_a_chunk_after_a_fit_does_not_undo_it(moe):
    score = moe.fit(X, y).score(X, y)
    assert moe.partial_fit(X[:50], y[:50]).score(X, y) > score - 0.02
    first = rates(moe)
    assert rates(pickle.loads(pickle.dumps(moe)).partial_fit(X[50:], y[50:])) == first
    faster = 10 * first / moe.history_[-1]["rate_share"]
    moe.set_params(learning_rate=faster).partial_fit(X, y)
    assert rates(moe) == pytest.approx(10 * first)


def test_chunks_from_the_start_are_learned_at_the_whole_rate():
    moe = make("shallow", learning_rate=0.02).partial_fit(X, y)
    assert rates(moe) == rates(moe.partial_fit(X, y)) == 0.02


def test_a_first_chunk_without_variation_is_told():
    with pytest.warns(UserWarning, match="all targets are constant, so that nothing"):
        make("shallow").partial_fit(X, np.ones(300))
    with pytest.warns(UserWarning, match="all targets and features are constant"):
        make("shallow").partial_fit(X[:1], y[:1])
    make("shallow").partial_fit(X * [1, 0, 1], y)


@pytest.mark.parametrize("go_on", ["fit", "partial_fit", "fine_tune"])
@pytest.mark.parametrize("losses", [("gaussian_nll", "huber"), ("huber", "gaussian_nll")])
def test_another_kind_of_loss_is_refused(go_on, losses):
    first, second = losses
    moe = make("shallow", loss=first, warm_start=True).fit(X, y).set_params(loss=second)
    with pytest.raises(ValueError, match=f"(?s)loss must be of the kind.*Got loss='{second}'"):
        getattr(moe, go_on)(X, y)


def test_experts_are_chosen_by_weighted_rows():
    moe = make("shallow", n_experts=8, top_k=2).fit(X, y)
    counts = X[:, 0] > 0
    weighted, few = (copy.deepcopy(moe) for _ in range(2))
    weighted.fine_tune(X, y, np.where(counts, 1.0, 1e-9), max_epochs=1)
    few.fine_tune(X[counts], y[counts], max_epochs=1)
    np.testing.assert_allclose(weighted.expert_scores_, few.expert_scores_, atol=1e-6)


@pytest.mark.parametrize("method", ["experts", "all"])
def test_settings_of_adapters_need_adapters(method):
    with pytest.raises(ValueError, match="adapters needs method='adapters'"):
        make("shallow").fit(X, y).fine_tune(X, y, method=method, adapters={"rank": 2})


def test_experts_of_several_kinds_are_tuned_by_other_methods():
    moe = make("shallow", n_experts="auto", expert=["mlp", "linear"]).fit(X, y)
    with pytest.raises(ValueError, match="method='experts' needs experts of one kind"):
        moe.fine_tune(X, y)
    moe.fine_tune(X, y, method="all", max_epochs=2)


def test_numpys_generator_is_neither_used_nor_moved():
    """Without a seed, fits differ, whatever was seeded."""
    everybodys = check_random_state(None)
    fitted = []
    for _ in range(2):
        everybodys.seed(0)
        before = joblib.hash(everybodys.get_state())
        moe = make("shallow", random_state=None).fit(X, y)
        fitted.append(moe.partial_fit(X, y).fine_tune(X, y, max_epochs=1).predict(X))
        assert joblib.hash(everybodys.get_state()) == before
    assert not np.array_equal(*fitted)


def test_a_refused_warm_start_writes_no_checkpoint(tmp_path):
    moe = make("shallow", warm_start=True).fit(X, y)
    moe.set_params(loss="gaussian_nll", checkpoint=tmp_path / "fit")
    with pytest.raises(ValueError, match="loss must be of the kind"):
        moe.fit(X, y)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mlp", "deep"])
def test_settings_make_a_part_of_a_name(name):
    moe = make("shallow").set_params(gate=name, gate__hidden_dim=5)
    assert moe.gate == part(name, hidden_dim=5)
    again = make("stack", router="normalized_sigmoid")
    again.set_params(arrangement__n_dense=2, router__balance_rate=0.1)
    assert again.arrangement == part("stack", n_dense=2)
    with pytest.raises(ValueError, match="gate__hidden_dim is a setting of a part"):
        again.set_params(gate="auto", router__balance_rate=0.5, gate__hidden_dim=5)
    assert again.router == part("normalized_sigmoid", balance_rate=0.1)  # all or nothing


def test_rows_that_ask_nobody_are_no_usage():
    moe = make("shallow", router=part("sigmoid", threshold=0.999)).fit(X, y)
    assert moe.expert_usage_.tolist() == [0.0] * 4
    assert expert_usage(moe, X).tolist() == [0.0] * 4
    assert routing_change_rate([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.0, 0.0]]) == 0.0


def test_constant_targets_do_not_decide_about_deviations():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(600, 3))
    values = rows[:, 0] + 0.1 * rng.normal(size=600)
    sizes = {"loss": "gaussian_nll", "max_epochs": 30, "early_stopping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        both = make("shallow", **sizes).fit(rows, np.c_[values, np.ones(600)])
        make("shallow", **sizes).fit(rows, np.ones(600))
    mean, std = both.predict(rows, return_std=True)
    inside = np.abs(values - mean[:, 0]) < 2 * std[:, 0]
    assert 0.85 < inside.mean() < 0.999
    np.testing.assert_allclose(std[:, 1], 0, atol=1e-12)


def test_frozen_models_are_explained_alike():
    moe = make("shallow").fit(X, y)
    frozen = explain(FrozenEstimator(moe), X[:5])
    assert frozen.of_layers == explain(moe, X[:5]).of_layers
