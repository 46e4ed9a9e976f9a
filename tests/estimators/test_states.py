"""Whatever is done to an estimator in whatever order, it is as a model of its states says."""

import pickle
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from skorch.callbacks import Callback
from small import make

from skmoe import load_model

RNG = np.random.default_rng(0)
ROWS = {width: RNG.normal(size=(30, width)) for width in (1, 2)}
TARGETS = {width: X[:, 0] + X.sum(1) ** 2 for width, X in ROWS.items()}
widths = st.sampled_from(sorted(ROWS))


class Interrupt(Callback):
    """Ctrl-C in an epoch."""

    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise self.error


class Life(RuleBasedStateMachine):
    """An estimator, and what it should be: the number of features it knows, or nothing."""

    kind = "shallow"

    def __init__(self):
        super().__init__()
        self.moe = make(self.kind, max_epochs=2)
        self.width = None  # of the features that the model knows; None: unfitted
        self.expected = None  # its predictions

    def learned(self, width):
        self.width = width
        self.expected = self.moe.predict(ROWS[width])
        assert np.isfinite(self.expected).all()

    def call(self, name, width):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return getattr(self.moe, name)(ROWS[width], TARGETS[width])

    @rule(width=widths)
    def fit(self, width):
        if self.moe.warm_start and self.width not in (None, width):
            return  # a model of other features cannot go on
        assert self.call("fit", width) is self.moe
        self.learned(width)

    @rule(width=widths)
    def partial_fit(self, width):
        if self.width not in (None, width):
            with pytest.raises(ValueError, match=f"expecting {self.width} features"):
                self.call("partial_fit", width)
            return
        self.call("partial_fit", width)
        self.learned(width)

    @rule(width=widths, method=st.sampled_from(["experts", "all"]))
    def fine_tune(self, width, method):
        if self.width is None:
            with pytest.raises(NotFittedError):
                self.call("fine_tune", width)
        elif self.width == width:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                self.moe.fine_tune(ROWS[width], TARGETS[width], method=method)
            self.learned(width)

    @rule(n_experts=st.integers(1, 3), top_k=st.sampled_from([None, 1]), warm=st.booleans())
    def set_params(self, n_experts, top_k, warm):
        self.moe.set_params(n_experts=n_experts, top_k=top_k, warm_start=warm)

    @rule(width=widths)
    def fail(self, width):
        before = self.moe.learning_rate
        self.moe.set_params(learning_rate=-1.0)
        with pytest.raises(ValueError, match="learning_rate"):
            self.call("fit", width)
        self.moe.set_params(learning_rate=before)

    @rule(width=widths, error=st.sampled_from([RuntimeError, MemoryError]))
    def fail_amid_a_fit(self, width, error):
        if self.moe.warm_start and self.width not in (None, width):
            return
        self.moe.set_params(callbacks=[Interrupt(2, error())])
        with pytest.raises(error):
            self.call("fit", width)
        self.moe.set_params(callbacks=None)

    @rule(width=widths, epoch=st.integers(1, 2))
    def interrupt(self, width, epoch):
        if self.moe.warm_start and self.width not in (None, width):
            return
        self.moe.set_params(callbacks=[Interrupt(epoch, KeyboardInterrupt())])
        with pytest.raises(KeyboardInterrupt):
            self.call("fit", width)
        self.moe.set_params(callbacks=None)
        if epoch == 2:  # the first one was whole
            self.learned(width)

    @rule()
    def clone(self):
        copied = clone(self.moe)
        assert copied.get_params() == self.moe.get_params()
        assert not hasattr(copied, "n_features_in_")
        self.moe, self.width = copied, None

    @rule()
    def travel(self):
        self.moe = pickle.loads(pickle.dumps(self.moe))

    @rule()
    def save_and_load(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "moe.skmoe"
            if self.width is None:
                with pytest.raises(NotFittedError):
                    self.moe.save_model(path)
                assert not path.exists()
                return
            self.moe.save_model(path)
            loaded = load_model(path)
        assert type(loaded) is type(self.moe)
        assert loaded.get_params() == self.moe.get_params()
        self.moe = loaded

    @precondition(lambda self: self.width is not None)
    @rule()
    def refuse_other_features(self):
        other = 3 - self.width
        with pytest.raises(ValueError, match=f"X has {other} features"):
            self.moe.predict(ROWS[other])

    @invariant()
    def is_what_it_should_be(self):
        if self.width is None:
            with pytest.raises(NotFittedError):
                self.moe.predict(ROWS[1])
            return
        assert self.moe.n_features_in_ == self.width
        assert np.array_equal(self.moe.predict(ROWS[self.width]), self.expected)
        assert self.moe.n_iter_ == len(self.moe.history_) > 0


class DeepLife(Life):
    kind = "ensemble"


TestLife = Life.TestCase
TestDeepLife = DeepLife.TestCase
TestLife.settings = TestDeepLife.settings = settings(
    max_examples=10,
    stateful_step_count=15,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
