"""Validation of parameters and rows. Only this file imports private names of scikit-learn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import _fit_context
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    StrOptions,
)
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from skmoe._registry import Part, Registry, did_you_mean
from skmoe.shared_work import same

__all__ = [
    "SEEN",
    "PartOf",
    "PartsOf",
    "at_least",
    "check_feature_names_in",
    "check_features",
    "check_is_fitted",
    "check_rows",
    "check_validation_rows",
    "check_weight",
    "fit_context",
    "fitted_estimator",
    "fraction",
    "not_negative",
    "one_of",
    "positive",
    "validate_parameters",
]

# Checks parameters before a fit, and takes leave of scikit-learn's callbacks after it, as its
# `with_callbacks` does.
fit_context = _fit_context(prefer_skip_nested_validation=True)


# What validation learns of X, as scikit-learn names it.
SEEN = ("n_features_in_", "feature_names_in_")


class _Integers(Interval):
    """Integers, of which True is none."""

    def is_satisfied_by(self, value: Any) -> bool:
        return not isinstance(value, bool) and super().is_satisfied_by(value)


def at_least(smallest: int) -> Interval:
    """Integers from `smallest` on."""
    return _Integers(Integral, smallest, None, closed="left")


def positive() -> Interval:
    """Positive numbers."""
    return Interval(Real, 0, None, closed="neither")


def fraction() -> Interval:
    """Numbers strictly between 0 and 1."""
    return Interval(Real, 0, 1, closed="neither")


def not_negative() -> Interval:
    """Numbers from 0 on."""
    return Interval(Real, 0, None, closed="left")


def fitted_estimator() -> HasMethods:
    """An estimator that can predict."""
    return HasMethods("predict")


def one_of(*names: str) -> StrOptions:
    """One of these strings."""
    return StrOptions(set(names))


class PartOf(StrOptions):
    """A part from a registry: its name, the name with settings, or a class of one's own."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(set(registry))

    def is_satisfied_by(self, value: Any) -> bool:
        name = value.name if isinstance(value, Part) else value
        return name in self.options if isinstance(name, str) else callable(name)

    def __str__(self) -> str:
        names = ", ".join(repr(name) for name in sorted(self.options))
        return f"a str among {{{names}}} (alone or in part(...)), a class"


class NamedPartOf(PartOf):
    """A part from a registry by its name: what a file must be able to name."""

    def is_satisfied_by(self, value: Any) -> bool:
        name = value.name if isinstance(value, Part) else value
        return isinstance(name, str) and name in self.options

    def __str__(self) -> str:
        return super().__str__().removesuffix(", a class")


class PartsOf(PartOf):
    """A part from a registry, or a list of them."""

    def is_satisfied_by(self, value: Any) -> bool:
        if isinstance(value, list | tuple):
            return len(value) > 0 and all(map(super().is_satisfied_by, value))
        return super().is_satisfied_by(value)

    def __str__(self) -> str:
        return f"{super().__str__()}, a list of them"


def validate_parameters(estimator: Any, validate: Callable[[], Any]) -> None:
    """Run scikit-learn's check; name the nearest valid name when a name is wrong."""
    try:
        validate()
    except InvalidParameterError as error:
        hint = _nearest_valid_name(estimator)
        raise InvalidParameterError(f"{error}{hint}") from None


def _nearest_valid_name(estimator: Any) -> str:
    for parameter, constraints in estimator._parameter_constraints.items():
        value = getattr(estimator, parameter)
        valid = {
            option
            for constraint in constraints
            for option in getattr(constraint, "options", ())
        }
        for one in value if isinstance(value, list | tuple) else [value]:
            name = one.name if isinstance(one, Part) else one
            if isinstance(name, str) and valid and name not in valid:
                return did_you_mean(name, valid)
    return ""


def random_of(setting: Any) -> np.random.RandomState:
    """Where a call takes its random numbers from, by its `random_state`.

    Of None a generator of its own: scikit-learn would take, and move, the global one.
    """
    return np.random.RandomState() if setting is None else check_random_state(setting)


def check_weight(sample_weight: ArrayLike | None, X: Any) -> np.ndarray:
    """Weights of the rows of X; ones without any."""
    return _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)


