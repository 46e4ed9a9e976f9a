"""Compression and fine-tuning: identities of the former, and what the latter leaves alone."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError
from small import ESTIMATORS, every_estimator

from skmoe import MoERegressor, part
from skmoe.nn.experts import EXPERTS
from skmoe.surgery import experts_to_tune, with_adapters

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
every_method = pytest.mark.parametrize("method", ["latent", "mpo"])


def data(n=200):
    rng = np.random.RandomState(0)
    X = rng.randn(n, 6)
    return X, np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]


def fitted(kind="shallow", **parameters):
    usual = {
        "n_experts": 4,
        "hidden_dim": 12,
        "expert": "mlp",
        "embedding": None,
        "max_epochs": 30,
        "random_state": 0,
    }
    return ESTIMATORS[kind](**{**usual, **parameters}).fit(*data())


def count(estimator):
    return sum(weight.numel() for weight in estimator.net_.parameters())


def maps_of(estimator):
    """Hidden maps of the experts of each block, behind an encoder if there is one."""
    maps = []
    for layer in estimator.net_.moe_layers():
        experts = layer.experts
        weight = experts.hidden.weight.detach().unflatten(0, (experts.n_blocks, -1))
        if hasattr(experts, "encoder"):
            weight = experts.encoder.weight.detach().unsqueeze(1) @ weight
        maps.extend(weight.double().numpy())
    return maps


# Compression


@every_method
@every_estimator
@pytest.mark.parametrize("n_shared_experts", [0, 2])
def test_full_rank_predicts_the_same(kind, method, n_shared_experts):
    moe = fitted(kind, n_shared_experts=n_shared_experts, top_k=2)
    seen = moe.net_.moe_layers()[0].experts.input_dim
    small = moe.compress(method=method, rank=seen if method == "latent" else 10_000)
    X, _ = data()
    assert_allclose(small.predict(X), moe.predict(X), atol=1e-6)
    for ours, theirs in zip(small.predict_gates(X), moe.predict_gates(X), strict=True):
        assert_allclose(ours, theirs, atol=1e-6)
    assert_allclose(small.compression_errors_, 0, atol=1e-10)


@every_estimator
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_error_is_the_sum_of_what_is_left_out(kind, rank):
    """Eckart and Young's identity, for each block."""
    moe = fitted(kind)
    small = moe.compress(rank=rank)
    for here, there, error, s in zip(
        maps_of(moe),
        maps_of(small),
        small.compression_errors_,
        small.singular_values_,
        strict=True,
    ):
        lost = ((here - there) ** 2).sum()
        assert_allclose(lost, (s[rank:] ** 2).sum(), rtol=1e-5, atol=1e-10)
        assert_allclose(lost / (here**2).sum(), error, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 2, 4, 9])
def test_error_of_operators_is_the_sum_over_both_cuts(rank):
    moe = fitted()
    small = moe.compress(method="mpo", rank=rank)
    (here,), (there,) = maps_of(moe), maps_of(small)
    (error,) = small.compression_errors_
    assert_allclose(((here - there) ** 2).sum() / (here**2).sum(), error, rtol=1e-5, atol=1e-12)


@every_method
def test_error_falls_with_the_rank(method):
    moe = fitted()
    errors = [moe.compress(method=method, rank=r).compression_errors_[0] for r in range(1, 7)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.01


def test_errors_that_count_by_their_effect_have_less_of_it():
    X, _ = data()
    X = (
        X
        * [3.0, 3.0, 3.0, 0.1, 0.1, 0.1]
        @ np.linalg.qr(np.random.RandomState(1).randn(6, 6))[0]
    )
    moe = MoERegressor(4, embedding=None, max_epochs=2, random_state=0).fit(X, X[:, 0])
    seen = moe._model.tensor(X).double().numpy()

    def effect(small):
        (here,), (there,) = maps_of(moe), maps_of(small)
        return ((seen @ (here - there)) ** 2).sum()

    plain, aware = moe.compress(rank=3), moe.compress(rank=3, X=X)
    assert effect(aware) < effect(plain)
    moments = seen.T @ seen / len(seen)
    (maps,) = maps_of(moe)
    whole = np.einsum("edh,df,efh->", maps, moments, maps)
    assert_allclose(effect(aware) / len(X) / whole, aware.compression_errors_[0], rtol=1e-4)


def test_compression_leaves_fewer_weights_and_the_old_model_as_it_was():
    X, _ = data()
    moe = fitted(hidden_dim=64)
    before = moe.predict(X)
    small = moe.compress(rank=2)
    n_experts, width = 4, 64
    assert count(moe) - count(small) == (6 - 2) * n_experts * width - (6 * 2 + 2)
    assert np.array_equal(moe.predict(X), before)


@every_method
def test_compressed_models_travel_and_learn_on(method):
    X, y = data()
    small = fitted().compress(method=method, rank=3)
    again = pickle.loads(pickle.dumps(small))
    assert_allclose(again.predict(X), small.predict(X), atol=1e-10)
    before = np.mean((small.predict(X) - y) ** 2)
    assert np.mean((small.fine_tune(X, y, method="all").predict(X) - y) ** 2) < before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 7}, r"rank must be at most 6, the dimension that experts see\. Got 7"),
        ({"rank": 0}, "rank must be an int of at least 1. Got 0"),
        ({"rank": 2, "method": "latnet"}, "Did you mean 'latent'"),
        ({"rank": 2, "method": "mpo", "X": data()[0]}, "Leave out X"),
    ],
)
def test_bad_compressions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fitted().compress(**settings)


