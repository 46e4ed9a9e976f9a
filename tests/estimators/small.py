"""Small estimators that fit in a blink."""

from skmoe import DeepMoERegressor, MoERegressor

SHALLOW = {"n_experts": 4, "hidden_dim": 8, "max_epochs": 20, "embedding": None}
DEEP = {**SHALLOW, "n_layers": 3, "model_dim": 16}


def make(kind, **params):
    """A small estimator: "shallow", "parallel", "stack" or "ensemble"."""
    if kind == "shallow":
        return MoERegressor(**{"random_state": 0, **SHALLOW, **params})
    return DeepMoERegressor(**{"arrangement": kind, "random_state": 0, **DEEP, **params})
