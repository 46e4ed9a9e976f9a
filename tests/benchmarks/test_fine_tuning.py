"""The benchmark of expert-specialised tuning, in miniature."""

import numpy as np
import pytest

from benchmarks import fine_tuning
from benchmarks.store import read_rows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def small(monkeypatch):
    for name, value in (("N_TRAIN", 200), ("N_NEW", 20), ("N_TEST", 200), ("N_EXPERTS", 4)):
        monkeypatch.setattr(fine_tuning, name, value)


@pytest.mark.parametrize("task", fine_tuning.TASKS)
def test_function_changes_in_one_region_only(task, small):
    X, old, new, region = fine_tuning.shifted(fine_tuning.TASKS[task](0))
    assert len(X) == len(region) == 480
    assert 0.1 < region.mean() < 0.6
    assert np.array_equal(new != old, region)


def test_gains_are_relative_to_all_weights(small, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(fine_tuning.TASKS, "torus")
    command = ["--output", str(tmp_path), "--seeds", "1", "--threads", "1"]
    fine_tuning.main(command)
    rows = {(r["task"], r["contestant"]): r for r in read_rows(tmp_path / "results.csv")}
    names = ("before", "all weights", "gate, threshold 0.9")
    before, full, some = (float(rows["product", name]["error"]) for name in names)
    gain = (before - some) / (before - full)
    text = capsys.readouterr().out
    assert f"| {gain:.2f} [{gain:.2f}, {gain:.2f}] |" in text
    assert "| 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] |" in text  # all weights
    assert 0 < float(rows["product", names[2]]["weights"]) < 1
