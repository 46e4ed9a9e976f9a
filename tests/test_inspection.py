"""Numbers about routing against their definitions."""

import numpy as np
import pytest

from skmoe import DeepMoERegressor, MoERegressor
from skmoe.inspection import (
    expert_usage,
    jain_fairness,
    router_saturation,
    routing_change_rate,
    routing_flow,
    routing_table,
)

N, E = 60, 5
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture(params=["shallow", "deep"])
def fitted(request, random):
    X = random.normal(size=(N, 3))
    kind = MoERegressor if request.param == "shallow" else DeepMoERegressor
    size = {} if request.param == "shallow" else {"n_layers": 2}
    moe = kind(n_experts=E, max_epochs=5, random_state=0, **size)
    return moe.fit(X, X[:, 0]), X


def as_list(gates):
    return gates if isinstance(gates, list) else [gates]


def test_usage_is_the_weighted_mean_of_the_gates(fitted, random):
    moe, X = fitted
    weight = random.random(N)
    usage = np.atleast_2d(expert_usage(moe, X, weight))
    for layer, gates in zip(usage, as_list(moe.predict_gates(X)), strict=True):
        np.testing.assert_allclose(layer, np.average(gates, axis=0, weights=weight))
    assert expert_usage(moe, X).shape == moe.expert_usage_.shape
    np.testing.assert_allclose(expert_usage(moe, X), moe.expert_usage_, atol=1e-6)


def test_a_table_has_the_mean_weights_of_each_label(fitted, random):
    moe, X = fitted
    labels = random.choice(["a", "b", "c"], N)
    names, table = routing_table(moe, X, labels)
    assert names.tolist() == ["a", "b", "c"]
    tables = table if table.ndim == 3 else table[None]
    for layer, gates in zip(tables, as_list(moe.predict_gates(X)), strict=True):
        for name, row in zip(names, layer, strict=True):
            np.testing.assert_allclose(row, gates[labels == name].mean(0))


def test_a_table_of_one_layer(random):
    X = random.normal(size=(N, 3))
    moe = DeepMoERegressor(2, E, max_epochs=2, random_state=0).fit(X, X[:, 0])
    _, both = routing_table(moe, X, X[:, 0] > 0)
    _, second = routing_table(moe, X, X[:, 0] > 0, layer=1)
    np.testing.assert_array_equal(both[1], second)


def test_a_table_needs_a_label_for_each_row(fitted):
    moe, X = fitted
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        routing_table(moe, X, np.zeros(N - 1))


def test_fairness_at_its_ends_and_between():
    assert jain_fairness(np.eye(E)[2]) == pytest.approx(1 / E)
    assert jain_fairness(np.full(E, 0.3)) == pytest.approx(1)
    # k experts that share all evenly: k / E.
    np.testing.assert_allclose(jain_fairness(np.tril(np.ones((E, E)))), np.arange(1, E + 1) / E)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_fairness_does_not_depend_on_the_scale(scale, random):
    usage = random.random(E)
    assert jain_fairness(scale * usage) == pytest.approx(jain_fairness(usage))


@pytest.mark.parametrize("usage", [[0.0, 0.0], [-1.0, 2.0], [[1.0, 0.0], [0.0, 0.0]]])
def test_fairness_of_no_usage_is_refused(usage):
    with pytest.raises(ValueError, match="usage must be non-negative, and not all zero"):
        jain_fairness(usage)


@pytest.mark.parametrize("top_k", [None, 1, 2, E])
def test_routing_measures_equal_a_loop_over_rows(top_k, random):
    before, after = random.random((2, N, E)) * (random.random((2, N, E)) < 0.7)
    before[:, 0] = after[:, 1] = 1e-3  # everyone asks someone

    def asked(weights):
        if top_k is None:
            return set(np.flatnonzero(weights))
        return set(np.argsort(-weights, kind="stable")[:top_k])

    pairs = [(asked(b), asked(a)) for b, a in zip(before, after, strict=True)]
    new = np.mean([len(a - b) / len(a) for b, a in pairs])
    old = np.mean([len(a & b) / len(a) for b, a in pairs])
    assert routing_change_rate(before, after, top_k) == pytest.approx(new)
    assert router_saturation(before, after, top_k) == pytest.approx(old)
    assert routing_change_rate(after, after, top_k) == 0
    assert router_saturation(after, after, top_k) == 1


def test_each_layer_has_a_measure_of_its_own(random):
    before, after = random.random((2, 2, N, E))
    rates = routing_change_rate(list(before), list(after), top_k=2)
    expected = [routing_change_rate(b, a, top_k=2) for b, a in zip(before, after, strict=True)]
    np.testing.assert_array_equal(rates, expected)


@pytest.mark.parametrize("top_k", [0, E + 1])
def test_top_k_must_fit(top_k):
    with pytest.raises(ValueError, match=r"top_k must be in \[1, 5\]"):
        router_saturation(np.ones((N, E)), np.ones((N, E)), top_k)


def test_gates_must_be_of_one_shape():
    with pytest.raises(ValueError, match="must be of the same shape"):
        router_saturation(np.ones((N, E)), np.ones((N, E + 1)))


@pytest.mark.parametrize("weighted", [False, True])
def test_flow_counts_the_pairs_of_top_experts(weighted, random):
    X = random.normal(size=(N, 3))
    moe = DeepMoERegressor(3, E, max_epochs=2, random_state=0).fit(X, X[:, 0])
    weight = random.random(N) if weighted else None
    flow = routing_flow(moe, X, weight)
    counts = np.zeros((2, E, E))
    for path, one in zip(moe.apply(X), weight if weighted else np.ones(N), strict=True):
        for layer in range(2):
            counts[layer, path[layer], path[layer + 1]] += one
    np.testing.assert_allclose(flow, counts / counts[0].sum())


def test_one_layer_has_no_paths(random):
    X = random.normal(size=(N, 3))
    for kind in (MoERegressor(2, solver="ridge"), DeepMoERegressor(1, 2, max_epochs=2)):
        with pytest.raises(ValueError, match="Paths need two layers or more"):
            routing_flow(kind.fit(X, X[:, 0]), X)
