"""The headline benchmark runs on a file, and measures nothing twice."""

import numpy as np
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression

from benchmarks import headline
from benchmarks.store import read_rows


def test_a_file_is_measured_once_with_each_contestant(tmp_path, monkeypatch, capsys):
    random = np.random.RandomState(0)
    X = random.standard_normal((60, 3))
    test_mask = np.arange(60)[:, None] % 3 == np.arange(2)
    np.savez(tmp_path / "plane.npz", X=X, y=X @ [1.0, 2.0, 3.0], test_mask=test_mask)
    fits = []

    class Counted(DummyRegressor):
        def fit(self, X, y, sample_weight=None):
            fits.append(len(X))
            return super().fit(X, y, sample_weight)

    def two(seed, X, y):
        return {"DeepMoERegressor": LinearRegression(), "mean": Counted()}

    monkeypatch.setattr(headline, "contestants", two)
    output = tmp_path / "out"
    data = ["--data", str(tmp_path / "plane.npz"), "--output", str(output), "--threads", "1"]
    for seeds in (1, 2, 2):
        headline.main([*data, "--seeds", str(seeds)])
    assert fits == [40, 40]  # one of each split, though it ran three times
    rows = read_rows(output / "results.csv")
    errors = {(row["contestant"], int(row["seed"])): float(row["nrmse"]) for row in rows}
    assert len(rows) == len(errors) == 4
    assert all(errors["DeepMoERegressor", seed] < 1e-12 for seed in range(2))
    assert all(0.9 < errors["mean", seed] < 1.5 for seed in range(2))
    assert "## plane" in capsys.readouterr().out
