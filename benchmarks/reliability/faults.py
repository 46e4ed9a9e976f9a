"""What goes wrong in a fit: steps that are too large, Ctrl-C, and the end of the process."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from benchmarks.reliability.figure import Figure
from skmoe import DeepMoERegressor, MoERegressor

KINDS = (MoERegressor, partial(DeepMoERegressor, 2, model_dim=16))
SMALL: dict[str, Any] = {"n_experts": 4, "hidden_dim": 8}
RATES = (1e-3, 1e-1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e30)
SOLVERS: tuple[dict[str, Any], ...] = (
    {"solver": "adam"},
    {"solver": "adam+ridge"},
    {"solver": "adam", "dtype": "float32"},
)
ROUTERS: tuple[dict[str, Any], ...] = (
    {},
    {"top_k": 1},
    {"top_k": 2},
    {"router": "normalized_sigmoid"},
    {"router": "sigmoid"},
    {"router": "hierarchical"},
    {"router": "noisy_top_k"},
    {"router": "expert_choice"},
)
# Seconds that a killed process trains before it is killed.
SOONEST, LATEST = 0.2, 2.0
PATIENCE = 300.0
KILLS_PER_FIT = 6


def problem(n_rows: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four features; the target jumps."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 4))
    return X, np.sin(3 * X[:, 0]) * np.sign(X[:, 1]) + 0.1 * rng.normal(size=n_rows)


def ends_finite(moe, X, y) -> bool:
    """Whether a fit raises, or ends with finite weights, losses and predictions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            moe.fit(X, y)
        except FloatingPointError:
            return _is_unfitted(moe, X)
    weights = all(bool(weight.isfinite().all()) for weight in moe.net_.state_dict().values())
    told = np.isfinite([epoch["train_loss"] for epoch in moe.history_]).all()
    return bool(weights and told and np.isfinite(moe.predict(X)).all())


def _is_unfitted(moe, X) -> bool:
    try:
        moe.predict(X)
    except NotFittedError:
        return True
    return False


def finite_fits(scale: float, seed: int) -> Figure:
    """At every learning rate, with every solver and router; some with the slow L-BFGS, too."""
    fits = list(product(KINDS, RATES, SOLVERS, ROUTERS))
    fits += product(KINDS, RATES[::4], ({"solver": "adam+lbfgs"},), ROUTERS[:1])
    order = np.random.default_rng(seed).permutation(len(fits))
    fits = [fits[number] for number in order[: max(10, round(scale * len(fits)))]]
    kept = 0
    for number, (kind, rate, solver, router) in enumerate(fits):
        X, y = problem(seed=seed + number)
        params = {**SMALL, **router, **solver, "max_epochs": 4}
        kept += ends_finite(kind(learning_rate=rate, random_state=number, **params), X, y)
    return Figure(
        "a fit raises and leaves nothing, or all weights and predictions are finite",
        kept,
        len(fits),
        f"learning rates up to {RATES[-1]:g}; gradient descent in float64 and float32, with "
        f"the closed form and with L-BFGS; {len(ROUTERS)} routers",
    )


