"""Files: bad ones are refused, saves are all or nothing, old ones stay readable."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.reliability.bad_files import DAMAGE, fuzzed
from benchmarks.reliability.figure import Figure
from benchmarks.reliability.hostile_files import hostile
from skmoe import DeepMoERegressor, ModelFileError, MoERegressor, load_model, part

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "models"
# At scale 1: damaged files of each kind, fuzzed ones, interrupted saves of each kind.
DAMAGED, FUZZED, INTERRUPTED = 2_400, 4_000, 60
SAVES = {
    "killed": "a save that is killed leaves the old file or the new one",
    "full": "a save beyond a limit of size says so and leaves the old file alone",
    "no space": "a save on a full disk says so and leaves the old file alone",
    "denied": "a save without permission says so and leaves the old file alone",
}
# Holds the smaller of two models, and not the larger one beside it.
SMALL_DISK = "6m"
# Of CPU time; a file that takes more to be refused counts as one that hangs.
MOST_SECONDS = 5.0


@dataclass
class Outcomes:
    """What came of files that are to be refused."""

    refused: int = 0
    sound: int = 0
    other: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def tried(self) -> int:
        return self.refused + self.sound + len(self.other)


def measure(scale: float = 1.0, seed: int = 0) -> Iterator[Figure]:
    """The figures of this section."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(seed)
        good = _good_files(folder)
        yield _damage(folder, good, rng, scale)
        yield _hostile(folder, good, scale)
        yield _fuzz(folder, good, rng, scale)
    yield from _interrupted(scale, seed)
    yield _golden()


def _good_files(folder: Path) -> list[bytes]:
    """Files of small models, of one layer and of several."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = np.sin(2 * X[:, 0]) + X[:, 1]
    quick = {"n_experts": 2, "hidden_dim": 3, "max_epochs": 2, "random_state": 0}
    bins = part("piecewise_linear", n_bins=4)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    path = folder / "good.skmoe"
    files = []
    with warnings.catch_warnings(action="ignore"):
        for moe in (
            MoERegressor(**quick, expert="constant", embedding=None, solver="adam").fit(X, y),
            MoERegressor(**quick, embedding=bins, gate=part("mlp", hidden_dim=2)).fit(X, y),
            DeepMoERegressor(
                2, **quick, arrangement="parallel", model_dim=4, top_k=1, warm_start=True
            ).fit(frame, y),
        ):
            moe.save_model(path)
            files.append(path.read_bytes())
    return files


def _try_all(folder: Path, files: Iterable[tuple[str, bytes]]) -> Outcomes:
    path, outcomes = folder / "bad.skmoe", Outcomes()
    for name, data in files:
        path.write_bytes(data)
        started = time.process_time()
        try:
            loaded = load_model(path)
            sound = bool(np.isfinite(_predict(loaded)).all())
            outcomes.sound += sound
            if not sound:
                outcomes.other.append(name)
        except ModelFileError:
            outcomes.refused += 1
        except Exception as error:
            outcomes.other.append(f"{name}: {type(error).__name__}")
        seconds = time.process_time() - started
        outcomes.slowest = max(outcomes.slowest, seconds)
        if seconds > MOST_SECONDS:
            outcomes.other.append(f"{name}: {seconds:.1f} s")
    return outcomes


def _predict(moe):
    X = np.zeros((2, moe.n_features_in_))
    names = getattr(moe, "feature_names_in_", None)
    return moe.predict(X if names is None else pd.DataFrame(X, columns=names))


def _note(outcomes: Outcomes) -> str:
    failed = f"; {outcomes.other[:3]}" if outcomes.other else ""
    return f"slowest {1000 * outcomes.slowest:.0f} ms of CPU time{failed}"


def _damage(folder, good, rng, scale: float) -> Figure:
    count = math.ceil(scale * DAMAGED / len(good))
    files = (
        (kind, bad)
        for data in good
        for kind, make in DAMAGE.items()
        for bad in make(data, rng, count)
    )
    outcomes = _try_all(folder, files)
    promise = "a damaged file is refused with ModelFileError"
    note = f"{', '.join(DAMAGE)}; {_note(outcomes)}"
    return Figure(promise, outcomes.refused, outcomes.tried, note)


def _hostile(folder, good, scale: float) -> Figure:
    canary = folder / "canary"
    cases = [case for data in good for case in hostile(data, canary)]
    outcomes = _try_all(folder, cases[:: max(1, round(1 / scale))])
    ran = canary.exists()
    promise = "a hostile file with the right digest is refused, and nothing in it runs"
    note = _note(outcomes) + ("; CODE RAN" if ran else "")
    return Figure(promise, 0 if ran else outcomes.refused, outcomes.tried, note)


def _fuzz(folder, good, rng, scale: float) -> Figure:
    count = math.ceil(scale * FUZZED / len(good))
    files = (("fuzzed", bad) for data in good for bad in fuzzed(data, rng, count))
    outcomes = _try_all(folder, files)
    promise = "a header changed at random, with the right digest, is refused or still sound"
    note = (
        f"{outcomes.refused} refused, {outcomes.sound} sound, as with another seed; "
        f"{_note(outcomes)}"
    )
    return Figure(promise, outcomes.refused + outcomes.sound, outcomes.tried, note)


def _interrupted(scale: float, seed: int) -> Iterator[Figure]:
    count = max(1, round(scale * INTERRUPTED))
    found = _trials(["killed", "full", "denied"], [], count, seed)
    disk = _small_disk()
    if disk:
        found |= _trials(["no space"], disk, count, seed)
    for name, promise in SAVES.items():
        if name not in found:
            continue
        one = found[name]
        note = f"{one['amid']} killed amid writing" if "amid" in one else ""
        yield Figure(promise, one["kept"], one["tried"], note)


def _trials(names: list[str], start: list[str], count: int, seed: int) -> dict[str, dict]:
    """What became of interrupted saves, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.reliability.interrupted"]
        place = [folder] if start else []
        done = subprocess.run(
            [*start, *place, *command, folder, str(count), str(seed), *names],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout)


def _small_disk() -> list[str]:
    """The start of a command that has a small disk in the folder named next; or nothing."""
    mount = f'mount -t tmpfs -o size={SMALL_DISK} none "$0" && exec "$@"'
    start = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount]
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run([*start, folder, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return []
    return start


def _golden() -> Figure:
    paths = sorted(GOLDEN.rglob("*.skmoe"))
    kept = 0
    for path in paths:
        known = json.loads(path.with_suffix(".json").read_text())
        X, moe = np.array(known["X"]), load_model(path)
        names = getattr(moe, "feature_names_in_", None)
        predicted = moe.predict(X if names is None else pd.DataFrame(X, columns=names))
        kept += np.allclose(predicted, known["prediction"], rtol=1e-6, atol=1e-6)
    releases = {path.parent.name for path in paths}
    promise = "a file of each release is read and predicts the same to 1e-6"
    return Figure(promise, kept, len(paths), f"releases: {', '.join(sorted(releases))}")
