"""Adapters: what they add, that the base stays as it is, and that they travel."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from operated import count, data, fitted, shifted, tuned, weights
from small import every_estimator

from skmoe import part
from skmoe.surgery import with_adapters

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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
