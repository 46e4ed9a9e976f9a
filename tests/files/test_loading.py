"""Estimators come back from files to the bit."""

import copy
import json
import pickle
import warnings

import golden
import numpy as np
import pandas as pd
import pytest
import skops.io
from saved import KINDS, QUICK, quiet
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small import make

from skmoe import (
    DeepMoERegressor,
    MoERegressor,
    inspect_model,
    load_model,
    part,
)
from skmoe._registry import keywords_of
from skmoe.initialization import INITS
from skmoe.nn.adapters import NETWORKS
from skmoe.nn.embeddings import EMBEDDINGS
from skmoe.nn.experts import EXPERTS
from skmoe.nn.gates import GATES
from skmoe.nn.layers import MoELayer
from skmoe.nn.losses import AUXILIARY_LOSSES, LOSSES
from skmoe.nn.networks import ARRANGEMENTS
from skmoe.nn.routers import ROUTERS
from skmoe.stored_model import ARGUMENTS

pytestmark = quiet


def assert_same(one, other):
    """Equal values of equal types, arrays to the bit; numbers of numpy are Python's."""
    if isinstance(other, np.generic):
        other = other.item()
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype == object:
            assert one.tolist() == other.tolist()
        else:
            assert one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other or (one != one and other != other)


def round_trip(moe, X, tmp_path):
    """The estimator that comes back, compared with the one that was saved."""
    path = tmp_path / "model.skmoe"
    moe.save_model(path)
    again = load_model(path)
    assert type(again) is type(moe)
    assert_same(again.__getstate__(), moe.__getstate__())
    assert again.predict(X).tobytes() == moe.predict(X).tobytes()
    assert_same(again.predict_gates(X), moe.predict_gates(X))
    assert not again.net_.training
    info = inspect_model(path)
    assert info.estimator == type(moe).__name__
    assert info.n_features_in == moe.n_features_in_
    assert info.n_bytes == path.stat().st_size
    return again


# What comes back

PARTS = [
    *(("gate", name) for name in GATES),
    *(("router", name) for name in ROUTERS),
    *(("expert", name) for name in EXPERTS),
    *(("embedding", name) for name in EMBEDDINGS),
    *(("loss", name) for name in LOSSES),
    *(("init", name) for name in INITS),
]


@pytest.mark.parametrize("kind", ["shallow", "parallel"])
@pytest.mark.parametrize(("parameter", "name"), PARTS)
def test_every_part_comes_back(kind, parameter, name, problem, tmp_path):
    X, y = problem
    round_trip(make(kind, **QUICK, **{parameter: name}).fit(X, y), X, tmp_path)


@pytest.mark.parametrize("name", AUXILIARY_LOSSES)
def test_every_auxiliary_loss_comes_back(name, problem, tmp_path):
    X, y = problem
    moe = make("shallow", **QUICK, auxiliary_losses={name: 0.01}).fit(X, y)
    assert round_trip(moe, X, tmp_path).auxiliary_losses == {name: 0.01}


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_comes_back(kind, problem, tmp_path):
    X, y = problem
    round_trip(make(kind, n_shared_experts=1, max_epochs=3).fit(X, y), X, tmp_path)


@pytest.mark.parametrize("estimator", [MoERegressor, DeepMoERegressor])
def test_defaults_come_back(estimator, problem, tmp_path):
    X, y = problem
    round_trip(estimator(random_state=0).fit(X, y), X, tmp_path)


