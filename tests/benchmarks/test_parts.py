"""The table of parts: every part is a contestant that can be fitted, and figures are ratios."""

import numpy as np
import pytest

from benchmarks import parts
from benchmarks.store import read_rows
from skmoe.nn.experts import EXPERTS
from skmoe.nn.losses import AUXILIARY_LOSSES
from skmoe.nn.routers import ROUTERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def small(monkeypatch):
    """One task of few rows."""
    X = np.random.default_rng(0).normal(size=(120, 3))
    y = np.sin(X[:, 0]) + X[:, 1]
    split = X[:80], y[:80], X[80:], y[80:]
    monkeypatch.setattr(parts, "TASKS", {"concrete": lambda seed: split})
    return split


@pytest.mark.parametrize("name", parts.PARTS)
def test_every_part_can_be_fitted(name, small):
    X, y, X_test, _ = small
    model = parts.model_of(name, 0).set_params(max_epochs=2)
    assert np.isfinite(model.fit(X, y).predict(X_test)).all()


def test_all_routers_experts_and_losses_are_on_the_menu():
    menu = " ".join(parts.PARTS) + " softmax mlp "
    for name in (*ROUTERS, *EXPERTS, *AUXILIARY_LOSSES):
        assert name in menu


def test_report_has_ratios_to_the_default_seed_by_seed(small, tmp_path, capsys):
    command = [
        "--output",
        str(tmp_path),
        "--seeds",
        "2",
        "--threads",
        "1",
        "--parts",
        "^top 2$",
    ]
    parts.main(command)
    rows = {
        (row["seed"], row["contestant"]): row for row in read_rows(tmp_path / "results.csv")
    }
    ratios = [
        float(rows[seed, "top 2"]["nrmse"]) / float(rows[seed, "default"]["nrmse"])
        for seed in ("0", "1")
    ]
    expected = f"| {np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] |"
    assert expected in capsys.readouterr().out
    assert expected in (tmp_path / "report.md").read_text()
    before = (tmp_path / "results.csv").read_text()
    parts.main(command)  # nothing is missing
    assert (tmp_path / "results.csv").read_text() == before
