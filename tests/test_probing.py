"""Linear probes of layers, against what is known of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmoe import DeepMoERegressor, MoERegressor
from skmoe.inspection import concept_depth, hidden_states, layer_probe
from skmoe.model import Architecture, FittedModel
from skmoe.nn.networks import theorem_network
from skmoe.scaling import Scaling

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
N, L, E = 400, 3, 4
KINDS = {
    "shallow": lambda: MoERegressor(4, max_epochs=5, random_state=0),
    "stack": lambda: DeepMoERegressor(
        3, arrangement="stack", model_dim=12, max_epochs=5, random_state=0
    ),
    "parallel": lambda: DeepMoERegressor(
        3, arrangement="parallel", max_epochs=5, random_state=0
    ),
    "ensemble": lambda: DeepMoERegressor(
        3, arrangement="ensemble", max_epochs=5, random_state=0
    ),
}


@pytest.fixture(params=KINDS)
def fitted(request):
    X = np.random.default_rng(0).normal(size=(N, 5)) * [1, 10, 0.1, 1, 1]
    y = np.sin(X[:, 0]) + X[:, 3] * X[:, 4]
    return KINDS[request.param]().fit(X, y), X, y


@pytest.fixture(scope="module")
def theorem():
    """The hand-set network on the cube, block l of which writes the number of the region."""
    numbers = torch.arange(E, dtype=torch.float64).expand(L, -1)
    net = theorem_network(L, E, slopes=torch.zeros(L, E), offsets=numbers)
    X = np.random.default_rng(0).uniform(0, E, (N, L))
    nothing = [Scaling(np.zeros(L), np.ones(L)) for _ in range(2)]
    moe = DeepMoERegressor(L, E).fit(X, X[:, 0])
    moe._model = FittedModel(Architecture("stack", {}), net, *nothing)
    return moe, X, np.floor(X)


def test_states_are_the_rows_and_one_for_each_layer(fitted):
    moe, X, _ = fitted
    states = hidden_states(moe, X)
    assert len(states) == 1 + (3 if isinstance(moe, DeepMoERegressor) else 1)
    assert np.array_equal(states[0], X)
    assert all(len(state) == N and np.isfinite(state).all() for state in states)


def test_prediction_is_a_function_of_the_last_state(fitted):
    moe, X, _ = fitted
    model, states = moe._model, hidden_states(moe, X)[1:]
    net = model.net
    if model.architecture.network == "shallow":
        answer = states[-1]
    elif model.architecture.network == "stack":
        answer = net.head(torch.from_numpy(states[-1])).detach().numpy()
    elif model.architecture.network == "parallel":
        g, x = torch.from_numpy(np.stack(states)), model.tensor(X)
        answer = net.head(net.state_after(g, x)).detach().numpy()
    else:
        answer = net.heads(torch.from_numpy(np.stack(states))).mean(0).detach().numpy()
    assert_allclose(model.y_scaling.invert(answer).ravel(), moe.predict(X), atol=1e-6)


def test_probe_of_the_rows_is_plain_ridge(fitted):
    moe, X, y = fitted
    folds = KFold(4, shuffle=True, random_state=1)
    ridge = make_pipeline(StandardScaler(), Ridge())
    expected = cross_val_score(ridge, X, y, cv=folds).mean()
    assert_allclose(layer_probe(moe, X, y, cv=folds)[0], expected)


def test_probe_of_labels_is_logistic_regression(fitted):
    moe, X, _ = fitted
    labels = np.where(X[:, 0] > 0, "right", "left")
    folds = KFold(4, shuffle=True, random_state=1)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    expected = cross_val_score(regression, X, labels, cv=folds).mean()
    assert_allclose(layer_probe(moe, X, labels, cv=folds)[0], expected)


def test_each_target_is_probed_by_itself(fitted):
    moe, X, y = fitted
    both = layer_probe(moe, X, np.c_[y, X[:, 1]])
    assert_allclose(both[:, 0], layer_probe(moe, X, y))
    assert_allclose(both[:, 1], layer_probe(moe, X, X[:, 1]))


def test_columns_of_a_data_frame_keep_their_types(fitted):
    moe, X, y = fitted
    labels = (X[:, 0] > 0).astype(int)
    both = layer_probe(moe, X, pd.DataFrame({"y": y, "label": labels}))
    assert_allclose(both, np.c_[layer_probe(moe, X, y), layer_probe(moe, X, labels)])


def test_training_makes_the_target_known():
    X = np.random.default_rng(0).normal(size=(N, 3))
    y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]
    moe = DeepMoERegressor(3, arrangement="stack", model_dim=12, random_state=0).fit(X, y)
    scores = layer_probe(moe, X, y)
    assert scores[0] < 0.5
    assert scores[-1] > 0.95


def test_probe_and_scoring_are_free_to_choose(fitted):
    moe, X, y = fitted
    scores = layer_probe(
        moe, X, y, probe=DummyRegressor(), scoring="neg_mean_squared_error", cv=2
    )
    assert_allclose(scores, -y.var(), rtol=0.05)


def test_rare_labels_are_no_error(fitted):
    moe, X, _ = fitted
    labels = np.zeros(N, dtype=int)
    labels[:2], labels[2:9] = 1, 2
    assert layer_probe(moe, X, labels).min() > 0.9


def test_region_of_a_block_is_known_exactly_from_its_layer_on(theorem):
    moe, X, regions = theorem
    scores = layer_probe(moe, X, regions, probe=Ridge(alpha=1e-9))
    for block in range(L):
        assert_allclose(scores[block + 1 :, block], 1.0, atol=1e-9)
        assert (scores[: block + 1, block] < 0.99).all()
    assert concept_depth(scores, share=0.999).tolist() == [1, 2, 3]


def test_labels_of_regions_are_known_exactly_from_their_layer_on(theorem):
    moe, X, regions = theorem
    scores = layer_probe(moe, X, regions.astype(int))
    for block in range(L):
        assert_allclose(scores[block + 1 :, block], 1.0)
        assert (scores[1 : block + 1, block] < 0.5).all()


def test_depth_is_the_first_layer_near_the_best():
    scores = np.array([[0.1, 0.9, -0.5], [0.94, 0.9, 0.0], [0.96, 0.91, -0.1], [1.0, 0.2, -3]])
    assert concept_depth(scores).tolist() == [2, 0, -1]
    assert concept_depth(scores, share=1.0).tolist() == [3, 2, -1]
    assert concept_depth(scores[:, 0], share=0.9) == 1


@pytest.mark.parametrize("share", [0, 1.5, "half"])
def test_bad_share_is_refused(share):
    with pytest.raises(ValueError, match=r"share must be .*Got"):
        concept_depth([0.1, 0.2], share=share)


def test_numbers_of_rows_must_agree(fitted):
    moe, X, y = fitted
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        layer_probe(moe, X, y[:-1])


def test_unfitted_estimators_are_refused():
    with pytest.raises(NotFittedError):
        layer_probe(MoERegressor(), [[0.0]], [0.0])
