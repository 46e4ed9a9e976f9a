"""The benchmark of held-out combinations, in miniature."""

import numpy as np
import pytest

from benchmarks import unseen_combinations as benchmark
from benchmarks.store import read_rows


@pytest.mark.parametrize("task", benchmark.TASKS)
def test_train_and_test_rows_are_of_one_task(task):
    train, test = (
        benchmark.TASKS[task](200, task_random_state=0, random_state=seed) for seed in (1, 2)
    )
    assert np.array_equal(train.holdout_cells, test.holdout_cells)
    assert not np.array_equal(train.data[:20], test.data[:20])


def test_report_has_both_kinds_of_cells(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "N_TRAIN", 60)
    monkeypatch.setattr(benchmark, "N_TEST", 100)
    monkeypatch.setattr(benchmark, "DEPTHS", (1,))
    benchmark.main(["--output", str(tmp_path), "--seeds", "1", "--threads", "1"])
    rows = read_rows(tmp_path / "results.csv")
    assert len(rows) == len(benchmark.TASKS) * len(benchmark.contestants(0))
    seen, unseen = float(rows[0]["seen"]), float(rows[0]["unseen"])
    cells = [
        f"{value:.3f} [{value:.3f}, {value:.3f}]" for value in (seen, unseen, unseen / seen)
    ]
    assert f"| {rows[0]['contestant']} | {' | '.join(cells)} |" in capsys.readouterr().out
