"""Same bits everywhere, threads that predict, forks, and resources over many fits."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed

from benchmarks.reliability.confined import WAYS, without_network
from benchmarks.reliability.figure import Figure
from skmoe import DeepMoERegressor, MoERegressor

KINDS = {"MoERegressor": MoERegressor, "DeepMoERegressor": DeepMoERegressor}
SMALL: dict[str, Any] = {"n_experts": 4, "hidden_dim": 8, "random_state": 0}
N_THREADS = 8
# Seconds after which a forked child counts as hung.
HUNG = 30.0
# Rows from which on fits use several threads.
MANY = 2200
CLOSE = 1e-5
MEGABYTES = 5.0


def problem(n_rows: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four features."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 4))
    return X, np.sin(X[:, 0]) * X[:, 1] + 0.1 * rng.normal(size=n_rows)


def hash_of_a_fit(kind: str, seed: int, n_rows: int = 150) -> str:
    """A hash of the predictions of a fresh fit."""
    X, y = problem(n_rows)
    params = {**SMALL, "random_state": seed, "max_epochs": 15}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prediction = KINDS[kind](**params).fit(X, y).predict(X)
    return hashlib.sha256(prediction.tobytes()).hexdigest()


def run(code: str, *arguments: object, **more) -> str:
    """What a fresh process prints; its error if it fails."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more.pop("env", {})}
    done = subprocess.run(command, capture_output=True, text=True, env=env, **more)
    return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr[-500:]}"


FRESH = """
import sys
from benchmarks.reliability.processes import hash_of_a_fit
print(hash_of_a_fit(sys.argv[1], int(sys.argv[2])))
"""


