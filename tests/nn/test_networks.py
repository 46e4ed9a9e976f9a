"""Networks: equal to the same layers one by one."""

import pytest
import torch
from torch.testing import assert_close

from skmoe._registry import part
from skmoe.nn.embeddings import EMBEDDINGS
from skmoe.nn.experts import EXPERTS
from skmoe.nn.layers import MoELayer
from skmoe.nn.networks import (
    ARRANGEMENTS,
    NETWORKS,
    MoENetwork,
    ParallelMoENetwork,
)

D, OUT, E, L = 4, 2, 3, 5
every_network = pytest.mark.parametrize("kind", NETWORKS)
every_arrangement = pytest.mark.parametrize("kind", ARRANGEMENTS)
every_embedding = pytest.mark.parametrize("embedding", [None, *EMBEDDINGS])


def arguments(kind, **settings):
    deep = {"n_layers": L, "model_dim": 8} if kind in ARRANGEMENTS else {}
    asks_some = EXPERTS.resolve(settings.get("expert", "mlp"))[0].asks_some
    return {
        "n_inputs": D,
        "n_outputs": OUT,
        "n_experts": E,
        "top_k": 2 if asks_some else None,
        "hidden_dim": 6,
        **deep,
        **settings,
    }


def build(kind, generator, **settings):
    return NETWORKS[kind](**arguments(kind, **settings), generator=generator).double()


@torch.no_grad()
def stir(network, generator):
    """Random numbers for all weights, those that start at zero included."""
    for weight in network.parameters():
        weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)


# Rules for all networks


@every_network
@pytest.mark.parametrize("gate_sees", ["encoded", "input"])
def test_routings_are_those_of_the_prediction(kind, gate_sees, randn, generator):
    latent = {"expert": part("latent", latent_dim=2), "gate_sees": gate_sees}
    network, x_TD = build(kind, generator, **latent), randn(7, D)
    stir(network, generator)
    steps = network(x_TD)[1]
    for routing, step in zip(network.routings(x_TD), steps, strict=True):
        assert_close(routing.dense_weights(), step.routing.dense_weights(), rtol=0, atol=0)


def test_experts_of_a_shallow_network_are_not_asked_for_its_routing(randn, generator):
    network = build("shallow", generator)
    network.layer.experts.mix_all = network.layer.experts.mix_sorted = None
    (routing,) = network.routings(randn(7, D))
    assert routing.n_experts == E


@every_network
@every_embedding
def test_prediction_has_a_row_per_sample_and_a_column_per_output(
    kind, embedding, randn, generator
):
    y_TO, _ = build(kind, generator, embedding=embedding)(randn(7, D))
    assert y_TO.shape == (7, OUT)


@every_network
@every_embedding
@pytest.mark.parametrize("expert", EXPERTS)
def test_a_row_gets_the_same_prediction_alone_and_in_a_batch(
    kind, embedding, expert, randn, generator
):
    network = build(kind, generator, embedding=embedding, expert=expert)
    stir(network, generator)
    x_TD = randn(7, D)
    alone = torch.cat([network(row)[0] for row in x_TD.split(1)])
    assert_close(alone, network(x_TD)[0], rtol=1e-12, atol=1e-12)


@every_network
def test_permuted_rows_give_permuted_predictions(kind, randn, generator):
    network, x_TD = build(kind, generator), randn(7, D)
    order = torch.randperm(7, generator=generator)
    assert_close(network(x_TD[order])[0], network(x_TD)[0][order], rtol=1e-12, atol=1e-12)


@every_network
@every_embedding
def test_steps_hold_what_their_layers_saw_and_did(kind, embedding, randn, generator):
    network = build(kind, generator, embedding=embedding)
    _, steps = network(randn(7, D))
    assert [step.layer for step in steps] == network.moe_layers()
    for step in steps:
        again = step.layer(step.x_BTD)[1]
        assert torch.equal(again.dense_weights(), step.routing.dense_weights())


@every_network
@every_embedding
def test_weights_loaded_into_a_network_of_the_same_shape_give_the_same_function(
    kind, embedding, randn, generator
):
    network = build(kind, generator, embedding=embedding, n_shared_experts=1)
    stir(network, generator)
    rebuilt = build(kind, None, embedding=embedding, n_shared_experts=1)
    x_TD = randn(7, D)
    assert not torch.equal(rebuilt(x_TD)[0], network(x_TD)[0])
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt(x_TD)[0], network(x_TD)[0])


