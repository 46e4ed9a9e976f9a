"""What "auto" means: choices that follow from the number of rows and features."""

import math

import numpy as np
import torch

from skmoe._registry import Part, part

# Up to here one batch holds all rows: small fits are then exactly weight-equivalent.
FULL_BATCH = 512
# Below this, a tenth more rows to learn from is worth more than the choice of an epoch.
MIN_ROWS_FOR_VALIDATION = 5000
# Up to here, asking all experts costs no more than sorting rows, and learns better.
MAX_SOFT_EXPERTS = 8
# Steps of a fit of up to 256 rows, and of one of very many.
STEPS = 100
MAX_STEPS = 16_000
# Float64 costs about twice the time, which is nothing on small data.
MAX_ROWS_FOR_FLOAT64 = 1000
# Below this a GPU's start-up costs more than it saves.
MIN_ROWS_FOR_CUDA = 10_000
# Quantile bins for so many features would dwarf the rest of the network.
MAX_FEATURES_FOR_BINS = 128


def top_k(setting: int | str | None, n_experts: int) -> int | None:
    """All of up to eight experts; two of more."""
    if isinstance(setting, str):
        return 2 if n_experts > MAX_SOFT_EXPERTS else None
    if setting is not None and setting > n_experts:
        raise ValueError(
            f"top_k must be at most n_experts. Got top_k={setting} and n_experts={n_experts}."
        )
    return setting


def width(setting: int | str, n_rows: int, usual: int, small: int) -> int:
    """The usual width of a layer; a smaller one while all rows fit into one batch."""
    if isinstance(setting, str):
        return usual if n_rows > FULL_BATCH else small
    return setting


def batch_size(setting: int | str, n_rows: int) -> int:
    """All rows up to 512; beyond, a power of two that grows like the square root of n."""
    if not isinstance(setting, str):
        return setting
    if n_rows <= FULL_BATCH:
        return FULL_BATCH
    return int(2 ** np.clip(round(math.log2(2 * math.sqrt(n_rows))), 6, 11))


def max_epochs(setting: int | str, n_rows: int, batch: int) -> int:
    """Enough epochs for a number of steps that grows like ``n^1.1``, up to 16,000."""
    if not isinstance(setting, str):
        return setting
    steps = min(STEPS * max(n_rows / 256, 1.0) ** 1.1, MAX_STEPS)
    return max(10, round(steps / math.ceil(n_rows / batch)))


def early_stopping(setting: bool | str, n_rows: int) -> bool:
    """Hold out validation rows from 5,000 rows on."""
    return n_rows >= MIN_ROWS_FOR_VALIDATION if isinstance(setting, str) else setting


def embedding(setting: str | Part | None, n_features: int) -> str | Part | None:
    """Quantile bins unless there are very many features."""
    if setting != "auto":
        return setting
    return part("piecewise_linear") if n_features <= MAX_FEATURES_FOR_BINS else None


def device(setting: str, n_rows: int) -> torch.device:
    """A CUDA GPU if there is one and enough to do; else the CPU."""
    if setting == "auto":
        use_cuda = torch.cuda.is_available() and n_rows >= MIN_ROWS_FOR_CUDA
        return torch.device("cuda" if use_cuda else "cpu")
    try:
        chosen = torch.device(setting)
    except RuntimeError:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:<i>' or 'mps'. Got {setting!r}."
        ) from None
    _check_available(chosen, setting)
    return chosen


def _check_available(chosen: torch.device, setting: str) -> None:
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise ValueError(
                f"device={setting!r} was asked for, but {count} CUDA devices were found."
            )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={setting!r} was asked for, but no such device was found.")


def dtype(setting: str, X: np.ndarray, chosen_device: torch.device) -> torch.dtype:
    """float64 for small float64 data on the CPU; else float32."""
    if setting == "auto":
        small = X.dtype == np.float64 and len(X) <= MAX_ROWS_FOR_FLOAT64
        return torch.float64 if small and chosen_device.type == "cpu" else torch.float32
    return torch.float64 if setting == "float64" else torch.float32
