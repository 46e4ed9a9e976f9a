"""How many experts, how many layers: ready search spaces, and a curve over E.

For those who do not know. The defaults adapt to the number of rows and need none of this;
`search_space` gives the parameters that are worth a search, in few and sensible values, to
any search of scikit-learn; `experts_curve` shows what more experts bring.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GridSearchCV, KFold

from skmoe._optional import import_optional
from skmoe.batched_search import BatchedGridSearchCV
from skmoe.estimators import _auto

__all__ = ["BatchedGridSearchCV", "ExpertsCurve", "experts_curve", "search_space"]

# Rows that an expert should have to learn from, and most experts of a space.
ROWS_PER_EXPERT = 25
MOST_EXPERTS = 32
KINDS = ("grid", "distributions", "optuna")
DEFAULT_CURVE = (1, 2, 4, 8, 16)
# Up to so many features, one more candidate without numeric embedding is worth its time.
FEW_FEATURES = 128


def search_space(
    estimator: Any,
    n_samples: int | None = None,
    n_features: int | None = None,
    *,
    kind: str = "grid",
    prefix: str | None = None,
) -> dict[str, Any]:
    """Parameters worth a search, most important ones first, for `estimator`.

    Parameters
    ----------
    estimator : MoERegressor, DeepMoERegressor, or an estimator around one
        What is to be searched over, such as a pipeline.
    n_samples, n_features : int, optional
        Shape of the training data: few rows get few experts, many features no numeric
        embedding. Without them, the space is one for some thousand rows.
    kind : {"grid", "distributions", "optuna"}, default="grid"
        "grid" has two or three values for each of the parameters that matter most, for
        `GridSearchCV` and `HalvingGridSearchCV`. "distributions" has more values of more
        parameters, some of them continuous, for `RandomizedSearchCV` and
        `HalvingRandomSearchCV`: some 20 draws find most of what there is to find. "optuna" is
        the same for `optuna.Study.ask` and for `OptunaSearchCV`; it needs the package optuna
        (``pip install skmoe[search]``).
    prefix : str, optional
        What to put in front of each name, such as ``"moe__"`` for a step of a pipeline. By
        default it is read off `estimator`.

    Returns
    -------
    space : dict
        Names of parameters to lists of values, or to distributions.

    Raises
    ------
    ValueError
        If `kind` is unknown, or `estimator` holds no mixture of experts, or several.
    ImportError
        If optuna is asked for and not installed.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skmoe import DeepMoERegressor, MoERegressor
    >>> from skmoe.search import search_space
    >>> search_space(MoERegressor(), n_samples=1000)
    {'n_experts': ['auto', 2, 32], 'learning_rate': [0.00333..., 0.01]}
    >>> pipeline = make_pipeline(StandardScaler(), DeepMoERegressor())
    >>> list(search_space(pipeline, n_samples=1000))
    ['deepmoeregressor__n_experts', 'deepmoeregressor__n_layers', ...]
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)}. Got kind={kind!r}.")
    names = estimator.get_params()
    own = _prefix_of(names) if prefix is None else prefix
    deep = f"{own}n_layers" in names
    n_samples = n_samples or 4000
    rate = names.get(f"{own}learning_rate", "auto")
    if rate == "auto":
        few = n_samples < _auto.MIN_ROWS_FOR_ONE_NET
        rate = _auto.ENSEMBLE_RATE if few else _auto.RATE
    make = _grid if kind == "grid" else _distributions
    space = make(n_samples, n_features or 1, deep, rate)
    if kind == "optuna":
        space = _of_optuna(space)
    return {f"{own}{name}": values for name, values in space.items()}


def _prefix_of(names: dict[str, Any]) -> str:
    """What stands before ``n_experts`` in the names of the parameters."""
    found = [name for name in names if name == "n_experts" or name.endswith("__n_experts")]
    if len(found) != 1:
        raise ValueError(
            f"estimator must hold one mixture of experts, with a parameter n_experts. Got "
            f"{len(found)} of them."
        )
    return found[0].removesuffix("n_experts")


