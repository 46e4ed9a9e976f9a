"""Epochs whose steps read all they need from the device: on a GPU, recorded and replayed.

A step of a small network is a hundred short operations, whose calls take ten times as long as
a GPU needs for the work. Where shapes stay the same, the operations are recorded once, as a
CUDA graph; from then on a step is one call, and the processor waits for the device at the end
of an epoch only. For that, all that differs from step to step lies on the device: the order of
the rows, the place of the next batch in it, learning rates and temperatures of all steps in a
table, and sums of what is to be told of the epoch.
"""

import contextlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from skmoe.batches import BATCHES_PER_LOOK
from skmoe.stacked_rows import EpochMeans, StackedBatch, StackedRows

# Steps before the first one is recorded: libraries make their plans and memory in them.
WARM_UP = 3

TakeStep = Callable[[StackedBatch, Tensor, bool], dict[str, Tensor]]
"""From (batch, this step's line of the table, whether to look at routings): takes a step, and
tells means over the batch, with the models on their first axis."""


def repeats_steps(device: torch.device) -> bool:
    """Whether a device can be told to repeat what it has done."""
    return device.type == "cuda"


class ResidentEpochs:
    """Passes over the rows of one or more models, batch by batch.

    Parameters
    ----------
    rows : StackedRows
        On the device.
    table : Tensor of shape (n_steps, C)
        What each step is to be taken with.
    take_step : callable
        Takes one. It must do the same with tensors at the same places, each time that it is
        called with a batch of a shape.
    generators : sequence of torch.Generator, default=()
        Those that a step draws from.
    """

    def __init__(
        self,
        rows: StackedRows,
        table: Tensor,
        take_step: TakeStep,
        generators: Sequence[torch.Generator] = (),
    ):
        self.rows, self.table, self.take_step = rows, table, take_step
        self.index_BMT = torch.empty_like(rows.places_BMT)
        self.place = torch.zeros(1, dtype=torch.long, device=table.device)
        self.step = torch.zeros_like(self.place)
        self.told = EpochMeans()
        self.steps = Recorder(self._take_one, table.device, generators)

    def run(
        self, generators: Sequence[torch.Generator | None], first_step: int
    ) -> dict[str, Tensor]:
        """Means over an epoch that starts at this step, rows in orders that these draw."""
        with self.steps.stream():
            self.index_BMT.copy_(self.rows.index(generators))
            self.place.zero_()
            self.step.fill_(first_step)
            self.told.clear()
            for number, (width, is_full) in enumerate(self.rows.shapes):
                self.steps(width, is_full, number % BATCHES_PER_LOOK == 0)
            return self.told.means()

    def close(self) -> None:
        """Give back the memory of what was recorded, as soon as it is not used any more."""
        self.steps.recorded.clear()

    def _take_one(self, width: int, is_full: bool, look: bool) -> None:
        index_MT, sizes_M = (
            of_all.index_select(0, self.place)[0]
            for of_all in (self.index_BMT, self.rows.sizes_BM)
        )
        share_BMT = self.rows.share_BMT
        if not is_full:  # else nobody reads it
            share_BMT = share_BMT.index_select(0, self.place)
        batch = self.rows.batch(index_MT, share_BMT[0], sizes_M, width, is_full)
        told = self.take_step(batch, self.table.index_select(0, self.step)[0], look)
        self.place.add_(1)
        self.step.add_(1)
        self.told.add(told, batch.sizes_M)


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