def same_bits(scale: float, seed: int) -> Figure:
    """In this process, in fresh ones, and in workers of joblib."""
    repeats = max(2, round(10 * scale))
    kept = tried = 0
    for kind in KINDS:
        expected = hash_of_a_fit(kind, seed)
        found = [hash_of_a_fit(kind, seed) for _ in range(repeats)]
        found += [run(FRESH, kind, seed) for _ in range(max(1, repeats // 3))]
        found += Parallel(n_jobs=2)(delayed(hash_of_a_fit)(kind, seed) for _ in range(repeats))
        kept += sum(one == expected for one in found)
        tried += len(found)
    note = "one process, fresh processes, n_jobs=2; two estimators"
    return Figure("the same seed gives the same bits", kept, tried, note)


THREADS = """
import sys
from benchmarks.reliability.processes import difference_of_threads
kind, seed, dtype, init = sys.argv[1:]
print(difference_of_threads(kind, random_state=int(seed), dtype=dtype, init=init))
"""


def difference_of_threads(kind: str, **params: Any) -> float:
    """Of the predictions after fits with one thread and with two."""
    X, y = problem(MANY)
    predictions = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        moe = KINDS[kind](**{**SMALL, **params, "max_epochs": 2})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predictions.append(moe.fit(X, y).predict(X))
    one, two = predictions
    return float(np.abs(one - two).max() / np.std(y))


def threads_agree(scale: float, seed: int, dtype: str = "float64") -> Figure:
    """One thread against two, on rows that are enough for two."""
    seeds = [seed + more for more in range(max(1, round(2 * scale)))]
    # Where the machine is busy, threads that wait for each other awake take a hundred times as
    # long as threads that sleep.
    env = {"OMP_WAIT_POLICY": "PASSIVE"}
    differences = [
        float(run(THREADS, *case, env=env))
        for case in product(KINDS, seeds, [dtype], ["random", "auto"])
    ]
    same = sum(difference == 0 for difference in differences)
    return Figure(
        f"one and two threads agree to {CLOSE:g} of a standard deviation ({dtype})",
        sum(difference <= CLOSE for difference in differences),
        len(differences),
        f"{MANY} rows, two epochs and the closed form, from random and default starts; {same} "
        f"bitwise equal, largest difference {max(differences):.1e}",
    )


def threads_agree_in_float32(scale: float, seed: int) -> Figure:
    """Likewise; there a difference would grow with each step."""
    return threads_agree(scale, seed, "float32")


def at_once(work: Callable[[], Any], n_threads: int = N_THREADS) -> None:
    """Do the same in several threads."""
    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def threads_predict(scale: float, seed: int) -> Figure:
    """Eight threads predict with one estimator."""
    repeats, found, tried = max(5, round(200 * scale)), [], 0
    for kind in KINDS.values():
        X, y = problem()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            moe = kind(**SMALL, max_epochs=10).fit(X, y)
        expected = moe.predict(X).tobytes()

        def predict(moe=moe, X=X, expected=expected):
            found.extend(moe.predict(X).tobytes() == expected for _ in range(repeats))

        at_once(predict)
        tried += N_THREADS * repeats
    return Figure("eight threads that predict at once agree bitwise", sum(found), tried)


def predict_during_refits(scale: float, seed: int) -> Figure:
    """Every prediction is that of the old or of the new model."""
    refits, found = max(3, round(20 * scale)), []
    for kind in KINDS.values():
        X, y = problem()
        moe = kind(**SMALL, max_epochs=10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            allowed = {moe.fit(X, target).predict(X).tobytes() for target in (y, -y)}
            done = threading.Event()

            def predict(moe=moe, X=X, done=done, allowed=allowed):
                while not done.is_set():
                    found.append(moe.predict(X).tobytes() in allowed)

            thread = threading.Thread(target=predict)
            thread.start()
            for number in range(refits):
                moe.fit(X, y if number % 2 else -y)
            done.set()
            thread.join()
    note = f"{2 * refits} refits"
    return Figure(
        "a prediction during a refit is of the old or the new model",
        sum(found),
        len(found),
        note,
    )


FORK = """
import os, sys, warnings
import torch
torch.set_num_threads(2)
from benchmarks.reliability.processes import forked_children
print(*forked_children(int(sys.argv[1])))
"""


def forked_children(n_children: int) -> tuple[int, int]:
    """Children that come to an end, and those that hang, after a fit with several threads."""
    warnings.simplefilter("ignore")
    X, y = problem(MANY)
    moe = MoERegressor(**SMALL, max_epochs=1).fit(X, y)
    moe.predict(X)
    ended = hung = 0
    for number in range(n_children):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if number % 2:
                    MoERegressor(**SMALL, max_epochs=1).fit(X, y)
                status = 0 if np.isfinite(moe.predict(X)).all() else 1
            finally:
                os._exit(status)
        if _ends(child):
            ended += 1
        else:
            hung += 1
    return ended, hung


def _ends(child: int) -> bool:
    end = time.monotonic() + HUNG
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status == 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def forks(scale: float, seed: int) -> Figure:
    """Forked children fit and predict after the parent has used two threads."""
    n_children = max(2, round(20 * scale))
    ended, hung = map(int, run(FORK, n_children, env={"OMP_NUM_THREADS": "2"}).split())
    return Figure("a forked child does not hang", ended, n_children, f"{hung} hung or failed")


RESOURCES = """
import sys
from benchmarks.reliability.processes import growth
print(*growth(int(sys.argv[1]), int(sys.argv[2])))
"""


def growth(n_fits: int, n_predicts: int) -> tuple[float, int, int]:
    """Megabytes, file descriptors and threads that fits and predictions have added."""
    warnings.simplefilter("ignore")
    X, y = problem(100)
    kinds = list(KINDS.values())

    def fit(number: int):
        return kinds[number % 2](**SMALL, max_epochs=2).fit(X, y)

    for number in range(max(10, n_fits // 6)):
        moe = fit(number)
        moe.predict(X)
    before = _resources()
    for number in range(n_fits):
        moe = fit(number)
    for _ in range(n_predicts):
        moe.predict(X[:10])
    after = _resources()
    memory, files, threads = (b - a for a, b in zip(before, after, strict=True))
    return memory, int(files), int(threads)


def _resources() -> tuple[float, int, int]:
    import gc

    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return memory, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def resources(scale: float, seed: int) -> Figure:
    """Memory, file descriptors and threads after many fits."""
    n_fits, n_predicts = max(20, round(300 * scale)), max(100, round(10_000 * scale))
    found = run(RESOURCES, n_fits, n_predicts, env={"OMP_NUM_THREADS": "1"})
    memory, files, threads = map(float, found.split())
    kept = (memory <= MEGABYTES) + (files <= 0) + (threads <= 0)
    return Figure(
        f"{n_fits} fits and {n_predicts} predictions take no memory, files or threads for good",
        kept,
        3,
        f"{memory:+.1f} MB, {files:+.0f} file descriptors, {threads:+.0f} threads",
    )


def strict(scale: float, seed: int) -> Figure:
    """With all warnings as errors, no network, no home, and a folder that stays empty."""
    start = without_network()
    command = [*start, sys.executable, "-X", "dev", "-W", "error"]
    n_ways = max(1, round(len(WAYS) * scale))
    command += ["-m", "benchmarks.reliability.confined", str(n_ways)]
    home = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    faults, tried = [], max(1, round(2 * scale))
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)  # noqa: S103 (nobody else has anything in it)
        for _ in range(tried):
            faults += _faults_of_confined(command, folder, home, bool(start))
    note = f"{2 * n_ways} fits each, as a user without rights"
    note += ", without a network" if start else "; the network could not be taken away"
    return Figure(
        "python -X dev -W error, no home, a read-only folder: no warning, file or connection",
        tried - len(faults),
        tried,
        "; ".join([note, *faults]),
    )


def _faults_of_confined(
    command: list[str], folder: str, home: dict[str, str], no_network: bool
) -> list[str]:
    env = {**os.environ, **home, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    if done.returncode:
        return [f"failed: {done.stderr[-500:]}"]
    found = json.loads(done.stdout)
    as_planned = not found["folder"] and not (no_network and found["network"])
    if found["touched"] or os.listdir(folder) or not as_planned:
        return [str(found)]
    return []


def order(scale: float, seed: int) -> Figure:
    """Rows one by one, in another order, and many at once."""
    differences = []
    for kind in KINDS.values():
        for top_k in (None, 1, 2):
            X, y = problem(max(50, round(300 * scale)), seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                moe = kind(**SMALL, top_k=top_k, max_epochs=10, dtype="float64").fit(X, y)
            expected = moe.predict(X)
            shuffled = np.random.default_rng(seed).permutation(len(X))
            found = np.empty_like(expected)
            found[shuffled] = moe.predict(X[shuffled])
            one_by_one = np.concatenate([moe.predict(row[None]) for row in X])
            many = moe.predict(np.tile(X, (12_000 // len(X), 1)))[-len(X) :]
            differences += [
                float(np.abs(p - expected).max()) for p in (found, one_by_one, many)
            ]
    return Figure(
        "predictions do not depend on the rows beside them (1e-10, float64)",
        sum(difference <= 1e-10 for difference in differences),
        len(differences),
        f"shuffled, one by one, and 12,000 at once; largest difference {max(differences):.1e}",
    )


PROMISES = (
    same_bits,
    threads_agree,
    threads_agree_in_float32,
    threads_predict,
    predict_during_refits,
    forks,
    resources,
    strict,
    order,
)


def measure(scale: float, seed: int) -> Iterator[Figure]:
    """All of it, one after the other."""
    for promise in PROMISES:
        yield promise(scale, seed)
