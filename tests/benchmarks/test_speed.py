"""The benchmark of speed: its clock, and a case in miniature."""

import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.speed import __main__ as speed
from benchmarks.speed import gpu, layers, race, searches
from benchmarks.speed.case import DID_NOT_GET_THERE, Case, Goal, processor_time, seconds_of
from benchmarks.speed.plot import Found, draw
from benchmarks.store import read_rows

BUSY = "import time\nwhile time.process_time() < 0.3: pass"


def test_the_clock_counts_processes_that_were_started():
    before = processor_time()
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert processor_time() - before > 0.25


def test_the_shortest_call_counts(monkeypatch):
    times = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr("benchmarks.speed.case.processor_time", lambda: next(times))
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    assert seconds_of(lambda: None, 3) == 1.0


def test_a_call_may_tell_the_seconds_that_count():
    assert seconds_of(lambda: 7.0, 2) == 7.0


def test_a_clock_counts_what_another_device_does(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    seconds = [seconds_of(lambda: time.sleep(0.05), 1, wall=wall) for wall in (True, False)]
    assert seconds[0] >= 0.05 > seconds[1]


def test_cases_of_a_gpu_need_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert list(gpu.cases()) == []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    cases = list(gpu.cases())  # which are made when they are measured
    assert all(case.wall and case.goals for case in cases)
    assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize(("at_most", "verdict"), [(1.0, "no"), (4.0, "yes")])
def test_a_goal_is_a_ratio_within_a_turn(tmp_path, monkeypatch, capsys, at_most, verdict):
    seconds = {"slow": 3.0, "fast": 1.5}
    monkeypatch.setattr(speed, "seconds_of", lambda call, calls, wall: call())
    contestants = {name: lambda name=name: seconds[name] for name in seconds}
    case = Case("race", lambda seed: contestants, [Goal("slow", "fast", at_most=at_most)])
    monkeypatch.setattr(speed, "all_cases", lambda *given: [case])
    speed.main(["--output", str(tmp_path), "--turns", "2", "--threads", "1"])
    assert len(read_rows(tmp_path / "results.csv")) == 4
    told = f"| race | slow / fast | 2.00 [2.00, 2.00] | <= {at_most:g} | {verdict} |"
    assert told in capsys.readouterr().out
    assert (tmp_path / "ratios.png").stat().st_size > 1000


def test_a_picture_shows_ratios_in_units_of_what_was_asked(tmp_path):
    case = Case("work", dict)
    most, least, none = Goal("a", "b", at_most=2), Goal("a", "b", at_least=2), Goal("a", "b")
    found = [Found(case, goal, [1.0, 3.0, 4.0]) for goal in (most, least, none)]
    assert [one.met for one in found] == [False, True, None]
    assert found[0].of_goal.tolist() == [0.5, 1.5, 2.0]
    assert found[1].of_goal.tolist() == [2.0, 2 / 3, 0.5]
    draw(found[2:], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_importing_is_a_case():
    (case,) = speed.all_cases(["import"])
    assert set(case.make(0)) == {
        name for g in case.goals for name in (g.numerator, g.denominator)
    }


def test_the_textbook_computes_what_a_layer_does():
    case = next(case for case in layers.cases() if layers.TEXTBOOK in case.goals[0].numerator)
    assert set(case.make(0)) == {layers.OURS, layers.TEXTBOOK}  # raises if they differ


def test_searches_run(monkeypatch):
    monkeypatch.setattr(searches, "N_ROWS", 60)
    monkeypatch.setattr(searches, "N_FOLDS", 2)
    monkeypatch.setattr(searches, "EXPERTS", [2, 3])
    monkeypatch.setattr(searches, "RATES", [0.01])
    monkeypatch.setattr(searches, "EPOCHS", 2)
    case = next(iter(searches.cases()))
    contestants = case.make(0)
    for goal in case.goals:
        for name in (goal.numerator, goal.denominator):
            contestants[name]()  # raises if a batched search has other scores than a plain one


def test_who_does_not_get_there_takes_forever():
    assert seconds_of(lambda: DID_NOT_GET_THERE, 2) == float("inf")


def test_a_race_ends_at_the_error_of_the_trees(tmp_path, monkeypatch):
    """A line is easy for a mixture; noise is easy for none."""
    pytest.importorskip("lightgbm")
    random = np.random.default_rng(0)
    X, noise = random.standard_normal((400, 2)), random.standard_normal(400)
    mask = (np.arange(400) < 40)[:, None]
    for name, y in (("line", X @ [1.0, 2.0]), ("noise", noise)):
        np.savez(tmp_path / f"{name}.npz", X=X, y=y, test_mask=mask)
    assert list(race.cases(None)) == list(race.cases(tmp_path)) == []  # too few rows
    monkeypatch.setattr(race, "LEAST_ROWS", 400)
    easy, _ = race.cases(tmp_path)
    contestants = easy.make(race.FIRST_SEED)
    assert contestants[race.OURS]() is None
    monkeypatch.setattr(race.Finish, "on_epoch_end", lambda *given, **more: None)
    assert contestants[race.BRIEF]() is DID_NOT_GET_THERE
