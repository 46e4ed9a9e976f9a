"""Precisions of a device: TF32 products for who asks for them, and where float64 is."""

import contextlib
import threading
from collections.abc import Iterator

import torch

from skmoe.batches import Rows

_lock = threading.Lock()
_depth = 0
_before = ""


@contextlib.contextmanager
def products_in(dtype: str) -> Iterator[None]:
    """A context in which float32 products on CUDA GPUs are in TF32, if `dtype` is "tf32".

    The setting is one for the process: the first fit in changes it, and the last one out
    restores it.
    """
    global _depth, _before
    if dtype != "tf32":
        yield
        return
    matmul = torch.backends.cuda.matmul
    with _lock:
        if _depth == 0:
            _before = matmul.fp32_precision
        matmul.fp32_precision = "tf32"
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                matmul.fp32_precision = _before


def precision() -> str:
    """That of float32 products on CUDA GPUs now."""
    return torch.backends.cuda.matmul.fp32_precision


@contextlib.contextmanager
def products_as(setting: str) -> Iterator[None]:
    """A context with the `precision` of another moment."""
    before = precision()
    _set_precision(setting)
    try:
        yield
    finally:
        _set_precision(before)


def _set_precision(setting: str) -> None:
    if precision() != setting:
        torch.backends.cuda.matmul.fp32_precision = setting


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
