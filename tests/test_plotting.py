"""Displays draw what they hold; matplotlib is asked for late."""

import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from skmoe import DeepMoERegressor, MoERegressor
from skmoe.inspection import expert_usage
from skmoe.plotting import (
    ExpertsCurveDisplay,
    ExpertUsageDisplay,
    LayerProbeDisplay,
    LearningCurveDisplay,
    RoutingMapDisplay,
)
from skmoe.search import ExpertsCurve

mpl.use("Agg")


@pytest.fixture
def curve():
    train = np.array([[0.6, 0.8], [0.9, 1.0], [1.0, 1.0]])
    test = np.array([[0.5, 0.7], [0.7, 0.9], [0.6, 0.8]])
    return ExpertsCurve(np.array([1, 2, 4]), train, test, np.ones(3))


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def test_lines_are_means_and_the_choice(curve):
    display = ExpertsCurveDisplay(curve).plot()
    training, test, choice = display.lines_
    assert np.array_equal(training.get_xdata(), [1, 2, 4])
    assert training.get_ydata() == pytest.approx([0.7, 0.95, 1.0])
    assert test.get_ydata() == pytest.approx([0.6, 0.8, 0.7])
    assert set(choice.get_xdata()) == {curve.best_n_experts_}
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["1", "2", "4"]


def test_draws_on_given_axes(curve):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    display = ExpertsCurveDisplay(curve).plot(ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is figure


def test_one_fold_has_no_band(curve):
    one = ExpertsCurve(curve.n_experts, curve.train_scores[:, :1], curve.test_scores[:, :1], [])
    assert len(ExpertsCurveDisplay(one).plot().lines_) == 3


def test_from_estimator_computes_and_draws():
    X = np.random.default_rng(0).uniform(-1, 1, (60, 2))
    moe = MoERegressor(solver="ridge", hidden_dim=4, random_state=0)
    display = ExpertsCurveDisplay.from_estimator(moe, X, X[:, 0] ** 2, n_experts=(1, 2), cv=2)
    assert display.curve.test_scores.shape == (2, 2)
    assert np.array_equal(display.lines_[1].get_xdata(), [1, 2])


def test_without_matplotlib_the_error_says_what_to_install(curve, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install skmoe\[plot\]"):
        ExpertsCurveDisplay(curve).plot()


def test_probe_display_has_a_line_for_each_target():
    scores = np.array([[0.1, 0.9], [0.5, 0.8], [1.0, 0.1]])
    display = LayerProbeDisplay(scores, ["y", "region"]).plot()
    assert [line.get_label() for line in display.lines_] == ["y", "region"]
    assert np.array_equal(display.lines_[0].get_ydata(), [0.1, 0.5, 1.0])
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["X", "1", "2"]
    # Filled where a target is known first: y in layer 2, the region in X.
    first = [line.get_xydata().tolist() for line in display.ax_.lines[1::2]]
    assert first == [[[2.0, 1.0]], [[0.0, 0.9]]]


def test_probe_display_takes_names_from_a_data_frame():
    X = np.random.default_rng(0).uniform(-1, 1, (60, 2))
    moe = MoERegressor(2, solver="ridge", hidden_dim=4, random_state=0).fit(X, X[:, 0] ** 2)
    targets = pd.DataFrame({"y": X[:, 0] ** 2, "side": X[:, 1] > 0})
    display = LayerProbeDisplay.from_estimator(moe, X, targets)
    assert [line.get_label() for line in display.lines_] == ["y", "side"]
    assert display.scores.shape == (2, 2)


@pytest.fixture(params=["shallow", "deep"])
def fitted(request):
    X = np.random.default_rng(0).uniform(-1, 1, (80, 3))
    kind = MoERegressor if request.param == "shallow" else DeepMoERegressor
    sizes = {} if request.param == "shallow" else {"n_layers": 2}
    settings = {"solver": "adam", "max_epochs": 4, "random_state": 0, "early_stopping": True}
    return kind(n_experts=3, **sizes, **settings).fit(X, X[:, 0] ** 2), X


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_usage_display_has_a_bar_for_each_expert_and_layer(fitted):
    moe, X = fitted
    for display, usage in (
        (ExpertUsageDisplay.from_estimator(moe), moe.expert_usage_),
        (ExpertUsageDisplay.from_estimator(moe, X[:20]), expert_usage(moe, X[:20])),
    ):
        heights = [[bar.get_height() for bar in bars] for bars in display.bars_]
        assert np.allclose(heights, np.atleast_2d(usage))
    assert [line.get_ydata()[0] for line in display.lines_] == pytest.approx([1 / 3, 0.1 / 3])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_learning_curve_shows_the_history(fitted):
    moe, _ = fitted
    display = LearningCurveDisplay.from_estimator(moe)
    for line, key in zip(display.lines_, ("train_loss", "valid_loss"), strict=True):
        assert np.array_equal(line.get_xdata(), [1, 2, 3, 4])
        assert np.array_equal(line.get_ydata(), [epoch[key] for epoch in moe.history_])
    assert display.ax_.get_yscale() == "log"
    negative = LearningCurveDisplay([{"train_loss": 0.5}, {"train_loss": -0.5}]).plot()
    assert negative.ax_.get_yscale() == "linear"
    assert LearningCurveDisplay([{}]).plot().lines_ == []


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_routing_map_colours_rows_by_their_expert(fitted):
    moe, X = fitted
    display = RoutingMapDisplay.from_estimator(moe, X, features=(2, 0))
    experts = moe.apply(X)
    experts = experts if experts.ndim == 1 else experts[:, 0]
    assert np.array_equal(display.points_.get_offsets(), X[:, [2, 0]])
    assert np.array_equal(display.points_.get_array(), experts)
    assert display.ax_.get_xlabel() == "feature 2"
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    named = MoERegressor(2, solver="ridge", hidden_dim=4).fit(frame, X[:, 0])
    assert RoutingMapDisplay.from_estimator(named, frame).ax_.get_ylabel() == "b"


@pytest.mark.parametrize(
    "draw",
    [ExpertUsageDisplay.from_estimator, LearningCurveDisplay.from_estimator],
)
def test_displays_need_a_fit(draw):
    with pytest.raises(NotFittedError):
        draw(MoERegressor())
