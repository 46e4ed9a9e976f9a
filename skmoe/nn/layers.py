"""One layer of a mixture of experts: the equation of the house.

``y(x) = shared(x) + sum_k w_k(x) f_{e_k}(x)``.
"""

from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Part, Spec, name_of
from skmoe.nn.base_experts import Experts
from skmoe.nn.base_gates import Gate
from skmoe.nn.base_routers import Router, Routing
from skmoe.nn.dispatch import dispatch
from skmoe.nn.experts import EXPERTS
from skmoe.nn.gates import GATES
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.routers import ROUTERS


class Design(NamedTuple):
    """Features in which a prediction is linear, ``y_t = sum_k values_tk @ map[ids_tk]``."""

    values_TKF: Tensor
    """Features of the K maps that count for each row, already weighted."""
    ids_TK: Tensor | None
    """Which maps these are; None when all of them count, in order."""


class MoELayer(nn.Module):
    """B mixtures of E experts side by side.

    Parameters
    ----------
    n_blocks : int
        Number of mixtures B that run side by side, each on its own ``x_TD``.
    n_inputs, n_outputs : int
        Dimensions D and O.
    n_experts : int
        Routed experts E in each block.
    top_k : int or None, default=None
        Experts asked per sample; None asks all.
    n_shared_experts : int, default=0
        Experts of the same kind that always answer, with weight 1; behind the encoder if
        there is one.
    gate, router, expert : str, part(...) or class
        The parts, from `GATES`, `ROUTERS` and `EXPERTS`.
    hidden_dim : int, default=32
        Width of an expert, for the kinds that have one.
    gate_sees : {"encoded", "input"}, default="encoded"
        Whether the gate is behind the experts' encoder, if they have one.
    generator : torch.Generator, optional
        Source of the initial weights.

    Examples
    --------
    >>> import torch
    >>> layer = MoELayer(1, n_inputs=3, n_outputs=2, n_experts=4, top_k=2)
    >>> y_BTO, routing = layer(torch.zeros(1, 5, 3))
    >>> y_BTO.shape, routing.weights_BTK.shape
    (torch.Size([1, 5, 2]), torch.Size([1, 5, 2]))
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_outputs: int,
        *,
        n_experts: int,
        top_k: int | None = None,
        n_shared_experts: int = 0,
        gate: Spec = "linear",
        router: Spec = "softmax",
        expert: Spec = "mlp",
        hidden_dim: int = 32,
        gate_sees: str = "encoded",
        generator: Generator | None = None,
    ):
        super().__init__()
        given: dict[str, Any] = {"hidden_dim": hidden_dim, "generator": generator}
        self.experts: Experts = EXPERTS.build(
            expert, n_blocks, n_experts, n_inputs, n_outputs, **given
        )
        _check_top_k(top_k, self.experts, expert)
        self.router: Router = ROUTERS.build(router, top_k)
        self.router.prepare(n_blocks, n_experts)
        gate = _gate_for(self.router, gate)
        raw = getattr(GATES.resolve(gate)[0], "before_encoder", False)
        self.gate_sees = "input" if raw else gate_sees
        self.gate: Gate = GATES.build(
            gate,
            n_blocks,
            n_inputs if self.gate_sees == "input" else self.experts.input_dim,
            self.router.n_scores(n_experts),
            generator=generator,
            **self.router.gate_settings(n_experts),
        )
        self.shared: Experts | None = None
        if n_shared_experts:
            self.shared = _shared_experts(self.experts, n_shared_experts, expert, given)

    def forward(self, x_BTD: Tensor, how: str = "auto") -> tuple[Tensor, Routing]:
        """Output ``y_BTO`` and the routing that made it."""
        z_BTD, penalty_BT = self.experts.encode(x_BTD)
        y_BTO, routing = self._answer(z_BTD, self._route(x_BTD, z_BTD), how)
        return y_BTO, routing._replace(reconstruction_BT=penalty_BT)

    def route(self, x_BTD: Tensor) -> Routing:
        """The routing alone."""
        return self._route(x_BTD, self.experts.encode(x_BTD)[0])

    def answer(self, z_BTD: Tensor) -> tuple[Tensor, Routing]:
        """Output and routing for inputs that are encoded already; needs a gate behind."""
        return self._answer(z_BTD, self.router(self.gate(z_BTD)), "auto")

    def _route(self, x_BTD: Tensor, z_BTD: Tensor) -> Routing:
        """The routing of inputs x that are encoded as z."""
        return self.router(self.gate(x_BTD if self.gate_sees == "input" else z_BTD))

    def _answer(self, z_BTD: Tensor, routing: Routing, how: str) -> tuple[Tensor, Routing]:
        y_BTO = dispatch(self.experts, z_BTD, routing, how)
        if self.shared is not None:
            y_BTO = y_BTO + self.shared.answer_all(z_BTD).sum(2)
        return y_BTO, routing

    def design(self, x_TD: Tensor) -> Design:
        """Features of the experts' last maps, for a layer of one block.

        Feature f of expert e is ``w_e(x)`` times its hidden feature; shared experts follow
        the routed ones and have weight 1.
        """
        x_BTD = x_TD.unsqueeze(0)
        z_BTD, _ = self.experts.encode(x_BTD)
        weights_BTK, ids_BTK, *_ = self._route(x_BTD, z_BTD)
        ids_TK = None if ids_BTK is None else ids_BTK[0]
        values_TKF = weights_BTK[0].unsqueeze(-1) * _features(self.experts, z_BTD[0], ids_TK)
        if self.shared is not None:
            shared_TSF = _features(self.shared, z_BTD[0], None)
            values_TKF = torch.cat([values_TKF, shared_TSF], 1)
            if ids_TK is not None:
                always = torch.arange(self.shared.n_experts, device=ids_TK.device)
                always = (self.experts.n_experts + always).expand(len(ids_TK), -1)
                ids_TK = torch.cat([ids_TK, always], 1)
        return Design(values_TKF, ids_TK)

    def output_map(self) -> Tensor | None:
        """Last maps ``w_GFO`` of all experts, routed then shared; None if there are none."""
        maps = [experts.output_map() for experts in self._all_experts()]
        known = [w_GFO for w_GFO in maps if w_GFO is not None]
        return torch.cat(known) if len(known) == len(maps) else None

    def set_output_map(self, w_GFO: Tensor) -> None:
        """Replace them."""
        for experts in self._all_experts():
            n_maps = experts.n_blocks * experts.n_experts
            experts.set_output_map(w_GFO[:n_maps])
            w_GFO = w_GFO[n_maps:]

    def _all_experts(self) -> list[Experts]:
        return [self.experts] if self.shared is None else [self.experts, self.shared]

    def expert_outputs(self, x_BTD: Tensor) -> Tensor:
        """What every routed expert says, asked or not, ``y_BTEO``."""
        return self.experts.answer_all(self.experts.encode(x_BTD)[0])

    def shared_output(self, x_BTD: Tensor) -> Tensor:
        """What the shared experts add, ``y_BTO``; zero without any."""
        x_BTD, _ = self.experts.encode(x_BTD)
        if self.shared is None:
            return x_BTD.new_zeros(*x_BTD.shape[:2], self.experts.output_dim)
        return self.shared.answer_all(x_BTD).sum(2)


def _check_top_k(top_k: int | None, experts: Experts, kind: Spec) -> None:
    """Refuse to ask some of experts that can only answer together."""
    if not experts.asks_some and top_k is not None and top_k < experts.n_experts:
        raise ValueError(
            f"expert={name_of(kind)!r} answers for all experts at once. Use top_k=None. "
            f"Got top_k={top_k} and n_experts={experts.n_experts}."
        )


def _shared_experts(
    routed: Experts, n_shared: int, kind: Spec, given: dict[str, Any]
) -> Experts:
    """Experts beside the routed ones, of their kind, behind their encoder."""
    on_encoded = routed.on_encoded_input()
    settings = EXPERTS.resolve(kind)[1] if isinstance(routed, on_encoded) else {}
    if isinstance(routed, MLPExperts):
        settings = {"activation": routed.activation_name, **settings}
    sizes = routed.n_blocks, n_shared, routed.input_dim, routed.output_dim
    return EXPERTS.build(on_encoded, *sizes, **{**given, **settings})


def _gate_for(router: Router, gate: Spec) -> Spec:
    """The gate that was asked for, unless the router goes with another one only."""
    name = gate.name if isinstance(gate, Part) else gate
    return gate if router.own_gate in (None, name) else router.own_gate


def _features(experts: Experts, x_TD: Tensor, ids_TK: Tensor | None) -> Tensor:
    """Features ``f_TKF`` of the experts that each row asks; of all if `ids_TK` is None."""
    stacked = experts.stacked()
    if ids_TK is None:
        x_GTD = x_TD.expand(experts.n_experts, -1, -1)
        return experts.features(x_GTD, *stacked).transpose(0, 1)
    n_features = experts.features(x_TD[:0].expand(experts.n_experts, -1, -1), *stacked).shape[2]
    values_TKF = x_TD.new_empty(*ids_TK.shape, n_features)
    for expert in range(experts.n_experts):
        rows, slots = torch.nonzero(ids_TK == expert, as_tuple=True)
        one = (tensor[expert : expert + 1] for tensor in stacked)
        values_TKF[rows, slots] = experts.features(x_TD[rows].unsqueeze(0), *one).squeeze(0)
    return values_TKF
