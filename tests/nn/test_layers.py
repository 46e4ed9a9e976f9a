"""The layer is the equation y = shared + sum_k w_k f_{e_k}, whatever its parts."""

import pytest
import torch
from torch.testing import assert_close

from skmoe._registry import part
from skmoe.nn.dispatch import DISPATCHERS
from skmoe.nn.experts import EXPERTS
from skmoe.nn.gates import GATES
from skmoe.nn.layers import MoELayer
from skmoe.nn.routers import ROUTERS

B, E, D, OUT = 2, 4, 5, 3


def build(generator, n_blocks=B, n_experts=E, **settings):
    settings = {"hidden_dim": 6, **settings}
    if not EXPERTS.resolve(settings.get("expert", "mlp"))[0].asks_some:
        settings["top_k"] = None
    layer = MoELayer(n_blocks, D, OUT, n_experts=n_experts, generator=generator, **settings)
    return layer.double()


# Every two kinds of different parts meet once, beside the usual third.
SUMS = [expert for expert in EXPERTS if EXPERTS[expert].sums]
PAIRS = sorted(
    {(gate, router, "mlp") for gate in GATES for router in ROUTERS}
    | {(gate, "softmax", expert) for gate in GATES for expert in SUMS}
    | {("linear", router, expert) for router in ROUTERS for expert in SUMS}
)


@pytest.mark.parametrize(("gate", "router", "expert"), PAIRS)
@pytest.mark.parametrize(("top_k", "n_shared_experts"), [(None, 0), (1, 0), (2, 2)])
def test_output_is_shared_plus_weighted_experts(
    gate, router, expert, top_k, n_shared_experts, randn, generator
):
    layer = build(
        generator,
        gate=gate,
        router=router,
        expert=expert,
        top_k=top_k,
        n_shared_experts=n_shared_experts,
    )
    x_BTD = randn(B, 7, D)
    y_BTO, routing = layer(x_BTD)
    expected = (routing.dense_weights().unsqueeze(-1) * layer.expert_outputs(x_BTD)).sum(2)
    assert_close(y_BTO, layer.shared_output(x_BTD) + expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("expert", EXPERTS)
def test_routing_is_the_routers_answer_to_the_gate(expert, randn, generator):
    layer, x_BTD = build(generator, expert=expert, top_k=2), randn(B, 7, D)
    expected = layer.router(layer.gate(layer.experts.encode(x_BTD)[0]))
    routing = layer(x_BTD)[1]
    assert torch.equal(routing.dense_weights(), expected.dense_weights())
    assert torch.equal(routing.logits_BTE, expected.logits_BTE)


@pytest.mark.parametrize("expert", EXPERTS)
@pytest.mark.parametrize("top_k", [None, 1])
@pytest.mark.parametrize(
    "router", [kind for kind in ROUTERS if ROUTERS.build(kind, None).weights_sum_to_one]
)
def test_one_expert_is_the_plain_expert(expert, top_k, router, randn, generator):
    layer = build(generator, n_experts=1, expert=expert, top_k=top_k, router=router)
    x_BTD = randn(B, 7, D)
    plain = layer.experts(layer.experts.encode(x_BTD)[0])
    assert_close(layer(x_BTD)[0], plain)


@pytest.mark.parametrize("expert", EXPERTS)
@pytest.mark.parametrize("n_shared_experts", [0, 2])
def test_blocks_are_layers_of_their_own(expert, n_shared_experts, randn, generator):
    settings = {"expert": expert, "n_shared_experts": n_shared_experts, "top_k": 2}
    both, x_BTD = build(generator, **settings), randn(B, 7, D)
    for block in range(B):
        one = build(generator, n_blocks=1, **settings)
        one.load_state_dict({k: v.chunk(B)[block] for k, v in both.state_dict().items()})
        assert_close(both(x_BTD)[0][block], one(x_BTD[block : block + 1])[0][0])


@pytest.mark.parametrize("expert", ["cp", "tensor_ring"])
def test_experts_in_one_tensor_are_asked_all_or_not_at_all(expert):
    layer = MoELayer(1, D, OUT, n_experts=E, top_k=E, expert=expert)
    assert layer.router.top_k == E
    with pytest.raises(ValueError, match=f"expert='{expert}' answers for all experts at once"):
        MoELayer(1, D, OUT, n_experts=E, top_k=2, expert=expert)


@pytest.mark.parametrize("how", DISPATCHERS)
def test_dispatcher_may_be_asked_for(how, randn, generator):
    layer, x_BTD = build(generator, top_k=2), randn(B, 7, D)
    assert_close(layer(x_BTD, how=how)[0], layer(x_BTD)[0])


@pytest.mark.parametrize("top_k", [1, 2])
def test_gate_and_asked_experts_learn_with_few_experts_asked(top_k, randn, generator):
    layer = build(generator, top_k=top_k, n_shared_experts=1)
    layer(randn(B, 200, D))[0].square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in layer.parameters())


