"""Gates: scores of the experts, their regions, temperature and noise."""

import math

import pytest
import torch
from torch.testing import assert_close

from skmoe._registry import part
from skmoe.nn.gates import GATES, LinearGate

every_gate = pytest.mark.parametrize("kind", GATES)
learning = pytest.mark.parametrize("kind", [kind for kind in GATES if kind != "hash"])


def build(kind, generator, n_blocks=1, n_inputs=3, n_experts=4, **settings):
    gate = GATES.build(
        part(kind, **settings), n_blocks, n_inputs, n_experts, generator=generator
    )
    return gate.double()


@every_gate
@pytest.mark.parametrize("n_blocks", [1, 3])
def test_logits_have_one_column_per_expert(kind, n_blocks, randn, generator):
    gate = build(kind, generator, n_blocks)
    assert gate(randn(n_blocks, 7, 3)).shape == (n_blocks, 7, 4)
    assert gate.shape == (n_blocks, 3, 4)


@every_gate
def test_blocks_are_gates_of_their_own(kind, randn, generator):
    both, x_BTD = build(kind, generator, n_blocks=2, temperature="learn"), randn(2, 7, 3)
    for block in range(2):
        one = build(kind, generator, temperature="learn")
        one.load_state_dict({k: v.chunk(2)[block] for k, v in both.state_dict().items()})
        assert_close(both(x_BTD)[block], one(x_BTD[block : block + 1])[0])


@every_gate
def test_rows_are_scored_one_by_one(kind, randn, generator):
    gate, x_BTD = build(kind, generator), randn(1, 7, 3)
    assert_close(gate(x_BTD), torch.cat([gate(row) for row in x_BTD.split(1, dim=1)], 1))


@learning
def test_all_weights_of_a_gate_learn(kind, randn, generator):
    gate = build(kind, generator, temperature="learn")
    (gate(randn(1, 7, 3)) * randn(1, 7, 4)).sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in gate.parameters())


@every_gate
def test_gate_tells_inputs_apart_from_the_start(kind, randn, generator):
    logits = build(kind, generator)(randn(1, 50, 3))
    assert (logits - logits.mean(-1, keepdim=True)).std(1).min() > 1e-3


@every_gate
def test_construction_leaves_torchs_global_generator_alone(kind, generator):
    before = torch.get_rng_state()
    GATES.build(kind, 2, 3, 4, generator=generator)
    assert torch.equal(before, torch.get_rng_state())


