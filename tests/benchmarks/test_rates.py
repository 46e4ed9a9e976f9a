"""The benchmark of rates, in miniature."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import rates
from benchmarks.store import read_rows

CASES = pytest.mark.parametrize("case", rates.CASES, ids=[case.name for case in rates.CASES])


@CASES
def test_the_distance_of_the_truth_and_of_splits_of_it_is_zero(case):
    truth = case.truth
    assert rates.distance(case, truth, truth) == 0
    if truth.gate.kind == "softmax":
        split = truth.take(np.array([0, 0]), np.array([0, 1, 1]))
        offsets = split.gate.offsets - np.log([1, 2, 2]) + 3  # a softmax does not see the 3
        gate = replace(split.gate, offsets=offsets, slopes=split.gate.slopes - 2)
        assert rates.distance(case, replace(split, gate=gate), truth) == pytest.approx(
            0, abs=1e-12
        )


@pytest.mark.parametrize("power", [0.45, 0.5])
def test_slopes_are_those_of_powers(power):
    sizes = np.array([1e2, 1e3, 1e5])
    assert rates.slope(sizes, 3 * sizes**-power, logs=False) == pytest.approx(power)
    losses = 3 * (np.log(sizes) / sizes) ** power
    assert rates.slope(sizes, losses, logs=True) == pytest.approx(power)


def test_errors_fall_with_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rates, "SIZES", (100, 1000))
    monkeypatch.setattr(rates, "CASES", rates.CASES[:1])
    rates.main(["--output", str(tmp_path), "--seeds", "2", "--threads", "1"])
    rows = read_rows(tmp_path / "results.csv")
    assert len(rows) == 4
    text = capsys.readouterr().out
    for case in rates.CASES:
        few, many = (
            np.median(
                [
                    float(row["loss"])
                    for row in rows
                    if row["task"] == case.name and row["contestant"] == f"{n} rows"
                ]
            )
            for n in rates.SIZES
        )
        assert many < few
        assert f"| {case.name} | {case.paper} |" in text
