"""Estimators come back from files to the bit, and nothing else comes out of a file."""

import ast
import copy
import getpass
import json
import os
import pickle
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import golden
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from small import make

import skmoe
from benchmarks.reliability import bad_files, hostile_files
from skmoe import (
    DeepMoERegressor,
    ModelFileError,
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
from skmoe.nn.networks import ARRANGEMENTS, MoENetwork
from skmoe.nn.routers import ROUTERS
from skmoe.stored_model import ARGUMENTS, _check_values

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
KINDS = ["shallow", "parallel", "stack", "ensemble"]
QUICK = {"max_epochs": 3, "hidden_dim": 4}


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)) * [1.0, 50.0, 0.01] + [0.0, 300.0, 1.0]
    return X, 40 + 7 * np.sin(X[:, 0]) + 0.05 * X[:, 1]


@pytest.fixture(scope="module")
def small(problem):
    """A model of some 3 KB."""
    X, y = problem
    return make("shallow", n_experts=2, expert="constant", solver="adam", max_epochs=2).fit(
        X, y
    )


@pytest.fixture(scope="module")
def good(small, tmp_path_factory):
    """The bytes of its file."""
    path = tmp_path_factory.mktemp("good") / "model.skmoe"
    small.save_model(path)
    return path.read_bytes()


@pytest.fixture
def loads(tmp_path):
    """Load an estimator from bytes."""

    def load(data, function=load_model):
        path = tmp_path / "bytes.skmoe"
        path.write_bytes(data)
        return function(path)

    return load


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


# Where


def test_a_file_tells_nothing_about_the_machine(problem, tmp_path, monkeypatch):
    X, y = problem
    monkeypatch.chdir(tmp_path)
    moe = make("shallow", max_epochs=2, device="cpu", checkpoint=tmp_path / "progress")
    moe.fit(X, y).save_model("model.skmoe")
    assert load_model("model.skmoe").checkpoint is None
    data = Path("model.skmoe").read_bytes()
    words = [os.getcwd(), str(Path.home()), socket.gethostname(), "cpu", "cuda", "device"]
    words.append("progress")
    if len(getpass.getuser()) > 3:
        words.append(getpass.getuser())
    assert not [word for word in words if word.encode() in data]


def test_no_training_row_is_in_a_file(problem, tmp_path):
    X, y = problem
    make("shallow", **QUICK).fit(X, y).save_model(tmp_path / "model.skmoe")
    data = (tmp_path / "model.skmoe").read_bytes()
    assert not [row for row in X if row.tobytes() in data]
    assert y[:2].tobytes() not in data


def test_the_device_is_a_choice_of_who_loads(problem, tmp_path):
    X, y = problem
    make("shallow", max_epochs=2, device="cpu").fit(X, y).save_model(tmp_path / "a")
    assert load_model(tmp_path / "a").device == "auto"
    assert load_model(tmp_path / "a", device="cpu").device == "cpu"
    with pytest.raises(ValueError, match="device must be"):
        load_model(tmp_path / "a", device="cppu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="0 CUDA devices were found"):
            load_model(tmp_path / "a", device="cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_model_of_a_gpu_loads_on_the_cpu_and_back(problem, tmp_path):
    X, y = problem
    moe = make("parallel", device="cuda", max_epochs=3).fit(X, y)
    moe.save_model(tmp_path / "a")
    again = load_model(tmp_path / "a")
    assert next(again.net_.parameters()).device.type == "cpu"
    np.testing.assert_allclose(again.predict(X), moe.predict(X), rtol=1e-5)
    assert b"cuda" not in (tmp_path / "a").read_bytes()
    back = load_model(tmp_path / "a", device="cuda")
    np.testing.assert_array_equal(back.predict(X), moe.predict(X))


def test_an_estimator_loads_its_own_class_only(small, tmp_path, problem):
    small.save_model(tmp_path / "a")
    assert isinstance(MoERegressor.load_model(tmp_path / "a"), MoERegressor)
    with pytest.raises(ModelFileError, match=r"one of \['DeepMoERegressor'\]"):
        DeepMoERegressor.load_model(tmp_path / "a")


def test_loading_is_silent_and_leaves_global_generators_alone(good, loads, capfd):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    loads(good)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert capfd.readouterr() == ("", "")


def test_inspection_tells_what_is_in_a_file_and_builds_nothing(problem, tmp_path, monkeypatch):
    X, y = problem
    moe = make("shallow", **QUICK, gate=part("mlp", hidden_dim=3)).fit(X, y)
    moe.save_model(tmp_path / "a")
    monkeypatch.setattr(skmoe.model.Architecture, "build", None)
    info = inspect_model(tmp_path / "a")
    params = moe.get_params(deep=False)
    del params["device"], params["checkpoint"]
    assert info.parameters == params
    assert (info.network, info.arguments["gate"]) == ("shallow", part("mlp", hidden_dim=3))
    assert info.versions["skmoe"] == skmoe.__version__
    assert info.versions.keys() == {"skmoe", "numpy", "scikit-learn", "torch"}
    assert info.arrays["weights.layer.gate.hidden.weight"] == ("float64", (1, 3, 3))
    assert info.digest == (tmp_path / "a").read_bytes()[-32:].hex()
    assert info.format == 1


# What is not saved


class OwnGate(skmoe.nn.gates.LinearGate):
    pass


class OwnRegressor(MoERegressor):
    pass


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gate": OwnGate}, "gate=.*OwnGate.*pickle"),
        ({"auxiliary_losses": {skmoe.nn.losses.z: 0.1}}, "auxiliary_losses=.*z"),
        ({"callbacks": [Callback()]}, "callbacks=.*pickle"),
        ({"random_state": np.random.RandomState(0)}, "random_state=RandomState.*pickle"),
    ],
    ids=["class", "function", "callback", "generator"],
)
def test_what_only_code_can_make_is_refused_by_name(params, message, problem, tmp_path):
    X, y = problem
    moe = make("shallow", **QUICK, **params).fit(X, y)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        moe.save_model(tmp_path / "model.skmoe")
    assert not os.listdir(tmp_path)


