"""The benchmark of noise in the features, in miniature."""

import numpy as np
import pytest

from benchmarks import feature_noise
from benchmarks.store import read_rows


def test_the_noise_is_in_the_features_of_all_rows_only(monkeypatch):
    monkeypatch.setattr(feature_noise, "N_TRAIN", 3000)
    noisy = feature_noise._manifold("torus", "pieces", 0.2)(0)
    clean = feature_noise._manifold("torus", "pieces", 0.0)(0)
    assert (len(noisy[0]), len(noisy[2])) == (3000, feature_noise.N_TEST)
    for part in (0, 2):
        noise = noisy[part] - clean[part]
        assert noise.std() == pytest.approx(0.2 * clean[part].std(), rel=0.02)
        np.testing.assert_array_equal(noisy[part + 1], clean[part + 1])


def test_the_report_tells_of_all_contestants(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(feature_noise, "N_TRAIN", 60)
    monkeypatch.setattr(feature_noise, "N_TEST", 50)
    tasks = {task: feature_noise.TASKS[task] for task in list(feature_noise.TASKS)[-2:]}
    monkeypatch.setattr(feature_noise, "TASKS", tasks)
    feature_noise.main(["--output", str(tmp_path), "--seeds", "1", "--threads", "1"])
    rows = read_rows(tmp_path / "results.csv")
    wanted = [(t, name) for t in tasks for name in feature_noise.contestants(t, 0)]
    assert [(row["task"], row["contestant"]) for row in rows] == wanted
    text = capsys.readouterr().out
    for row in rows:
        (line,) = (li for li in text.splitlines() if li.startswith(f"| {row['contestant']} |"))
        assert f"| {float(row['nrmse']):.3f} [" in line
