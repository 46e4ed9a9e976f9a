"""Experts: stacks of functions, each the same as if it stood alone."""

import pytest
import torch
from torch.func import jacrev, vmap
from torch.testing import assert_close

from skmoe._registry import part
from skmoe.nn.experts import EXPERTS
from skmoe.nn.mlp_experts import MLPExperts

B, E, D, OUT = 2, 3, 5, 2
G = B * E
every_kind = pytest.mark.parametrize("kind", EXPERTS)


def build(kind, generator, n_blocks=B, n_experts=E, n_inputs=D, **settings):
    spec = part(kind, **settings)
    return EXPERTS.build(
        spec, n_blocks, n_experts, n_inputs, OUT, generator=generator, hidden_dim=6
    ).double()


# Rules for all kinds


@every_kind
def test_experts_of_a_stack_are_functions_of_their_own(kind, randn, generator):
    experts = build(kind, generator)
    x_GCD = randn(G, 7, experts.input_dim)
    for g in range(G):
        one = build(kind, generator, 1, 1)
        one.load_state_dict(
            {  # tensors of a block (an encoder's) have B on the first axis, the others G
                name: tensor.chunk(G)[g] if len(tensor) == G else tensor.chunk(B)[g // E]
                for name, tensor in experts.state_dict().items()
            }
        )
        assert_close(experts(x_GCD)[g], one(x_GCD[g : g + 1])[0])


@every_kind
def test_experts_start_different_from_each_other(kind, randn, generator):
    experts = build(kind, generator)
    y_GCO = experts(randn(1, 7, experts.input_dim).expand(G, -1, -1))
    assert torch.pdist(y_GCO.flatten(1)).min() > 1e-2


@every_kind
def test_stacked_tensors_have_the_experts_on_their_first_axis(kind, randn, generator):
    experts = build(kind, generator)
    assert all(len(tensor) == G for tensor in experts.stacked())
    x_GCD = randn(G, 7, experts.input_dim)
    assert torch.equal(experts(x_GCD), experts.evaluate(x_GCD, *experts.stacked()))


@every_kind
def test_evaluate_runs_on_a_slice_of_the_experts(kind, randn, generator):
    experts = build(kind, generator)
    x_GCD = randn(G, 7, experts.input_dim)
    some = experts.evaluate(x_GCD[1:3], *(tensor[1:3] for tensor in experts.stacked()))
    assert_close(some, experts(x_GCD)[1:3])


@every_kind
@pytest.mark.parametrize("n_rows", [1, 7])
def test_outputs_have_the_dimensions_announced(kind, n_rows, randn, generator):
    experts = build(kind, generator)
    z_BTD, _ = experts.encode(randn(B, n_rows, D))
    assert z_BTD.shape == (B, n_rows, experts.input_dim)
    y_GCO = experts(z_BTD.repeat_interleave(E, 0))
    assert y_GCO.shape == (G, n_rows, experts.output_dim) == (G, n_rows, OUT)


@every_kind
def test_rows_are_answered_one_by_one(kind, randn, generator):
    experts = build(kind, generator)
    x_GCD = randn(G, 7, experts.input_dim)
    one_by_one = torch.cat([experts(row) for row in x_GCD.split(1, dim=1)], 1)
    assert_close(experts(x_GCD), one_by_one)


@every_kind
def test_all_weights_of_an_expert_learn(kind, randn, generator):
    experts = build(kind, generator)
    z_BTD, penalty_BT = experts.encode(randn(B, 30, D))
    y_GCO = experts(z_BTD.repeat_interleave(E, 0))
    (y_GCO.square().sum() + (0 if penalty_BT is None else penalty_BT.sum())).backward()
    assert all(weight.grad.abs().amax() > 0 for weight in experts.parameters())


@every_kind
def test_construction_leaves_torchs_global_generator_alone(kind, generator):
    before = torch.get_rng_state()
    build(kind, generator)
    assert torch.equal(before, torch.get_rng_state())


@every_kind
def test_same_seed_gives_same_weights(kind):
    one, two = (build(kind, torch.Generator().manual_seed(5)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@every_kind
def test_experts_without_encoder_take_the_encoded_input(kind, generator):
    experts = build(kind, generator)
    bare = experts.on_encoded_input()(B, E, experts.input_dim, OUT)
    assert bare.input_dim == experts.input_dim
    x_BTD = torch.zeros(B, 4, experts.input_dim)
    assert bare.encode(x_BTD)[0] is x_BTD
    assert bare.encode(x_BTD)[1] is None


# The function of each kind


@pytest.mark.parametrize(
    ("activation", "module"),
    [
        ("relu", torch.nn.ReLU),
        ("gelu", torch.nn.GELU),
        ("silu", torch.nn.SiLU),
        ("tanh", torch.nn.Tanh),
    ],
)
def test_mlp_expert_is_a_two_layer_net(activation, module, randn, generator):
    experts, x_GCD = build("mlp", generator, activation=activation), randn(G, 7, D)
    net = torch.nn.Sequential(torch.nn.Linear(D, 6), module(), torch.nn.Linear(6, OUT)).double()
    for g, y_CO in enumerate(experts(x_GCD)):
        with torch.no_grad():
            for linear, stacked in [(net[0], experts.hidden), (net[2], experts.output)]:
                linear.weight.copy_(stacked.weight[g].T)
                linear.bias.copy_(stacked.bias[g, 0])
        assert_close(y_CO, net(x_GCD[g]))


def test_linear_expert_is_affine(randn, generator):
    experts, a, b = build("linear", generator), randn(G, 7, D), randn(G, 7, D)
    assert_close(experts(3 * a - 2 * b), 3 * experts(a) - 2 * experts(b))


def test_linear_expert_sees_every_input(generator):
    experts = build("linear", generator)
    unit_GDD = torch.eye(D, dtype=torch.float64).expand(G, -1, -1)
    slopes = experts(unit_GDD) - experts(torch.zeros_like(unit_GDD))
    assert_close(slopes, experts.output.weight)


def test_constant_expert_ignores_x(randn, generator):
    experts = build("constant", generator)
    y_GCO = experts(randn(G, 7, D))
    assert torch.equal(y_GCO, experts.value.expand(-1, 7, -1))


# Latent experts


def test_latent_expert_sees_x_through_its_encoder_only(randn, generator):
    experts, x_BTD = build("latent", generator, latent_dim=2), randn(B, 7, D)
    for block in range(B):
        kernel = torch.linalg.svd(experts.encoder.weight[block].T).Vh[2:]
        assert kernel.shape == (D - 2, D)
        moved = x_BTD.clone()
        moved[block] += randn(7, D - 2) @ kernel
        assert not torch.allclose(moved, x_BTD)
        assert_close(experts.encode(moved)[0], experts.encode(x_BTD)[0])


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_gradients_of_latent_experts_span_the_latent_dimension(latent_dim, randn, generator):
    experts = build("latent", generator, 1, E, latent_dim=latent_dim, activation="tanh")

    def answers(x_D):
        z_BTD, _ = experts.encode(x_D.view(1, 1, D))
        return experts(z_BTD.expand(E, -1, -1)).flatten()

    gradients = vmap(jacrev(answers))(randn(20, D)).flatten(0, 1)
    assert torch.linalg.matrix_rank(gradients, rtol=1e-10) == latent_dim


@pytest.mark.parametrize("n_inputs", [1, 2, 3, 4])
def test_latent_dim_is_at_most_that_of_the_input(n_inputs, generator):
    experts = build("latent", generator, n_inputs=n_inputs, latent_dim=3)
    assert experts.input_dim == min(3, n_inputs)


def test_latent_experts_after_the_encoder_are_mlp_experts(randn, generator):
    experts, x_BTD = build("latent", generator, activation="tanh"), randn(B, 7, D)
    mlp = MLPExperts(B, E, experts.input_dim, OUT, hidden_dim=6, activation="tanh").double()
    weights = {k: v for k, v in experts.state_dict().items() if "encoder" not in k}
    mlp.load_state_dict(weights)
    z_GCD = experts.encode(x_BTD)[0].repeat_interleave(E, 0)
    assert_close(experts(z_GCD), mlp(z_GCD))


def test_encoded_unit_features_have_unit_variance(randn):
    # Up to the bias: the variance over inputs, on average over encoders.
    variances = [
        build("latent", torch.Generator().manual_seed(seed), n_inputs=20)
        .encode(randn(B, 500, 20))[0]
        .var(1)
        for seed in range(10)
    ]
    assert 0.8 < torch.cat(variances).mean() < 1.2


def test_without_decoder_there_is_no_reconstruction_penalty(randn, generator):
    experts = build("latent", generator)
    assert experts.decoder is None
    assert experts.encode(randn(B, 7, D))[1] is None


def test_reconstruction_penalty_formula(randn, generator):
    experts = build("latent", generator, reconstruction=0.3)
    x_BTD = randn(B, 7, D)
    z_BTD, penalty_BT = experts.encode(x_BTD)
    decoded = z_BTD @ experts.decoder.weight + experts.decoder.bias
    assert_close(penalty_BT, 0.3 * (decoded - x_BTD).norm(dim=-1) ** 2 / D)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_linear_autoencoder_reaches_the_residual_of_pca(latent_dim, randn, generator):
    x_TD = randn(60, 2) @ randn(2, D) + randn(D)  # a plane in R^5
    experts = build("latent", generator, 1, E, latent_dim=latent_dim, reconstruction=1.0)
    weights = [*experts.encoder.parameters(), *experts.decoder.parameters()]
    optimizer = torch.optim.LBFGS(
        weights, max_iter=300, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = experts.encode(x_TD.unsqueeze(0))[1].mean()
        value.backward()
        return value

    optimizer.step(loss)
    singular_values = torch.linalg.svdvals(x_TD - x_TD.mean(0))
    residual = singular_values[latent_dim:].square().sum() / x_TD.numel()
    assert_close(loss().detach(), residual, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["mlp", "latent"])
def test_deep_experts_are_functions_of_their_own(kind, randn, generator):
    experts = build(kind, generator, depth=2)
    x_BTD = randn(B, 7, experts.input_dim)
    x_GCD = x_BTD.repeat_interleave(E, 0)
    some = experts.evaluate(x_GCD[1:3], *(tensor[1:3] for tensor in experts.stacked()))
    assert_close(some, experts(x_GCD)[1:3])
    weights_BTE = randn(B, 7, E).softmax(-1)
    by_hand = torch.einsum("bte,bteo->bto", weights_BTE, experts.answer_all(x_BTD))
    assert_close(experts.mix_all(x_BTD, weights_BTE), by_hand)


def test_features_of_deep_experts_make_the_answer(randn, generator):
    experts = build("mlp", generator, depth=1)
    x_GCD = randn(G, 7, D)
    answer = experts.features(x_GCD, *experts.stacked()) @ experts.output_map()
    assert_close(answer, experts(x_GCD))


def test_hidden_gain_scales_the_hidden_layer_alone():
    plain, wild = (
        build("mlp", torch.Generator().manual_seed(0), hidden_gain=gain) for gain in (1.0, 4.0)
    )
    assert_close(wild.hidden.weight, 4 * plain.hidden.weight)
    assert torch.equal(wild.output.weight, plain.output.weight)


# A list of kinds

LIST = ["linear", "mlp", part("mlp", hidden_dim=3), "constant", "mlp", "latent"]


def mixed(kinds, seed=0):
    generator = torch.Generator().manual_seed(seed)
    args = (B, len(kinds), D, OUT)
    return EXPERTS.build(kinds, *args, hidden_dim=6, generator=generator).double()


def test_a_list_makes_one_expert_of_each_kind(randn):
    experts = mixed(LIST)
    made = {
        expert: type(stack).__name__
        for members, stack in zip(experts.members, experts.stacks, strict=True)
        for expert in members
    }
    names = ["Linear", "MLP", "MLP", "Constant", "MLP", "Latent"]
    assert [made[e] for e in range(len(LIST))] == [f"{name}Experts" for name in names]
    widths = {
        stack.hidden.weight.shape[-1] for stack in experts.stacks if hasattr(stack, "hidden")
    }
    assert widths == {3, 6}


def test_answers_of_a_list_are_those_of_its_stacks(randn):
    experts, x_BTD = mixed(LIST), randn(B, 7, D)
    answers = experts.answer_all(x_BTD)
    for members, stack in zip(experts.members, experts.stacks, strict=True):
        assert_close(answers[:, :, members], stack.answer_all(stack.encode(x_BTD)[0]))


def test_permuting_a_list_permutes_the_answers_and_nothing_else(randn):
    x_BTD, order = randn(B, 7, D), [3, 0, 5, 1, 2, 4]  # of one kind, the first stays the first
    here = mixed(LIST).answer_all(x_BTD)
    there = mixed([LIST[e] for e in order]).answer_all(x_BTD)
    assert_close(there, here[:, :, order])


def test_encoders_of_a_list_keep_their_penalty(randn):
    experts, x_BTD = mixed(["mlp", part("latent", reconstruction=0.5)]), randn(B, 7, D)
    seen, penalty = experts.encode(x_BTD)
    assert torch.equal(seen, x_BTD)
    assert_close(penalty, experts.stacks[1].encode(x_BTD)[1])


@pytest.mark.parametrize("kinds", [["mlp"], ["mlp"] * 3])
def test_a_list_of_another_length_is_refused(kinds):
    with pytest.raises(ValueError, match=r"must have one entry for each\. Got"):
        EXPERTS.build(kinds, 1, 2, D, OUT)


def test_merged_experts_are_refused_in_a_list():
    with pytest.raises(ValueError, match="must not have 'merged' ones"):
        EXPERTS.build(["mlp", "merged"], 1, 2, D, OUT)


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        EXPERTS.resolve([])
