"""Networks to be trained, and what they must share to be trained as one program."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, cast

import joblib
import numpy as np
import torch
from torch import nn

from skmoe.batches import Rows, count_batches
from skmoe.known_by_hand import common_shape, is_known
from skmoe.nn.base import Network
from skmoe.nn.networks import MoENetwork
from skmoe.plan import TrainingPlan, TrainingResult
from skmoe.precision import asked_for


@dataclass(eq=False)
class Request:
    """A network to be trained: the arguments of `train_alone`, and what came of it."""

    network: Network
    rows: Rows
    validation: Rows | None
    plan: TrainingPlan
    generator: torch.Generator
    optimizer_state: dict[str, Any] | None = None
    restart: int = 0
    progress: dict[str, Any] | None = None
    outcome: TrainingResult | Exception | None = None
    """The result, or what `train_alone` would have raised."""
    seconds: float = 0.0
    """Its share of the time."""
    together: int = 1
    """How many were trained as one program."""
    products: str = field(default_factory=asked_for)
    """Precision of matrix products on a GPU, as the fit has set it."""

    @cached_property
    def is_known_by_hand(self) -> bool:
        """Whether the gradient of the network is known by hand."""
        plan = self.plan
        return is_known(self.network, plan.fit_loss, plan.auxiliary_losses)


def kind_of(request: Request) -> Hashable:
    """What networks must share to be trained together; unique if one must be alone."""
    plan, rows = request.plan, request.rows
    watched = plan.callbacks or plan.monitors or plan.verbose or plan.checkpoint
    between_epochs = plan.before_epoch or plan.after_epoch
    special = between_epochs or plan.at_rest or request.optimizer_state is not None
    if watched or special:
        return id(request)
    terms = [(term.name, term.weight, _settings(term.loss)) for term in plan.auxiliary_losses]
    # A loss that is annealed is one for all.
    annealed = any(hasattr(term.loss, "anneal") for term in plan.auxiliary_losses)
    course = plan.batch_size, plan.scheduled, plan.max_epochs if annealed else None
    columns = [(part.shape[1:], part.dtype, part.device) for part in (rows.x, rows.y)]
    data = str(columns), request.validation is None, request.products
    criterion = describe(plan.fit_loss)
    if request.is_known_by_hand:
        n_batches = count_batches(len(rows), plan.batch_size)
        shape = common_shape(cast(MoENetwork, request.network))
        return str((criterion, shape, terms)), course, data, n_batches
    modules = [describe(request.network), criterion]
    return str((modules, terms)), course, data, rows.weight.shape


def describe(module: nn.Module) -> list[Any]:
    """All that decides what a module computes, but for the values of its tensors."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    shapes = [(name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in tensors]
    return [shapes, *((name, _settings(part)) for name, part in module.named_modules())]


def _settings(part: Any) -> Any:
    """Type and plain attributes; of a function, itself.

    Classes and functions are told apart by what they are: made within a function, several
    have the same name.
    """
    if isinstance(part, type):
        return _one(part)
    if not hasattr(part, "__dict__") or isinstance(part, partial):
        return repr(part)
    if hasattr(part, "__qualname__"):
        return repr(part)  # with its address
    kept = {k: v for k, v in vars(part).items() if k not in _NOT_SETTINGS}
    return _one(type(part)), sorted((k, _value(v)) for k, v in kept.items())


def _value(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return joblib.hash(value)  # its text would leave out most of it
    return _settings(value) if callable(value) else repr(value)


def _one(kind: type) -> str:
    return f"{kind.__qualname__} at {id(kind)}"


_NOT_SETTINGS = {*vars(nn.Module()), "generator"}
