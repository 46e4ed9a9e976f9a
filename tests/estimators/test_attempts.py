"""Which of several fits is kept."""

import math

import pytest

from skmoe.estimators._attempts import Attempt, first_good
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


def test_there_has_to_be_one():
    with pytest.raises(ValueError, match="no attempts"):
        first_good([], None)