@every_network
@every_embedding
def test_same_seed_gives_same_weights_and_another_seed_others(kind, embedding):
    one, same, other = (
        build(kind, torch.Generator().manual_seed(seed), embedding=embedding)
        for seed in (3, 3, 4)
    )
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    assert not all(map(torch.equal, one.parameters(), other.parameters()))


@every_network
@every_embedding
def test_construction_leaves_torchs_global_generator_alone(kind, embedding, generator):
    before = torch.get_rng_state()
    build(kind, generator, embedding=embedding, n_shared_experts=1)
    assert torch.equal(before, torch.get_rng_state())


@every_network
@every_embedding
@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_all_weights_of_a_network_learn(kind, embedding, top_k, randn, generator):
    network = build(kind, generator, embedding=embedding, top_k=top_k)
    stir(network, generator)
    network(randn(300, D))[0].square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in network.parameters())


@every_network
@every_embedding
def test_network_predicts_in_the_dtype_of_its_weights(kind, embedding, generator):
    network = build(kind, generator, embedding=embedding).float()
    assert network(torch.zeros(2, D))[0].dtype == torch.float32


@every_network
def test_forward_changes_no_state(kind, randn, generator):
    network = build(kind, generator, embedding="periodic")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(randn(7, D))
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


# Counting layers


@every_arrangement
@pytest.mark.parametrize("n_layers", [1, 3])
def test_n_layers_counts_gates_in_every_arrangement(kind, n_layers, randn, generator):
    network = build(kind, generator, n_layers=n_layers)
    assert sum(gate.shape[0] for gate in network.gates()) == n_layers
    _, steps = network(randn(7, D))
    assert sum(len(step.routing.logits_BTE) for step in steps) == n_layers


@pytest.mark.parametrize("n_layers", [1, 3])
def test_a_stack_takes_one_step_per_layer_and_parallel_blocks_one_in_all(
    n_layers, randn, generator
):
    stack, parallel = (build(k, generator, n_layers=n_layers) for k in ("stack", "parallel"))
    x_TD = randn(7, D)
    assert len(stack(x_TD)[1]) == n_layers
    assert len(parallel(x_TD)[1]) == 1


# Shallow


def test_shallow_network_is_its_layer_on_the_embedded_input(randn, generator):
    network = build("shallow", generator, embedding="piecewise_linear")
    x_TD = randn(7, D)
    y_BTO, _ = network.layer(network.embedding(x_TD)[None])
    assert torch.equal(network(x_TD)[0], y_BTO[0])


# Parallel


@every_embedding
@pytest.mark.parametrize("trunk", [True, False])
@pytest.mark.parametrize("expert", EXPERTS)
def test_parallel_blocks_are_layers_one_after_the_other(
    embedding, trunk, expert, randn, generator
):
    settings = {"expert": expert, "n_shared_experts": 2, "embedding": embedding}
    network = build("parallel", generator, trunk=trunk, **settings)
    stir(network, generator)
    x_TD, answers = randn(7, D), []
    for block in range(L):
        layer = MoELayer(
            1,
            D,
            8,
            n_experts=E,
            top_k=network.blocks.router.top_k,
            n_shared_experts=2,
            expert=expert,
            hidden_dim=6,
        ).double()
        weights = network.blocks.state_dict()
        layer.load_state_dict({k: v.chunk(L)[block] for k, v in weights.items()})
        answers.append(layer(x_TD[None])[0][0])
    h_TM = network.mix(torch.cat(answers, -1))
    if trunk:
        h_TM = h_TM + network.trunk(network.embedding(x_TD))
    assert_close(network(x_TD)[0], network.head(network.dense(h_TM)), rtol=1e-11, atol=1e-11)


def test_blocks_add_to_the_trunk_from_zero(randn, generator):
    network, x_TD = build("parallel", generator), randn(7, D)
    before = network(x_TD)[0]
    stir(network.blocks, generator)
    assert torch.equal(network(x_TD)[0], before)


def test_blocks_that_start_at_zero_still_get_going(randn, generator):
    network, x_TD = build("parallel", generator), randn(7, D)
    network(x_TD)[0].sum().backward()
    assert network.mix.weight.grad.abs().max() > 0


def test_without_trunk_the_blocks_are_heard_from_the_start(randn, generator):
    network, x_TD = build("parallel", generator, trunk=False), randn(7, D)
    before = network(x_TD)[0]
    stir(network.blocks, generator)
    assert not torch.allclose(network(x_TD)[0], before)


@pytest.mark.parametrize("n_dense", [0, 3])
def test_residual_layers_start_as_the_identity(n_dense, randn, generator):
    dense = build("parallel", generator, n_dense=n_dense).dense
    h_TM = randn(7, 8)
    assert len(dense) == n_dense
    assert torch.equal(dense(h_TM), h_TM)


