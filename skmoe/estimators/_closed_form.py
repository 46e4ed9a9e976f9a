"""The closed-form finish of a fit, and a fit that consists of nothing else."""

import math
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from skmoe.batches import Batches, Rows, Tally
from skmoe.linear_solve import Solution, solve_output
from skmoe.loop import count_dead
from skmoe.nn.base import Network
from skmoe.normal_equations import output_map_of
from skmoe.plan import TrainingPlan, TrainingResult
from skmoe.precision import with_float64

# Up to here, rows are compared with each other to count the different ones.
MAX_COMPARED = 20_000
ROWS_PER_CHUNK = 8192
# Up to here, residuals are noise: normal noise has a kurtosis of 3.
MAX_CORRELATION = 0.08
MAX_KURTOSIS = 3.6
# Smallest penalties: a solve from nothing may need any, a finish of trained maps must not
# magnify what rounding did to their features in training.
FROM_NOTHING = 1e-12
FROM_TRAINED = 1e-8


def untrained(network: Network) -> TrainingResult:
    """Where a fit without training starts from: last maps that say nothing."""
    network.eval()
    network.set_output_map(torch.zeros_like(output_map_of(network)))
    return TrainingResult([], math.nan, {})


def finish(
    network: Network,
    rows: Rows,
    held_out: Rows | None,
    result: TrainingResult,
    plan: TrainingPlan,
) -> TrainingResult:
    """Solve for the last maps, and tell of it in the last entry of the history."""

    def work() -> TrainingResult:
        with with_float64(network, rows, held_out) as there:
            return _finish(network, *there, result, plan.fit_loss)

    return plan.stage(network, work)


def _finish(
    network: Network, rows: Rows, held_out: Rows | None, result: TrainingResult, loss: nn.Module
) -> TrainingResult:
    started = time.perf_counter()
    n_distinct = None
    if held_out is None and len(rows) <= MAX_COMPARED:
        n_distinct = len(torch.cat([rows.x, rows.y], 1).unique(dim=0))
    smallest = FROM_TRAINED if result.history else FROM_NOTHING
    solution = solve_output(
        network, rows, held_out, n_distinct=n_distinct, smallest_alpha=smallest
    )
    history = list(result.history) or [_first_entry(network, rows, held_out, loss, started)]
    history[-1] = {**history[-1], **_entry(solution, time.perf_counter() - started)}
    best = result.best_loss
    if math.isnan(best):
        best = history[-1]["train_loss" if held_out is None else "valid_loss"]
    elif held_out is not None and solution.improved:
        best = solution.score
    return replace(result, history=history, best_loss=best)


@torch.no_grad()
def leaves_noise(network: Network, rows: Rows, held_out: Rows) -> bool:
    """Whether the residual on held-out rows is noise, so that nothing is left to learn.

    Neighbours have nearly the same features, so what is left of a function correlates
    between a held-out row and the nearest row that was learned from, and noise does not.
    Jumps leave large residuals on few rows: a tail heavier than that of normal noise.
    """
    from sklearn.neighbors import NearestNeighbors

    near, far = rows.spread(5 * MAX_COMPARED), held_out.spread(MAX_COMPARED)
    seen = [network.on_axes(part.x) for part in (near, far)]
    z_near, z_far = (z.cpu().double().numpy() for z in seen)
    index = NearestNeighbors(n_neighbors=1).fit(z_near).kneighbors(z_far)[1][:, 0]
    r_near, r_far = _residuals(network, near)[index], _residuals(network, far)
    share = far.weight[:, None].cpu().double() / far.weight.sum().cpu()

    def mean(values: Tensor) -> Tensor:
        return (share * values).sum(0)

    variance = mean(r_far**2)
    related = mean(r_near * r_far) > MAX_CORRELATION * (variance * mean(r_near**2)).sqrt()
    return not bool((related | (mean(r_far**4) > MAX_KURTOSIS * variance**2)).any())


def _residuals(network: Network, rows: Rows) -> Tensor:
    starts = range(0, len(rows), ROWS_PER_CHUNK)
    answers = [network(rows.x[start : start + ROWS_PER_CHUNK])[0] for start in starts]
    return (rows.y - torch.cat(answers)).cpu().double()


def _entry(solution: Solution, seconds: float) -> dict[str, Any]:
    return {
        "ridge_alpha": solution.alpha,
        "ridge_score_before": solution.score_before,
        "ridge_score": solution.score,
        "ridge_residual": solution.residual,
        "ridge_seconds": seconds,
    }


def _first_entry(
    network: Network, rows: Rows, held_out: Rows | None, loss: nn.Module, started: float
) -> dict[str, Any]:
    """The entry of an epoch that was none."""
    entry = {"epoch": 1, **_measure(network, rows, loss, "train")}
    if held_out is not None:
        entry["valid_loss"] = _measure(network, held_out, loss, "valid")["valid_loss"]
    entry["dead_experts"] = count_dead(entry["usage"])
    return {**entry, "train_seconds": time.perf_counter() - started}


@torch.no_grad()
def _measure(network: Network, rows: Rows, loss: nn.Module, prefix: str) -> dict[str, Any]:
    tally = Tally()
    for batch in Batches(rows, ROWS_PER_CHUNK, None):
        (x, weight), y = batch
        prediction, steps = network(x)
        value = (loss(prediction, y) * weight).mean()
        routings = [step.routing for step in steps]
        tally.add({f"{prefix}_loss": value}, partial(list, routings), batch)
    return tally.averages()
