"""Epochs whose steps read all they need from the device: on a GPU, recorded and replayed.

A step of a small network is a hundred short operations, whose calls take ten times as long as
a GPU needs for the work. Where shapes stay the same, the operations are recorded once, as a
CUDA graph; from then on a step is one call, and the processor waits for the device at the end
of an epoch only. For that, all that differs from step to step lies on the device: rows in the
order of the epoch, the place of the next batch among them, learning rates and temperatures of
all steps in a table, and sums of what is to be told of the epoch.
"""

import contextlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from skmoe.batches import BATCHES_PER_LOOK, Rows, batch_sizes

# Steps before the first one is recorded: libraries make their plans and memory in them.
WARM_UP = 3

TakeStep = Callable[[Rows, Tensor, bool], dict[str, Tensor]]
"""From (rows of a batch, this step's line of the table, whether to look at routings): takes a
step, and tells means over the batch."""


def repeats_steps(device: torch.device) -> bool:
    """Whether a device can be told to repeat what it has done."""
    return device.type == "cuda"


class ResidentEpochs:
    """Passes over the rows of one or more models, batch by batch.

    Parameters
    ----------
    rows : sequence of Rows
        Of M models, as many for each.
    batch_size : int
        Largest size of a batch.
    table : Tensor of shape (n_steps, C)
        What each step is to be taken with.
    take_step : callable
        Takes one. It must do the same with tensors at the same places, each time that it is
        called with rows of a size; rows have a first axis for the models.
    generators : sequence of torch.Generator, default=()
        Those that a step draws from.
    """

    def __init__(
        self,
        rows: Sequence[Rows],
        batch_size: int,
        table: Tensor,
        take_step: TakeStep,
        generators: Sequence[torch.Generator] = (),
    ):
        self.rows, self.table, self.take_step = rows, table, take_step
        self.sizes = batch_sizes(len(rows[0]), batch_size)
        self.epoch = Rows(
            *(torch.stack(parts) for parts in zip(*map(_parts, rows), strict=True))
        )
        device = table.device
        self.spread = torch.arange(max(self.sizes), device=device)
        self.place = torch.zeros((), dtype=torch.long, device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.sums: dict[str, Tensor] = {}
        self.told: dict[bool, list[str]] = {}
        self.steps = Recorder(self._take_one, device, generators)

    def run(self, orders: Sequence[Tensor] | None, first_step: int) -> dict[str, Tensor]:
        """Means over an epoch that starts at this step, rows in these orders."""
        with self.steps.stream():
            if orders is not None:
                for m, order in enumerate(orders):
                    for part, of_rows in zip(
                        _parts(self.epoch), _parts(self.rows[m]), strict=True
                    ):
                        torch.index_select(of_rows, 0, order, out=part[m])
            self.place.zero_()
            self.step.fill_(first_step)
            for total in self.sums.values():
                total.zero_()
            n_rows: dict[str, int] = {}
            for index, size in enumerate(self.sizes):
                look = index % BATCHES_PER_LOOK == 0
                self.steps(size, look)
                for name in self.told[look]:
                    n_rows[name] = n_rows.get(name, 0) + size
            return {name: total / n_rows[name] for name, total in self.sums.items()}

    def _take_one(self, size: int, look: bool) -> None:
        chosen = self.spread[:size] + self.place
        batch = Rows(*(part.index_select(1, chosen) for part in _parts(self.epoch)))
        told = self.take_step(batch, self.table.index_select(0, self.step)[0], look)
        self.place.add_(size)
        self.step.add_(1)
        self.told[look] = list(told)
        for name, value in told.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(value)
            self.sums[name].add_(value, alpha=size)


class Recorder:
    """Runs something on a device, and after a few times records it: what it did is replayed.

    Parameters
    ----------
    run : callable
        What to run. Called with the same arguments, it must do the same operations on tensors
        that stay where they are.
    device : torch.device
        Where. Only CUDA devices record; on others, all calls run.
    generators : sequence of torch.Generator, default=()
        Those that it draws from.
    """

    def __init__(
        self,
        run: Callable[..., None],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
    ):
        self.run, self.generators = run, generators
        self.records = repeats_steps(device)
        self.device = device
        self.n_runs = 0
        self.recorded: dict[Hashable, Any] = {}
        self.side = torch.cuda.Stream(device) if self.records else None
        self.pool: Any = None

    def __call__(self, *arguments: Hashable) -> None:
        graph = self.recorded.get(arguments)
        if graph is None and self.records and self.n_runs >= WARM_UP:
            graph = self._record(arguments)
        if graph is not None:
            graph.replay()
            return
        self.run(*arguments)
        self.n_runs += 1

    def _record(self, arguments: tuple[Hashable, ...]) -> Any:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        try:
            # Other threads may go on with what they do on the device.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                self.run(*arguments)
            finally:
                graph.capture_end()
        except RuntimeError:
            # Something waits for the device, or memory does not suffice: as before, then.
            self.records = False
            return None
        self.recorded[arguments] = graph
        return graph

    @contextlib.contextmanager
    def stream(self) -> Any:
        """A stream of its own, as recordings need it, in step with what is around it."""
        if self.side is None:
            yield
            return
        around = torch.cuda.current_stream(self.device)
        self.side.wait_stream(around)
        with torch.cuda.stream(self.side):
            yield
        around.wait_stream(self.side)


def _parts(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    return rows.x, rows.y, rows.weight
