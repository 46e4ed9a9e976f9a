"""TF32 while it is asked for, and nothing changed afterwards."""

import threading

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from small import make

from skmoe.precision import products_in


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
    inside, leave = threading.Event(), threading.Event()

    def other():
        with products_in("tf32"):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with products_in("tf32"):
        thread.start()
        inside.wait()
    assert now() == "tf32"
    leave.set()
    thread.join()
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
