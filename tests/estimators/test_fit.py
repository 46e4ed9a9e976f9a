"""What a fit leaves behind, and what it leaves alone."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import mean_squared_error
from skorch.callbacks import Callback
from small import make

import skmoe.threads
from skmoe import DeepMoERegressor, MoERegressor, part

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_same_seed_gives_the_same_bits(kind, problem):
    X, y = problem
    first = make(kind, batch_size=32).fit(X, y).predict(X)
    assert np.array_equal(first, make(kind, batch_size=32).fit(X, y).predict(X))
    other = make(kind, batch_size=32, random_state=1).fit(X, y).predict(X)
    assert not np.array_equal(first, other)


def test_global_random_state_and_threads_are_left_as_found(kind, problem):
    torch_state = torch.get_rng_state()
    threads = torch.get_num_threads()
    noisy = part("linear", noise=0.1)
    make(kind, gate=noisy, batch_size=32, random_state=None, early_stopping=True).fit(*problem)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads


class Threads(Callback):
    """Asks for the number of threads amid training."""

    def on_epoch_begin(self, net, **kwargs):
        self.found = torch.get_num_threads()


@pytest.mark.parametrize(("n_rows", "seen"), [(100, 1), (150, 2)])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_few_rows_are_learned_by_one_thread(kind, method, n_rows, seen, monkeypatch):
    monkeypatch.setattr(skmoe.threads, "MIN_ROWS", 150)
    X = np.random.default_rng(0).normal(size=(n_rows, 2))
    before = torch.get_num_threads()
    threads = Threads()
    moe = make(kind, max_epochs=1, init="random", solver="adam", callbacks=[threads])
    try:
        torch.set_num_threads(2)
        getattr(moe, method)(X, X[:, 0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads.found == seen


def test_a_seeded_fit_leaves_numpy_alone(kind, problem):
    # random_state=None is scikit-learn's way to ask for numpy's global generator.
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make(kind, early_stopping=True).fit(*problem)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_history_has_a_row_for_each_epoch(kind, problem):
    moe = make(kind, early_stopping=True, auxiliary_losses={"switch": 0.01}).fit(*problem)
    assert len(moe.history_) == moe.n_iter_ == 20
    n_layers = 1 if kind == "shallow" else 3
    for epoch in moe.history_:
        assert epoch["train_loss"] >= 0
        assert epoch["valid_loss"] >= 0
        assert epoch["switch_loss"] >= 0.01 * 0.999
        assert epoch["train_seconds"] >= 0
        assert np.shape(epoch["usage"]) == (n_layers, 4)
        assert np.allclose(np.sum(epoch["usage"], axis=-1), 1)
        assert np.shape(epoch["gate_entropy"]) == (n_layers,)
        assert np.all(np.array(epoch["gate_entropy"]) >= 0)
        assert np.all(np.array(epoch["gate_entropy"]) <= 1 + 1e-6)
        assert 0 <= epoch["dead_experts"] <= 4 * n_layers


def test_early_stopping_restores_the_best_epoch(kind, problem):
    X, y = problem
    rng = np.random.default_rng(1)
    X_val, y_val = X[:30] + 0.01, rng.normal(size=30) * 10 + 40  # noise: gets worse by training
    moe = make(kind, learning_rate=0.05).fit(X, y, X_val=X_val, y_val=y_val)
    losses = [epoch["valid_loss"] for epoch in moe.history_]
    assert moe.best_loss_ == min(losses) < losses[-1]
    standardised = mean_squared_error(y_val, moe.predict(X_val)) / np.var(y)
    assert standardised == pytest.approx(moe.best_loss_, rel=1e-6)


def test_patience_ends_the_fit(problem):
    X, y = problem
    noise = np.random.default_rng(1).normal(size=len(y))
    moe = make("shallow", n_iter_no_change=2, learning_rate=0.05, max_epochs=200)
    assert moe.fit(X, y, X_val=X, y_val=noise).n_iter_ < 200


def test_weighted_rows_count_like_repeated_rows(kind, problem):
    X, y = problem
    weight = np.random.default_rng(2).integers(0, 4, size=len(y))
    order = np.random.default_rng(3).permutation(len(y))
    weighted = make(kind).fit(X[order], y[order], sample_weight=weight[order])
    repeated = make(kind).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-8)


def test_weighted_rows_count_like_repeated_rows_with_bins(problem):
    X, y = problem
    weight = np.random.default_rng(2).integers(0, 4, size=len(y))
    moe = make("parallel", embedding="piecewise_linear")
    weighted = moe.fit(X, y, sample_weight=weight).predict(X)
    repeated = moe.fit(np.repeat(X, weight, axis=0), np.repeat(y, weight)).predict(X)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_units_of_features_and_targets_do_not_matter(kind, problem, scale):
    X, y = problem
    plain = make(kind).fit(X, y).predict(X)
    scaled = make(kind).fit(X * scale, y * scale).predict(X * scale) / scale
    np.testing.assert_allclose(scaled, plain, rtol=1e-5)


def test_constant_target_is_predicted_exactly(kind, problem):
    X, _ = problem
    assert np.all(make(kind).fit(X, np.full(len(X), 1e8 / 3)).predict(X) == 1e8 / 3)


def test_outliers_and_constant_columns_leave_predictions_finite(kind, problem):
    X, y = problem
    X = np.column_stack([X, np.ones(len(X))])
    X[0, 0] = 1e6 * X[:, 0].std()
    moe = make(kind, embedding="piecewise_linear").fit(X, y)
    assert np.isfinite(moe.predict(X * 1e3)).all()


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_few_rows_are_enough(kind, problem, n):
    X, y = problem
    moe = make(kind, early_stopping=n > 1, embedding="piecewise_linear").fit(X[:n], y[:n])
    assert np.isfinite(moe.predict(X)).all()


def test_several_outputs(kind, problem):
    X, y = problem
    Y = np.column_stack([y, -1000 * y])
    moe = make(kind, max_epochs=60, learning_rate=0.02).fit(X, Y)
    assert moe.predict(X).shape == Y.shape
    assert moe.score(X, Y) > 0.5


@pytest.mark.parametrize(
    "loss", ["squared_error", "absolute_error", "huber", part("quantile", quantile=0.8)]
)
def test_losses(problem, loss):
    X, y = problem
    moe = make("shallow", loss=loss, max_epochs=100, learning_rate=0.02).fit(X, y)
    assert moe.score(X, y) > 0.5


def test_quantile_loss_predicts_the_quantile():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 2)), rng.normal(size=400)
    loss = part("quantile", quantile=0.8)
    moe = make("shallow", loss=loss, n_experts=1, hidden_dim=1, max_epochs=200)
    moe.set_params(learning_rate=0.02).fit(X, y)
    assert 0.7 < np.mean(y <= moe.predict(X)) < 0.9


def test_warm_start_goes_on_from_the_last_fit(kind, problem):
    X, y = problem
    params = {"learning_rate": 0.02, "max_epochs": 60}
    moe = make(kind, warm_start=True, **params).fit(X, y)
    first = moe.best_loss_
    assert moe.fit(X, y).history_[0]["train_loss"] < 1.5 * first
    cold = make(kind, **params).fit(X, y).fit(X, y)
    assert cold.history_[0]["train_loss"] > 5 * first


def test_partial_fit_learns_and_keeps_the_scaling(kind, problem):
    X, y = problem
    moe = make(kind, learning_rate=0.01).partial_fit(X, y)
    first = moe.score(X, y)
    for _ in range(60):
        moe.partial_fit(X, y)
    assert moe.score(X, y) > max(first, 0.5)
    center = moe._model.x_scaling.center
    moe.partial_fit(X + 1000, y)
    assert np.array_equal(moe._model.x_scaling.center, center)


def test_partial_fit_refuses_another_number_of_outputs(problem):
    X, y = problem
    moe = make("shallow").partial_fit(X, y)
    with pytest.raises(ValueError, match=r"as many outputs as in the first fit. Got 2 and 1"):
        moe.partial_fit(X, np.column_stack([y, y]))


def test_silent(kind, problem, capsys):
    make(kind, early_stopping=True).fit(*problem)
    assert capsys.readouterr() == ("", "")


def test_verbose_prints_a_line_for_each_epoch(problem, capsys):
    make("shallow", verbose=1, early_stopping=True).fit(*problem)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("epoch  1/20  train ")
    assert "  valid " in lines[-1]


def test_top_1_with_weight_one_is_refused_for_training(problem):
    moe = make("shallow", top_k=1, router=part("softmax", renormalize=True))
    with pytest.raises(ValueError, match="gives the gate no gradient"):
        moe.fit(*problem)


def test_the_gate_of_a_top_1_mixture_learns(problem):
    X, y = problem
    still = make("shallow", top_k=1, learning_rate=1e-12).fit(X, y)
    moved = make("shallow", top_k=1).fit(X, y)
    weights = [moe.net_.layer.gate.linear.weight for moe in (still, moved)]
    assert (weights[0] - weights[1]).abs().max() > 1e-2


def test_one_expert_is_a_plain_net(problem):
    X, y = problem
    moe = make("shallow", n_experts=1).fit(X, y)
    x = moe._model.tensor(X)
    experts = moe.net_.layer.experts
    hidden = torch.relu(x @ experts.hidden.weight[0] + experts.hidden.bias[0])
    plain = hidden @ experts.output.weight[0] + experts.output.bias[0]
    by_hand = y.mean() + y.std() * plain.detach().numpy().ravel()
    np.testing.assert_allclose(moe.predict(X), by_hand, rtol=1e-10)


def test_all_experts_chosen_is_the_soft_mixture(kind, problem):
    X, y = problem
    soft, chosen = make(kind, top_k=None).fit(X, y), make(kind, top_k=4).fit(X, y)
    np.testing.assert_allclose(soft.predict(X), chosen.predict(X), rtol=1e-10)


def test_annealed_temperature_ends_where_it_should(kind, problem):
    gate = part("linear", temperature=(1.0, 0.25))
    moe = make(kind, gate=gate).fit(*problem)
    for trained in moe.net_.gates():
        assert torch.allclose(trained.log_temperature.exp(), torch.tensor(0.25).double())


def test_reconstruction_is_a_part_of_the_history(problem):
    expert = part("latent", latent_dim=2, reconstruction=0.1)
    moe = make("parallel", expert=expert).fit(*problem)
    losses = [epoch["reconstruction_loss"] for epoch in moe.history_]
    assert losses[-1] < losses[0]


def test_dtype_auto_follows_the_features(problem):
    X, y = problem
    assert next(make("shallow").fit(X, y).net_.parameters()).dtype == torch.float64
    single = make("shallow").fit(X.astype(np.float32), y)
    assert next(single.net_.parameters()).dtype == torch.float32
    assert single.predict(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("kind", ["shallow", "ensemble", "parallel"])
def test_few_rows_of_float32_are_learned_in_float64(kind):
    random = np.random.default_rng(0)
    X, y = random.normal(size=(40, 3)).astype(np.float32), random.normal(size=40)
    times = random.integers(0, 4, 40)
    order = random.permutation(times.sum())
    rows = np.repeat(np.arange(40), times)[order]
    weighted = make(kind, dtype="float32").fit(X, y, sample_weight=times)
    repeated = make(kind, dtype="float32").fit(X[rows], y[rows])
    assert next(weighted.net_.parameters()).dtype == torch.float32
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=0, atol=1e-6)


def test_a_device_that_is_not_there_is_refused(problem):
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu'"):
        make("shallow", device="gpu").fit(*problem)
    with pytest.raises(ValueError, match="device='cuda:99' was asked for"):
        make("shallow", device="cuda:99").fit(*problem)


@pytest.mark.parametrize("estimator", [MoERegressor, DeepMoERegressor])
def test_top_k_above_n_experts_is_refused(estimator, problem):
    with pytest.raises(ValueError, match=r"at most n_experts. Got top_k=8 and n_experts=4"):
        estimator(n_experts=4, top_k=8).fit(*problem)


def test_default_top_k_fits_any_number_of_experts(kind, problem):
    for n_experts in (1, 2, 9):
        make(kind, n_experts=n_experts, top_k="auto", max_epochs=2).fit(*problem)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_fits_on_a_gpu_and_predicts_on_a_cpu(kind, problem):
    import pickle

    X, y = problem
    moe = make(kind, device="cuda", batch_size=32).fit(X, y)
    assert moe._model.device.type == "cuda"
    state = moe.__getstate__()
    on_cpu = make(kind, device="cpu")
    on_cpu.__setstate__({**state, "device": "cpu"})
    np.testing.assert_allclose(on_cpu.predict(X), moe.predict(X), rtol=1e-4)
    again = pickle.loads(pickle.dumps(moe))
    np.testing.assert_allclose(again.predict(X), moe.predict(X), rtol=1e-5)


def test_a_fit_with_most_experts_dead_says_so(problem):
    X, y = problem
    moe = make("shallow", n_experts=6, top_k=1)

    def collapse(network, rows, seed):
        with torch.no_grad():
            network.layer.gate.linear.bias[..., 1:] = -1000.0

    collapsed = moe.set_params(init=collapse)
    with pytest.warns(ConvergenceWarning, match=r"5 of 6 experts are hardly ever asked.*top_k"):
        collapsed.fit(X, y)
    assert (collapsed.expert_usage_ < 1 / 60).sum() == 5
