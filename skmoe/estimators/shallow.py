"""`MoERegressor`: one layer of experts."""

import copy
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from skmoe._registry import Spec
from skmoe._validation import PartOf, fitted_estimator, one_of
from skmoe.axes import keep_straight
from skmoe.batches import Rows
from skmoe.common_factors import few_axes
from skmoe.estimators import _auto, _closed_form
from skmoe.estimators._attempts import Attempt, regions_first
from skmoe.estimators._base import BaseMoERegressor
from skmoe.estimators._brief import ROUGH, brief_fit
from skmoe.estimators._parameters import documented
from skmoe.estimators._pieces import attempts_at_pieces, start_layer_at_pieces
from skmoe.estimators._regions import fresh_layer, start_layer_at_regions
from skmoe.estimators._settling import SETTLED, settling
from skmoe.initialization import INITS
from skmoe.model import FittedModel
from skmoe.nn.base import Network
from skmoe.nn.gates import GATES
from skmoe.plan import TrainingPlan
from skmoe.scaling import Scaling
from skmoe.shared_work import once

# Regions are looked for so many times, from the second on in a brief fit at those of before.
READINGS = 3
# A brief fit at regions, with fresh experts, may be worse than a rough one by this factor.
MAY_BE_WORSE = 1.2


@documented(
    gate='"auto"',
    auxiliary_losses='"auto"',
    learning_rate="1e-2",
    weight_decay="1e-2",
)
class MoERegressor(BaseMoERegressor):
    """Mixture of experts: a learned gate shares the inputs out among small nets.

    ``f(x) = shared(x) + sum_k w_k(x) f_{{e_k}}(x)``, all of it trained jointly by gradient
    descent on standardised data. One layer of experts approximates a function on a
    d-dimensional manifold at a rate that depends on d, not on the number of features
    (Wang & E, 2025, theorem 4.8).

    Parameters
    ----------
    n_experts : int or "auto", default="auto"
        Number of experts. "auto" is 8, and 4 deeper ones on few axes (see `embedding`);
        in a closed-form fit 16 above 4,000 rows and 32 above 250,000.
    {routing}
    expert : {experts}, part(...) or class, default="mlp"
        What an expert is: "mlp" has a ReLU layer; in a closed-form fit one of GELU, which is
        smooth; on few axes from 2,000 rows on, one of SiLU and two residual layers. "latent"
        puts a low-dimensional linear encoder in front of gate and experts. "cp" and
        "tensor_ring" are linear maps of features that all experts share, in one factorised
        tensor, so that there may be thousands; "mpo" nets share the core of their maps;
        "merged" ones are one net for each row, of the mean of their weights. A list of
        kinds makes experts of several kinds, `n_experts` of them ("auto": as many).
    hidden_dim : int or "auto", default="auto"
        Width of an expert, for the kinds that have a hidden layer. "auto" is 64, and 32
        up to 512 rows; with ``solver="ridge"`` such that the hidden units of all experts
        are some ``16 sqrt(n)``, up to 2,048, or ``4 sqrt(n)``, up to 4,096.
    {training}

    Attributes
    ----------
    {attributes}
    expert_usage_ : ndarray of shape (n_experts,)
        Share of the routing weight that each expert gets on training rows; sums to one. An
        expert below ``1 / (10 n_experts)`` counts as dead.

    See Also
    --------
    DeepMoERegressor : Several layers or blocks of experts.

    References
    ----------
    M. Wang and W. E. "On the Expressive Power of Mixture-of-Experts for Structured Complex
    Tasks", 2025, arXiv:2505.24205.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(300, random_state=0)
    >>> moe = MoERegressor(n_experts=4, random_state=0).fit(X, y)
    >>> moe.predict(X).shape
    (300,)
    >>> moe.score(X, y) > 0.99
    True
    >>> moe.predict_gates(X).sum(axis=1).round(6).min()
    np.float64(1.0)
    """

    _hidden_dims = {"usual": 64, "small": 32}
    _networks = ("shallow",)
    _parameter_constraints: dict[str, Any] = {
        **BaseMoERegressor._parameter_constraints,
        "gate": [one_of("auto"), PartOf(GATES)],
        "auxiliary_losses": [one_of("auto"), dict, None],
        "init": [one_of("auto"), PartOf(INITS), fitted_estimator()],
    }

    def __init__(
        self,
        n_experts: int | str = "auto",
        *,
        top_k: int | str | None = "auto",
        n_shared_experts: int = 0,
        gate: Spec = "auto",
        router: Spec = "softmax",
        expert: Spec | list[Any] = "mlp",
        hidden_dim: int | str = "auto",
        embedding: Spec | None = "auto",
        loss: Spec = "squared_error",
        auxiliary_losses: dict[Any, float] | str | None = "auto",
        init: Any = "auto",
        solver: str = "auto",
        learning_rate: float | str = 1e-2,
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
        self.n_experts = n_experts
        self.top_k = top_k
        self.n_shared_experts = n_shared_experts
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

    def predict_shared(self, X: ArrayLike) -> np.ndarray:
        """What is added to the weighted experts: shared experts and intercept.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the units of y. Zero if nothing is shared and the weights sum to one: the
            intercept then is part of every expert.
        """
        model, X = self._ready(X)
        shared = model.shared(X)[0][:, : model.n_targets] + model.added(X)
        center = 0.0 if self._intercept_in_experts(model) else model.y_scaling.center
        return self._like_y(center + model.y_scaling.scale * shared)

    def _network(self, n_rows: int) -> tuple[str, dict[str, Any]]:
        return "shallow", {}

    def _looks_for_axes(self) -> bool:
        return _auto.is_auto(self.embedding) and not isinstance(self.init, BaseEstimator)

    def _feature_scaling(self, X: np.ndarray, weight: np.ndarray) -> Scaling:
        scaling = super()._feature_scaling(X, weight)
        if not self._looks_for_axes():
            return scaling
        return once(keep_straight, scaling, X, weight, _auto.MAX_AXES)

    def _axes(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Any:
        if not self._looks_for_axes():
            return None
        return once(few_axes, X, y, weight, _auto.MAX_AXES)

    def _shared_arguments(
        self, X: np.ndarray, weight: np.ndarray, n_outputs: int, solver: str, axes: Any
    ) -> dict[str, Any]:
        arguments = super()._shared_arguments(X, weight, n_outputs, solver, axes)
        if axes is None or solver == "ridge" or len(X) < _auto.MIN_ROWS_FOR_BLOCKS:
            return arguments
        return arguments | _auto.sizes_on_axes(self, len(X))

    def _sizes(self, n_rows: int, n_features: int, solver: str) -> dict[str, Any]:
        if solver == "ridge":
            sizes = _auto.sizes_without_training(self, n_rows)
        else:
            sizes = super()._sizes(n_rows, n_features, solver)
        return {**sizes, "gate": "linear" if _auto.is_auto(self.gate) else self.gate}

    def _step_factor(self, n_rows: int, network: Network) -> float:
        on_axes = network.axes is not None and n_rows >= _auto.MIN_ROWS_FOR_BLOCKS
        return _auto.STEPS_ON_AXES if on_axes else 1.0

    def _attempts(
        self,
        model: FittedModel,
        rows: Rows,
        held_out: Rows | None,
        plan: TrainingPlan,
        random: np.random.RandomState,
    ) -> Iterator[Attempt]:
        """At the regions between jumps, on few axes, if there are any; and as it was.

        They are compared without the few rows on the wrong side of a border.
        """
        if held_out is None or not self._may_have_regions(model, len(rows)):
            yield Attempt(model, plan)
            return
        seed = int(random.randint(2**31 - 1))
        at_regions = self._at_regions(model, rows, held_out, plan, seed)
        yield from regions_first(at_regions, Attempt(model, plan), held_out, plan.fit_loss)

    def _at_regions(
        self,
        model: FittedModel,
        rows: Rows,
        held_out: Rows | None,
        plan: TrainingPlan,
        seed: Any,
    ) -> Iterator[Attempt]:
        """The start that rows tell by themselves; else the best one at regions of brief fits.

        The latter only if a brief fit from there hardly loses to a rough one.
        """
        arguments, most = model.architecture.arguments, _auto.MAX_EXPERTS_ON_AXES
        names = [n for n in ("n_experts", "top_k") if not _auto.is_auto(getattr(self, n))]
        given = {name: arguments[name] for name in names}
        told = start_layer_at_pieces(model, rows, seed, most, given)
        if told is not None:
            yield from attempts_at_pieces(told, rows, plan, SETTLED)
            return
        few = min(arguments["n_experts"], _auto.EXPERTS_ON_AXES)
        start = fresh_layer(model, {"n_experts": few, "top_k": None}, seed)
        rough_loss = brief_fit(start, rows, held_out, plan, seed, ROUGH)
        brief = settling(plan, rows, 1.0)
        best, least = None, MAY_BE_WORSE * rough_loss
        for _ in range(READINGS):
            found = start_layer_at_regions(start, rows, seed, most, given)
            if found is None:
                break
            start, loss = found, brief_fit(found, rows, held_out, brief, seed, ROUGH)
            if loss <= least:
                best, least = start, loss
        if best is not None:
            settled = settling(plan, rows, resistant=True)
            yield Attempt(best, settled)

    def _may_have_regions(self, model: FittedModel, n_rows: int) -> bool:
        """Whether gates are ours to choose, and see few axes."""
        ours = _auto.is_auto(self.gate) and _auto.is_auto(self.init)
        ours = ours and self.router == "softmax" and _auto.are_alike(self.expert)
        ours = ours and _auto.predicts_a_value(self.loss)
        return ours and model.net.axes is not None and n_rows >= _auto.MIN_ROWS_FOR_BLOCKS

    def _solve(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        held_out: tuple[np.ndarray, ...] | None,
        random: np.random.RandomState,
        checkpoint: Any,
    ) -> Any:
        """The closed form if it leaves no clear error; else the better of it and training."""
        quick = None
        if _auto.may_do_without_training(self):
            same = copy.deepcopy(random)
            quick = self._solve_without_training(X, y, weight, held_out, same, checkpoint)
        if quick is not None and self._leaves_nothing(quick, X, y, weight, held_out):
            return quick
        trained = super()._solve(X, y, weight, held_out, random, checkpoint)
        # Without validation rows, the errors of training tell nothing about which is better.
        if quick is None or held_out is None or trained[1].interrupted:
            return trained
        return min(quick, trained, key=lambda fitted: fitted[1].best_loss)

    @staticmethod
    def _leaves_nothing(
        quick: Any,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        held_out: tuple[np.ndarray, ...] | None,
    ) -> bool:
        """Whether a closed-form fit leaves hardly any error, or noise only.

        Neighbours tell noise only where they are near, that is on few axes.
        """
        model, result = quick
        if result.history[-1]["ridge_score"] <= _auto.CLEAR_ERROR:
            return True
        if held_out is None or model.net.axes is None:
            return False
        rows, others = model.rows(X, y, weight), model.rows(*held_out)
        return _closed_form.leaves_noise(model.net, rows, others)

    def _solve_without_training(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        held_out: tuple[np.ndarray, ...] | None,
        random: np.random.RandomState,
        checkpoint: Any,
    ) -> Any:
        """None for experts that do not end in a linear map."""
        model, rows = self._start(X, y, weight, random, "ridge", keep=False)
        if model.net.output_map() is None:
            return None
        return self._solve_by("ridge", model, rows, held_out, random, checkpoint)

    def _layers(self, arrays: Any, layer: int | None, stack: bool = False) -> Any:
        if layer not in (None, 0):
            raise ValueError(f"layer must be None or 0, of one layer. Got {layer!r}.")
        return arrays[0]

    def _expert_answers(self, model: FittedModel, X: np.ndarray) -> Any:
        answers = model.experts(X)[0][..., : model.n_targets]
        center = model.y_scaling.center if self._intercept_in_experts(model) else 0.0
        answers = center + model.y_scaling.scale * answers
        return [answers[..., 0] if self._y_ndim == 1 else answers]

    @staticmethod
    def _intercept_in_experts(model: FittedModel) -> bool:
        (layer,) = model.net.moe_layers()
        return layer.shared is None and layer.router.weights_sum_to_one
