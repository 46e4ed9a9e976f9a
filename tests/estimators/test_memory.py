"""Memory of a prediction, in a process of its own."""

import subprocess
import sys

import pytest

CHILD = """
import re
from pathlib import Path
import numpy as np
from skmoe import MoERegressor

def peak():
    # Not ru_maxrss: it starts at the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search("VmHWM:\\s*([0-9]+) kB", status)[1])

random = np.random.default_rng(0)
X = random.standard_normal((1_000_000, 4), dtype=np.float32)
moe = MoERegressor(
    16,
    top_k=2,
    hidden_dim=16,
    embedding=None,
    solver="adam",
    max_epochs=1,
    device="cpu",
    random_state=0,
)
moe.fit(X[:1000], np.sin(X[:1000, 0])).predict(X[:20_000])
before = peak()
y = moe.predict(X)
print((peak() - before) / len(X))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_predicting_takes_a_few_numbers_for_each_row():
    """Not the features in float64, which are 32 bytes, and far from what experts answer."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert 0 < float(told) < 30
