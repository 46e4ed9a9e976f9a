"""The whole command: it resumes, survives failures and writes a report."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import compare
from benchmarks.contestants import CONTESTANTS
from benchmarks.report import summary_table

FAST = ["KernelRidge", "HistGradientBoosting", "KNeighbors"]


@pytest.fixture
def given(tmp_path):
    """Arguments for a small run on a table of one's own."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((80, 3)), columns=["a", "b", "y"])
    frame.to_csv(tmp_path / "mine.csv", index=False)
    return [
        *("--profile", "smoke", "--csv", str(tmp_path / "mine.csv"), "--target", "y"),
        *("--output", str(tmp_path / "out"), "--contestants", *FAST),
    ]


@pytest.fixture
def measured(monkeypatch):
    """Names of the contestants that are measured."""
    names = []
    measure = compare.measure

    def spy(contestant, *rest):
        names.append(contestant.name)
        return measure(contestant, *rest)

    monkeypatch.setattr(compare, "measure", spy)
    return names


def rows_of(tmp_path):
    return pd.read_csv(tmp_path / "out" / "results.csv")


def test_a_run_writes_rows_and_a_report(given, tmp_path, capsys):
    assert compare.main([*given, "--seeds", "2"]) == 0
    rows = rows_of(tmp_path)
    assert list(rows.columns) == list(compare.COLUMNS)
    # Seeds outer, contestants inner.
    assert list(zip(rows["seed"], rows["contestant"], strict=True)) == [
        (seed, name) for seed in (0, 1) for name in FAST
    ]
    assert (rows["status"] == "ok").all()
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| mine |" in report
    assert "threads" in report
    assert "scikit-learn" in report
    assert (tmp_path / "out" / "pareto.png").stat().st_size > 0
    assert "report.md" in capsys.readouterr().out


def test_finished_rows_are_not_measured_again(given, measured):
    compare.main(given)
    compare.main([*given, "--seeds", "2"])
    assert measured == FAST * 2


def test_ctrl_c_keeps_finished_rows_and_resumes(given, measured, tmp_path, monkeypatch):
    spy = compare.measure

    def interrupted(contestant, *rest):
        if contestant.name == FAST[1]:
            raise KeyboardInterrupt
        return spy(contestant, *rest)

    monkeypatch.setattr(compare, "measure", interrupted)
    assert compare.main(given) == 130
    assert list(rows_of(tmp_path)["contestant"]) == FAST[:1]
    monkeypatch.setattr(compare, "measure", spy)
    assert compare.main(given) == 0
    assert measured == FAST


def test_a_failure_is_a_row_and_can_be_tried_again(given, tmp_path, monkeypatch):
    def broken(situation):
        raise RuntimeError("no such kernel")

    with monkeypatch.context() as patch:
        contestant = compare.by_name(FAST[0])
        patch.setattr(type(contestant), "grid", lambda self, s, level: broken(s))
        assert compare.main(given) == 0
    rows = rows_of(tmp_path)
    assert set(rows["status"]) == {"failed"}
    assert "no such kernel" in rows["message"][0]
    assert "no such kernel" in (tmp_path / "out" / "report.md").read_text()
    assert compare.main([*given, "--retry-failed"]) == 0
    assert set(rows_of(tmp_path)["status"]) == {"ok"}


def test_other_settings_are_refused_until_restart(given, tmp_path, capsys):
    compare.main(given)
    with pytest.raises(SystemExit) as stop:
        compare.main([*given, "--threads", "2"])
    assert stop.value.code == 2
    assert "threads: was 1, now 2" in capsys.readouterr().err
    assert compare.main([*given, "--threads", "2", "--restart"]) == 0
    assert (tmp_path / "out" / "results.1.csv").exists()


def test_methods_that_do_not_scale_are_skipped_with_the_reason():
    process = compare.by_name("GaussianProcess")
    assert process.obstacle(1000) is None
    status, reason = process.obstacle(5000)
    assert status == "skipped"
    assert "1500" in reason


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert compare.by_name("LightGBM").obstacle(10) == (
        "not installed",
        "pip install lightgbm",
    )


def test_every_contestant_has_both_grids_and_a_name_of_its_own():
    names = [contestant.name for contestant in CONTESTANTS]
    assert len(names) == len(set(names))
    assert all({"demo", "full"} <= set(contestant.grids) for contestant in CONTESTANTS)


def test_our_estimators_run_and_are_compared_with_their_controls(tmp_path):
    names = ["DeepMoERegressor", "one expert (deep)", "dense twin", "KNeighbors"]
    out = str(tmp_path / "out")
    assert compare.main(["--profile", "smoke", "--output", out, "--contestants", *names]) == 0
    rows = rows_of(tmp_path)
    assert (rows["status"] == "ok").all(), list(rows["message"])
    costs = rows["active_multiply_adds"][:3]
    assert costs.max() < 1.05 * costs.min()
    assert "DeepMoERegressor / dense twin" in (tmp_path / "out" / "report.md").read_text()


def test_a_method_without_a_search_has_no_time_of_one():
    names = ["HistGradientBoosting", "GaussianProcess"]
    rows = pd.DataFrame(
        {
            "task": "circle",
            "family": "circle",
            "seed": 0,
            "contestant": pd.Categorical(names, names),
            "status": "ok",
            "nrmse": [0.2, 0.1],
            "fit_seconds": [1.0, 2.0],
            "search_seconds": [3.0, np.nan],
            "predict_seconds": [1.0, 0.5],
        }
    )
    best, other = summary_table(rows).splitlines()[-2:]
    assert [cell.strip() for cell in best.split("|")[-4:-1]] == ["2.00", "-", "0.500"]
    assert [cell.strip() for cell in other.split("|")[-4:-1]] == ["1.00", "1.00", "1.00"]
