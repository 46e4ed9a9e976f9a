"""Default `DeepMoERegressor` against default HistGradientBoosting, on fixed splits of a table.

Run ``python -m benchmarks.headline FILE.npz [--splits 0 1 2]``. The file holds ``X``, ``y`` and
``test_mask``, a boolean column for each split. No parameter of either is changed.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.environment import default_threads, describe, record, set_threads
from skmoe import DeepMoERegressor


def measure(model, X, y, test) -> tuple[float, float]:
    """Test RMSE in units of the test targets' standard deviation, and seconds of the fit."""
    started = time.perf_counter()
    model.fit(X[~test], y[~test])
    seconds = time.perf_counter() - started
    residual = model.predict(X[test]) - y[test]
    return float(np.sqrt(np.mean(residual**2)) / np.std(y[test])), seconds


def main() -> None:
    """Measure each split and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--splits", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=default_threads())
    options = parser.parse_args()
    set_threads(options.threads)
    table = np.load(options.file)
    X, y = table["X"], table["y"].ravel()
    print(f"# {options.file.stem}\n\n{describe(record(options.threads))}\n")
    print("| split | HistGradientBoosting | DeepMoERegressor | ratio | fit seconds |")
    print("|---|---|---|---|---|")
    for split in options.splits:
        test = table["test_mask"][:, split].astype(bool)
        trees, trees_seconds = measure(
            HistGradientBoostingRegressor(random_state=split), X, y, test
        )
        moe, moe_seconds = measure(DeepMoERegressor(random_state=split), X, y, test)
        print(
            f"| {split} | {trees:.4f} | {moe:.4f} | {trees / moe:.1f} "
            f"| {trees_seconds:.0f} / {moe_seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
