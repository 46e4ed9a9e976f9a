"""What a fit and a prediction cost: time of the processor and peak memory of one process each.

A server process imports everything once and forks one child for each measurement; a child's
peak memory is its own. It is counted above what there is after imports, data and a small fit.
"""

import multiprocessing
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from benchmarks.environment import set_threads
from skmoe import DeepMoERegressor, MoERegressor

# Rows of the small fit before: it starts what is started once.
WARM_ROWS = 200
# An epoch is measured over so many rows at least, in all its repetitions.
ROWS_AT_LEAST = 20_000
# Rows of the fit before a prediction.
ROWS_OF_MODEL = 1000


@dataclass(frozen=True)
class Size:
    """Of data and model.

    `n_layers` of 0 is a `MoERegressor`; from 1 on it is a stack of `DeepMoERegressor`.
    """

    n_rows: int = 10_000
    n_features: int = 16
    n_experts: int = 8
    top_k: int = 2
    n_layers: int = 0
    n_outputs: int = 1
    batch_size: int | str = "auto"
    embedding: str | None = None


@dataclass(frozen=True)
class Cost:
    """Seconds and peak bytes.

    Attributes
    ----------
    seconds : float
        Of an epoch, or of a prediction.
    others : float
        Of the fit beyond its epochs: scaling, starts, the usage of experts.
    peak : int
        Bytes of the whole fit or prediction.
    n_weights : int
        Numbers that are learned.
    """

    seconds: float
    others: float
    peak: int
    n_weights: int


def cost_of_fit(size: Size) -> Cost:
    """Of the median epoch of a fit, without the first."""
    return _in_a_process(_fit, size)


def cost_of_prediction(size: Size) -> Cost:
    """Of predicting once for all rows."""
    return _in_a_process(_predict, size)


def _in_a_process(measure, size: Size) -> Cost:
    # Forked from a server, as a process that is started anew inherits the peak of its parent.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    with server.Pool(1) as pool:
        return pool.apply(_quietly, (measure, size))


def _quietly(measure, size: Size) -> Cost:
    set_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return measure(size)


def _fit(size: Size) -> Cost:
    X, y = _data(size)
    _model(size, 1).fit(X[:WARM_ROWS], y[:WARM_ROWS])
    before = peak_bytes()
    model, watch = _model(size, 1 + max(ROWS_AT_LEAST // size.n_rows, 2)), Watch()
    _, seconds = _timed(lambda: model.set_params(callbacks=[watch]).fit(X, y))
    others = seconds - sum(watch.seconds)
    median = float(np.median(watch.seconds[1:]))
    return Cost(median, others, peak_bytes() - before, _n_weights(model))


def _predict(size: Size) -> Cost:
    X, y = _data(size)
    model = _model(size, 1).fit(X[:ROWS_OF_MODEL], y[:ROWS_OF_MODEL])
    model.predict(X[:WARM_ROWS])
    before = peak_bytes()
    _, seconds = _timed(lambda: model.predict(X))
    return Cost(seconds, 0.0, peak_bytes() - before, _n_weights(model))


class Watch(Callback):
    """Time of the processor that each epoch takes."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_epoch_begin(self, net, **kwargs):
        self.started = time.process_time()

    def on_epoch_end(self, net, **kwargs):
        self.seconds.append(time.process_time() - self.started)


def _timed(call) -> tuple[Any, float]:
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


def _data(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Independent features in float32, and waves of the first two."""
    random = np.random.default_rng(0)
    X = random.standard_normal((size.n_rows, size.n_features), dtype=np.float32)
    y = np.sin(2 * X[:, 0]) + np.abs(X[:, -1])
    if size.n_outputs > 1:
        y = y[:, None] * np.linspace(1, 2, size.n_outputs, dtype=np.float32)
    return X, y


def _model(size: Size, n_epochs: int) -> Any:
    settings = {
        "n_experts": size.n_experts,
        "top_k": min(size.top_k, size.n_experts),
        "gate": "linear",
        "hidden_dim": 64,
        "embedding": size.embedding,
        "init": "random",
        "solver": "adam",
        "batch_size": size.batch_size,
        "max_epochs": n_epochs,
        "early_stopping": False,
        "device": "cpu",
        "random_state": 0,
    }
    if size.n_layers == 0:
        return MoERegressor(**settings)
    return DeepMoERegressor(size.n_layers, arrangement="stack", **settings)


def _n_weights(model: Any) -> int:
    return sum(weight.numel() for weight in model.net_.parameters())


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
