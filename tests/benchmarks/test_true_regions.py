"""The benchmark of what true regions tell of borders, in miniature."""

import numpy as np
import pytest

from benchmarks import true_regions
from benchmarks.store import read_rows
from skmoe.datasets import make_manifold_regression


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(true_regions, "N_TEST", 2000)
    monkeypatch.setattr(true_regions, "N_FEW", 500)


def figures(task: str, n_train: int) -> dict:
    data = true_regions.TASKS[task].draw(n_train + 2000, random_state=0, return_X_y=False)
    return true_regions.figures(None, data, n_train)


@pytest.mark.parametrize(
    "task", ["product, 64 pieces", "sine, 64 pieces", "torus in 4 pieces, n = 10,000"]
)
def test_the_more_rows_tell_borders_the_fewer_are_on_the_wrong_side(task, small):
    few, many = figures(task, 200), figures(task, 20_000)
    assert 10 * many["wrong_side"] < few["wrong_side"] < 0.3
    assert 3 * many["nrmse"] < few["nrmse"] < 1
    for found in (few, many):
        assert found["least"] <= found["nrmse"] <= found["most"]


def test_rows_on_the_right_side_have_no_error(small, monkeypatch):
    data = make_manifold_regression(
        2500, manifold="torus", target="pieces", random_state=0, return_X_y=False
    )
    monkeypatch.setattr(true_regions, "_told", lambda part, n_train: part.regions)
    found = true_regions.figures(None, data, 500)
    assert set(found) == set(true_regions.FIGURES)
    assert all(value == 0 for value in found.values())
    swapped = lambda part, n_train: np.where(  # noqa: E731
        np.arange(2500) == 700, (part.regions + 1) % 4, part.regions
    )
    monkeypatch.setattr(true_regions, "_told", swapped)
    found = true_regions.figures(None, data, 500)
    assert found["wrong_side"] == 1 / 2000
    wrong = data.function.values(data.coordinates[[700]])[0, (data.regions[700, 0] + 1) % 4]
    expected = abs(wrong - data.target[700]) / data.target.std()
    assert found["nrmse"] == pytest.approx(expected / np.sqrt(2000))
    assert found["most"] == pytest.approx(expected / np.sqrt(500))


def test_the_report_tells_of_all_targets(tmp_path, small, monkeypatch, capsys):
    tasks = {
        task: problem._replace(n_train=300) for task, problem in true_regions.TASKS.items()
    }
    monkeypatch.setattr(true_regions, "TASKS", tasks)
    true_regions.main(["--output", str(tmp_path), "--seeds", "2", "--threads", "1"])
    rows = read_rows(tmp_path / "results.csv")
    assert [row["task"] for row in rows] == 2 * list(tasks)
    text = capsys.readouterr().out
    for task in tasks:
        median = np.median([float(row["nrmse"]) for row in rows if row["task"] == task])
        assert f"| {task} | {median:.4f} [" in text
