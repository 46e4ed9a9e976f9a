"""Memory that does not suffice changes nothing but the size of what is computed at once."""

import numpy as np
import pytest
import torch
from small import make

from skmoe.nn.layers import MoELayer
from skmoe.shallow_gradient import ShallowGradient

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def memory(monkeypatch):
    """Room for so many rows in a layer, which a test may change."""
    room = {"rows": 10**9}

    def limit(kind, method):
        work = getattr(kind, method)

        def limited(self, x_BTD, *args):
            if x_BTD.shape[1] > room["rows"]:
                raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.")
            return work(self, x_BTD, *args)

        monkeypatch.setattr(kind, method, limited)

    limit(MoELayer, "forward")
    limit(ShallowGradient, "__call__")
    return room


@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_fit_in_parts_is_the_fit_in_batches(kind, early_stopping, memory, problem):
    X, y = problem
    params = {"solver": "adam", "early_stopping": early_stopping, "dtype": "float64"}
    params["auxiliary_losses"] = None  # they look at each part by itself
    whole = make(kind, **params).fit(X, y)
    memory["rows"] = 40
    with pytest.warns(
        RuntimeWarning, match="batches of .* rows: they are now computed in [24] p"
    ):
        parts = make(kind, **params).fit(X, y)
    np.testing.assert_allclose(parts.predict(X), whole.predict(X), rtol=1e-6, atol=1e-8)
    for name in whole.history_[0].keys() & {"train_loss", "valid_loss"}:
        found, wanted = (
            np.array([epoch[name] for epoch in m.history_]) for m in (parts, whole)
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_predictions_come_in_smaller_chunks(kind, memory, problem):
    X, y = problem
    moe = make(kind).fit(X, y)
    many = np.tile(X, (40, 1))
    expected = moe.predict(many)
    memory["rows"] = 1000
    np.testing.assert_allclose(moe.predict(many), expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Memory does not suffice")
def test_memory_for_nothing_is_told_of_and_leaves_nothing(memory, problem):
    X, y = problem
    moe = make("shallow").fit(X, y)
    before = moe.predict(X)
    memory["rows"] = 0
    for call in (lambda: moe.fit(X, y), lambda: moe.predict(X)):
        with pytest.raises(torch.OutOfMemoryError, match=r"allocate 2\.00 GiB"):
            call()
    memory["rows"] = 10**9
    np.testing.assert_array_equal(moe.predict(X), before)
