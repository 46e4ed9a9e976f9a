"""Meta-estimators of scikit-learn do with a mixture what they do with any regressor."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict, learning_curve
from sklearn.multioutput import MultiOutputRegressor, RegressorChain
from small import make

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
kinds = pytest.mark.parametrize("kind", ["shallow", "parallel"])


@kinds
def test_a_transformed_target_is_learned_and_transformed_back(kind, problem):
    X, y = problem
    moe = make(kind, max_epochs=5)
    around = TransformedTargetRegressor(moe, func=np.log, inverse_func=np.exp).fit(X, y)
    by_hand = np.exp(clone(moe).fit(X, np.log(y)).predict(X))
    np.testing.assert_allclose(around.predict(X), by_hand)
    two = np.column_stack([y, 2 * y])
    around = TransformedTargetRegressor(moe, func=np.log, inverse_func=np.exp).fit(X, two)
    assert around.predict(X).shape == two.shape


@kinds
def test_a_stack_weighs_predictions_of_rows_that_were_left_out(kind, problem):
    X, y = problem
    moe, folds = make(kind, max_epochs=5), KFold(3)
    members = [("moe", moe), ("linear", LinearRegression())]
    stack = StackingRegressor(members, final_estimator=RidgeCV(), cv=folds).fit(X, y)
    left_out = [cross_val_predict(clone(member), X, y, cv=folds) for _, member in members]
    final = RidgeCV().fit(np.column_stack(left_out), y)
    np.testing.assert_allclose(stack.final_estimator_.coef_, final.coef_)


@kinds
def test_a_vote_is_the_weighted_mean(kind, problem):
    X, y = problem
    moe = make(kind, max_epochs=5)
    vote = VotingRegressor([("moe", moe), ("linear", LinearRegression())], weights=[3, 1])
    expected = 0.75 * clone(moe).fit(X, y).predict(X)
    expected += 0.25 * LinearRegression().fit(X, y).predict(X)
    np.testing.assert_allclose(vote.fit(X, y).predict(X), expected)


@kinds
def test_a_bag_is_the_mean_of_mixtures_with_seeds_of_their_own(kind, problem):
    X, y = problem
    bag = BaggingRegressor(make(kind, max_epochs=5), n_estimators=3, max_features=2)
    bag.set_params(random_state=0, n_jobs=2).fit(X, y)
    members = zip(bag.estimators_, bag.estimators_features_, strict=True)
    predictions = np.array([moe.predict(X[:, features]) for moe, features in members])
    np.testing.assert_allclose(bag.predict(X), predictions.mean(0))
    assert len({moe.random_state for moe in bag.estimators_}) == 3
    assert predictions.std(0).max() > 0


def test_boosting_draws_rows_by_their_weights(problem):
    X, y = problem
    boosted = AdaBoostRegressor(make("shallow", max_epochs=40), n_estimators=3, random_state=0)
    assert boosted.fit(X, y).score(X, y) > LinearRegression().fit(X, y).score(X, y)


@kinds
def test_each_output_may_have_a_mixture_of_its_own(kind, problem):
    X, y = problem
    two, weight = np.column_stack([y, -y]), np.linspace(0.5, 1, len(y))
    moe = make(kind, max_epochs=5)
    each = MultiOutputRegressor(moe, n_jobs=2).fit(X, two, sample_weight=weight)
    by_hand = [clone(moe).fit(X, column, weight).predict(X) for column in two.T]
    np.testing.assert_allclose(each.predict(X), np.column_stack(by_hand))
    chain = RegressorChain(moe).fit(X, two)
    assert chain.estimators_[1].n_features_in_ == X.shape[1] + 1


def test_features_are_selected_by_the_score_of_the_mixture():
    X = np.random.default_rng(0).normal(size=(80, 4))
    moe = make("shallow", solver="ridge")
    selected = SequentialFeatureSelector(moe, n_features_to_select=1, cv=2).fit(X, X[:, 2] ** 2)
    assert selected.get_support().tolist() == [False, False, True, False]


def test_scores_grow_with_the_rows():
    X = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    moe = make("shallow", solver="ridge")
    _, _, scores = learning_curve(moe, X, np.sin(4 * X[:, 0]), train_sizes=[20, 100], cv=2)
    few, many = scores.mean(1)
    assert few < many
