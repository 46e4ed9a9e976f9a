"""A fitted model <-> config and arrays, with all that is checked before it is built again.

What a file says about a network is compared with what a network of these arguments has, names,
types and shapes of its weights, before memory is taken for any of them: the network is first
built on torch's meta device, where tensors have shapes only.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from skmoe._registry import Part
from skmoe.model import Architecture
from skmoe.model_file import ModelFileError, check_keys
from skmoe.nn.base import Network
from skmoe.nn.expert_choice import ExpertChoiceRouter
from skmoe.nn.patches import PatchGate
from skmoe.nn.region_gates import RegionGate
from skmoe.optimizer import by_decay
from skmoe.stored_values import Reader, Writer

# Sizes in a file are at most this, or the number of values in its arrays: each true size is
# that of some axis, but for settings that are cut down to what there is.
USUAL_SIZE = 2**16
# Calls of torch that a network may take, some three times what true ones take: in all, for each
# of its tensors, and for each feature with bins.
CALLS, CALLS_PER_TENSOR, CALLS_PER_FEATURE = 200, 20, 50
SCALINGS = ("x_center", "x_scale", "y_center", "y_scale")
WEIGHTS = "weights."


def is_count(value: Any) -> bool:
    """Whether it is an int of at least 0, of which True is none."""
    return type(value) is int and value >= 0


def _is_size(value: Any) -> bool:
    return is_count(value) and value > 0


def _is_part(value: Any) -> bool:
    return isinstance(value, str | Part)


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _is_kind_of_expert(value: Any) -> bool:
    return _is_part(value) or (isinstance(value, list | tuple) and all(map(_is_part, value)))


# What networks take; settings of parts are checked by the parts.
ARGUMENTS: dict[str, Callable[[Any], bool]] = {
    "n_inputs": _is_size,
    "n_outputs": _is_size,
    "n_experts": _is_size,
    "top_k": _or_none(_is_size),
    "n_shared_experts": is_count,
    "gate": _is_part,
    "router": _is_part,
    "expert": _is_kind_of_expert,
    "hidden_dim": _is_size,
    "gate_sees": ("encoded", "input").__contains__,
    "embedding": _or_none(_is_part),
    "n_axes": _or_none(_is_size),
    "n_factors": _or_none(_is_size),
    "n_layers": _is_size,
    "model_dim": _is_size,
    "block_outputs": _is_size,
    "n_dense": is_count,
    "trunk": lambda value: isinstance(value, bool),
    "dense": lambda value: isinstance(value, bool),
    "activation": lambda value: isinstance(value, str),
    "base": lambda value: isinstance(value, str),
    "base_arguments": lambda value: isinstance(value, dict),
    "rank": _is_size,
    "bottleneck": _is_size,
}


def write_model(arrays: dict[str, Any], writer: Writer) -> dict[str, Any]:
    """The config of a model, from `FittedModel.to_arrays`; its arrays go to the writer."""
    for name in SCALINGS:
        writer.array(arrays[name], name)
    for name, weight in arrays["weights"].items():
        writer.array(weight, WEIGHTS + name)
    return {
        "network": arrays["network"],
        "arguments": writer.value(arrays["arguments"], "arguments"),
        "std_factor": writer.value(arrays["std_factor"], "std_factor"),
        "block_directions": writer.value(arrays["block_directions"], "block_directions"),
    }


def read_model(
    config: Any, reader: Reader, networks: Collection[str], n_features: int
) -> tuple[dict[str, Any], Network]:
    """What `FittedModel.from_arrays` takes, and the network without memory for its weights.

    Parameters
    ----------
    config : object
        As `write_model` made it, or anything else.
    reader : Reader
        Of the file's arrays.
    networks : collection of str
        Networks that the estimator may have, adapters around them left aside.
    n_features : int
        Number of features that the estimator was fitted with.

    Raises
    ------
    ModelFileError
        If anything is not as it would be in a fitted model.
    """
    check_keys("model", config, {"network", "arguments", "std_factor", "block_directions"})
    n_values = sum(array.size for array in reader.arrays.values())
    names = [name for name in reader.arrays if name.startswith(WEIGHTS)]
    arguments = reader.value(config["arguments"])
    _check_arguments(config["network"], arguments, networks)
    check_bounded("arguments", arguments, max(n_values, USUAL_SIZE))
    network = _without_memory(config["network"], arguments, len(names), n_values)
    weights = {name.removeprefix(WEIGHTS): reader.take(name) for name in names}
    weights = _checked_weights(weights, network)
    scalings = {name: reader.take(name) for name in SCALINGS}
    _check_scalings(scalings, arguments, n_features)
    directions = reader.value(config["block_directions"])
    _check_directions(directions, n_features)
    std_factor = config["std_factor"]
    if type(std_factor) is not float or not std_factor > 0:
        raise ModelFileError(f"std_factor must be a positive number. Got {std_factor!r:.80}.")
    arrays = {
        "network": config["network"],
        "arguments": arguments,
        "weights": weights,
        **scalings,
        "block_directions": directions,
        "std_factor": std_factor,
    }
    return arrays, network


def _check_arguments(name: Any, arguments: Any, networks: Collection[str]) -> None:
    """Refuse networks that the estimator has none of, and arguments of other types."""
    if not isinstance(name, str) or name not in (*networks, "adapted"):
        raise ModelFileError(f"network must be one of {sorted(networks)}. Got {name!r:.80}.")
    if not isinstance(arguments, dict):
        raise ModelFileError("arguments must be a dict.")
    for key, value in arguments.items():
        if not isinstance(key, str) or key not in ARGUMENTS:
            raise ModelFileError(f"A network has no argument {key!r:.80}.")
        if not ARGUMENTS[key](value):
            raise ModelFileError(f"Got {key}={value!r:.80} for a network.")
    if (arguments.get("n_factors") or 0) > arguments.get("n_layers", 0):
        raise ModelFileError("n_factors must be at most n_layers.")
    _check_bins(arguments.get("embedding"))
    if name == "adapted":
        inner = arguments.get("base_arguments", {})
        if arguments.get("base") == "adapted":
            raise ModelFileError("Adapters must not be around adapters.")
        _check_arguments(arguments.get("base"), inner, networks)
        sizes = ("n_inputs", "n_outputs")
        if any(inner.get(size) != arguments.get(size) for size in sizes):
            raise ModelFileError("Adapters must have the inputs and outputs of what is inside.")


def _check_bins(embedding: Any) -> None:
    """Edges of bins must be there: they would be made in any number, else."""
    if isinstance(embedding, str):
        embedding = Part(embedding)
    if embedding is None or embedding.name != "piecewise_linear":
        return
    bins = embedding.settings.get("bins")
    if not isinstance(bins, list) or not all(
        isinstance(edges, list) and all(type(edge) is float for edge in edges) for edges in bins
    ):
        raise ModelFileError("bins must be lists of edges.")


def check_bounded(what: str, value: Any, largest: int) -> None:
    """Refuse integers beyond what there can be, and numbers that are not finite."""
    if isinstance(value, Part):
        value = value.settings
    if isinstance(value, dict):
        value = list(value.values()) + [key for key in value if isinstance(key, Part)]
    if isinstance(value, list | tuple):
        for one in value:
            check_bounded(what, one, largest)
    elif isinstance(value, int) and not -largest <= value <= largest:
        raise ModelFileError(f"Integers in {what} must be at most {largest} in size.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ModelFileError(f"Numbers in {what} must be finite. Got {value}.")


class _AtMost(TorchFunctionMode):
    """Refuse to go on after so many calls of torch, as in a loop of a size from a file."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise ModelFileError("The network would have more tensors than the file.")
        return func(*args, **(kwargs or {}))


