"""The benchmark of growth: exponents of known curves, real costs of small sizes, its page."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import growth
from benchmarks.costs import Cost, Size, cost_of_fit, cost_of_prediction
from benchmarks.store import read_rows

SIZES = np.array([1, 10, 100, 1000])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_an_exponent_is_that_of_the_largest_sizes(power):
    values = 3.0 * SIZES**power
    values[0] *= 50  # what is paid once
    assert growth.exponent(SIZES, values) == pytest.approx(power)


@pytest.mark.parametrize(
    ("values", "far"), [([1, 1, 1.4, 3], 100), ([1, 2, 4, 8], 1), ([1, 1, 1, 1], 1000)]
)
def test_hardly_more_ends_before_the_first_clear_rise(values, far):
    assert growth.hardly_more(SIZES, np.array(values)) == far


def test_rows_in_an_hour():
    seconds = 1e-4 * SIZES  # 100 epochs of n rows take n / 100 seconds
    assert growth._rows_in_an_hour(SIZES, seconds) == pytest.approx(360_000)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a fork")
def test_costs_are_measured():
    """More rows take more memory, and layers more weights."""
    small, large = (Size(n_rows=n, n_features=4) for n in (5_000, 100_000))
    assert cost_of_prediction(large).peak > cost_of_prediction(small).peak
    cost = cost_of_fit(small)
    assert cost.seconds > 0
    assert cost.others > 0
    assert cost.n_weights == 8 * (4 * 64 + 64 + 64 + 1) + 8 * (4 + 1)
    assert cost_of_prediction(replace(small, n_layers=2)).n_weights > 2 * cost.n_weights


def test_the_page_has_the_exponents_of_the_costs(tmp_path, monkeypatch, capsys):
    """A fit that is linear in everything, a prediction that is quadratic in it."""

    def cost(size, power):
        varied = np.prod([float(v) for v in vars(size).values() if isinstance(v, int) and v])
        return Cost(1e-9 * varied**power, 0.1, int(varied), 7)

    monkeypatch.setitem(growth.MEASURED, "fit", lambda size: cost(size, 1))
    monkeypatch.setitem(growth.MEASURED, "prediction", lambda size: cost(size, 2))
    arguments = ["--output", str(tmp_path), "--threads", "1", "--only", "rows", "outputs"]
    assert growth.main(arguments) == 0
    page = capsys.readouterr().out
    cells = "1.00 [10,000 to 1,000,000] | 2.00 [100,000 to 10,000,000]"
    assert f"| rows | {cells} |" in page
    assert "| outputs | 1.00 [10 to 100] | 2.00 [10 to 100] |" in page
    assert "- *Rows*: twice as many take 2.0 times as long." in page
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    n_rows = len(read_rows(tmp_path / "results.csv"))
    growth.main(arguments)  # nothing is missing: nothing is measured again
    assert len(read_rows(tmp_path / "results.csv")) == n_rows == 4 + 5 + 5 + 5
