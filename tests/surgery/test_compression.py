"""Experts factorised: identities, errors, and that models of fewer weights are whole ones."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from operated import count, data, fitted
from sklearn.exceptions import NotFittedError
from small import every_estimator

from skmoe import MoERegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
every_method = pytest.mark.parametrize("method", ["latent", "mpo"])


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


def test_compression_needs_a_fit():
    with pytest.raises(NotFittedError):
        MoERegressor().compress(rank=2)
