"""A whole fit: over those of scikit-learn and skorch of the same net, and over its steps alone.

And predictions, of many rows and of one.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.neural_network import MLPRegressor
from skorch import NeuralNetRegressor
from torch import nn

from benchmarks.speed.case import Case, Contestants, Goal
from benchmarks.speed.layers import Step
from skmoe import MoERegressor
from skmoe.datasets import make_circle_regression

OURS, SKLEARN, SKORCH, PRODUCTS = "skmoe", "MLPRegressor", "skorch", "products alone"
STEPS = "its steps alone"
N_FEATURES, WIDTH, BATCH = 16, 64, 256
EPOCHS = {1_000: 100, 10_000: 20, 100_000: 4}


def cases() -> Iterator[Case]:
    for n_rows, n_epochs in EPOCHS.items():
        yield _fit(n_rows, n_epochs)
    sparse = {"n_experts": 16, "top_k": 2}
    yield _over_steps("one net", 20_000, 40, BATCH, n_experts=1)
    yield _over_steps("top 2 of 16 experts", 20_000, 40, BATCH, **sparse)
    yield _over_steps("top 2 of 16 experts", 40_000, 20, 1024, **sparse)
    large = {"n_features": 64, "width": 256, "n_outputs": 64}
    yield _over_steps("top 2 of 16 experts", 20_000, 10, 1024, **large, **sparse)
    yield _prediction(100_000)
    yield _single_row()


def _data(n_rows: int, seed: int):
    X, y = make_circle_regression(n_rows, n_features=N_FEATURES, random_state=seed)
    return X.astype(np.float32), y.astype(np.float32)


def _fit(n_rows: int, n_epochs: int) -> Case:
    """One net of one hidden layer: the same sizes, epochs, batches and precision."""

    def make(seed: int) -> Contestants:
        X, y = _data(n_rows, seed)
        ours = MoERegressor(
            1,
            hidden_dim=WIDTH,
            init="random",
            solver="adam",
            embedding=None,
            early_stopping=False,
            max_epochs=n_epochs,
            batch_size=BATCH,
            random_state=seed,
        )
        theirs = MLPRegressor(
            hidden_layer_sizes=(WIDTH,),
            max_iter=n_epochs,
            batch_size=BATCH,
            learning_rate_init=0.01,
            tol=0.0,
            n_iter_no_change=n_epochs,
            random_state=seed,
        )
        _quietly(ours.fit, X[:500], y[:500])  # parts of packages that come in late
        return {
            OURS: lambda: _quietly(ours.fit, X, y),
            SKLEARN: lambda: _quietly(theirs.fit, X, y),
            SKORCH: lambda: _skorch(n_epochs).fit(X, y[:, None]),
        }

    goals = [Goal(SKLEARN, OURS, at_least=0.85), Goal(SKORCH, OURS, at_least=4)]
    sizes = f"{n_rows:,} rows, D={N_FEATURES}, W={WIDTH}, {n_epochs} epochs, batches of {BATCH}"
    return Case(f"fit, {sizes}", make, goals)


def _over_steps(
    name: str,
    n_rows: int,
    n_epochs: int,
    batch: int,
    n_features: int = N_FEATURES,
    width: int = WIDTH,
    n_outputs: int = 1,
    **given,
) -> Case:
    """A fit with validation, history and callbacks, and as many steps of the fitted network.

    They are taken on one batch. (At the start of a fit, as many rows ask each expert; at its
    end some are asked by many, which makes products slower.)
    """

    def make(seed: int) -> Contestants:
        X, y = _waves(n_rows, n_features, n_outputs, seed)
        moe = MoERegressor(
            hidden_dim=width,
            solver="adam",
            embedding=None,
            early_stopping=True,
            max_epochs=n_epochs,
            batch_size=batch,
            random_state=seed,
            **given,
        )
        _quietly(moe.fit, X, y)
        n_learned = n_rows - round(moe.validation_fraction * n_rows)
        n_steps = n_epochs * -(-n_learned // batch)
        x, target = torch.from_numpy(X[:batch]), torch.from_numpy(y[:batch])
        step = Step(copy.deepcopy(moe.net_), x, target.view(batch, -1)).with_optimizer

        def steps() -> None:
            for _ in range(n_steps):
                step()

        return {OURS: lambda: _quietly(moe.fit, X, y), STEPS: steps}

    goal = Goal(OURS, STEPS, at_most=1.15)
    sizes = f"D={n_features}, W={width}, O={n_outputs}, {n_epochs} epochs, batches of {batch:,}"
    return Case(f"fit, {name}, {n_rows:,} rows, {sizes}", make, [goal])


def _waves(n_rows: int, n_features: int, n_outputs: int, seed: int):
    """Outputs that are waves along random directions."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n_rows, n_features), dtype=np.float32)
    directions = generator.standard_normal((n_features, n_outputs), dtype=np.float32)
    y = np.sin(X @ directions / n_features**0.5)
    return X, y if n_outputs > 1 else y.ravel()


def _skorch(n_epochs: int) -> NeuralNetRegressor:
    net = nn.Sequential(nn.Linear(N_FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
    return NeuralNetRegressor(
        net,
        max_epochs=n_epochs,
        lr=0.01,
        batch_size=BATCH,
        optimizer=torch.optim.AdamW,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )


def _quietly(fit, X, y) -> None:
    """With as many epochs as were asked for, neither of them has to be done."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit(X, y)


def _prediction(n_rows: int) -> Case:
    """Eight experts, all of them asked."""

    def make(seed: int) -> Contestants:
        X, y = _data(n_rows, seed)
        moe = MoERegressor(8, hidden_dim=WIDTH, embedding=None, solver="adam", max_epochs=1)
        _quietly(moe.set_params(random_state=seed).fit, X[:5000], y[:5000])
        rows = torch.from_numpy(X[:4096])
        hidden, output = torch.randn(N_FEATURES, 8 * WIDTH), torch.randn(8 * WIDTH, 1)

        def products() -> None:
            for _ in range(0, n_rows, len(rows)):
                (rows @ hidden) @ output

        return {OURS: lambda: moe.predict(X), PRODUCTS: products}

    goal = Goal(PRODUCTS, OURS, at_least=0.4)
    return Case(f"predict, {n_rows:,} rows, 8 experts of W={WIDTH}", make, [goal], calls=3)


def _single_row() -> Case:
    """Calls, mostly: those of eight experts over those of one net."""

    def make(seed: int) -> Contestants:
        X, y = _data(1000, seed)
        moe = MoERegressor(8, hidden_dim=WIDTH, embedding=None, solver="adam", max_epochs=1)
        net = MLPRegressor(hidden_layer_sizes=(WIDTH,), max_iter=1, random_state=seed)
        for model in (moe.set_params(random_state=seed), net):
            _quietly(model.fit, X, y)

        def often(model) -> None:
            for _ in range(200):
                model.predict(X[:1])

        return {OURS: lambda: often(moe), SKLEARN: lambda: often(net)}

    return Case(f"predict, one row, 8 experts of W={WIDTH}", make, [Goal(OURS, SKLEARN)])
