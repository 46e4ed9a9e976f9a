"""Sparse upcycling: a mixture that starts as copies of a dense net that was fitted before.

Komatsuzaki et al., "Sparse upcycling" (2023), in the survey of Cai et al. (2024): every expert
is the dense net. Where weights sum to one the mixture predicts what the dense net does,
whatever its gate says, and training goes on from there. Features beyond five deviations are
drawn in, so that it is not the same there.
"""

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator

from skmoe._registry import part
from skmoe._validation import check_is_fitted
from skmoe.model import FittedModel
from skmoe.nn.embeddings import NoEmbedding
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.networks import MoENetwork
from skmoe.nn.stacked import ACTIVATIONS


class DenseNet(NamedTuple):
    """``y = act(x W + b) V + c`` in the user's units."""

    hidden_DH: NDArray[np.float64]
    hidden_bias_H: NDArray[np.float64]
    output_HO: NDArray[np.float64]
    output_bias_O: NDArray[np.float64]
    activation: str

    def arguments(self) -> dict[str, Any]:
        """Of a layer whose experts may be copies of it."""
        return {
            "expert": part("mlp", activation=self.activation),
            "hidden_dim": len(self.hidden_bias_H),
            "embedding": None,
        }


def dense_net_of(fitted: Any) -> DenseNet:
    """The net inside of an `MLPRegressor`, or of a `MoERegressor` with one expert."""
    from sklearn.neural_network import MLPRegressor

    if isinstance(fitted, FrozenEstimator):
        fitted = fitted.estimator
    check_is_fitted(fitted)
    if isinstance(fitted, MLPRegressor):
        return _of_scikit_learn(fitted)
    model = getattr(fitted, "_model", None)
    if isinstance(model, FittedModel) and (net := _of_one_expert(model)) is not None:
        return net
    raise ValueError(
        "init must be a fitted MLPRegressor, or a fitted MoERegressor with n_experts=1, "
        f"expert='mlp' and embedding=None. Got {fitted!r}."
    )


def _of_scikit_learn(fitted: Any) -> DenseNet:
    if len(fitted.coefs_) != 2 or fitted.activation not in ACTIVATIONS:
        raise ValueError(
            "init must be an MLPRegressor with one hidden layer and activation 'relu' or "
            f"'tanh'. Got hidden_layer_sizes={fitted.hidden_layer_sizes!r} and "
            f"activation={fitted.activation!r}."
        )
    (hidden, output), (hidden_bias, output_bias) = fitted.coefs_, fitted.intercepts_
    return DenseNet(hidden, hidden_bias, output, output_bias, fitted.activation)


def _of_one_expert(model: FittedModel) -> DenseNet | None:
    net = model.net
    plain = (
        isinstance(net, MoENetwork)
        and isinstance(net.embedding, NoEmbedding)
        and net.axes is None
        and net.layer.shared is None
        and type(net.layer.experts) is MLPExperts
        and net.layer.experts.n_experts == 1
        and not net.layer.experts.layers
        and not model.is_distribution
    )
    if not plain:
        return None
    experts = cast(MLPExperts, cast(MoENetwork, net).layer.experts)
    hidden, hidden_bias, output, output_bias = (
        tensor[0].detach().cpu().double().numpy() for tensor in experts.stacked()
    )
    x, y = model.x_scaling, model.y_scaling
    varies = x.scale > 0
    in_units = np.zeros((len(x.scale), hidden.shape[1]))
    if varies.any():
        in_units[varies] = hidden / x.scale[varies, None]
    names = [name for name, function in ACTIVATIONS.items() if function is experts.activation]
    return DenseNet(
        in_units,
        hidden_bias[0] - x.center @ in_units,
        output * y.scale,
        output_bias[0] * y.scale + y.center,
        names[0],
    )


@torch.no_grad()
def upcycle(model: FittedModel, dense: DenseNet) -> None:
    """Make every expert of one layer a copy of the dense net."""
    experts = cast(MLPExperts, cast(MoENetwork, model.net).layer.experts)
    x, y = model.x_scaling, model.y_scaling
    n_features, n_outputs = len(x.center), len(y.center)
    if dense.hidden_DH.shape[0] != n_features or dense.output_HO.shape[1] != n_outputs:
        raise ValueError(
            f"init has {dense.hidden_DH.shape[0]} features and {dense.output_HO.shape[1]} "
            f"outputs, X and y have {n_features} and {n_outputs}."
        )
    varies = x.scale > 0
    hidden = (x.scale[:, None] * dense.hidden_DH)[varies]
    if not varies.any():
        hidden = np.zeros((1, dense.hidden_DH.shape[1]))
    scale = np.where(y.scale > 0, y.scale, 1.0)
    copies = (
        hidden,
        dense.hidden_bias_H + x.center @ dense.hidden_DH,
        dense.output_HO / scale,
        (dense.output_bias_O - y.center) / scale,
    )
    for tensor, values in zip(experts.stacked(), copies, strict=True):
        # Of a distribution, these are the means; deviations start as that of the target.
        tensor.zero_()[..., : values.shape[-1]] = torch.as_tensor(values)
