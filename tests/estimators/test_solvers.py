"""Solvers: by gradient descent, in closed form, or the one after the other."""

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from small import make

from skmoe import DeepMoERegressor, MoERegressor, part
from skmoe.batches import Rows
from skmoe.datasets import make_manifold_regression
from skmoe.estimators import _auto
from skmoe.estimators._closed_form import leaves_noise, untrained
from skmoe.nn.gates import DeepGate, LinearGate
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.networks import MoENetwork


class Squared(MLPExperts):
    """Experts that end in no linear map."""

    def evaluate(self, x_GCD, *stacked):
        return super().evaluate(x_GCD, *stacked) ** 2


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([MoERegressor(solver="ridge")], xfail_strict=True)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_a_fit_without_training_has_one_entry(kind, problem):
    X, y = problem
    moe = make(kind, solver="ridge").fit(X, y)
    assert moe.n_iter_ == len(moe.history_) == 1
    (entry,) = moe.history_
    standardised = np.mean((moe.predict(X) - y) ** 2) / np.var(y)
    assert standardised == pytest.approx(entry["train_loss"], rel=1e-6)
    assert entry["ridge_score"] < entry["ridge_score_before"]
    assert moe.best_loss_ == entry["train_loss"]
    assert moe.score(X, y) > 0.5


def test_validation_rows_choose_the_penalty_of_the_finish(kind, problem):
    X, y = problem
    fits = [
        make(kind, solver=solver).fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
        for solver in ("adam", "adam+ridge")
    ]
    errors = [np.mean((moe.predict(X[80:]) - y[80:]) ** 2) for moe in fits]
    assert errors[1] <= errors[0]
    assert fits[1].best_loss_ == pytest.approx(errors[1] / np.var(y[:80]), rel=1e-6)
    assert fits[1].n_iter_ == 20


def test_auto_finishes_in_closed_form_where_it_can(problem):
    X, y = problem
    assert "ridge_alpha" in make("shallow").fit(X, y).history_[-1]
    assert "ridge_alpha" not in make("shallow", loss="huber").fit(X, y).history_[-1]
    assert "ridge_alpha" not in make("shallow", expert=Squared).fit(X, y).history_[-1]
    assert "ridge_alpha" not in make("shallow").partial_fit(X, y).history_[-1]


@pytest.mark.parametrize("solver", ["ridge", "adam+ridge"])
def test_what_cannot_be_solved_for_is_refused(solver, problem):
    with pytest.raises(ValueError, match=r"needs loss='squared_error'\. Got loss='huber'"):
        make("shallow", solver=solver, loss="huber").fit(*problem)
    with pytest.raises(ValueError, match="last step is a linear map"):
        make("shallow", solver=solver, expert=Squared).fit(*problem)


@pytest.mark.parametrize("init", ["random", "kmeans"])
def test_starts_give_the_same_bits_again(kind, init, problem):
    X, y = problem
    first, again = (make(kind, init=init).fit(X, y).predict(X) for _ in range(2))
    assert np.array_equal(first, again)


def test_a_start_of_ones_own(problem):
    seen = []
    moe = make("shallow", init=lambda network, rows, seed: seen.append((network, rows.x.shape)))
    moe.fit(*problem)
    assert seen == [(moe.net_, (120, 3))]


@pytest.mark.parametrize("n_rows", [2000, 5500])
@pytest.mark.parametrize("n_features", [4, 60])
def test_default_needs_no_training_where_hardly_any_error_is_left(n_features, n_rows):
    settings = {"manifold": "sphere", "n_features": n_features, "target": "smooth"}
    X, y = make_manifold_regression(n_rows + 1000, **settings, random_state=7)
    moe = MoERegressor(random_state=0).fit(X[:n_rows], y[:n_rows])
    error = moe.predict(X[n_rows:]) - y[n_rows:]
    assert np.sqrt(np.mean(error**2)) < 2e-3 * y.std()
    assert moe.n_iter_ == 1
    closed_form = MoERegressor(random_state=0, solver="ridge").fit(X[:n_rows], y[:n_rows])
    assert np.array_equal(moe.predict(X), closed_form.predict(X))


def test_default_trains_where_an_error_is_left(problem):
    X, y = problem
    default, trained = (MoERegressor(random_state=0, solver=s) for s in ("auto", "adam+ridge"))
    assert np.array_equal(default.fit(X, y).predict(X), trained.fit(X, y).predict(X))
    assert default.n_iter_ == trained.n_iter_ > 1


