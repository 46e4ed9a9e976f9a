"""The benchmark of factorised experts, in miniature."""

import numpy as np
import pytest

from benchmarks import parts, surgery
from benchmarks.store import read_rows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def small(monkeypatch):
    """One task of few rows."""

    def draw(seed):
        random = np.random.default_rng(seed)
        X = random.normal(3, 2, size=(160, 4))
        y = 50 + 7 * np.sin(X[:, 0]) * X[:, 1]
        return X[:80], y[:80], X[80:], y[80:]

    monkeypatch.setattr(surgery, "TASKS", {"small": draw})
    monkeypatch.setitem(parts.PARTS, parts.DEFAULT, {"max_epochs": 5, "hidden_dim": 8})
    return draw


def test_all_are_measured_from_one_fit(small, tmp_path, capsys):
    surgery.main(["--output", str(tmp_path), "--seeds", "1", "--threads", "1"])
    rows = {row["contestant"]: row for row in read_rows(tmp_path / "results.csv")}
    assert list(rows) == surgery.names()
    errors = {name: float(row["nrmse"]) for name, row in rows.items()}
    untouched = errors[surgery.FITTED]
    by_rows = f"latent, rank {surgery.TUNED}, by the rows"
    assert errors[by_rows] != errors[f"{by_rows}, tuned"]
    for name in ("latent, rank 1/8", by_rows):
        assert int(rows[name]["n_weights"]) < int(rows[surgery.FITTED]["n_weights"])
    ratio = errors["latent, rank 1/8"] / untouched
    cell = f"| latent, rank 1/8 | {ratio:.2f} [{ratio:.2f}, {ratio:.2f}] |"
    assert cell in capsys.readouterr().out


def test_rows_are_standardised_by_the_training_rows(small):
    X, y, X_test, y_test = surgery.scaled(small(0))
    raw = small(0)
    np.testing.assert_allclose([X.mean(), X.std(), y.mean(), y.std()], [0, 1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(y_test, (raw[3] - raw[1].mean()) / raw[1].std())
    np.testing.assert_allclose(X_test, (raw[2] - raw[0].mean(0)) / raw[0].std(0))
