"""What a pickle of an estimator holds: plain values, arrays, and the version that made it."""

import warnings
from typing import Any

import torch
from sklearn.base import BaseEstimator

from skmoe._version import __version__
from skmoe.model import FittedModel
from skmoe.stored_values import with_parts, without_parts

# In a pickle: by which version it was made.
VERSION = "_skmoe_version"


class Pickling(BaseEstimator):
    """An estimator whose model is pickled as arrays, and goes to where it can be computed."""

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__(), VERSION: __version__}
        if "_model" in state:
            state["_model"] = state["_model"].to_arrays()
        return without_parts(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = with_parts(state)
        _warn_of_other_version(type(self).__name__, state.pop(VERSION, None))
        if "_model" in state:
            state["_model"] = FittedModel.from_arrays(
                state["_model"], _place(str(state["device"]))
            )
        super().__setstate__(state)


def _place(asked: str) -> str:
    """The GPU that was asked for, or another one, or the CPU: what there is on this machine."""
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not asked.startswith("cuda") or n_devices == 0:
        return "cpu"
    return asked if (torch.device(asked).index or 0) < n_devices else "cuda"


def _warn_of_other_version(name: str, version: str | None) -> None:
    if version != __version__:
        warnings.warn(
            f"This pickle of {name} was made by version {version} of skmoe, and is read by "
            f"{__version__}: it may not work as it did. Use save_model for files that are read "
            "by all later versions.",
            UserWarning,
            stacklevel=3,
        )
