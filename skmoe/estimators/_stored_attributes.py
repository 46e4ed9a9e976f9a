"""The fitted attributes that a model file holds, and all that is checked of them."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from skmoe.model_file import ModelFileError, check_keys
from skmoe.nn.base import Network
from skmoe.stored_model import check_array, check_optimizer, is_count
from skmoe.stored_values import Reader

ALWAYS = (
    "n_features_in_",
    "_y_ndim",
    "_optimizer_state",
    "n_iter_",
    "history_",
    "best_loss_",
    "expert_usage_",
)
SOMETIMES = (
    "feature_names_in_",
    "n_samples_fit_",
    "n_tuned_weights_",
    "expert_scores_",
    "tuned_experts_",
    "compression_errors_",
    "singular_values_",
)


def check_can_be_stored(names: Iterable[str]) -> None:
    """Refuse attributes that no file holds, with a `ValueError`."""
    if unknown := set(names) - {*ALWAYS, *SOMETIMES}:
        raise ValueError(
            f"A model file cannot hold the attributes {sorted(unknown)}. Delete them, or use "
            "pickle."
        )


def check_names(stored: Any) -> None:
    """Refuse other attributes than a file holds, and some of them without the others."""
    if not isinstance(stored, dict):
        raise ModelFileError("fitted must be a JSON object.")
    check_keys("fitted", stored, {*ALWAYS, *(stored.keys() & set(SOMETIMES))})


def read_fitted(stored: Any, reader: Reader) -> dict[str, Any]:
    """The attributes in a file, but the model."""
    check_names(stored)
    return {name: reader.value(value) for name, value in stored.items()}


def check_fitted(fitted: dict[str, Any], model: dict[str, Any], network: Network) -> None:
    """Refuse fitted attributes of other types and shapes than a fit leaves."""
    n_targets, n_features = len(model["y_center"]), fitted["n_features_in_"]
    y_ndim = fitted["_y_ndim"]
    if not is_count(y_ndim) or y_ndim not in ((1, 2) if n_targets == 1 else (2,)):
        raise ModelFileError(f"y cannot have had {y_ndim!r:.80} dimensions.")
    check_optimizer(fitted["_optimizer_state"], network)
    n_experts, n_gates = _gates_of(network)
    usage = fitted["expert_usage_"]
    shape = (n_experts,) if getattr(usage, "ndim", 0) == 1 else (n_gates, n_experts)
    check_array("expert_usage_", usage, shape)
    history = fitted["history_"]
    if not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
        raise ModelFileError("history_ must be a list of dicts.")
    if not is_count(fitted["n_iter_"]) or not isinstance(fitted["best_loss_"], float):
        raise ModelFileError("n_iter_ must be an integer, and best_loss_ a number.")
    checks: dict[str, Callable[[Any], Any]] = {
        "feature_names_in_": lambda names: _check_feature_names(names, n_features),
        "n_samples_fit_": lambda count: _check_count("n_samples_fit_", count),
        "n_tuned_weights_": lambda count: _check_count("n_tuned_weights_", count),
        "expert_scores_": lambda scores: check_array("scores", scores, (n_gates, n_experts)),
        "tuned_experts_": lambda ids: _check_experts(ids, n_gates, n_experts),
        "compression_errors_": lambda errors: check_array("errors", errors, (None,)),
        "singular_values_": _check_lists_of_values,
    }
    for name in fitted.keys() & checks.keys():
        checks[name](fitted[name])


def _check_count(name: str, value: Any) -> None:
    if not is_count(value):
        raise ModelFileError(f"{name} must be an integer. Got {value!r:.80}.")


def _gates_of(network: Network) -> tuple[int, int]:
    """Number of experts that each gate has, and of gates."""
    layers = network.moe_layers()
    return layers[0].experts.n_experts, sum(layer.experts.n_blocks for layer in layers)


def _check_feature_names(names: Any, n_features: int) -> None:
    if getattr(names, "dtype", None) != np.dtype(object) or len(names) != n_features:
        raise ModelFileError(f"feature_names_in_ must be {n_features} texts.")


def _check_experts(ids: Any, n_gates: int, n_experts: int) -> None:
    if not isinstance(ids, list) or len(ids) != n_gates:
        raise ModelFileError(f"tuned_experts_ must be {n_gates} arrays.")
    for one in ids:
        check_array("tuned_experts_", one, (None,), np.int64)
        if one.size and not 0 <= one.min() <= one.max() < n_experts:
            raise ModelFileError(f"Experts must be counted from 0 to {n_experts - 1}.")


def _check_lists_of_values(values: Any) -> None:
    if not isinstance(values, list):
        raise ModelFileError("singular_values_ must be a list of arrays.")
    for one in values:
        check_array("singular_values_", one, (None,))
