"""On a CUDA GPU: the same models as on the CPU, steps recorded, memory that is short.

Nothing here runs without such a device.
"""

import sys
import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from small import make
from test_resident import FITS, GRIDS

from skmoe import MoERegressor, part
from skmoe.nn.dispatch import dispatch
from skmoe.nn.experts import EXPERTS
from skmoe.nn.hidden_layer import Room
from skmoe.nn.losses import SquaredError
from skmoe.nn.networks import MoENetwork
from skmoe.nn.routers import ROUTERS
from skmoe.optimizer import FlatAdamW
from skmoe.resident import Recorder
from skmoe.search import BatchedGridSearchCV
from skmoe.shallow_gradient import gradient_by_hand

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
CUDA = torch.device("cuda", 0)


@pytest.fixture
def problem():
    random = np.random.default_rng(0)
    X = random.normal(size=(2001, 3))
    return X, np.sin(2 * X[:, 0]) + X[:, 1] * (X[:, 2] > 0)


@pytest.fixture
def graphs(monkeypatch):
    """How many steps are recorded, and how many recordings fail."""
    counts = {"recorded": 0, "failed": 0}
    record = Recorder._record

    def counting(self, arguments):
        graph = record(self, arguments)
        counts["failed" if graph is None else "recorded"] += 1
        return graph

    monkeypatch.setattr(Recorder, "_record", counting)
    return counts


def fitted(kind, problem, **parameters):
    X, y = problem
    settings = {"solver": "adam", "max_epochs": 3, "batch_size": 128, "random_state": 0}
    return make(kind, **settings | {"device": "cuda"} | parameters).fit(X, y)


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("kind", ["shallow", "stack", "parallel", "ensemble"])
def test_steps_are_recorded_and_change_nothing(kind, name, problem, graphs, monkeypatch):
    replayed = fitted(kind, problem, **FITS[name])
    assert graphs["failed"] == 0
    assert graphs["recorded"] > 0 or name == "one batch"
    monkeypatch.setattr(sys.modules["skmoe.loop"], "repeats_steps", lambda _: False)
    run = fitted(kind, problem, **FITS[name])
    X, _ = problem
    np.testing.assert_allclose(replayed.predict(X), run.predict(X), atol=2e-3)
    for one, other in zip(replayed.history_, run.history_, strict=True):
        np.testing.assert_allclose(one["train_loss"], other["train_loss"], rtol=1e-3)
        np.testing.assert_allclose(one["usage"], other["usage"], atol=1e-3)


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_fits(router, problem):
    losses = [
        epoch["train_loss"] for epoch in fitted("shallow", problem, router=router).history_
    ]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("expert", EXPERTS)
def test_every_kind_of_expert_fits(expert, problem):
    assert np.isfinite(fitted("shallow", problem, expert=expert).history_[-1]["train_loss"])


@pytest.mark.parametrize("kind", ["shallow", "parallel"])
def test_a_model_is_that_of_the_cpu(kind, problem):
    X, y = problem
    on_gpu, on_cpu = (
        make(kind, device=device, max_epochs=30, random_state=0).fit(X, y)
        for device in ("cuda", "cpu")
    )
    errors = [np.mean((moe.predict(X) - y) ** 2) ** 0.5 for moe in (on_gpu, on_cpu)]
    assert errors[0] < 1.5 * errors[1] + 0.02
    assert next(on_gpu.net_.parameters()).is_cuda


def test_the_same_seed_gives_the_same_bits(problem):
    X, _ = problem
    one, other = (fitted("shallow", problem, n_experts=8, top_k=2) for _ in range(2))
    assert np.array_equal(one.predict(X), other.predict(X))


@pytest.mark.parametrize("name", GRIDS)
def test_a_search_finds_the_same_to_rounding(name, problem, graphs):
    X, y = problem
    moe = make("shallow", solver="adam", max_epochs=4, batch_size=128, device="cuda")
    batched, plain = (
        kind(moe, GRIDS[name], cv=4, refit=False, error_score="raise").fit(X, y)
        for kind in (BatchedGridSearchCV, GridSearchCV)
    )
    assert graphs["failed"] == 0
    scores = [search.cv_results_["mean_test_score"] for search in (batched, plain)]
    np.testing.assert_allclose(*scores, atol=5e-3)


