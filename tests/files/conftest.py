"""A small problem, a small model of it, and the bytes of its file."""

import numpy as np
import pytest
from small import make

from skmoe import load_model


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)) * [1.0, 50.0, 0.01] + [0.0, 300.0, 1.0]
    return X, 40 + 7 * np.sin(X[:, 0]) + 0.05 * X[:, 1]


@pytest.fixture(scope="module")
def small(problem):
    """A model of some 3 KB."""
    sizes = {"n_experts": 2, "expert": "constant", "solver": "adam", "max_epochs": 2}
    return make("shallow", **sizes).fit(*problem)


@pytest.fixture(scope="module")
def good(small, tmp_path_factory):
    """The bytes of its file."""
    path = tmp_path_factory.mktemp("good") / "model.skmoe"
    small.save_model(path)
    return path.read_bytes()


@pytest.fixture
def loads(tmp_path):
    """Load an estimator from bytes."""

    def load(data, function=load_model):
        path = tmp_path / "bytes.skmoe"
        path.write_bytes(data)
        return function(path)

    return load