def check_rows(
    estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None, *, reset: bool
) -> Any:
    """Rows to learn from, as float arrays; those of weight zero are left out.

    Returns
    -------
    X : ndarray of shape (n, D), float32 or float64
    y : ndarray of shape (n, n_outputs), float64
    weight : ndarray of shape (n,), float64
    seen : dict
        What the estimator is to remember of X and y, if the fit comes to its end: number and
        names of the features, and the dimensions of y as `_y_ndim`.
    """
    # A fit that fails must not change what the estimator knows.
    fresh = _remembering(estimator, {}) if reset else estimator
    with _telling_cures(X, y):
        X, y = validate_data(
            fresh,
            X,
            y,
            reset=reset,
            dtype=(np.float64, np.float32),
            multi_output=True,
            y_numeric=True,
        )
        # As float64: what is finite as float128 or an object may not be after the cast.
        y = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
    seen = {name: vars(fresh)[name] for name in SEEN if name in vars(fresh)}
    seen["_y_ndim"] = y.ndim
    weight = check_weight(sample_weight, X)
    kept = weight > 0
    if not kept.all():
        X, y, weight = X[kept], y[kept], weight[kept]
    return same(X), same(y.reshape(len(y), -1)), same(weight), seen


def _remembering(estimator: Any, seen: dict[str, Any]) -> Any:
    """An estimator with the same parameters that has seen this."""
    other = type(estimator)(**estimator.get_params(deep=False))
    vars(other).update(seen)
    return other


def check_validation_rows(
    estimator: Any, seen: dict[str, Any], rows: tuple[Any, ...], n_outputs: int
) -> Any:
    """The user's own validation rows ``(X, y, weight)``, checked against what `fit` saw."""
    X_val, y_val, sample_weight_val = rows
    if y_val is None:
        raise ValueError("y_val is required when X_val is given. Got y_val=None.")
    fitted = _remembering(estimator, seen)
    X, y, weight, _ = check_rows(fitted, X_val, y_val, sample_weight_val, reset=False)
    if y.shape[1] != n_outputs:
        raise ValueError(
            f"y_val must have as many outputs as y. Got {y.shape[1]} and {n_outputs}."
        )
    return X, y, weight


def refuse_without_rows(rows: tuple[Any, ...]) -> None:
    """Refuse targets or weights of validation rows that are not given themselves."""
    X_val, y_val, sample_weight_val = rows
    for name, given in (("y_val", y_val), ("sample_weight_val", sample_weight_val)):
        if X_val is None and given is not None:
            raise ValueError(f"X_val is required when {name} is given. Got X_val=None.")


def check_feature_names_in(estimator: Any, input_features: Any) -> None:
    """Refuse names of features that are not those of the fit; None stands for these."""
    _check_feature_names_in(estimator, input_features, generate_names=False)


def check_features(estimator: Any, X: Any) -> np.ndarray:
    """Rows to predict for, in the precision that they come in."""
    with _telling_cures(X):
        return validate_data(estimator, X, reset=False, dtype=(np.float64, np.float32))


@contextmanager
def _telling_cures(X: Any, y: Any = None) -> Iterator[None]:
    """Add to errors about missing values, strings and dates what to do."""
    try:
        yield
    except (ValueError, TypeError) as error:
        cure = ""
        if "could not convert string" in str(error) or "promoted" in str(error):
            cure = _cure_of_strings(X, y)
        elif "X contains NaN" in str(error):
            cure = (
                "Fill missing values first, as with "
                "make_pipeline(sklearn.impute.SimpleImputer(), ...)."
            )
        if not cure:
            raise
        raise ValueError(f"{error}\n{cure}") from None


def _cure_of_strings(X: Any, y: Any) -> str:
    if y is not None and not _is_numeric(y):
        return "y must be numeric: these are regressors."
    columns = getattr(X, "columns", None)
    if columns is None:
        X = np.asarray(X)
        named = {number: X[:, number] for number in range(X.shape[1])} if X.ndim == 2 else {}
    else:
        named = {name: X[name] for name in columns}
    strings = [name for name, values in named.items() if not _is_numeric(values)]
    return (
        f"Features must be numeric. Got strings or dates in the columns {strings}. Encode them "
        "first, with OneHotEncoder or TargetEncoder of sklearn.preprocessing."
    )


def _is_numeric(values: Any) -> bool:
    array = np.asarray(values)
    try:
        array.astype(np.float64)
    except (ValueError, TypeError):
        return False
    return array.dtype.kind not in "mM"


def check_outputs(y: np.ndarray, n_outputs: int) -> None:
    """Refuse targets of another number of outputs than in the first fit."""
    if y.shape[1] != n_outputs:
        raise ValueError(
            f"y must have as many outputs as in the first fit. Got {y.shape[1]} and "
            f"{n_outputs}."
        )
