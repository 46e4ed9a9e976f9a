"""Experts: all functions of a layer as stacked tensors.

Contract. `Experts` holds G = n_blocks * n_experts functions from D to O dimensions. A class
states its tensors, first axis G, in `stacked` and the function itself in `evaluate`, from
``x_GCD``, the C rows of each expert, to ``y_GCO``. `evaluate` reads no weights of its own,
so that a dispatcher can run it on a slice of the experts.

Experts that end in a linear map say so: `features` are what this map reads, `output_map` and
`set_output_map` are its weights. A solver then finds the best map in closed form.

To add a kind of expert, copy the nearest one and name it in `EXPERTS` at the bottom.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Registry, Spec
from skmoe._settings import check_integer, check_number
from skmoe.nn.base_experts import EndInMap, Experts, with_one
from skmoe.nn.factorized import CPExperts, MPOExperts, TensorRingExperts
from skmoe.nn.mlp_experts import MergedExperts, MLPExperts
from skmoe.nn.stacked import StackedLinear


class LinearExperts(EndInMap):
    """Affine functions: with a gate, a piecewise linear model.

    Softmax gates estimate linear experts slowly (arXiv 2503.03213); the
    ``normalized_sigmoid`` router does not have this defect.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(expert="linear", router="normalized_sigmoid", random_state=0)
    >>> moe.fit(X, y).predict(X[:3]).shape
    (3,)
    """

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        generator: Generator | None = None,
    ):
        super().__init__(n_blocks, n_experts, n_inputs, n_outputs)
        self.output = StackedLinear(
            n_blocks * n_experts, n_inputs, n_outputs, generator=generator
        )

    def stacked(self) -> tuple[Tensor, ...]:
        return (self.output.weight, self.output.bias)

    def evaluate(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        weight, bias = stacked
        return torch.baddbmm(bias, x_GCD, weight)

    def features(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        return with_one(x_GCD)


class ConstantExperts(Experts):
    """One number for each output: the gate does all the work.

    Examples
    --------
    >>> import torch
    >>> experts = ConstantExperts(1, n_experts=4, n_inputs=3, n_outputs=1)
    >>> bool(experts.answer_all(torch.randn(1, 5, 3)).std(1).max() == 0)  # alike for all rows
    True
    """

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        generator: Generator | None = None,
    ):
        super().__init__(n_blocks, n_experts, n_inputs, n_outputs)
        self.value = nn.Parameter(
            torch.randn((n_blocks * n_experts, 1, n_outputs), generator=generator)
        )

    def stacked(self) -> tuple[Tensor, ...]:
        return (self.value,)

    def evaluate(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        (value,) = stacked
        return value.expand(-1, x_GCD.shape[1], -1)

    def features(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        return with_one(x_GCD[..., :0])

    def output_map(self) -> Tensor:
        return self.value.detach()

    @torch.no_grad()
    def set_output_map(self, w_GFO: Tensor) -> None:
        self.value.copy_(w_GFO)


class LatentExperts(MLPExperts):
    """Two-layer nets on a low-dimensional encoding of the input.

    Wang & E (2025), section 6, suggestion 4: ``expert = f_low o Enc``. One linear encoder
    for each block; gate and experts see the encoded input.

    Parameters
    ----------
    latent_dim : int, default=3
        Dimension of the encoded input; at most that of the input is used.
    reconstruction : float, default=0.0
        Weight of the loss ``|Dec(Enc(x)) - x|^2 / D``; above 0 a linear decoder is added.
    hidden_dim : int, default=32
        Width H of one expert.
    activation : {"relu", "gelu", "silu", "tanh"}, default="silu"
        Nonlinearity of its hidden layer.
    hidden_gain : float, default=1.0
        Scale of the initial weights of the hidden layer.
    depth : int, default=0
        Residual layers between the hidden layer and the output.

    Examples
    --------
    >>> import torch
    >>> experts = LatentExperts(1, 4, n_inputs=20, n_outputs=1, latent_dim=2)
    >>> experts.encode(torch.zeros(1, 5, 20))[0].shape  # what gate and experts see
    torch.Size([1, 5, 2])
    """

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        latent_dim: int = 3,
        reconstruction: float = 0.0,
        hidden_dim: int = 32,
        activation: str = "silu",
        hidden_gain: float = 1.0,
        depth: int = 0,
        generator: Generator | None = None,
    ):
        latent_dim = min(check_integer("latent_dim", latent_dim), n_inputs)
        super().__init__(
            n_blocks,
            n_experts,
            latent_dim,
            n_outputs,
            hidden_dim=hidden_dim,
            activation=activation,
            hidden_gain=hidden_gain,
            depth=depth,
            generator=generator,
        )
        # sqrt(3): encoded inputs have unit variance when the features do.
        self.encoder = StackedLinear(
            n_blocks, n_inputs, latent_dim, generator=generator, gain=3**0.5
        )
        self.reconstruction = check_number("reconstruction", reconstruction)
        self.decoder = (
            StackedLinear(n_blocks, latent_dim, n_inputs, generator=generator)
            if reconstruction > 0
            else None
        )

    def encode(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        z_BTD = self.encoder(x_BTD)
        if self.decoder is None:
            return z_BTD, None
        error_BT = (self.decoder(z_BTD) - x_BTD).square().mean(-1)
        return z_BTD, self.reconstruction * error_BT

    @torch.no_grad()
    def place_encoder(self, weight_BDR: Tensor) -> None:
        """Start the encoder of each block as this map, ``z = x W``."""
        self.encoder.weight.copy_(weight_BDR)
        self.encoder.bias.zero_()

    @classmethod
    def on_encoded_input(cls) -> type[Experts]:
        return MLPExperts


class MixedExperts(Experts):
    """Experts of several kinds side by side: what a list of kinds makes.

    Simple kinds find what is simple, and experts that differ by nature do not become alike, as
    in the mixture of adapters (Cao et al., 2025). Each kind is a stack of its own; all are
    evaluated for all rows, also where few are asked. An encoder belongs to the experts of its
    kind, and the gate sees the input itself.

    Parameters
    ----------
    kinds : sequence of str, part(...) or class
        Kind of each expert.
    hidden_dim : int, default=32
        Width of an expert, for the kinds that have one.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(expert=["linear", "mlp", "mlp"], random_state=0).fit(X, y)
    >>> moe.predict_experts(X).shape
    (200, 3)
    """

    slices = False

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        kinds: Sequence[Spec],
        hidden_dim: int = 32,
        generator: Generator | None = None,
    ):
        super().__init__(n_blocks, n_experts, n_inputs, n_outputs)
        if len(kinds) != n_experts:
            raise ValueError(
                "A list of experts must have one entry for each. "
                f"Got {len(kinds)} entries and n_experts={n_experts}."
            )
        # By name, so that the order of the list names experts and changes nothing else.
        members: dict[str, list[int]] = {}
        for expert, kind in enumerate(kinds):
            members.setdefault(repr(kind), []).append(expert)
        self.members = [members[name] for name in sorted(members)]
        self.stacks = nn.ModuleList(
            EXPERTS.build(
                kinds[experts[0]],
                n_blocks,
                len(experts),
                n_inputs,
                n_outputs,
                hidden_dim=hidden_dim,
                generator=generator,
            )
            for experts in self.members
        )
        if not all(stack.sums for stack in self._stacks()):
            raise ValueError("A list of experts must not have 'merged' ones: they are one net.")
        order = [expert for experts in self.members for expert in experts]
        self.places_E = sorted(range(n_experts), key=order.__getitem__)

    def _stacks(self) -> list[Experts]:
        return [cast(Experts, stack) for stack in self.stacks]

    def encode(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        penalties = [stack.encode(x_BTD)[1] for stack in self._stacks()]
        known = [penalty_BT for penalty_BT in penalties if penalty_BT is not None]
        return x_BTD, sum(known[1:], known[0]) if known else None

    def answer_all(self, x_BTD: Tensor) -> Tensor:
        answers = [stack.answer_all(stack.encode(x_BTD)[0]) for stack in self._stacks()]
        return torch.cat(answers, 2)[:, :, self.places_E]

    def stacked(self) -> tuple[Tensor, ...]:
        raise NotImplementedError("Experts of several kinds are no stack.")

    def evaluate(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        raise NotImplementedError("Experts of several kinds are no stack.")

    @classmethod
    def on_encoded_input(cls) -> type[Experts]:
        return MLPExperts


class ExpertRegistry(Registry):
    """Kinds of experts by name; a list of them is a kind as well."""

    def resolve(self, spec: Spec) -> tuple[Callable[..., Any], dict[str, Any]]:
        if not isinstance(spec, list | tuple):
            return super().resolve(spec)
        if not spec:
            raise ValueError("A list of experts must not be empty.")
        for kind in spec:
            super().resolve(kind)
        return MixedExperts, {"kinds": list(spec)}


EXPERTS = ExpertRegistry(
    "expert",
    {
        "mlp": MLPExperts,
        "linear": LinearExperts,
        "constant": ConstantExperts,
        "latent": LatentExperts,
        "merged": MergedExperts,
        "cp": CPExperts,
        "tensor_ring": TensorRingExperts,
        "mpo": MPOExperts,
    },
)
