"""Brief fits, which show what there is to learn and which start is the better one."""

import copy
import math
import warnings
from dataclasses import replace

import torch
from sklearn.exceptions import ConvergenceWarning

from skmoe.batches import Rows, count_batches
from skmoe.model import FittedModel
from skmoe.plan import TrainingPlan, TrainingResult
from skmoe.training import train

# Shares of the epochs of a brief fit, and of one that shows where the function jumps; and
# their least number of steps.
BRIEF, ROUGH = 0.12, 0.2
MIN_STEPS = 300
# A brief fit with a loss below this share of another one is better without a closer look.
CLEARLY = 0.6


def brief_fit(
    model: FittedModel,
    rows: Rows,
    held_out: Rows | None,
    plan: TrainingPlan,
    seed: int,
    share: float = BRIEF,
) -> float:
    """Train `model` in place for a share of the epochs; the loss at the end.

    It is that of the validation rows if there are any.
    """
    steps_per_epoch = count_batches(len(rows), plan.batch_size)
    epochs = max(round(share * plan.max_epochs), math.ceil(MIN_STEPS / steps_per_epoch))
    brief = replace(plan, max_epochs=min(epochs, plan.max_epochs), patience=None)
    generator = torch.Generator(model.device).manual_seed(seed)
    return silent_fit(model, rows, held_out, brief, generator).best_loss


def silent_fit(
    model: FittedModel,
    rows: Rows,
    held_out: Rows | None,
    plan: TrainingPlan,
    generator: torch.Generator,
) -> TrainingResult:
    """Train `model` in place, without callbacks, lines or warnings."""
    plan = replace(plan, callbacks=(), monitors=(), verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the fit itself will tell
        result = train(model.net, rows, held_out, plan, generator)
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def copied(model: FittedModel) -> FittedModel:
    """The same model with weights of its own."""
    return replace(model, net=copy.deepcopy(model.net))


def shortened(plan: TrainingPlan, share: float) -> TrainingPlan:
    """The plan for this share of the epochs."""
    return replace(plan, max_epochs=math.ceil(share * plan.max_epochs))
