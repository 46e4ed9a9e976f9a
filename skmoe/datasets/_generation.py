"""What all generators share: checks of numbers, streams of randomness, the answer's form."""

from numbers import Integral, Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from sklearn.utils import Bunch, check_random_state

# What decides the random numbers of a data set.
Seed: TypeAlias = int | np.random.RandomState | None


class Streams(NamedTuple):
    """One source of randomness for each thing drawn, so that none shifts another."""

    shape: np.random.RandomState
    target: np.random.RandomState
    embedding: np.random.RandomState
    holdout: np.random.RandomState
    rows: np.random.RandomState
    noise: np.random.RandomState
    off_manifold: np.random.RandomState


N_TASK_STREAMS = 4  # the first of them


def streams_of(
    random_state: Seed,
    task_random_state: Seed,
) -> Streams:
    seeds = _seeds(random_state)
    if task_random_state is not None:
        seeds[:N_TASK_STREAMS] = _seeds(task_random_state)[:N_TASK_STREAMS]
    return Streams(*(np.random.RandomState(seed) for seed in seeds))


def _seeds(random_state: Seed) -> np.ndarray:
    if random_state is None:  # not NumPy's global state, which is the user's
        random_state = np.random.RandomState()
    largest = np.iinfo(np.int32).max
    return check_random_state(random_state).randint(largest, size=len(Streams._fields))


def deliver(
    X: np.ndarray,
    clean: np.ndarray,
    noise: float,
    generator: np.random.RandomState,
    return_X_y: bool,
    holdout: np.ndarray | None = None,
    **truth: Any,
) -> Any:
    """``(X, y)`` of the seen rows, or all of it as a `Bunch`."""
    check_real("noise", noise)
    y = clean + noise * generator.standard_normal(clean.shape)
    if not return_X_y:
        mask = {} if holdout is None else {"holdout": holdout}
        return Bunch(data=X, target=y, noise_free_target=clean, **truth, **mask)
    return (X, y) if holdout is None else (X[~holdout], y[~holdout])


def check_integer(name: str, value: Any, smallest: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < smallest:
        raise ValueError(f"{name} must be an int of at least {smallest}. Got {name}={value!r}.")


def check_real(name: str, value: Any) -> None:
    if not isinstance(value, Real) or not 0 <= float(value) < np.inf:
        raise ValueError(f"{name} must be a finite number of at least 0. Got {name}={value!r}.")