def _without_memory(
    name: str, arguments: dict[str, Any], n_tensors: int, n_values: int
) -> Network:
    """The network on the meta device; only edges of bins, which are in the file, are real."""
    bins = _bins(arguments) + _bins(arguments.get("base_arguments", {}))
    if len(bins) * max(map(len, bins), default=0) > max(n_values, USUAL_SIZE):
        raise ModelFileError("The embedding would have more values than the file.")
    calls = CALLS + CALLS_PER_TENSOR * n_tensors + CALLS_PER_FEATURE * len(bins)
    try:
        with torch.device("meta"), _AtMost(calls):
            return Architecture(name, arguments).build(None)
    except (ModelFileError, ImportError):
        raise  # a package is missing: the file may be sound
    except Exception as error:  # whatever parts say to settings that make no sense
        raise ModelFileError(f"The file describes no network: {error}") from error


def _bins(arguments: dict[str, Any]) -> list[list[float]]:
    embedding = arguments.get("embedding")
    return embedding.settings.get("bins", []) if isinstance(embedding, Part) else []


def _checked_weights(weights: dict[str, np.ndarray], network: Network) -> dict[str, np.ndarray]:
    """The weights, of the names, types and shapes that the network has, and finite."""
    expected = network.state_dict()
    check_keys("The network", weights, expected.keys())
    dtypes = {w.dtype for name, w in weights.items() if expected[name].is_floating_point()}
    if len(dtypes) != 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise ModelFileError(f"Weights must be of one type. Got {sorted(map(str, dtypes))}.")
    for name, tensor in expected.items():
        weight = weights[name]
        if weight.shape != tuple(tensor.shape):
            raise ModelFileError(
                f"{name} must have shape {tuple(tensor.shape)}. Got {weight.shape}."
            )
        if not tensor.is_floating_point():
            weights[name] = _checked_integers(name, weight, tensor)
    _check_values(weights, network)
    return weights


