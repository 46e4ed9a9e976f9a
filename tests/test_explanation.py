"""What parts add to a prediction adds up to it, and is what they add."""

import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.inspection import PartialDependenceDisplay, permutation_importance
from small import make

from skmoe import MoERegressor
from skmoe.inspection import explain

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
N = 40
DEEP = ["parallel", "stack", "ensemble"]


@pytest.fixture
def problem():
    X = np.random.default_rng(0).normal(size=(N, 3))
    return X, 300 + 20 * X[:, 0] ** 2 + X[:, 1]


def total(explanation):
    return explanation.base + explanation.contributions.sum(axis=1)


@pytest.mark.parametrize("kind", ["shallow", *DEEP])
@pytest.mark.parametrize("n_outputs", [0, 2])
def test_contributions_add_up_to_the_prediction(kind, n_outputs, problem):
    X, y = problem
    y = np.column_stack([y, -y]) if n_outputs else y
    moe = make(kind, top_k=2).fit(X, y)
    explanation = explain(moe, X)
    assert np.array_equal(explanation.prediction, moe.predict(X))
    assert explanation.of_layers == (kind != "shallow")
    np.testing.assert_allclose(total(explanation), moe.predict(X), rtol=1e-12)
    frame = explanation.to_frame()
    cells = ["row", "output"] if n_outputs else ["row"]
    sums = frame.groupby(cells)[["contribution", "prediction"]].agg(
        {"contribution": "sum", "prediction": "first"}
    )
    np.testing.assert_allclose(sums["contribution"], sums["prediction"])
    assert np.array_equal(sums["prediction"], moe.predict(X).ravel())


def test_lines_of_experts_are_those_that_the_row_asks(problem):
    moe = make("shallow", top_k=2).fit(*problem)
    X, _ = problem
    frame = explain(moe, X).to_frame()
    assert frame.groupby("row").size().eq(2).all()
    np.testing.assert_allclose(frame["contribution"], frame["weight"] * frame["answer"])
    expert = frame["part"].str.removeprefix("expert ").astype(int)
    answers = moe.predict_experts(X)
    assert np.array_equal(frame["answer"], answers[frame["row"], expert])
    assert np.array_equal(frame["weight"], moe.predict_gates(X)[frame["row"], expert])


def test_shared_experts_and_adapters_have_a_line_of_their_own(problem):
    X, y = problem
    moe = make("shallow", n_shared_experts=1).fit(X, y)
    tuned = make("shallow").fit(X, y).fine_tune(X, y + X[:, 2], method="adapters")
    for fitted in (moe, tuned):
        frame = explain(fitted, X).to_frame()
        shared = frame[frame["part"] == "shared"]
        np.testing.assert_allclose(shared["contribution"], fitted.predict_shared(X))
        np.testing.assert_allclose(total(explain(fitted, X)), fitted.predict(X))


def test_merged_experts_have_no_sum_and_count_as_one_layer(problem):
    X, y = problem
    moe = make("shallow", expert="merged").fit(X, y)
    explanation = explain(moe, X)
    assert explanation.of_layers
    assert explanation.contributions.shape == (N, 1)
    np.testing.assert_allclose(total(explanation), moe.predict(X))


@pytest.mark.parametrize("kind", DEEP)
def test_a_layer_that_says_nothing_adds_nothing(kind, problem):
    X, y = problem
    moe = make(kind, expert="linear").fit(X, y)
    layers = moe.net_.moe_layers()
    last = layers[-1]
    for weight in last.experts.parameters():
        weight.data[-last.experts.n_experts :] = 0  # those of the last block
    gains = explain(moe, X).contributions
    assert not gains[:, -1].any()
    assert np.abs(gains[:, 0]).max() > 0