@pytest.mark.parametrize("expert", ["linear", "latent", "cp"])
def test_other_experts_have_no_maps_to_factorise(expert):
    with pytest.raises(ValueError, match="factorises the maps of expert='mlp'"):
        fitted(expert=expert).compress(rank=2)


def test_surgery_needs_a_fit():
    with pytest.raises(NotFittedError):
        MoERegressor().compress(rank=2)
    with pytest.raises(NotFittedError):
        MoERegressor().fine_tune(*data())


# Fine-tuning


def shifted():
    """New rows in a corner, where the function has changed."""
    X, y = data(400)
    corner = X[:, 0] > 0.5
    return X[corner], y[corner] + 1.0


def tuned(moe, **settings):
    return moe.fine_tune(*shifted(), **{"max_epochs": 20, **settings})


def weights(moe):
    return {name: tensor.clone() for name, tensor in moe.net_.state_dict().items()}


@pytest.mark.parametrize("expert", EXPERTS)
@every_estimator
def test_all_but_the_chosen_experts_stay_to_the_bit(kind, expert):
    asked = 2 if EXPERTS[expert].asks_some else None
    moe = fitted(kind, expert=expert, top_k=asked, n_shared_experts=1, weight_decay=0.1)
    before = weights(moe)
    tuned(moe, threshold=0.3)
    after = weights(moe)
    n_blocks = [layer.experts.n_blocks for layer in moe.net_.moe_layers()]
    own = {id(tensor) for layer in moe.net_.moe_layers() for tensor in layer.experts.own()}
    ids = moe.tuned_experts_
    learned = 0
    for name, weight in moe.net_.named_parameters():
        if id(weight) not in own:
            assert torch.equal(before[name], after[name]), name
            continue
        if kind == "stack":
            chosen = ids[0] if ".0." in name else ids[1]
        else:
            chosen = np.concatenate([4 * b + ids[b] for b in range(n_blocks[0])])
        frozen = np.setdiff1d(np.arange(len(weight)), chosen)
        assert torch.equal(before[name][frozen], after[name][frozen]), name
        assert not torch.equal(before[name][chosen], after[name][chosen]), name
        learned += before[name][chosen].numel()
    assert learned == moe.n_tuned_weights_
    for name, buffer in moe.net_.named_buffers():
        assert torch.equal(before[name], buffer), name


def test_rows_of_frozen_experts_keep_their_predictions():
    X, _ = data()
    moe = fitted(n_experts=8, top_k=2)
    before, gates = moe.predict(X), moe.predict_gates(X)
    tuned(moe, threshold=0.3)
    frozen = (gates[:, moe.tuned_experts_[0]] == 0).all(1)
    assert 0 < frozen.sum() < len(X)
    assert np.array_equal(moe.predict(X)[frozen], before[frozen])
    assert not np.allclose(moe.predict(X)[~frozen], before[~frozen])


@pytest.mark.parametrize("score", ["gate", "token"])
@every_estimator
def test_scores_add_up_to_one_and_the_chosen_are_the_fewest(kind, score):
    moe = tuned(fitted(kind, top_k=2), score=score, threshold=0.6, max_epochs=1)
    assert_allclose(moe.expert_scores_.sum(-1), 1)
    for scores, chosen in zip(moe.expert_scores_, moe.tuned_experts_, strict=True):
        assert scores[chosen].sum() >= 0.6
        assert scores[chosen[:-1]].sum() < 0.6
        assert scores[chosen].min() >= np.delete(scores, chosen).max(initial=0)


