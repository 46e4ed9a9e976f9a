"""Rows of many runs come together: resumed, measured again, chosen once."""

import numpy as np
import pytest

from benchmarks.accuracy import loop
from benchmarks.accuracy.goal import Options
from benchmarks.accuracy.results import Line, Results
from benchmarks.contestants import scaled
from benchmarks.protocol import Contestant
from benchmarks.store import DifferentRunError, read_rows
from benchmarks.tasks import Split, Task


def make(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 2))
    return Split(X[:40], X[:40, 0], X[40:], X[40:, 0])


TASKS = [Task(name, "made", make, {"n_train": 40}) for name in ("first", "second")]


@pytest.fixture
def built():
    """Names of what was built, in order."""
    return []


def ridge(name, built, alphas=(1e-3, 1e3), **more):
    from sklearn.linear_model import Ridge

    def build(s):
        built.append(name)
        return scaled(model=Ridge())

    return Contestant(name, "kernel", build, {"full": {"model__alpha": list(alphas)}}, **more)


def run(folder, given, seeds=2, **options):
    loop.run(2, TASKS, lambda task: given, folder, Options(seeds=seeds, **options))
    return read_rows(folder / "results.csv")


def test_seeds_are_outermost_and_contestants_interleaved(tmp_path, built):
    rows = run(tmp_path, [ridge("a", built), ridge("b", built)])
    keys = [(row["seed"], row["task"], row["contestant"]) for row in rows]
    assert keys == [(s, t, c) for s in "01" for t in ("first", "second") for c in "ab"]


def test_a_run_goes_on_and_takes_in_others(tmp_path, built):
    a, b = ridge("a", built), ridge("b", built)
    run(tmp_path, [a, b], contestants="a")
    assert set(built) == {"a"}
    built.clear()
    rows = run(tmp_path, [a, b])
    assert set(built) == {"b"}
    assert len(rows) == 8


def test_rows_written_by_another_process_are_kept(tmp_path):
    one, other = loop.store_of(tmp_path), loop.store_of(tmp_path)
    one.add({"task": "t", "seed": 0, "contestant": "a", "status": "ok"})
    other.add({"task": "t", "seed": 0, "contestant": "b", "status": "ok"})
    assert one.status("t", 0, "b") == "ok"
    assert [row["contestant"] for row in read_rows(one.table)] == ["a", "b"]


def test_a_contestant_defined_anew_has_to_be_measured_again(tmp_path, built):
    run(tmp_path, [ridge("a", built), ridge("b", built)])
    changed = [ridge("a", built, alphas=(1e-2,)), ridge("b", built)]
    with pytest.raises(DifferentRunError, match="contestants a"):
        run(tmp_path, changed)
    built.clear()
    run(tmp_path, changed, again="^a$")
    assert built == ["a"] * 4


def test_the_candidate_of_the_first_seed_is_kept(tmp_path, built):
    # The first candidate of the grid is the worse one, so a choice shows.
    once = ridge("a", built, alphas=(1e3, 1e-3), search_once=True)
    rows = [row for row in run(tmp_path, [once]) if row["task"] == "first"]
    assert [row["choice"] for row in rows] == ["1", "1"]
    assert [row["n_candidates"] for row in rows] == ["2", "1"]
    assert all("0.001" in row["best_params"] for row in rows)


def test_searches_on_some_rows_fit_on_all(tmp_path, built):
    rows = run(tmp_path, [ridge("a", built, search_rows=20)])
    assert all(float(row["nrmse"]) < 1e-3 for row in rows)


def rows_of(errors):
    return [
        {
            "task": "t",
            "seed": str(seed),
            "contestant": name,
            "status": "ok",
            "nrmse": str(value),
        }
        for name, values in errors.items()
        for seed, value in enumerate(values)
    ]


def test_ratios_are_taken_seed_by_seed():
    results = Results(rows_of({"a": [1, 2, 3], "b": [2, 1]}))
    assert results.ratios("t", "a", "b") == [0.5, 2.0]
    assert results.best("t", ["a", "b"]) == "b"
    assert results.ratios("t", "a", results.best("t", ["c"])) == []


def test_ratios_to_the_best_other_of_each_seed():
    results = Results(rows_of({"a": [1, 2, 3], "b": [2, 1], "c": [1, 4, 6]}))
    assert results.ratios_to_best("t", "a", ["b", "c", "d"]) == [1.0, 2.0, 0.5]
    assert results.ratios_to_best("t", None, ["b"]) == []


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.4, 0.5, 9.0], "**met**"), ([0.5, 0.6], "not met"), ([], "not measured")],
)
def test_a_verdict_is_that_of_the_median(values, verdict):
    assert Line("x", values, 0.5).verdict == verdict