def test_renormalized_top_1_leaves_the_gate_without_gradient(randn, generator):
    layer = build(generator, top_k=1, router=part("softmax", renormalize=True))
    layer(randn(B, 50, D))[0].square().sum().backward()
    assert not layer.router.gate_can_learn
    assert all(weight.grad.abs().max() < 1e-12 for weight in layer.gate.parameters())
    assert all(weight.grad.abs().max() > 0 for weight in layer.experts.parameters())


@pytest.mark.parametrize("expert", EXPERTS)
def test_shared_experts_are_always_on_with_weight_one(expert, randn, generator):
    layer, x_BTD = build(generator, expert=expert, n_shared_experts=2), randn(B, 7, D)
    z_BTD, _ = layer.experts.encode(x_BTD)
    answers_GTO = layer.shared(z_BTD.repeat_interleave(2, 0))
    first, second = answers_GTO[0::2], answers_GTO[1::2]
    assert_close(layer.shared_output(x_BTD), first + second)


def test_shared_output_is_zero_without_shared_experts(randn, generator):
    shared_BTO = build(generator).shared_output(randn(B, 7, D))
    assert shared_BTO.shape == (B, 7, OUT)
    assert not shared_BTO.any()


def test_shared_experts_see_the_same_encoding_and_have_no_encoder_of_their_own(generator):
    layer = build(generator, expert=part("latent", latent_dim=2), n_shared_experts=1)
    assert layer.shared.input_dim == layer.experts.input_dim == layer.gate.shape[1] == 2
    assert sum("encoder" in name for name in layer.state_dict()) == 2  # weight and bias


@pytest.mark.parametrize("expert", ["mlp", "latent", part("latent", activation="tanh")])
def test_shared_experts_have_the_nonlinearity_of_the_routed_ones(expert, generator):
    layer = build(generator, expert=expert, n_shared_experts=1)
    assert layer.shared.activation_name == layer.experts.activation_name


def test_shared_experts_have_the_settings_of_the_part(generator):
    layer = build(
        generator, n_shared_experts=2, expert=part("mlp", hidden_dim=7, activation="tanh")
    )
    assert layer.shared.hidden.weight.shape[-1] == 7
    assert layer.shared.activation is torch.tanh


def test_routing_carries_the_reconstruction_error(randn, generator):
    layer, x_BTD = build(generator, expert=part("latent", reconstruction=0.5)), randn(B, 7, D)
    expected = layer.experts.encode(x_BTD)[1]
    assert torch.equal(layer(x_BTD)[1].reconstruction_BT, expected)
    assert build(generator, expert="latent")(x_BTD)[1].reconstruction_BT is None


def test_settings_of_the_part_win_over_the_layers(generator):
    layer = build(generator, expert=part("mlp", hidden_dim=9), gate=part("mlp", hidden_dim=7))
    assert layer.experts.hidden.weight.shape[-1] == 9
    assert layer.gate.hidden.weight.shape[-1] == 7


def test_parts_may_be_classes_of_ones_own(randn, generator):
    class SquaredGate(GATES["linear"]):
        def score(self, x_BTD):
            return super().score(x_BTD.square())

    class Uniform(ROUTERS["softmax"]):
        def scores(self, logits_BTE):
            return torch.full_like(logits_BTE, 1 / logits_BTE.shape[-1])

    class Doubled(EXPERTS["mlp"]):
        def evaluate(self, x_GCD, *stacked):
            return 2 * super().evaluate(x_GCD, *stacked)

    layer = build(generator, gate=SquaredGate, router=Uniform, expert=Doubled)
    x_BTD = randn(B, 7, D)
    assert_close(layer(x_BTD)[0], layer.expert_outputs(x_BTD).mean(2))
    assert_close(layer(x_BTD)[1].logits_BTE, layer(-x_BTD)[1].logits_BTE)


def test_construction_leaves_torchs_global_generator_alone(generator):
    before = torch.get_rng_state()
    build(generator, n_shared_experts=2)
    assert torch.equal(before, torch.get_rng_state())
