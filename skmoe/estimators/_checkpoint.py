"""The checkpoint of a fit: whose it is, and the random numbers that it starts with."""

import inspect
from pickle import PicklingError
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skmoe._registry import name_of
from skmoe._validation import random_of
from skmoe.checkpoint import Checkpoint, fingerprints
from skmoe.upcycling import dense_net_of

# They change nothing of what is learned.
NOT_OF_THE_FIT = ("checkpoint", "verbose")
PLAIN = (bool, int, float, str, type(None))


def open_checkpoint(
    estimator: BaseEstimator, start: Any, *rows: Any
) -> tuple[Checkpoint | None, np.random.RandomState]:
    """The checkpoint that `estimator` asks for, if any, and the random numbers of its fit.

    Parameters
    ----------
    estimator : estimator
        With its parameters.
    start : dict or None
        What a warm start goes on from.
    *rows : array-like or None
        All that the fit is given.

    Returns
    -------
    checkpoint : Checkpoint or None
    random : RandomState
        In the state in which the fit has started for the first time.

    Raises
    ------
    ValueError
        If the checkpoint is of another fit, or the parameters cannot be compared.
    """
    random = random_of(estimator.random_state)
    place = estimator.checkpoint
    if place is None:
        return None, random
    data = [None if part is None else np.ascontiguousarray(part) for part in rows]
    try:
        identity = fingerprints(_told(estimator) | {"warm start": start}, data)
    except PicklingError as error:
        raise ValueError(
            "checkpoint needs parameters that another process can find, as classes and "
            f"functions of a module. Got: {error.args[0]}"
        ) from None
    checkpoint = Checkpoint(place, identity, random.get_state(legacy=False))
    if checkpoint.is_new:
        return checkpoint, random
    # Also the user's own generator then moves as it did for the first time.
    random.set_state(checkpoint.random_state)
    return checkpoint, random


def _told(estimator: BaseEstimator) -> dict[str, Any]:
    """The parameters, in a form that is the same in another process."""
    told = {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if name not in NOT_OF_THE_FIT
    }
    if isinstance(told["random_state"], np.random.RandomState):
        told["random_state"] = "RandomState"
    if isinstance(told["init"], BaseEstimator):
        told["init"] = tuple(dense_net_of(told["init"]))
    told["kind of estimator"] = name_of(type(estimator))
    told["callbacks"] = [_told_of(callback) for callback in told["callbacks"] or ()]
    return told


def _told_of(callback: Any) -> Any:
    """Kind and plain settings of a callback, which may come with a name.

    Settings are numbers and names that it was made with, as far as it has kept them under the
    same names; all else may change while it is told of a fit, or be nothing to compare.
    """
    name, one = callback if isinstance(callback, tuple) else (None, callback)
    made_with = inspect.signature(type(one)).parameters
    kept = {k: v for k, v in vars(one).items() if k in made_with and isinstance(v, PLAIN)}
    return name, name_of(type(one)), kept
