"""Processes that are killed amid a fit: the next one goes on from the checkpoint."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import sys, warnings
import joblib, numpy as np
import skmoe.checkpoint
from skmoe import {kind}
warnings.simplefilter("ignore")
skmoe.checkpoint.SECONDS, skmoe.checkpoint.TIMES_ITSELF = 0.05, 1
X = np.random.default_rng(0).normal(size=(300, 4))
moe = {kind}(max_epochs=60, batch_size=32, random_state=0, checkpoint=sys.argv[1])
moe.fit(X, np.sin(3 * X[:, 0]) * np.sign(X[:, 1]))
print(joblib.hash(moe.__getstate__()["_model"]))
"""


@pytest.mark.parametrize("kind", ["MoERegressor", "DeepMoERegressor"])
def test_killed_processes_go_on_to_the_same_bits(kind, tmp_path):
    def start(name):
        command = [sys.executable, "-c", CHILD.format(kind=kind), str(tmp_path / name)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start("whole") as whole:
        expected, _ = whole.communicate()
    kills = 0
    for wait in (0.1, None):
        with start("killed") as child:
            if wait is not None:
                _await(tmp_path / "killed")
                try:
                    child.communicate(timeout=wait)
                except subprocess.TimeoutExpired:
                    child.send_signal(signal.SIGKILL)
                    kills += 1
            found, _ = child.communicate()
    assert kills
    assert found == expected != ""


def _await(path: Path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise TimeoutError(path)