def _numbers_of_experts(n_samples: int, factor: int) -> list[int]:
    """From two on, as many as the rows can feed; one where they feed no two."""
    most = min(max(n_samples // ROWS_PER_EXPERT, 1), MOST_EXPERTS)
    numbers = [1 if most == 1 else 2]
    while numbers[-1] * factor <= most:
        numbers.append(numbers[-1] * factor)
    return numbers


def _with_default(n_samples: int, factor: int) -> list[int | str]:
    """The default is among them, as a search should find nothing worse."""
    # It is 8 for many rows, and fits the rows elsewhere.
    numbers = _numbers_of_experts(n_samples, factor)
    return ["auto", *(number for number in numbers if number != 8)]


def _grid(n_samples: int, n_features: int, deep: bool, rate: float) -> dict[str, Any]:
    space: dict[str, Any] = {"n_experts": _with_default(n_samples, 4)}
    if deep:
        space["n_layers"] = [2, 8]
    return space | {"learning_rate": [rate / 3, rate]}


def _distributions(n_samples: int, n_features: int, deep: bool, rate: float) -> dict[str, Any]:
    from scipy.stats import loguniform

    numbers = _with_default(n_samples, 2)
    space: dict[str, Any] = {"n_experts": numbers}
    if deep:
        space["n_layers"] = [1, 2, 4, 8, 16]
    space |= {
        "learning_rate": loguniform(rate / 5, rate * 2),
        "hidden_dim": [16, 32, 64, 128],
        "top_k": ["auto"] if 1 in numbers else ["auto", 1, 2],
        "gate": ["linear", "deep"],
        "weight_decay": loguniform(1e-4, 1e-1),
    }
    if n_features <= FEW_FEATURES:
        space["embedding"] = ["auto", None]
    return space


def _of_optuna(space: dict[str, Any]) -> dict[str, Any]:
    """The same distributions as optuna's."""
    optuna = import_optional("optuna.distributions", "kind='optuna' needs optuna", "search")
    return {
        name: optuna.CategoricalDistribution(values)
        if isinstance(values, list)
        else optuna.FloatDistribution(*values.support(), log=True)
        for name, values in space.items()
    }


@dataclass(frozen=True, eq=False)
class ExpertsCurve:
    """Scores over the number of experts; greater is better."""

    n_experts: NDArray[np.intp]
    """Numbers of experts, of shape (n_points,)."""
    train_scores: NDArray[np.float64]
    """Scores on the training rows, of shape (n_points, n_folds)."""
    test_scores: NDArray[np.float64]
    """Scores on rows that were left out, likewise."""
    fit_times: NDArray[np.float64]
    """Mean seconds of a fit, of shape (n_points,)."""

    @property
    def best_n_experts_(self) -> int:
        """The fewest experts within one standard error of the best mean test score.

        The one-standard-error rule (Breiman et al., 1984): a difference that the folds
        cannot tell from chance is not worth more experts. With a single fold there is no
        standard error, and the best score decides.
        """
        means = self.test_scores.mean(axis=1)
        best = int(np.nanargmax(means))
        n_folds = self.test_scores.shape[1]
        error = 0.0
        if n_folds > 1:
            error = self.test_scores[best].std(ddof=1) / np.sqrt(n_folds)
        return int(self.n_experts[means >= means[best] - error].min())


def experts_curve(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_experts: Any = DEFAULT_CURVE,
    cv: Any = None,
    scoring: Any = None,
    n_jobs: int | None = None,
    random_state: Any = None,
    **fit_params: Any,
) -> ExpertsCurve:
    """Cross-validated scores over the number of experts.

    Parameters
    ----------
    estimator : MoERegressor, DeepMoERegressor, or an estimator around one
        Its other parameters stay as they are; it is not fitted itself.
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Targets.
    n_experts : iterable of int, default=(1, 2, 4, 8, 16)
        Numbers to try.
    cv : int, splitter or iterable, default=None
        Folds, as in scikit-learn; None and a number stand for 5 or so many shuffled folds.
    scoring : str or callable, default=None
        Score, as in scikit-learn; None takes the estimator's own, R^2.
    n_jobs : int, default=None
        Fits at the same time.
    random_state : int or RandomState instance, default=None
        Seed of the shuffled folds.
    **fit_params
        Passed to `fit`; ``sample_weight`` counts in the scores too.

    Returns
    -------
    curve : ExpertsCurve
        With `n_experts`, `train_scores`, `test_scores`, `fit_times` and `best_n_experts_`,
        the smallest number within one standard error of the best.

    See Also
    --------
    skmoe.plotting.ExpertsCurveDisplay : Draws it.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.search import experts_curve
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(solver="ridge", hidden_dim=8, random_state=0)
    >>> curve = experts_curve(moe, X, y, n_experts=(1, 2, 4), cv=3, random_state=0)
    >>> curve.test_scores.shape
    (3, 3)
    >>> int(curve.best_n_experts_) in (1, 2, 4)
    True
    """
    name = f"{_prefix_of(estimator.get_params())}n_experts"
    numbers = [int(number) for number in n_experts]
    if isinstance(scoring, list | tuple | set | dict):
        raise ValueError(f"scoring must be a single one. Got {scoring!r}.")
    if cv is None or isinstance(cv, Integral):
        cv = KFold(cv or 5, shuffle=True, random_state=random_state)
    search = GridSearchCV(
        estimator,
        {name: numbers},
        scoring=scoring,
        cv=cv,
        n_jobs=n_jobs,
        refit=False,
        return_train_score=True,
        error_score="raise",
    ).fit(X, y, **fit_params)
    found = search.cv_results_
    return ExpertsCurve(
        np.array(numbers),
        _of_folds(found, "train_score"),
        _of_folds(found, "test_score"),
        found["mean_fit_time"],
    )


def _of_folds(found: dict[str, Any], what: str) -> NDArray[np.float64]:
    """One column for each fold."""
    n_folds = sum(key.startswith("split") and key.endswith(f"_{what}") for key in found)
    return np.column_stack([found[f"split{fold}_{what}"] for fold in range(n_folds)])
