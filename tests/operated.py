"""A fitted model, and rows on which the function has changed, for the tests of surgery."""

import numpy as np
from small import ESTIMATORS


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


def shifted():
    """New rows in a corner, where the function has changed."""
    X, y = data(400)
    corner = X[:, 0] > 0.5
    return X[corner], y[corner] + 1.0


def tuned(moe, **settings):
    return moe.fine_tune(*shifted(), **{"max_epochs": 20, **settings})


def weights(moe):
    return {name: tensor.clone() for name, tensor in moe.net_.state_dict().items()}