@every_gate
def test_same_seed_gives_same_weights(kind):
    one, two = (build(kind, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.state_dict().keys() == two.state_dict().keys()
    assert all(torch.equal(one.state_dict()[k], v) for k, v in two.state_dict().items())


# Temperature


@every_gate
def test_temperature_divides_the_logits(kind, randn, generator):
    warm, x_BTD = build(kind, generator, temperature=4.0), randn(1, 7, 3)
    assert_close(warm(x_BTD), warm.score(x_BTD) / 4)


@every_gate
def test_annealing_goes_geometrically_from_first_to_second_temperature(kind, randn, generator):
    gate, x_BTD = build(kind, generator, temperature=(9.0, 0.25)), randn(1, 7, 3)
    assert_close(gate(x_BTD), gate.score(x_BTD) / 9)
    for progress, temperature in [(0.0, 9.0), (0.5, 1.5), (1.0, 0.25)]:
        gate.anneal(progress)
        assert_close(gate(x_BTD), gate.score(x_BTD) / temperature, rtol=1e-6, atol=0)


@pytest.mark.parametrize("temperature", [2.0, "learn"])
def test_a_temperature_without_schedule_is_not_annealed(temperature, generator):
    gate = build("linear", generator, temperature=temperature)
    before = gate.log_temperature.clone()
    gate.anneal(0.7)
    assert torch.equal(gate.log_temperature, before)


def test_fixed_temperature_is_no_weight_but_travels_with_the_weights(generator):
    gate = build("linear", generator, temperature=3.0)
    assert "log_temperature" not in dict(gate.named_parameters())
    assert_close(gate.state_dict()["log_temperature"].exp().item(), 3.0)


def test_learned_temperature_starts_at_one_and_has_a_gradient_per_block(randn, generator):
    gate, x_BTD = build("linear", generator, n_blocks=2, temperature="learn"), randn(2, 7, 3)
    assert_close(gate(x_BTD), gate.score(x_BTD))
    gate(x_BTD).square().sum().backward()
    # d/dt sum (s / t)^2 at log t = 0 is -2 sum s^2.
    assert_close(gate.log_temperature.grad.flatten(), -2 * gate(x_BTD).square().sum((1, 2)))


@pytest.mark.parametrize(
    "temperature",
    [0, 0.0, -1.0, (1.0, 0.0), (1.0, 2.0, 3.0), (1.0,), "cold", None, (1, "learn")],
)
def test_bad_temperature_is_refused_with_rule_and_value(temperature, generator):
    with pytest.raises(ValueError, match="temperature must be a positive number") as error:
        LinearGate(1, 3, 4, temperature=temperature)
    assert repr(temperature) in str(error.value)


# Noise


def test_noise_is_for_training_only(randn, generator):
    gate, x_BTD = build("linear", generator, noise=0.5), randn(1, 7, 3)
    gate.generator = generator
    assert not torch.equal(gate.train()(x_BTD), gate.score(x_BTD))
    assert torch.equal(gate.eval()(x_BTD), gate.score(x_BTD))


def test_noise_is_reproduced_by_its_generator(randn, generator):
    gate, x_BTD = build("linear", generator, noise=0.5), randn(1, 7, 3)
    before, noisy = torch.get_rng_state(), []
    for seed in (3, 3, 4):
        gate.generator = torch.Generator().manual_seed(seed)
        noisy.append(gate(x_BTD))
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    assert torch.equal(before, torch.get_rng_state())


def test_noise_is_normal_with_the_deviation_asked_for(randn, generator):
    gate, x_BTD = build("linear", generator, noise=0.5), randn(1, 20_000, 3)
    gate.generator = generator
    noise = gate(x_BTD) - gate.score(x_BTD)
    assert abs(noise.std() - 0.5) < 0.01
    assert abs(noise.mean()) < 0.01
    assert abs((noise.abs() < 0.5).double().mean() - math.erf(0.5**0.5)) < 0.01


def test_noise_is_not_tempered(randn, generator):
    gate = build("linear", generator, noise=0.5, temperature=100.0)
    gate.generator = generator
    x_BTD = randn(1, 20_000, 3)
    assert abs((gate(x_BTD) - gate.score(x_BTD) / 100).std() - 0.5) < 0.01


def test_negative_noise_is_refused_with_rule_and_value():
    with pytest.raises(ValueError, match=r"noise must be a number of at least 0\. Got -0\.1"):
        LinearGate(1, 3, 4, noise=-0.1)


# The formula of each gate, and the regions that it can cut


def test_linear_gate_with_bias_cuts_the_line_at_the_integers(generator):
    gate = build("linear", generator, n_inputs=1)
    region = torch.arange(1.0, 5.0, dtype=torch.float64)
    with torch.no_grad():
        gate.linear.weight[0, 0] = region
        gate.linear.bias[0, 0] = -region * (region - 1) / 2
    x = torch.linspace(-1, 5, 600, dtype=torch.float64)
    expected = x.floor().clamp(0, 3).long()
    assert torch.equal(gate(x[None, :, None]).argmax(-1)[0], expected)


CORNERS = torch.tensor([[[0, 0], [1, 1], [0, 1], [1, 0]]], dtype=torch.float64)
XOR = torch.tensor([0, 0, 1, 1])


def test_linear_gate_cannot_cut_xor():
    # Its margin d is affine, so d(0,0) + d(1,1) = d(0,1) + d(1,0): not + + against - -.
    for seed in range(20):
        gate = build("linear", torch.Generator().manual_seed(seed), n_inputs=2, n_experts=2)
        logits = gate(CORNERS)[0]
        margin = logits[:, 0] - logits[:, 1]
        assert_close(margin[0] + margin[1], margin[2] + margin[3])


def test_mlp_gate_cuts_xor(generator):
    gate = build("mlp", generator, n_inputs=2, n_experts=2, hidden_dim=2)
    with torch.no_grad():
        for weight in gate.parameters():
            weight.zero_()
        gate.hidden.weight[0] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        gate.linear.weight[0, :, 1] = 1.0  # |x1 - x2| ...
        gate.linear.bias[0, 0, 0] = 0.5  # ... against 1/2
    assert torch.equal(gate(CORNERS).argmax(-1)[0], XOR)


@pytest.mark.parametrize("kind", ["mlp", "quadratic"])
def test_curved_gates_learn_xor(kind, generator):
    gate = build(kind, generator, n_inputs=2, n_experts=2)
    optimizer = torch.optim.LBFGS(gate.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(gate(CORNERS)[0], XOR)
        value.backward()
        return value

    optimizer.step(loss)
    assert torch.equal(gate(CORNERS).argmax(-1)[0], XOR)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
def test_mlp_gate_is_a_two_layer_net(activation, randn, generator):
    gate = build("mlp", generator, hidden_dim=5, activation=activation)
    act = {"relu": torch.nn.ReLU, "gelu": torch.nn.GELU, "silu": torch.nn.SiLU}.get(
        activation, torch.nn.Tanh
    )
    net = torch.nn.Sequential(
        torch.nn.utils.skip_init(torch.nn.Linear, 3, 5),
        act(),
        torch.nn.utils.skip_init(torch.nn.Linear, 5, 4),
    ).double()
    with torch.no_grad():
        for linear, stacked in [(net[0], gate.hidden), (net[2], gate.linear)]:
            linear.weight.copy_(stacked.weight[0].T)
            linear.bias.copy_(stacked.bias[0, 0])
    x_BTD = randn(1, 7, 3)
    assert_close(gate(x_BTD)[0], net(x_BTD[0]))


def test_prototype_gate_chooses_the_nearest_center(randn, generator):
    gate, x_BTD = build("prototype", generator, n_blocks=2), randn(2, 200, 3)
    nearest = torch.cdist(x_BTD, gate.centers).argmin(-1)
    assert torch.equal(gate(x_BTD).argmax(-1), nearest)


def test_prototype_logits_are_squared_distances_up_to_a_common_term(randn, generator):
    gate, x_BTD = build("prototype", generator), randn(1, 7, 3)
    with torch.no_grad():
        gate.log_sharpness.fill_(math.log(2.5))
    difference = gate(x_BTD) + 2.5 * torch.cdist(x_BTD, gate.centers).square()
    assert_close(difference, difference[..., :1].expand_as(difference))


def test_cosine_gate_is_the_scaled_cosine(randn, generator):
    gate, x_BTD = build("cosine", generator, scale=7.0), 100 * randn(1, 7, 3)
    cosine = torch.nn.functional.cosine_similarity(
        x_BTD[:, :, None], gate.directions[:, None], dim=-1
    )
    assert_close(gate(x_BTD), 7 * cosine, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-1, 1e3, 1e6])
def test_cosine_gate_does_not_see_the_length_of_x(factor, randn, generator):
    gate, x_BTD = build("cosine", generator), 100 * randn(1, 7, 3)
    assert_close(gate(factor * x_BTD), gate(x_BTD), rtol=1e-4, atol=1e-6)


@learning
def test_gate_is_finite_at_zero_with_its_gradients(kind, generator):
    gate = build(kind, generator)
    x_BTD = torch.zeros(1, 2, 3, dtype=torch.float64, requires_grad=True)
    gate(x_BTD).sum().backward()
    assert gate(x_BTD).isfinite().all()
    assert all(tensor.grad.isfinite().all() for tensor in [x_BTD, *gate.parameters()])


def test_cosine_gate_is_impartial_at_zero(generator):
    gate = build("cosine", generator)
    assert not gate(torch.zeros(1, 2, 3, dtype=torch.float64)).any()


@pytest.mark.parametrize("rank", [1, 4])
def test_quadratic_gate_is_its_quadratic_form(rank, randn, generator):
    gate, x_BTD = build("quadratic", generator, n_blocks=2, rank=rank), randn(2, 7, 3)
    u, v = (side.unflatten(-1, (4, rank)) for side in (gate.left, gate.right))
    form_BEDD = torch.einsum("bder,bfer->bedf", u, v)
    quadratic = torch.einsum("btd,bedf,btf->bte", x_BTD, form_BEDD, x_BTD)
    affine = x_BTD @ gate.linear.weight + gate.linear.bias
    assert_close(gate(x_BTD), affine + quadratic)


def test_rows_of_one_cell_have_the_same_hash(randn, generator):
    gate = build("hash", generator, n_projections=2)
    x = randn(1, 50, 3)
    near = x + 1e-9 * randn(1, 50, 3)
    assert torch.equal(gate(x), gate(near))
    cells = ((x @ gate.directions_BDP + gate.offsets_B1P) / gate.width).floor()[0]
    n_cells = len(cells.unique(dim=0))
    assert n_cells > 3
    assert len(gate(x)[0].unique(dim=0)) == n_cells


@pytest.mark.parametrize("n_experts", [2, 5, 16])
def test_hash_shares_cells_out_evenly(n_experts, randn, generator):
    gate = build("hash", generator, n_experts=n_experts, width=0.01)
    chosen = gate(100 * randn(1, 20_000, 3)).argmax(-1).flatten()
    shares = torch.bincount(chosen, minlength=n_experts) / len(chosen)
    deviation = (1 / n_experts / len(chosen)) ** 0.5
    assert (shares - 1 / n_experts).abs().max() < 5 * deviation


def test_second_choice_of_a_hash_does_not_depend_on_the_first(randn, generator):
    gate = build("hash", generator, width=0.01)
    first, second = gate(100 * randn(1, 20_000, 3)).topk(2).indices[0].T
    pairs = torch.bincount(4 * first + second, minlength=16).view(4, 4) / len(first)
    expected = (1 - torch.eye(4)) / 12
    assert (pairs - expected).abs().max() < 0.01


def test_hash_has_no_weights(generator):
    assert not list(build("hash", generator).parameters())


@pytest.mark.parametrize("kind", ["linear", "prototype"])
def test_scores_beyond_those_of_experts_are_not_placed(kind, randn, generator):
    gate, x = build(kind, generator, n_experts=6), randn(1, 7, 3)
    before = gate(x)[..., 4:]
    with torch.no_grad():
        assert gate.place(randn(1, 4, 3), torch.ones(1, dtype=torch.float64))
    assert_close(gate(x)[..., 4:], before)
