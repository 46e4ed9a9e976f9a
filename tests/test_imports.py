"""What `import skmoe` brings along."""

import subprocess
import sys

# Slow to import, and not needed before a fit asks for them; and optional packages.
LATE = [
    "matplotlib",
    "onnx",
    "pandas",
    "rtdl_num_embeddings",
    "safetensors",
    "sklearn.cluster",
    "sklearn.decomposition",
    "sklearn.linear_model",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.tree",
]
# What is there with the packages below is not ours to avoid.
CHILD = """
import sys
import torch, sklearn, skorch
before = set(sys.modules)
import skmoe
print(*sorted(set(sys.modules) - before))
"""


def test_slow_packages_come_in_late():
    command = [sys.executable, "-c", CHILD]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "skmoe.estimators" in told.split()
    assert not set(LATE) & set(told.split())
