"""Precisions of a device: TF32 products for who asks for them, and where float64 is."""

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import torch

from skmoe.batches import Rows

_lock = threading.Lock()
_depth = 0
_before = ""
# Whether the fit that runs has asked for TF32.
_asked: ContextVar[bool] = ContextVar("_asked", default=False)


@contextlib.contextmanager
def products_in(dtype: str) -> Iterator[None]:
    """A context in which float32 products on CUDA GPUs are in TF32, if `dtype` is "tf32".

    The setting is one for the process: the first fit in changes it, and the last one out
    restores it.
    """
    if dtype != "tf32":
        yield
        return
    asked = _asked.set(True)
    _enter()
    try:
        yield
    finally:
        _leave()
        _asked.reset(asked)


@contextlib.contextmanager
def products_of_others() -> Iterator[None]:
    """A context in which a fit waits while others compute as they have asked."""
    if not _asked.get():
        yield
        return
    _leave()
    try:
        yield
    finally:
        _enter()


def asked_for() -> str:
    """The `dtype` with which to enter `products_in` in the name of the fit that runs."""
    return "tf32" if _asked.get() else "auto"


def _enter() -> None:
    global _depth, _before
    matmul = torch.backends.cuda.matmul
    with _lock:
        if _depth == 0:
            _before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
        _depth += 1


def _leave() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            torch.backends.cuda.matmul.fp32_precision = _before


@contextlib.contextmanager
def with_float64(
    network: torch.nn.Module, rows: Rows, held_out: Rows | None
) -> Iterator[tuple[Rows, Rows | None]]:
    """A context in which network and rows are on a device that knows float64.

    Apple's GPUs do not: from there, the network moves to the CPU and back.
    """
    device = next(network.parameters()).device
    if device.type != "mps":
        yield rows, held_out
        return
    network.cpu()
    try:
        yield _on_cpu(rows), None if held_out is None else _on_cpu(held_out)
    finally:
        network.to(device)


def _on_cpu(rows: Rows) -> Rows:
    return Rows(rows.x.cpu(), rows.y.cpu(), rows.weight.cpu())
