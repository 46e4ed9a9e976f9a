"""Epochs that a device goes through by itself: the same steps, from the same numbers."""

import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from small import make
from torch.testing import assert_close

from skmoe import part
from skmoe.batches import Rows
from skmoe.resident import Recorder, ResidentEpochs
from skmoe.search import BatchedGridSearchCV
from skmoe.stacked_rows import StackedRows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
CPU = torch.device("cpu")

# What a step may depend on, and what may come between steps.
FITS = {
    "soft": {},
    "some": {"n_experts": 8, "top_k": 2},
    "annealed": {"gate": part("linear", temperature=(2.0, 0.5))},
    "noise": {"gate": part("linear", noise=0.3)},
    "auxiliary": {"auxiliary_losses": {"switch": 0.1}},
    "mlp gate": {"gate": part("mlp", temperature="learn")},
    "validation": {"early_stopping": True},
    "one batch": {"batch_size": 1000},
    "another loss": {"loss": "huber"},
    "distribution": {"loss": "gaussian_nll"},
}


@pytest.fixture
def resident(monkeypatch):
    """Go through epochs as on a GPU, but for the recording."""

    def switch_on():
        monkeypatch.setattr(sys.modules["skmoe.loop"], "repeats_steps", lambda _: True)

    return switch_on


def fitted(kind, problem, **parameters):
    X, y = problem
    settings = {"solver": "adam", "max_epochs": 4, "batch_size": 32, "random_state": 0}
    return make(kind, **settings | parameters).fit(X, y)


@pytest.fixture
def problem():
    random = np.random.default_rng(0)
    X = random.normal(size=(301, 3))
    return X, np.sin(2 * X[:, 0]) + X[:, 1] * (X[:, 2] > 0)


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("kind", ["shallow", "stack", "parallel"])
def test_a_fit_is_the_same_to_rounding(kind, name, problem, resident):
    parameters = FITS[name]
    expected = fitted(kind, problem, **parameters)
    resident()
    actual = fitted(kind, problem, **parameters)
    X, _ = problem
    assert_allclose(actual.predict(X), expected.predict(X), rtol=0, atol=2e-3)
    assert len(actual.history_) == len(expected.history_)
    for one, other in zip(actual.history_, expected.history_, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"train_seconds", "valid_seconds"}:
            assert_allclose(one[key], other[key], rtol=5e-3, atol=1e-3, err_msg=key)


@pytest.mark.parametrize("lengths", [(23, 23), (23, 21)])
def test_batches_are_those_of_the_ordinary_loop(lengths):
    all_rows = [
        Rows(torch.arange(n)[:, None] + 100.0 * m, torch.full((n, 1), m + 1.0), torch.ones(n))
        for m, n in enumerate(lengths)
    ]
    rows, seen = StackedRows(all_rows, 5), []

    def take(batch, line, look):
        seen.append((batch.x_MTD, float(line[0]), look))
        return {"loss": batch.y_MTO.mean((1, 2))}

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in range(2)]

    epochs = ResidentEpochs(rows, torch.arange(20.0)[:, None], take)
    means = epochs.run(generators(), first_step=7)
    assert_close([x for x, *_ in seen], [batch.x_MTD for batch in rows.batches(generators())])
    assert [rate for _, rate, _ in seen] == [7, 8, 9, 10, 11]
    assert [look for *_, look in seen] == [True, False, False, False, False]
    assert_close(means["loss"], torch.tensor([1.0, 2.0]))
    # A second epoch starts from nothing.
    assert_close(epochs.run(generators(), 12)["loss"], means["loss"])


def test_without_a_device_that_records_everything_is_run():
    runs = []
    recorder = Recorder(lambda *given: runs.append(given), CPU)
    for _ in range(9):
        with recorder.stream():
            recorder(1, True)
    assert runs == [(1, True)] * 9


GRIDS = {
    "balanced": {"n_experts": [2, 4], "auxiliary_losses": [{"switch": 0.1}]},
    "soft": {"n_experts": [2, 4], "learning_rate": [0.01, 0.02], "max_epochs": [3, 5]},
    "some": {"n_experts": [4, 6], "top_k": [2], "early_stopping": [True]},
    "annealed": {"gate": [part("linear", temperature=(2.0, 0.5))], "max_epochs": [3, 5]},
    "by autograd": {"n_shared_experts": [1], "learning_rate": [0.01, 0.02]},
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_search_finds_the_same_to_rounding(name, problem, monkeypatch):
    X, y = problem
    moe = make("shallow", solver="adam", max_epochs=4, batch_size=32)

    def scores():
        search = BatchedGridSearchCV(moe, GRIDS[name], cv=4, refit=False).fit(X, y)
        return search.cv_results_["mean_test_score"]

    expected, runs = scores(), []
    run = ResidentEpochs.run
    monkeypatch.setattr(ResidentEpochs, "run", lambda *given: runs.append(1) or run(*given))
    monkeypatch.setattr(sys.modules["skmoe.stacked_steps"], "repeats_steps", lambda _: True)
    assert_allclose(scores(), expected, atol=2e-3)
    assert runs


def test_what_was_recorded_is_given_back_at_the_end(problem, resident, monkeypatch):
    closed = []
    monkeypatch.setattr(ResidentEpochs, "close", lambda self: closed.append(self))
    resident()
    fitted("shallow", problem)
    assert len(closed) == 1
    monkeypatch.setattr(sys.modules["skmoe.stacked_steps"], "repeats_steps", lambda _: True)
    X, y = problem
    moe = make("shallow", solver="adam", batch_size=32)
    BatchedGridSearchCV(moe, {"max_epochs": [2, 3]}, cv=2, refit=False).fit(X, y)
    assert len(closed) == 3  # of four models, then of two
