"""TF32 while it is asked for, and nothing changed afterwards."""

import threading

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from small import make

from skmoe.batched_search import BatchedGridSearchCV
from skmoe.precision import products_in, products_of_others

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def now():
    return torch.backends.cuda.matmul.fp32_precision


@pytest.mark.parametrize("dtype", ["auto", "float32", "float64"])
def test_nothing_changes_unless_asked_for(dtype):
    before = now()
    with products_in(dtype):
        assert now() == before


def fail_in(dtype):
    with products_in(dtype):
        raise ZeroDivisionError(now())


def test_the_setting_is_restored_also_after_an_error():
    before = now()
    with pytest.raises(ZeroDivisionError, match="tf32"):
        fail_in("tf32")
    assert now() == before


def test_it_stays_until_the_last_of_several_fits_is_done():
    before = now()
    with products_in("tf32"):
        end = start_another_fit()
    assert now() == "tf32"
    end()
    assert now() == before


def start_another_fit():
    """A fit in another thread that has asked for TF32, until what is returned is called."""
    inside, leave = threading.Event(), threading.Event()

    def fit():
        with products_in("tf32"):
            inside.set()
            leave.wait()

    def end():
        leave.set()
        thread.join()

    thread = threading.Thread(target=fit)
    thread.start()
    inside.wait()
    return end


def test_others_compute_as_they_have_asked_while_a_fit_waits():
    before = now()
    with products_in("tf32"):
        with products_of_others():
            assert now() == before
            with products_in("tf32"):
                assert now() == "tf32"
        assert now() == "tf32"
    assert now() == before


def test_a_search_beside_a_fit_in_another_thread_leaves_nothing_changed():
    before = now()
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.normal(size=60)
    end = start_another_fit()

    def score(estimator, X, y):
        end()
        return estimator.score(X, y)

    search = BatchedGridSearchCV(
        make("shallow", max_epochs=2), {"n_experts": [2, 3]}, scoring=score, cv=2
    )
    search.fit(X, y)
    assert now() == before


def test_a_fit_may_ask_for_it():
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = X[:, 0] * X[:, 1]
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(now())

    before = now()
    moe = make("shallow", dtype="tf32", max_epochs=2, solver="adam", callbacks=[Watch()])
    moe.fit(X, y)
    assert set(seen) == {"tf32"}
    assert now() == before
    plain = make("shallow", max_epochs=2, solver="adam").fit(X, y)
    assert (moe.predict(X) == plain.predict(X)).all()  # on a CPU it is float32
