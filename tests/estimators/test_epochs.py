"""With few rows, rows left out tell the number of epochs of the fit to all of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skmoe import DeepMoERegressor, MoERegressor
from skmoe.batches import Rows
from skmoe.estimators._epochs import N_FOLDS, with_best_epochs
from skmoe.model import Architecture, FittedModel
from skmoe.nn.losses import SquaredError
from skmoe.plan import TrainingPlan
from skmoe.scaling import Scaling
from skmoe.search import BatchedGridSearchCV

PLAN = TrainingPlan(SquaredError(), 0.02, 0.0, batch_size=512, max_epochs=60)


def noisy_line(n_rows, noise, seed=0):
    random = np.random.RandomState(seed)
    X = random.standard_normal((n_rows, 4))
    return X, X[:, 0] + noise * random.standard_normal(n_rows)


def start(X, y):
    arguments = {"n_inputs": X.shape[1], "n_outputs": 1, "n_experts": 4, "hidden_dim": 32}
    architecture = Architecture("shallow", arguments)
    net = architecture.build(torch.Generator().manual_seed(0)).double()
    weight = np.ones(len(X))
    scalings = Scaling.of_features(X, weight), Scaling.of_targets(y[:, None], weight)
    model = FittedModel(architecture, net, *scalings)
    return model, model.rows(X, y[:, None], weight)


def test_noise_ends_a_fit_early_and_its_absence_does_not():
    few = with_best_epochs(*start(*noisy_line(80, 2.0)), PLAN, seed=0)
    assert with_best_epochs(*start(*noisy_line(80, 0.0)), PLAN, seed=0) is PLAN
    assert few.max_epochs < PLAN.max_epochs / 4
    assert few == replace(PLAN, max_epochs=few.max_epochs, chosen=True)


def test_the_start_is_left_as_it_is():
    model, rows = start(*noisy_line(40, 1.0))
    before = {name: w.clone() for name, w in model.net.state_dict().items()}
    with_best_epochs(model, rows, PLAN, seed=0)
    assert all(torch.equal(w, before[name]) for name, w in model.net.state_dict().items())


def test_a_row_of_weight_two_is_a_row_twice():
    X, y = noisy_line(60, 1.0)
    model, rows = start(X, y)
    doubled = torch.arange(60) % 3 == 0
    heavy = replace(rows, weight=1.0 + doubled)
    twice = Rows(*(torch.cat([part, part[doubled]]) for part in (rows.x, rows.y, rows.weight)))
    chosen = [with_best_epochs(model, these, PLAN, seed=0) for these in (heavy, twice)]
    assert chosen[0].max_epochs == chosen[1].max_epochs


def test_too_few_rows_tell_nothing():
    model, rows = start(*noisy_line(2 * N_FOLDS - 1, 1.0))
    assert with_best_epochs(model, rows, PLAN, seed=0) is PLAN


@pytest.mark.parametrize(
    "make", [MoERegressor, DeepMoERegressor], ids=lambda kind: kind.__name__
)
def test_no_estimator_learns_noise_by_heart(make):
    X, y = noisy_line(200, 2.0)
    X_test, y_test = noisy_line(2000, 0.0, seed=1)
    error = np.mean((make(random_state=0).fit(X, y).predict(X_test) - y_test) ** 2)
    assert error < 0.6  # of 1, the error of the mean; all the epochs of one layer: 1.9


def count_trainings(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "skmoe.estimators._base.with_best_epochs",
        lambda model, rows, plan, seed: asked.append(len(rows)) or plan,
    )
    return asked


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 5},
        {"early_stopping": False},
        {"early_stopping": True},
        {"solver": "ridge"},
    ],
    ids=str,
)
def test_who_sets_the_course_is_obeyed(monkeypatch, settings):
    asked = count_trainings(monkeypatch)
    MoERegressor(2, random_state=0, **settings).fit(*noisy_line(40, 1.0))
    assert not asked


def test_validation_rows_take_its_place(monkeypatch):
    asked = count_trainings(monkeypatch)
    X, y = noisy_line(40, 1.0)
    MoERegressor(2, solver="adam", random_state=0).fit(X, y, X_val=X, y_val=y)
    assert not asked
    MoERegressor(2, solver="adam", random_state=0).fit(X, y)
    assert asked == [40]


def test_callbacks_see_the_fit_to_all_rows_only():
    from skorch.callbacks import Callback

    class Count(Callback):
        seen = ()

        def on_train_begin(self, net, X=None, **kwargs):
            self.seen += (len(X),)

    count = Count()
    moe = MoERegressor(2, callbacks=[count], random_state=0).fit(*noisy_line(50, 0.5))
    assert count.seen == (50,)
    assert moe.n_iter_ == len(moe.history_) <= 100


def test_a_batched_search_finds_the_same():
    X, y = noisy_line(60, 1.0)
    grid = {"weight_decay": [0.0, 0.3], "hidden_dim": [4]}
    moe = MoERegressor(2, solver="adam", random_state=0)
    search = BatchedGridSearchCV(moe, grid, cv=2).fit(X, y)
    alone = MoERegressor(2, solver="adam", random_state=0, **search.best_params_).fit(X, y)
    assert search.best_estimator_.n_iter_ == alone.n_iter_
    np.testing.assert_allclose(search.predict(X), alone.predict(X), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The fit stopped")
def test_rows_learned_from_are_counted_without_those_held_out():
    X, y = noisy_line(100, 0.1)
    moe = MoERegressor(2, max_epochs=3, early_stopping=True, random_state=0).fit(X, y)
    assert moe.n_samples_fit_ == 90
    assert moe.set_params(early_stopping=False).fit(X, y).n_samples_fit_ == 100
