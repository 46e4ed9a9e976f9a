"""Fits that wait for each other."""

import threading
import warnings

import numpy as np
import pytest
from small import make

from skmoe.together import run_together
from skmoe.training import TRAINER


@pytest.fixture(scope="module")
def data():
    X = np.random.RandomState(0).normal(size=(60, 3))
    return X, np.sin(X[:, 0]) * X[:, 1]


def test_fits_are_those_of_one_after_the_other(data):
    estimators = [make("shallow", random_state=seed, max_epochs=5) for seed in range(3)]
    heard = []
    fits = run_together([lambda e=e: e.fit(*data) for e in estimators], heard.append)
    for seed, fit in enumerate(fits):
        alone = make("shallow", random_state=seed, max_epochs=5).fit(*data)
        np.testing.assert_allclose(fit.outcome.predict(data[0]), alone.predict(data[0]))
        assert fit.trained > 0
    assert [request.together for request in heard] == [3, 3, 3]


def test_calls_that_train_nothing_just_run():
    fits = run_together([lambda: 1, lambda: 2])
    assert [fit.outcome for fit in fits] == [1, 2]


def test_one_runs_at_a_time():
    inside, most = 0, 0

    def call():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        sum(range(10_000))
        inside -= 1

    run_together([call] * 20)
    assert most == 1


def test_a_failure_ends_the_others(data):
    before = threading.active_count()
    reached = []

    def first():
        make("shallow", max_epochs=5).fit(*data)
        reached.append("after training")

    def second():
        raise ValueError("no")

    fits = run_together([first, second])
    assert isinstance(fits[1].error, ValueError)
    assert reached == []
    assert threading.active_count() == before


def test_what_interrupts_training_ends_all(data, monkeypatch):
    before = threading.active_count()

    def interrupted(requests):
        raise KeyboardInterrupt

    monkeypatch.setattr("skmoe.together.train_requests", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_together([lambda: make("shallow", max_epochs=5).fit(*data)] * 2)
    assert threading.active_count() == before


def test_warning_filters_of_one_are_not_those_of_another(data):
    def quiet():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make("shallow", max_epochs=5).fit(*data)

    def loud():
        make("shallow", max_epochs=5).fit(*data)
        warnings.warn("heard", UserWarning, stacklevel=1)

    filters = list(warnings.filters)
    fits = run_together([quiet, loud])  # here, warnings are errors
    assert isinstance(fits[1].error, UserWarning)
    assert list(warnings.filters) == filters


def test_who_trains_is_as_before_afterwards(data):
    trainer = TRAINER.get()
    run_together([lambda: make("shallow", max_epochs=5).fit(*data)])
    assert TRAINER.get() is trainer
