"""How long importing takes, in fresh processes: skmoe, and the packages that it stands on."""

import compileall
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import skmoe
from benchmarks.speed.case import Case, Contestants, Goal

OURS, BELOW = "import skmoe", "import torch, sklearn, skorch"


def cases() -> Iterator[Case]:
    yield Case("import, fresh processes", _make, [Goal(OURS, BELOW, at_most=1.1)])


def _make(seed: int) -> Contestants:
    # As installers do; a checkout may be read for the first time.
    compileall.compile_dir(Path(skmoe.__file__).parent, quiet=1)
    return {OURS: lambda: _run(OURS), BELOW: lambda: _run(BELOW)}


def _run(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], check=True)
