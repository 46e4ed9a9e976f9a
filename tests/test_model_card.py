"""What a model card says is true."""

import re

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error
from small import make

import skmoe
from skmoe import MoERegressor, part
from skmoe.model_card import model_card

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def problem():
    X = np.random.default_rng(0).normal(size=(60, 3))
    return pd.DataFrame(X, columns=["age", "a|b", "c"]), 300 + 20 * X[:, 0] ** 2


def sections(card):
    """Heading to the cells of its last table, line by line."""
    parts = re.split(r"^## (.*)\n", card, flags=re.MULTILINE)
    tables = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        tables[heading] = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in lines]
    return tables


@pytest.mark.parametrize("kind", ["shallow", "parallel", "stack", "ensemble"])
def test_tables_are_well_formed_and_tell_of_the_fit(kind, problem):
    X, y = problem
    moe = make(kind, max_epochs=3, gate=part("mlp", hidden_dim=3)).fit(X, y)
    card = model_card(moe)
    tables = sections(card)
    assert list(tables) == [
        "Model",
        "Data",
        "Parameters",
        "Fit",
        "Usage of the experts",
        "Versions",
    ]
    for block in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1
    assert ["class", type(moe).__name__] in tables["Model"]
    assert ["gate", "part('mlp', hidden_dim=3)"] in tables["Parameters"]
    assert ["random_state", "0"] in tables["Parameters"]
    assert ["epochs", "3"] in tables["Fit"]
    assert ["skmoe", skmoe.__version__] in tables["Versions"]
    assert ["scikit-learn", sklearn.__version__] in tables["Versions"]
    usage = tables["Usage of the experts"][2:]
    assert len(usage) == (1 if kind == "shallow" else 3)
    shares = [float(cell.split("%")[0]) for cell in usage[0][1:]]
    np.testing.assert_allclose(shares, 100 * np.atleast_2d(moe.expert_usage_)[0], atol=0.051)


def test_data_are_told_of_in_the_units_of_the_user(problem):
    X, y = problem
    moe = make("shallow", max_epochs=2).fit(X, y)
    card = model_card(moe, target_name="noise (dB)")
    assert "| features | 3 |" in card
    assert f"| rows learned from | {moe.n_samples_fit_:,} |" in card
    assert "| a\\|b | " in card
    lines = {line[0]: line[1:] for line in sections(card)["Data"] if len(line) == 3}
    center, scale = map(float, lines["noise (dB)"])
    assert center == pytest.approx(y.mean(), rel=1e-3)
    assert scale == pytest.approx(y.std(), rel=1e-3)


def test_scores_are_those_of_the_given_rows_and_weights(problem):
    X, y = problem
    two, weight = np.column_stack([y, -y]), np.linspace(0, 1, len(y))
    moe = make("shallow", max_epochs=3).fit(X, two)
    tables = sections(model_card(moe, X, two, sample_weight=weight, target_name="t"))
    lines = {line[0]: line[1:] for line in tables["Scores"]}
    error = mean_absolute_error(two[:, 1], moe.predict(X)[:, 1], sample_weight=weight)
    assert float(lines["t [1]"][2]) == pytest.approx(error, rel=1e-3)
    one = make("shallow", max_epochs=3).fit(X, y)
    lines = {line[0]: line[1:] for line in sections(model_card(one, X, y))["Scores"]}
    assert float(lines["y"][0]) == pytest.approx(one.score(X, y), rel=1e-3, abs=1e-4)


def test_dead_experts_and_titles_and_many_features(problem):
    X, y = problem
    wide = np.tile(X, (1, 20))
    moe = MoERegressor(3, solver="ridge", hidden_dim=4).fit(wide, y)
    moe.expert_usage_[:] = [1, 0, 0]
    card = model_card(moe, title="Noise", description="Not for aeroplanes.")
    assert card.startswith("# Noise\n\nNot for aeroplanes.\n\n## Model")
    assert card.count("(dead)") == 2
    assert "feature 1" not in card
    assert "mean squared error after the ridge regression" in card


def test_what_has_no_card_is_refused(problem):
    X, y = problem
    with pytest.raises(NotFittedError):
        model_card(MoERegressor())
    with pytest.raises(ValueError, match="must be a mixture of experts"):
        model_card(Ridge())
    moe = make("shallow", max_epochs=2).fit(X, y)
    with pytest.raises(ValueError, match="X and y must be given together"):
        model_card(moe, X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model_card(moe, X, y[:-1])


@pytest.mark.parametrize("name", ["usage.png", "usage.svg"])
def test_a_picture_of_the_usage_is_drawn_and_shown(name, problem, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    moe = make("stack", max_epochs=2).fit(*problem)
    card = model_card(moe, usage_plot=name)
    assert f"![Usage of the experts]({name})" in card
    assert (tmp_path / name).read_bytes()[:4] in (b"\x89PNG", b"<?xm")
    assert plt.get_fignums() == []
    assert "![" not in model_card(moe)
