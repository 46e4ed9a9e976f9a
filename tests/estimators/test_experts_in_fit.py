"""Kinds of experts behind the estimators: each works by its name alone."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from small import ESTIMATORS, every_estimator

from skmoe import MoERegressor, part
from skmoe.datasets import make_manifold_regression
from skmoe.nn.experts import EXPERTS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
every_expert = pytest.mark.parametrize("expert", EXPERTS)
in_one_tensor = pytest.mark.parametrize("expert", ["cp", "tensor_ring"])


def data(n=200):
    X = np.random.RandomState(0).randn(n, 4)
    return X, np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]


def fitted(expert, kind="shallow", **parameters):
    X, y = data()
    parameters = {"max_epochs": 60, "random_state": 0, **parameters}
    return ESTIMATORS[kind](expert=expert, **parameters).fit(X, y)


@every_expert
@every_estimator
def test_each_kind_learns_by_its_name_alone(expert, kind):
    X, y = data()
    assert fitted(expert, kind).score(X, y) > 0.5


@every_expert
@pytest.mark.parametrize("n_experts", [1, 16])
def test_each_kind_takes_few_and_many_experts(expert, n_experts):
    X, y = data()
    alone = expert == "constant" and n_experts == 1
    assert fitted(expert, n_experts=n_experts).score(X, y) > (-0.01 if alone else 0.3)


@pytest.mark.parametrize("expert", [expert for expert in EXPERTS if EXPERTS[expert].sums])
def test_prediction_is_the_sum_of_its_parts(expert):
    X, _ = data()
    estimator = fitted(expert, max_epochs=3, n_shared_experts=1)
    answers = (estimator.predict_gates(X) * estimator.predict_experts(X)).sum(1)
    assert_allclose(estimator.predict(X), estimator.predict_shared(X) + answers, atol=1e-9)


@every_expert
@every_estimator
def test_pickles_predict_the_same(expert, kind):
    X, _ = data()
    estimator = fitted(expert, kind, max_epochs=3)
    again = pickle.loads(pickle.dumps(estimator))
    assert_allclose(again.predict(X), estimator.predict(X), atol=1e-12)


@in_one_tensor
def test_top_k_auto_asks_all_experts_of_one_tensor(expert):
    X, y = data()
    many = fitted(expert, n_experts=500, max_epochs=30, router="entmax")
    assert many.predict_gates(X).shape == (200, 500)
    assert many.score(X, y) > 0.3
    for router in ("noisy_top_k", "expert_choice"):
        assert fitted(expert, router=router, max_epochs=2).net_.layer.router.top_k is None


@in_one_tensor
def test_some_experts_of_one_tensor_cannot_be_asked(expert):
    with pytest.raises(ValueError, match=rf"expert='{expert}' .* Use top_k=None\. Got top_k=2"):
        fitted(expert, top_k=2)


def test_a_core_of_probability_zero_keeps_every_bit():
    one, two = (
        fitted(part("mpo", core_update_prob=0.0), max_epochs=n, weight_decay=0.5)
        for n in (1, 30)
    )
    cores = [estimator.net_.layer.experts.hidden.core for estimator in (one, two)]
    assert torch.equal(*cores)
    assert not torch.equal(*(e.net_.layer.experts.hidden.left for e in (one, two)))
    moved = [
        fitted("mpo", max_epochs=n).net_.layer.experts.hidden.core.detach() for n in (1, 30)
    ]
    assert not torch.equal(*moved)


def test_steps_of_a_core_are_drawn_reproducibly():
    X, _ = data()
    spec = part("mpo", core_update_prob=0.5)
    before = torch.get_rng_state()
    one, two = (fitted(spec, max_epochs=5, solver="adam").predict(X) for _ in range(2))
    assert np.array_equal(one, two)
    assert torch.equal(before, torch.get_rng_state())


# A list of kinds

KINDS = ["linear", "mlp", "constant", "latent"]


@every_estimator
def test_a_list_learns_and_says_how_many_experts_there_are(kind):
    X, y = data()
    estimator = fitted(KINDS, kind)
    assert estimator.score(X, y) > 0.5
    assert estimator.expert_usage_.shape[-1] == 4


@pytest.mark.parametrize("router", ["softmax", "sigmoid", "expert_choice"])
@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_some_experts_of_a_list_may_be_asked(router, top_k):
    X, _ = data()
    estimator = fitted(KINDS, router=router, top_k=top_k, n_shared_experts=1)
    answers = (estimator.predict_gates(X) * estimator.predict_experts(X)).sum(1)
    assert_allclose(estimator.predict(X), estimator.predict_shared(X) + answers, atol=1e-9)
    if router == "softmax":
        assert ((estimator.predict_gates(X) > 0).sum(1) == (top_k or 4)).all()


def test_a_list_survives_clone_and_pickle():
    X, _ = data()
    estimator = fitted(["linear", part("mlp", hidden_dim=5)], max_epochs=3)
    again = pickle.loads(pickle.dumps(estimator))
    assert_allclose(again.predict(X), estimator.predict(X), atol=1e-12)
    refitted = clone(estimator).fit(*data())
    assert_allclose(refitted.predict(X), estimator.predict(X))


@pytest.mark.parametrize(
    ("expert", "n_experts", "message"),
    [
        (["mlp", "linaer"], "auto", "Did you mean 'linear'"),
        (["mlp", "linear"], 3, "one entry for each. Got 2 entries and n_experts=3"),
        ([], "auto", "a list of them"),
    ],
)
def test_bad_lists_are_refused(expert, n_experts, message):
    with pytest.raises(ValueError, match=message):
        fitted(expert, n_experts=n_experts)


def test_a_list_works_on_few_axes():
    X, y = make_manifold_regression(2500, n_features=20, target="pieces", random_state=0)
    estimator = MoERegressor(expert=["mlp", "linear"], max_epochs=3, random_state=0).fit(X, y)
    assert estimator.net_.axes is not None
    assert estimator.expert_usage_.shape == (2,)
