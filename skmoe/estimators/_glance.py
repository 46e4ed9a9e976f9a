"""A mixture at a glance: what it is made of, how large it is, and whether it is fitted."""

import html
import os
from importlib import metadata
from typing import Any

from sklearn.utils import estimator_html_repr

from skmoe._registry import name_of
from skmoe.loop import count_dead
from skmoe.nn.base import Network
from skmoe.nn.base_experts import Experts

# Pages of the documentation: of an estimator, and of lines of the glance.
PAGE = "/api/generated/skmoe.{estimator_name}.html"
PAGES = {
    "layers": "/choosing.html#how-many-layers",
    "experts": "/choosing.html#how-many-experts",
    "asked per row": "/guide/using_parts.html#sparse-or-soft",
    "gate": "/api/generated/skmoe.nn.gates.html",
    "router": "/api/generated/skmoe.nn.routers.html",
}
STYLE = (
    "display:inline-block; margin:0 0 .4em; padding:.3em .8em; border:1px solid currentColor;"
    " border-radius:.3em; font:.85em monospace; opacity:.9"
)
CELL = "text-align:left; padding:.1em .8em .1em 0; background:none; border:0"


def documentation() -> str:
    """Where the documentation is: SKMOE_DOCS of the environment, or the metadata say.

    Empty if neither do.
    """
    if address := os.environ.get("SKMOE_DOCS"):
        return address.rstrip("/")
    try:
        urls = metadata.metadata("skmoe").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return str(named.get("Documentation", "")).rstrip("/")


class Documented:
    """Links to the documentation, where scikit-learn shows them."""

    _doc_link_module = "skmoe"

    @property
    def _doc_link_template(self) -> str:
        address = documentation()
        return address + PAGE if address else ""

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        return {"estimator_name": type(self).__name__}


class Glance(Documented):
    """What a notebook shows of a mixture."""

    def _html_repr(self) -> str:
        """scikit-learn's own picture, below a table of what the mixture is made of."""
        lines = "".join(
            f'<tr><th style="{CELL}">{_linked(name)}</th>'
            f'<td style="{CELL}">{html.escape(value)}</td></tr>'
            for name, value in at_a_glance(self).items()
        )
        table = f'<table style="border-collapse:collapse">{lines}</table>'
        return f'<div style="{STYLE}">{table}</div>{estimator_html_repr(self)}'


def _linked(name: str) -> str:
    """The name of a line, with a link to its page if it has one and the address is known."""
    address = documentation()
    if not address or name not in PAGES:
        return html.escape(name)
    page = html.escape(address + PAGES[name])
    looks = 'style="color:inherit" target="_blank" rel="noreferrer"'
    return f'<a href="{page}" {looks}>{html.escape(name)}</a>'


def at_a_glance(estimator: Any) -> dict[str, str]:
    """Names and values of a few lines about an estimator, fitted or not."""
    if not hasattr(estimator, "_model"):
        return {**_made_of(estimator, estimator.get_params(deep=False)), "state": "not fitted"}
    model = estimator._model
    arguments = model.architecture.arguments
    network = model.architecture.network
    if network == "adapted":
        network, arguments = arguments["base"], arguments["base_arguments"]
    total, active = count_weights(model.net)
    dead = count_dead(_rows(estimator.expert_usage_.tolist()))
    return {
        **_made_of(estimator, {**arguments, "arrangement": network}),
        "weights": f"{total:,}",
        "weights used per row": f"{active:,} ({active / total:.0%})",
        "state": _state(estimator, dead),
    }


def count_weights(network: Network) -> tuple[int, int]:
    """Weights in all, and those that one row uses: of asked experts, and all that are shared.

    Experts whose weights cannot be told apart, and those of a router that asks no fixed number
    of experts, count as used.
    """
    total = sum(weight.numel() for weight in network.parameters())
    idle = 0.0
    for layer in network.moe_layers():
        n_experts = layer.experts.n_experts
        asked = layer.router.top_k or n_experts
        idle += _own_weights(layer.experts) * (1 - asked / n_experts)
    return total, round(total - idle)


def _own_weights(experts: Experts) -> int:
    try:
        return sum(tensor.numel() for tensor in experts.own())
    except (NotImplementedError, ValueError):  # of several kinds or levels
        return 0


def _made_of(estimator: Any, given: dict[str, Any]) -> dict[str, str]:
    """Lines about experts, gate and router, from parameters or what became of them."""
    asked = given["top_k"]
    kind, number = name_of(given["expert"]), given["n_experts"]
    experts = f"{kind} (number: auto)" if number == "auto" else f"{number} {kind}"
    if given["n_shared_experts"]:
        experts += f", {given['n_shared_experts']} shared"
    lines = {
        "experts": experts,
        "asked per row": "all" if asked is None else str(asked),
        "gate": name_of(given["gate"]),
    }
    if hasattr(estimator, "n_layers"):
        arrangement = name_of(given["arrangement"])
        lines = {"layers": f"{given['n_layers']} (arrangement: {arrangement})", **lines}
    return {**lines, "router": name_of(given["router"])}


def _state(estimator: Any, dead: int) -> str:
    trained = f"fitted, {estimator.n_iter_} epoch{'s' * (estimator.n_iter_ != 1)}"
    return trained if not dead else f"{trained}, {dead} dead experts"


def _rows(usage: list[Any]) -> list[list[float]]:
    """Usage of each layer."""
    return usage if isinstance(usage[0], list) else [usage]
