"""What experts say along a feature is what is predicted if they answer alone."""

import numpy as np
import pandas as pd
import pytest
from small import make

from skmoe.inspection import expert_response
from skmoe.response import MAX_ROWS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
N = 40


@pytest.fixture
def problem():
    X = np.random.default_rng(0).normal(size=(N, 3))
    return X, 300 + 20 * X[:, 0] ** 2 + X[:, 1]


def moved(X, column, value):
    X = X.copy()
    X[:, column] = value
    return X


@pytest.mark.parametrize("n_shared", [0, 1])
@pytest.mark.parametrize("n_outputs", [0, 2])
def test_of_one_layer_answers_are_those_of_the_experts(n_shared, n_outputs, problem):
    X, y = problem
    targets = np.column_stack([y, -y]) if n_outputs else y
    moe = make("shallow", n_shared_experts=n_shared, top_k=2).fit(X, targets)
    response = expert_response(moe, X, 1, output=n_outputs // 2, grid_resolution=5)
    assert np.array_equal(response.grid, np.linspace(X[:, 1].min(), X[:, 1].max(), 5))
    rows = moved(X, 1, response.grid[3])
    answers, shared = moe.predict_experts(rows), moe.predict_shared(rows)
    prediction = moe.predict(rows)
    if n_outputs:
        answers, shared, prediction = answers[..., 1], shared[:, 1], prediction[:, 1]
    np.testing.assert_allclose(response.answers[3], (answers + shared[:, None]).mean(0))
    np.testing.assert_allclose(response.weights[3], moe.predict_gates(rows).mean(0))
    assert response.prediction[3] == pytest.approx(prediction.mean())


@pytest.mark.parametrize("kind", ["parallel", "stack", "ensemble"])
@pytest.mark.parametrize("layer", [0, 2])
def test_of_deep_mixtures_one_expert_answers_for_its_layer(kind, layer, problem):
    X, y = problem
    moe = make(kind).fit(X, y)
    response = expert_response(moe, X, 0, layer=layer, grid_resolution=4)
    rows = moved(X, 0, response.grid[2])
    # The gate made to choose one expert: what is predicted then is that expert's answer.
    layers = moe.net_.moe_layers()
    owner, block = (layers[layer], 0) if kind == "stack" else (layers[0], layer)
    bias = owner.gate.linear.bias
    for expert in range(4):
        bias.data[block, ..., expert] += 1e4
        np.testing.assert_allclose(response.answers[2, expert], moe.predict(rows).mean())
        bias.data[block, ..., expert] -= 1e4
    assert np.ptp(response.answers[2]) > 0


def test_features_have_names_and_wrong_ones_are_refused(problem):
    X, y = problem
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    moe = make("shallow", max_epochs=2).fit(frame, y)
    by_name, by_number = (expert_response(moe, frame, f, grid_resolution=3) for f in ("b", 1))
    assert by_name.feature_name == by_number.feature_name == "b"
    assert np.array_equal(by_name.answers, by_number.answers)
    for wrong, message in (
        ({"feature": "d"}, r"feature must be one of \['a', 'b', 'c'\]. Got 'd'"),
        ({"feature": 3}, r"feature must be in \[0, 2\]. Got 3"),
        ({"layer": 1}, r"layer must be in \[0, 0\]. Got 1"),
        ({"output": -1}, r"output must be in \[0, 0\]. Got -1"),
        ({"grid_resolution": 1}, "grid_resolution must be an int of at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            expert_response(moe, frame, **{"feature": 0, **wrong})


def test_rows_are_taken_from_all_over(problem):
    moe = make("shallow").fit(*problem)
    rows = np.random.default_rng(1).normal(size=(2 * MAX_ROWS - 1, 3))
    rows = rows[np.argsort(rows[:, 0])]
    some = expert_response(moe, rows, 1, grid_resolution=5)
    upper = expert_response(moe, rows[::2], 1, grid_resolution=5)
    np.testing.assert_allclose(some.prediction.mean(), upper.prediction.mean(), rtol=1e-2)


def test_of_many_rows_some_are_taken(problem):
    X, y = problem
    moe = make("shallow", max_epochs=2).fit(X, y)
    many = np.tile(X, (20, 1))
    response = expert_response(moe, many, 0, grid_resolution=2)
    some = moved(many[:: len(many) // MAX_ROWS][:MAX_ROWS], 0, response.grid[1])
    assert response.prediction[1] == pytest.approx(moe.predict(some).mean())
