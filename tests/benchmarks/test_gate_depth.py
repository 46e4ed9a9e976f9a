"""The benchmark of gates and depth, in miniature."""

import numpy as np

from benchmarks import gate_depth
from benchmarks.store import read_rows


def test_ratios_are_those_of_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gate_depth, "N_TRAIN", 60)
    monkeypatch.setattr(gate_depth, "N_TEST", 100)
    for settings in gate_depth.CONTESTANTS.values():
        monkeypatch.setitem(settings, "max_epochs", 10)
    gate_depth.main(["--output", str(tmp_path), "--seeds", "1", "--threads", "1"])
    rows = {
        row["contestant"]: float(row["nrmse"]) for row in read_rows(tmp_path / "results.csv")
    }
    assert set(rows) == set(gate_depth.CONTESTANTS)
    ratio = rows["mlp gate, 2 layers"] / rows["linear gate, 4 layers"]
    text = capsys.readouterr().out
    assert f"| L = 2 | {ratio:.3f} [{ratio:.3f}, {ratio:.3f}] |" in text
    assert np.isfinite(list(rows.values())).all()
