"""A fitted model: network and scalings together, from the user's X to the user's y.

Nothing here changes a model: it is built once, at the end of a fit, and then only read, so
threads may predict with it at the same time. `to_arrays` and `from_arrays` turn it into
plain parameters and numpy arrays and back: what is pickled holds no torch object.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skmoe.batches import Rows
from skmoe.distribution import Distribution, calibrating_factor
from skmoe.nn.adapters import NETWORKS, AdaptedNetwork
from skmoe.nn.base import Network, Step
from skmoe.nn.base_routers import Routing
from skmoe.nn.layers import MoELayer
from skmoe.nn.losses import GaussianNLL
from skmoe.scaling import Scaling
from skmoe.shared_work import once
from skmoe.short_memory import MAX_HALVINGS

# Rows go through a network in chunks, so that memory stays bounded however many there are, and
# on a CPU hidden features stay near: with more values than these at once, a prediction takes
# three to four times as long.
CPU_VALUES = 2**21
CPU_CHUNKS = 256, 8192
CUDA_CHUNK = 65536
# Values that are scaled at once: it takes some copies in float64.
SCALED_AT_ONCE = 2**20
# Rows on which the usage of experts is measured.
USAGE_ROWS = 10_000


@dataclass(frozen=True)
class Architecture:
    """What it takes to build a network of the same shape again."""

    network: str
    arguments: dict[str, Any]

    def build(self, generator: torch.Generator | None) -> Network:
        """A network with fresh weights; None is for the meta device, where none are drawn."""
        return NETWORKS[self.network](**self.arguments, generator=generator)


@dataclass(frozen=True)
class FittedModel:
    """A trained network with its scalings."""

    architecture: Architecture
    net: Network
    x_scaling: Scaling
    y_scaling: Scaling
    block_directions: list[NDArray[np.float64]] | None = None
    """Where the blocks of a deep mixture started, in the user's features, if this was found."""
    std_factor: float = 1.0
    """Of standard deviations that the network tells, as validation rows want it."""

    def rebuilt(self, changes: dict[str, Any], seed: int) -> "FittedModel":
        """The same scalings with an untrained network that differs in these arguments."""
        arguments = {**self.architecture.arguments, **changes}
        architecture = Architecture(self.architecture.network, arguments)
        net = architecture.build(torch.Generator().manual_seed(seed))
        return replace(self, architecture=architecture, net=net.to(self.device, self.dtype))

    def with_answers(
        self, change: Callable[[int, MoELayer, torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> "FittedModel":
        """A copy whose layers answer otherwise: ``change(first, layer, x_BTD, y_BTO)``.

        `first` is the number of the layer's first block among those of all layers, and
        ``y_BTO`` what it would have answered.
        """
        net = copy.deepcopy(self.net)
        first = 0
        for layer in net.moe_layers():

            def answer(
                layer: MoELayer,
                inputs: tuple[torch.Tensor, ...],
                answered: tuple[torch.Tensor, Routing],
                first: int = first,
            ) -> tuple[torch.Tensor, Routing]:
                return change(first, layer, inputs[0], answered[0]), answered[1]

            layer.register_forward_hook(answer)
            first += layer.experts.n_blocks
        return replace(self, net=net)

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.net.parameters()).dtype

    def tensor(self, X: np.ndarray) -> torch.Tensor:
        """Scaled features on the network's device."""
        return _scaled_tensor(X, self.x_scaling, self.dtype, self.device)

    def rows(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Rows:
        """Scaled rows on the network's device."""
        scaled = once(_scaled_tensor, X, self.x_scaling, self.dtype, self.device)
        return self.rows_of(scaled, y, weight)

    def rows_of(
        self, scaled: np.ndarray | torch.Tensor, y: np.ndarray, weight: np.ndarray
    ) -> Rows:
        """Likewise, of features that are scaled already."""
        return once(_rows_of, scaled, y, weight, self.y_scaling, self.dtype, self.device)

    @property
    def is_distribution(self) -> bool:
        """Whether the network has a standard deviation beside each mean."""
        return self.architecture.arguments["n_outputs"] > self.n_targets

    @property
    def n_targets(self) -> int:
        """Number of columns of y."""
        return len(self.y_scaling.center)

    def predict(self, X: np.ndarray) -> NDArray[np.float64]:
        """Predictions ``(n, n_outputs)`` in the user's units."""
        means = self._collect(X, lambda y, steps: [y[:, : self.n_targets]])[0]
        return self.y_scaling.invert(means)

    def distribution(self, X: np.ndarray) -> Distribution:
        """The predicted distributions, in the user's units."""

        def look(x: torch.Tensor) -> list[torch.Tensor]:
            weights_MTK, outputs_MTKO = self.net.mixture(*self.net.answers(x))
            mean_MTKO, log_std_MTKO = GaussianNLL.components(outputs_MTKO)
            weights_MTK = weights_MTK / len(weights_MTK)  # members count the same
            parts = weights_MTK, mean_MTKO, log_std_MTKO.exp()
            return [part.transpose(0, 1).flatten(1, 2) for part in parts]

        weights, means, stds = self._collect_from(X, look)
        scale = self.y_scaling.scale
        return Distribution(
            weights, self.y_scaling.center + scale * means, self.std_factor * scale * stds
        )

    def calibrated(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> "FittedModel":
        """The same model, its standard deviations as these rows want them."""
        varies = self.y_scaling.scale > 0  # else there is no deviation to be right or wrong
        if not varies.any():
            return self
        weights, means, stds = self.distribution(X)
        told = Distribution(weights, means[..., varies], stds[..., varies])
        factor = calibrating_factor(told, y[:, varies], weight)
        return replace(self, std_factor=factor * self.std_factor)

    def gates(self, X: np.ndarray) -> list[NDArray[np.float64]]:
        """Weights ``(n, E)`` of the experts, for each layer."""

        def look(x: torch.Tensor) -> list[torch.Tensor]:
            return [b for routing in self.net.routings(x) for b in routing.dense_weights()]

        return self._collect_from(X, look)

    def top_experts(self, X: np.ndarray) -> NDArray[np.intp]:
        """The expert with the largest weight, ``(n, n_layers)``."""
        return np.stack([weights.argmax(axis=1) for weights in self.gates(X)], axis=1)

    def usage(self, X: np.ndarray, weight: np.ndarray) -> list[NDArray[np.float64]]:
        """Share ``(E,)`` of the weight that each expert gets, for each layer, on some rows."""
        index = _from_all_over(len(X), USAGE_ROWS)
        some, counts = X[index], weight[index]
        chunks = self._chunks(len(some))
        # Chunk by chunk: the weights of thousands of experts are many.
        gates = ((self.gates(some[chunk]), counts[chunk]) for chunk in chunks)
        sums = zip(*([c @ w for w in layers] for layers, c in gates), strict=True)
        totals = [np.sum(layer, axis=0) for layer in sums]
        # The smallest number in place of 0: nobody may be asked.
        return [total / max(total.sum(), np.finfo(float).tiny) for total in totals]

    def experts(self, X: np.ndarray) -> list[NDArray[np.float64]]:
        """What each expert says, ``(n, E, O)`` for each layer, in the network's units."""
        return self._per_layer(X, lambda step: step.layer.expert_outputs(step.x_BTD))

    def shared(self, X: np.ndarray) -> list[NDArray[np.float64]]:
        """What the shared experts add, ``(n, O)`` for each layer, in the network's units."""
        return self._per_layer(X, lambda step: step.layer.shared_output(step.x_BTD))

    def states(self, X: np.ndarray) -> list[NDArray[np.float64]]:
        """The state ``(n, M)`` that each layer leaves, in the network's units."""
        return self._per_layer(X, lambda step: step.state_BTM)

    def added(self, X: np.ndarray) -> NDArray[np.float64] | float:
        """What adapters add to the answer ``(n, O)``, in the network's units; 0 without any."""
        if not isinstance(self.net, AdaptedNetwork):
            return 0.0
        network = self.net
        return self._collect_from(X, lambda x: [network.added(x, network.weights(x))])[0]

    def _per_layer(
        self, X: np.ndarray, view: Callable[[Step], torch.Tensor]
    ) -> list[NDArray[np.float64]]:
        """An array for each layer, from a view that has the blocks on its first axis."""
        return self._collect(X, lambda y, steps: [b for step in steps for b in view(step)])

    def _collect(
        self, X: np.ndarray, view: Callable[[torch.Tensor, list[Step]], list[torch.Tensor]]
    ) -> list[NDArray[np.float64]]:
        """The arrays that `view` takes from each chunk, put together."""
        return self._collect_from(X, lambda x: view(*self.net(x)))

    def _collect_from(
        self, X: np.ndarray, look: Callable[[torch.Tensor], list[torch.Tensor]]
    ) -> list[NDArray[np.float64]]:
        """Likewise, from the scaled rows of each chunk."""
        wholes: list[NDArray[np.float64]] = []
        with torch.inference_mode():
            for chunk, answers in self._answers(X, look):
                # In place: parts that are put together at the end take twice the memory.
                wholes = wholes or [np.empty((len(X), *a.shape[1:])) for a in answers]
                for whole, answer in zip(wholes, answers, strict=True):
                    whole[chunk] = answer.cpu().numpy()
        return wholes

    def _answers(
        self, X: np.ndarray, look: Callable[[torch.Tensor], list[torch.Tensor]]
    ) -> Iterator[tuple[slice, list[torch.Tensor]]]:
        """Chunks of the rows and what `look` tells of them; smaller ones if memory is short."""
        start, size = 0, min(self._chunk_size(len(X)), len(X))
        smallest = max(size >> MAX_HALVINGS, 1)
        while start < len(X):
            chunk = slice(start, start + size)
            try:
                answers = look(self.tensor(X[chunk]))
            except torch.OutOfMemoryError:
                if size <= smallest:
                    raise
                size //= 2
                continue
            yield chunk, answers
            start += size

    def _chunks(self, n_rows: int) -> Iterator[slice]:
        size = self._chunk_size(n_rows)
        for start in range(0, n_rows, size):
            yield slice(start, start + size)

    def _chunk_size(self, n_rows: int) -> int:
        least, most = CPU_CHUNKS
        if n_rows <= least:
            return max(n_rows, 1)
        if self.device.type == "cuda":
            return CUDA_CHUNK
        return min(max(CPU_VALUES // self._values_of_a_row(), least), most)

    def _values_of_a_row(self) -> int:
        """How many values are made of a row, about: one for each bias that is used."""

        def count(module: torch.nn.Module) -> float:
            named = module.named_parameters()
            return sum(weight.numel() for name, weight in named if name.endswith("bias"))

        total = count(self.net)
        for layer in self.net.moe_layers():
            n_experts, asked = layer.experts.n_experts, layer.router.top_k
            if asked is not None and asked < n_experts:
                total -= count(layer.experts) * (1 - asked / n_experts)
        return int(total) + 1

    def to_arrays(self) -> dict[str, Any]:
        """The model as plain parameters and arrays."""
        weights = self.net.state_dict()
        return {
            "network": self.architecture.network,
            "arguments": self.architecture.arguments,
            "weights": {name: tensor.cpu().numpy() for name, tensor in weights.items()},
            "x_center": self.x_scaling.center,
            "x_scale": self.x_scaling.scale,
            "y_center": self.y_scaling.center,
            "y_scale": self.y_scaling.scale,
            "block_directions": self.block_directions,
            "std_factor": self.std_factor,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], device: str = "cpu") -> "FittedModel":
        """Build the model again, on `device`."""
        architecture = Architecture(arrays["network"], arrays["arguments"])
        net = architecture.build(torch.Generator())
        # A copy: the arrays may be read-only, as those of a memory-mapped pickle are.
        weights = {name: torch.from_numpy(w.copy()) for name, w in arrays["weights"].items()}
        net = net.to(next(w.dtype for w in weights.values() if w.is_floating_point()))
        net.load_state_dict(weights)
        return cls(
            architecture,
            net.to(device).eval(),
            Scaling(arrays["x_center"], arrays["x_scale"]),
            Scaling(arrays["y_center"], arrays["y_scale"]),
            arrays["block_directions"],
            arrays["std_factor"],
        )


def _scaled_tensor(
    X: np.ndarray, scaling: Scaling, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Scaled features, some rows after the other."""
    scaled = torch.empty(0)
    size = max(SCALED_AT_ONCE // X.shape[1], 1)
    if len(X) <= size:
        return torch.as_tensor(scaling.apply_softly(X), dtype=dtype, device=device)
    for start in range(0, len(X), size):
        rows = slice(start, start + size)
        part = torch.as_tensor(scaling.apply_softly(X[rows]), dtype=dtype)
        if start == 0:
            scaled = part.new_empty((len(X), part.shape[1]), device=device)
        scaled[rows] = part
    return scaled


def _rows_of(
    scaled: np.ndarray | torch.Tensor,
    y: np.ndarray,
    weight: np.ndarray,
    y_scaling: Scaling,
    dtype: torch.dtype,
    device: torch.device,
) -> Rows:
    parts = scaled, y_scaling.apply(y), weight / weight.mean()
    return Rows(*(torch.as_tensor(part, dtype=dtype, device=device) for part in parts))


def _from_all_over(n_rows: int, most: int) -> Any:
    """Rows, one at random of each of so many parts: evenly spaced ones may be of one kind."""
    if n_rows <= most:
        return slice(None)
    edges = np.arange(most + 1) * n_rows // most
    inside = np.random.RandomState(0).uniform(size=most)
    return edges[:-1] + (inside * np.diff(edges)).astype(int)
