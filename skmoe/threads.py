"""How many threads a fit may use."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from threadpoolctl import threadpool_limits

# Below so many rows, operations are too short to be shared.
MIN_ROWS = 2000


def threads(n_rows: int) -> AbstractContextManager[Any]:
    """A context with one thread for few rows, and the user's number of them otherwise.

    Operations are short then: a second thread gains a tenth, and where other processes are
    busy, waiting for each other makes threads many times as slow. Only the calling thread is
    limited; whoever has called ``torch.set_num_threads`` keeps that number in products.
    """
    if n_rows >= MIN_ROWS:
        return nullcontext()
    torch.get_num_threads()  # before its first operation torch would set a number of its own
    return threadpool_limits(1, user_api="openmp")