def test_sorted_rows_and_blocks_agree_with_all_experts():
    generator = torch.Generator().manual_seed(0)
    experts = EXPERTS.build("mlp", 2, 16, 5, 3, hidden_dim=8, generator=generator)
    experts = experts.double().to(CUDA)
    x = torch.randn(2, 300, 5, generator=generator).double().to(CUDA)
    logits = torch.randn(2, 300, 16, generator=generator).double().to(CUDA)
    routing = ROUTERS.build("softmax", 2)(logits)
    dense, *others = (
        dispatch(experts, x, routing, how) for how in ("dense", "sorted", "blocks")
    )
    for other in others:
        torch.testing.assert_close(other, dense)


@pytest.mark.parametrize("gate", ["linear", "mlp"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("many_rows", [1, 1000], ids=["many rows", "few rows"])
def test_gradients_of_sorted_rows_are_those_of_all_experts(
    gate, activation, many_rows, monkeypatch
):
    monkeypatch.setattr(sys.modules["skmoe.layer_gradient"], "MANY_ROWS", many_rows)
    generator = torch.Generator().manual_seed(0)
    net = MoENetwork(
        5, 1, n_experts=16, top_k=2, hidden_dim=8, gate=gate,
        expert=part("mlp", activation=activation), generator=generator,
    ).double()  # fmt: skip
    given = [torch.randn(1, 300, n, generator=generator).double() for n in (5, 1)]
    found = []
    for device, sorting in ((CUDA, -1), (CUDA, float("inf")), (torch.device("cpu"), 0)):
        monkeypatch.setattr(sys.modules["skmoe.nn.dispatch"], "SORTING_ON_CUDA", sorting)
        own = deepcopy(net).to(device)
        optimizer = FlatAdamW(own, 0.01, 0.0)
        by_hand = gradient_by_hand(own, SquaredError(), (), Room())
        x, y = (tensor.to(device) for tensor in given)
        loss = by_hand(x, y, torch.ones(1, 300, device=device, dtype=x.dtype)).losses_B
        found.append((loss.cpu(), optimizer.gradient.cpu()))
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("many_rows", [1, 1000], ids=["many rows", "few rows"])
def test_steps_where_all_experts_are_asked_are_those_of_the_cpu(many_rows, monkeypatch):
    monkeypatch.setattr(sys.modules["skmoe.layer_gradient"], "MANY_ROWS", many_rows)
    generator = torch.Generator().manual_seed(0)
    # Its weights are cut into parts.
    net = MoENetwork(70, 1, n_experts=8, hidden_dim=64, generator=generator).double()
    x, y = (torch.randn(1, 254, n, generator=generator).double() for n in (70, 1))
    found = []
    for device in (CUDA, torch.device("cpu")):
        own = deepcopy(net).to(device)
        optimizer = FlatAdamW(own, 0.01, 0.1)
        by_hand = gradient_by_hand(own, SquaredError(), (), Room())
        weight = torch.ones(1, 254, device=device, dtype=x.dtype)
        for _ in range(3):
            by_hand(x.to(device), 100 * y.to(device), weight)  # a gradient to be clipped
            optimizer.step()
        found.append([own_weight.detach().cpu() for own_weight in own.parameters()])
    # What a gradient is divided by is a float32 there.
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


def test_short_memory_halves_batches_and_the_fit_goes_on():
    random = np.random.default_rng(0)
    X = random.normal(size=(65_536, 16))
    y = X[:, 0] * X[:, 1]
    moe = MoERegressor(
        n_experts=64, top_k=None, hidden_dim=512, embedding=None, solver="adam", device="cuda",
        batch_size=65_536, max_epochs=2, early_stopping=False, random_state=0,
    )  # fmt: skip
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # Hidden features of a batch take 8 GiB, and as much their gradients.
    torch.cuda.set_per_process_memory_fraction(12 * 2**30 / total)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            moe.fit(X, y)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert any("Memory does not suffice" in str(one.message) for one in caught)
    assert len(moe.history_) == 2


def test_tf32_is_near(problem):
    X, _ = problem
    precise, rough = (fitted("shallow", problem, dtype=dtype) for dtype in ("float32", "tf32"))
    assert 0 < np.abs(precise.predict(X) - rough.predict(X)).max() < 0.2


def test_a_model_that_was_fitted_there_predicts_on_the_cpu(problem, tmp_path):
    X, _ = problem
    moe = fitted("shallow", problem)
    moe.save_model(tmp_path / "model.skmoe")
    loaded = MoERegressor.load_model(tmp_path / "model.skmoe", device="cpu")
    np.testing.assert_allclose(loaded.predict(X), moe.predict(X), atol=1e-4)
