"""Networks, rows, and the matrix of their last maps, for the tests of the closed form."""

import pytest
import torch

from skmoe._registry import part
from skmoe.batches import Rows
from skmoe.nn.networks import MoENetwork, ParallelMoENetwork, StackMoENetwork

N, D, OUT = 150, 3, 2
NETWORKS = {
    "soft": (MoENetwork, {"n_experts": 3}),
    "top-1": (MoENetwork, {"n_experts": 4, "top_k": 1}),
    "sparse": (MoENetwork, {"n_experts": 7, "top_k": 2}),
    "nearly all": (MoENetwork, {"n_experts": 4, "top_k": 3}),
    "shared": (MoENetwork, {"n_experts": 9, "top_k": 2, "n_shared_experts": 2}),
    "linear": (MoENetwork, {"n_experts": 5, "top_k": 2, "expert": "linear"}),
    "constant": (MoENetwork, {"n_experts": 5, "expert": "constant"}),
    "latent": (
        MoENetwork,
        {"n_experts": 5, "top_k": 2, "expert": part("latent", latent_dim=2)},
    ),
    "parallel": (ParallelMoENetwork, {"n_experts": 3, "n_layers": 2, "model_dim": 6}),
    "stack": (StackMoENetwork, {"n_experts": 3, "n_layers": 2, "model_dim": 6}),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def build(name, seed=0):
    cls, settings = NETWORKS[name]
    generator = torch.Generator().manual_seed(seed)
    network = cls(D, OUT, hidden_dim=4, generator=generator, **settings)
    return network.double().eval()


def draw(n=N, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(n, OUT, generator=generator, dtype=torch.float64)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs()], 1) + noise
    return Rows(x, y, 0.5 + torch.rand(n, generator=generator, dtype=torch.float64))


@torch.no_grad()
def design_matrix(network, x):
    """Columns are the answers to unit maps: built from predictions alone."""
    kept = network.output_map()
    columns = []
    for index in range(kept[..., 0].numel()):
        unit = torch.zeros_like(kept)
        unit.view(-1, OUT)[index, 0] = 1.0
        network.set_output_map(unit)
        columns.append(network(x)[0][:, 0])
    network.set_output_map(kept)
    return torch.stack(columns, 1).numpy()
