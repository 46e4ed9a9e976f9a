"""Search spaces fit every search of scikit-learn; the curve is cross-validation over E."""

import sys

import numpy as np
import optuna
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    ParameterSampler,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmoe import DeepMoERegressor, MoERegressor
from skmoe.search import ExpertsCurve, experts_curve, search_space

QUICK = {"solver": "ridge", "hidden_dim": 6, "random_state": 0}
every_estimator = pytest.mark.parametrize("estimator", [MoERegressor(), DeepMoERegressor()])
every_kind = pytest.mark.parametrize("kind", ["grid", "distributions"])


@pytest.fixture(scope="module")
def problem():
    X = np.random.default_rng(0).uniform(-1, 1, (90, 2))
    return X, np.sin(3 * X[:, 0]) + np.abs(X[:, 1])


@every_estimator
@every_kind
@pytest.mark.parametrize("n_samples", [10, 60, 1000, None, 10**6])
def test_estimators_accept_what_a_space_holds(estimator, kind, n_samples):
    space = search_space(estimator, n_samples, 3, kind=kind)
    for params in ParameterSampler(space, n_iter=2, random_state=0):
        clone(estimator).set_params(**params)._validate_params()


@every_estimator
def test_few_rows_get_few_experts(estimator):
    spaces = [search_space(estimator, n)["n_experts"] for n in (10, 100, 1000, 10**5)]
    largest = [max(n for n in numbers if n != "auto") for numbers in spaces]
    assert largest == sorted(largest)
    assert largest[0] == 1
    assert all(most * 25 <= n for most, n in zip(largest[1:], (100, 1000, 10**5), strict=True))


def test_only_deep_mixtures_have_layers_to_search():
    assert "n_layers" in search_space(DeepMoERegressor())
    assert "n_layers" not in search_space(MoERegressor())


def test_very_many_features_need_no_question_about_bins():
    spaces = [search_space(MoERegressor(), 1000, D, kind="distributions") for D in (10, 1000)]
    assert ["embedding" in space for space in spaces] == [True, False]


def test_prefix_is_read_off_the_estimator_or_given():
    plain = search_space(MoERegressor())
    around = make_pipeline(StandardScaler(), TransformedTargetRegressor(MoERegressor()))
    prefix = "transformedtargetregressor__regressor__"
    assert search_space(around) == {prefix + name: v for name, v in plain.items()}
    assert list(search_space(MoERegressor(), prefix="moe__")) == [f"moe__{k}" for k in plain]


@every_estimator
@every_kind
def test_the_default_number_of_experts_is_in_the_space(estimator, kind):
    assert estimator.n_experts in search_space(estimator, 4000, kind=kind)["n_experts"]


def test_learning_rates_are_around_that_of_the_estimator():
    space = search_space(MoERegressor(learning_rate=0.5))
    assert max(space["learning_rate"]) == 0.5


def test_what_cannot_be_searched_over_is_refused():
    with pytest.raises(ValueError, match=r"must hold one mixture of experts.*Got 0 of them"):
        search_space(Ridge())
    with pytest.raises(ValueError, match=r"kind must be one of .* Got kind='all'"):
        search_space(MoERegressor(), kind="all")


@pytest.mark.parametrize(
    ("search", "kind", "settings"),
    [
        (GridSearchCV, "grid", {}),
        (HalvingGridSearchCV, "grid", {"min_resources": 40, "random_state": 0}),
        (RandomizedSearchCV, "distributions", {"n_iter": 2, "random_state": 0}),
    ],
)
def test_searches_run(search, kind, settings, problem):
    pipeline = make_pipeline(StandardScaler(), MoERegressor(**QUICK))
    space = search_space(pipeline, len(problem[0]), kind=kind)
    found = search(pipeline, space, cv=2, **settings).fit(*problem)
    assert set(found.best_params_) == set(space)


def test_the_space_of_optuna_holds_what_the_distributions_hold():
    given = MoERegressor(), 1000, 3
    space = search_space(*given, kind="optuna")
    drawn = search_space(*given, kind="distributions")
    assert list(space) == list(drawn)
    for name, values in drawn.items():
        if isinstance(values, list):
            assert list(space[name].choices) == values
        else:
            assert (space[name].low, space[name].high) == values.support()
            assert space[name].log


