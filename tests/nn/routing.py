"""Routers, and what they answer, for the tests of routers."""

from skmoe._registry import part
from skmoe.nn.base_routers import Routing
from skmoe.nn.routers import ROUTERS

E = 5


def build(kind, top_k=None, n_experts=E, **settings):
    router = ROUTERS.build(part(kind, **settings), top_k).double()
    router.prepare(2, n_experts)
    return router.double()


def route(kind, said_BTS, top_k=None, **settings) -> Routing:
    return build(kind, top_k, said_BTS.shape[-1], **settings)(said_BTS)
