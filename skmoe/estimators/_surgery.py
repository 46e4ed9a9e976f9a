"""What both estimators can do after a fit: `fine_tune` and `compress`."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skmoe import surgery
from skmoe._registry import did_you_mean
from skmoe._settings import check_integer, check_number
from skmoe._validation import (
    check_features,
    check_is_fitted,
    check_rows,
    random_of,
)
from skmoe.estimators._parameters import check_goes_on
from skmoe.model import FittedModel
from skmoe.nn.adapters import AdaptedNetwork
from skmoe.nn.base import Network
from skmoe.plan import TrainingPlan, TrainingResult

METHODS = ("experts", "adapters", "all")
SCORES = ("gate", "token")
# Scores of the experts that are tuned add up to this. The paper takes 0.1 and 0.2, of 64
# experts in each of many layers; of a few in one layer, that leaves half of the gain.
THRESHOLD = 0.9
COMPRESSIONS = ("latent", "mpo")
# What these tell of a model, and no longer of the next one.
OF_AFTER_FIT = (
    "expert_scores_",
    "tuned_experts_",
    "n_tuned_weights_",
    "compression_errors_",
    "singular_values_",
)


class AfterFit:
    """`fine_tune` and `compress`, of an estimator with these steps of a fit."""

    loss: Any
    random_state: Any
    _model: FittedModel
    _arithmetic: Callable[[int], AbstractContextManager[None]]
    _with_validation: Callable[..., tuple[Any, ...]]
    _plan: Callable[..., TrainingPlan]
    _train: Callable[..., TrainingResult]
    _finish: Callable[..., Any]

    def fine_tune(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        method: str = "experts",
        score: str = "gate",
        threshold: float = THRESHOLD,
        adapters: dict[str, Any] | None = None,
        learning_rate: float | None = None,
        max_epochs: int | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Go on learning on new rows, with some of the weights.

        Expert-specialised fine-tuning (Wang et al., "Let the Expert Stick to His Last", 2024):
        the experts with the largest scores learn, all else is frozen: gates, the other
        experts, shared experts and the scaling stay as they are, to the bit. A row that only
        frozen experts answer keeps its prediction. Or adapters are put around the model, all
        of which then is frozen (`skmoe.nn.adapters`).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features of the new rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their targets.
        sample_weight : array-like of shape (n_samples,), optional
            Their weights.
        method : {"experts", "adapters", "all"}, default="experts"
            "adapters": small new maps, which add nothing at first; the next call goes on with
            them. "all" lets all weights learn, for comparison.
        score : {"gate", "token"}, default="gate"
            What counts of an expert: its mean weight on X, or the share of the rows' choices
            that it is, which needs `top_k`. Scores of a layer add up to one.
        threshold : float, default=0.9
            The fewest experts of each layer are tuned whose scores add up to this, in (0, 1];
            1 takes all that are asked. See `benchmarks.fine_tuning` for what less costs.
        adapters : dict, optional
            Settings of new adapters: `rank` (8), `bottleneck` (16) and `router` ("sigmoid").
        learning_rate : float, optional
            Largest step. By default that of the fit.
        max_epochs : int, optional
            Passes over X. By default as many as a fit of so many rows has.
        X_val, y_val, sample_weight_val : array-like, optional
            Rows to choose the best epoch by, instead of a part of X (see `early_stopping`).

        Returns
        -------
        self : object
            With `n_tuned_weights_`, how many weights learned; `expert_scores_` of shape
            (n_layers, n_experts), and `tuned_experts_`, an array of experts for each layer,
            which tell what "experts" tunes.

        Raises
        ------
        ValueError
            If a parameter is out of range, or X and y do not fit the model.

        Examples
        --------
        >>> from skmoe import MoERegressor
        >>> from skmoe.datasets import make_circle_regression
        >>> X, y = make_circle_regression(300, random_state=0)
        >>> moe = MoERegressor(8, top_k=2, random_state=0).fit(X, y)
        >>> some = X[:, 0] > 0.5
        >>> moe.fine_tune(X[some], y[some] + 1, threshold=0.5).tuned_experts_[0].size < 8
        True
        """
        check_is_fitted(self)
        _check_name("method", method, METHODS)
        _check_name("score", score, SCORES)
        if adapters is not None and method != "adapters":
            raise ValueError(f"adapters needs method='adapters'. Got method={method!r}.")
        threshold = check_number("threshold", threshold, largest=1, open_=True)
        X, y, weight, seen = check_rows(self, X, y, sample_weight, reset=False)
        check_goes_on(self.loss, self._model, y)
        random = random_of(self.random_state)
        given = X_val, y_val, sample_weight_val
        split = X, y, weight, given, seen, random, self._model.net.is_ensemble
        X, y, weight, held_out = self._with_validation(*split)
        model = replace(self._model, net=copy.deepcopy(self._model.net))
        plan = self._tuning_plan(len(X), model.net, learning_rate, max_epochs)
        if method == "adapters":
            if model.is_distribution:
                raise ValueError("method='adapters' needs a loss of predictions.")
            seed = int(random.randint(2**31 - 1))
            model = surgery.with_adapters(model, adapters or {}, seed)
        scores = surgery.expert_scores(model, X, weight, score)
        chosen = surgery.experts_to_tune(scores, threshold)
        rows = model.rows(X, y, weight)
        held_out = None if held_out is None else model.rows(*held_out)
        learning, plan = _what_learns(method, model.net, chosen, plan)
        with self._arithmetic(len(X)), learning as n_weights:
            result = self._train(model, rows, held_out, plan, random, keep=False)
        told = {"expert_scores_": scores, "tuned_experts_": chosen}
        told["n_tuned_weights_"] = n_weights
        self._finish(model, result, X, weight, seen, keep_optimizer=False, **told)
        return self

    def _tuning_plan(
        self, n_rows: int, network: Any, learning_rate: float | None, max_epochs: int | None
    ) -> TrainingPlan:
        plan = self._plan(n_rows, network)
        if learning_rate is not None:
            rate = check_number("learning_rate", learning_rate, open_=True)
            plan = replace(plan, learning_rate=rate)
        if max_epochs is not None:
            plan = replace(plan, max_epochs=check_integer("max_epochs", max_epochs))
        return plan

    def compress(
        self, method: str = "latent", *, rank: int, X: ArrayLike | None = None
    ) -> Self:
        """The same function with fewer weights, as far as that is possible.

        The hidden maps of all "mlp" experts of a layer are factorised together; gates, outputs
        and all else stay.

        Parameters
        ----------
        method : {"latent", "mpo"}, default="latent"
            "latent": maps ``B A_e`` behind a common encoder B, the best there is by squared
            errors (Liu et al., "Mixture of Latent Experts", 2025). "mpo": matrix product
            operators that share their core and one end (Gao et al., 2022).
        rank : int
            Dimension of the common encoding, at most that of what experts see; or the largest
            dimension of a bond. With the largest ranks nothing is lost.
        X : array-like of shape (n, n_features), optional
            For "latent": rows by which errors of a map count, as what it makes of them changes.

        Returns
        -------
        estimator : object
            A copy with the smaller model, `compression_errors_`, what is lost of the squares of
            the maps of each layer, and `singular_values_`, a list of arrays. This one stays as
            it is. The copy's parameters are those of before, so that fitting it again
            gives a model that is not compressed.

        Raises
        ------
        ValueError
            If experts are of another kind than "mlp", or `rank` is out of range.

        Examples
        --------
        >>> from skmoe import MoERegressor
        >>> from skmoe.datasets import make_manifold_regression
        >>> X, y = make_manifold_regression(300, n_features=20, random_state=0)
        >>> moe = MoERegressor(4, embedding=None, random_state=0).fit(X, y)
        >>> small = moe.compress(rank=6)
        >>> count = lambda moe: sum(weight.numel() for weight in moe.net_.parameters())
        >>> count(small) < count(moe)
        True
        """
        check_is_fitted(self)
        _check_name("method", method, COMPRESSIONS)
        rank = check_integer("rank", rank)
        X = None if X is None else check_features(self, X)
        result = surgery.compressed(self._model, method, rank, X)
        small = copy.copy(self)
        small.__dict__.update(
            _model=result.model,
            _optimizer_state=None,
            compression_errors_=result.errors,
            singular_values_=result.singular_values,
        )
        return small


def _what_learns(
    method: str, network: Network, chosen: list[NDArray[np.intp]], plan: TrainingPlan
) -> tuple[AbstractContextManager[int], TrainingPlan]:
    """A context in which only the right weights learn, and the plan for it."""
    if method == "all":
        return surgery.all_learn(network), plan
    if method == "adapters":
        adapted = cast(AdaptedNetwork, network)
        plan = replace(plan, at_rest=list(adapted.base.modules()))
        return surgery.only_adapters_learn(adapted), plan
    plan = replace(plan, at_rest=surgery.modules_at_rest(network), weight_decay=0.0)
    return surgery.only_experts_learn(network, chosen), plan


def _check_name(parameter: str, value: Any, valid: Any) -> None:
    if value not in valid:
        raise ValueError(
            f"{parameter} must be one of {list(valid)}. Got {value!r}."
            f"{did_you_mean(value, valid)}"
        )
