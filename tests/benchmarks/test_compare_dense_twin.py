"""Controls cost what we do, and cost is counted as torch counts it."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accuracy.ours import Build, EqualCost
from benchmarks.dense_twin import active_multiply_adds, matched_grid, network_of
from benchmarks.protocol import Situation
from skmoe import DeepMoERegressor, MoERegressor

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((120, 4)), RNG.standard_normal(120)

ESTIMATORS = [
    MoERegressor(n_experts=4),
    MoERegressor(n_experts=6, top_k=2),
    DeepMoERegressor(n_layers=2, n_experts=3),
    DeepMoERegressor(n_layers=2, n_experts=8, top_k=1, n_shared_experts=1),
    DeepMoERegressor(n_layers=2, n_experts=3, top_k=None, arrangement="stack"),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_active_multiply_adds_are_those_torch_counts(estimator, monkeypatch):
    # Each expert on exactly its rows: no padding, no idle expert.
    from skmoe.nn import layers, sorting
    from skmoe.nn.dispatch import by_sorting

    monkeypatch.setattr(
        layers, "dispatch", lambda experts, x, routing, how: by_sorting(experts, x, routing)
    )
    each = "best_cuts", lambda left, worth: list(range(1, len(left) + 1))
    monkeypatch.setattr(sorting, *each)
    network = network_of(estimator, X, Y)
    dtype = next(network.parameters()).dtype
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.as_tensor(X, dtype=dtype))
    assert active_multiply_adds(network) == pytest.approx(
        counter.get_total_flops() / 2 / len(X), rel=0.02
    )


@pytest.mark.parametrize("control", ["dense twin", "one expert"])
def test_controls_of_the_deep_estimator_cost_the_same(control):
    ours = DeepMoERegressor(n_layers=4, arrangement="parallel", random_state=0)
    points = [{"n_experts": 8, "n_layers": 2}, {"n_experts": 8, "n_layers": 12}]
    grid = matched_grid(control, ours, points, X, Y)
    n_shapes = len(grid) // len(points)  # twins have two depths, with an embedding or not
    assert n_shapes == (4 if control == "dense twin" else 1)
    for point, candidate in zip(np.repeat(points, n_shapes), grid, strict=True):
        assert candidate["n_experts"] == 1
        costs = [
            active_multiply_adds(network_of(clone(ours).set_params(**sizes), X, Y))
            for sizes in (point, candidate)
        ]
        assert costs[1] == pytest.approx(costs[0], rel=0.02)


def test_points_of_one_cost_are_tried_once():
    points = [{"n_experts": 16, "top_k": 2}, {"n_experts": 15, "top_k": 2}]
    points = [{**point, "learning_rate": rate} for point in points for rate in (1e-3, 1e-2)]
    grid = matched_grid("one expert", MoERegressor(), points, X, Y)
    assert [candidate["learning_rate"] for candidate in grid] == [1e-3, 1e-2]


def test_a_dense_twin_costs_what_was_measured():
    """However much our network would cost before it has seen what there is to find."""
    build = Build(DeepMoERegressor, (("n_layers", 4), ("arrangement", "parallel")))
    rows = Situation(X, Y, seed=0, threads=1, folds=1, costs={"ours": 12_000})
    candidates = EqualCost("dense twin", build, "ours", (0.3, 1.0, 3.0)).resolve(rows)
    assert len(candidates) == 12  # two depths, with an embedding or not, three learning rates
    for candidate in candidates:
        sizes = {name: values[0] for name, values in candidate.items()}
        net = network_of(build(rows).set_params(**sizes)["moe"], X, Y)
        assert active_multiply_adds(net) == pytest.approx(12_000, rel=0.05)