SETTINGS = {
    "annealed": {"gate": part("linear", temperature=(2.0, 0.5), noise=0.1)},
    "learned": {"gate": part("deep", temperature="learn", width=5)},
    "balanced": {"router": part("normalized_sigmoid", balance_rate=0.1), "top_k": 2},
    "curved": {"gate": part("region", degree=2)},
    "curved patches": {"gate": part("patch", degree=3)},
    "groups": {"router": part("hierarchical", n_groups=2)},
    "threshold": {"router": part("sigmoid", threshold="learn")},
    "unused thresholds": {"router": "expert_choice", "top_k": 4},
    "sparse": {"top_k": 2},
    "levels": {"expert": part("cp", levels=(2, 2), rank=3)},
    "ring": {"expert": part("tensor_ring", ring_rank=2, affine=True)},
    "bonds": {"expert": part("mpo", bond=(2, 2), core_update_prob=0.5)},
    "decoder": {"expert": part("latent", latent_dim=2, reconstruction=0.1)},
    "depth": {"expert": part("mlp", depth=2, activation="tanh")},
    "kinds": {"expert": ["linear", "mlp", part("mlp", activation="tanh"), "latent"]},
    "tuple of kinds": {"expert": ("linear", "mlp", "mlp", "constant")},
    "bins": {"embedding": part("piecewise_linear", n_bins=7)},
    "waves": {"embedding": part("periodic", n_frequencies=3)},
    "quantile": {"loss": part("quantile", quantile=0.9)},
    "map": {"auxiliary_losses": {part("group_sparsity", shape=(2, 2)): 0.1, "z": 0.1}},
    "numbers of numpy": {"n_experts": np.int64(3), "learning_rate": np.float32(0.01)},
    "float32": {"dtype": "float32"},
    "float64": {"dtype": "float64"},
    "stopping": {"early_stopping": True, "n_iter_no_change": 2},
    "lbfgs": {"solver": "adam+lbfgs"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_come_back(name, problem, tmp_path):
    X, y = problem
    moe = make("shallow", **{**QUICK, **SETTINGS[name]}).fit(X, y)
    assert round_trip(moe, X, tmp_path).get_params() == moe.get_params()


def test_closed_form_fits_come_back(problem, tmp_path):
    X, y = problem
    round_trip(MoERegressor(4, solver="ridge", random_state=0).fit(X, y), X, tmp_path)


def test_axes_come_back(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 8))
    moe = MoERegressor(4, max_epochs=3, random_state=0).fit(X, X[:, 0])
    assert moe.net_.axes is not None
    round_trip(moe, X, tmp_path)


def test_columns_with_few_values_and_none_come_back(problem, tmp_path):
    X, y = problem
    X = np.column_stack([X, X[:, 0] > 0, np.ones(len(X)), np.arange(len(X)) % 3])
    moe = make("ensemble", embedding="piecewise_linear", max_epochs=3).fit(X, y)
    round_trip(moe, X, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_several_outputs_and_names_of_columns_come_back(kind, problem, tmp_path):
    X, y = problem
    frame = pd.DataFrame(X, columns=["width", "länge", 'a "name"'])
    moe = make(kind, **QUICK).fit(frame, np.column_stack([y, -y]))
    again = round_trip(moe, frame, tmp_path)
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame.rename(columns={"width": "height"}))


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_come_back(kind, problem, tmp_path):
    X, y = problem
    moe = make(kind, **QUICK, loss="gaussian_nll").fit(X, y, X_val=X, y_val=y)
    again = round_trip(moe, X, tmp_path)
    assert_same(again.predict(X, return_std=True), moe.predict(X, return_std=True))
    assert_same(again.sample(X, 3, random_state=0), moe.sample(X, 3, random_state=0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_goes_on_where_it_was(kind, dtype, problem, tmp_path):
    X, y = problem
    moe = make(kind, **QUICK, warm_start=True, dtype=dtype, solver="adam").fit(X, y)
    again = round_trip(moe, X, tmp_path)
    assert again.fit(X, y).predict(X).tobytes() == moe.fit(X, y).predict(X).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_goes_on_where_it_was(kind, problem, tmp_path):
    X, y = problem
    moe = make(kind, **QUICK).partial_fit(X, y)
    again = round_trip(moe, X, tmp_path)
    pairs = (one.partial_fit(X, y).predict(X).tobytes() for one in (moe, again))
    assert len(set(pairs)) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["experts", "adapters", "all"])
def test_tuned_models_come_back(kind, method, problem, tmp_path):
    X, y = problem
    moe = make(kind, **QUICK).fit(X, y).fine_tune(X[:30], y[:30] + 1, method=method)
    again = round_trip(moe, X, tmp_path)
    once_more = (one.fine_tune(X, y, method=method).predict(X) for one in (moe, again))
    np.testing.assert_array_equal(*once_more)


@pytest.mark.parametrize(("method", "rank"), [("latent", 2), ("mpo", 3)])
@pytest.mark.parametrize("kind", ["shallow", "parallel"])
def test_compressed_models_come_back(kind, method, rank, problem, tmp_path):
    X, y = problem
    moe = make(kind, expert="mlp", max_epochs=3).fit(X, y).compress(method, rank=rank)
    again = round_trip(moe, X, tmp_path)
    assert_same(again.singular_values_, moe.singular_values_)


def test_upcycled_models_come_back_without_the_net_that_they_started_from(problem, tmp_path):
    X, y = problem
    with warnings.catch_warnings(action="ignore"):
        dense = MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0).fit(X, y)
    moe = MoERegressor(3, init=dense, max_epochs=3, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"(?s)init=MLPRegressor.*pickle.*set_params\(init="):
        moe.save_model(tmp_path / "model.skmoe")
    round_trip(moe.set_params(init="auto"), X, tmp_path)


def test_blocks_come_back(tmp_path):
    from skmoe.datasets import make_compositional_regression

    X, y = make_compositional_regression(2000, n_blocks=2, random_state=0)
    moe = DeepMoERegressor(n_experts=4, max_epochs=5, init="blocks", random_state=0).fit(X, y)
    assert moe.block_directions_ is not None
    again = round_trip(moe, X, tmp_path)
    assert_same(again.block_directions_, moe.block_directions_)


def test_the_best_of_a_search_comes_back(problem, tmp_path):
    X, y = problem
    grid = {"n_experts": np.arange(2, 4), "gate__hidden_dim": [2, 3]}
    moe = make("shallow", gate=part("mlp", hidden_dim=2), max_epochs=2)
    best = GridSearchCV(moe, grid, cv=2).fit(X, y).best_estimator_
    round_trip(best, X, tmp_path)


def test_a_loaded_estimator_can_do_all_that_others_can(small, good, loads, problem):
    X, y = problem
    again = loads(good)
    assert pickle.loads(pickle.dumps(again)).predict(X).tobytes() == small.predict(X).tobytes()
    assert copy.deepcopy(again).predict(X).tobytes() == small.predict(X).tobytes()
    assert clone(again).fit(X, y).predict(X).tobytes() == small.predict(X).tobytes()


def test_long_histories_stay_out_of_the_header(problem, tmp_path):
    X, y = problem
    sizes = []
    for epochs in (1, 300):
        moe = make("stack", max_epochs=epochs, solver="adam").fit(X, y)
        moe.save_model(tmp_path / "model.skmoe")
        sizes.append(int.from_bytes((tmp_path / "model.skmoe").read_bytes()[:8], "little"))
    assert sizes[1] < sizes[0] + 1000


def test_many_names_of_columns_stay_out_of_the_header(tmp_path):
    rng = np.random.default_rng(0)
    columns = [f"a rather long name of a column, number {i}" for i in range(30_000)]
    frame = pd.DataFrame(rng.normal(size=(10, 30_000)).astype("f4"), columns=columns)
    moe = make("shallow", n_experts=2, expert="linear", solver="adam", max_epochs=1)
    moe.fit(frame, rng.normal(size=10)).save_model(tmp_path / "model.skmoe")
    assert load_model(tmp_path / "model.skmoe").feature_names_in_.tolist() == columns


def test_arguments_of_all_networks_are_known():
    known = {"n_inputs", "n_outputs", *keywords_of(MoELayer)}
    for network in NETWORKS.values():
        known |= keywords_of(network)
    assert known - {"generator"} == ARGUMENTS.keys()


# Files of all releases

GOLDEN = sorted(golden.FOLDER.rglob("*.skmoe"))


def test_there_are_golden_files_of_all_networks():
    networks = {inspect_model(path).network for path in GOLDEN}
    assert networks == {"shallow", *ARRANGEMENTS, "adapted"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_files_of_older_releases_predict_as_they_did(path):
    moe = load_model(path)
    known = json.loads(path.with_suffix(".json").read_text())
    predicted = golden.predicted(moe, np.array(known["X"]))
    np.testing.assert_allclose(predicted, known["prediction"], rtol=1e-6, atol=1e-6)


# skops


def test_skops_has_to_trust_the_two_estimators_only(problem):
    X, y = problem
    spec = part("mlp", hidden_dim=4, temperature=(2.0, 1.0))
    losses = {part("group_sparsity", shape=(2, 2)): 0.01}
    for kind in KINDS:
        moe = make(kind, **QUICK, gate=spec, auxiliary_losses=losses, warm_start=True)
        moe.set_params(embedding="piecewise_linear")
        pipeline = make_pipeline(StandardScaler(), moe).fit(X, y)
        data = skops.io.dumps(pipeline)
        untrusted = skops.io.get_untrusted_types(data=data)
        assert len(untrusted) == 1
        assert untrusted[0].rpartition(".")[2] in ("MoERegressor", "DeepMoERegressor")
        again = skops.io.loads(data, trusted=untrusted)
        assert again.predict(X).tobytes() == pipeline.predict(X).tobytes()
        assert again[-1].get_params() == moe.get_params()


def test_skops_takes_unfitted_and_tuned_estimators(problem):
    X, y = problem
    for moe in (
        MoERegressor(gate=part("mlp", hidden_dim=4)),
        make("shallow", **QUICK).fit(X, y).fine_tune(X, y, method="adapters"),
        make("shallow", max_epochs=2).fit(X, y).compress("mpo", rank=2),
    ):
        data = skops.io.dumps(moe)
        again = skops.io.loads(data, trusted=["skmoe.estimators.shallow.MoERegressor"])
        assert again.get_params() == moe.get_params()
