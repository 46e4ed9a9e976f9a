"""Settings of parts, as ``gate__hidden_dim``, where a part was given by its name alone."""

from typing import Any, Self

from sklearn.base import BaseEstimator

from skmoe._registry import part
from skmoe._validation import PartOf


class NestedSettings(BaseEstimator):
    """`set_params` that makes a part of a name, for settings to go to."""

    def set_params(self, **params: Any) -> Self:
        """Change parameters, and settings of parts.

        Parameters
        ----------
        **params
            Parameters by name, and settings as ``gate__hidden_dim``: of a part that is given
            by its name, ``gate="mlp"``, they make ``part("mlp", hidden_dim=...)``.

        Returns
        -------
        self : object
            The estimator.
        """
        own = {name: value for name, value in params.items() if "__" not in name}
        nested = {name: value for name, value in params.items() if name not in own}
        made = {}
        for name in nested:
            parameter = name.partition("__")[0]
            given = own.get(parameter, getattr(self, parameter, None))
            if isinstance(given, str) and given in self._parts_of(parameter):
                made[parameter] = part(given)
            elif isinstance(given, str):
                raise ValueError(
                    f"{name} is a setting of a part. Got {parameter}={given!r}, which names "
                    f"none: set {parameter} first."
                )
        super().set_params(**own | made)
        return super().set_params(**nested)

    def _parts_of(self, parameter: str) -> set[str]:
        """Names of the parts that it may be."""
        constraints = self._parameter_constraints.get(parameter, ())
        return {one for kind in constraints if isinstance(kind, PartOf) for one in kind.options}
