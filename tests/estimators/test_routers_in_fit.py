"""Routers behind the estimators: each works by its name alone, and keeps what it counts."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.model_selection import GridSearchCV
from small import ESTIMATORS, every_estimator

from skmoe import MoERegressor, part
from skmoe.nn.routers import ROUTERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

every_router = pytest.mark.parametrize("router", ROUTERS)


def data(n=200):
    X = np.random.RandomState(0).randn(n, 4)
    return X, np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]


def fitted(router, kind="shallow", **parameters):
    X, y = data()
    parameters = {"max_epochs": 60, "solver": "adam", "random_state": 0, **parameters}
    return ESTIMATORS[kind](router=router, **parameters).fit(X, y)


def routers_of(estimator):
    return [layer.router for layer in estimator.net_.moe_layers()]


@every_router
@every_estimator
def test_each_router_learns_by_its_name_alone(router, kind):
    X, y = data()
    assert fitted(router, kind).score(X, y) > 0.5


@every_router
@every_estimator
def test_predictions_do_not_depend_on_the_rows_beside(router, kind):
    X, _ = data()
    estimator = fitted(router, kind, max_epochs=3)
    alone = np.concatenate([estimator.predict(row[None]) for row in X[:20]])
    assert_allclose(estimator.predict(X)[:20], alone, atol=1e-9)


@every_router
def test_prediction_is_the_sum_of_its_parts(router):
    X, _ = data()
    estimator = fitted(router, max_epochs=3, n_shared_experts=1)
    parts = estimator.predict_shared(X)
    parts = parts + (estimator.predict_gates(X) * estimator.predict_experts(X)).sum(1)
    assert_allclose(estimator.predict(X), parts, atol=1e-9)


@every_router
@pytest.mark.parametrize("solver", ["ridge", "adam+ridge"])
def test_each_router_goes_with_the_closed_form(router, solver):
    X, y = data()
    assert fitted(router, solver=solver, n_experts=4).score(X, y) > 0.3


@every_router
def test_each_router_takes_one_expert(router):
    estimator = fitted(router, n_experts=1, max_epochs=3)
    assert estimator.apply(data()[0]).max() == 0


@every_router
def test_pickles_and_warm_starts_keep_what_a_router_counts(router):
    X, y = data()
    estimator = fitted(router, "parallel", max_epochs=3, warm_start=True)
    again = pickle.loads(pickle.dumps(estimator))
    assert_allclose(again.predict(X), estimator.predict(X), atol=1e-12)
    for old, new in zip(routers_of(estimator), routers_of(again), strict=True):
        assert list(old.state_dict()) == list(new.state_dict())
    assert_allclose(again.fit(X, y).predict(X), estimator.fit(X, y).predict(X), atol=1e-9)


@pytest.mark.parametrize(
    ("router", "n_experts", "top_k"),
    [("noisy_top_k", 8, 2), ("expert_choice", 8, 2), ("hash", 8, 1), ("softmax", 8, None)],
)
def test_top_k_auto_is_what_the_router_is_made_for(router, n_experts, top_k):
    estimator = fitted(router, n_experts=n_experts, max_epochs=1)
    assert [r.top_k for r in routers_of(estimator)] == [top_k]
    everyone = fitted(router, n_experts=n_experts, max_epochs=1, top_k=None)
    assert [r.top_k for r in routers_of(everyone)] == [None]


@every_estimator
@pytest.mark.parametrize("expert", ["mlp", "latent"])
def test_hash_does_not_depend_on_training(kind, expert):
    if kind == "stack":
        pytest.skip("layers of a stack hash the state, which is learned")
    X, y = data()
    short, long = (fitted("hash", kind, expert=expert, max_epochs=n) for n in (1, 30))
    other = ESTIMATORS[kind](router="hash", expert=expert, max_epochs=1, random_state=0)
    for estimator in (long, other.fit(X, -3 * y)):
        assert_allclose(estimator.apply(X), short.apply(X))
    assert len(np.unique(short.apply(X))) > 2


@pytest.mark.parametrize("gate", ["hash", part("hash", n_projections=1, width=9.0), "auto"])
def test_hash_router_takes_its_own_gate(gate):
    n_projections = (
        {"n_projections": 1}.get("n_projections") if not isinstance(gate, str) else 4
    )
    layer = fitted("hash", gate=gate, max_epochs=1).net_.layer
    assert layer.gate.directions_BDP.shape[-1] == n_projections


def test_hash_router_refuses_other_gates():
    with pytest.raises(ValueError, match=r"router='hash' asks no other gate than its own"):
        fitted("hash", gate="mlp")


def test_learned_threshold_moves_in_training():
    X, _ = data()
    router = part("sigmoid", threshold="learn")
    active = [(fitted(router, max_epochs=n).predict_gates(X) > 0).sum(1) for n in (1, 100)]
    assert all(count.min() >= 0 and count.max() <= 8 for count in active)
    gates = [fitted(router, max_epochs=n, gate="linear").net_.layer.gate for n in (1, 100)]
    thresholds = [gate.linear.weight[0, :, -1].detach() for gate in gates]
    assert not np.allclose(*thresholds, atol=0.01)


def test_noise_is_in_training_only_and_reproducible():
    X, _ = data()
    assert fitted("noisy_top_k").net_.layer.gate.noise == 1 / 8
    one, two = (fitted("noisy_top_k", max_epochs=5).predict(X) for _ in range(2))
    assert_allclose(one, two)
    quiet = fitted("noisy_top_k", max_epochs=5, gate=part("linear", noise=0.0))
    assert not np.allclose(quiet.predict(X), one)


def test_a_search_reaches_the_number_of_groups():
    X, y = data()
    moe = MoERegressor(8, router=part("hierarchical"), max_epochs=5, random_state=0)
    search = GridSearchCV(moe, {"router__n_groups": [1, 2, 4]}, cv=2).fit(X, y)
    assert search.best_params_["router__n_groups"] in (1, 2, 4)


def test_balance_by_a_bias_evens_out_the_load():
    kind = "normalized_sigmoid"
    usage = [
        fitted(
            part(kind, balance_rate=rate), n_experts=8, top_k=1, max_epochs=150
        ).expert_usage_
        for rate in (0.0, 0.02)
    ]
    assert usage[1].max() < usage[0].max()
    assert usage[1].min() > usage[0].min()
