"""Small estimators that fit in a blink."""

import pytest

from skmoe import DeepMoERegressor, MoERegressor

SHALLOW = {"n_experts": 4, "hidden_dim": 8, "max_epochs": 20, "embedding": None}
DEEP = {**SHALLOW, "n_layers": 3, "model_dim": 16}


def make(kind, **params):
    """A small estimator: "shallow", "parallel", "stack" or "ensemble"."""
    if kind == "shallow":
        return MoERegressor(**{"random_state": 0, **SHALLOW, **params})
    return DeepMoERegressor(**{"arrangement": kind, "random_state": 0, **DEEP, **params})


# With the usual sizes but for the number of layers: for parts that are to work by their names.
ESTIMATORS = {
    "shallow": MoERegressor,
    "parallel": lambda **p: DeepMoERegressor(2, arrangement="parallel", **p),
    "stack": lambda **p: DeepMoERegressor(2, arrangement="stack", **p),
    "ensemble": lambda **p: DeepMoERegressor(4, arrangement="ensemble", **p),
}
every_estimator = pytest.mark.parametrize("kind", ESTIMATORS)
