"""Results survive interruptions and are never mixed with those of another run."""

import json

import pytest

from benchmarks.store import DifferentRunError, Store, read_rows

COLUMNS = ("task", "seed", "contestant", "status", "nrmse")
ROW = {"task": "a", "seed": 0, "contestant": "SVR", "status": "ok", "nrmse": 0.125}


def test_rows_are_kept_at_once_and_read_again(tmp_path):
    store = Store(tmp_path, COLUMNS)
    store.add(ROW)
    assert read_rows(store.table) == [{k: str(v) for k, v in ROW.items()}]
    assert Store(tmp_path, COLUMNS).status("a", 0, "SVR") == "ok"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_row_replaces_the_earlier_one_of_its_key(tmp_path):
    store = Store(tmp_path, COLUMNS)
    store.add(ROW | {"status": "failed"})
    store.add(ROW)
    assert [row["status"] for row in read_rows(store.table)] == ["ok"]


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    store = Store(tmp_path, COLUMNS)
    store.add(ROW)
    before = store.table.read_bytes()

    def fail(*paths):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        store.add(ROW | {"seed": 1})
    assert store.table.read_bytes() == before


def test_other_settings_are_refused_and_named(tmp_path):
    store = Store(tmp_path, COLUMNS)
    store.start_session({"folds": 3, "tasks": {"a": 1}}, {"cpu": "x"})
    store.add(ROW)
    with pytest.raises(DifferentRunError, match=r"folds: was 3, now 5"):
        store.start_session({"folds": 5, "tasks": {"a": 1}}, {"cpu": "x"})


def test_more_tasks_and_machines_are_added(tmp_path):
    store = Store(tmp_path, COLUMNS)
    store.start_session({"tasks": {"a": 1}}, {"cpu": "x"})
    store.add(ROW)
    store.start_session({"tasks": {"b": 2}}, {"cpu": "y"})
    run = json.loads(store.run_file.read_text())
    assert run["settings"] == {"tasks": {"a": 1, "b": 2}}
    assert [session["cpu"] for session in run["sessions"]] == ["x", "y"]


def test_restart_sets_earlier_results_aside(tmp_path):
    store = Store(tmp_path, COLUMNS)
    store.start_session({"folds": 3}, {})
    store.add(ROW)
    store.restart()
    store.start_session({"folds": 5}, {})
    assert store.status("a", 0, "SVR") is None
    assert read_rows(tmp_path / "results.1.csv")


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    pytest.importorskip("fcntl")
    with (
        Store(tmp_path, COLUMNS),
        pytest.raises(DifferentRunError, match="another run"),
        Store(tmp_path, COLUMNS),
    ):
        pass


def test_numbers_of_one_task_and_seed_are_read_from_all_its_rows(tmp_path):
    store = Store(tmp_path, (*COLUMNS, "cost"))
    store.add(ROW | {"cost": 7})
    store.add(ROW | {"seed": 1, "cost": 8})
    store.add(ROW | {"contestant": "HGB"})
    assert Store(tmp_path, (*COLUMNS, "cost")).measured("a", 0, "cost") == {"SVR": 7}
