"""What is in a file, and what does not get into one."""

import copy
import getpass
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from saved import QUICK, quiet
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from small import make

import skmoe
from skmoe import (
    DeepMoERegressor,
    ModelFileError,
    MoERegressor,
    inspect_model,
    load_model,
    part,
)

pytestmark = quiet


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