def _checked_integers(name: str, weight: np.ndarray, tensor: torch.Tensor) -> np.ndarray:
    stored = np.uint8 if tensor.dtype == torch.bool else np.int64
    if weight.dtype != stored:
        raise ModelFileError(f"{name} must be of {np.dtype(stored)}. Got {weight.dtype}.")
    if tensor.dtype != torch.bool:
        return weight
    # Masks follow from the bins: with another number of ones, shapes would not fit.
    if not np.array_equal(weight, tensor.numpy()):
        raise ModelFileError(f"{name} does not follow from the bins.")
    return weight.astype(bool)


def _check_values(weights: dict[str, np.ndarray], network: Network) -> None:
    """Refuse weights that are not finite, and indices of experts that there are not."""
    thresholds = set()
    for path, module in network.named_modules():
        if isinstance(module, ExpertChoiceRouter):
            thresholds.add(f"{path}.threshold_BE")  # infinite until there was a batch
        if isinstance(module, RegionGate | PatchGate):
            name = "region_ids_BE" if isinstance(module, RegionGate) else "expert_ids_BR"
            ids = weights[f"{path}.{name}"]
            if ids.size and not 0 <= ids.min() <= ids.max() < module.shape[2]:
                raise ModelFileError(f"{name} must be counted from 0, up to n_experts.")
    for name, weight in weights.items():
        sound = ~np.isnan(weight) if name in thresholds else np.isfinite(weight)
        if not sound.all():
            raise ModelFileError(f"Weights must be finite. {name} is not.")


def _check_scalings(
    scalings: dict[str, np.ndarray], arguments: dict[str, Any], n_features: int
) -> None:
    """Refuse scalings of another number of features or targets than the network's."""
    for name, values in scalings.items():
        check_array(name, values, (None,))
        if name.endswith("scale") and (values < 0).any():
            raise ModelFileError(f"{name} must not be negative.")
    sizes = [len(scalings[name]) for name in SCALINGS]
    if sizes[:2] != [n_features] * 2 or sizes[2] != sizes[3]:
        raise ModelFileError(f"Scalings must be of {n_features} features. Got sizes {sizes}.")
    n_varying = max(np.count_nonzero(scalings["x_scale"]), 1)
    if arguments["n_inputs"] != n_varying:
        raise ModelFileError(
            f"The network must have {n_varying} inputs. Got {arguments['n_inputs']}."
        )
    if arguments["n_outputs"] not in (sizes[2], 2 * sizes[2]):
        raise ModelFileError(
            f"The network must have one output, or two, for each of {sizes[2]} targets. "
            f"Got {arguments['n_outputs']}."
        )


def _check_directions(directions: Any, n_features: int) -> None:
    if directions is None:
        return
    if not isinstance(directions, list):
        raise ModelFileError("block_directions must be a list.")
    for maps in directions:
        check_array("block_directions", maps, (n_features, None))


def check_array(
    what: str, array: Any, shape: tuple[int | None, ...], dtype: type = np.float64
) -> None:
    """Refuse all but finite arrays of this type and shape, None for any size."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != len(shape):
        raise ModelFileError(f"{what} must be an array of {np.dtype(dtype)}.")
    if any(n not in (None, found) for n, found in zip(shape, array.shape, strict=True)):
        raise ModelFileError(f"{what} must be of shape {shape}. Got {array.shape}.")
    if not np.isfinite(array).all():
        raise ModelFileError(f"{what} must be finite.")


def check_optimizer(state: Any, network: Network) -> None:
    """Refuse a state of the optimiser that would not fit to the weights that learn."""
    if state is None or state == {}:
        return
    sizes = [sum(w.numel() for w in group.values()) for group in by_decay(network) if group]
    check_keys("The state of the optimiser", state, {str(i) for i in range(len(sizes))})
    for index, size in enumerate(sizes):
        entry = state[str(index)]
        check_keys("The state of the optimiser", entry, {"step", "exp_avg", "exp_avg_sq"})
        dtype = getattr(entry["exp_avg"], "dtype", None)
        dtype = dtype if dtype == np.float32 else np.float64
        check_array("exp_avg", entry["exp_avg"], (size,), dtype)
        check_array("exp_avg_sq", entry["exp_avg_sq"], (size,), dtype)
        check_array("step", entry["step"], (), np.float32)
        if (entry["exp_avg_sq"] < 0).any() or entry["step"] < 0:
            raise ModelFileError("Squares and steps of the optimiser must not be negative.")
