"""What a gate is: `Gate`, learned scores of the experts with a temperature and noise.

The gates themselves are in `gates`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from skmoe._settings import check_number


class Gate(nn.Module, ABC):
    """``logits = score(x) / temperature``, plus noise in training.

    Parameters
    ----------
    n_blocks : int
        Number of blocks B, each with a gate of its own.
    n_inputs : int
        Dimension D of the gate's input.
    n_experts : int
        Number of scores E in each block: of the experts, and of what else a router asks for.
    temperature : float, (float, float) or "learn", default=1.0
        Divides the scores: small is sharp. A pair is annealed geometrically from the first
        to the second value over the course of training. "learn" makes it a weight, the
        dense-to-sparse gate of Nguyen, Ho and Rinaldo (2025), one temperature per block.
    noise : float, default=0.0
        Standard deviation of the normal noise added to the logits while training.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    before_encoder = False  # whether it sees what an encoder of the experts sees

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        temperature: float | tuple[float, float] | str = 1.0,
        noise: float = 0.0,
        generator: Generator | None = None,
    ):
        super().__init__()
        self.shape = (n_blocks, n_inputs, n_experts)
        self.schedule = _check_temperature(temperature)
        self.noise = check_number("noise", noise)
        self.generator: Generator | None = None  # of the noise; set by the trainer
        log_start = torch.full((n_blocks, 1, 1), self.schedule[0]).log()
        if temperature == "learn":
            self.log_temperature = nn.Parameter(log_start)
        else:
            self.register_buffer("log_temperature", log_start)

    @abstractmethod
    def score(self, x_BTD: Tensor) -> Tensor:
        """Scores ``logits_BTE`` before temperature and noise."""

    def place(self, centers_BED: Tensor, sharpness_B: Tensor) -> bool:
        """Start as ``logit_e = b (2 c_e.x - |c_e|^2)``, so that the regions are Voronoi cells.

        Scores beyond those of the experts stay as they are. Returns False, and does nothing,
        if the gate has no such start.
        """
        return False

    def forward(self, x_BTD: Tensor) -> Tensor:
        logits_BTE = self.score(x_BTD) * torch.exp(-self.log_temperature)
        if self.training and self.noise > 0:
            noise = torch.empty_like(logits_BTE).normal_(generator=self.generator)
            logits_BTE = logits_BTE + self.noise * noise
        return logits_BTE

    def anneal(self, progress: float) -> None:
        """Set the temperature for `progress` in [0, 1] through training."""
        if self.is_annealed:
            self.log_temperature.fill_(self.log_temperature_at(progress))

    @property
    def is_annealed(self) -> bool:
        """Whether the temperature changes over the course of training."""
        start, end = self.schedule
        return start != end

    def log_temperature_at(self, progress: float) -> float:
        """What it is at `progress`."""
        start, end = self.schedule
        return float(torch.tensor(start * (end / start) ** progress).log())


def _check_temperature(temperature: float | tuple[float, float] | str) -> tuple[float, float]:
    """The annealing schedule (start, end) that `temperature` means."""
    if isinstance(temperature, str) and temperature == "learn":
        return (1.0, 1.0)
    pair = temperature if isinstance(temperature, list | tuple) else (temperature,) * 2
    try:
        start, end = (check_number("", value, open_=True) for value in pair)
    except ValueError:
        raise ValueError(
            "temperature must be a positive number, a pair of them or 'learn'. "
            f"Got {temperature!r}."
        ) from None
    return (start, end)
