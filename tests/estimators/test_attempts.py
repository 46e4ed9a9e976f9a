"""Which of several fits is kept."""

import math
from dataclasses import replace

import pytest
import torch

from skmoe.batches import Rows
from skmoe.estimators import _attempts
from skmoe.estimators._attempts import Attempt, first_good, regions_first, trimmed_loss
from skmoe.nn.losses import SquaredError
from skmoe.plan import TrainingResult


def kept(losses, good_enough, interrupted_at=None):
    """Name of the fit that is kept, and how many were made."""
    made = []

    def train(model, plan):
        made.append(model)
        stopped = len(made) == interrupted_at
        return TrainingResult([], losses[model], {}, stopped)

    attempts = (Attempt(name, None, good_enough) for name in range(len(losses)))
    return first_good(attempts, train)[0], len(made)


@pytest.mark.parametrize(
    ("losses", "good_enough", "expected"),
    [
        ([0.2, 0.1, 0.3], 0.25, (0, 1)),  # the first one is good, though another is better
        ([0.3, 0.2, 0.1], 0.25, (1, 2)),
        ([0.5, 0.3, 0.4], 0.25, (1, 3)),  # none is good: the best
        ([0.5], math.inf, (0, 1)),
        ([math.nan, 0.1], 0.25, (0, 1)),  # no loss to judge by, as without any rows
    ],
)
def test_the_first_good_one_is_kept(losses, good_enough, expected):
    assert kept(losses, good_enough) == expected


@pytest.mark.parametrize(("second", "better"), [(0.6, 0), (0.4, 1), (math.nan, 0)])
def test_an_interrupt_ends_all_and_the_best_until_then_is_kept(second, better):
    assert kept([0.5, second, 0.1], 0.25, interrupted_at=2) == (better, 2)


def test_who_judges_decides():
    attempts = [Attempt(name, None, 0.0) for name in (3, 1, 2)]
    train = lambda model, plan: TrainingResult([], float(model), {}, False)  # noqa: E731
    assert first_good(attempts, train)[0] == 1
    others = [replace(a, judge=lambda model, result: -result.best_loss) for a in attempts]
    assert first_good(others, train)[0] == 3


class Sum:
    """A model whose net predicts the sum of the features."""

    class net:
        look = staticmethod(lambda x: (x.sum(1, keepdim=True), []))


@pytest.mark.parametrize("off", [1.0, 1e6])
def test_few_rows_have_no_say_however_far_off_they_are(off):
    x = torch.rand(300, 2)
    y = x.sum(1, keepdim=True) + 0.1
    y[:3] += off
    found = trimmed_loss(Sum, Rows(x, y, torch.ones(300)), SquaredError())
    assert found == pytest.approx(0.01, rel=1e-3)
    y[3:6] += off
    assert trimmed_loss(Sum, Rows(x, y, torch.ones(300)), SquaredError()) > 0.01 * off


def test_a_row_of_weight_two_is_trimmed_as_two_rows():
    x, errors = torch.zeros(200, 1), torch.linspace(0, 1, 200)[:, None]
    weight = torch.arange(200) % 3 + 1
    twice = x.repeat_interleave(weight, 0), errors.repeat_interleave(weight, 0)
    found = trimmed_loss(Sum, Rows(x, errors, weight.float()), SquaredError())
    again = trimmed_loss(Sum, Rows(*twice, torch.ones(len(twice[0]))), SquaredError())
    assert found == pytest.approx(again, rel=1e-4)


class Off:
    """A model that is off by so much wherever it is asked, and by far more in one row."""

    def __init__(self, error):
        self.net, self.error = self, error

    def look(self, x):
        return self.error + 100.0 * (torch.arange(len(x)) == 0)[:, None], []


@pytest.mark.parametrize(
    ("at_regions", "usual", "expected"),
    [
        ([0.004], 0.001, (0.004, 1)),  # nearly exact: nothing else is tried
        ([0.2], 0.1, (0.1, 2)),
        ([0.1], 0.2, (0.1, 2)),
        ([0.004, 0.003], 0.001, (0.003, 2)),  # what experts tell of is tried all the same
        ([0.1, 0.004], 0.001, (0.004, 2)),
        ([0.004, 0.1], 0.001, (0.004, 2)),
        ([], 0.2, (0.2, 1)),
    ],
)
def test_the_usual_fit_is_tried_unless_one_at_regions_is_nearly_exact(
    at_regions, usual, expected, monkeypatch
):
    away = lambda model, rows, loss: model.error**2  # noqa: E731
    monkeypatch.setattr(_attempts, "loss_away_from_borders", away)
    made = []

    def train(model, plan):
        made.append(model)
        return TrainingResult([], 1.0 - model.error, {}, False)

    rows = Rows(torch.zeros(300, 1), torch.zeros(300, 1), torch.ones(300))
    starts = (Attempt(Off(error), None) for error in at_regions)
    attempts = regions_first(starts, Attempt(Off(usual), None), rows, SquaredError())
    model, _ = first_good(attempts, train)
    assert (model.error, len(made)) == expected


def test_there_has_to_be_one():
    with pytest.raises(ValueError, match="no attempts"):
        first_good([], None)