# Stack


@every_embedding
def test_stack_adds_its_layers_to_a_residual_state(embedding, randn, generator):
    network = build("stack", generator, embedding=embedding, activation="relu")
    stir(network, generator)
    x_TD = randn(7, D)
    h_TM = network.first(network.embedding(x_TD))
    for dense, layer in zip(network.dense, network.moe_layers(), strict=True):
        normed = torch.nn.functional.layer_norm(h_TM, (8,), dense.norm.weight, dense.norm.bias)
        h_TM = h_TM + dense.output(torch.relu(dense.hidden(normed)))
        h_TM = h_TM + layer(torch.cat([h_TM, x_TD], -1)[None])[0][0]
    assert_close(network(x_TD)[0], network.head(h_TM), rtol=1e-11, atol=1e-11)


@every_arrangement
@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh"])
def test_activation_of_the_dense_layers_may_be_chosen(kind, activation, randn, generator):
    plain, chosen = (build(kind, None, activation=name) for name in ("relu", activation))
    stir(plain, generator)
    chosen.load_state_dict(plain.state_dict())
    x_TD = randn(7, D)
    assert not torch.allclose(chosen(x_TD)[0], plain(x_TD)[0])


def test_gates_of_all_layers_are_named_by_the_network(generator):
    network = build("stack", generator, gate=part("mlp", hidden_dim=3))
    assert network.gates() == [layer.gate for layer in network.moe_layers()]


def test_factors_are_combined_by_products(randn, generator):
    """Head state of blocks 0, 2 in one factor and 1 in the other: a product of two sums."""
    settings = {"n_layers": 3, "n_experts": 2, "expert": "latent", "trunk": False}
    network = ParallelMoENetwork(
        4, 1, **settings, model_dim=5, block_outputs=2, n_dense=0, n_factors=2,
        generator=generator,
    ).double()  # fmt: skip
    x_TD = randn(6, 4)
    g_BTO, _ = network.blocks(x_TD.expand(3, -1, -1))
    maps = network.mix.weight.T.unflatten(0, (3, 2))
    terms = torch.einsum("bto,bom->btm", g_BTO, maps)
    h_TM = (1 + network.mix.bias + terms[0] + terms[2]) * (1 + terms[1])
    assert_close(network(x_TD)[0], network.head(h_TM))


def test_blocks_see_the_axes_that_are_set(randn, generator):
    """A network on axes of x is the network without axes on those coordinates."""
    settings = {"n_layers": 2, "n_experts": 2, "expert": "latent", "trunk": False}
    on_axes = ParallelMoENetwork(5, 1, **settings, n_axes=2, generator=generator).double()
    W, b, x_TD = randn(5, 2), randn(2), randn(6, 5)
    on_axes.set_axes(W, b)
    plain = ParallelMoENetwork(2, 1, **settings).double()
    weights = {k: v for k, v in on_axes.state_dict().items() if not k.startswith("axes")}
    plain.load_state_dict(weights)
    assert_close(on_axes(x_TD)[0], plain(x_TD @ W + b)[0])
    assert not any(weight.requires_grad for weight in on_axes.axes.parameters())


def test_a_shallow_network_sees_the_axes_that_are_set(randn, generator):
    """Likewise, and the features of its closed form are those of these coordinates."""
    settings = {"n_experts": 3, "embedding": "piecewise_linear", "generator": generator}
    on_axes = MoENetwork(5, 1, **settings, n_axes=2).double()
    W, b, x_TD = randn(5, 2), randn(2), randn(6, 5)
    on_axes.set_axes(W, b)
    plain = MoENetwork(2, 1, **settings).double()
    weights = {k: v for k, v in on_axes.state_dict().items() if not k.startswith("axes")}
    plain.load_state_dict(weights)
    assert_close(on_axes(x_TD)[0], plain(x_TD @ W + b)[0])
    assert_close(on_axes.design(x_TD).values_TKF, plain.design(x_TD @ W + b).values_TKF)
    assert not any(weight.requires_grad for weight in on_axes.axes.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_a_look_is_an_evaluation_that_leaves_the_mode_alone(training, randn, generator):
    network, x_TD = build("shallow", generator, gate=part("linear", noise=1.0)), randn(5, D)
    expected = network.eval()(x_TD)[0].detach()
    seen, steps = network.train(training).look(x_TD)
    assert torch.equal(seen, expected)
    assert not seen.requires_grad
    assert len(steps) == 1
    assert network.training == training
