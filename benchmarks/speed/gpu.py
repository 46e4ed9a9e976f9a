"""On a CUDA GPU: steps that are replayed, fits of few and of very many rows, searches."""

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from benchmarks.speed.case import Case, Contestants, Goal
from benchmarks.speed.layers import random_step, textbook_layer
from benchmarks.speed.searches import (
    BATCHED,
    GRID,
    N_FOLDS,
    N_ROWS,
    PLAIN,
    searching,
    small_and_default,
)
from skmoe import DeepMoERegressor, MoERegressor
from skmoe.datasets import make_compositional_regression
from skmoe.precision import products_in
from skmoe.resident import WARM_UP, Recorder
from skmoe.search import BatchedGridSearchCV

REPLAYED, CALLED = "skmoe", "skmoe, operation by operation"
BLOCKS, ALL, TEXTBOOK = "rows in blocks", "all experts on all rows", "textbook loop"
GPU, CPU = "on the GPU", "on the CPU"
FIT, EPOCHS, PRODUCTS = "fit", "its epochs", "its arithmetic as large products"
# Steps within a call, of which slow contestants take few, and the side of a large product.
INNER, FEW, SIDE = 100, 4, 4096


def cases() -> Iterator[Case]:
    """None without a GPU."""
    if not torch.cuda.is_available():
        return
    for n_rows, n_experts, n_inputs, width in (
        (256, 8, 16, 64),
        (2048, 16, 16, 64),
        (2048, 64, 16, 64),
        (2048, 256, 16, 64),
        (16_384, 16, 16, 64),
        (2048, 64, 64, 256),
        (16_384, 64, 64, 256),
    ):
        yield _step(n_rows, n_experts, n_inputs, width)
    yield from _small_fits()
    for batch_size in (4096, 16_384, 65_536, 131_072):
        for dtype in ("float32", "tf32"):
            yield _large_fit(batch_size, dtype)
    yield from _devices()
    yield from _searches()


def _case(
    work: str, make: Callable[[int], Contestants], goals: list[Goal], turns: int | None = None
) -> Case:
    return Case(f"gpu: {work}", make, goals, turns=turns, wall=True)


def _step(n_rows: int, n_experts: int, n_inputs: int, width: int) -> Case:
    """Loss, gradients and optimiser, top 2 of some experts."""

    def make(seed: int) -> Contestants:
        step = random_step(n_inputs, width, 1, n_experts, n_rows, seed, device="cuda")
        step.optimizer.rate = torch.tensor(1e-4, device="cuda")

        def textbook() -> None:
            step.by_autograd(textbook_layer)
            step.optimizer.step()

        return {
            BLOCKS: _often(_replayed(step, sorting=-1)),
            ALL: _often(_replayed(step, sorting=float("inf"))),
            TEXTBOOK: _often(textbook, FEW),
        }

    sizes = f"D={n_inputs}, W={width}, top 2 of {n_experts}, {n_rows:,} rows"
    goals = [Goal(ALL, BLOCKS), Goal(TEXTBOOK, BLOCKS)]
    return _case(f"step, {sizes}", make, goals)


def _replayed(step: random_step, sorting: float) -> Callable[[], None]:
    """A step that is recorded, with rows sorted from so many saved multiply-adds on."""
    recorder = Recorder(step.with_optimizer, torch.device("cuda"))
    with mock.patch("skmoe.nn.dispatch.SORTING_ON_CUDA", sorting):
        for _ in range(WARM_UP + 1):
            with recorder.stream():
                recorder()
    assert recorder.records, "The step could not be recorded."

    def replay() -> None:
        with recorder.stream():
            recorder()

    return replay


def _often(call: Callable[[], object], times: int = INNER) -> Callable[[], float]:
    """Tells the seconds of as many calls as all contestants make."""

    def calls() -> float:
        call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(times):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter() - started) * INNER / times

    return calls


def _small_fits() -> Iterator[Case]:
    """Nets whose operations are shorter than their calls."""
    sizes = {"hidden_dim": 64, "embedding": None}
    nets = {
        "8 experts of W=64": MoERegressor(8, top_k=None, **sizes),
        "top 2 of 16 experts of W=64": MoERegressor(16, top_k=2, **sizes),
        "default MoERegressor": MoERegressor(),
        "default DeepMoERegressor": DeepMoERegressor(init="random"),
        "stack of 4 layers": DeepMoERegressor(4, arrangement="stack", init="random"),
    }
    for name, net in nets.items():
        net.set_params(solver="adam", max_epochs=20, batch_size=256, early_stopping=False)
        yield _small_fit(name, net.set_params(device="cuda"))


