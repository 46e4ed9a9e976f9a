"""The fits in ``benchmarks/results``, read for figures: nothing is typed again."""

from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
OURS = {"DeepMoERegressor": "C0", "MoERegressor": "C2"}


def fits(name: str) -> pd.DataFrame:
    """One row for each fit that came to an end."""
    table = pd.read_csv(RESULTS / f"{name}.csv")
    return table[table.status == "ok"]


def medians(name: str, value: str = "nrmse") -> pd.DataFrame:
    """Medians over seeds: a row for each task, a column for each contestant."""
    return fits(name).pivot_table(value, "task", "contestant", "median", sort=False)
