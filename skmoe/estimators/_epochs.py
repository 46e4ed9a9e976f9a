"""How many epochs are best for few rows, as rows left out tell.

With few rows, a tenth of them held out says little, and is missed. So brief copies of the fit
each leave out a fold, as members of an ensemble do (`skmoe.folds`); where their mean error on
what they left out is smallest, the fit itself, of all rows, ends its schedule.
"""

from dataclasses import replace

import numpy as np
import torch

from skmoe.batches import Rows
from skmoe.estimators._brief import copied, silent_fit
from skmoe.folds import leave_out
from skmoe.model import FittedModel
from skmoe.plan import TrainingPlan

# Of so many folds so many are left out: all five tell hardly more than two.
N_FOLDS, N_LEFT_OUT = 5, 2
# With a loss up to so many times the least one at the end, all epochs are run: where there is
# little noise, steps are what a fit lacks, and more rows make more of them pay.
HARDLY_WORSE = 1.03
# Looks at the rows left out, in the course of a fit.
LOOKS = 30


def with_best_epochs(
    model: FittedModel, rows: Rows, plan: TrainingPlan, seed: int
) -> TrainingPlan:
    """The plan for as many epochs, of at most those planned, as are best on rows left out.

    Parameters
    ----------
    model : FittedModel
        Untrained; it stays so.
    rows : Rows
        To learn from.
    plan : TrainingPlan
        Of the most epochs.
    seed : int
        Of folds and batches.
    """
    generator = torch.Generator(model.device).manual_seed(seed)
    folds = leave_out(rows, N_FOLDS, generator)
    if folds is None:
        return plan
    course = replace(plan, looks=LOOKS, patience=None, checkpoint=None)
    losses = []
    for member in range(N_LEFT_OUT):
        learned, judged = (_of_member(part, member) for part in folds)
        result = silent_fit(copied(model), learned, judged, course, generator)
        losses.append([epoch["valid_loss"] for epoch in result.history])
    mean = np.mean(losses, axis=0)
    if mean[-1] <= HARDLY_WORSE * mean.min():
        return plan
    return replace(plan, max_epochs=int(np.argmin(mean)) + 1, chosen=True)


def _of_member(rows: Rows, member: int) -> Rows:
    """The rows that count for one member; their weights relative to the mean."""
    weight_T = rows.weight[:, member]
    kept = weight_T > 0
    return Rows(rows.x[kept], rows.y[kept], weight_T[kept] / weight_T[kept].mean())
