"""ONNX Runtime predicts what `predict` does, for every part that can be exported."""

import sys

import numpy as np
import onnxruntime
import pytest
from sklearn.exceptions import NotFittedError
from small import make

from skmoe import DeepMoERegressor, MoERegressor, part
from skmoe.nn.embeddings import EMBEDDINGS
from skmoe.nn.experts import EXPERTS
from skmoe.nn.gates import GATES, LinearGate
from skmoe.nn.routers import ROUTERS

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
QUICK = {"max_epochs": 3, "hidden_dim": 4}
# Their own gate cannot be exported.
REFUSED = {("gate", "hash"), ("router", "hash")}


@pytest.fixture(scope="module")
def problem():
    """Rows with a constant column and outliers, in units far from 1."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)) * [1.0, 50.0, 0.0, 0.01] + [0.0, 300.0, 7.0, 1.0]
    X[::20, 0] *= 100
    return X, 40 + 7 * np.sin(X[:, 0]) + 0.05 * X[:, 1]


def run(path, X):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    (y,) = session.run(None, {"X": X})
    return y


def assert_agrees(moe, X, tmp_path):
    path = tmp_path / "model.onnx"
    moe.export_onnx(path)
    wanted = moe.predict(X)
    error = np.abs(run(path, X) - wanted.reshape(len(X), -1)).max()
    assert error <= 1e-5 * wanted.std()
    assert run(path, X[:1]).shape == (1, wanted.reshape(len(X), -1).shape[1])


PARTS = {"gate": GATES, "router": ROUTERS, "expert": EXPERTS, "embedding": EMBEDDINGS}


def parts_together():
    """Every part that can be exported, in as few models as there are of the largest kind."""
    kinds = {
        kind: [name for name in names if (kind, name) not in REFUSED]
        for kind, names in PARTS.items()
    }
    most = max(map(len, kinds.values()))
    return [{kind: names[i % len(names)] for kind, names in kinds.items()} for i in range(most)]


CURVED = {name: part(name, degree=2) for name in ("region", "patch")}


@pytest.mark.parametrize("parts", parts_together(), ids=lambda parts: "-".join(parts.values()))
def test_every_part_agrees(parts, problem, tmp_path):
    X, y = problem
    parts = {kind: CURVED.get(name, name) for kind, name in parts.items()}
    assert_agrees(make("shallow", **QUICK, **parts).fit(X, y), X, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["parallel", "stack", "ensemble"])
def test_every_network_agrees(kind, dtype, problem, tmp_path):
    X, y = problem
    moe = make(kind, **QUICK, top_k=3, dtype=dtype, n_shared_experts=1)
    assert_agrees(moe.fit(X, np.column_stack([y, -y])), X, tmp_path)


@pytest.mark.parametrize("estimator", [MoERegressor, DeepMoERegressor])
def test_defaults_agree(estimator, problem, tmp_path):
    X, y = problem
    assert_agrees(estimator(random_state=0, max_epochs=5).fit(X, y), X, tmp_path)


OTHERS = {
    "closed form": {"solver": "ridge"},
    "kinds": {"expert": ["linear", "mlp", "constant", "latent"]},
    "some": {"top_k": 2},
    "distribution": {"loss": "gaussian_nll"},
    "bisection": {"router": part("entmax", alpha=1.3)},
    "threshold": {"router": part("sigmoid", threshold="learn"), "top_k": 3},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_agree(name, problem, tmp_path):
    X, y = problem
    assert_agrees(make("shallow", **{**QUICK, **OTHERS[name]}).fit(X, y), X, tmp_path)


def test_tuned_models_agree(problem, tmp_path):
    X, y = problem
    moe = make("shallow", **QUICK).fit(X, y).fine_tune(X, y + X[:, 0], method="adapters")
    assert_agrees(moe, X, tmp_path)


@pytest.mark.parametrize(("parameter", "name"), sorted(REFUSED))
def test_what_cannot_be_exported_is_refused_by_name(parameter, name, problem, tmp_path):
    X, y = problem
    moe = make("shallow", **QUICK, **{parameter: name}).fit(X, y)
    with pytest.raises(ValueError, match=f"{parameter}='hash'.*cannot be exported"):
        moe.export_onnx(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


class Looks(LinearGate):
    """A gate that looks at values, which no graph can."""

    def score(self, x_BTD):
        return super().score(x_BTD) if bool(x_BTD.sum() > 0) else -super().score(x_BTD)


def test_own_parts_that_cannot_be_exported_are_named(problem, tmp_path):
    X, y = problem
    moe = make("shallow", **QUICK, gate=Looks).fit(X, y)
    with pytest.raises(ValueError, match=r"gate=.*Looks.* cannot be exported"):
        moe.export_onnx(tmp_path / "model.onnx")


def test_unfitted_estimators_and_missing_packages_are_told(problem, tmp_path, monkeypatch):
    with pytest.raises(NotFittedError):
        MoERegressor().export_onnx(tmp_path / "model.onnx")
    moe = make("shallow", max_epochs=1).fit(*problem)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install skmoe\[onnx\]"):
        moe.export_onnx(tmp_path / "model.onnx")


def test_export_is_silent(problem, tmp_path, capfd):
    make("shallow", max_epochs=1).fit(*problem).export_onnx(tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
