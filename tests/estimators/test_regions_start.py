"""Starting at regions: what is read off a rough fit, and what the new start takes over."""

import numpy as np
import pytest
import torch

from skmoe import DeepMoERegressor, part
from skmoe.batches import Rows
from skmoe.estimators import _regions
from skmoe.estimators._regions import start_at_regions, with_product
from skmoe.model import Architecture, FittedModel
from skmoe.scaling import Scaling

N_FACTORS, N_EXPERTS = 2, 4


def rough_model(sharpness: float) -> FittedModel:
    """Four blocks on two factors of two axes, whose gates jump at ``z_0 = 0.2``."""
    arguments = {
        "n_inputs": 5,
        "n_outputs": 1,
        "n_layers": 2 * N_FACTORS,
        "n_experts": N_EXPERTS,
        "model_dim": 8,
        "n_dense": 1,
        "block_outputs": 2,
        "trunk": False,
        "n_axes": 4,
        "gate": "linear",
        "expert": part("latent", latent_dim=2),
        "hidden_dim": 6,
    }
    architecture = Architecture("parallel", arguments)
    net = architecture.build(torch.Generator().manual_seed(0))
    axes = torch.eye(5)[:, :4]
    net.set_axes(axes, torch.zeros(4))
    factors = torch.eye(4).unflatten(1, (N_FACTORS, 2)).transpose(0, 1)
    net.blocks.experts.place_encoder(factors.repeat(2, 1, 1))
    with torch.no_grad():
        for gate in net.gates():
            gate.linear.weight.zero_()
            gate.linear.bias.zero_()
            gate.linear.weight[:, 0, : N_EXPERTS // 2] = sharpness
            gate.linear.bias[:, 0, : N_EXPERTS // 2] = -0.2 * sharpness
    scaling = Scaling(np.zeros(5), np.ones(5))
    directions = [axes[:, :2].numpy(), axes[:, 2:].numpy()]
    return FittedModel(
        architecture, net.eval(), scaling, Scaling(*np.eye(2)[:, :1]), directions
    )


@pytest.fixture
def rows():
    x = torch.rand(3000, 5, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Rows(x, torch.zeros(3000, 1), torch.ones(3000))


def test_factors_have_the_gradients_of_their_values(rows):
    model = rough_model(sharpness=1.0)
    step = torch.tensor([1e-4, -2e-4, 3e-4, 1e-4, 0.0])
    before = list(_regions._factors(model.net, rows.x, N_FACTORS))
    after = list(_regions._factors(model.net, rows.x + step, N_FACTORS))
    for (z, values, slopes), (z_after, values_after, _) in zip(before, after, strict=True):
        assert z.shape == (3000, 2)
        # Values are in a basis that moves with the rows: lengths of differences do not.
        told = np.einsum("nqd,nd->nq", slopes, z_after - z)
        found = np.abs(values_after) - np.abs(values)
        np.testing.assert_allclose(found, np.sign(values) * told, atol=2e-6)


def test_values_are_in_units_of_the_effect_on_the_prediction(rows):
    """Their squared length, summed over a change of answers, is its mean squared effect."""
    model = rough_model(sharpness=1.0)
    net = model.net.double()
    x = rows.x.double()
    g_BTO, _ = net.blocks(net.seen_by_blocks(x))
    g_BTO = g_BTO.detach().requires_grad_(True)
    y = net.head(net.state_after(g_BTO, x))
    (effect,) = torch.autograd.grad(y.sum(), g_BTO)
    for factor, (_, values, _) in enumerate(_regions._factors(net, rows.x, N_FACTORS)):
        answers = g_BTO[factor::N_FACTORS].transpose(0, 1).flatten(1)
        linear = answers.detach() @ effect[factor::N_FACTORS].transpose(0, 1).flatten(1).T
        expected = linear.square().mean(1).numpy()
        np.testing.assert_allclose((values**2).sum(1), expected, rtol=1e-3)


def test_gates_start_at_the_borders(rows):
    model = start_at_regions(rough_model(sharpness=300.0), rows, seed=0)
    scores = model.net.blocks.gate(
        model.net.blocks.experts.encode(model.net.seen_by_blocks(rows.x))[0]
    )
    for block, scores_TE in enumerate(scores):
        right = rows.x[:, 2 * (block % N_FACTORS)].numpy() > 0.2
        expert = scores_TE.argmax(1).numpy()
        share = np.array([right[expert == e].mean() for e in range(N_EXPERTS)])
        owners = share > 0.5
        assert 0 < owners.sum() < N_EXPERTS
        assert np.mean(owners[expert] == right) > 0.97


def test_a_smooth_function_gives_no_start(rows):
    assert start_at_regions(rough_model(sharpness=0.1), rows, seed=0) is None


def test_encoders_and_head_are_taken_over_and_nothing_else(rows):
    rough = rough_model(sharpness=300.0)
    old, new = rough.net.state_dict(), start_at_regions(rough, rows, seed=1).net.state_dict()
    for name in ("axes.weight", "blocks.experts.encoder.weight", "mix.weight", "head.bias"):
        assert torch.equal(old[name], new[name])
    assert not torch.equal(
        old["blocks.experts.hidden.weight"], new["blocks.experts.hidden.weight"]
    )


def test_a_product_of_factors_is_one(rows):
    """Its logarithmic derivative by one factor does not depend on the other one."""
    model = start_at_regions(rough_model(sharpness=300.0), rows, seed=0)
    net = with_product(model, seed=0).net.double()
    assert torch.equal(
        net.blocks.gate.linear.weight, model.net.blocks.gate.linear.weight.double()
    )
    first, second = rows.x[:50, :2].double(), rows.x[50:90, 2:].double()
    grid = torch.cat([first[:, None].expand(-1, 40, -1), second.expand(50, -1, -1)], -1)
    y, _ = net(grid.flatten(0, 1))
    product = (y - net.head.bias).view(50, 40)
    singular_values = torch.linalg.svdvals(product)
    assert singular_values[1] < 1e-10 * singular_values[0]


@pytest.mark.parametrize(
    "changes", [{"gate": "mlp"}, {"init": "blocks"}, {"router": "softmax"}]
)
def test_regions_are_looked_for_only_where_gates_are_ours_to_choose(changes):
    moe = DeepMoERegressor(**changes)
    assert moe._may_have_regions() == (changes == {"router": "softmax"})
