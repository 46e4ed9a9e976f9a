"""Displays draw what they hold; matplotlib is asked for late."""

import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from skmoe import MoERegressor
from skmoe.plotting import ExpertsCurveDisplay, LayerProbeDisplay
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
