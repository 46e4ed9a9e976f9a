"""Precision of matrix products on a GPU: TF32, for who asks for it."""

import contextlib
import threading
from collections.abc import Iterator

import torch

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
            _before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                matmul.fp32_precision = _before