def test_members_of_an_ensemble_add_what_they_add_alone(problem):
    X, y = problem
    moe = make("ensemble").fit(X, y)
    before = explain(moe, X).contributions[:, 0]
    for member in (1, 2):  # silent whatever the others say
        moe.net_.mix.weight.data[member] = 0
    np.testing.assert_allclose(explain(moe, X).contributions[:, 0], before)


def test_of_two_layers_the_gain_is_the_mean_of_both_orders(problem):
    X, y = problem
    moe = make("stack", n_layers=2).fit(X, y)
    explanation = explain(moe, X)
    first = moe.net_.moe_layers()[0]
    hook = first.register_forward_hook(lambda layer, inputs, answer: (0 * answer[0], answer[1]))
    second_alone = moe.predict(X)
    hook.remove()
    hook = moe.net_.moe_layers()[1].register_forward_hook(
        lambda layer, inputs, answer: (0 * answer[0], answer[1])
    )
    first_alone = moe.predict(X)
    hook.remove()
    both, none = explanation.prediction, explanation.base
    gain = ((second_alone - none) + (both - first_alone)) / 2
    np.testing.assert_allclose(explanation.contributions[:, 1], gain, atol=1e-9)


def test_rows_are_explained_for_themselves_and_nothing_is_changed(problem):
    X, y = problem
    moe = make("parallel").fit(X, y)
    before = moe.predict(X)
    alone = explain(moe, X[3:4])
    np.testing.assert_allclose(alone.contributions[0], explain(moe, X).contributions[3])
    assert np.array_equal(moe.predict(X), before)


def test_rows_keep_the_names_of_a_data_frame(problem):
    X, y = problem
    frame = pd.DataFrame(X, columns=["a", "b", "c"], index=[f"site {i}" for i in range(N)])
    moe = make("shallow").fit(frame, y)
    assert list(dict.fromkeys(explain(moe, frame).to_frame()["row"])) == list(frame.index)
    assert explain(make("shallow").fit(X, y), X.tolist()).rows.tolist() == list(range(N))


def test_what_cannot_be_explained_is_refused(problem, monkeypatch):
    with pytest.raises(NotFittedError):
        explain(MoERegressor(), problem[0])
    explanation = explain(make("shallow").fit(*problem), problem[0])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install skmoe\[data\]"):
        explanation.to_frame()


@pytest.mark.parametrize("kind", ["shallow", "parallel"])
def test_inspections_of_scikit_learn_work(kind, problem):
    X, y = problem
    moe = make(kind, max_epochs=100).fit(X, y)
    importance = permutation_importance(moe, X, y, n_repeats=3, random_state=0)
    assert importance.importances_mean.argmax() == 0
    mpl.use("Agg")
    display = PartialDependenceDisplay.from_estimator(
        moe, X, features=[0, (0, 1)], kind="average", grid_resolution=7
    )
    curve = display.pd_results[0]
    grid, mean = curve["grid_values"][0], curve["average"][0]
    moved = X.copy()
    moved[:, 0] = grid[2]
    assert mean[2] == pytest.approx(moe.predict(moved).mean())
    mpl.pyplot.close("all")


@pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning")
@pytest.mark.parametrize("kind", ["shallow", "ensemble"])
def test_the_explainer_of_shap_for_any_model_works(kind):
    shap = pytest.importorskip("shap")
    frame = pd.DataFrame(
        np.random.default_rng(0).uniform(-1, 1, (200, 3)), columns=["slope", "bend", "noise"]
    )
    moe = make(kind, max_epochs=60).fit(frame, 2 * frame.slope + frame.bend**2)
    explainer = shap.KernelExplainer(moe.predict, frame[:20])
    values = explainer.shap_values(frame[20:50], silent=True)
    assert explainer.expected_value == pytest.approx(moe.predict(frame[:20]).mean())
    np.testing.assert_allclose(
        explainer.expected_value + values.sum(axis=1), moe.predict(frame[20:50]), atol=1e-6
    )
    size = np.abs(values).mean(axis=0)
    assert size[0] > size[1] > size[2]
