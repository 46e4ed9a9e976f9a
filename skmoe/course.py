"""The course of a fit: learning rate and temperatures, step by step."""

from typing import Any

import torch
from torch import Tensor

from skmoe.nn.base_gates import Gate
from skmoe.optimizer import FlatAdamW, schedule
from skmoe.plan import TrainingPlan


class Course:
    """The steps of a fit, and what follows them. (To set an attribute of a loop takes long.)"""

    def __init__(
        self, plan: TrainingPlan, optimizer: FlatAdamW, annealed: list[Any], n_steps: int
    ):
        self.plan, self.optimizer, self.annealed = plan, optimizer, annealed
        self.step, self.last = 0, max(n_steps - 1, 1)

    def follow(self) -> None:
        """Set what the next step is to be taken with."""
        if self.plan.scheduled:
            progress = self.step / self.last
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(progress)
            for part in self.annealed:
                part.anneal(progress)
        self.step += 1

    def table(self, device: torch.device) -> Tensor | None:
        """What `follow` sets, a line for each step; None if not all of it is tensors."""
        if not all(isinstance(part, Gate) for part in self.annealed):
            return None
        scheduled = self.plan.scheduled
        self.gates = [gate for gate in self.annealed if scheduled and gate.is_annealed]
        lines = [
            [self._rate(progress), *(gate.log_temperature_at(progress) for gate in self.gates)]
            for progress in (step / self.last for step in range(self.last + 1))
        ]
        return torch.tensor(lines, dtype=torch.float32, device=device)

    def follow_line(self, line: Tensor) -> None:
        """`follow`, without a wait for the device."""
        self.optimizer.rate = line[0]
        for gate, value in zip(self.gates, line[1:], strict=True):
            gate.log_temperature.copy_(value)

    def skip(self, n_steps: int) -> None:
        """Be where so many steps lead to, which others have taken."""
        self.step += n_steps - 1
        self.follow()

    def _rate(self, progress: float) -> float:
        share = schedule(progress) if self.plan.scheduled else 1.0
        return self.plan.learning_rate * share