def test_scores_are_mean_weights_or_shares_of_the_choices():
    moe = fitted(top_k=2)
    X, _ = shifted()
    gates = moe.predict_gates(X)
    tuned(moe, score="gate", max_epochs=1)
    assert_allclose(moe.expert_scores_[0], gates.mean(0), atol=1e-12)
    tuned(moe, score="token", max_epochs=1)
    assert_allclose(moe.expert_scores_[0], (gates > 0).mean(0) / 2, atol=1e-12)


@pytest.mark.parametrize(
    ("threshold", "chosen"), [(1e-9, [2]), (0.5, [2]), (0.51, [2, 0]), (1.0, [2, 0, 3])]
)
def test_threshold_takes_the_largest_first(threshold, chosen):
    scores = np.array([[0.3, 0.0, 0.5, 0.2]])
    assert experts_to_tune(scores, threshold)[0].tolist() == chosen


@every_estimator
def test_tuning_learns_what_has_changed(kind):
    X, y = shifted()
    moe = fitted(kind, top_k=2)
    before = np.mean((moe.predict(X) - y) ** 2)
    tuned(moe, threshold=1.0, max_epochs=60)
    assert np.mean((moe.predict(X) - y) ** 2) < 0.5 * before


def test_gates_keep_their_temperature_and_make_no_noise():
    gate = part("linear", temperature=(5.0, 0.1), noise=0.3)
    moe = fitted(gate=gate, top_k=2)
    temperature = moe.net_.layer.gate.log_temperature.clone()
    gates = moe.predict_gates(data()[0])
    tuned(moe)
    assert torch.equal(moe.net_.layer.gate.log_temperature, temperature)
    assert np.array_equal(moe.predict_gates(data()[0]), gates)


