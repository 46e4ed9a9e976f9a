"""What the command lines share: how a run ends."""

import argparse
import sys
from collections.abc import Callable

from benchmarks.store import DifferentRunError


def run(parser: argparse.ArgumentParser, work: Callable[[], None]) -> int:
    """Do the work; the exit status. Bad input and Ctrl-C end with a line, not a traceback."""
    try:
        work()
    except (DifferentRunError, FileNotFoundError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. All finished rows are kept; the same command goes on.\n")
        return 130
    return 0