def two_clusters(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A thousand rows; each cluster has a function of its own."""
    rng = np.random.default_rng(seed)
    X = np.repeat([-4.0, 4.0], 500)[:, None] + rng.normal(size=(1000, 4))
    return X, np.where(X[:, 0] < 0, X[:, 1], 2 * np.sin(X[:, 2]))


def living_experts(scale: float, seed: int) -> Figure:
    """Share of 16 experts on two clusters with more than a tenth of an even share."""
    n_fits = max(2, round(10 * scale))
    shares = []
    for number in range(seed, seed + n_fits):
        usage = MoERegressor(16, random_state=number).fit(*two_clusters(number)).expert_usage_
        shares.append(np.mean(usage > 0.1 / 16))
    return Figure(
        "nine tenths of 16 experts on two clusters get rows, in the mean",
        int(np.mean(shares) >= 0.9),
        1,
        f"{np.mean(shares):.0%} in {n_fits} fits, {min(shares):.0%} in the worst of them",
    )


def ctrl_c(make, X, y, delay: float) -> str:
    """What is wrong after SIGINT in a fit; nothing if all is well."""
    moe = make()
    raised = False
    key = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    try:
        key.start()
        moe.fit(X, y)
        while key.is_alive():
            time.sleep(0.001)
        time.sleep(0.01)
    except KeyboardInterrupt:
        raised = True
    if not raised:
        return "KeyboardInterrupt was swallowed"
    try:
        prediction = moe.predict(X)
    except (NotFittedError, AttributeError):  # the latter of a search
        return ""
    return "" if np.isfinite(prediction).all() else "fitted, and predicts what is not finite"


def _makers() -> list[tuple[str, Any]]:
    """Estimators of which a fit takes a while, and searches over them."""
    early = {"early_stopping": True, "n_iter_no_change": 30}

    def search():
        grid = {"learning_rate": [0.01, 0.02, 0.03]}
        return GridSearchCV(MoERegressor(max_epochs=60, **SMALL), grid, cv=2)

    def fitted():
        return MoERegressor(max_epochs=200, **SMALL).fit(*problem(60, seed=9))

    return [
        ("shallow", lambda: MoERegressor(max_epochs=200, **SMALL)),
        ("early stopping", lambda: MoERegressor(max_epochs=200, **early, **SMALL)),
        ("L-BFGS", lambda: MoERegressor(max_epochs=20, solver="adam+lbfgs", **SMALL)),
        ("closed form", lambda: MoERegressor(**SMALL)),
        ("ensemble", lambda: DeepMoERegressor(max_epochs=60, **SMALL)),
        ("a fit again", fitted),
        ("a search", search),
    ]


def interrupts(scale: float, seed: int) -> Figure:
    """SIGINT at random moments of fits of several kinds; at a small scale of fewer kinds."""
    X, y = problem()
    makers = _makers()[: max(2, round(7 * scale))]
    chance = np.random.default_rng(seed)
    faults, tried = [], 0
    # A process that was started in the background of a shell ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in makers:
            make().fit(X, y)  # not in a new process: what is imported late is there
            moe, started = make(), time.perf_counter()
            moe.fit(X, y)
            seconds = time.perf_counter() - started
            for _ in range(max(2, round(8 * scale))):
                fault = ctrl_c(make, X, y, chance.uniform(0, seconds))
                faults += [f"{name}: {fault}"] if fault else []
                tried += 1
    signal.signal(signal.SIGINT, before)
    return Figure(
        "Ctrl-C leaves a usable estimator or an unfitted one, and ends searches",
        tried - len(faults),
        tried,
        "; ".join(
            [f"SIGINT at random moments of {len(makers)} kinds of fits", *sorted(set(faults))]
        ),
    )


CHILD = """
import sys, warnings
import joblib
from benchmarks.reliability.faults import long_fits, outcome, problem
warnings.simplefilter("ignore")
moe = long_fits()[int(sys.argv[1])]
moe.set_params(checkpoint=sys.argv[2] or None)
print(outcome(moe.fit(*problem(400))))
"""


def long_fits() -> list[Any]:
    """Fits of some seconds, each with other phases and parts."""
    early = {"early_stopping": True, "n_iter_no_change": 400, "batch_size": 32}
    noisy = {"router": "noisy_top_k", "auxiliary_losses": {"switch": 0.01}}
    return [
        MoERegressor(4, max_epochs=400, random_state=0, **early),
        MoERegressor(4, max_epochs=600, random_state=0, solver="adam+lbfgs", **noisy),
        DeepMoERegressor(max_epochs=120, random_state=0),
        MoERegressor(4, max_epochs=800, learning_rate=1e4, random_state=0, batch_size=64),
    ]


def outcome(moe) -> str:
    """A hash of all that a fit leaves but the time that it took."""
    import joblib

    weights = {name: value.numpy() for name, value in moe.net_.state_dict().items()}
    history = [
        {key: value for key, value in epoch.items() if "seconds" not in key}
        for epoch in moe.history_
    ]
    return joblib.hash((weights, history, moe.best_loss_, moe.predict(problem(50)[0])))


def _start(code: str, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads}
    )


def _killed(process: subprocess.Popen, file: Path, delay: float) -> bool:
    """Wait until the file is there, and `delay` more; kill; False if it had ended by then."""
    end = time.monotonic() + PATIENCE
    while not file.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def kills(scale: float, seed: int) -> Figure:
    """SIGKILL at random moments, several times in each fit, until it comes to its end."""
    chance = np.random.default_rng(seed)
    wanted = max(2, round(24 * scale))
    n_killed = n_fits = n_equal = 0
    with tempfile.TemporaryDirectory() as folder:
        while n_killed < wanted:
            number = n_fits % len(long_fits())
            expected, _ = _start(CHILD, number, "").communicate()
            file, done, left = Path(folder) / f"fit-{n_fits}", False, KILLS_PER_FIT
            while not done:
                process = _start(CHILD, number, file)
                delay = chance.uniform(SOONEST, LATEST) if left else PATIENCE
                done = not _killed(process, file, delay)
                n_killed += not done
                left -= not done
            found, _ = process.communicate()
            n_equal += found == expected != ""
            n_fits += 1
    return Figure(
        "a killed fit goes on to the bits of one that was not (weights, history, predictions)",
        n_equal,
        n_fits,
        f"{n_killed} kills at random moments of {n_fits} fits",
    )


SEARCH = """
import sys, warnings
from pathlib import Path
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from skmoe import MoERegressor
from benchmarks.reliability.faults import Epochs, problem
warnings.simplefilter("ignore")
moe = MoERegressor(4, max_epochs=200, random_state=0, checkpoint=sys.argv[1] or None)
moe.set_params(callbacks=[Epochs(sys.argv[2])])
grid = {"learning_rate": [0.01, 0.02, 0.03, 0.04]}
search = GridSearchCV(moe, grid, cv=3).fit(*problem(300))
print(search.cv_results_["mean_test_score"].tolist(), search.best_params_)
"""
N_EPOCHS_OF_SEARCH = (4 * 3 + 1) * 200


class Epochs:
    """Counts the epochs of all fits of a search in a file."""

    def __new__(cls, path):
        from skorch.callbacks import Callback

        class Count(Callback):
            def __init__(self, path):
                self.path = path

            def on_epoch_end(self, net, **kwargs):
                with open(self.path, "a") as file:
                    file.write(".")

        return Count(path)


def searches(scale: float, seed: int) -> Figure:
    """A search over a folder of checkpoints, killed at random moments."""
    chance = np.random.default_rng(seed)
    wanted = max(1, round(3 * scale))
    kept, most = 0, 0
    expected = ""
    for _ in range(wanted):
        with tempfile.TemporaryDirectory() as folder:
            count = Path(folder) / "count"
            checkpoints = Path(folder) / "checkpoints"
            checkpoints.mkdir()
            if not expected:
                expected, _ = _start(SEARCH, "", Path(folder) / "other").communicate()
            killed = _killed(
                _start(SEARCH, checkpoints, count), count, chance.uniform(SOONEST, LATEST)
            )
            found, _ = _start(SEARCH, checkpoints, count).communicate()
            twice = len(count.read_text()) - N_EPOCHS_OF_SEARCH
            kept += killed and found == expected != "" and twice <= 200
            most = max(most, twice)
    return Figure(
        "a killed search does at most one of its fits twice, and ends with the same scores",
        kept,
        wanted,
        f"13 fits of 200 epochs each; at most {most} epochs done twice",
    )


def measure(scale: float, seed: int) -> Iterator[Figure]:
    """Fits that diverge, are interrupted or killed."""
    yield finite_fits(scale, seed)
    yield living_experts(scale, seed)
    yield interrupts(scale, seed)
    yield kills(scale, seed)
    yield searches(scale, seed)
