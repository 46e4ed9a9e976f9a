"""Displays draw what they hold; matplotlib is asked for late."""

import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from skmoe import DeepMoERegressor, MoERegressor
from skmoe.inspection import RegionErrors, expert_response, expert_usage
from skmoe.plotting import (
    ErrorByRegionDisplay,
    ExpertResponseDisplay,
    ExpertsCurveDisplay,
    ExpertUsageDisplay,
    LayerProbeDisplay,
    LearningCurveDisplay,
    RoutingFlowDisplay,
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
def test_usage_display_needs_rows_to_weigh(fitted):
    with pytest.raises(ValueError, match="X is required when sample_weight is given"):
        ExpertUsageDisplay.from_estimator(fitted[0], sample_weight=[1.0, 2.0])


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


def test_usage_display_marks_dead_experts():
    display = ExpertUsageDisplay([[0.5, 0.5, 0.0], [0.4, 0.3, 0.3]]).plot()
    (x,), (y,) = display.dead_.get_data()
    bar = display.bars_[0][2]
    assert (x, y) == pytest.approx((bar.get_x() + bar.get_width() / 2, 0.0))
    assert ExpertUsageDisplay([0.5, 0.5]).plot().dead_ is None


@pytest.mark.parametrize("n_experts", [3, 40])
@pytest.mark.parametrize("dead", [False, True])
def test_usage_display_lists_experts_if_they_are_few(n_experts, dead):
    usage = np.full((2, n_experts), 1 / n_experts)
    usage[0, 0] *= not dead
    legend = ExpertUsageDisplay(usage).plot().ax_.get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    lines = ["even share", "dead below", *["dead expert"] * dead]
    assert labels == lines + [f"expert {e}" for e in range(n_experts) if n_experts == 3]


HISTORY = [
    {
        "train_loss": 1.0 / epoch,
        "switch_loss": 0.01,
        "z_loss": 0.02 * epoch,
        "usage": [[0.2, 0.8], [0.5, 0.5]],
        "gate_entropy": [0.9, 0.1 * epoch],
    }
    for epoch in (1, 2, 3)
]


def test_learning_curve_has_a_panel_for_all_that_the_fit_has():
    display = LearningCurveDisplay(HISTORY).plot(panels="all")
    assert list(display.axes_) == ["loss", "auxiliary", "usage", "entropy"]
    lines = {
        panel: {line.get_label(): line.get_ydata().tolist() for line in lines}
        for panel, lines in display.panel_lines_.items()
    }
    assert lines["auxiliary"] == {"switch": [0.01] * 3, "z": [0.02, 0.04, 0.06]}
    assert lines["entropy"]["layer 1"] == pytest.approx([0.1, 0.2, 0.3])
    assert lines["usage"]["layer 0"] == [0.8] * 3
    one = LearningCurveDisplay([{**e, "usage": e["usage"][:1]} for e in HISTORY])
    usage = one.plot(panels="usage").panel_lines_["usage"]
    assert [line.get_ydata()[0] for line in usage] == [0.2, 0.8]
    assert list(LearningCurveDisplay([{"train_loss": 1.0}]).plot(panels="all").axes_) == [
        "loss"
    ]


def test_learning_curve_needs_axes_for_its_panels_and_known_panels():
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(2)
    display = LearningCurveDisplay(HISTORY).plot(ax, panels=["entropy", "loss"])
    assert list(display.axes_.values()) == list(ax)
    with pytest.raises(ValueError, match=r"one axes for each panel\. Got 2 for 1"):
        LearningCurveDisplay(HISTORY).plot(ax)
    with pytest.raises(ValueError, match=r"panels must be of .* Got 'lose'"):
        LearningCurveDisplay(HISTORY).plot(panels="lose")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_response_display_is_as_thick_as_the_weights(fitted):
    moe, X = fitted
    display = ExpertResponseDisplay.from_estimator(
        moe, X, 0, grid_resolution=8, target_name="noise (dB)"
    )
    response = expert_response(moe, X, 0, grid_resolution=8)
    assert np.array_equal(display.lines_[0].get_ydata(), response.prediction)
    assert display.ax_.get_ylabel() == "answer alone: noise (dB)"
    for expert, lines in enumerate(display.experts_):
        starts = [segment[0] for segment in lines.get_segments()]
        expected = np.column_stack([response.grid, response.answers[:, expert]])[:-1]
        np.testing.assert_allclose(starts, expected)
        order = np.argsort(lines.get_linewidths(), kind="stable")
        assert np.all(np.diff(response.weights[:-1, expert][order]) >= 0)


def test_flow_display_has_ribbons_as_high_as_their_share():
    flow = np.array([[[0.5, 0.25], [0.0, 0.25]], [[0.5, 0.0], [0.1, 0.4]]])
    display = RoutingFlowDisplay(flow).plot()
    heights = [{e: n.get_height() for e, n in nodes.items()} for nodes in display.nodes_]
    assert heights[0] == pytest.approx({0: 0.75, 1: 0.25})
    assert heights[1] == pytest.approx({0: 0.5, 1: 0.5})
    assert heights[2] == pytest.approx({0: 0.6, 1: 0.4})
    assert len(display.ribbons_) == 6
    first = display.ribbons_[0].get_paths()[0].vertices
    left = first[np.isclose(first[:, 0], first[:, 0].min()), 1]
    assert np.ptp(left) == pytest.approx(0.5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_flow_display_follows_the_rows_of_a_deep_mixture():
    X = np.random.default_rng(0).uniform(-1, 1, (80, 3))
    moe = DeepMoERegressor(3, 2, max_epochs=2, random_state=0).fit(X, X[:, 0])
    nodes = RoutingFlowDisplay.from_estimator(moe, X).nodes_
    for layer, column in enumerate(moe.apply(X).T):
        shares = {e: node.get_height() for e, node in nodes[layer].items()}
        assert shares == pytest.approx({e: (column == e).mean() for e in set(column)})


def test_error_display_has_bars_and_means_of_one_output():
    table = np.array([[1.0, 3.0], [2.0, 4.0]])
    errors = RegionErrors(np.array(["a", "b"]), table, -table, [0.25, 0.75], table[0])
    display = ErrorByRegionDisplay(errors, "soil", "yield (t)").plot(output=1)
    assert [bar.get_height() for bar in display.bars_] == [3.0, 4.0]
    means, total = display.lines_
    assert means.get_ydata().tolist() == [-3.0, -4.0]
    assert total.get_ydata()[0] == 3.0
    assert display.ax_.get_ylabel() == "error of yield (t)"
    labels = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert labels == ["a\n(25%)", "b\n(75%)"]
    assert not display.ax_.texts  # nothing that lines could cross
    legend = display.ax_.get_legend()
    display.figure_.draw_without_rendering()
    assert legend.get_window_extent().x0 >= display.ax_.get_window_extent().x1  # covers no bar


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_error_display_of_experts_says_so(fitted):
    moe, X = fitted
    display = ErrorByRegionDisplay.from_estimator(moe, X, X[:, 0] ** 2)
    assert display.ax_.get_xlabel().startswith("expert")
    assert len(display.bars_) == len(display.errors.names)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_nothing_of_a_new_figure_is_cut_off(fitted, curve):
    moe, X = fitted
    y = X[:, 0] ** 2
    for display in (
        ErrorByRegionDisplay.from_estimator(moe, X, y, target_name="yield (t)"),
        ExpertResponseDisplay.from_estimator(moe, X, 0, grid_resolution=3),
        ExpertUsageDisplay.from_estimator(moe),
        ExpertsCurveDisplay(curve).plot(),
        LayerProbeDisplay.from_estimator(moe, X, y),
        LearningCurveDisplay.from_estimator(moe),
        RoutingMapDisplay.from_estimator(moe, X, features="pca", regions=X[:, 0] > 0),
    ):
        figure = display.figure_
        figure.draw_without_rendering()
        drawn, whole = figure.get_tightbbox(), figure.bbox_inches
        assert whole.x0 <= drawn.x0, display
        assert whole.y0 <= drawn.y0, display
        assert drawn.x1 <= whole.x1, display
        assert drawn.y1 <= whole.y1, display


def test_map_of_two_features_has_areas_and_regions_beside():
    X = np.random.default_rng(0).uniform(-1, 1, (60, 2))
    moe = MoERegressor(3, solver="ridge", hidden_dim=4, random_state=0).fit(X, X[:, 0] ** 2)
    regions = np.where(X[:, 0] > 0, "right", "left")
    display = RoutingMapDisplay.from_estimator(
        moe, X, features=(1, 0), regions=regions, grid_resolution=9
    )
    x, y, experts = display.areas
    grid = np.column_stack([np.tile(y[:, None], 9).ravel(), np.tile(x, 9)])
    assert np.array_equal(moe.apply(grid), experts.ravel())
    assert display.regions_ax_ is not display.ax_
    beside = display.regions_ax_.collections[0]
    assert np.array_equal(beside.get_array(), regions == "right")
    with pytest.raises(ValueError, match=r"ax must be two axes with regions\. Got 1"):
        display.plot(display.ax_)
    assert RoutingMapDisplay.from_estimator(moe, X, grid_resolution=0).areas_ is None


def test_map_of_principal_components_shows_all_rows():
    X = np.random.default_rng(0).uniform(-1, 1, (60, 4))
    moe = MoERegressor(10, solver="ridge", hidden_dim=4, random_state=0).fit(X, X[:, 0] ** 2)
    display = RoutingMapDisplay.from_estimator(moe, X, features="pca")
    assert display.points.shape == (60, 2)
    assert np.cov(display.points.T)[0, 1] == pytest.approx(0, abs=1e-9)
    for wrong, message in (
        ({"features": "tsne"}, "features must be a pair of columns, or 'pca'"),
        ({"features": (0,)}, "features must be a pair of columns, or 'pca'"),
        ({"layer": 1}, r"layer must be in \[0, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            RoutingMapDisplay.from_estimator(moe, X, **wrong)