def test_a_study_of_optuna_asks_for_parameters_of_a_pipeline(problem):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y = problem
    pipeline = make_pipeline(StandardScaler(), MoERegressor(**QUICK))
    space = search_space(pipeline, len(y), kind="optuna")
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(3):
        trial = study.ask(space)
        candidate = clone(pipeline).set_params(**trial.params)
        study.tell(trial, cross_validate(candidate, X, y, cv=2)["test_score"].mean())
    assert set(study.best_params) == set(space)


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna.distributions", None)
    with pytest.raises(ImportError, match=r"pip install skmoe\[search\]"):
        search_space(MoERegressor(), kind="optuna")


def test_curve_is_cross_validation_for_each_number(problem):
    moe, folds = MoERegressor(**QUICK), KFold(3, shuffle=True, random_state=5)
    curve = experts_curve(moe, *problem, n_experts=(1, 3), cv=3, random_state=5)
    assert curve.n_experts.tolist() == [1, 3]
    assert (curve.fit_times > 0).all()
    for i, n_experts in enumerate((1, 3)):
        one = clone(moe).set_params(n_experts=n_experts)
        expected = cross_validate(one, *problem, cv=folds, return_train_score=True)
        assert np.array_equal(curve.train_scores[i], expected["train_score"])
        assert np.array_equal(curve.test_scores[i], expected["test_score"])


def test_curve_shuffles_for_any_integer_and_has_one_score(problem):
    X, y = (part[np.argsort(problem[1])] for part in problem)
    moe = MoERegressor(solver="ridge", hidden_dim=4, random_state=0)
    one, other = (
        experts_curve(moe, X, y, n_experts=(1, 2), cv=cv, random_state=0)
        for cv in (3, np.int64(3))
    )
    np.testing.assert_array_equal(one.test_scores, other.test_scores)
    with pytest.raises(ValueError, match="scoring must be a single one"):
        experts_curve(moe, X, y, scoring=["r2", "max_error"])


def test_curve_of_a_pipeline_leaves_it_as_it_was(problem):
    pipeline = make_pipeline(StandardScaler(), MoERegressor(**QUICK, n_experts=5))
    scoring = "neg_mean_absolute_error"
    curve = experts_curve(pipeline, *problem, n_experts=[2], cv=2, scoring=scoring)
    assert curve.test_scores.shape == (1, 2)
    assert (curve.test_scores < 0).all()
    assert pipeline[-1].n_experts == 5
    assert not hasattr(pipeline[-1], "net_")


def test_curve_passes_weights_on(problem):
    X, y = problem
    moe, half = MoERegressor(**QUICK), np.arange(len(y)) % 2
    train, test = np.arange(60), np.arange(60, 90)
    folds = [(train, test)]
    weighted = experts_curve(moe, X, y, n_experts=[2], cv=folds, sample_weight=half)
    kept = [(rows[half[rows] > 0] for rows in folds[0])]
    fewer = experts_curve(moe, X, y, n_experts=[2], cv=kept)
    assert weighted.test_scores == pytest.approx(fewer.test_scores, rel=1e-5)


@pytest.mark.parametrize(
    ("test_scores", "choice"),
    [
        # Standard error of the best, 0.1: the second is within it, the first is not.
        ([[0.5, 0.7], [0.75, 0.85], [0.75, 0.95], [0.7, 0.7]], 2),
        ([[0.84, 0.84], [0.75, 0.85], [0.75, 0.95], [0.7, 0.7]], 1),
        ([[0.1], [0.2], [0.4], [0.3]], 4),  # one fold: no standard error
    ],
)
def test_choice_is_the_fewest_within_one_standard_error(test_scores, choice):
    scores = np.array(test_scores)
    curve = ExpertsCurve(np.array([1, 2, 4, 8]), scores, scores, np.ones(4))
    assert curve.best_n_experts_ == choice
