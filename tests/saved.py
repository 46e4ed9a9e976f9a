"""A small problem, a small model of it, and the bytes of its file."""

import numpy as np
import pytest
from small import make

from skmoe import load_model

KINDS = ["shallow", "parallel", "stack", "ensemble"]
QUICK = {"max_epochs": 3, "hidden_dim": 4}
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def small_problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)) * [1.0, 50.0, 0.01] + [0.0, 300.0, 1.0]
    return X, 40 + 7 * np.sin(X[:, 0]) + 0.05 * X[:, 1]


def small_model():
    """A fitted one of some 3 KB."""
    small = {"n_experts": 2, "expert": "constant", "solver": "adam", "max_epochs": 2}
    return make("shallow", **small).fit(*small_problem())


def bytes_of(moe, folder):
    """Those of its file."""
    path = folder / "model.skmoe"
    moe.save_model(path)
    return path.read_bytes()


def loader(folder):
    """A function that loads an estimator from bytes."""

    def load(data, function=load_model):
        path = folder / "bytes.skmoe"
        path.write_bytes(data)
        return function(path)

    return load