def _small_fit(name: str, net: Any) -> Case:
    def make(seed: int) -> Contestants:
        X, y = _rows(20_000, 16, seed)

        def fit() -> None:
            _fit(net.set_params(random_state=seed), X, y)

        def call_by_call() -> None:
            with mock.patch("skmoe.loop.repeats_steps", return_value=False):
                fit()

        _fit(net, X[:1000], y[:1000])  # loads what the device needs
        return {REPLAYED: fit, CALLED: call_by_call}

    goal = Goal(CALLED, REPLAYED, at_least=5)
    return _case(
        f"fit, 20,000 rows, 20 epochs in batches of 256, {name}", make, [goal], turns=3
    )


def _large_fit(batch_size: int, dtype: str) -> Case:
    """A million rows, over large products of as many operations."""
    n_rows, n_inputs, n_experts, width, n_epochs = 1_000_000, 64, 64, 256, 20
    # Forward and backward; the first maps need no gradient of their input.
    per_row = 2 * (2 * n_inputs * n_experts + 2 * (2 * n_inputs * width + 3 * width))
    net = MoERegressor(
        n_experts,
        top_k=2,
        hidden_dim=width,
        embedding=None,
        init="random",
        solver="adam",
        auxiliary_losses=None,
        early_stopping=False,
        max_epochs=n_epochs,
        batch_size=batch_size,
        dtype=dtype,
        device="cuda",
    )

    def make(seed: int) -> Contestants:
        X, y = _rows(n_rows, n_inputs, seed)
        of_epochs: list[float] = []

        def fit() -> None:
            _fit(net.set_params(random_state=seed), X, y)
            of_epochs[:] = [epoch["train_seconds"] for epoch in net.history_]

        def products() -> None:
            square = torch.randn(SIDE, SIDE, device="cuda")
            into = torch.empty_like(square)
            for _ in range(round(per_row * n_rows * n_epochs / (2 * SIDE**3))):
                torch.mm(square, square, out=into)
            torch.cuda.synchronize()

        def in_dtype() -> None:
            with products_in(dtype):
                products()

        in_dtype()

        def epochs() -> float:
            if not of_epochs:
                fit()
            return sum(of_epochs)

        return {FIT: fit, EPOCHS: epochs, PRODUCTS: in_dtype}

    sizes = f"D={n_inputs}, W={width}, top 2 of {n_experts}, {n_epochs} epochs"
    goals = [Goal(FIT, PRODUCTS), Goal(EPOCHS, PRODUCTS, at_most=5)]
    work = f"fit, {n_rows:,} rows, {sizes}, batches of {batch_size:,}, {dtype}"
    return _case(work, make, goals, turns=2)


def _devices() -> Iterator[Case]:
    """From how many rows on a GPU pays."""
    for n_rows in (1000, 3000, 10_000):
        yield _device(n_rows, "default MoERegressor", MoERegressor())
    yield _device(1000, "default DeepMoERegressor, 10 epochs", DeepMoERegressor(max_epochs=10))


def _device(n_rows: int, name: str, net: Any) -> Case:
    def make(seed: int) -> Contestants:
        X, y = make_compositional_regression(n_rows, n_blocks=2, random_state=seed)

        def on(device: str) -> Callable[[], None]:
            return lambda: _fit(net.set_params(device=device, random_state=seed), X, y)

        return {CPU: on("cpu"), GPU: on("cuda")}

    return _case(f"fit, {n_rows:,} rows, {name}", make, [Goal(CPU, GPU)], turns=2)


def _searches() -> Iterator[Case]:
    """Twelve candidates in five folds, and in twenty."""
    nets = small_and_default()
    for name, net in nets.items():
        yield _search(name, net, N_FOLDS)
    name, net = next(iter(nets.items()))
    yield _search(name, net, 4 * N_FOLDS, plain=False)


def _search(name: str, net: Any, n_folds: int, plain: bool = True) -> Case:
    def make(seed: int) -> Contestants:
        *_, run = searching(net.set_params(device="cuda"), GRID, seed)
        return {
            PLAIN: lambda: run(GridSearchCV, n_folds),
            BATCHED: lambda: run(BatchedGridSearchCV, n_folds),
            "60 of them": lambda: run(BatchedGridSearchCV, N_FOLDS),
        }

    goal = Goal(PLAIN, BATCHED, at_least=15) if plain else Goal(BATCHED, "60 of them")
    work = f"search, {12 * n_folds} fits of {N_ROWS:,} rows, {name}"
    return _case(work, make, [goal], turns=2)


def _rows(n_rows: int, n_inputs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth, of a few features."""
    X = np.random.default_rng(seed).normal(size=(n_rows, n_inputs)).astype(np.float32)
    return X, np.sin(2 * X[:, 0]) * X[:, 1] + X[:, 2]


def _fit(net: Any, X: np.ndarray, y: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(X, y)
    torch.cuda.synchronize()
