"""`DeepMoERegressor`: several layers or blocks of experts."""

import os
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from skmoe._registry import Part, Spec
from skmoe._validation import NamedPartOf, PartOf, at_least, check_is_fitted, one_of, positive
from skmoe.batches import Rows
from skmoe.estimators import _auto, _blocks
from skmoe.estimators._attempts import Attempt
from skmoe.estimators._base import BaseMoERegressor
from skmoe.estimators._parameters import documented
from skmoe.initialization import INITS
from skmoe.model import FittedModel
from skmoe.nn.experts import EXPERTS, LatentExperts
from skmoe.nn.gates import GATES
from skmoe.nn.networks import ARRANGEMENTS
from skmoe.plan import TrainingPlan


@documented(gate='"auto"', auxiliary_losses="None", learning_rate='"auto"', weight_decay="1e-2")
class DeepMoERegressor(BaseMoERegressor):
    """Deep mixture of experts: L layers of E experts for functions with up to E^L pieces.

    In the arrangement "parallel", L blocks look at the raw input side by side. Each has a
    low-dimensional encoder, a gate and experts of its own, and a residual net on the embedded
    input combines their answers: the shape that Wang & E (2025), theorem 5.2, give to
    functions ``f_out(f_1(x_1), ..., f_L(x_L))`` with E pieces per factor. In a "stack", the
    layers follow one another on a residual state, each after a dense layer. An "ensemble", the
    default below 2,000 rows, is the mean of L small nets with one block each; each of them
    leaves out some rows, on which it shows when to stop.

    Parameters
    ----------
    n_layers : int or "auto", default="auto"
        Number of blocks, layers or members L. "auto" is 8, as more blocks than the target has
        factors train better; where blocks start at regions it is the number of factors found,
        and 1 if y jumps on few axes that hold all features (see `init`).
    n_experts : int or "auto", default="auto"
        Number of experts in each. "auto" is 8, 4 in an ensemble, and 16 where blocks start at
        regions (see `init`).
    {routing}
    arrangement : {{"parallel", "stack", "ensemble"}}, part(...) or "auto", default="auto"
        How layers are put together. Settings of "parallel": `trunk` (whether the combining
        net sees the input too), `n_dense` (its residual layers), `block_outputs`; of
        "ensemble": `n_dense` and `block_outputs`; of "stack": `dense` (whether dense layers
        alternate with the others); of all: `activation`. "auto" is "ensemble" below 2,000
        rows unless `solver` solves for the last maps, else "parallel".
    model_dim : int or "auto", default="auto"
        Width of the combining net, of the state of a stack, or of a member. "auto" is 128,
        and 64 up to 512 rows; in an ensemble 32, and 16 up to 256 rows.
    expert : {experts}, part(...) or class, default="latent"
        What an expert is. "latent" has a linear encoder of the block's input to
        `latent_dim` dimensions (3 by default), in front of gate and experts.
    hidden_dim : int or "auto", default="auto"
        Width of an expert, for the kinds that have a hidden layer. "auto" is 32, and 8
        up to 512 rows or in an ensemble; 24 where blocks start at regions, 64 on few axes.
    {training}

    Attributes
    ----------
    {attributes}
    block_directions_ : list of ndarray of shape (n_features, dim), or None
        The factors of the function at which the blocks started, as maps from the features:
        see `init`. None if none were found.
    expert_usage_ : ndarray of shape (n_layers, n_experts)
        Share of each layer's routing weight that its experts get on training rows; rows sum
        to one. An expert below ``1 / (10 n_experts)`` counts as dead.

    See Also
    --------
    MoERegressor : One layer of experts.

    References
    ----------
    M. Wang and W. E. "On the Expressive Power of Mixture-of-Experts for Structured Complex
    Tasks", 2025, arXiv:2505.24205.

    Examples
    --------
    >>> from skmoe import DeepMoERegressor
    >>> from skmoe.datasets import make_compositional_regression
    >>> X, y = make_compositional_regression(400, n_blocks=2, random_state=0)
    >>> moe = DeepMoERegressor(n_layers=2, n_experts=4, random_state=0).fit(X, y)
    >>> moe.apply(X).shape
    (400, 2)
    >>> [weights.shape for weights in moe.predict_gates(X)]
    [(400, 4), (400, 4)]
    """

    _hidden_dims = {"usual": 32, "small": 8}
    _networks = tuple(ARRANGEMENTS)
    _parameter_constraints: dict[str, Any] = {
        **BaseMoERegressor._parameter_constraints,
        "n_layers": [at_least(1), one_of("auto")],
        "model_dim": [at_least(1), one_of("auto")],
        "arrangement": [NamedPartOf(ARRANGEMENTS), one_of("auto")],
        "learning_rate": [positive(), one_of("auto")],
        "gate": [one_of("auto"), PartOf(GATES)],
        "init": [one_of("auto", "blocks", "regions"), PartOf(INITS)],
    }

    def __init__(
        self,
        n_layers: int | str = "auto",
        n_experts: int | str = "auto",
        *,
        top_k: int | str | None = "auto",
        n_shared_experts: int = 0,
        arrangement: Spec = "auto",
        model_dim: int | str = "auto",
        gate: Spec = "auto",
        router: Spec = "softmax",
        expert: Spec | list[Any] = "latent",
        hidden_dim: int | str = "auto",
        embedding: Spec | None = "auto",
        loss: Spec = "squared_error",
        auxiliary_losses: dict[Any, float] | None = None,
        init: Any = "auto",
        solver: str = "auto",
        learning_rate: float | str = "auto",
        weight_decay: float = 1e-2,
        batch_size: int | str = "auto",
        max_epochs: int | str = "auto",
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int | None = None,
        warm_start: bool = False,
        callbacks: Sequence[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_layers = n_layers
        self.n_experts = n_experts
        self.top_k = top_k
        self.n_shared_experts = n_shared_experts
        self.arrangement = arrangement
        self.model_dim = model_dim
        self.gate = gate
        self.router = router
        self.expert = expert
        self.hidden_dim = hidden_dim
        self.embedding = embedding
        self.loss = loss
        self.auxiliary_losses = auxiliary_losses
        self.init = init
        self.solver = solver
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @property
    def block_directions_(self) -> Any:
        """Where the blocks started, ``(n_features, dim)`` each; None if nothing was found."""
        check_is_fitted(self)
        return self._model.block_directions

    def _network(self, n_rows: int) -> tuple[str, dict[str, Any]]:
        spec = self._arrangement(n_rows)
        _, settings = ARRANGEMENTS.resolve(spec)
        if spec.name == "ensemble":
            model_dim = _auto.member_dim(self.model_dim, n_rows)
        else:
            model_dim = _auto.width(self.model_dim, n_rows, usual=128, small=64)
        sizes = {"n_layers": _auto.n_layers(self.n_layers), "model_dim": model_dim}
        return spec.name, {**sizes, **settings}

    def _sizes(self, n_rows: int, n_features: int, solver: str) -> dict[str, Any]:
        sizes = super()._sizes(n_rows, n_features, solver)
        if self._is_ensemble(n_rows) and self.hidden_dim == "auto":
            sizes["hidden_dim"] = self._hidden_dims["small"]
        return {**sizes, "gate": _auto.deep_gate(self.gate, n_rows)}

    def _is_ensemble(self, n_rows: int) -> bool:
        return self._arrangement(n_rows).name == "ensemble"

    def _attempts(
        self,
        model: FittedModel,
        rows: Rows,
        held_out: Rows | None,
        plan: TrainingPlan,
        random: np.random.RandomState,
    ) -> Iterator[Attempt]:
        if not self._may_have_blocks(len(rows)):
            return super()._attempts(model, rows, held_out, plan, random)
        seed = int(random.randint(2**31 - 1))
        sizes = ("n_layers", "n_experts", "model_dim", "hidden_dim", "top_k")
        names = {size for size in sizes if not _auto.is_auto(getattr(self, size))}
        names |= set(self._arrangement(len(rows)).settings)
        given = {name: model.architecture.arguments[name] for name in names}
        regions = self._may_have_regions(held_out)
        return _blocks.attempts_at_blocks(model, rows, held_out, plan, seed, given, regions)

    def _arrangement(self, n_rows: int) -> Part:
        return _auto.arrangement(self.arrangement, n_rows, self.solver)

    def _may_have_blocks(self, n_rows: int) -> bool:
        """Whether to look for factors of the function, and whether blocks could use them."""
        wanted = self.init in ("blocks", "regions") or (
            self.init == "auto" and n_rows >= _auto.MIN_ROWS_FOR_BLOCKS
        )
        spec = self._arrangement(n_rows)
        return (
            wanted
            and _auto.predicts_a_value(self.loss)
            and spec.name == "parallel"
            and "trunk" not in spec.settings
            and EXPERTS.resolve(self.expert)[0] is LatentExperts
        )

    def _may_have_regions(self, held_out: Rows | None) -> bool:
        """Whether gates are ours to choose, and there are rows to choose by."""
        wanted = self.init == "regions" or (self.init == "auto" and held_out is not None)
        return wanted and self.gate == "auto" and self.router == "softmax"

    def _layers(self, arrays: Any, layer: int | None, stack: bool = False) -> Any:
        if stack:
            return np.stack(arrays)
        if layer is None:
            return arrays
        if not isinstance(layer, Integral) or layer not in range(len(arrays)):
            raise ValueError(f"layer must be in [0, {len(arrays) - 1}]. Got {layer!r}.")
        return arrays[layer]

    def _expert_answers(self, model: FittedModel, X: np.ndarray) -> Any:
        return model.experts(X)
