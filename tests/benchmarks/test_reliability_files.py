"""The section on files of the benchmark of reliability, in miniature."""

import numpy as np
import pytest

from benchmarks.reliability import bad_files, files


def test_every_promise_holds_at_a_small_scale():
    figures = list(files.measure(scale=0.005, seed=1))
    assert len(figures) == (8 if files._small_disk() else 7)
    assert not [figure for figure in figures if not figure.holds]


@pytest.mark.parametrize("kind", bad_files.DAMAGE)
def test_damage_changes_the_file(kind):
    data = bytes(range(1, 201))
    made = list(bad_files.DAMAGE[kind](data, np.random.default_rng(0), 50))
    assert len(made) == 50
    assert data not in made


def test_outcomes_tell_other_failures_apart(tmp_path, monkeypatch):
    def load(path):
        raise {b"1": files.ModelFileError, b"2": KeyError}[path.read_bytes()]("x")

    monkeypatch.setattr(files, "load_model", load)
    outcomes = files._try_all(tmp_path, [("one", b"1"), ("two", b"2")])
    assert (outcomes.refused, outcomes.sound, outcomes.other) == (1, 0, ["two: KeyError"])
    assert outcomes.tried == 2
