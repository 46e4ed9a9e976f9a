"""What is left after a fault: the old model or the new one, and a message that helps."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping
from small import make

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def sigint_is_heard():
    """Not so in a process that was started in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_missing_values_are_to_be_imputed(problem):
    X, y = problem
    moe = make("shallow").fit(X, y)
    missing = np.where(X[3, 1] == X, np.nan, X)
    for refused in (lambda: moe.fit(missing, y), lambda: moe.predict(missing)):
        with pytest.raises(ValueError, match=r"X contains NaN[\s\S]*SimpleImputer\(\)"):
            refused()


@pytest.mark.parametrize("dtype", [object, "category", "string"])
def test_strings_are_to_be_encoded_and_their_columns_are_named(dtype, problem):
    X, y = problem
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame["site"] = pd.Series(["north", "south"] * 60, dtype=dtype)
    frame.insert(0, "soil", pd.Series(["clay"] * 120, dtype=dtype))
    told = r"columns \['soil', 'site'\]. Encode them first, with OneHotEncoder or TargetEncoder"
    with pytest.raises(ValueError, match=told):
        make("shallow").fit(frame, y)
    array = frame.to_numpy(dtype=object)
    with pytest.raises(ValueError, match=r"columns \[0, 4\]"):
        make("shallow").fit(array, y)
    with pytest.raises(ValueError, match="y must be numeric"):
        make("shallow").fit(X, frame["site"].astype(object))


def test_dates_are_to_be_encoded_and_their_columns_are_named(problem):
    X, y = problem
    frame = pd.DataFrame({"a": X[:, 0], "day": pd.date_range("2026-01-01", periods=len(X))})
    with pytest.raises(ValueError, match=r"dates in the columns \['day'\]"):
        make("shallow").fit(frame, y)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"learning_rate": 1e30, "solver": "adam"}, FloatingPointError),
        ({"top_k": 9}, ValueError),
        ({"device": "cuda:99"}, ValueError),
    ],
    ids=str,
)
def test_a_refit_that_fails_changes_nothing(kind, change, error, problem):
    X, y = problem
    moe = make(kind).fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)
    before = {name: value for name, value in vars(moe).items() if name not in change}
    with pytest.raises(error):
        moe.set_params(**change).fit(pd.DataFrame(X[:, :2], columns=["d", "e"]), y)
    after = {name: value for name, value in vars(moe).items() if name not in change}
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_a_refit_without_names_forgets_them(problem):
    X, y = problem
    moe = make("shallow").fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)
    assert list(moe.feature_names_in_) == ["a", "b", "c"]
    assert not hasattr(moe.fit(X[:, :2], y), "feature_names_in_")
    assert moe.n_features_in_ == 2


class Press(Callback):
    """Ctrl-C at one of the moments at which callbacks are called, in one of the epochs."""

    def __init__(self, moment, epoch):
        self.moment, self.epoch = moment, epoch

    def press(self, moment, net):
        if moment == self.moment and len(net.history) == self.epoch:
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_begin(self, net, **kwargs):
        self.press("start", net)

    def on_epoch_begin(self, net, **kwargs):
        self.press("epoch", net)

    def on_batch_begin(self, net, **kwargs):
        self.press("batch", net)

    def on_epoch_end(self, net, **kwargs):
        self.press("end of epoch", net)


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize(
    ("moment", "epoch", "usable"),
    [
        ("start", 0, False),
        ("epoch", 1, False),
        ("batch", 1, False),
        ("end of epoch", 1, True),
        ("epoch", 2, True),
        ("batch", 2, True),
        ("end of epoch", 20, True),
    ],
)
def test_ctrl_c_at_any_moment(moment, epoch, usable, early_stopping, problem):
    X, y = problem
    moe = make("shallow", early_stopping=early_stopping, callbacks=[Press(moment, epoch)])
    with pytest.raises(KeyboardInterrupt):
        moe.fit(X, y)
    if usable:
        assert np.isfinite(moe.predict(X)).all()
        assert moe.n_iter_ == len(moe.history_) > 0
    else:
        with pytest.raises(NotFittedError):
            moe.predict(X)


class Switch(Callback):
    """Ctrl-C amid one of torch's own switches, so that gradients stay off."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 3:
            torch.set_grad_enabled(False)
            raise KeyboardInterrupt


def test_ctrl_c_leaves_gradients_as_they_were(kind, problem):
    moe = make(kind, callbacks=[Switch()])
    for fit in (moe.fit, moe.partial_fit, moe.fine_tune):
        moe.set_params(callbacks=[Switch()], max_epochs=5)
        with contextlib.suppress(KeyboardInterrupt):
            fit(*problem)
        assert torch.is_grad_enabled()
        moe.set_params(callbacks=None).fit(*problem)


@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_fits_where_gradients_are_off(kind, switch, problem):
    expected = make(kind).fit(*problem).predict(problem[0])
    with switch():
        found = make(kind).fit(*problem).predict(problem[0])
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(found, expected)
    assert torch.is_grad_enabled()


def test_ctrl_c_within_early_stopping_is_not_taken_for_its_stop(problem):
    class Stopping(EarlyStopping):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(10_000):  # the signal comes at one of these steps
                    pass

    with pytest.raises(KeyboardInterrupt):
        make("shallow", callbacks=[Stopping("train_loss")]).fit(*problem)


def test_ctrl_c_ends_a_search(problem):
    moe = make("shallow", callbacks=[Press("batch", 5)])
    search = GridSearchCV(moe, {"learning_rate": [0.01, 0.02]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(*problem)
    assert not hasattr(search, "cv_results_")


def test_predictions_during_refits_with_other_features_are_of_the_old_or_the_new(problem):
    X, y = problem
    moe = make("shallow", max_epochs=2)
    allowed = {n: moe.fit(X[:, :n], y).predict(X[:, :n]).tobytes() for n in (2, 3)}
    found, done = [], threading.Event()

    def predict():
        while not done.is_set():
            for n in allowed:
                try:
                    found.append(moe.predict(X[:, :n]).tobytes() == allowed[n])
                except ValueError as error:
                    found.append("features, but MoERegressor is expecting" in str(error))

    thread = threading.Thread(target=predict)
    thread.start()
    for n in [2, 3] * 5:
        moe.fit(X[:, :n], y)
    done.set()
    thread.join()
    assert len(found) > 20
    assert all(found)


FORK = """
import os, torch
torch.set_num_threads(2)
import numpy as np
from skmoe import MoERegressor
X = np.random.default_rng(0).normal(size=(2200, 3))
moe = MoERegressor(3, max_epochs=1, solver="adam", random_state=0).fit(X, X[:, 0])
child = os.fork()
if child == 0:
    ok = np.array_equal(moe.fit(X, X[:, 0]).predict(X).shape, (2200,))
    os._exit(0 if ok and torch.get_num_threads() == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_wait_for_threads_that_are_gone():
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.stdout.split() == ["0", "2"], done.stderr