def test_validation_rows_choose_the_epoch_and_weights_may_learn_again():
    X, y = shifted()
    moe = fitted(top_k=2).fine_tune(X, y, X_val=X, y_val=y, max_epochs=10)
    assert "valid_loss" in moe.history_[-1]
    assert all(weight.requires_grad for weight in moe.net_.parameters())
    moe.fine_tune(X, y, method="all", max_epochs=2)
    assert moe.n_tuned_weights_ == count(moe)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "expert"}, "Did you mean 'experts'"),
        ({"score": "gates"}, "Did you mean 'gate'"),
        ({"threshold": 0}, "threshold must be a number above 0. Got 0"),
        ({"threshold": 1.5}, "threshold must be at most 1. Got 1.5"),
        ({"learning_rate": -1}, "learning_rate must be a number above 0. Got -1"),
        ({"max_epochs": 0}, "max_epochs must be an int of at least 1. Got 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fitted().fine_tune(*shifted(), **settings)


def test_targets_must_have_as_many_outputs_as_before():
    X, y = shifted()
    with pytest.raises(ValueError, match="y must have as many outputs as in the first fit"):
        fitted().fine_tune(X, np.c_[y, y])


def test_a_failed_tuning_leaves_the_model_as_it_was():
    X, y = shifted()
    moe = fitted()
    before = moe.predict(X)
    with pytest.raises(FloatingPointError):
        moe.fine_tune(X, y, learning_rate=1e30, threshold=1.0)
    assert np.array_equal(moe.predict(X), before)
    assert not hasattr(moe, "tuned_experts_")


# Adapters


@every_estimator
def test_adapters_change_nothing_at_first(kind):
    moe = fitted(kind, top_k=2)
    X, _ = data()
    adapted = with_adapters(moe._model, {}, 0)
    assert_allclose(adapted.predict(X), moe._model.predict(X), atol=1e-12)


@every_estimator
def test_base_stays_to_the_bit_and_adapters_learn(kind):
    moe = fitted(kind, top_k=2, n_shared_experts=1, weight_decay=0.1)
    before, X = weights(moe), data()[0]
    gates = moe.predict_gates(X)
    tuned(moe, method="adapters", max_epochs=60)
    after = weights(moe)
    for name, tensor in before.items():
        assert torch.equal(after[f"base.{name}"], tensor), name
    learned = [name for name in after if not name.startswith("base.")]
    fresh = with_adapters(fitted(kind, top_k=2, n_shared_experts=1)._model, {}, 0).net
    assert sum(after[name].numel() for name in learned) >= moe.n_tuned_weights_ > 0
    assert set(after) == set(fresh.state_dict())
    assert np.abs(after["input_bias"].numpy()).max() > 0
    assert not np.array_equal(moe.predict_gates(X), gates)  # seen behind the bias


@every_estimator
def test_adapters_learn_what_has_changed(kind):
    X, y = shifted()
    moe = fitted(kind, top_k=2)
    before = np.mean((moe.predict(X) - y) ** 2)
    tuned(moe, method="adapters", max_epochs=150)
    assert np.mean((moe.predict(X) - y) ** 2) < 0.5 * before
    again = np.mean((tuned(moe, method="adapters", max_epochs=150).predict(X) - y) ** 2)
    assert again < 0.5 * before


def test_prediction_with_adapters_is_the_sum_of_its_parts():
    X, _ = data()
    moe = tuned(fitted(n_shared_experts=1), method="adapters")
    parts = (moe.predict_gates(X) * moe.predict_experts(X)).sum(1)
    assert_allclose(moe.predict(X), moe.predict_shared(X) + parts, atol=1e-9)


def test_formula_of_the_adapters():
    net = with_adapters(fitted()._model, {"rank": 2, "bottleneck": 3}, 0).net
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.adapters():
            weight.copy_(torch.randn(weight.shape, generator=random, dtype=weight.dtype))
        x = torch.randn(7, 6, generator=random, dtype=net.input_bias.dtype)
        w = torch.sigmoid(net.gate(x[None]))[0]
        base = net.base(x + w[:, :1] * net.input_bias)[0]
        low = net.low_rank[1](net.low_rank[0](x))
        narrow = net.outer(torch.nn.functional.silu(net.inner(x)))
        assert_allclose(net(x)[0], base + w[:, 1:2] * low + w[:, 2:] * narrow, rtol=1e-10)
    assert net.low_rank[0].out_features == 2
    assert net.inner.out_features == 3


def test_number_of_active_adapters_is_in_range_and_the_threshold_moves():
    router = part("sigmoid", threshold="learn")
    start = with_adapters(fitted()._model, {"router": router}, 0).net
    moe = tuned(fitted(), method="adapters", adapters={"router": router}, max_epochs=60)
    x = moe._model.tensor(data()[0])
    active = (moe.net_.weights(x) > 0).sum(1)
    assert active.min() >= 0
    assert active.max() <= 3
    thresholds = [net.gate.linear.weight[0, :, -1].detach() for net in (start, moe.net_)]
    assert not np.allclose(*thresholds, atol=0.01)


@every_estimator
def test_adapted_models_travel_and_can_be_tuned_otherwise(kind):
    X, _ = data()
    moe = tuned(fitted(kind, top_k=2), method="adapters")
    again = pickle.loads(pickle.dumps(moe))
    assert_allclose(again.predict(X), moe.predict(X), atol=1e-10)
    before = weights(again)
    tuned(again, method="experts", threshold=0.3)
    changed = [name for name, w in weights(again).items() if not torch.equal(w, before[name])]
    assert changed
    assert all(name.startswith("base.") for name in changed)
    tuned(again, method="all")
    assert again.n_tuned_weights_ == count(again)


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ({"ranks": 3}, "Did you mean 'rank'"),
        ({"rank": 0}, "rank must be an int of at least 1"),
        ({"base": "stack"}, r"adapters must not set \['base'\]"),
    ],
)
def test_bad_adapters_are_refused(adapters, message):
    with pytest.raises(ValueError, match=message):
        tuned(fitted(), method="adapters", adapters=adapters)


def test_adapters_that_are_there_keep_their_settings():
    moe = tuned(fitted(), method="adapters", adapters={"rank": 2})
    tuned(moe, method="adapters", adapters={"rank": 2, "bottleneck": 16})
    with pytest.raises(ValueError, match=r"the model has rank=2\. Got rank=5"):
        tuned(moe, method="adapters", adapters={"rank": 5})
    with pytest.raises(ValueError, match="Did you mean 'rank'"):
        tuned(moe, method="adapters", adapters={"ranks": 2})


def test_adapters_are_put_on_last():
    moe = tuned(fitted(), method="adapters")
    with pytest.raises(ValueError, match="compress it before"):
        moe.compress(rank=2)
    small = fitted().compress(rank=2)
    assert np.isfinite(tuned(small, method="adapters").predict(data()[0])).all()
    with pytest.raises(ValueError, match="needs a loss of predictions"):
        tuned(fitted(loss="gaussian_nll"), method="adapters")
