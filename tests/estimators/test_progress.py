"""Who looks on sees each epoch, may stop the fit, and changes nothing else."""

import io
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import BatchScoring, Callback, Checkpoint, EpochScoring, LRScheduler
from small import make

from skmoe import DeepMoERegressor, MoERegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Recorder:
    """Writes down tasks and scores; may stop after some epochs."""

    max_propagation_depth = None

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.begun, self.ended, self.scores, self.told = [], [], [], []
        self.up = 0

    def setup(self, estimator, context):
        self.up += 1

    def teardown(self, estimator, context):
        self.up -= 1

    def on_fit_task_begin(self, estimator, context):
        self.begun.append((context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.ended.append(context.task_name)
        self.told.append((X, y, metadata))
        if hasattr(fitted_estimator, "score"):  # transformers have none
            self.scores.append(fitted_estimator.score(X, y))
        return context.task_name == "epoch" and self.ended.count("epoch") == self.stop_after


def test_tasks_are_the_fit_its_training_and_the_epochs(kind, problem):
    recorder = Recorder()
    moe = make(kind, max_epochs=4, solver="adam", early_stopping=False)
    alone = make(kind, max_epochs=4, solver="adam", early_stopping=False).fit(*problem)
    moe.set_callbacks(recorder).fit(*problem)
    assert recorder.begun == [("fit", None), ("train", 4)] + [("epoch", 0)] * 4
    assert recorder.ended == ["epoch"] * 4 + ["train", "fit"]
    assert recorder.up == 0
    assert np.array_equal(moe.predict(problem[0]), alone.predict(problem[0]))
    assert recorder.scores[-1] == recorder.scores[-2] == moe.score(*problem)
    # Each epoch has an estimator of its own; the last step is one of length zero.
    assert len(set(recorder.scores[:3])) == 3
    assert "_fit_tasks" not in vars(moe)


def test_a_callback_may_stop_the_training(kind, problem):
    moe = make(kind, max_epochs=9).set_callbacks(Recorder(stop_after=3)).fit(*problem)
    assert moe.n_iter_ == 3


def test_a_closed_form_fit_has_no_training_to_look_at(problem):
    recorder = Recorder()
    MoERegressor(solver="ridge", hidden_dim=4).set_callbacks(recorder).fit(*problem)
    assert recorder.ended == ["fit"]
    assert len(recorder.scores) == 1


def test_brief_fits_are_no_tasks_and_each_start_is_one():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (2200, 4))
    y = np.sign(X[:, 0]) * np.sign(X[:, 1]) + X[:, 2]
    recorder = Recorder()
    moe = DeepMoERegressor(2, 2, max_epochs=3, model_dim=8, batch_size=1024, random_state=0)
    moe.set_callbacks(recorder).fit(X, y)
    names = [name for name, _ in recorder.begun]
    assert names.count("epoch") == 3 * names.count("train") == recorder.ended.count("epoch")


def test_a_repetition_with_smaller_steps_is_a_task_of_its_own(problem):
    recorder = Recorder()
    X, y = problem
    with pytest.warns(UserWarning, match="The fit diverged and was repeated"):
        make("shallow", max_epochs=4, learning_rate=1e6, solver="adam").set_callbacks(
            recorder
        ).fit(X, y)
    assert recorder.ended.count("train") > 1
    assert recorder.ended.count("train") == [name for name, _ in recorder.begun].count("train")


@pytest.mark.filterwarnings("ignore:The fit diverged")
def test_a_fit_that_diverged_has_no_estimator_to_score(problem):
    class Poison(Callback):
        """Makes weights of the first run no numbers."""

        runs = 0

        def on_train_begin(self, net, X=None, y=None, **kwargs):
            self.runs += 1

        def on_batch_end(self, net, **kwargs):
            if self.runs == 1:
                next(net.module_.parameters()).data.fill_(float("nan"))

    monitor = ScoringMonitor(scoring="r2")
    moe = make("shallow", max_epochs=2, callbacks=[Poison()]).set_callbacks(monitor)
    moe.fit(*problem)
    names = [log["task_name"] for log in monitor.get_logs().data]
    assert names == ["fit", "train", "epoch", "epoch"]


def test_callbacks_are_told_of_rows_as_they_were_given(problem):
    X, y = problem
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    recorder, weight = Recorder(), np.linspace(1, 2, len(y))
    make("shallow", max_epochs=2).set_callbacks(recorder).fit(frame, y, sample_weight=weight)
    seen_X, seen_y, metadata = recorder.told[0]
    assert seen_X.columns.tolist() == ["a", "b", "c"]
    assert np.array_equal(seen_y, y)
    assert np.array_equal(metadata["sample_weight"], weight)


def test_scores_of_scikit_learn_are_those_of_each_epoch(problem):
    monitor = ScoringMonitor(scoring=["r2", "neg_mean_absolute_error"])
    moe = make("shallow", max_epochs=3).set_callbacks(monitor).fit(*problem)
    logs = monitor.get_logs().data
    assert [log["task_name"] for log in logs] == ["fit", "train", "epoch", "epoch", "epoch"]
    assert logs[0]["r2"] == moe.score(*problem)


def test_callbacks_reach_estimators_in_pipelines_and_searches(kind, problem):
    recorder = Recorder()
    pipeline = make_pipeline(StandardScaler(), make(kind, max_epochs=2))
    name = pipeline.steps[1][0]
    search = GridSearchCV(pipeline, {f"{name}__n_experts": [2, 3]}, cv=2)
    search.set_callbacks(recorder).fit(*problem)
    # Two candidates, two folds, and the fit of the best.
    assert recorder.ended.count("epoch") == 2 * 5
    assert recorder.up == 0
    assert not hasattr(search.best_estimator_[1], "_parent_callback_ctx")


def test_scores_can_be_kept_in_a_pipeline(problem):
    monitor = ScoringMonitor(scoring="r2")
    moe = make("shallow", max_epochs=2).set_callbacks(monitor)
    make_pipeline(StandardScaler(), moe).fit(*problem)
    assert [log["task_name"] for log in monitor.get_logs().data] == [
        "fit",
        "train",
        "epoch",
        "epoch",
    ]


def test_the_bar_of_scikit_learn_shows_the_training(problem, capsys):
    bar = ProgressBar(max_propagation_depth=None)
    make_pipeline(StandardScaler(), make("shallow", max_epochs=2)).set_callbacks(bar).fit(
        *problem
    )
    shown = capsys.readouterr().out
    assert "MoERegressor - train #0" in shown
    assert "100%" in shown


def test_a_bar_of_epochs_tells_losses_and_is_gone_after_the_fit(problem, capsys):
    make("shallow", max_epochs=3, verbose=2, early_stopping=True).fit(*problem)
    shown = capsys.readouterr().out
    assert "epoch 3/3" in shown
    assert "train " in shown
    assert "valid " in shown


@pytest.mark.filterwarnings("ignore:The fit diverged")
def test_bars_are_closed_when_a_fit_diverges(problem, monkeypatch):
    from rich.progress import Progress

    running = []
    start, stop = Progress.start, Progress.stop
    monkeypatch.setattr(Progress, "start", lambda bar: (running.append(bar), start(bar))[1])
    monkeypatch.setattr(Progress, "stop", lambda bar: (running.remove(bar), stop(bar))[1])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    make("shallow", max_epochs=4, learning_rate=1e6, verbose=2, solver="adam").fit(*problem)
    assert running == []


def test_a_bar_needs_rich_and_says_so(problem, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ImportError, match=r"pip install skmoe\[progress\]"):
        make("shallow", verbose=2).fit(*problem)


@pytest.mark.parametrize(
    ("callback", "cure"),
    [
        (EpochScoring("r2"), "EpochScoring: for scores use set_callbacks"),
        (("r2", BatchScoring("r2")), "BatchScoring: for scores use set_callbacks"),
        (Checkpoint(monitor=None), "Checkpoint: use checkpoint="),
    ],
)
def test_callbacks_that_training_cannot_call_are_refused_with_a_cure(callback, cure, problem):
    with pytest.raises(ValueError, match=f"must not score or save. Got {cure}"):
        make("shallow", callbacks=[callback], solver="adam").fit(*problem)


def test_others_are_called_also_by_name(problem):
    steps = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
    moe = make("shallow", max_epochs=3, callbacks=[("steps", steps)]).fit(*problem)
    assert "event_lr" in moe.history_[-1]
