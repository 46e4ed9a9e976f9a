"""Controls of equal active cost: dense nets, and our network with a single expert.

A sparse mixture should be judged beside dense nets that spend as much on a row. All
controls here are `DeepMoERegressor` itself with other sizes, so embedding, encoders, start,
schedule, finish and search are the same by construction:

one expert
    The same blocks with ``n_experts=1``, whose only expert is as wide as needed.
dense blocks
    The same blocks, but a residual net of three layers stands in place of gate and experts.
dense twin
    The blocks are shrunk to next to nothing (one block, one expert, one hidden unit), and
    the multiply-adds that they spent go into the dense residual trunk: into its width,
    ``model_dim``, at 2 and at 4 residual layers, with our embedding and without: from
    quantile bins of rotated features it learns little.

"As needed" is the width at which `active_multiply_adds` reaches that of our network. It is
found on the training rows, outside the clock, for every point of our grid; the cost of ours
is that of a fit measured before, if there is one, as it depends on what a fit finds. Where
two points of ours cost the same to 10 %, the control would be the same net twice and is tried
once.
"""

import warnings
from collections.abc import Iterable

import numpy as np
from sklearn.base import BaseEstimator, clone
from torch import nn

from skmoe import DeepMoERegressor, part
from skmoe.nn.layers import MoELayer

# The parameter of each control that is matched.
WIDTHS = {
    "dense twin": "model_dim",
    "dense blocks": "hidden_dim",
    "one expert": "hidden_dim",
}
# A single expert needs no gate to choose it: all is spent on the expert.
SINGLE = {"n_experts": 1, "top_k": None, "gate": "linear"}
# Shrinks the blocks of a DeepMoERegressor to next to nothing.
NO_BLOCKS = SINGLE | {"n_layers": 1, "hidden_dim": 1}
# Residual layers of the twin's trunk: it chooses its depth as we choose our blocks.
TWIN_DEPTHS = (2, 4)
# Residual layers of a dense net in place of gate and experts.
BLOCK_DEPTH = 3
# From so many rows on, deep mixtures look for blocks of the function, on which their sizes
# depend; after so many steps it shows whether they find any.
ROWS_FOR_BLOCKS = 2000
PROBE_STEPS = 600
# Of a width, active multiply-adds are a polynomial of degree 2 or less: three points fix it.
PROBES = (8, 16, 32)
SAME_WIDTH = 1.1


def active_multiply_adds(network: nn.Module) -> int:
    """Multiply-adds that one row costs in the products of a network.

    Every entry of a weight matrix costs one, apart from those of routed experts, of which
    only ``top_k`` in ``n_experts`` are asked. Elementwise work is not counted.

    Parameters
    ----------
    network : Module
        A network of `skmoe.nn.networks`, as in ``est.net_``.
    """
    matrices = {
        id(tensor): tensor.numel()
        for name, tensor in network.named_parameters()
        if tensor.dim() >= 2 and name.endswith("weight") and "periodic" not in name
    }
    layers = [module for module in network.modules() if isinstance(module, MoELayer)]
    return sum(matrices.values()) - sum(_idle(layer, matrices) for layer in layers)


def _idle(layer: MoELayer, matrices: dict[int, int]) -> int:
    """Entries of the experts' matrices that one row does not use."""
    n_experts = layer.experts.n_experts
    asked = min(layer.router.top_k or n_experts, n_experts)
    routed = sum(matrices.get(id(tensor), 0) for tensor in layer.experts.stacked())
    return routed * (n_experts - asked) // n_experts


def network_of(estimator: BaseEstimator, X: np.ndarray, y: np.ndarray) -> nn.Module:
    """The network that the estimator would train on these rows."""
    # Sizes depend on the data (bins, blocks), so let the estimator build it.
    max_epochs, is_deep = 1, isinstance(estimator, DeepMoERegressor)
    if is_deep and estimator.n_layers != 1 and len(X) >= ROWS_FOR_BLOCKS:
        max_epochs = -(-PROBE_STEPS // (len(X) // 512))
    brief = clone(estimator).set_params(max_epochs=max_epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return brief.fit(X, y).net_


def matched_grid(
    kind: str,
    ours: BaseEstimator,
    points: Iterable[dict],
    X: np.ndarray,
    y: np.ndarray,
    cost: int | None = None,
) -> list[dict]:
    """Parameters of a control for every point of our grid, without repetitions.

    Parameters
    ----------
    kind : {"dense twin", "dense blocks", "one expert"}
        The control.
    ours : DeepMoERegressor or MoERegressor
        Unfitted.
    points : iterable of dict
        Our candidates, names as `ours` knows them.
    X, y : ndarray
        Training rows.
    cost : int, optional
        Active multiply-adds of our network. None: those of the network of each point.
    """
    width, grid = WIDTHS[kind], []
    # Each network takes a fit to build: those of points that differ elsewhere are known.
    costs, curves = {}, {}
    for point in points:
        sizes = {k: v for k, v in point.items() if k in ("n_experts", "n_layers", "top_k")}
        rest = {k: v for k, v in point.items() if k not in sizes}
        target = cost
        if target is None:
            if repr(sizes) not in costs:
                reference = clone(ours).set_params(**sizes)
                costs[repr(sizes)] = active_multiply_adds(network_of(reference, X, y))
            target = costs[repr(sizes)]
        for shape in _shapes(kind, sizes):
            if repr(shape) not in curves:
                control = clone(ours).set_params(**shape)
                curves[repr(shape)] = _cost_curve(control, width, X, y)
            candidate = shape | rest | {width: _width_at(target, curves[repr(shape)])}
            if not any(_same_net(candidate, other, width) for other in grid):
                grid.append(candidate)
    return grid


def _cost_curve(control: BaseEstimator, width: str, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Multiply-adds per row as a polynomial of a width; its coefficients."""
    costs = [
        active_multiply_adds(network_of(clone(control).set_params(**{width: probe}), X, y))
        for probe in PROBES
    ]
    return np.polyfit(PROBES, costs, 2)


def _width_at(cost: int, curve: np.ndarray) -> int:
    """The width with the multiply-adds nearest to these."""
    widths = np.arange(1, 1 << 15)
    return int(widths[np.argmin(np.abs(np.polyval(curve, widths) - cost))])


def _shapes(kind: str, sizes: dict) -> list[dict]:
    """What a control takes in place of our sizes, apart from its width."""
    if kind == "one expert":
        return [sizes | SINGLE]
    if kind == "dense blocks":
        return [sizes | SINGLE | {"expert": part("latent", depth=BLOCK_DEPTH)}]
    return [
        NO_BLOCKS | {"arrangement": part("parallel", n_dense=n)} | embedding
        for n in TWIN_DEPTHS
        for embedding in ({"embedding": None}, {})
    ]


def _same_net(a: dict, b: dict, width: str) -> bool:
    """Whether two candidates differ by little more than rounding."""
    ratio = a[width] / b[width]
    return a | {width: 0} == b | {width: 0} and 1 / SAME_WIDTH < ratio < SAME_WIDTH
