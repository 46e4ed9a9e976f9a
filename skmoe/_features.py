"""Names of features, and columns by their names."""

from numbers import Integral
from typing import Any


def feature_names(estimator: Any) -> list[str]:
    """Those of the data frame that a fitted estimator saw, else "feature 0" and so on."""
    n_features = estimator.n_features_in_
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return [f"feature {i}" for i in range(n_features)]
    return [str(name) for name in names]


def feature_column(estimator: Any, feature: int | str) -> int:
    """The number of a column that is given by its number or name."""
    names = feature_names(estimator)
    if isinstance(feature, str):
        if feature not in names:
            raise ValueError(f"feature must be one of {names}. Got {feature!r}.")
        return names.index(feature)
    if not isinstance(feature, Integral) or int(feature) not in range(len(names)):
        raise ValueError(f"feature must be in [0, {len(names) - 1}]. Got {feature!r}.")
    return int(feature)
