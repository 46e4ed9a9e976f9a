"""Model files of each release, to be read by all later ones.

``python tests/golden.py`` writes those of the present version into ``tests/data/models/``, one
folder for each release. Files that are there already are never written again.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from small import make

import skmoe
from skmoe import part

FOLDER = Path(__file__).parent / "data" / "models"


def rows(n: int = 60):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2))
    return X, np.sin(2 * X[:, 0]) + X[:, 1]


def fitted():
    """Small models that have all kinds of things to store."""
    X, y = rows()
    quick = {"n_experts": 3, "hidden_dim": 4, "max_epochs": 3, "solver": "adam"}
    deep = {**quick, "n_layers": 2, "model_dim": 4}
    bins = part("piecewise_linear", n_bins=5)
    frame = pd.DataFrame(X, columns=["width", "length"])
    shallow = make("shallow", **quick, gate=part("mlp", hidden_dim=3), embedding=bins)
    yield "shallow", shallow.fit(X, y)
    losses = {part("group_sparsity", shape=(1, 3)): 0.01}
    warm = make("parallel", **deep, top_k=2, warm_start=True, auxiliary_losses=losses)
    yield "parallel", warm.fit(frame, np.column_stack([y, -y]))
    yield "stack", make("stack", **deep, router="expert_choice").fit(X.astype("f4"), y)
    yield "ensemble", make("ensemble", **deep, loss="gaussian_nll").fit(X, y)
    tuned = make("shallow", **quick, gate="region").fit(X, y)
    yield "tuned", tuned.fine_tune(X[:30], y[:30] + 1, threshold=0.5)
    mixed = make("shallow", **quick, expert=["linear", "mlp", "constant"]).fit(X, y)
    yield "adapted", mixed.fine_tune(X[:30], y[:30] + 1, method="adapters")
    yield "compressed", make("shallow", **quick).fit(X, y).compress("mpo", rank=2)


def write(folder: Path) -> None:
    folder.mkdir(parents=True)
    X, _ = rows(10)
    for name, estimator in fitted():
        estimator.save_model(folder / f"{name}.skmoe")
        known = {"X": X.tolist(), "prediction": predicted(estimator, X).tolist()}
        (folder / f"{name}.json").write_text(json.dumps(known))


def predicted(estimator, X):
    """Predictions, for rows with the columns that the estimator has seen."""
    names = getattr(estimator, "feature_names_in_", None)
    return estimator.predict(X if names is None else pd.DataFrame(X, columns=names))


if __name__ == "__main__":
    write(FOLDER / skmoe.__version__)
