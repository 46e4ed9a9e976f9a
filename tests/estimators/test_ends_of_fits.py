"""How fits end: with steps too large, in time, by a callback or by Ctrl-C."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from skorch.callbacks import Callback, EarlyStopping
from small import make

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_a_step_far_too_large_is_made_smaller(kind, problem):
    X, y = problem
    with pytest.warns(ConvergenceWarning, match="repeated with learning_rate"):
        moe = make(kind, learning_rate=1e4, max_epochs=60).fit(X, y)
    assert moe.score(X, y) > 0


def test_a_hopeless_fit_raises_and_leaves_the_estimator_unfitted(kind, problem):
    moe = make(kind, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="The fit diverged"):
        moe.fit(*problem)
    with pytest.raises(NotFittedError):
        moe.predict(problem[0])


def test_a_failed_refit_leaves_the_old_model(kind, problem):
    X, y = problem
    moe = make(kind).fit(X, y)
    before = moe.predict(X)
    with pytest.raises(FloatingPointError):
        moe.set_params(learning_rate=1e30).fit(X, y)
    assert np.array_equal(moe.predict(X), before)


@pytest.mark.parametrize("learning_rate", [1e-3, 1e1, 1e3, 1e5])
@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_weights_are_finite_at_any_learning_rate(kind, problem, learning_rate, top_k):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        moe = make(kind, learning_rate=learning_rate, top_k=top_k, max_epochs=5).fit(*problem)
    assert all(weight.isfinite().all() for weight in moe.net_.parameters())
    assert np.isfinite(moe.predict(problem[0])).all()


def test_warns_when_epochs_end_too_soon(problem):
    with pytest.warns(ConvergenceWarning, match="max_epochs=2 while the loss was still"):
        make("shallow", max_epochs=2, learning_rate=0.02, batch_size=8).fit(*problem)


class _Recorder(Callback):
    """Counts what it is told."""

    def __init__(self):
        self.batches = self.epochs = self.gradients = 0

    def on_batch_end(self, net, **kwargs):
        self.batches += kwargs["training"]

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.gradients += all(weight.grad is not None for _, weight in named_parameters)


def test_callbacks_of_skorch_are_called(problem):
    recorder = _Recorder()
    make("shallow", callbacks=[recorder], batch_size=40, max_epochs=3).fit(*problem)
    assert (recorder.batches, recorder.epochs, recorder.gradients) == (9, 3, 9)


def test_a_callback_may_end_the_fit(problem):
    X, y = problem
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=10.0)
    moe = make("shallow", callbacks=[stop], max_epochs=50).fit(X, y)
    assert moe.n_iter_ < 10


class _Inheriting(EarlyStopping):
    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net, **kwargs)


def test_what_a_callback_inherits_may_end_the_fit(problem):
    stop = _Inheriting(monitor="train_loss", patience=2, threshold=10.0)
    assert make("shallow", callbacks=[stop], max_epochs=50).fit(*problem).n_iter_ < 10


class _Interrupt(Callback):
    """Ctrl-C in the middle of a batch of the fourth epoch."""

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == 4:
            raise KeyboardInterrupt


def test_ctrl_c_leaves_a_usable_model_and_is_raised_again(kind, problem):
    X, y = problem
    moe = make(kind, callbacks=[_Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        moe.fit(X, y)
    assert moe.n_iter_ == 3
    assert np.isfinite(moe.predict(X)).all()
