"""Fine-tuning: which experts learn, and that all else stays as it is, to the bit."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from operated import count, data, fitted, shifted, tuned, weights
from sklearn.exceptions import NotFittedError
from small import every_estimator

from skmoe import MoERegressor, part
from skmoe.nn.experts import EXPERTS
from skmoe.surgery import experts_to_tune

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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


def test_fine_tuning_needs_a_fit():
    with pytest.raises(NotFittedError):
        MoERegressor().fine_tune(*data())