def test_default_keeps_the_better_by_validation_rows(problem, monkeypatch):
    X, y = problem
    monkeypatch.setattr(_auto, "max_epochs", lambda setting, *sizes: 1)
    val = {"X_val": X[80:], "y_val": y[80:]}
    fits = {
        solver: MoERegressor(random_state=0, solver=solver).fit(X[:80], y[:80], **val)
        for solver in ("auto", "ridge", "adam+ridge")
    }
    losses = {solver: moe.best_loss_ for solver, moe in fits.items()}
    assert losses["auto"] == min(losses["ridge"], losses["adam+ridge"])


@pytest.mark.filterwarnings("ignore:The fit stopped")
def test_who_sets_epochs_asks_for_training():
    X = np.random.default_rng(0).uniform(-1, 1, (200, 1))
    moe = MoERegressor(random_state=0).fit(X, X[:, 0])
    assert moe.n_iter_ == 1  # a straight line needs none
    assert moe.set_params(max_epochs=3).fit(X, X[:, 0]).n_iter_ == 3


def test_few_axes_get_a_deep_gate_and_deep_experts(monkeypatch):
    monkeypatch.setattr(_auto, "max_epochs", lambda setting, *sizes: 1)
    settings = {"manifold": "sphere", "n_features": 20, "target": "pieces"}
    X, y = make_manifold_regression(2400, **settings, random_state=7)
    layer = MoERegressor(random_state=0).fit(X, y).net_.layer
    assert isinstance(layer.gate, DeepGate)
    assert layer.experts.input_dim == 3
    assert len(layer.experts.layers) == 2
    given = MoERegressor(random_state=0, gate="linear", n_experts=3, embedding=None).fit(X, y)
    assert isinstance(given.net_.layer.gate, LinearGate)
    assert given.net_.layer.experts.n_experts == 3
    assert given.net_.layer.experts.input_dim == 20


@pytest.mark.parametrize(
    ("left", "noise"),
    [
        (lambda X, noise: noise, True),
        (lambda X, noise: np.sin(2 * X[:, 0]), False),
        (lambda X, noise: noise + np.sin(2 * X[:, 0]), False),
        (lambda X, noise: noise * (np.abs(noise) > 2), False),  # large on few rows
    ],
)
def test_noise_is_told_from_what_is_left_of_a_function(left, noise):
    rng = np.random.default_rng(0)
    X, Z = rng.normal(size=(4000, 2)), rng.normal(size=4000)
    network = MoENetwork(2, 1, n_experts=2, generator=torch.Generator().manual_seed(0)).double()
    untrained(network)  # says 0
    tensors = [torch.as_tensor(part) for part in (X, left(X, Z)[:, None], np.ones(4000))]
    rows, held_out = (
        Rows(*(t[part] for t in tensors)) for part in np.split(np.arange(4000), 2)
    )
    assert leaves_noise(network, rows, held_out) is noise


@pytest.mark.parametrize("n_features", [4, 60])
def test_a_smooth_target_on_a_manifold_is_learned_without_training(n_features):
    settings = {"manifold": "swiss_roll", "n_features": n_features, "target": "smooth"}
    X, y = make_manifold_regression(3000, **settings, random_state=7)
    moe = MoERegressor(solver="ridge", random_state=0).fit(X[:2000], y[:2000])
    error = moe.predict(X[2000:]) - y[2000:]
    assert np.sqrt(np.mean(error**2)) < 5e-3 * y.std()


def test_a_part_may_be_a_start(problem):
    make("shallow", init=part("kmeans")).fit(*problem)


@pytest.mark.parametrize("kind", [MoERegressor, DeepMoERegressor])
def test_second_order_finish_lowers_the_training_loss(kind):
    X = np.random.RandomState(0).uniform(-1, 1, (120, 2))
    y = np.sin(3 * X[:, 0]) * X[:, 1]
    settings = {"n_experts": 2, "hidden_dim": 4, "max_epochs": 40, "random_state": 0}
    plain = kind(**settings, solver="adam").fit(X, y)
    polished = kind(**settings, solver="adam+lbfgs").fit(X, y)
    last = polished.history_[-1]
    assert last["lbfgs_loss"] < 0.5 * last["lbfgs_loss_before"]
    assert polished.score(X, y) > plain.score(X, y)
    assert len(polished.history_) == len(plain.history_) == 40


@pytest.mark.parametrize("solver", ["ridge", "auto"])
def test_closed_forms_predict_each_row_as_among_others(solver):
    X, y = make_manifold_regression(1500, n_features=10, target="smooth", random_state=0)
    moe = MoERegressor(solver=solver, random_state=0).fit(X, y)
    one_by_one = np.concatenate([moe.predict(X[row : row + 1]) for row in range(40)])
    np.testing.assert_allclose(one_by_one, moe.predict(X)[:40], rtol=0, atol=1e-10 * y.std())
