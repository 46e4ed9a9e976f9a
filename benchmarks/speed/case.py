"""A case: contestants that do the same work."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

DID_NOT_GET_THERE = object()
Contestants = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Goal:
    """A ratio of two contestants' times, and what it should be."""

    numerator: str
    denominator: str
    at_most: float | None = None
    at_least: float | None = None

    def met(self, ratio: float) -> bool | None:
        """Whether a ratio is as it should be; None where nothing was asked for."""
        if self.at_most is None and self.at_least is None:
            return None
        if self.at_most is not None:
            return ratio <= self.at_most
        return ratio >= (self.at_least or 0.0)


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes
    ----------
    name : str
        Of the work, with its sizes.
    make : callable
        Makes the contestants, from a seed; raises if they do not compute the same.
    goals : list of Goal
        The ratios to report.
    calls : int
        Calls of each contestant in a turn; the shortest counts.
    turns : int or None
        How often, if it is less than the usual number: for what takes minutes.
    wall : bool
        Whether a clock counts, as for what another device does.
    """

    name: str
    make: Callable[[int], Contestants]
    goals: list[Goal] = field(default_factory=list)
    calls: int = 1
    turns: int | None = None
    wall: bool = False


def processor_time() -> float:
    """Seconds of this process, and of those that it started and that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def seconds_of(call: Callable[[], object], n_calls: int, wall: bool = False) -> float:
    """The shortest of some calls; infinity of one that says that it did not get there.

    A call may tell the seconds that count, as a number. Time is that of the processor with one
    thread, unless `wall` asks for that of a clock.
    """
    alone = torch.get_num_threads() == 1 and not wall
    clock = processor_time if alone else time.perf_counter
    shortest = float("inf")
    for _ in range(n_calls):
        started = clock()
        told = call()
        if told is DID_NOT_GET_THERE:
            return float("inf")
        seconds = told if isinstance(told, float) else clock() - started
        shortest = min(shortest, seconds)
    return shortest