def test_a_network_of_own_parts_is_refused_whatever_the_parameters_say(problem, tmp_path):
    X, y = problem
    moe = make("shallow", **QUICK, gate=OwnGate).fit(X, y).set_params(gate="linear")
    with pytest.raises(ValueError, match="gate=OwnGate, of which the network is"):
        moe.save_model(tmp_path / "model.skmoe")


def test_own_classes_and_attributes_are_refused(small, problem, tmp_path):
    X, y = problem
    own = OwnRegressor(2, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="OwnRegressor, a class of one's own"):
        own.save_model(tmp_path / "a")
    more = copy.deepcopy(small)
    more.note = "mine"
    with pytest.raises(ValueError, match=r"the attributes \['note'\]"):
        more.save_model(tmp_path / "a")
    with pytest.raises(NotFittedError):
        MoERegressor().save_model(tmp_path / "a")
    assert not os.listdir(tmp_path)


def test_a_model_that_could_not_be_loaded_is_not_saved(small, tmp_path):
    broken = copy.deepcopy(small)
    with torch.no_grad():
        next(broken.net_.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="cannot be stored: Weights must be finite"):
        broken.save_model(tmp_path / "a")
    with pytest.raises(ValueError, match="'n_experts' parameter"):
        copy.deepcopy(small).set_params(n_experts=-1).save_model(tmp_path / "a")
    assert not os.listdir(tmp_path)


def test_a_failed_save_leaves_the_good_file(small, tmp_path, problem, monkeypatch):
    path = tmp_path / "model.skmoe"
    small.save_model(path)
    good = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skmoe.model_file.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        make("shallow", max_epochs=1).fit(*problem).save_model(path)
    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["model.skmoe"]


# What is not loaded


@pytest.mark.parametrize("function", [load_model, inspect_model], ids=["load", "inspect"])
def test_every_truncation_is_refused(good, loads, function):
    for length in range(len(good)):
        with pytest.raises(ModelFileError):
            loads(good[:length], function)


def test_every_flipped_bit_is_refused(good):
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            with pytest.raises(ModelFileError):
                skmoe.model_file.from_bytes(bytes(bad))


@pytest.mark.parametrize("kind", bad_files.DAMAGE)
def test_damage_is_refused(good, loads, kind):
    rng = np.random.default_rng(0)
    for bad in bad_files.DAMAGE[kind](good, rng, 100):
        with pytest.raises(ModelFileError):
            loads(bad)


def outcomes(files, load):
    """Names of files that were loaded, and of those that failed otherwise than they should."""
    loaded, failed = [], {}
    for name, data in files:
        try:
            load(data)
        except ModelFileError:
            continue
        except Exception as error:
            failed[name] = repr(error)
        else:
            loaded.append(name)
    return loaded, failed


def test_hostile_files_are_refused(good, loads, tmp_path):
    canary = tmp_path / "canary"
    files = list(hostile_files.hostile(good, canary))
    assert len(files) > 250
    assert outcomes(files, loads) == ([], {})
    assert not canary.exists()


