"""Saves that are cut off: killed at any time, by a disk that is full, or for want of rights.

``python -m benchmarks.reliability.interrupted FOLDER COUNT SEED TRIAL ...`` prints how often
the file was left as an old or a new one, as JSON. It runs in a process of its own with one
thread, as its children are forked: importing for each of them would take a hundred times as
long as a save.
"""

import errno
import json
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.reliability.confined import become_nobody
from skmoe import MoERegressor, load_model


def models() -> tuple[MoERegressor, MoERegressor]:
    """Two that take a while to write."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4))
    with warnings.catch_warnings(action="ignore"):
        one, other = (
            MoERegressor(
                4, hidden_dim=width, solver="adam", max_epochs=1, embedding=None, random_state=0
            )
            for width in (8_000, 30_000)
        )
        return one.fit(X, X[:, 0]), other.fit(X, X[:, 1])


def leftovers(folder: Path) -> list[Path]:
    """Temporary files, by the name that tells them."""
    return list(folder.glob(".model.skmoe.tmp-*"))


def killed(folder: Path, count: int, rng: np.random.Generator) -> dict[str, int]:
    """Kill a process that saves one model after the other, at random times.

    Every other time it is soon after a temporary file has come up, as writing is but a small
    part of a save.
    """
    path, pair = folder / "model.skmoe", models()
    whole = []
    for model in pair:
        started = time.perf_counter()
        model.save_model(path)
        seconds = time.perf_counter() - started
        whole.append(path.read_bytes())
    kept = amid = 0
    for turn in range(count):
        child = os.fork()
        if child == 0:
            while True:
                for model in pair:
                    model.save_model(path)
        time.sleep(rng.uniform(0, 4 * seconds))
        while turn % 2 and not leftovers(folder):
            pass
        time.sleep(rng.uniform(0, 0.005))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        amid += bool(leftovers(folder))
        for left in leftovers(folder):
            left.unlink()
        known = path.read_bytes() in whole and os.listdir(folder) == [path.name]
        kept += known and load_model(path).n_iter_ == 1
    return {"kept": kept, "tried": count, "amid": amid}


def full(folder: Path, count: int, rng: np.random.Generator) -> dict[str, int]:
    """Let a save fail after some bytes, over a good file."""
    path, (one, other) = folder / "model.skmoe", models()
    other.save_model(path)
    size = path.stat().st_size
    one.save_model(path)
    good = path.read_bytes()
    kept = 0
    for limit in rng.integers(0, size, count):
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
            try:
                other.save_model(path)
            except OSError:
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        said_so = os.waitstatus_to_exitcode(status) == 0
        kept += said_so and path.read_bytes() == good and os.listdir(folder) == [path.name]
    return {"kept": kept, "tried": count}


def denied(folder: Path, count: int, rng: np.random.Generator) -> dict[str, int]:
    """Let a user without rights save over a good file in a read-only folder."""
    path, (one, other) = folder / "model.skmoe", models()
    one.save_model(path)
    good, before = path.read_bytes(), folder.stat().st_mode
    folder.chmod(0o555)
    kept = 0
    for _ in range(count):
        child = os.fork()
        if child == 0:
            become_nobody()
            try:
                other.save_model(path)
            except PermissionError:
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        said_so = os.waitstatus_to_exitcode(status) == 0
        kept += said_so and path.read_bytes() == good and os.listdir(folder) == [path.name]
    folder.chmod(before)
    return {"kept": kept, "tried": count}


def no_space(folder: Path, count: int, rng: np.random.Generator) -> dict[str, int]:
    """Save over a good file on a disk with less room than a save takes."""
    path, (one, other) = folder / "model.skmoe", models()
    one.save_model(path)
    good, filler = path.read_bytes(), folder / "filler"
    free = shutil.disk_usage(folder).free
    kept = 0
    for size in rng.integers(0, free, count):
        filler.write_bytes(bytes(size))
        try:
            other.save_model(path)
        except OSError as error:
            said_so = error.errno == errno.ENOSPC
            names = sorted(os.listdir(folder))
            kept += said_so and path.read_bytes() == good and names == ["filler", path.name]
        filler.unlink()
    return {"kept": kept, "tried": count}


TRIALS = {"killed": killed, "full": full, "denied": denied, "no space": no_space}


if __name__ == "__main__":
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    trials = sys.argv[4:]
    rng = np.random.default_rng(seed)
    print(json.dumps({name: TRIALS[name](folder, count, rng) for name in trials}))
