"""The benchmark of few rows, in miniature."""

import numpy as np
import pytest

from benchmarks import few_rows
from benchmarks.store import read_rows


def test_the_noise_is_on_training_targets_only():
    X, y, X_test, y_test = few_rows.TASKS["Friedman, 200 rows, noise 0.5"](0)
    again = few_rows.TASKS["Friedman, 200 rows, noise 0.1"](0)
    assert (len(X), len(X_test)) == (200, few_rows.N_TEST)
    np.testing.assert_array_equal(y_test, again[3])
    clean = again[1] - (y - again[1]) / 4  # a line through both noises, at zero
    assert np.std(y - clean) == pytest.approx(0.5 * np.r_[clean, y_test].std(), rel=0.2)


def test_the_report_tells_of_all_contestants(tmp_path, monkeypatch, capsys):
    tasks = {"few": few_rows._friedman(60, 0.5)}
    monkeypatch.setattr(few_rows, "TASKS", tasks)
    monkeypatch.setattr(few_rows, "N_TEST", 100)
    few_rows.main(["--output", str(tmp_path), "--seeds", "1", "--threads", "1"])
    rows = {row["contestant"]: row for row in read_rows(tmp_path / "results.csv")}
    assert set(rows) == set(few_rows.contestants(0))
    text = capsys.readouterr().out
    for name, row in rows.items():
        over = float(row["nrmse"]) / float(rows[few_rows.DEFAULT]["nrmse"])
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert f"| {over:.2f} | {float(row['dead']):.2f} |" in line


def test_experts_below_a_tenth_of_an_even_share_are_dead():
    class Model:
        expert_usage_ = np.array([[0.5, 0.49, 0.01, 0.0], [0.25, 0.25, 0.25, 0.25]])

    assert few_rows.share_of_dead(Model()) == 0.25
    assert few_rows.share_of_dead(object()) == 0.0