def test_no_file_makes_an_inspection_fail_otherwise(good, loads, tmp_path):
    files = hostile_files.hostile(good, tmp_path / "canary")
    _, failed = outcomes(files, lambda data: loads(data, inspect_model))
    assert failed == {}


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_without_end_are_refused_soon(kind, problem, tmp_path, loads):
    X, y = problem
    make(kind, **QUICK).fit(X, y).save_model(tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    _, envelope, _ = bad_files.opened(data)
    arguments = dict(envelope["config"]["model"]["arguments"]["items"])
    sizes = [name for name, value in arguments.items() if type(value) is int]
    assert len(sizes) > 4
    more = ("n_layers", "n_dense", "model_dim", "block_outputs", "n_factors")
    for name in {*sizes, *more}:
        for size in (2**62, 10**9, 60_000):
            with pytest.raises(ModelFileError):
                loads(hostile_files.reargued(data, name, size))


def test_what_is_fuzzed_is_refused_or_sound(good, loads, problem):
    X, _ = problem

    def load(data):
        assert np.isfinite(loads(data).predict(X)).all()

    rng = np.random.default_rng(0)
    files = ((str(i), bad) for i, bad in enumerate(bad_files.fuzzed(good, rng, 1000)))
    loaded, failed = outcomes(files, load)
    assert failed == {}
    assert len(loaded) < 50  # where a seed or a rate was changed to another one, or nothing


WATCHED = """
import sys, warnings
from pathlib import Path
from benchmarks.reliability import hostile_files
from skmoe import ModelFileError, load_model
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
good = folder / "good.skmoe"
load_model(good)
files = list(hostile_files.hostile(good.read_bytes(), folder / "canary"))
seen = []
EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen",
          "pickle.find_class", "socket.connect", "exec", "compile", "import", "ctypes.dlopen",
          "os.remove", "os.rename", "os.mkdir")
# The standard library reads signatures of built-in functions by parsing them.
KNOWN = "(b'def foo(self, *args, **kwargs): pass', '<unknown>')"
def watch(event, args):
    if event in EVENTS and str(args) != KNOWN:
        seen.append((event, str(args)[:200]))
sys.addaudithook(watch)
for name, data in files:
    path = folder / "bad.skmoe"
    path.write_bytes(data)
    try:
        load_model(path)
    except ModelFileError:
        continue
    print("loaded", name)
print(len(files), seen)
"""


def test_nothing_runs_and_nothing_is_imported(good, tmp_path):
    (tmp_path / "good.skmoe").write_bytes(good)
    command = [sys.executable, "-c", WATCHED, str(tmp_path)]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    count, _, seen = done.stdout.partition(" ")
    assert int(count) > 250
    assert seen.strip() == "[]"
    assert not (tmp_path / "canary").exists()


# What does not go with a promise that nothing is run.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
HARMLESS = {"pickle.PicklingError"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "globals"}


def test_the_package_has_no_code_that_runs_what_it_reads():
    root = Path(skmoe.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
                imported = [name for name in imported if name not in HARMLESS]
            tops = {name.partition(".")[0] for name in imported}
            if tops & FORBIDDEN_MODULES:
                found.append(f"{path}: import {imported}")
            if {"importlib", "importlib.import_module"} & set(
                imported
            ) and path.name != "_optional.py":
                found.append(f"{path}: import {imported}")
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in FORBIDDEN_CALLS or called in ("torch.load", "torch.jit.load"):
                    found.append(f"{path}: {called}")
                safely = {"allow_pickle=False"} & {ast.unparse(word) for word in node.keywords}
                if called in ("np.load", "numpy.load") and not safely:
                    found.append(f"{path}: {called}")
    assert not found


def test_optional_packages_are_named_in_the_code():
    """`import_optional` imports what a literal says, never what data say."""
    root = Path(skmoe.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_optional":
                assert isinstance(node.args[0], ast.Constant), path


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


@pytest.mark.parametrize(("gate", "name"), [("region", "region_ids"), ("patch", "expert_ids")])
def test_regions_of_experts_that_there_are_not_are_refused(gate, name):
    network = MoENetwork(2, 1, n_experts=3, gate=gate)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    _check_values(weights, network)
    ids = next(key for key in weights if name in key)
    with pytest.raises(ModelFileError, match=f"{name}.* must be counted from 0"):
        _check_values({**weights, ids: weights[ids] + 3}, network)
