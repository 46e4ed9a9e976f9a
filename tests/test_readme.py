"""The README's examples run, and its figures are those of the results."""

import re
from pathlib import Path

import pandas as pd
import pytest

from skmoe.estimators import _auto

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example, monkeypatch):
    # What is tested is that names and calls are right, not how well a long fit does.
    monkeypatch.setattr(_auto, "max_epochs", lambda *choices: 1)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102


def test_first_screen_shows_the_two_commands():
    first_screen = README.splitlines()[:40]
    assert any(line.startswith("make demo") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)


@pytest.fixture(scope="module")
def medians():
    """Median error of each contestant on each real table."""
    fits = pd.read_csv(ROOT / "benchmarks" / "results" / "accuracy" / "goal-7.csv")
    fits = fits[fits.status == "ok"]
    return fits.pivot_table("nrmse", "contestant", "task", "median", sort=False)


def test_errors_on_real_tables_are_those_of_the_results(medians):
    lines = README[README.index("| NRMSE | yacht") :].split("\n\n")[0].splitlines()
    _, *tasks = cells(lines[0])
    assert set(tasks) == set(medians.columns)
    for line in lines[2:]:
        name, *errors = cells(line)
        (contestant,) = [it for it in medians.index if it.removesuffix("-TD") == name]
        for task, error in zip(tasks, errors, strict=True):
            last_digit = 10.0 ** -len(error.partition(".")[2])
            assert float(error) == pytest.approx(medians.loc[contestant, task], abs=last_digit)


def cells(line):
    return [cell.strip(" *`") for cell in line.strip("|").split("|")]


def test_the_rank_that_is_claimed_is_that_of_the_results(medians):
    complete = medians.dropna().drop(index="MoERegressor")
    ranks = complete.rank().mean(axis=1)
    assert complete.shape == (8, 8)
    assert ranks.idxmin() == "DeepMoERegressor"
    first, second = sorted(ranks)[:2]
    said = " ".join(README.split())
    assert "eight methods by default parameters" in said
    assert f"{first:.1f}, before RealMLP with {second:.1f}" in said
    start = " ".join((ROOT / "docs" / "index.md").read_text(encoding="utf-8").split())
    assert "On eight real tables the best mean rank of eight methods" in start
