"""What all networks share: an embedding, views of the layers, and how members answer.

Contract. A `Network` maps ``x_TD`` to ``answers_MTO``, what each of its M members predicts,
and one `Step` for each `MoELayer`. Its prediction is their mean; most have one member.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, cast

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Spec
from skmoe.nn.base_gates import Gate
from skmoe.nn.base_routers import Routing
from skmoe.nn.embeddings import EMBEDDINGS, Embedding, NoEmbedding
from skmoe.nn.layers import Design, MoELayer


class Step(NamedTuple):
    """What one layer saw and did, and the state that it left."""

    layer: MoELayer
    x_BTD: Tensor
    routing: Routing
    state_BTM: Tensor


class Network(nn.Module, ABC):
    """What all networks share: an embedding, and views of the layers."""

    def __init__(self, n_inputs: int, embedding: Spec | None, generator: Generator | None):
        super().__init__()
        self.axes: nn.Linear | None = None  # fixed coordinates of x, where a network has them
        self.embedding: Embedding = (
            NoEmbedding(n_inputs)
            if embedding is None
            else EMBEDDINGS.build(embedding, n_inputs, generator=generator)
        )

    n_members = 1
    is_ensemble = False  # of nets that each have a loss of their own

    @torch.no_grad()
    def set_axes(self, weight_DA: Tensor, bias_A: Tensor) -> None:
        """Let gates and experts see ``x W + b``; needs `n_axes`."""
        axes = cast(nn.Linear, self.axes)
        axes.weight.copy_(weight_DA.T)
        axes.bias.copy_(bias_A)

    def on_axes(self, x_TD: Tensor) -> Tensor:
        """The fixed coordinates of x; x itself in a network without any."""
        return x_TD if self.axes is None else self.axes(x_TD)

    @abstractmethod
    def answers(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        """Predictions of the members, ``y_MTO``, and one step for each layer."""

    def mixture(self, answers_MTO: Tensor, steps: list[Step]) -> tuple[Tensor, Tensor]:
        """Components of what each member answers: ``weights_MTK`` and ``outputs_MTKO``.

        A member is one component, unless a network says otherwise.
        """
        return torch.ones_like(answers_MTO[..., :1]), answers_MTO.unsqueeze(2)

    def forward(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        """Prediction ``y_TO``, the mean over members, and one step for each layer."""
        y_MTO, steps = self.answers(x_TD)
        return y_MTO[0] if self.n_members == 1 else y_MTO.mean(0), steps

    def routings(self, x_TD: Tensor) -> list[Routing]:
        """The routing of each layer; experts are not asked where it does not depend on them."""
        return [step.routing for step in self.answers(x_TD)[1]]

    @torch.no_grad()
    def look(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        """`forward` as in evaluation, without gradients, amid training."""
        was_training = self.training
        result = self.eval()(x_TD)
        self.train(was_training)
        return result

    @abstractmethod
    def design(self, x_TD: Tensor) -> Design:
        """The features in which the prediction is linear."""

    @abstractmethod
    def output_map(self) -> Tensor | None:
        """The maps ``w_GFO`` from these features to y; None if the prediction has none."""

    @abstractmethod
    def set_output_map(self, w_GFO: Tensor) -> None:
        """Replace them."""

    def moe_layers(self) -> list[MoELayer]:
        """The layers, in the order of the steps."""
        return [module for module in self.modules() if isinstance(module, MoELayer)]

    def gates(self) -> list[Gate]:
        """The gates of all layers."""
        return [layer.gate for layer in self.moe_layers()]
