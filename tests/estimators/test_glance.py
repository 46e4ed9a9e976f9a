"""What a notebook shows of a mixture is true of it."""

from email.message import Message
from importlib import metadata

import pytest
import sklearn
from small import make

from skmoe import DeepMoERegressor, MoERegressor, MoETransformer, part
from skmoe.estimators._glance import PAGES, at_a_glance, count_weights

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def _with_no_site_of_ones_own(monkeypatch):
    monkeypatch.delenv("SKMOE_DOCS", raising=False)


def test_of_an_estimator_that_is_not_fitted_parameters_are_told():
    glance = at_a_glance(DeepMoERegressor(n_experts=3, gate=part("mlp", hidden_dim=4)))
    assert glance == {
        "layers": "auto (arrangement: auto)",
        "experts": "3 latent",
        "asked per row": "auto",
        "gate": "mlp",
        "router": "softmax",
        "state": "not fitted",
    }


def test_of_a_fitted_one_what_became_of_them(problem):
    moe = make("shallow", n_experts=5, top_k=2, n_shared_experts=1, max_epochs=3).fit(*problem)
    glance = at_a_glance(moe)
    assert glance["experts"] == "5 mlp, 1 shared"
    assert glance["asked per row"] == "2"
    assert glance["gate"] == "linear"
    assert glance["state"].startswith("fitted, 3 epochs")
    ensemble = at_a_glance(make("ensemble", max_epochs=2).fit(*problem))
    assert ensemble["layers"] == "3 (arrangement: ensemble)"


@pytest.mark.parametrize("top_k", [None, 1, 3])
def test_active_weights_are_those_of_the_asked_experts_and_all_others(top_k, problem):
    moe = make("shallow", n_experts=4, top_k=top_k, max_epochs=2).fit(*problem)
    network = moe.net_
    of_one = sum(weight[0].numel() for weight in network.layer.experts.stacked())
    total = sum(weight.numel() for weight in network.parameters())
    assert count_weights(network) == (total, total - (4 - (top_k or 4)) * of_one)


@pytest.mark.parametrize("expert", [["mlp", "linear"], "cp", "merged", "mpo"])
def test_experts_of_every_kind_are_counted(expert, problem):
    moe = make("shallow", n_experts=2, expert=expert, max_epochs=2).fit(*problem)
    total, active = count_weights(moe.net_)
    assert active == total > 0
    assert "fitted" in moe._repr_html_()


def test_dead_experts_are_told_of(problem):
    moe = make("shallow", max_epochs=2).fit(*problem)
    moe.expert_usage_[:] = [1, 0, 0, 0]
    assert at_a_glance(moe)["state"].endswith("3 dead experts")


def test_adapted_and_compressed_mixtures_are_still_told_of(problem):
    X, y = problem
    moe = make("shallow", max_epochs=2).fit(X, y)
    adapted = make("shallow", max_epochs=2).fit(X, y).fine_tune(X, y, method="adapters")
    assert at_a_glance(adapted)["experts"] == "4 mlp"
    assert count_weights(adapted.net_)[0] > count_weights(moe.net_)[0]
    assert at_a_glance(moe.compress(rank=2))["experts"] == "4 latent"


def test_html_has_the_glance_and_the_picture_of_scikit_learn(kind, problem):
    moe = make(kind, max_epochs=2)
    assert "not fitted" in moe._repr_html_()
    shown = moe.fit(*problem)._repr_html_()
    for name, value in at_a_glance(moe).items():
        assert f">{name}</th>" in shown
        assert f">{value}</td>" in shown
    assert "sk-estimator" in shown
    assert "weights used per row" in moe._repr_mimebundle_()["text/html"]
    with sklearn.config_context(display="text"):
        assert not hasattr(moe, "_repr_html_")


def test_html_has_links_once_the_metadata_have_the_address(monkeypatch):
    def told(*urls):
        package = Message()
        for url in urls:
            package["Project-URL"] = url
        monkeypatch.setattr(metadata, "metadata", lambda name: package)

    told("Source, https://example.org/code")
    assert MoERegressor()._get_doc_link() == ""
    assert "?<span>Documentation" not in MoERegressor()._repr_html_()
    assert "<a href" not in MoERegressor()._repr_html_()
    told("Documentation, https://example.org/docs/")
    page = "https://example.org/docs/api/generated/skmoe.DeepMoERegressor.html"
    assert DeepMoERegressor()._get_doc_link() == page
    assert page in DeepMoERegressor()._repr_html_()

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", missing)
    assert MoERegressor()._get_doc_link() == ""


def test_a_site_of_ones_own_is_linked_to(monkeypatch):
    monkeypatch.setenv("SKMOE_DOCS", "http://localhost:8000/")
    shown = DeepMoERegressor()._repr_html_()
    assert all(f'href="http://localhost:8000{page}"' in shown for page in PAGES.values())
    assert (
        MoETransformer(MoERegressor())._get_doc_link()
        == "http://localhost:8000/api/generated/skmoe.MoETransformer.html"
    )
